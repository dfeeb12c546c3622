//! The record of an invocation: the wide event, and the spans and log lines beside it.
//!
//! One [`Invocation`] per logical call, with every field from the start; the `invocations`
//! table has a column for each. Times are Unix microseconds of one clock reading at arrival
//! plus monotonic offsets, so that spans never run backwards.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::deadline::DeadlineFrom;
use crate::ids::{FunctionName, IdError, InvocationId, SpanId, Tenant, TraceId, VersionNumber, WorkerId};
use crate::outcome::{Blame, Outcome};
use crate::settings::Criticality;

/// What set an invocation off (`faas.trigger`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A request at the gateway.
    Http,
    /// `POST /functions/trigger`, run from the durable queue.
    Async,
}

impl Trigger {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Async => "async",
        }
    }
}

/// The five phases of a call, in nanoseconds. They are exactly the platform's span names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Phases {
    /// From the first byte to a routed, admitted invocation with its body read.
    pub route: u64,
    /// Waiting for a worker, apart from starting one.
    pub queue: u64,
    /// Starting the worker that ran the call; 0 when it was warm.
    pub start: u64,
    /// In the handler, as seen from the platform: frame out to answer in.
    pub run: u64,
    /// From the answer's head to its last byte; added after the record is visible.
    pub send: u64,
}

impl Phases {
    /// The whole call, in nanoseconds.
    pub fn total(&self) -> u64 {
        self.route + self.queue + self.start + self.run + self.send
    }
}

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waiting for a worker (or, asynchronous, for its turn).
    Queued,
    /// In a handler.
    Running,
    /// Ended; the outcome is known.
    Done,
}

/// A span of another trace that a call has to do with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its trace.
    pub trace_id: TraceId,
    /// Itself.
    pub span_id: SpanId,
}

/// `<trace>-<span>`, as in a traceparent.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.trace_id, self.span_id)
    }
}

impl FromStr for Link {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (trace, span) = text.split_once('-').unwrap_or((text, ""));
        Ok(Self { trace_id: trace.parse()?, span_id: span.parse()? })
    }
}

/// The wide event: one per invocation, every field from the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Invocation {
    /// Which call.
    pub id: InvocationId,
    /// Whose.
    pub tenant: Tenant,
    /// Of which function.
    pub function: FunctionName,
    /// Of which of its versions.
    pub version: VersionNumber,
    /// The event type that matched.
    pub event_type: Arc<str>,
    /// What set it off.
    pub trigger: Trigger,
    /// HTTP verb.
    pub verb: Arc<str>,
    /// Percent-decoded path, without the query string.
    pub path: Arc<str>,
    /// The caller's `X-Correlation-Id`, or ours.
    pub correlation_id: Arc<str>,
    /// The trace that the call is part of.
    pub trace_id: TraceId,
    /// The root span of the call.
    pub span_id: SpanId,
    /// The caller's span, where it sent a trace context.
    pub parent_span_id: Option<SpanId>,
    /// The function that called, known where its network is internal.
    pub called_by: Option<FunctionName>,
    /// The span of another tenant that called: never a parent, since nobody sees both.
    pub link: Option<Link>,
    /// Arrival, Unix time in microseconds.
    pub started_us: u64,
    /// Where the time went.
    pub phases: Phases,
    /// How it ended.
    pub outcome: Outcome,
    /// Who is to blame, if anybody.
    pub blame: Option<Blame>,
    /// The caller gave less time than the function promises.
    pub caller_was_short: bool,
    /// HTTP status sent (499 when the caller had left).
    pub status: u16,
    /// Type and message of the handler's exception, or of the platform's error.
    pub error: Option<Box<str>>,
    /// A start was part of the call.
    pub cold: bool,
    /// Dispatches to workers; 2 when hedged; 0 when it never started.
    pub attempts: u8,
    /// The worker that answered.
    pub worker: Option<WorkerId>,
    /// Its class when admitted.
    pub criticality: Criticality,
    /// Time given to the call, in milliseconds.
    pub deadline_ms: u64,
    /// Who set that.
    pub deadline_from: DeadlineFrom,
    /// Calls ahead of it in its version's queue when it arrived.
    pub queue_length: u32,
    /// Bytes of the request body.
    pub request_bytes: u64,
    /// Bytes of the response body.
    pub response_bytes: u64,
    /// Bytes of captured logs before truncation.
    pub log_bytes: u64,
    /// CPU time of the handler, in microseconds, as the worker saw it.
    pub cpu_us: u64,
    /// Highest memory of the worker's process so far, in KiB (`ru_maxrss`).
    pub memory_peak_kib: u64,
    /// Which limit was hit: `memory`, `worker_memory`, `tasks`, `files`, `disk`, `cpu`, `logs`.
    pub limit_hit: Option<Box<str>>,
    /// Verdict of the latency SLI: under the threshold or not; none without an objective.
    pub latency_met: Option<bool>,
    /// Hedged calls, fallbacks and other decisions: how the answer came about.
    pub degraded: Option<Box<str>>,
    /// How many calls this record stands for: 1, or more when history was sampled.
    pub weight: u32,
}

