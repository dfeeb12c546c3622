//! Invocations: what happened to each call, from its arrival on.

use std::sync::Arc;

use axum::extract::State as Shared;
use fp_core::code::Code;
use fp_core::decided;
use fp_core::record::{Invocation, Kept, Phases, State, Trigger};
use fp_core::settings::Criticality;
use fp_core::{Blame, InvocationId, Outcome, Scope};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::extract::{Answer, ApiQuery, InvocationPath, no_invocation, wrong_parameter};
use super::time::{point_in_time, rfc3339};
use crate::app::App;
use crate::history::{Entry, Filter, Lookup, Page, RunningView};
use crate::http::caller::Caller;
use crate::http::openapi;
use crate::http::problem::Problem;

pub(super) fn routes() -> [UtoipaMethodRouter<Arc<App>>; 2] {
    [routes!(list_invocations), routes!(get_invocation)]
}

/// One invocation: its record, or what is known of it while it runs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Invocation)]
pub(super) struct InvocationView {
    #[serde(flatten)]
    pub(super) call: Call,
    #[serde(flatten)]
    ended: Ended,
}

/// What is known of a call from its arrival on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Call {
    /// Its id, as in the answer's `X-Serverless-Instance-Id`.
    #[schema(example = "0190b2a8-4e5c-7cc1-b4a5-0d2f6a1c9e11")]
    pub(super) id: String,
    /// The function.
    #[schema(example = "cats")]
    pub(super) function: String,
    /// The version of it that was called.
    version: u32,
    /// The event type that matched.
    #[schema(example = "http|GET|/api/cats")]
    event_type: String,
    /// `http`, or `async` for a call from `POST /functions/trigger`.
    #[schema(value_type = String, example = "http")]
    trigger: Trigger,
    /// The verb.
    #[schema(example = "GET")]
    verb: String,
    /// The path, percent-decoded, without the query string.
    #[schema(example = "/api/cats")]
    path: String,
    /// `queued`, `running` or `done`.
    #[schema(value_type = String, example = "done")]
    state: State,
    /// When it arrived.
    #[schema(format = DateTime)]
    started_at: String,
    /// The caller's `X-Correlation-Id`, or ours.
    correlation_id: String,
    /// Its trace: `/api/traces/{trace_id}` on the traces port.
    trace_id: String,
    /// The root span of the call.
    span_id: String,
    /// The caller's span.
    parent_span_id: Option<String>,
    /// The function that called, known where its network is internal.
    called_by: Option<String>,
    /// The span of another tenant's trace that called, as `<trace>-<span>`; told once it has ended.
    link: Option<String>,
    /// Its class.
    #[schema(value_type = String, example = "default")]
    criticality: Criticality,
    /// Time given to the call, in milliseconds.
    deadline_ms: u64,
    /// Who set that: `timeout`, the function's own, or the caller's header, in lower case; null where the
    /// record does not say.
    #[schema(example = "timeout")]
    deadline_from: Option<&'static str>,
    /// The worker that ran it.
    #[schema(example = "w17")]
    worker: Option<String>,
}

/// How a call ended; all null until then.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Ended {
    /// The outcome.
    #[schema(value_type = Option<openapi::OutcomeWord>)]
    outcome: Option<&'static str>,
    /// Why, for outcomes that have several reasons.
    reason: Option<&'static str>,
    /// `caller`, `function` or `platform`; null when nobody is.
    #[schema(value_type = Option<String>)]
    blame: Option<Blame>,
    /// The HTTP status; 499 when the caller had left.
    status: Option<u16>,
    /// Type and message of the exception, or of the platform's error.
    error: Option<String>,
    /// From its arrival to the last byte of its answer, in milliseconds.
    duration_ms: Option<f64>,
    /// Where the time went.
    phases: Option<PhasesView>,
    /// Starting a worker was part of it.
    cold: Option<bool>,
    /// Dispatches to a worker.
    attempts: Option<u8>,
    /// Calls ahead of it when it arrived.
    queue_length: Option<u32>,
    /// Size of the request's body.
    request_bytes: Option<u64>,
    /// Size of the answer's body.
    response_bytes: Option<u64>,
    /// Size of its logs before they were cut.
    log_bytes: Option<u64>,
    /// CPU time of the handler, in milliseconds.
    cpu_ms: Option<f64>,
    /// Highest memory of its worker so far, in bytes.
    memory_peak_bytes: Option<u64>,
    /// The limit that it hit: `memory`, `worker_memory`, `tasks`, `files`, `disk`, `cpu`, `logs`.
    limit_hit: Option<String>,
    /// Whether it was as fast as the objective asks; null without a latency objective.
    latency_met: Option<bool>,
    /// How the answer came about when it was not the function's own.
    degraded: Option<String>,
    /// Why it had a second attempt or not, in a sentence; only where one call is asked for.
    hedging: Option<String>,
    /// What was decided about it besides, in sentences: why it waited, was refused, or had its worker replaced;
    /// only where one call is asked for. The numbers are in its trace.
    decisions: Option<Vec<String>>,
    /// How many calls this record stands for: more than 1 when history was sampled.
    weight: Option<u32>,
    /// The answer's body, of calls from `POST /functions/trigger`.
    result: Option<String>,
}

