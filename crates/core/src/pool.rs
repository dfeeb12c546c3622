//! The pool policy: which call runs on which worker, when workers start and retire, and who is
//! refused. One [`Pool`] per function version, with its one queue.
//!
//! It is told what happened and when (`on_…`), answers with [`Decision`]s pushed to `out`, and
//! says when it wants to be woken ([`Pool::next_wake`]). It never waits, reads no clock and knows
//! neither processes nor sockets: the server and the simulator carry its decisions out.
//!
//! Always true, and tested as properties: no call waits while a worker has a free slot; there are
//! never more than `max` workers, starting ones included; only idle workers are retired; every
//! arrival ends in exactly one of run, refused, cancelled by its caller, or moved by
//! [`Pool::close`].

use std::time::Duration;

use serde::Serialize;

use crate::ids::WorkerId;
use crate::outcome::Outcome;
use crate::settings::{Criticality, IdleTime, Settings};

/// A point in time: what has passed since an epoch that the pool's owner chose.
pub type Now = Duration;

/// A call, named by its owner; unique among the calls that the pool has queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CallId(pub u64);

/// How many workers, and how much waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolConfig {
    /// Workers kept warm.
    pub min: u32,
    /// Most workers at once, starting ones included; at least 1.
    pub max: u32,
    /// How long an idle worker beyond `min` is kept; zero means that a worker serves one call
    /// and none is kept, whatever `min` and `slots` say.
    pub idle: Duration,
    /// Calls at once in one worker; at least 1.
    pub slots: u32,
    /// Most calls in the queue.
    pub queue_bound: u32,
}

/// How long an idle worker is kept when the author leaves it to the platform: AWS' and
/// OpenWhisk's ten minutes (TAIL of the field: half of all functions are called less than once
/// an hour, so longer keeps little more warm).
pub const AUTO_IDLE: Duration = Duration::from_secs(600);

impl PoolConfig {
    /// What a function's settings ask for.
    pub fn from_settings(settings: &Settings) -> Self {
        let scaling = &settings.scaling;
        let slots = settings.concurrency;
        Self {
            min: scaling.min,
            max: scaling.max,
            idle: match scaling.idle {
                IdleTime::Auto => AUTO_IDLE,
                IdleTime::After(idle) => idle,
            },
            slots,
            // Ten calls per slot wait ten service times at worst; the floor lets a burst of a
            // few hundred meet a small pool.
            queue_bound: scaling.max.saturating_mul(slots).saturating_mul(10).clamp(256, 10_000),
        }
    }
}

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

/// A pool in figures, for pages and `explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct PoolView {
    /// Workers with no call.
    pub idle: u32,
    /// Workers with at least one call.
    pub busy: u32,
    /// Workers on their way.
    pub starting: u32,
    /// Calls waiting.
    pub queued: u32,
    /// Calls running.
    pub running: u32,
    /// Median of the latest run times; none before the first.
    pub run_p50: Option<Duration>,
    /// Median of the latest start times; none before the first.
    pub start_p50: Option<Duration>,
    /// How long a call that arrived now would wait.
    pub expected_wait: Duration,
    /// Starts that failed since the last good one.
    pub start_failures: u32,
}

/// The policy of one function version.
#[derive(Debug)]
pub struct Pool {
    #[expect(dead_code, reason = "the seam; the policy follows")]
    config: PoolConfig,
}

#[expect(unused_variables, clippy::ptr_arg, reason = "the seam; the policy follows")]
impl Pool {
    /// An empty pool. [`next_wake`](Self::next_wake) is due at once when `min` workers are to be started.
    pub fn new(config: PoolConfig) -> Self {
        Self { config }
    }
    /// A call arrived.
    pub fn on_arrival(&mut self, now: Now, arrival: Arrival, out: &mut Vec<Decision>) {}
    /// A worker that [`Decision::Start`] asked for is ready; `took` is the time since that was asked.
    pub fn on_started(&mut self, now: Now, worker: WorkerId, took: Duration, out: &mut Vec<Decision>) {}
    /// A worker that nobody asked for is ready: the one that a deploy loaded its handler in.
    pub fn on_adopted(&mut self, now: Now, worker: WorkerId, took: Duration, out: &mut Vec<Decision>) {}
    /// A worker that [`Decision::Start`] asked for will not come (failed, or died before it was ready).
    pub fn on_start_failed(&mut self, now: Now, out: &mut Vec<Decision>) {}
    /// A call on the worker ended after `ran`, and the worker can take another.
    pub fn on_idle(&mut self, now: Now, worker: WorkerId, ran: Duration, out: &mut Vec<Decision>) {}
    /// A started worker died, was killed or must not be used again; all its calls have ended.
    /// A worker that the pool does not know is ignored.
    pub fn on_gone(&mut self, now: Now, worker: WorkerId, out: &mut Vec<Decision>) {}
    /// The caller of a queued call left. A call that is not queued is ignored.
    pub fn on_cancelled(&mut self, now: Now, call: CallId, out: &mut Vec<Decision>) {}
    /// The time of [`next_wake`](Self::next_wake) has come (or any other: it does no harm).
    pub fn on_timer(&mut self, now: Now, out: &mut Vec<Decision>) {}
    /// When [`on_timer`](Self::on_timer) is due; in the past or present means at once.
    pub fn next_wake(&self) -> Option<Now> {
        None
    }
    /// The version was replaced: hands back the queued calls in the order in which they would have
    /// run, retires the idle workers, and every other worker as soon as it is idle.
    pub fn close(&mut self, out: &mut Vec<Decision>) -> Vec<Arrival> {
        Vec::new()
    }
    /// Whether [`close`](Self::close) was called; such a pool refuses arrivals as a platform error.
    pub fn is_closed(&self) -> bool {
        false
    }
    /// The pool in figures at `now`.
    pub fn view(&self, now: Now) -> PoolView {
        PoolView::default()
    }
}
