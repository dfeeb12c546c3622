//! Calls: from a routed request to its outcome and its record.
//!
//! [`Invoker::call`] reads like the life of an invocation: open the record, find a worker, run
//! the handler, close the record. Whatever happens, and also when the caller leaves (the future
//! is dropped), exactly one record is closed: [`flight::Flight`] sees to it. Several functions
//! of one event type are several invocations of one request; the edge takes the first's answer.
//! Which status an outcome gets is the edge's table, handed in as a function.

pub(crate) mod attempt;
pub(crate) mod background;
mod fallback;
pub(crate) mod flight;
pub(crate) mod hedge;
mod output;
pub(crate) mod stream;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fp_core::deadline::Given;
use fp_core::outcome::{Outcome, ShedReason};
use fp_core::record::Trigger;
use fp_core::settings::{Criticality, OnDisconnect};
use fp_core::trace_context::TraceContext;
use fp_core::{FunctionName, InvocationId, Tenant, VersionNumber, WorkerId};
use fp_sandbox::protocol::AnswerHead;
use http::HeaderMap;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::bodies::{BodyBudget, NoRoom};
use crate::catalog::{Catalog, Deployed};
use crate::clock::Clock;
use crate::history::{Finished, History};
use crate::quotas::Refused;
use crate::store::registry::Registry;

pub use background::{TriggerCall, TriggerError};

use self::flight::Flight;

/// A request that has been routed and whose body has been read.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whose functions it may reach.
    pub tenant: Tenant,
    /// The event type that matched.
    pub event_type: Arc<str>,
    /// What set it off.
    pub trigger: Trigger,
    /// HTTP verb.
    pub verb: Arc<str>,
    /// Percent-decoded path.
    pub path: Arc<str>,
    /// Raw query string without `?`.
    pub query: Box<str>,
    /// Headers as they came; carried to the handler, not read here.
    pub headers: HeaderMap,
    /// Percent-decoded path parameters.
    pub params: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// The caller's correlation id, or a new one.
    pub correlation_id: Arc<str>,
    /// The caller's trace context, if it sent one.
    pub trace: Option<TraceContext>,
    /// A trace context that came from another tenant: it is linked to, and never the parent.
    pub link: Option<TraceContext>,
    /// Time that the caller gives.
    pub time_given: Option<Given>,
    /// The caller's class; may lower the function's.
    pub criticality: Option<Criticality>,
    /// The function that asks, where that is certain.
    pub called_by: Option<FunctionName>,
    /// Hash of whoever the queue is fair between.
    pub caller: u64,
    /// When the first byte was seen, on the platform's clock.
    pub arrived: Duration,
    /// How long its body took after that: the caller's time, not the function's.
    pub upload: Duration,
    /// Who calls and how that was proven, where the function asks.
    pub auth: Option<Arc<Value>>,
}

/// A handler's answer on its way out.
#[derive(Debug)]
pub enum Reply {
    /// Complete.
    Whole {
        /// Status, headers, kind.
        head: AnswerHead,
        /// Body.
        body: Bytes,
    },
    /// As produced. An error aborts the response; the record has been closed with the reason.
    Stream {
        /// Status, headers, kind.
        head: AnswerHead,
        /// Pieces; the end of the channel is the end of the body.
        pieces: mpsc::Receiver<Result<Bytes, StreamBroken>>,
    },
    /// No answer from the handler.
    Fault(Box<Fault>),
}

/// A stream that ended before its end.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the function's stream broke off: {0}")]
pub struct StreamBroken(pub &'static str);

/// Why there is no answer, for the caller.
#[derive(Debug, Clone)]
pub struct Fault {
    /// How the invocation ended.
    pub outcome: Outcome,
    /// One sentence: what, the limit, what to do.
    pub detail: Cow<'static, str>,
    /// Exception type and message, where the handler raised.
    pub exception: Option<(String, String)>,
    /// In which phase: `queue`, `start` or `run`.
    pub phase: &'static str,
    /// The limit that was hit.
    pub limit_hit: Option<&'static str>,
    /// The size limit that was passed, in bytes.
    pub limit_bytes: Option<u64>,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
    /// Whose fault the missed deadline is depends on this.
    pub caller_was_short: bool,
}

/// An invocation that has an answer.
#[derive(Debug)]
pub struct Completed {
    /// What to send.
    pub reply: Reply,
    /// Which invocation.
    pub id: InvocationId,
    /// Its place in the trace: the root span.
    pub trace: TraceContext,
    /// Where the time went so far.
    pub phases: fp_core::record::Phases,
    /// Adds the phase `send` to the record; streams add it by themselves.
    pub finished: Option<Finished>,
    /// It was refused, and this is how it is answered all the same.
    pub degraded: Option<String>,
}

/// The sentence for a body that is over the function's limit.
fn body_too_large(function: &Deployed) -> String {
    let (name, limit) = (&function.name, function.settings.limits.body);
    format!(
        "the body is larger than {limit}, the most that {name} takes; send less, or raise limits.body in function.toml"
    )
}

/// The answer of a call that its quotas do not let in.
fn over_quota(mut flight: Flight, refused: &Refused) -> Completed {
    flight.not_dispatched();
    let fault = Fault {
        retry_after: Some(refused.retry_after()),
        limit_hit: Some(refused.spent().word()),
        ..attempt::fault(&flight, Outcome::QuotaExceeded, "route", refused.sentence())
    };
    flight.fail(fault, Vec::new(), None)
}

/// What a page shows of a worker.
#[derive(Debug, Clone)]
pub struct WorkerView {
    /// Its id.
    pub id: WorkerId,
    /// Process id on the host.
    pub host_pid: u32,
    /// Whose.
    pub tenant: Tenant,
    /// Of which function.
    pub function: FunctionName,
    /// Of which of its versions.
    pub version: VersionNumber,
    /// `idle` or `busy`.
    pub state: &'static str,
    /// When it was started, Unix time in microseconds.
    pub started_us: u64,
    /// Calls that it has taken.
    pub calls: u64,
    /// Calls that it runs now.
    pub running: u32,
}

/// Runs invocations.
pub struct Invoker {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) history: Arc<History>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) sandbox: fp_sandbox::Sandbox,
    pub(crate) clock: Clock,
    /// Room for the bodies of accepted calls.
    pub(crate) bodies: Arc<BodyBudget>,
    /// The edge's table from outcomes to statuses, for the record.
    pub(crate) status_of: fn(Outcome) -> u16,
    pub(crate) background: background::Background,
    /// What goes on of calls without whoever waited for them: handlers that finish or are being ended
    /// after their callers have left, and streams.
    pub(crate) endings: TaskTracker,
}

