//! The workers of one function version: leases, carried out from core's decisions.
//!
//! [`VersionPool::ask`] hands a worker over, or a place in the queue for one; dropping the [`Lease`] gives it
//! back (or ends it, when it must not be used again). A function with `concurrency` has shared
//! workers, and a lease is of one slot. What happens in between is decided by
//! [`fp_core::pool::Pool`] under one short lock that no await is held across: with an idle
//! worker a lease is taken and returned without a task switch, a timer or an allocation of a
//! channel. This room knows neither routes nor answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fp_core::WorkerId;
use fp_core::outcome::Outcome;
use fp_core::pool::{Arrival, CallId, Decision, Entry, Pool, PoolConfig, PoolView, Reckoned, ScalingView};
use fp_core::settings::Criticality;
use fp_sandbox::{Sandbox, StartError, Worker, WorkerSpec};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::clock::Clock;
use crate::quotas::{Account, MemoryEntry, Refused, Spare};
use crate::secrets::FunctionSecrets;

mod health;
pub(crate) mod host;
mod lease;
mod queued;
mod second;
mod start;
mod timer;
mod workers;

use self::health::Health;
pub use self::health::HealthView;
pub(crate) use self::health::Probe;
use self::host::{Entered, Holds, HostPlace, HostWorkers, Idle};
pub use self::lease::Lease;
use self::lease::{Granted, Seat};
pub use self::queued::Queued;
pub use self::workers::WorkerInfo;
use self::workers::{Known, Ready, Room, Shared};

/// Serials of calls: unique in this process, so that a worker's frames can be told apart.
static NEXT_CALL: AtomicU64 = AtomicU64::new(1);

/// A call that wants a worker.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Its class.
    pub criticality: Criticality,
    /// Hash of whoever the queue is fair between.
    pub caller: u64,
    /// When it must have been answered, on the platform's clock.
    pub deadline: Duration,
}

/// Why there is no lease.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// The policy refused the call.
    Refused {
        /// As what.
        outcome: Outcome,
        /// When trying again makes sense.
        retry_after: Duration,
        /// Why workers do not start, where that is the reason.
        why: Option<Arc<str>>,
        /// What the policy reckoned with; none where the call had waited.
        reckoned: Option<Reckoned>,
    },
    /// The version was replaced before the call was dispatched: ask the new one.
    Moved,
}

/// What becomes of a call that asks for a worker.
pub enum Asked {
    /// It has one.
    Granted(Lease),
    /// It gets none.
    Refused(Refusal),
    /// It waits for one.
    Queued(Queued),
}

enum Grant {
    Worker(Granted),
    Refused { outcome: Outcome, retry_after: Duration, why: Option<Arc<str>> },
    Moved,
}

struct State {
    policy: Pool,
    /// Workers of one call each that have none.
    idle: HashMap<WorkerId, Granted>,
    /// Workers that calls share, whatever they run.
    shared: HashMap<WorkerId, Shared>,
    waiting: HashMap<CallId, oneshot::Sender<Grant>>,
    infos: HashMap<WorkerId, Known>,
    /// Scratch for decisions, kept to spare an allocation per call.
    decisions: Vec<Decision>,
    /// When the running timer task will look next; none while there is no such task.
    timer: Option<Duration>,
    last_start_error: Option<Arc<str>>,
    /// Why the last worker was not allowed to start.
    over_quota: Option<Refused>,
    /// The new version's pool takes over what is queued here.
    closed: bool,
}

impl State {
    /// What is known of a refusal besides its outcome.
    fn why(&self, outcome: Outcome, retry_after: Duration) -> (Option<Arc<str>>, Duration) {
        match (outcome, &self.over_quota) {
            (Outcome::StartFailed, _) => (self.last_start_error.clone(), retry_after),
            (Outcome::QuotaExceeded, Some(over)) => (Some(over.sentence().into()), over.retry_after()),
            _ => (None, retry_after),
        }
    }
}

