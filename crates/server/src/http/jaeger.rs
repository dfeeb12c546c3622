//! The query API of Jaeger (v1, JSON), so that its UI, Grafana and scripts can read our traces.
//!
//! A function is a service, as are those that send spans themselves; the names of spans are operations. Reading only. Answers and errors
//! have Jaeger's own envelope, and parameters that it ignores are ignored here too.

mod model;
pub(in crate::http) mod search;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use fp_core::{FunctionName, Scope, Tenant, TraceId};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use self::model::{LogLines, Room, Trace};
use self::search::{Parameters, Search};
use crate::app::App;
use crate::history::{Filter, Traces, Which};
use crate::http::caller::Caller;
use crate::http::problem::Problem;

/// Traces that are looked at to learn a service's operations: enough for each operation of a
/// function to appear, few enough to read in milliseconds.
const SAMPLE: usize = 100;

/// Most traces that are asked for by their ids at once: Jaeger's UI compares a handful.
const MOST_IDS: usize = 100;

/// The routes under `/api` of the traces port, without the guard.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/api/services", get(list_services))
        .route("/api/services/{service}/operations", get(list_service_operations))
        .route("/api/operations", get(list_operations))
        .route("/api/traces", get(search_traces))
        .route("/api/traces/{id}", get(get_trace))
        .with_state(app)
}

/// Jaeger's envelope.
#[derive(Debug, Serialize)]
struct Envelope<T> {
    data: Option<Vec<T>>,
    total: usize,
    limit: usize,
    offset: usize,
    errors: Option<Vec<JaegerError>>,
}

/// An error as Jaeger words it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct JaegerError {
    code: u16,
    msg: String,
}

impl JaegerError {
    fn bad_request(msg: impl Into<String>) -> Self {
        Self { code: 400, msg: msg.into() }
    }

    fn not_found() -> Self {
        Self { code: 404, msg: "trace not found".to_owned() }
    }
}

impl IntoResponse for JaegerError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code).unwrap_or(StatusCode::BAD_REQUEST);
        let errors = Some(vec![self]);
        envelope(status, &Envelope::<()> { data: None, total: 0, limit: 0, offset: 0, errors })
    }
}

fn answer<T: Serialize>(data: Vec<T>) -> Response {
    let total = data.len();
    envelope(StatusCode::OK, &Envelope { data: Some(data), total, limit: 0, offset: 0, errors: None })
}

fn envelope<T: Serialize>(status: StatusCode, envelope: &Envelope<T>) -> Response {
    let json = serde_json::to_vec(envelope).expect("Jaeger's answers have string keys only");
    (status, [(CONTENT_TYPE, "application/json")], json).into_response()
}

/// Functions that are deployed, and those that recent traces speak of.
async fn list_services(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let tenant = caller.tenant;
    let mut services: BTreeSet<_> = app.catalog.list(&tenant).iter().map(|f| f.name.to_string()).collect();
    let recent = app.history.search_traces(&tenant, &Filter { limit: SAMPLE, ..Filter::default() }).await;
    for trace in recent {
        services.extend(trace.functions.iter().map(|(name, _)| name.to_string()));
    }
    services.extend(app.history.services(&tenant).await);
    Ok(answer(services.into_iter().collect()))
}

async fn list_service_operations(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(service): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let operations = operations(&app, &caller.tenant, &service).await;
    Ok(answer(operations.into_iter().map(|(name, _)| name).collect()))
}

/// An operation with the kind of its spans.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Operation {
    name: String,
    span_kind: &'static str,
}

async fn list_operations(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let parameters = Parameters::parse(query.as_deref());
    let Some(service) = parameters.first("service") else {
        return Ok(JaegerError::bad_request("parameter 'service' is required").into_response());
    };
    let wanted = parameters.first("spanKind").filter(|kind| !kind.is_empty());
    let all = operations(&app, &caller.tenant, service).await.into_iter();
    let of_kind = all.filter(|(_, kind)| wanted.is_none_or(|wanted| wanted == *kind));
    Ok(answer(of_kind.map(|(name, span_kind)| Operation { name, span_kind }).collect()))
}

/// Names and kinds of the spans in a service's recent traces.
async fn operations(app: &App, tenant: &Tenant, service: &str) -> BTreeSet<(String, &'static str)> {
    let function = service.parse::<FunctionName>().ok();
    let filter = Filter { function, limit: SAMPLE, ..Filter::default() };
    let which = Which::OfService(service.to_owned(), filter);
    let service = service.to_owned();
    let read = move |traces: &mut Traces<'_>| {
        let (mut room, mut operations) = (Room::default(), BTreeSet::new());
        for found in traces {
            let trace = Trace::of(&found, LogLines::LeaveOut, &mut room);
            operations.extend(trace.operations_of(&service));
            if room.is_spent() {
                break;
            }
        }
        operations
    };
    app.history.read_traces(tenant, which, read).await.unwrap_or_default()
}

async fn search_traces(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let tenant = &caller.tenant;
    let parameters = Parameters::parse(query.as_deref());
    let ids = match ids(&parameters) {
        Ok(ids) => ids,
        Err(error) => return Ok(error.into_response()),
    };
    if !ids.is_empty() {
        let read = |traces: &mut Traces<'_>| answer(collect(traces, LogLines::Include, usize::MAX, |_| true));
        return Ok(in_turn(&app, tenant, Which::These(ids), read).await);
    }
    let search = match Search::read(&parameters, app.clock.wall_now_us()) {
        Ok(search) => search,
        Err(error) => return Ok(error.into_response()),
    };
    let newest = search.which();
    // Without log lines: a list needs none.
    let read = move |traces: &mut Traces<'_>| {
        answer(collect(traces, LogLines::LeaveOut, search.limit, |trace| search.matches(trace)))
    };
    Ok(in_turn(&app, tenant, newest, read).await)
}

