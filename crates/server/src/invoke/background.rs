//! Asynchronous calls: accepted durably, run from a queue.
//!
//! `trigger` answers once the calls are on disk and synced. One task per function takes them in
//! order of acceptance and keeps at most `scaling.max` of them in the function's queue, so that
//! a backlog never crowds out callers that wait. After a crash, calls that never started run;
//! one that was cut off runs again only if the function is idempotent, and is recorded as the
//! platform's error otherwise.

mod queues;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fp_core::code::Code;
use fp_core::ids::SpanId;
use fp_core::outcome::Outcome;
use fp_core::record::Trigger;
use fp_core::trace_context::TraceContext;
use fp_core::{FunctionName, InvocationId, Tenant, TraceId};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::queues::{Queues, Running, Whose};
use super::flight::{Flight, Promise};
use super::{Fault, Invoker, Request, attempt};
use crate::catalog::{Catalog, Deployed, Route};
use crate::quotas::{Account, BacklogEntry, Refused};
use crate::store::{AsyncCall, AsyncState};

/// A queue that no call came to for this long ends, with its task; the next call begins another.
const QUIET: Duration = Duration::from_secs(60);

/// A call to be accepted.
#[derive(Debug, Clone)]
pub struct TriggerCall {
    /// HTTP verb to act as.
    pub verb: String,
    /// Path, with the query string if there is one.
    pub path: String,
    /// Header pairs.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Bytes,
    /// Who calls, for functions that ask.
    pub by: Arc<Value>,
}

/// Why nothing was accepted.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub struct TriggerError {
    /// The error's word.
    pub code: Code,
    /// What, and what to do.
    pub detail: String,
    /// The limit that was passed, in bytes.
    pub limit_bytes: Option<u64>,
    /// The part of a quota that is spent.
    pub limit_hit: Option<&'static str>,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
}

impl TriggerError {
    fn new(code: Code, detail: String) -> Self {
        Self { code, detail, limit_bytes: None, limit_hit: None, retry_after: None }
    }

    fn over_quota(refused: &Refused) -> Self {
        Self {
            limit_hit: Some(refused.spent().word()),
            retry_after: Some(refused.retry_after()),
            ..Self::new(Code::QuotaExceeded, refused.sentence())
        }
    }
}

/// What is stored of a request besides its body.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Head {
    verb: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    params: Vec<(String, String)>,
    correlation_id: String,
    /// The caller's trace context.
    parent: Option<TraceContext>,
    /// The trace that is begun when the caller sent none.
    trace_id: TraceId,
    /// The root span of this function's invocation.
    span_id: SpanId,
    /// Who calls, for functions that ask; absent in rows of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auth: Option<Arc<Value>>,
}

impl Head {
    fn for_span(&self, span_id: SpanId) -> String {
        let mine = Self { span_id, ..self.clone() };
        serde_json::to_string(&mine).expect("a head has string keys only")
    }
}

/// A call in its queue.
#[derive(Debug)]
struct Accepted {
    call: AsyncCall,
    /// Its function when it was accepted. A newer version runs it; this one is what a call is
    /// refused for whose function has been deleted meanwhile.
    function: Arc<Deployed>,
    _entry: BacklogEntry,
}