/// Where the time of a call went, in milliseconds.
#[derive(Debug, Serialize, ToSchema)]
struct PhasesView {
    /// Reading and routing the request.
    route: f64,
    /// Waiting for a worker.
    queue: f64,
    /// Starting the worker; 0 when it was warm.
    start: f64,
    /// In the handler.
    run: f64,
    /// Writing the answer.
    send: f64,
}

impl From<Phases> for PhasesView {
    fn from(phases: Phases) -> Self {
        Self {
            route: milliseconds(phases.route),
            queue: milliseconds(phases.queue),
            start: milliseconds(phases.start),
            run: milliseconds(phases.run),
            send: milliseconds(phases.send),
        }
    }
}

/// Nanoseconds as milliseconds, to the microsecond.
fn milliseconds(nanoseconds: u64) -> f64 {
    (nanoseconds as f64 / 1e3).round() / 1e3
}

impl InvocationView {
    pub(super) fn of(entry: Entry) -> Self {
        match entry {
            Entry::Running(running) => Self::of_running(*running),
            Entry::Done(invocation) => Self::of_done(&invocation, None),
        }
    }

    fn of_running(running: RunningView) -> Self {
        Self { call: Call::of_running(running), ended: Ended::default() }
    }

    fn of_done(invocation: &Invocation, result: Option<&str>) -> Self {
        Self { call: Call::of_done(invocation), ended: Ended::of(invocation, result) }
    }
}

impl From<Found> for InvocationView {
    fn from(found: Found) -> Self {
        match found {
            Found::Running(running) => Self::of_running(*running),
            Found::Done(kept) => Self::of_done(&kept.invocation, kept.result.as_deref()),
        }
    }
}

impl Call {
    fn of_running(view: RunningView) -> Self {
        let RunningView { running, state, worker } = view;
        Self {
            id: running.id.to_string(),
            function: running.function.to_string(),
            version: running.version.0,
            event_type: running.event_type.to_string(),
            trigger: running.trigger,
            verb: running.verb.to_string(),
            path: running.path.to_string(),
            state,
            started_at: rfc3339(running.started_us),
            correlation_id: running.correlation_id.to_string(),
            trace_id: running.trace_id.to_string(),
            span_id: running.span_id.to_string(),
            parent_span_id: running.parent_span_id.map(|id| id.to_string()),
            called_by: running.called_by.map(|function| function.to_string()),
            link: None,
            criticality: running.criticality,
            deadline_ms: running.deadline_ms,
            deadline_from: running.deadline_from.word(),
            worker: worker.map(|id| id.to_string()),
        }
    }

    fn of_done(invocation: &Invocation) -> Self {
        Self {
            id: invocation.id.to_string(),
            function: invocation.function.to_string(),
            version: invocation.version.0,
            event_type: invocation.event_type.to_string(),
            trigger: invocation.trigger,
            verb: invocation.verb.to_string(),
            path: invocation.path.to_string(),
            state: State::Done,
            started_at: rfc3339(invocation.started_us),
            correlation_id: invocation.correlation_id.to_string(),
            trace_id: invocation.trace_id.to_string(),
            span_id: invocation.span_id.to_string(),
            parent_span_id: invocation.parent_span_id.map(|id| id.to_string()),
            called_by: invocation.called_by.as_ref().map(ToString::to_string),
            link: invocation.link.map(|link| link.to_string()),
            criticality: invocation.criticality,
            deadline_ms: invocation.deadline_ms,
            deadline_from: invocation.deadline_from.word(),
            worker: invocation.worker.map(|id| id.to_string()),
        }
    }
}