/// One span in a trace: the platform's phases and the author's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Its id.
    pub span_id: SpanId,
    /// Its parent; none for a root that no caller had a span for.
    pub parent_span_id: Option<SpanId>,
    /// `route`, `queue`, `start`, `run`, `send`, the root's name or the author's.
    pub name: Box<str>,
    /// Start, Unix time in nanoseconds.
    pub start_ns: u64,
    /// Duration, in nanoseconds.
    pub duration_ns: u64,
    /// Attributes: JSON text of each value by key, in the order they were set.
    pub attributes: Vec<(Box<str>, serde_json::Value)>,
    /// Events: what happened when.
    pub events: Vec<SpanEvent>,
    /// The error's message, when the span failed.
    pub error: Option<Box<str>>,
}

/// Something that happened during a span.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpanEvent {
    /// Unix time in nanoseconds.
    pub time_ns: u64,
    /// What.
    pub name: Box<str>,
    /// Details.
    pub attributes: Vec<(Box<str>, serde_json::Value)>,
}

/// Where a log line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogSource {
    /// `print`, or anything written to `sys.stdout`.
    Stdout,
    /// `sys.stderr`.
    Stderr,
    /// The `logging` module.
    Logging,
    /// Written to descriptor 1 or 2 below Python: subprocesses, C libraries.
    Descriptor,
    /// The platform: truncation marks and the like.
    Platform,
}

/// One piece of captured output, usually a line with its newline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Unix time in microseconds when the platform read it.
    pub time_us: u64,
    /// Where from.
    pub source: LogSource,
    /// `DEBUG` … `CRITICAL` for `logging`; none otherwise.
    pub level: Option<Box<str>>,
    /// The text as written (bad UTF-8 replaced).
    pub text: Box<str>,
}

/// Everything kept of one invocation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The wide event.
    pub invocation: Invocation,
    /// The author's spans. The platform's own spans are derived from the phases by
    /// [`Kept::platform_spans`]; they cost no memory. A second attempt's span is here as well, and what
    /// there is to say of the call and of `run` besides their times, as spans of their ids: see
    /// [`Kept::own_spans`].
    pub spans: Vec<Span>,
    /// What it printed and logged.
    pub logs: Vec<LogLine>,
    /// Result body of an asynchronous call, bounded.
    pub result: Option<Box<str>>,
}

/// Serial numbers of the platform's spans within a call: the root's id plus this, so that the
/// ids need not be stored.
const PHASE_NAMES: [&str; 5] = ["route", "queue", "start", "run", "send"];

/// The id of a phase's span: the root's id with the serial number mixed into its low byte.
pub fn phase_span_id(root: SpanId, phase: &str) -> SpanId {
    let serial = PHASE_NAMES.iter().position(|name| *name == phase).map_or(0, |at| at as u64 + 1);
    SpanId::from_random(u64::from_be_bytes(root.0) ^ serial)
}

