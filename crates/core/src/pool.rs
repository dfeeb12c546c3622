//! The pool policy: which call runs on which worker, when workers start and retire, and who is
//! refused. One [`Pool`] per function version, with its one queue.
//!
//! It is told what happened and when (`on_…`), answers with [`Decision`]s pushed to `out`, and
//! says when it wants to be woken ([`Pool::next_wake`]). It never waits, reads no clock and knows
//! neither processes nor sockets: the server and the simulator carry its decisions out.
//!
//! Always true, and tested as properties: no call waits while a worker that is not spoilt has a
//! free slot; there are never more than `max` workers, starting and spoilt ones included; only
//! idle workers are retired; every arrival ends in exactly one of run, refused, cancelled by its
//! caller, or moved by [`Pool::close`].

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use crate::ids::WorkerId;
use crate::outcome::{DeadlineReason, Outcome, ShedReason};
use crate::settings::Criticality;

mod config;
mod queue;
mod recent;
mod room;
mod second;
mod view;
mod wait;
mod workers;

pub use config::{AUTO_IDLE, PoolConfig, UNCALLED_IDLE};
pub use room::Room;
pub use view::PoolView;

use queue::Queue;
use recent::Recent;
use workers::Workers;

/// A point in time: what has passed since an epoch that the pool's owner chose.
pub type Now = Duration;

/// A call, named by its owner; unique among the calls that the pool has queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CallId(pub u64);

/// A call that wants a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Which call.
    pub call: CallId,
    /// Its class.
    pub criticality: Criticality,
    /// Hash of whoever the queue is fair between: key, calling function's tenant or address.
    pub caller: u64,
    /// When it must have been answered.
    pub deadline: Now,
}

/// What the pool's owner must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Run this call on this worker.
    Run {
        /// The call.
        call: CallId,
        /// The worker, one slot of which is now taken.
        worker: WorkerId,
    },
    /// Start workers: each is answered by [`Pool::on_started`] or [`Pool::on_start_failed`].
    Start {
        /// How many.
        count: u32,
    },
    /// End this idle worker. The pool has forgotten it: no report is due.
    Retire {
        /// The worker.
        worker: WorkerId,
    },
    /// Answer this call without running it.
    Refuse {
        /// The call.
        call: CallId,
        /// As what.
        outcome: Outcome,
        /// When trying again makes sense: the time that what is queued takes.
        retry_after: Duration,
    },
}

/// Calls that must have run before the pool trusts its run times enough to refuse a call that
/// they say cannot make it.
const TRUSTED_RUNS: u64 = 20;

/// The part of an estimated wait behind others that is added to it before a call is let in: an estimate from the
/// median of 128 runs is off by some percent, and more on a host that others use, too.
const WAIT_SLACK: u32 = 8;

/// The start time to reckon with before any was measured: the platform's own target for a cold
/// start with a warm zygote.
const UNKNOWN_START: Duration = Duration::from_millis(5);

/// Pause after the first failed start; it doubles with each further failure. A tenth of a second
/// is noticed by nobody, half a minute lets a host recover.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// While calls wait, the pool asks itself again whether a start pays, once per start time within
/// these bounds: estimates can turn out wrong while nothing else happens.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

/// The policy of one function version.
#[derive(Debug)]
pub struct Pool {
    config: PoolConfig,
    workers: Workers,
    /// When each start that is under way was asked for.
    starting: VecDeque<Now>,
    queue: Queue,
    run_times: Recent,
    start_times: Recent,
    start_failures: u32,
    /// The last start was not allowed, and what calls that can have no worker end as.
    denied: Option<Outcome>,
    /// Starts in a row that were not allowed.
    denials: u32,
    no_start_before: Now,
    /// No start for `min` alone; calls that wait are worth asking more often.
    no_spare_start_before: Now,
    look_again: Now,
    closed: bool,
    /// Kept to save an allocation per estimate.
    scratch: Vec<u64>,
}

impl Pool {
    /// An empty pool. [`next_wake`](Self::next_wake) is due at once when `min` workers are to be
    /// started.
    pub fn new(config: PoolConfig) -> Self {
        let one_call = config.idle.is_zero();
        let config = PoolConfig {
            min: if one_call { 0 } else { config.min.min(config.max.max(1)) },
            max: config.max.max(1),
            slots: if one_call { 1 } else { config.slots.max(1) },
            queue_bound: config.queue_bound.max(1),
            ..config
        };
        Self {
            config,
            workers: Workers::new(config.slots),
            starting: VecDeque::new(),
            queue: Queue::default(),
            run_times: Recent::default(),
            start_times: Recent::default(),
            start_failures: 0,
            denied: None,
            denials: 0,
            no_start_before: Now::ZERO,
            no_spare_start_before: Now::ZERO,
            look_again: Now::ZERO,
            closed: false,
            scratch: Vec::new(),
        }
    }