/// The ids that are asked for, each once.
fn ids(parameters: &Parameters) -> Result<Vec<TraceId>, JaegerError> {
    let mut ids = Vec::new();
    for text in parameters.all("traceID") {
        let id = read_trace_id(text)?;
        if !ids.contains(&id) {
            ids.push(id);
        }
        if ids.len() > MOST_IDS {
            let detail = format!("more than {MOST_IDS} values of 'traceID'; ask for fewer at once");
            return Err(JaegerError::bad_request(detail));
        }
    }
    Ok(ids)
}

/// Has an answer made from traces, and written, where queries are run.
async fn in_turn<F>(app: &App, tenant: &Tenant, which: Which, read: F) -> Response
where
    F: FnOnce(&mut Traces<'_>) -> Response + Send + 'static,
{
    let made = app.history.read_traces(tenant, which, read).await;
    made.unwrap_or_else(|| answer::<Trace>(Vec::new()))
}

/// As many traces as wanted, of those that match, as far as there is time and room. What does not match
/// is dropped before the next one is read.
fn collect(
    traces: &mut Traces<'_>,
    lines: LogLines,
    most: usize,
    matches: impl Fn(&Trace) -> bool,
) -> Vec<Trace> {
    let (mut room, mut found) = (Room::default(), Vec::new());
    while found.len() < most && !room.is_spent() {
        let Some(next) = traces.next() else { break };
        let before = room;
        let trace = Trace::of(&next, lines, &mut room);
        if matches(&trace) {
            found.push(trace);
        } else {
            room = before;
        }
    }
    if found.len() < most
        && traces.is_late()
        && let Some(last) = found.last_mut()
    {
        last.warn(
            "the search took too long: there may be more traces, or more of this one; ask for a shorter time",
        );
    }
    found
}

async fn get_trace(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let trace_id = match read_trace_id(&id) {
        Ok(trace_id) => trace_id,
        Err(error) => return Ok(error.into_response()),
    };
    let read = |traces: &mut Traces<'_>| match collect(traces, LogLines::Include, 1, |_| true) {
        none if none.is_empty() => JaegerError::not_found().into_response(),
        found => answer(found),
    };
    Ok(in_turn(&app, &caller.tenant, Which::These(vec![trace_id]), read).await)
}

/// Jaeger's clients leave out leading zeros and may write capitals.
fn read_trace_id(text: &str) -> Result<TraceId, JaegerError> {
    let padded = format!("{:0>32}", text.to_ascii_lowercase());
    let read = padded.parse().ok().filter(|id: &TraceId| id.0 != [0; 16]);
    read.ok_or_else(|| JaegerError::bad_request(format!("{text:?} is not a trace id")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_ids_may_lack_leading_zeros() {
        assert_eq!(read_trace_id("1F").expect("an id").to_string(), format!("{:032x}", 0x1f));
        for bad in ["", "0", "xyz", "1".repeat(33).as_str()] {
            assert_eq!(read_trace_id(bad).expect_err(bad).code, 400);
        }
    }

    fn asked(texts: impl Iterator<Item = String>) -> Result<usize, u16> {
        let query: Vec<_> = texts.map(|text| format!("traceID={text}")).collect();
        ids(&Parameters::parse(Some(&query.join("&")))).map(|ids| ids.len()).map_err(|error| error.code)
    }

    #[test]
    fn a_trace_is_read_once_however_often_it_is_asked_for() {
        assert_eq!(asked((0..5_000).map(|_| "1".to_owned())), Ok(1));
        assert_eq!(asked(["1", "01", "2"].map(str::to_owned).into_iter()), Ok(2));
        assert_eq!(asked((1..=100).map(|id| format!("{id:x}"))), Ok(100));
        assert_eq!(asked((1..=101).map(|id| format!("{id:x}"))), Err(400));
    }

    #[tokio::test]
    async fn an_answer_of_traces_stays_within_its_room_and_says_so() {
        use crate::clock::Clock;
        use crate::config::HistoryConfig;
        use crate::history::History;
        use crate::history::tests::{call, trace_of};

        let dir = tempfile::tempdir().expect("a directory");
        let config = HistoryConfig { ring_bytes: 256 << 20, ..HistoryConfig::default() };
        let history = History::open(&config, dir.path(), Clock::start()).expect("it opens");
        for serial in 0..8 {
            let mut kept = call(serial);
            let line = kept.logs[0].clone();
            kept.logs = vec![line; 30_000];
            history.finish(kept);
        }
        let ids = (0..8).map(trace_of).collect();
        let read = |traces: &mut Traces<'_>| collect(traces, LogLines::Include, usize::MAX, |_| true);
        let found = history.read_traces(&Tenant::default(), Which::These(ids), read).await.expect("it runs");
        assert!((1..8).contains(&found.len()), "{} traces", found.len());
        let json = |trace: &Trace| serde_json::to_value(trace).expect("JSON");
        assert_eq!(json(&found[0])["warnings"], serde_json::Value::Null);
        let warnings = json(found.last().expect("some"))["warnings"].to_string();
        assert!(warnings.contains("too large"), "{warnings}");
    }
}
