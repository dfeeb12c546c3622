//! What a pool looks like from outside at one moment: numbers of workers and calls, and the times
//! that the policy reckons with. Made by [`super::Pool::view`]; nothing decides by it.

use std::time::Duration;

use serde::Serialize;

use super::{Choice, Now, Pool};

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

/// What a pool reckons with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScalingView {
    /// Workers and calls.
    pub pool: PoolView,
    /// Workers that are kept, and the most that there may be.
    pub floor: u32,
    /// The most at once.
    pub max: u32,
    /// Calls per second: the most of what the last seconds and the last minute show.
    pub arrivals: f64,
    /// Mean of the latest run times.
    pub run_mean: Option<Duration>,
    /// Workers that the calls need, as last worked out; none while too little is known.
    pub wanted: Option<u32>,
    /// How long a start takes, as far as is known.
    pub start: Duration,
    /// How long calls may wait while the queue stands; none while too little is known.
    pub delay_target: Option<Duration>,
    /// Whether calls are refused for their wait now.
    pub standing: bool,
    /// How long the last worker is kept, if that is left to the platform.
    pub keep: Option<Choice>,
}

impl Pool {
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

    /// What it reckons with at `now`.
    pub fn scaling(&self, now: Now) -> ScalingView {
        ScalingView {
            pool: self.view(now),
            floor: self.floor,
            max: self.config.max,
            arrivals: self.demand.per_second(now),
            run_mean: self.run_times.mean(),
            wanted: self.size.wanted,
            start: self.start_time(),
            delay_target: self.delay_target(),
            standing: self.delay.is_standing(),
            keep: self.config.learns.then(|| self.habit.choice()),
        }
    }
}
