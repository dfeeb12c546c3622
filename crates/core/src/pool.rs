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
mod delay;
mod estimate;
mod habit;
mod journal;
mod live;
mod queue;
mod recent;
mod reckoned;
mod room;
mod second;
mod sizing;
mod starts;
mod view;
mod wait;
mod workers;

pub use config::{AUTO_IDLE, Objective, PoolConfig, UNCALLED_IDLE};
pub use habit::Choice;
pub use journal::{Act, Entry, Why};
pub use reckoned::Reckoned;
pub use room::Room;
pub use sizing::{waiting_share, workers_for};
pub use view::{PoolView, ScalingView};

use delay::Delay;
use habit::Habit;
use journal::Journal;
use queue::Queue;
use recent::Recent;
use reckoned::Door;
use sizing::{Demand, Size};
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

/// The policy of one function version.
#[derive(Debug)]
pub struct Pool {
    config: PoolConfig,
    /// Workers that are kept: `min`, or more by schedule.
    floor: u32,
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
    delay: Delay,
    demand: Demand,
    size: Size,
    habit: Habit,
    journal: Journal,
    door: Door,
    closed: bool,
    /// Kept to save an allocation per estimate.
    scratch: Vec<u64>,
}

impl Pool {
    /// An empty pool. [`next_wake`](Self::next_wake) is due at once when `min` workers are to be
    /// started.
    pub fn new(config: PoolConfig) -> Self {
        let config = config.as_acted_on();
        Self {
            config,
            floor: config.min,
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
            delay: Delay::default(),
            demand: Demand::default(),
            size: Size::default(),
            habit: Habit::default(),
            journal: Journal::default(),
            door: Door::default(),
            closed: false,
            scratch: Vec::new(),
        }
    }

    /// Calls at once in one worker, as it is acted on: 1 where a worker serves one call.
    pub fn slots(&self) -> u32 {
        self.config.slots
    }

    /// So many workers are to be kept from here on, whatever `min` says, but no more than `max`: by schedule.
    /// [`next_wake`](Self::next_wake) is due at once when that is more than there are. Whether that is another number.
    pub fn set_floor(&mut self, now: Now, floor: u32) -> bool {
        let floor = if self.one_call() { 0 } else { floor.min(self.config.max) };
        let from = std::mem::replace(&mut self.floor, floor);
        if from != floor {
            self.note(now, Act::Floor { from, to: floor });
        }
        from != floor
    }

