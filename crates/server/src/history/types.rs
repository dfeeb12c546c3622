//! What goes into history and what comes out: running calls, filters, pages, traces.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use fp_core::deadline::DeadlineFrom;
use fp_core::record::{Invocation, Kept, Span, State, Trigger};
use fp_core::settings::Criticality;
use fp_core::{FunctionName, InvocationId, SpanId, Tenant, TraceId, VersionNumber, WorkerId};

/// A call that has arrived: what is known at t = 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Running {
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
    /// Percent-decoded path.
    pub path: Arc<str>,
    /// The caller's correlation id, or ours.
    pub correlation_id: Arc<str>,
    /// The trace that the call is part of.
    pub trace_id: TraceId,
    /// The root span of the call.
    pub span_id: SpanId,
    /// The caller's span, where it sent a trace context.
    pub parent_span_id: Option<SpanId>,
    /// The function that called, known where its network is internal.
    pub called_by: Option<FunctionName>,
    /// Arrival, Unix time in microseconds: the time that the id was made from.
    pub started_us: u64,
    /// Its class.
    pub criticality: Criticality,
    /// Time given to the call, in milliseconds.
    pub deadline_ms: u64,
    /// Who set that.
    pub deadline_from: DeadlineFrom,
}

/// A call that has not ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningView {
    /// What was known when it arrived.
    pub running: Running,
    /// [`State::Queued`] or [`State::Running`].
    pub state: State,
    /// The worker that runs it.
    pub worker: Option<WorkerId>,
}

/// What is known of one invocation id.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// It has not ended.
    Running(Box<RunningView>),
    /// It has ended.
    Done(Arc<Kept>),
    /// It may well have run, but history keeps a sample of its time and this call is not in it.
    SampledOut,
    /// Nothing is known of it.
    Unknown,
}

/// Which calls to list. Everything that is given must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// Calls of this function.
    pub function: Option<FunctionName>,
    /// Calls whose event type this glob matches (`*` any text, `?` one character).
    pub event_type: Option<String>,
    /// Ended calls whose outcome has this word.
    pub outcome: Option<String>,
    /// Arrived at this time or later, Unix microseconds.
    pub since_us: Option<u64>,
    /// Arrived before this time, Unix microseconds.
    pub until_us: Option<u64>,
    /// Ended calls that took at least this long.
    pub min_duration: Option<Duration>,
    /// Ended calls that took at most this long.
    pub max_duration: Option<Duration>,
    /// Most entries to return; more than [`Filter::MAX_LIMIT`] means that many.
    pub limit: usize,
    /// Where the last page ended.
    pub cursor: Option<Cursor>,
}

impl Filter {
    /// Longest page: a page of this many wide events is about a megabyte of JSON.
    pub const MAX_LIMIT: usize = 1_000;
}

impl Default for Filter {
    /// Everything, fifty at a time.
    fn default() -> Self {
        Self {
            function: None,
            event_type: None,
            outcome: None,
            since_us: None,
            until_us: None,
            min_duration: None,
            max_duration: None,
            limit: 50,
            cursor: None,
        }
    }
}

/// One call in a list.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// It has not ended.
    Running(Box<RunningView>),
    /// It has ended.
    Done(Box<Invocation>),
}

/// A piece of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Newest arrival first.
    pub items: Vec<Entry>,
    /// Where the next page begins; none after the last one.
    pub next: Option<Cursor>,
}

/// Where a page ended; opaque text to callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub(crate) started_us: u64,
    pub(crate) id: InvocationId,
}

/// Text that is not a cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cursor {text:?} is not one of ours; take it from the field next of the page before")]
pub struct CursorError {
    /// What was given.
    pub text: String,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.started_us, self.id)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;
    fn from_str(text: &str) -> Result<Self, CursorError> {
        let parse = || {
            let (time, id) = text.split_once('.')?;
            Some(Self { started_us: u64::from_str_radix(time, 16).ok()?, id: id.parse().ok()? })
        };
        parse().ok_or_else(|| CursorError { text: text.into() })
    }
}

/// One call of a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceEntry {
    /// Everything kept of it.
    pub kept: Arc<Kept>,
}

impl TraceEntry {
    /// The platform's spans, root first, then the author's.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = self.kept.platform_spans();
        spans.extend(self.kept.own_spans().cloned());
        spans
    }
}

/// A trace in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceSummary {
    /// Which trace.
    pub trace_id: TraceId,
    /// Name of its first root span, `GET /api/cats/{id}`.
    pub name: String,
    /// Its functions, first called first, with the number of their spans.
    pub functions: Vec<(FunctionName, usize)>,
    /// First arrival, Unix time in microseconds.
    pub started_us: u64,
    /// From the first arrival to the last end, in microseconds.
    pub duration_us: u64,
    /// Calls in it.
    pub calls: usize,
    /// Spans in it.
    pub spans: usize,
    /// Spans that failed.
    pub errors: usize,
    /// Outcome of the first call.
    pub outcome: fp_core::Outcome,
}

/// Whether history reaches the disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DiskState {
    /// It does.
    #[default]
    On,
    /// It does not; tried again every ten seconds.
    Off {
        /// One sentence for people: what failed and what to do.
        reason: String,
        /// Since when, Unix time in microseconds.
        since_us: u64,
    },
}

/// How history is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryStatus {
    /// Whether it reaches the disk.
    pub disk: DiskState,
    /// Records that were to be kept on disk and were lost, since the start.
    pub dropped: u64,
    /// Records that sampling left out, since the start.
    pub sampled_out: u64,
    /// Bytes of the ring in use.
    pub ring_bytes: usize,
    /// Calls in the ring.
    pub ring_calls: usize,
    /// Calls that have not ended.
    pub running: usize,
    /// Bytes of the telemetry files.
    pub disk_bytes: u64,
}