    /// Calls at once in one worker, as it is acted on: 1 where a worker serves one call.
    pub fn slots(&self) -> u32 {
        self.config.slots
    }

    /// A call arrived.
    pub fn on_arrival(&mut self, now: Now, arrival: Arrival, out: &mut Vec<Decision>) {
        if self.closed {
            return self.refuse(now, arrival.call, Outcome::PlatformError, out);
        }
        if arrival.deadline <= now {
            return self.refuse(now, arrival.call, EXPIRED, out);
        }
        match self.workers.take(now) {
            Some(worker) => out.push(Decision::Run { call: arrival.call, worker }),
            None => self.admit(now, arrival, out),
        }
    }

    /// A worker that [`Decision::Start`] asked for is ready; `took` is the time since that was
    /// asked.
    pub fn on_started(&mut self, now: Now, worker: WorkerId, took: Duration, out: &mut Vec<Decision>) {
        self.starting.pop_front();
        self.start_failures = 0;
        self.denied = None;
        self.denials = 0;
        self.no_start_before = Now::ZERO;
        self.no_spare_start_before = Now::ZERO;
        self.welcome(now, worker, false, took, out);
    }

    /// A worker that nobody asked for is ready: the one in which a deploy loaded its handler.
    pub fn on_adopted(&mut self, now: Now, worker: WorkerId, took: Duration, out: &mut Vec<Decision>) {
        if self.total() >= self.config.max {
            return out.push(Decision::Retire { worker });
        }
        self.welcome(now, worker, true, took, out);
    }

    /// A worker that [`Decision::Start`] asked for will not come: it failed, or died before it
    /// was ready. When nothing is left that could run them, the waiting calls are refused.
    pub fn on_start_failed(&mut self, now: Now, out: &mut Vec<Decision>) {
        let asked = self.starting.pop_front();
        self.pause_starts(now, asked.unwrap_or(now));
        self.start_where_it_pays(now, out);
    }

    /// A worker that [`Decision::Start`] asked for may not be started: a quota is spent, or others are
    /// to have its place. Calls wait for the workers that there are; where there is none, they are
    /// refused as what is said here.
    pub fn on_start_denied(&mut self, now: Now, outcome: Outcome, out: &mut Vec<Decision>) {
        self.starting.pop_front();
        self.denied = Some(outcome);
        // No doubling while calls wait: nothing is broken, and room may come at any time. But to ask
        // costs all functions of the tenant something, and `min` alone is in no hurry.
        self.no_start_before = now.saturating_add(FIRST_PAUSE);
        self.no_spare_start_before = now.saturating_add(longer_each_time(self.denials));
        self.denials = self.denials.saturating_add(1);
        self.start_where_it_pays(now, out);
    }

    /// A call on the worker ended after `ran`, and the worker can take another. A `ran` of zero
    /// says that the call did not run (its caller had left): nothing is learnt from it.
    pub fn on_idle(&mut self, now: Now, worker: WorkerId, ran: Duration, out: &mut Vec<Decision>) {
        if !self.workers.release(now, worker) {
            return;
        }
        if !ran.is_zero() {
            self.run_times.record(ran);
        }
        let Some(state) = self.workers.get(worker) else { return };
        if !self.closed && !self.one_call() && !state.spoilt {
            return self.serve(now, worker, out);
        }
        if state.running == 0 {
            self.workers.remove(worker);
            out.push(Decision::Retire { worker });
            self.start_where_it_pays(now, out);
        }
    }

    /// A call has harmed the worker, but not so that the others on it must end: it takes no new
    /// ones and is retired when the last of them has ended ([`on_idle`](Self::on_idle)). Until
    /// then it counts towards `max`, because it still holds its memory.
    pub fn on_spoilt(&mut self, now: Now, worker: WorkerId, out: &mut Vec<Decision>) {
        if self.workers.spoil(worker).is_some_and(|spoilt| spoilt.running == 0) {
            self.workers.remove(worker);
            out.push(Decision::Retire { worker });
        }
        self.start_where_it_pays(now, out);
    }