impl std::fmt::Debug for Invoker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invoker").finish_non_exhaustive()
    }
}

impl Invoker {
    /// Runs a function and waits for its answer. Dropping the future is the caller leaving:
    /// it interrupts the handler, unless the function's `on_disconnect` is `finish`.
    pub async fn call(self: &Arc<Self>, function: Arc<Deployed>, request: Arc<Request>) -> Completed {
        let finish = function.settings.on_disconnect == OnDisconnect::Finish;
        let mut flight = Flight::open(self, function, request);
        if let Err(refused) = flight.admit() {
            return over_quota(flight, &refused);
        }
        if !finish {
            return Self::fly(flight).await;
        }
        // A task of its own outlives the caller; it ends by the function's timeout at the latest.
        let task = self.endings.spawn(Self::fly(flight));
        task.await.expect("a flight does not panic")
    }

    /// Waits for what goes on of calls whose callers have left. More may come afterwards, and can be waited
    /// for again.
    pub(crate) async fn ended(&self) {
        self.endings.close();
        self.endings.wait().await;
    }

    async fn fly(mut flight: Flight) -> Completed {
        match attempt::run(&mut flight).await {
            attempt::Ended::Fault { fault, .. } if fallback::is_due(&flight, &fault) => {
                // In a box: calls that are served need no room for it.
                Box::pin(fallback::answer(flight, *fault)).await
            }
            ended => Self::land(flight, ended).await,
        }
    }

    /// Gives the worker back and closes the record.
    async fn land(mut flight: Flight, ended: attempt::Ended) -> Completed {
        match ended {
            attempt::Ended::Whole { head, body, logs } => {
                flight.end_run();
                flight.judge(head.status.is_some_and(|status| status >= 500));
                if flight.release() {
                    // The next call of the queue goes to its worker before this answer goes out.
                    tokio::task::yield_now().await;
                }
                fallback::keep(&flight, &head, &body);
                flight.complete(head, body, logs)
            }
            attempt::Ended::Stream { head } => stream::begin(flight, head),
            attempt::Ended::Fault { fault, logs, failure } => {
                // What was interrupted ends its worker anyway, and may be its caller's impatience.
                if failure.is_some() && fault.outcome == Outcome::FunctionError {
                    flight.judge(true);
                }
                flight.fail(*fault, logs, failure)
            }
        }
    }

    /// What keeps a call to the function from being let in now: for those who have not read its
    /// body yet.
    pub(crate) fn spent_quota(&self, function: &Deployed) -> Option<Refused> {
        function.pool.account().check(self.clock.now()).err()
    }

    /// Records that a request was not read, because a quota was spent when it came.
    pub(crate) fn refuse_over_quota(
        self: &Arc<Self>,
        function: Arc<Deployed>,
        request: Arc<Request>,
        refused: &Refused,
    ) -> Completed {
        over_quota(Flight::open(self, function, request), refused)
    }

    /// Records that a request's body was over the function's limit.
    pub fn refuse_body(self: &Arc<Self>, function: Arc<Deployed>, request: Arc<Request>) -> Completed {
        let limit = function.settings.limits.body;
        let detail = body_too_large(&function);
        let flight = Flight::open(self, function, request);
        let fault = Fault {
            limit_bytes: Some(limit.as_u64()),
            ..attempt::fault(&flight, Outcome::RequestTooLarge, "route", detail)
        };
        flight.fail(fault, Vec::new(), None)
    }

    /// Records that a request's body was not read, because the platform holds as many bytes of bodies as
    /// it may.
    pub(crate) fn refuse_for_room(
        self: &Arc<Self>,
        function: Arc<Deployed>,
        request: Arc<Request>,
    ) -> Completed {
        let flight = Flight::open(self, function, request);
        let fault = Fault {
            retry_after: Some(Duration::from_secs(1)),
            ..attempt::fault(&flight, Outcome::Shed(ShedReason::Memory), "route", NoRoom.to_string())
        };
        flight.fail(fault, Vec::new(), None)
    }

    /// Every worker of a tenant, by id.
    pub fn workers(&self, tenant: &Tenant) -> Vec<WorkerView> {
        let mut workers = Vec::new();
        for function in self.catalog.list(tenant) {
            workers.extend(function.pool.workers().into_iter().map(|info| WorkerView {
                id: info.id,
                host_pid: info.host_pid,
                tenant: function.tenant.clone(),
                function: function.name.clone(),
                version: function.version,
                state: if info.running > 0 { "busy" } else { "idle" },
                started_us: info.started_us,
                calls: info.calls,
                running: info.running,
            }));
        }
        workers.sort_by_key(|worker| worker.id);
        workers
    }

    /// What this host lets the platform enforce.
    pub fn host(&self) -> fp_sandbox::HostReport {
        self.sandbox.host()
    }
}