/// The id of the second attempt's span, which is a `run`, too.
pub fn second_run_span_id(root: SpanId) -> SpanId {
    SpanId::from_random(u64::from_be_bytes(root.0) ^ (PHASE_NAMES.len() as u64 + 1))
}

/// The attribute of an attempt's span that was cancelled: the span of the attempt that answered.
pub const WINNER: &str = "functionsplatform.winner_span_id";

/// The event on a `run` that says why the call was hedged or not.
pub const HEDGE_EVENT: &str = "hedge";

/// Its attribute that says so in a sentence.
pub const HEDGE_SENTENCE: &str = "sentence";

impl Span {
    /// The span that this one links to: of an attempt that was cancelled, that which answered instead.
    pub fn follows(&self) -> Option<SpanId> {
        let (_, winner) = self.attributes.iter().find(|(key, _)| &**key == WINNER)?;
        winner.as_str()?.parse().ok()
    }
}

impl Invocation {
    /// The route part of the event type: `/api/cats/{id}` of `http|GET|/api/cats/{id}`.
    pub fn route(&self) -> &str {
        self.event_type.splitn(3, '|').nth(2).unwrap_or(&self.event_type)
    }

    /// Name of the root span, as OpenTelemetry names HTTP servers: verb and route.
    pub fn root_span_name(&self) -> String {
        format!("{} {}", self.verb, self.route())
    }

    /// The whole call, in microseconds, rounded down.
    pub fn duration_us(&self) -> u64 {
        self.phases.total() / 1_000
    }
}

impl Phases {
    /// Name and duration of each phase, in the order they happen.
    pub fn by_name(&self) -> [(&'static str, u64); 5] {
        let [route, queue, start, run, send] = PHASE_NAMES;
        [(route, self.route), (queue, self.queue), (start, self.start), (run, self.run), (send, self.send)]
    }
}

impl Kept {
    /// The platform's spans: the root, then one child for each phase that took place, laid end to
    /// end. A call that ran has all of those before its run, so that a warm one shows that its start
    /// took no time. The author's spans are children of `run`.
    pub fn platform_spans(&self) -> Vec<Span> {
        let invocation = &self.invocation;
        let mut spans = vec![root_span(invocation)];
        let mut start_ns = invocation.started_us * 1_000;
        for (name, duration_ns) in invocation.phases.by_name() {
            if duration_ns > 0 || (invocation.phases.run > 0 && name != "send") {
                spans.push(phase_span(invocation, name, start_ns, duration_ns));
            }
            start_ns += duration_ns;
        }
        for said in self.notes() {
            if let Some(own) = spans.iter_mut().find(|span| span.span_id == said.span_id) {
                own.attributes.extend(said.attributes.iter().cloned());
                own.events.extend(said.events.iter().cloned());
            }
        }
        spans
    }

    /// The spans that [`platform_spans`](Self::platform_spans) does not give.
    pub fn own_spans(&self) -> impl Iterator<Item = &Span> {
        let noted = self.noted();
        self.spans.iter().filter(move |span| !noted.contains(&span.span_id))
    }

    /// What was decided about the call, in the order in which it was; see [`decided`](crate::decided).
    pub fn decisions(&self) -> impl Iterator<Item = &SpanEvent> {
        let root = self.invocation.span_id;
        self.spans.iter().filter(move |span| span.span_id == root).flat_map(|span| &span.events)
    }

    /// Why the call was hedged or not, where that was noted.
    pub fn hedging(&self) -> Option<&str> {
        let event = self.said_of_run()?.events.iter().find(|event| &*event.name == HEDGE_EVENT)?;
        event.attributes.iter().find(|(key, _)| &**key == HEDGE_SENTENCE)?.1.as_str()
    }

    fn said_of_run(&self) -> Option<&Span> {
        let [_, run] = self.noted();
        self.spans.iter().find(|span| span.span_id == run)
    }