/// The workers and the queue of one function version.
pub struct VersionPool {
    spec: WorkerSpec,
    /// What its workers may read; none for most functions.
    secrets: Option<Arc<FunctionSecrets>>,
    /// Calls at once in one worker.
    slots: u32,
    account: Arc<Account>,
    host: Arc<HostWorkers>,
    /// Those of its tenant that may have an idle worker, and whether it is one of them.
    idle: Arc<Idle<Self>>,
    entered: Entered,
    sandbox: Sandbox,
    clock: Clock,
    state: Mutex<State>,
    timer_changed: Notify,
    health: Health,
}

impl std::fmt::Debug for VersionPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VersionPool").field("view", &self.view()).finish_non_exhaustive()
    }
}

impl VersionPool {
    /// A pool with no worker yet; call [`tend`](Self::tend) once it is live.
    pub(crate) fn new(
        spec: WorkerSpec,
        secrets: Option<Arc<FunctionSecrets>>,
        config: PoolConfig,
        account: Arc<Account>,
        host: Arc<HostWorkers>,
        sandbox: Sandbox,
        clock: Clock,
    ) -> Arc<Self> {
        let policy = Pool::new(config);
        let slots = policy.slots();
        let state = State {
            policy,
            idle: HashMap::new(),
            shared: HashMap::new(),
            waiting: HashMap::new(),
            infos: HashMap::new(),
            decisions: Vec::new(),
            timer: None,
            last_start_error: None,
            over_quota: None,
            closed: false,
        };
        let pool = Arc::new(Self {
            idle: host.idle_of(&spec.tenant),
            entered: Entered::default(),
            spec,
            secrets,
            slots,
            account,
            host,
            sandbox,
            clock,
            state: Mutex::new(state),
            timer_changed: Notify::new(),
            health: Health::default(),
        });
        let spare: std::sync::Weak<dyn Spare> = Arc::downgrade(&pool) as _;
        pool.account.register(spare);
        pool
    }

    /// Starts what the policy wants from the beginning (`scaling.min`).
    pub fn tend(self: &Arc<Self>) {
        let now = self.clock.now();
        self.decide(|policy, out| policy.on_timer(now, out));
    }

    /// Whether its workers are what another pool's would be, but for the version's number.
    pub(crate) fn can_become(&self, other: &Self) -> bool {
        let spec = WorkerSpec { version: self.spec.version, ..other.spec.clone() };
        let secrets = match (&self.secrets, &other.secrets) {
            (None, None) => true,
            (Some(own), Some(others)) => own.is_alike(others),
            _ => false,
        };
        let config = *other.state.lock().policy.config();
        secrets && self.spec == spec && self.state.lock().policy.config().can_become(&config)
    }

    /// Goes on as another pool would; see [`Pool::set_config`].
    pub(crate) fn become_like(self: &Arc<Self>, other: &Self) {
        let (now, config) = (self.clock.now(), *other.state.lock().policy.config());
        // Perhaps it was the timeout that its calls ran into.
        self.health.begin_anew();
        self.decide(|policy, out| policy.set_config(now, config, out));
    }

    /// Room for a worker in the tenant's quota, before it is started.
    pub(crate) fn reserve(&self) -> Result<MemoryEntry, Refused> {
        self.account.reserve(self.spec.memory)
    }

    /// Takes over a worker that a deploy has loaded the handler in.
    pub(crate) fn adopt(
        self: &Arc<Self>,
        worker: Worker,
        memory: MemoryEntry,
        place: HostPlace,
        took: Duration,
    ) {
        let now = self.clock.now();
        let room = Room { _memory: memory, _place: place };
        let worker = match self.ready(worker) {
            Ok(worker) => worker,
            Err(error) => {
                return tracing::warn!(function = %self.spec.function, %error, "a worker is not used");
            }
        };
        let id = worker.id();
        let mut state = self.state.lock();
        self.enter(&mut state, worker, None, room);
        self.decide_in(&mut state, |policy, out| policy.on_adopted(now, id, took, out));
    }

    /// The pool in figures.
    pub fn view(&self) -> PoolView {
        self.state.lock().policy.view(self.clock.now())
    }

    /// What the policy reckons with, and its latest decisions, the oldest first, each with its Unix time in
    /// microseconds.
    pub fn scaling(&self) -> (ScalingView, Vec<(u64, Entry)>) {
        let state = self.state.lock();
        let decisions =
            state.policy.decisions().map(|entry| (self.clock.wall_us(entry.at), *entry)).collect();
        (state.policy.scaling(self.clock.now()), decisions)
    }