/// The queues of accepted calls, one task per function.
#[derive(Debug, Default)]
pub(crate) struct Background {
    queues: Queues<Accepted>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Invoker {
    /// Accepts a call for every function of its event type; they are durable when this returns.
    pub async fn trigger(
        self: &Arc<Self>,
        tenant: &Tenant,
        call: TriggerCall,
    ) -> Result<Vec<InvocationId>, TriggerError> {
        let refuse = TriggerError::new;
        let (path, query) = call.path.split_once('?').unwrap_or((&call.path, ""));
        let route = self.catalog.route(tenant, &call.verb, path);
        let route = route.map_err(|error| refuse(Code::InvalidPath, error.to_string()))?;
        let Route::Found(matched) = route else {
            let detail =
                format!("no function answers http|{}|{path}; `functionsplatform list` shows all", call.verb);
            return Err(refuse(Code::NoRoute, detail));
        };
        for function in matched.functions.iter() {
            let limit = function.settings.limits.body.as_u64();
            if call.body.len() as u64 > limit {
                let error = refuse(Code::TooLarge, super::body_too_large(function));
                return Err(TriggerError { limit_bytes: Some(limit), ..error });
            }
        }
        let entries = self.enter(&matched.functions)?;
        let places = self.reserve(&matched.functions)?;
        // Last, because it cannot be given back by itself like the others.
        self.spend(&matched.functions)?;
        let accepted_us = self.clock.wall_now_us();
        let head = Head {
            verb: call.verb.clone(),
            path: Catalog::decoded_path(path).unwrap_or_else(|_| path.to_owned()),
            query: query.to_owned(),
            correlation_id: correlation_id(&call.headers),
            parent: trace_of(&call.headers),
            trace_id: TraceId::from_parts(accepted_us / 1000, fastrand::u128(..)),
            span_id: SpanId::default(),
            headers: call.headers,
            params: matched.params,
            auth: Some(call.by),
        };
        let calls: Vec<AsyncCall> = matched
            .functions
            .iter()
            .map(|function| AsyncCall {
                id: InvocationId::from_parts(accepted_us / 1000, fastrand::u128(..)),
                tenant: tenant.clone(),
                function: function.name.clone(),
                order: Some(function.order),
                event_type: matched.event_type.to_string(),
                head_json: head.for_span(SpanId::from_random(fastrand::u64(..))),
                body: call.body.to_vec(),
                accepted_us,
                state: AsyncState::Queued,
                attempts: 0,
            })
            .collect();
        self.registry
            .enqueue(calls.clone())
            .await
            .map_err(|error| refuse(error.code(), error.to_string()))?;
        let ids = calls.iter().map(|call| call.id).collect();
        let queued = calls.into_iter().zip(entries).zip(matched.functions.iter());
        for (place, ((call, entry), function)) in places.into_iter().zip(queued) {
            self.announce(&call, function);
            place.send(Accepted { call, function: function.clone(), _entry: entry });
        }
        Ok(ids)
    }

    /// Makes an accepted call visible before it runs.
    fn announce(self: &Arc<Self>, call: &AsyncCall, function: &Arc<Deployed>) {
        if let Some((request, promise)) = request_of(self, call) {
            Flight::announce(self, function, &request, &promise);
        }
    }

    /// Enters the calls into the quotas of backlogs, until they have ended. Calls at once are no quota
    /// of theirs, because they wait for their turn.
    fn enter(&self, functions: &[Arc<Deployed>]) -> Result<Vec<BacklogEntry>, TriggerError> {
        let entries = functions.iter().map(|function| function.pool.account().accept());
        entries.collect::<Result<_, _>>().map_err(|refused: Refused| TriggerError::over_quota(&refused))
    }

    fn spend(&self, functions: &[Arc<Deployed>]) -> Result<(), TriggerError> {
        let accounts = functions.iter().map(|function| function.pool.account());
        Account::spend_all(accounts, self.clock.now()).map_err(|refused| TriggerError::over_quota(&refused))
    }

    fn reserve(
        self: &Arc<Self>,
        functions: &[Arc<Deployed>],
    ) -> Result<Vec<mpsc::OwnedPermit<Accepted>>, TriggerError> {
        let reserve = |function: &Arc<Deployed>| {
            self.queue_of(&function.tenant, &function.name).try_reserve_owned().map_err(|_| {
                let detail =
                    format!("{} calls of {} wait already; try again later", queues::BACKLOG, function.name);
                TriggerError::new(Code::Shed, detail)
            })
        };
        functions.iter().map(reserve).collect()
    }

    fn queue_of(self: &Arc<Self>, tenant: &Tenant, function: &FunctionName) -> mpsc::Sender<Accepted> {
        let whose = (tenant.clone(), function.clone());
        self.background.queues.of(&whose, |receiver| {
            let task = run_queue(self.clone(), whose.clone(), receiver);
            self.background.tasks.spawn_on(task, self.sandbox.runtime());
        })
    }

    /// Takes up the calls that an earlier life accepted.
    pub(crate) async fn resume(self: &Arc<Self>) {
        let pending = match self.registry.pending_calls().await {
            Ok(pending) => pending,
            Err(error) => return tracing::error!(%error, "accepted calls cannot be read back"),
        };
        for call in pending {
            let live = self.catalog.get(&call.tenant, &call.function);
            let is_its_own = |live: &Arc<Deployed>| call.order.is_none_or(|order| order == live.order);
            let Some(function) = live.filter(is_its_own) else {
                // Deleted in that life; its queue was not reached any more. One of its name is another.
                forget(self, call.id).await;
                continue;
            };
            // Visible before the platform answers anybody, not first when its turn comes.
            self.announce(&call, &function);
            let entry = function.pool.account().accept_again();
            let queue = self.queue_of(&call.tenant, &call.function);
            // In a task of its own: a backlog beyond the bound must not keep the platform from starting.
            self.background.tasks.spawn(async move {
                // The queue ends with the platform only; then the next start resumes again.
                let _ = queue.send(Accepted { call, function, _entry: entry }).await;
            });
        }
    }

    /// Lets running calls end; what is still queued stays on disk for the next start.
    pub(crate) async fn stop_background(&self) {
        self.background.stop.cancel();
        self.background.queues.clear();
        self.background.tasks.close();
        self.background.tasks.wait().await;
    }
}

async fn run_queue(invoker: Arc<Invoker>, whose: Whose, mut calls: mpsc::Receiver<Accepted>) {
    let stop = invoker.background.stop.clone();
    let mut running = Running::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = calls.recv() => accepted,
            () = tokio::time::sleep(QUIET) => {
                if running.is_none() && invoker.background.queues.end(&whose, &calls) {
                    return;
                }
                continue;
            }
        };
        let Some(Accepted { call, function, _entry: entry }) = accepted else { return };
        // A later function of the name, perhaps of a later tenant of the name, is another one.
        let live = invoker.catalog.get(&call.tenant, &call.function);
        let Some(function) = live.filter(|live| live.order == function.order) else {
            refuse_deleted(&invoker, function, call).await;
            continue;
        };
        running.at_most(function.settings.scaling.max as usize);
        let place = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            place = running.place() => place,
        };
        let invoker = invoker.clone();
        invoker.clone().background.tasks.spawn(async move {
            run_one(&invoker, function, call).await;
            drop((place, entry));
        });
    }
}

