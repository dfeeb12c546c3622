//! Asynchronous calls: accepted durably, run from a queue.
//!
//! `trigger` answers once the calls are on disk and synced. Head and body stay there: what waits here
//! is ids, and a call is read back at its turn, when there is room for its body. One task per function
//! takes them in order of acceptance and keeps at most `scaling.max` of them in the function's queue, so
//! that a backlog never crowds out callers that wait. After a crash, calls that never started run;
//! one that was cut off runs again only if the function is idempotent, and is recorded as the
//! platform's error otherwise.

mod backlog;
mod head;
mod queues;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fp_core::code::Code;
use fp_core::ids::SpanId;
use fp_core::outcome::Outcome;
use fp_core::{FunctionName, InvocationId, Tenant, TraceId};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::backlog::{Backlog, Load};
use self::head::Head;
pub(crate) use self::head::MAX_CORRELATION_ID;
use self::queues::{Queues, Running, Whose};
use super::flight::{Flight, Promise};
use super::{Fault, Invoker, Request, attempt};
use crate::bodies::NoRoom;
use crate::catalog::{Catalog, Deployed, Matched, Route};
use crate::quotas::{Account, BacklogEntry, Refused};
use crate::store::{AsyncCall, AsyncState};

/// A queue that no call came to for this long ends, with its task; the next call begins another.
const QUIET: Duration = Duration::from_secs(60);

/// When a call is asked for again that could not be read: a disk that fails recovers, or an operator sees
/// to it.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// When trying again makes sense where there was no room for a body.
const ROOM_PAUSE: Duration = Duration::from_secs(1);

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

    fn no_room(full: NoRoom) -> Self {
        Self { retry_after: Some(ROOM_PAUSE), ..Self::new(Code::Shed, full.to_string()) }
    }
}

/// A call in its queue; all else of it is on disk.
#[derive(Debug)]
struct Accepted {
    id: InvocationId,
    body_bytes: u64,
    /// Its function when it was accepted. A newer version runs it; this one is what a call is
    /// refused for whose function has been deleted meanwhile.
    function: Arc<Deployed>,
    _entry: BacklogEntry,
    _load: Load,
}

/// The queues of accepted calls, one task per function.
#[derive(Debug, Default)]
pub(crate) struct Background {
    queues: Queues<Accepted>,
    backlog: Arc<Backlog>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Calls that may be accepted: nothing is in their way but the disk.
struct Batch {
    calls: Vec<AsyncCall>,
    body: Bytes,
    /// The request of them all, and the promise of each.
    request: Request,
    promises: Vec<Promise>,
    functions: Arc<[Arc<Deployed>]>,
    entries: Vec<BacklogEntry>,
    loads: Vec<Load>,
    places: Vec<mpsc::OwnedPermit<Accepted>>,
}

impl Invoker {
    /// Accepts a call for every function of its event type; they are durable when this returns. Once it
    /// has begun to write them it goes on when the future is dropped: what is on disk is in a queue.
    pub async fn trigger(
        self: &Arc<Self>,
        tenant: &Tenant,
        call: TriggerCall,
    ) -> Result<Vec<InvocationId>, TriggerError> {
        let batch = self.batch(tenant, call)?;
        let invoker = self.clone();
        let whole = self.background.tasks.spawn(async move { invoker.accept(batch).await });
        whole.await.expect("accepting a call does not panic")
    }