    /// So many workers are kept from here on; see [`Pool::set_floor`].
    pub(crate) fn set_floor(self: &Arc<Self>, floor: u32) {
        let now = self.clock.now();
        self.decide(|policy, out| {
            if policy.set_floor(now, floor) {
                policy.on_timer(now, out);
            }
        });
    }

    /// Whether calls wait for a worker now.
    pub fn has_queue(&self) -> bool {
        !self.state.lock().waiting.is_empty()
    }

    /// How many workers there are.
    pub(crate) fn worker_count(&self) -> u32 {
        self.state.lock().infos.len() as u32
    }

    /// The workers, by id.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        let mut workers: Vec<_> = self.state.lock().infos.values().map(|known| known.info.clone()).collect();
        workers.sort_by_key(|worker| worker.id);
        workers
    }

    /// Asks for a worker: it is there at once, or the call is refused or queued.
    pub fn ask(self: &Arc<Self>, wanted: Wanted) -> Asked {
        let call = CallId(NEXT_CALL.fetch_add(1, Ordering::Relaxed));
        let now = self.clock.now();
        let Wanted { criticality, caller, deadline } = wanted;
        let mut state = self.state.lock();
        if state.closed {
            return Asked::Refused(Refusal::Moved);
        }
        let queue_length = state.waiting.len() as u32;
        let arrival = Arrival { call, criticality, caller, deadline };
        let state = &mut *state;
        state.policy.on_arrival(now, arrival, &mut state.decisions);
        if let [Decision::Run { call: mine, worker }] = state.decisions[..]
            && mine == call
        {
            state.decisions.clear();
            // It was there before the call, which waited for no start.
            let granted = Granted { start: None, ..self.seat_on(state, worker) };
            self.mark_busy(state, worker);
            if let Some(shared) = state.shared.get_mut(&worker) {
                shared.start = None;
            }
            return Asked::Granted(self.lease_of(granted, call, queue_length));
        }
        if let [Decision::Refuse { call: mine, outcome, retry_after }] = state.decisions[..]
            && mine == call
        {
            state.decisions.clear();
            let (why, retry_after) = state.why(outcome, retry_after);
            let reckoned = Some(state.policy.reckoned());
            self.keep_time(state);
            return Asked::Refused(Refusal::Refused { outcome, retry_after, why, reckoned });
        }
        let reckoned = state.policy.reckoned();
        let (sender, receiver) = oneshot::channel();
        state.waiting.insert(call, sender);
        self.carry_out(state);
        Asked::Queued(Queued { pool: self.clone(), call, receiver, queue_length, reckoned })
    }

    /// The version was replaced: queued calls move, idle workers go, busy ones go when idle.
    pub fn close(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.closed = true;
        let state = &mut *state;
        let moved = state.policy.close(&mut state.decisions);
        for arrival in moved {
            if let Some(sender) = state.waiting.remove(&arrival.call) {
                // A receiver that is gone has left the queue by itself.
                let _ = sender.send(Grant::Moved);
            }
        }
        self.carry_out(state);
    }

    fn lease_of(self: &Arc<Self>, granted: Granted, call: CallId, queue_length: u32) -> Lease {
        let since = self.clock.now();
        Lease {
            pool: self.clone(),
            granted: Some(granted),
            serial: call.0,
            since,
            spoilt: false,
            queue_length,
        }
    }

    fn give_back(self: &Arc<Self>, granted: Granted, ran: Duration, spoilt: bool) {
        match granted.seat {
            Seat::Sole(worker) => self.give_worker_back(worker, ran, spoilt),
            Seat::Shared(call) => {
                let (id, is_reusable) = (call.worker_id(), call.is_reusable());
                drop(call);
                self.give_slot_back(id, ran, is_reusable);
            }
        }
    }

    fn give_worker_back(self: &Arc<Self>, worker: Box<Worker>, ran: Duration, spoilt: bool) {
        let now = self.clock.now();
        let id = worker.id();
        let is_wanted_back = self.host.wants_back(&self.spec.tenant);
        let mut state = self.state.lock();
        if spoilt || !worker.is_reusable() {
            state.infos.remove(&id);
            self.health.forget(id);
            self.decide_in(&mut state, |policy, out| policy.on_gone(now, id, out));
            return;
        }
        if let Some(Known { info, .. }) = state.infos.get_mut(&id) {
            info.running = 0;
        }
        state.idle.insert(id, Granted { seat: Seat::Sole(worker), start: None });
        self.decide_in(&mut state, |policy, out| match is_wanted_back {
            true => policy.on_yield(now, id, ran, out),
            false => policy.on_idle(now, id, ran, out),
        });
    }

    fn give_slot_back(self: &Arc<Self>, id: WorkerId, ran: Duration, is_reusable: bool) {
        let now = self.clock.now();
        let is_wanted_back = self.host.wants_back(&self.spec.tenant);
        let mut state = self.state.lock();
        // It died, and the policy knows, or nobody may use it any more.
        let Some(shared) = state.shared.get_mut(&id) else { return };
        shared.start = None;
        if shared.worker.is_gone() {
            return self.forget_shared(&mut state, id);
        }
        if let Some(Known { info, .. }) = state.infos.get_mut(&id) {
            info.running = info.running.saturating_sub(1);
        }
        self.decide_in(&mut state, |policy, out| {
            // What did not end in order says nothing of run times, and may still run there.
            if !is_reusable || is_wanted_back {
                policy.on_spoilt(now, id, out);
            }
            policy.on_idle(now, id, if is_reusable { ran } else { Duration::ZERO }, out);
        });
    }

    /// A shared worker takes no new calls from here on.
    fn spoil(self: &Arc<Self>, id: WorkerId) {
        let now = self.clock.now();
        self.decide(|policy, out| policy.on_spoilt(now, id, out));
    }

    /// A shared worker died; its calls notice by themselves.
    fn forget_shared(self: &Arc<Self>, state: &mut State, id: WorkerId) {
        if state.shared.remove(&id).is_some() {
            state.infos.remove(&id);
            self.health.forget(id);
            let now = self.clock.now();
            self.decide_in(state, |policy, out| policy.on_gone(now, id, out));
        }
    }

    /// A started worker in the form in which this version uses it, watched from here on.
    fn ready(self: &Arc<Self>, worker: Worker) -> Result<Ready, StartError> {
        self.watch(&worker);
        if self.slots == 1 {
            return Ok(Ready::Sole(Box::new(worker)));
        }
        if !worker.is_async() {
            let what = format!("concurrency is {}, but the handler is not async def", self.slots);
            return Err(StartError::Host(what));
        }
        // Its reading task belongs to the threads that serve calls, whoever deploys it.
        let _calls = self.sandbox.runtime().enter();
        worker.share().map(Ready::Shared).map_err(|error| StartError::Host(error.to_string()))
    }

    /// Puts a started worker where [`seat_on`](Self::seat_on) finds it, before the policy hears
    /// of it.
    fn enter(&self, state: &mut State, worker: Ready, start: Option<Duration>, room: Room) {
        let (id, host_pid) = match &worker {
            Ready::Sole(worker) => (worker.id(), worker.host_pid()),
            Ready::Shared(worker) => (worker.id(), worker.host_pid()),
        };
        let started_us = self.clock.wall_now_us();
        let info = WorkerInfo { id, host_pid, started_us, calls: 0, running: 0 };
        state.infos.insert(id, Known { info, _room: room });
        match worker {
            Ready::Sole(worker) => {
                state.idle.insert(id, Granted { seat: Seat::Sole(worker), start });
            }
            Ready::Shared(worker) => {
                state.shared.insert(id, Shared { worker, start });
            }
        }
    }

    /// The worker, or a slot of it, that the policy gave a call.
    fn seat_on(&self, state: &mut State, worker: WorkerId) -> Granted {
        if self.slots == 1 {
            return state.idle.remove(&worker).expect("the policy runs calls on idle workers only");
        }
        let shared = state.shared.get(&worker).expect("the policy runs calls on workers that it knows");
        Granted { seat: Seat::Shared(shared.worker.seat()), start: shared.start }
    }

    fn mark_busy(&self, state: &mut State, worker: WorkerId) {
        if let Some(Known { info, .. }) = state.infos.get_mut(&worker) {
            info.running += 1;
            info.calls += 1;
        }
    }

    fn decide(self: &Arc<Self>, ask: impl FnOnce(&mut Pool, &mut Vec<Decision>)) {
        self.decide_in(&mut self.state.lock(), ask);
    }

    fn decide_in(self: &Arc<Self>, state: &mut State, ask: impl FnOnce(&mut Pool, &mut Vec<Decision>)) {
        ask(&mut state.policy, &mut state.decisions);
        self.carry_out(state);
    }

    /// Does what the policy decided; a grant that nobody takes is told to the policy at once,
    /// which may decide more.
    fn carry_out(self: &Arc<Self>, state: &mut State) {
        while !state.decisions.is_empty() {
            for decision in std::mem::take(&mut state.decisions) {
                match decision {
                    Decision::Run { call, worker } => self.grant(state, call, worker),
                    Decision::Start { count } => (0..count).for_each(|_| self.start_one()),
                    Decision::Retire { worker } => {
                        state.infos.remove(&worker);
                        self.health.forget(worker);
                        state.idle.remove(&worker);
                        state.shared.remove(&worker);
                    }
                    Decision::Refuse { call, outcome, retry_after } => {
                        let (why, retry_after) = state.why(outcome, retry_after);
                        if let Some(sender) = state.waiting.remove(&call) {
                            // A receiver that is gone has left the queue by itself.
                            let _ = sender.send(Grant::Refused { outcome, retry_after, why });
                        }
                    }
                }
            }
        }
        if state.policy.has_idle() {
            self.account.note_spare();
            self.idle.note(self);
        }
        self.keep_time(state);
    }

    fn grant(self: &Arc<Self>, state: &mut State, call: CallId, worker: WorkerId) {
        let granted = self.seat_on(state, worker);
        let sent = match state.waiting.remove(&call) {
            Some(sender) => sender.send(Grant::Worker(granted)),
            None => Err(Grant::Worker(granted)),
        };
        match sent {
            Ok(()) => self.mark_busy(state, worker),
            Err(Grant::Worker(granted)) => {
                if matches!(granted.seat, Seat::Sole(_)) {
                    state.idle.insert(worker, granted);
                }
                let now = self.clock.now();
                state.policy.on_idle(now, worker, Duration::ZERO, &mut state.decisions);
            }
            Err(_) => {}
        }
    }

    /// Notices the death of an idle or a shared worker. A busy one is noticed by its call.
    fn watch(self: &Arc<Self>, worker: &Worker) {
        let id = worker.id();
        let exited = worker.exit_watch();
        let pool = Arc::downgrade(self);
        self.sandbox.runtime().spawn(async move {
            exited.await;
            let Some(pool) = pool.upgrade() else { return };
            let mut state = pool.state.lock();
            if state.idle.remove(&id).is_some() {
                state.infos.remove(&id);
                pool.health.forget(id);
                let now = pool.clock.now();
                pool.decide_in(&mut state, |policy, out| policy.on_gone(now, id, out));
            } else {
                pool.forget_shared(&mut state, id);
            }
        });
    }

    /// What its workers may read.
    pub(crate) fn secrets(&self) -> Option<&Arc<FunctionSecrets>> {
        self.secrets.as_ref()
    }

    /// What it and its callers use.
    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// What its workers are started from.
    pub fn spec(&self) -> &WorkerSpec {
        &self.spec
    }
}

impl Holds for VersionPool {
    fn idle_since(&self) -> Option<Duration> {
        self.state.lock().policy.idle_since()
    }

    /// See [`Pool::make_room`].
    fn make_room(self: &Arc<Self>, room: fp_core::pool::Room) -> bool {
        let mut state = self.state.lock();
        let state = &mut *state;
        let was_there = state.policy.make_room(self.clock.now(), room, &mut state.decisions);
        if was_there {
            self.carry_out(state);
        }
        was_there
    }

    fn entered(&self) -> &Entered {
        &self.entered
    }
}

impl Spare for VersionPool {
    fn spare_one(self: Arc<Self>) -> bool {
        self.make_room(fp_core::pool::Room::Spare)
    }
}