    /// A started worker died, was killed or must not be used again; all its calls have ended.
    /// A worker that the pool does not know (it was retired, or never reported as started) is
    /// ignored.
    pub fn on_gone(&mut self, now: Now, worker: WorkerId, out: &mut Vec<Decision>) {
        let Some(gone) = self.workers.remove(worker) else { return };
        let ran = now.saturating_sub(gone.since);
        // A call that was cut off would have run at least this long: news only above the median.
        if gone.running > 0 && self.run_times.median().is_none_or(|median| ran > median) {
            self.run_times.record(ran);
        }
        // Else a worker that dies as soon as it is up would be started again without end.
        if gone.running == 0 && !gone.has_served {
            self.pause_starts(now, now);
        }
        self.start_where_it_pays(now, out);
    }

    /// The caller of a queued call left. A call that is not queued is ignored.
    pub fn on_cancelled(&mut self, _now: Now, call: CallId, _out: &mut Vec<Decision>) {
        self.queue.remove(call);
    }

    /// The time of [`next_wake`](Self::next_wake) has come (or any other: it does no harm).
    pub fn on_timer(&mut self, now: Now, out: &mut Vec<Decision>) {
        while let Some(late) = self.queue.pop_expired(now) {
            self.refuse(now, late.call, EXPIRED, out);
        }
        while let Some((worker, until)) = self.next_retirement()
            && until <= now
        {
            self.workers.remove(worker);
            out.push(Decision::Retire { worker });
        }
        self.start_where_it_pays(now, out);
    }

    /// When [`on_timer`](Self::on_timer) is due; what is in the past is due at once. After
    /// `on_timer(now)` it is later than `now`.
    pub fn next_wake(&self) -> Option<Now> {
        let retirement = self.next_retirement().map(|(_, until)| until);
        [self.queue.first_deadline(), retirement, self.next_start()].into_iter().flatten().min()
    }

    /// The version was replaced: hands back the queued calls in the order in which they would
    /// have run, retires the idle workers, and every other worker as soon as it is idle.
    pub fn close(&mut self, out: &mut Vec<Decision>) -> Vec<Arrival> {
        self.closed = true;
        while let Some((worker, _)) = self.workers.longest_idle() {
            self.workers.remove(worker);
            out.push(Decision::Retire { worker });
        }
        std::iter::from_fn(|| self.queue.pop()).collect()
    }

    /// Whether [`close`](Self::close) was called; such a pool refuses arrivals as a platform
    /// error.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The pool in figures at `now`.
    pub fn view(&self, now: Now) -> PoolView {
        let workers = self.workers.len() as u32;
        let idle = self.workers.idle_count() as u32;
        let queued = self.queue.len() as u32;
        let most = if self.may_start(now) { self.start_time() } else { Duration::MAX };
        PoolView {
            idle,
            busy: workers - idle,
            starting: self.starting.len() as u32,
            queued,
            running: self.workers.running(),
            run_p50: self.run_times.median(),
            start_p50: self.start_times.median(),
            expected_wait: match self.workers.has_free_slot() {
                true => Duration::ZERO,
                false => self.wait_at(now, self.queue.len() + 1, &mut Vec::new()).min(most),
            },
            start_failures: self.start_failures,
        }
    }

    /// No slot is free: queue the call, or refuse it.
    fn admit(&mut self, now: Now, arrival: Arrival, out: &mut Vec<Decision>) {
        let nobody_comes = self.total() == 0 && now < self.no_start_before;
        if nobody_comes {
            return self.refuse(now, arrival.call, self.why_nobody_comes(), out);
        }
        let is_full = self.queue.len() >= self.config.queue_bound as usize;
        let victim = if is_full { self.queue.victim(&arrival) } else { None };
        if is_full && victim.is_none() {
            return self.refuse(now, arrival.call, Outcome::Shed(ShedReason::QueueFull), out);
        }
        if self.is_infeasible(now, &arrival) {
            return self.refuse(
                now,
                arrival.call,
                Outcome::DeadlineExceeded(DeadlineReason::Infeasible),
                out,
            );
        }
        if let Some(victim) = victim.and_then(|call| self.queue.remove(call)) {
            let outranked = victim.criticality > arrival.criticality;
            let reason = if outranked { ShedReason::Priority } else { ShedReason::QueueFull };
            self.refuse(now, victim.call, Outcome::Shed(reason), out);
        }
        self.queue.push(arrival);
        self.start_where_it_pays(now, out);
    }