impl Ended {
    fn of(invocation: &Invocation, result: Option<&str>) -> Self {
        let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        Self {
            outcome: Some(invocation.outcome.word()),
            reason: invocation.outcome.reason(),
            blame: invocation.blame,
            status: Some(invocation.status),
            error: text(&invocation.error),
            duration_ms: Some(milliseconds(invocation.phases.total())),
            phases: Some(invocation.phases.into()),
            cold: Some(invocation.cold),
            attempts: Some(invocation.attempts),
            queue_length: Some(invocation.queue_length),
            request_bytes: Some(invocation.request_bytes),
            response_bytes: Some(invocation.response_bytes),
            log_bytes: Some(invocation.log_bytes),
            cpu_ms: Some(invocation.cpu_us as f64 / 1e3),
            memory_peak_bytes: Some(invocation.memory_peak_kib * 1024),
            limit_hit: text(&invocation.limit_hit),
            latency_met: invocation.latency_met,
            degraded: text(&invocation.degraded),
            hedging: None,
            decisions: None,
            weight: Some(invocation.weight),
            result: result.map(str::to_owned),
        }
    }
}

/// A page of invocations.
#[derive(Debug, Serialize, ToSchema)]
struct InvocationPage {
    /// Newest arrival first, calls that still run included.
    items: Vec<InvocationView>,
    /// Pass it as `cursor` for the next page; null after the last one.
    next: Option<String>,
}

impl From<Page> for InvocationPage {
    fn from(page: Page) -> Self {
        Self {
            items: page.items.into_iter().map(InvocationView::of).collect(),
            next: page.next.map(|cursor| cursor.to_string()),
        }
    }
}

/// Which invocations to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct InvocationQuery {
    /// Calls of this function.
    #[param(pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$", example = "cats")]
    function: Option<String>,
    /// Ended calls with this outcome.
    #[param(value_type = Option<openapi::OutcomeWord>, inline)]
    outcome: Option<String>,
    /// Arrived since: RFC 3339, or an age such as `1h`.
    #[param(value_type = Option<openapi::PointInTime>, inline, example = "1h")]
    since: Option<String>,
    /// Most entries to return.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 50)]
    limit: Option<String>,
    /// `next` of the page before.
    #[param(
        pattern = "^[1-9a-f][0-9a-f]{0,12}\\.[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
    )]
    cursor: Option<String>,
}

impl InvocationQuery {
    pub(super) fn filter(self, now_us: u64) -> Result<Filter, Problem> {
        let mut filter = Filter::default();
        if let Some(text) = self.function {
            let name = text
                .parse()
                .map_err(|error: fp_core::ids::IdError| wrong_parameter("function", error.to_string()));
            filter.function = Some(name?);
        }
        filter.outcome = self.outcome.map(outcome_word).transpose()?;
        filter.since_us = self.since.map(|text| since(&text, now_us)).transpose()?;
        if let Some(text) = self.limit {
            filter.limit = limit(&text)?;
        }
        let cursor = self.cursor.map(|text| text.parse());
        filter.cursor = cursor
            .transpose()
            .map_err(|error: crate::history::CursorError| wrong_parameter("cursor", error.to_string()))?;
        Ok(filter)
    }
}

fn outcome_word(text: String) -> Result<String, Problem> {
    if Outcome::ALL.iter().any(|outcome| outcome.word() == text) {
        return Ok(text);
    }
    Err(wrong_parameter(
        "outcome",
        format!("{text:?} is not an outcome; take one of docs/errors.md, such as ok"),
    ))
}

pub(super) fn since(text: &str, now_us: u64) -> Result<u64, Problem> {
    let refuse = || {
        let detail = format!("{text:?} is not a point in time; write RFC 3339, or an age such as 1h or 30m");
        wrong_parameter("since", detail)
    };
    point_in_time(text, now_us).ok_or_else(refuse)
}

/// A whole number from 1 to the longest page; `10.0` is one too, as in JSON Schema.
pub(super) fn limit(text: &str) -> Result<usize, Problem> {
    let number: Option<f64> = text.parse().ok();
    let whole = number.filter(|n| n.fract() == 0.0 && (1.0..=Filter::MAX_LIMIT as f64).contains(n));
    let refuse = || {
        wrong_parameter("limit", format!("limit {text:?} is not a number from 1 to {}", Filter::MAX_LIMIT))
    };
    whole.map(|n| n as usize).ok_or_else(refuse)
}