    /// Everything that may be refused before the disk is asked.
    fn batch(self: &Arc<Self>, tenant: &Tenant, call: TriggerCall) -> Result<Batch, TriggerError> {
        let (path, query) = call.path.split_once('?').unwrap_or((&call.path, ""));
        let Matched { event_type, functions, params } = self.matched(tenant, &call, path)?;
        let body_bytes = call.body.len() as u64;
        let accepted_us = self.clock.wall_now_us();
        let mut head = Head {
            verb: call.verb,
            path: Catalog::decoded_path(path).unwrap_or_else(|_| path.to_owned()),
            query: query.to_owned(),
            correlation_id: head::correlation_id(&call.headers),
            parent: head::trace_of(&call.headers),
            trace_id: TraceId::from_parts(accepted_us / 1000, fastrand::u128(..)),
            span_id: SpanId::default(),
            headers: call.headers,
            params,
            auth: Some(call.by),
        };
        let (mut calls, mut spans) = (Vec::new(), Vec::new());
        for function in functions.iter() {
            head.span_id = SpanId::from_random(fastrand::u64(..));
            spans.push(head.span_id);
            calls.push(AsyncCall {
                id: InvocationId::from_parts(accepted_us / 1000, fastrand::u128(..)),
                tenant: tenant.clone(),
                function: function.name.clone(),
                order: Some(function.order),
                event_type: event_type.to_string(),
                head_json: head.to_json(),
                body_bytes,
                accepted_us,
                state: AsyncState::Queued,
                attempts: 0,
            });
        }
        let entries = self.enter(&functions)?;
        let weights: Vec<_> = calls.iter().map(weight_of).collect();
        let loads = self.background.backlog.load(tenant, &weights);
        let loads = loads.map_err(|error| TriggerError::new(Code::Shed, error.to_string()))?;
        let mut purse = self.bodies.purse(tenant);
        purse.grow(body_bytes).map_err(TriggerError::no_room)?;
        let body = purse.with(call.body);
        let places = self.reserve(&functions)?;
        // Last, because it cannot be given back by itself like the others.
        self.spend(&functions)?;
        let opened = head.open(tenant.clone(), event_type, body.clone(), self.clock.now());
        let promise = |(call, span): (&AsyncCall, SpanId)| opened.promise(call.id, span, accepted_us);
        let promises = calls.iter().zip(spans).map(promise).collect();
        Ok(Batch { calls, body, request: opened.request, promises, functions, entries, loads, places })
    }

    /// Which functions the call is for, each of which takes a body of its size.
    fn matched(&self, tenant: &Tenant, call: &TriggerCall, path: &str) -> Result<Matched, TriggerError> {
        let refuse = TriggerError::new;
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
        Ok(matched)
    }