    /// Whether a call that must wait can no longer make its deadline. A call is not judged while
    /// nothing runs: with nothing running nothing is learnt, and a function that once was slow
    /// would be refused for ever.
    fn is_infeasible(&mut self, now: Now, arrival: &Arrival) -> bool {
        if self.run_times.count() < TRUSTED_RUNS || self.workers.running() == 0 {
            return false;
        }
        let place = self.queue.ahead_of(arrival) + 1;
        let mut wait = self.estimate_wait(now, place);
        if self.may_start(now) {
            wait = wait.min(self.start_time());
        }
        // Behind others an estimate that falls short would be paid by callers who wait for nothing.
        let slack = if place > 1 { wait / WAIT_SLACK } else { Duration::ZERO };
        let ready = now.saturating_add(wait).saturating_add(slack);
        !self.is_worth_a_run(arrival.deadline.saturating_sub(ready))
    }

    /// Whether a run with this much time is more likely to pay than to cost: a call that does not
    /// end in time has taken that time from others, and the worker with it, since its interrupted
    /// handler cannot be used again. Both count in the calls that could have run instead.
    fn is_worth_a_run(&self, left: Duration) -> bool {
        let in_time = self.run_times.share_within(left);
        let usual = self.run_times.mean().unwrap_or_default().max(Duration::from_micros(1));
        let lost = left.saturating_add(self.start_time());
        in_time >= (1.0 - in_time) * lost.as_secs_f64() / usual.as_secs_f64()
    }

    /// A worker that can take calls now.
    fn welcome(
        &mut self,
        now: Now,
        worker: WorkerId,
        adopted: bool,
        took: Duration,
        out: &mut Vec<Decision>,
    ) {
        self.start_times.record(took);
        let is_spare = self.one_call() && self.queue.is_empty();
        if self.closed || is_spare {
            return out.push(Decision::Retire { worker });
        }
        self.workers.add(now, worker, adopted);
        self.serve(now, worker, out);
        self.start_where_it_pays(now, out);
    }

    /// Gives waiting calls to a worker that is not on offer, then offers what slots are left.
    fn serve(&mut self, now: Now, worker: WorkerId, out: &mut Vec<Decision>) {
        let mut free = self.workers.get(worker).map_or(0, |worker| self.config.slots - worker.running);
        while free > 0
            && let Some(next) = self.queue.pop()
        {
            if let Some(outcome) = self.verdict_at_dispatch(now, &next) {
                self.refuse(now, next.call, outcome, out);
                continue;
            }
            self.workers.occupy(now, worker);
            out.push(Decision::Run { call: next.call, worker });
            free -= 1;
        }
        self.workers.offer(worker);
    }

    /// Why a call that waited must not start after all: it is late, or most likely will be, and
    /// interrupting it would cost its worker. An overloaded worker would else spend itself on
    /// calls that nobody waits for. (Calls that find a free slot run in any case, so run times
    /// are always learnt.)
    fn verdict_at_dispatch(&self, now: Now, next: &Arrival) -> Option<Outcome> {
        if next.deadline <= now {
            return Some(EXPIRED);
        }
        let is_known = self.run_times.count() >= TRUSTED_RUNS;
        (is_known && !self.is_worth_a_run(next.deadline.saturating_sub(now))).then_some(INFEASIBLE)
    }

    /// Starts the workers that `min` and the queue justify; if nothing can come, refuses the queue.
    fn start_where_it_pays(&mut self, now: Now, out: &mut Vec<Decision>) {
        let mut count = 0;
        while self.may_start(now) && self.start_pays(now) {
            self.starting.push_back(now);
            count += 1;
        }
        if count > 0 {
            out.push(Decision::Start { count });
        }
        if self.queue.is_empty() {
            return;
        }
        self.look_again = now.saturating_add(self.start_time().clamp(LOOK_AGAIN.0, LOOK_AGAIN.1));
        if self.total() == 0 {
            while let Some(hopeless) = self.queue.pop() {
                self.refuse(now, hopeless.call, self.why_nobody_comes(), out);
            }
        }
    }

    /// What a call ends as for which there is no worker and, for now, never will be.
    fn why_nobody_comes(&self) -> Outcome {
        self.denied.unwrap_or(Outcome::StartFailed)
    }

    /// A start that was asked for at `asked` failed: no other before a pause. Starts that were
    /// under way together fail for one reason, so they count once.
    fn pause_starts(&mut self, now: Now, asked: Now) {
        self.denied = None;
        if self.start_failures > 0 && asked < self.no_start_before {
            return;
        }
        let pause = longer_each_time(self.start_failures);
        self.start_failures = self.start_failures.saturating_add(1);
        self.no_start_before = now.saturating_add(pause);
    }

    /// Whether another start is allowed at all. After a failure one start at a time is the probe.
    fn may_start(&self, now: Now) -> bool {
        !self.closed
            && self.total() < self.config.max
            && now >= self.no_start_before
            && (self.start_failures == 0 || self.starting.is_empty())
    }