async fn run_one(invoker: &Arc<Invoker>, function: Arc<Deployed>, call: AsyncCall) {
    let Some((request, promise)) = request_of(invoker, &call) else {
        return forget(invoker, call.id).await;
    };
    let may_repeat = function.settings.idempotent.allows(&request.verb, false);
    let cut_off = match call.state {
        AsyncState::Started { at_us } if !may_repeat => Some(at_us),
        _ => None,
    };
    let request = Arc::new(request);
    let mut flight = Flight::open_as(invoker, function, request, Some(promise));
    if let Some(started_us) = cut_off {
        flight.cut_off(call.accepted_us, started_us);
        flight.record().attempts = u8::try_from(call.attempts).unwrap_or(u8::MAX);
        let fault = Fault {
            outcome: Outcome::PlatformError,
            detail: "the platform was killed while the call ran; it is not declared idempotent, so it is not tried again".into(),
            exception: None,
            phase: "run",
            limit_hit: None,
            limit_bytes: None,
            retry_after: None,
            caller_was_short: false,
        };
        flight.fail(fault, Vec::new(), None);
    } else {
        if let Err(error) = invoker.registry.mark_started(call.id, invoker.clock.wall_now_us()).await {
            // It runs all the same: running twice after a crash is the lesser harm to a call that was accepted.
            tracing::warn!(%error, id = %call.id, "the start of an accepted call cannot be noted");
        }
        let completed = Invoker::fly(flight).await;
        if let super::Reply::Stream { mut pieces, .. } = completed.reply {
            while let Some(Ok(_)) = pieces.recv().await {}
        }
    }
    forget(invoker, call.id).await;
}

/// Closes the record of a call whose function is no more: whoever asks for it learns why it never ran.
async fn refuse_deleted(invoker: &Arc<Invoker>, function: Arc<Deployed>, call: AsyncCall) {
    if let Some((request, promise)) = request_of(invoker, &call) {
        let mut flight = Flight::open_as(invoker, function, Arc::new(request), Some(promise));
        flight.not_dispatched();
        let fault = attempt::deleted(&flight);
        flight.fail(fault, Vec::new(), None);
    }
    forget(invoker, call.id).await;
}

async fn forget(invoker: &Invoker, id: InvocationId) {
    if let Err(error) = invoker.registry.finish_call(id).await {
        tracing::warn!(%error, %id, "a finished call cannot be taken from the queue; it may run again after a restart");
    }
}

fn request_of(invoker: &Invoker, call: &AsyncCall) -> Option<(Request, Promise)> {
    let head: Head = serde_json::from_str(&call.head_json).ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in &head.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes()))
        {
            headers.append(name, value);
        }
    }
    let trace = match &head.parent {
        Some(parent) => parent.with_span(head.span_id),
        None => TraceContext::begin(head.trace_id, head.span_id, |name| {
            headers.get_all(name).iter().map(HeaderValue::as_bytes)
        }),
    };
    let promise = Promise { id: call.id, trace, accepted_us: call.accepted_us };
    let request = Request {
        tenant: call.tenant.clone(),
        event_type: call.event_type.as_str().into(),
        trigger: Trigger::Async,
        verb: head.verb.into(),
        path: head.path.into(),
        query: head.query.into(),
        headers,
        params: head.params,
        body: call.body.clone().into(),
        correlation_id: head.correlation_id.into(),
        trace: head.parent,
        link: None,
        time_given: None,
        criticality: None,
        called_by: None,
        caller: 0,
        arrived: invoker.clock.now(),
        upload: Duration::ZERO,
        auth: head.auth,
    };
    Some((request, promise))
}

fn correlation_id(headers: &[(String, String)]) -> String {
    let given = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-correlation-id"));
    given.map_or_else(|| format!("{:032x}", fastrand::u128(..)), |(_, value)| value.clone())
}

fn trace_of(headers: &[(String, String)]) -> Option<TraceContext> {
    TraceContext::extract(|name| {
        let mine = headers.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name));
        mine.map(|(_, value)| value.as_bytes())
    })
}