    /// A call arrived.
    pub fn on_arrival(&mut self, now: Now, arrival: Arrival, out: &mut Vec<Decision>) {
        if self.closed || arrival.deadline <= now {
            self.come_to_the_door();
            let outcome = if self.closed { Outcome::PlatformError } else { EXPIRED };
            return self.refuse(now, arrival.call, outcome, out);
        }
        self.demand.note(now);
        if self.config.learns && self.habit.note(now) {
            self.note(now, Act::Keep { choice: self.habit.choice() });
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
        self.no_start_before = now.saturating_add(starts::FIRST_PAUSE);
        self.no_spare_start_before = now.saturating_add(starts::longer_each_time(self.denials));
        self.denials = self.denials.saturating_add(1);
        self.note(now, Act::StartDenied { outcome, denials: self.denials });
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
        let is_surplus = state.running == 0 && self.total() > self.config.max;
        if !self.closed && !self.one_call() && !state.spoilt && !is_surplus {
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
    pub fn on_cancelled(&mut self, now: Now, call: CallId, out: &mut Vec<Decision>) {
        if self.queue.remove(call).is_some() {
            self.look_at_delay(now, out);
        }
    }

    /// The time of [`next_wake`](Self::next_wake) has come (or any other: it does no harm).
    pub fn on_timer(&mut self, now: Now, out: &mut Vec<Decision>) {
        while let Some(late) = self.queue.pop_expired(now) {
            self.refuse(now, late.call, EXPIRED, out);
        }
        self.look_at_size(now);
        while let Some((worker, until)) = self.next_retirement()
            && until <= now
        {
            self.retire(now, worker, out);
        }
        self.look_at_delay(now, out);
        self.start_where_it_pays(now, out);
        self.look_at_delay(now, out);
    }

    /// When [`on_timer`](Self::on_timer) is due; what is in the past is due at once. After
    /// `on_timer(now)` it is later than `now`.
    pub fn next_wake(&self) -> Option<Now> {
        let retirement = self.next_retirement().map(|(_, until)| until);
        let looks = [self.next_start(), self.next_delay_look(), self.next_size_look()];
        looks.into_iter().chain([self.queue.first_deadline(), retirement]).flatten().min()
    }

    /// The version was replaced: hands back the queued calls in the order in which they would
    /// have run, retires the idle workers, and every other worker as soon as it is idle.
    pub fn close(&mut self, out: &mut Vec<Decision>) -> Vec<Arrival> {
        self.closed = true;
        while let Some((worker, _)) = self.workers.longest_idle() {
            self.workers.remove(worker);
            out.push(Decision::Retire { worker });
        }
        std::iter::from_fn(|| self.queue.pop([false; 3])).map(|waiting| waiting.arrival).collect()
    }

    /// Whether [`close`](Self::close) was called; such a pool refuses arrivals as a platform
    /// error.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// No slot is free: queue the call, or refuse it.
    fn admit(&mut self, now: Now, arrival: Arrival, out: &mut Vec<Decision>) {
        self.come_to_the_door();
        let nobody_comes = self.total() == 0 && now < self.no_start_before;
        if nobody_comes {
            return self.refuse(now, arrival.call, self.why_nobody_comes(), out);
        }
        let is_full = self.queue.len() >= self.config.queue_bound as usize;
        let victim = if is_full { self.queue.victim(&arrival) } else { None };
        if is_full && victim.is_none() {
            return self.refuse(now, arrival.call, Outcome::Shed(ShedReason::QueueFull), out);
        }
        if let Some(outcome) = self.verdict_at_the_door(now, &arrival) {
            return self.refuse(now, arrival.call, outcome, out);
        }
        if let Some(victim) = victim.and_then(|call| self.queue.remove(call)) {
            let outranked = victim.criticality > arrival.criticality;
            let reason = if outranked { ShedReason::Priority } else { ShedReason::QueueFull };
            self.refuse(now, victim.call, Outcome::Shed(reason), out);
        }
        self.queue.push(now, arrival);
        self.start_for_it(now, out);
        self.look_at_delay(now, out);
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
        // Since it was asked for, the most there may be has become less.
        let is_surplus = self.total() >= self.config.max;
        if self.closed || is_spare || is_surplus {
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
            && let Some(next) = self.queue.pop(self.newest_goes_first(now))
        {
            let next = next.arrival;
            if let Some(outcome) = self.verdict_at_dispatch(now, &next) {
                self.refuse(now, next.call, outcome, out);
                continue;
            }
            self.workers.occupy(now, worker);
            out.push(Decision::Run { call: next.call, worker });
            free -= 1;
        }
        self.workers.offer(worker);
        if !self.delay.is_quiet() || !self.queue.is_empty() {
            self.look_at_delay(now, out);
        }
    }

    fn refuse(&mut self, now: Now, call: CallId, outcome: Outcome, out: &mut Vec<Decision>) {
        let retry_after = match outcome {
            Outcome::StartFailed | Outcome::QuotaExceeded => self.no_start_before.saturating_sub(now),
            _ => self.retry_after(now),
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

    /// Ends a worker that has been idle for long enough.
    fn retire(&mut self, now: Now, worker: WorkerId, out: &mut Vec<Decision>) {
        let since = self.workers.get(worker).map_or(now, |worker| worker.since);
        let is_spare = self.config.learns && self.is_spare();
        self.note(now, Act::Retire { count: 1, idle: now.saturating_sub(since), is_spare });
        self.workers.remove(worker);
        out.push(Decision::Retire { worker });
    }

    /// The idle worker beyond those that are kept that goes first, and when. An adopted worker comes first of
    /// all, so as long as it is not called it is idle longest.
    fn next_retirement(&self) -> Option<(WorkerId, Now)> {
        let (id, worker) = self.workers.longest_idle()?;
        (self.workers.len() > self.floor as usize).then(|| (id, self.kept_until(&worker)))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

const INFEASIBLE: Outcome = Outcome::DeadlineExceeded(DeadlineReason::Infeasible);
const EXPIRED: Outcome = Outcome::DeadlineExceeded(DeadlineReason::ExpiredInQueue);