    /// Writes the calls and puts them into their queues.
    async fn accept(self: Arc<Self>, batch: Batch) -> Result<Vec<InvocationId>, TriggerError> {
        let Batch { calls, body, request, promises, functions, entries, loads, places } = batch;
        let body_bytes = body.len() as u64;
        let ids: Vec<_> = calls.iter().map(|call| call.id).collect();
        let written = self.registry.enqueue(calls, body).await;
        written.map_err(|error| TriggerError::new(error.code(), error.to_string()))?;
        for (function, promise) in functions.iter().zip(&promises) {
            // Visible before it runs.
            Flight::announce(&self, function, &request, promise);
        }
        let counted = entries.into_iter().zip(loads);
        let queued = ids.iter().zip(functions.iter()).zip(counted);
        for (place, ((id, function), (entry, load))) in places.into_iter().zip(queued) {
            let function = function.clone();
            place.send(Accepted { id: *id, body_bytes, function, _entry: entry, _load: load });
        }
        Ok(ids)
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

    /// Takes up the calls that an earlier life accepted, piece by piece and without their bodies.
    pub(crate) async fn resume(self: &Arc<Self>) {
        let mut last = None;
        loop {
            let page = match self.registry.pending_calls(last.take()).await {
                Ok(page) => page,
                Err(error) => return tracing::error!(%error, "accepted calls cannot be read back"),
            };
            let Some(end) = page.last().cloned() else { return };
            last = Some(end);
            for call in page {
                self.resume_one(call).await;
            }
        }
    }

    async fn resume_one(self: &Arc<Self>, call: AsyncCall) {
        let live = self.catalog.get(&call.tenant, &call.function);
        let is_its_own = |live: &Arc<Deployed>| call.order.is_none_or(|order| order == live.order);
        let head = Head::of(&call);
        let Some((function, head)) = live.filter(is_its_own).zip(head) else {
            // Deleted in that life; its queue was not reached any more. One of its name is another.
            return forget(self, call.id).await;
        };
        // Visible before the platform answers anybody, not first when its turn comes.
        let (request, promise) = opened(self, &call, head, Bytes::new());
        Flight::announce(self, &function, &request, &promise);
        let accepted = Accepted {
            id: call.id,
            body_bytes: call.body_bytes,
            _entry: function.pool.account().accept_again(),
            _load: self.background.backlog.load_again(&call.tenant, weight_of(&call)),
            function,
        };
        let queue = self.queue_of(&call.tenant, &call.function);
        if let Err(mpsc::error::TrySendError::Full(accepted)) = queue.try_send(accepted) {
            // In a task of its own: a backlog beyond the bound must not keep the platform from starting.
            self.background.tasks.spawn(async move {
                // The queue ends with the platform only; then the next start resumes again.
                let _ = queue.send(accepted).await;
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
        let Some(accepted) = accepted else { return };
        // A later function of the name, perhaps of a later tenant of the name, is another one.
        let live = invoker.catalog.get(&whose.0, &whose.1);
        let Some(function) = live.filter(|live| live.order == accepted.function.order) else {
            refuse_deleted(&invoker, accepted).await;
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
            // Not the call at its turn: what waits for room has not begun, and stays for the next start.
            let stop = &invoker.background.stop;
            if let Some(Some((call, body))) = stop.run_until_cancelled(read_back(&invoker, &accepted)).await {
                run_one(&invoker, function, call, body).await;
            }
            drop((place, accepted));
        });
    }
}

/// The call as it is on disk, once there is room for its body; none where it is no more.
async fn read_back(invoker: &Invoker, accepted: &Accepted) -> Option<(AsyncCall, Bytes)> {
    let mut purse = invoker.bodies.purse(&accepted.function.tenant);
    purse.grow_when_free(accepted.body_bytes).await;
    loop {
        match invoker.registry.whole_call(accepted.id).await {
            Ok(Some((call, body))) => return Some((call, purse.with(body))),
            Ok(None) => {
                // With its tenant: nobody may hear of it any more.
                invoker.history.withdraw(accepted.id);
                return None;
            }
            Err(error) => {
                tracing::warn!(%error, id = %accepted.id, "an accepted call cannot be read back; it waits");
                tokio::time::sleep(READ_PAUSE).await;
            }
        }
    }
}

async fn run_one(invoker: &Arc<Invoker>, function: Arc<Deployed>, call: AsyncCall, body: Bytes) {
    let Some(head) = Head::of(&call) else {
        invoker.history.withdraw(call.id);
        return forget(invoker, call.id).await;
    };
    let (request, promise) = opened(invoker, &call, head, body);
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
async fn refuse_deleted(invoker: &Arc<Invoker>, accepted: Accepted) {
    let Accepted { id, function, .. } = accepted;
    let call = match invoker.registry.accepted_call(id).await {
        Ok(call) => call,
        Err(error) => {
            return tracing::warn!(%error, %id, "an accepted call cannot be read back; the next start will");
        }
    };
    let Some((call, head)) = call.and_then(|call| Head::of(&call).map(|head| (call, head))) else {
        // With its tenant: nobody may hear of it any more.
        invoker.history.withdraw(id);
        return forget(invoker, id).await;
    };
    let (request, promise) = opened(invoker, &call, head, Bytes::new());
    let mut flight = Flight::open_as(invoker, function, Arc::new(request), Some(promise));
    flight.not_dispatched();
    flight.record().request_bytes = call.body_bytes;
    let fault = attempt::deleted(&flight);
    flight.fail(fault, Vec::new(), None);
    forget(invoker, id).await;
}

async fn forget(invoker: &Invoker, id: InvocationId) {
    if let Err(error) = invoker.registry.finish_call(id).await {
        tracing::warn!(%error, %id, "a finished call cannot be taken from the queue; it may run again after a restart");
    }
}

fn opened(invoker: &Invoker, call: &AsyncCall, head: Head, body: Bytes) -> (Request, Promise) {
    let opened = head.open(call.tenant.clone(), call.event_type.as_str().into(), body, invoker.clock.now());
    let promise = opened.promise(call.id, opened.span_id, call.accepted_us);
    (opened.request, promise)
}

fn weight_of(call: &AsyncCall) -> u64 {
    backlog::weight(call.head_json.len() as u64, call.body_bytes)
}