/// List invocations.
///
/// Newest first; calls that still run have no outcome yet.
#[utoipa::path(
    get,
    path = "/invocations",
    tag = "invocations",
    params(InvocationQuery),
    responses((status = 200, description = "A page of invocations", body = InvocationPage))
)]
async fn list_invocations(
    Shared(app): Shared<Arc<App>>,
    caller: Caller,
    ApiQuery(query): ApiQuery<InvocationQuery>,
) -> Result<Answer<InvocationPage>, Problem> {
    caller.require(Scope::Read)?;
    let filter = query.filter(app.clock.wall_now_us())?;
    let page = app.history.list(&caller.tenant, &filter).await;
    Ok(Answer(page.into()))
}

/// Look at one invocation.
///
/// Its outcome, phases, attempts, worker, sizes and trace; of a background call also its result.
#[utoipa::path(
    get,
    path = "/invocations/{id}",
    tag = "invocations",
    params(openapi::IdParam),
    responses((status = 200, description = "The invocation", body = InvocationView))
)]
async fn get_invocation(
    Shared(app): Shared<Arc<App>>,
    caller: Caller,
    InvocationPath(id): InvocationPath,
) -> Result<Answer<InvocationView>, Problem> {
    let found = find(&app, &caller, id).await?;
    let (hedging, decisions) = match &found {
        Found::Running(_) => (None, None),
        Found::Done(kept) => {
            (hedging(&app, kept), Some(kept.decisions().filter_map(decided::told).collect()))
        }
    };
    let mut view = InvocationView::from(found);
    view.ended.hedging = hedging;
    view.ended.decisions = decisions;
    Ok(Answer(view))
}

/// Why a call was hedged or not: what was noted of it, else what follows from its version's settings.
fn hedging(app: &App, kept: &Kept) -> Option<String> {
    let call = &kept.invocation;
    if let Some(sentence) = kept.hedging() {
        return Some(sentence.to_owned());
    }
    if call.attempts == 0 {
        return None;
    }
    let function = app.catalog.get(&call.tenant, &call.function)?;
    if function.version != call.version {
        return None;
    }
    let why = fp_core::hedge::ruled_out(&function.settings, &call.verb);
    let quick = "it was quick: a second attempt was not due when it ended, or none would have helped";
    Some(format!("It was not hedged: {}.", why.as_deref().unwrap_or(quick)))
}

/// An invocation that history knows.
pub(super) enum Found {
    Running(Box<RunningView>),
    Done(Arc<Kept>),
}

/// What the caller may see of an invocation.
pub(super) async fn find(app: &App, caller: &Caller, id: InvocationId) -> Result<Found, Problem> {
    caller.require(Scope::Read)?;
    match app.history.get(&caller.tenant, id).await {
        Lookup::Running(running) => Ok(Found::Running(running)),
        Lookup::Done(kept) => Ok(Found::Done(kept)),
        Lookup::SampledOut => {
            let detail = format!("invocation {id} took place, but history keeps a sample of that time");
            Err(Problem::new(Code::SampledOut, detail).reason("sampled_out"))
        }
        Lookup::Unknown => Err(no_invocation(&id.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, value: &str) -> InvocationQuery {
        let mut query = InvocationQuery::default();
        let field = match name {
            "function" => &mut query.function,
            "outcome" => &mut query.outcome,
            "since" => &mut query.since,
            "limit" => &mut query.limit,
            _ => &mut query.cursor,
        };
        *field = Some(value.to_owned());
        query
    }

    #[test]
    fn a_filter_names_the_parameter_at_fault() {
        for (name, value) in [
            ("function", "a b"),
            ("outcome", "good"),
            ("since", "soon"),
            ("limit", "0"),
            ("limit", "1001"),
            ("limit", "1.5"),
            ("limit", "NaN"),
            ("cursor", "x"),
        ] {
            let problem = query(name, value).filter(0).expect_err(value);
            assert_eq!(problem.status(), 422, "{name}={value}");
            let document: serde_json::Value = serde_json::from_slice(&problem.to_json()).expect("JSON");
            assert_eq!(document["field"], name);
        }
    }

    #[test]
    fn a_filter_takes_what_the_document_promises() {
        let filter = query("limit", "10.0").filter(0).expect("whole");
        assert_eq!(filter.limit, 10);
        assert_eq!(query("since", "1h").filter(3_600_000_001).expect("an age").since_us, Some(1));
        assert_eq!(
            query("outcome", "too_large").filter(0).expect("a word").outcome.as_deref(),
            Some("too_large")
        );
    }

    #[test]
    fn phases_are_milliseconds_to_the_microsecond() {
        assert_eq!(milliseconds(1_234_567), 1.235);
        assert_eq!(milliseconds(0), 0.0);
    }
}