    /// Whether another start is wanted: `min` is not reached, or the last call in the queue would
    /// wait longer for the workers that there are than for a new one. Each start under way
    /// answers for as many queued calls as it has slots.
    fn start_pays(&mut self, now: Now) -> bool {
        if self.total() < self.config.min && now >= self.no_spare_start_before {
            return true;
        }
        let queued = self.queue.len();
        if queued <= self.starting.len() * self.config.slots as usize {
            return false;
        }
        self.run_times.count() == 0 || self.estimate_wait(now, queued) > self.start_time()
    }

    fn estimate_wait(&mut self, now: Now, place: usize) -> Duration {
        let mut scratch = std::mem::take(&mut self.scratch);
        let wait = self.wait_at(now, place, &mut scratch);
        self.scratch = scratch;
        wait
    }

    /// How long the call at this place of the queue (1 is the first) waits for a slot of the
    /// workers that there are.
    fn wait_at(&self, now: Now, place: usize, releases: &mut Vec<u64>) -> Duration {
        releases.clear();
        // With one call per worker a slot comes free by starting another worker.
        let replacement = if self.one_call() { self.start_time() } else { Duration::ZERO };
        for worker in self.workers.busy() {
            let left = self.run_times.remaining(now.saturating_sub(worker.since)) + replacement;
            // A spoilt worker's place is taken by a new one with all its slots.
            let (left, slots) = match worker.spoilt {
                true => (left + self.start_time(), self.config.slots),
                false => (left, worker.running),
            };
            releases.extend(std::iter::repeat_n(micros(left), slots as usize));
        }
        for asked in &self.starting {
            let left = self.start_left(now.saturating_sub(*asked));
            releases.extend(std::iter::repeat_n(micros(left), self.config.slots as usize));
        }
        let run = self.run_times.mean().unwrap_or_default() + replacement;
        match wait::nth_release(releases, micros(run), place as u64) {
            u64::MAX => Duration::MAX,
            wait => Duration::from_micros(wait),
        }
    }

    fn start_time(&self) -> Duration {
        self.start_times.median().unwrap_or(UNKNOWN_START)
    }

    fn start_left(&self, elapsed: Duration) -> Duration {
        match self.start_times.count() {
            0 if elapsed < UNKNOWN_START => UNKNOWN_START - elapsed,
            _ => self.start_times.remaining(elapsed),
        }
    }

    fn refuse(&mut self, now: Now, call: CallId, outcome: Outcome, out: &mut Vec<Decision>) {
        let retry_after = match outcome {
            Outcome::StartFailed | Outcome::QuotaExceeded => self.no_start_before.saturating_sub(now),
            _ => self.estimate_wait(now, self.queue.len() + 1).min(LONGEST_PAUSE),
        };
        out.push(Decision::Refuse { call, outcome, retry_after });
    }

    /// Workers, starting ones included.
    fn total(&self) -> u32 {
        (self.workers.len() + self.starting.len()) as u32
    }

    fn one_call(&self) -> bool {
        self.config.idle.is_zero()
    }

    /// The idle worker beyond `min` that goes first, and when.
    fn next_retirement(&self) -> Option<(WorkerId, Now)> {
        let (id, worker) = self.workers.longest_idle()?;
        let is_spare = self.workers.len() > self.config.min as usize;
        // The adopted worker comes first of all, so as long as it is not called it is idle longest.
        let idle = match worker.adopted && !worker.has_served {
            true => self.config.idle.min(UNCALLED_IDLE),
            false => self.config.idle,
        };
        is_spare.then(|| (id, worker.since.saturating_add(idle)))
    }

    /// When a start should be considered (again).
    fn next_start(&self) -> Option<Now> {
        // As of the distant future only what no time can change stands against a start.
        if !self.may_start(Now::MAX) {
            return None;
        }
        let for_min = || self.no_start_before.max(self.no_spare_start_before);
        let for_min = (self.total() < self.config.min).then(for_min);
        let for_calls = (!self.queue.is_empty()).then(|| self.look_again.max(self.no_start_before));
        for_min.into_iter().chain(for_calls).min()
    }
}

/// The pause after so many failures before this one.
fn longer_each_time(before: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << before.min(16)).min(LONGEST_PAUSE)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

const INFEASIBLE: Outcome = Outcome::DeadlineExceeded(DeadlineReason::Infeasible);
const EXPIRED: Outcome = Outcome::DeadlineExceeded(DeadlineReason::ExpiredInQueue);