    /// The platform's spans of which there may be notes.
    fn noted(&self) -> [SpanId; 2] {
        let root = self.invocation.span_id;
        [root, phase_span_id(root, "run")]
    }

    fn notes(&self) -> impl Iterator<Item = &Span> {
        let noted = self.noted();
        self.spans.iter().filter(move |span| noted.contains(&span.span_id))
    }
}

fn root_span(invocation: &Invocation) -> Span {
    Span {
        span_id: invocation.span_id,
        parent_span_id: invocation.parent_span_id,
        name: invocation.root_span_name().into(),
        start_ns: invocation.started_us * 1_000,
        duration_ns: invocation.phases.total(),
        attributes: root_attributes(invocation),
        events: degraded_event(invocation).into_iter().collect(),
        error: root_error(invocation),
    }
}

fn phase_span(invocation: &Invocation, name: &'static str, start_ns: u64, duration_ns: u64) -> Span {
    let error = (name == "run").then(|| root_error(invocation)).flatten();
    Span {
        span_id: phase_span_id(invocation.span_id, name),
        parent_span_id: Some(invocation.span_id),
        name: name.into(),
        start_ns,
        duration_ns,
        attributes: Vec::new(),
        events: Vec::new(),
        error,
    }
}

/// That a call was refused and answered all the same, at the moment of the refusal.
fn degraded_event(invocation: &Invocation) -> Option<SpanEvent> {
    let how = invocation.degraded.as_deref()?;
    let Phases { route, queue, start, .. } = invocation.phases;
    let mut attributes: Vec<(Box<str>, serde_json::Value)> =
        vec![("how".into(), how.into()), ("instead_of".into(), invocation.outcome.word().into())];
    if let Some(reason) = invocation.outcome.reason() {
        attributes.push(("reason".into(), reason.into()));
    }
    let time_ns = invocation.started_us * 1_000 + route + queue + start;
    Some(SpanEvent { time_ns, name: "degraded".into(), attributes })
}

/// The message of a failed call: what was raised, else the outcome's word. The caller's doing
/// is no error of the span, as OpenTelemetry says of HTTP servers.
fn root_error(invocation: &Invocation) -> Option<Box<str>> {
    match invocation.blame {
        None | Some(Blame::Caller) => None,
        Some(Blame::Function | Blame::Platform) => {
            Some(invocation.error.clone().unwrap_or_else(|| invocation.outcome.word().into()))
        }
    }
}

fn root_attributes(invocation: &Invocation) -> Vec<(Box<str>, serde_json::Value)> {
    let trigger = match invocation.trigger {
        Trigger::Http => "http",
        Trigger::Async => "other",
    };
    let mut attributes: Vec<(Box<str>, serde_json::Value)> = Vec::with_capacity(20);
    let mut set = |key: &str, value: serde_json::Value| attributes.push((key.into(), value));
    set("faas.name", invocation.function.as_str().into());
    set("faas.version", invocation.version.to_string().into());
    set("faas.invocation_id", invocation.id.to_string().into());
    set("faas.coldstart", invocation.cold.into());
    set("faas.trigger", trigger.into());
    if let Some(worker) = invocation.worker {
        set("faas.instance", worker.to_string().into());
    }
    set("http.request.method", (*invocation.verb).into());
    set("http.route", invocation.route().into());
    set("url.path", (*invocation.path).into());
    if invocation.status != 0 {
        set("http.response.status_code", invocation.status.into());
    }
    set("http.request.body.size", invocation.request_bytes.into());
    set("http.response.body.size", invocation.response_bytes.into());
    set("functionsplatform.tenant", invocation.tenant.as_str().into());
    set("functionsplatform.event_type", (*invocation.event_type).into());
    set("functionsplatform.correlation_id", (*invocation.correlation_id).into());
    set("functionsplatform.outcome", invocation.outcome.word().into());
    if let Some(reason) = invocation.outcome.reason() {
        set("functionsplatform.reason", reason.into());
    }
    if let Some(how) = &invocation.degraded {
        set("functionsplatform.degraded", (**how).into());
    }
    if root_error(invocation).is_some() {
        set("error.type", invocation.outcome.word().into());
    }
    set("functionsplatform.attempts", invocation.attempts.into());
    set("functionsplatform.queue_length", invocation.queue_length.into());
    attributes
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::outcome::ShedReason;

    /// A call of `cats` in the first second.
    pub(crate) fn kept(outcome: Outcome) -> Kept {
        let invocation = Invocation {
            id: InvocationId::from_parts(1_000, 7),
            tenant: Tenant::default(),
            function: "cats".parse().expect("a name"),
            version: VersionNumber(3),
            event_type: "http|GET|/cats/{id}".into(),
            trigger: Trigger::Http,
            verb: "GET".into(),
            path: "/cats/5".into(),
            correlation_id: "c".into(),
            trace_id: TraceId::from_parts(1_000, 9),
            span_id: SpanId::from_random(0x10),
            parent_span_id: Some(SpanId::from_random(0x20)),
            called_by: None,
            link: None,
            started_us: 1_000_000,
            phases: Phases { route: 10, queue: 20, start: 0, run: 300, send: 0 },
            outcome,
            blame: outcome.blame(false),
            caller_was_short: false,
            status: 200,
            error: None,
            cold: false,
            attempts: 1,
            worker: Some(WorkerId(4)),
            criticality: Criticality::Default,
            deadline_ms: 60_000,
            deadline_from: DeadlineFrom::Timeout,
            queue_length: 0,
            request_bytes: 0,
            response_bytes: 2,
            log_bytes: 0,
            cpu_us: 1,
            memory_peak_kib: 1,
            limit_hit: None,
            latency_met: None,
            degraded: None,
            weight: 1,
        };
        Kept { invocation, spans: Vec::new(), logs: Vec::new(), result: None }
    }

    #[test]
    fn platform_spans_lie_end_to_end_under_the_root_and_leave_out_what_did_not_happen() {
        let spans = kept(Outcome::Ok).platform_spans();
        let laid: Vec<_> = spans.iter().map(|s| (&*s.name, s.start_ns, s.duration_ns)).collect();
        let start = 1_000_000_000;
        assert_eq!(
            laid,
            [
                ("GET /cats/{id}", start, 330),
                ("route", start, 10),
                ("queue", start + 10, 20),
                ("start", start + 30, 0),
                ("run", start + 30, 300)
            ]
        );
        assert_eq!(spans[0].parent_span_id, Some(SpanId::from_random(0x20)));
        assert!(spans[1..].iter().all(|span| span.parent_span_id == Some(spans[0].span_id)));
        let mut ids: Vec<_> = spans.iter().map(|span| span.span_id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 5);
    }

    #[test]
    fn a_refusal_that_was_answered_all_the_same_says_how_and_when() {
        let mut kept = kept(Outcome::Shed(ShedReason::QueueFull));
        kept.invocation.degraded = Some("stale; age=42".into());
        let root = &kept.platform_spans()[0];
        assert!(
            root.attributes
                .iter()
                .any(|(key, value)| { &**key == "functionsplatform.degraded" && value == "stale; age=42" })
        );
        let [event] = &root.events[..] else { panic!("{:?}", root.events) };
        assert_eq!((&*event.name, event.time_ns), ("degraded", 1_000_000_030));
        let said: Vec<_> = event.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(said, ["how=\"stale; age=42\"", "instead_of=\"shed\"", "reason=\"queue_full\""]);
        // It stays a refusal, for the objective as for the trace.
        assert!(root.error.is_some());
    }

    #[test]
    fn a_failed_call_marks_root_and_run_and_the_callers_doing_marks_nothing() {
        let failed = kept(Outcome::FunctionError).platform_spans();
        assert_eq!(failed[0].error.as_deref(), Some("function_error"));
        assert_eq!(failed[4].error.as_deref(), Some("function_error"));
        assert!(failed[1].error.is_none());
        assert!(kept(Outcome::Cancelled).platform_spans().iter().all(|span| span.error.is_none()));
    }
}
