//! What a pool reckoned with when a call found no free worker, for that call's trace.
//!
//! Kept at the door, where the numbers are known already, and read only by those who note a decision
//! about the call: calls that find a worker pay nothing for it.

use std::time::Duration;

use super::{Act, Now, Pool, Why};

/// The pool as a call found it that could not run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reckoned {
    /// Calls that waited already.
    pub queued: u32,
    /// Workers that are ready.
    pub workers: u32,
    /// Workers on their way, those that were started because of this call included.
    pub starting: u32,
    /// Workers that were started because of this call, and why.
    pub started: Option<(u32, Why)>,
    /// The most workers at once.
    pub max: u32,
    /// How long the call would wait for the workers that there were; none where it was not judged by that.
    pub wait: Option<Duration>,
    /// Mean of the latest run times; none before the first.
    pub run: Option<Duration>,
    /// How long a start takes, as far as is known.
    pub start: Duration,
    /// How long calls may wait while the queue stands; none while too little is known.
    pub target: Option<Duration>,
}

/// What [`Reckoned`] has besides what can be asked of the pool afterwards.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Door {
    pub(super) queued: u32,
    pub(super) wait: Option<Duration>,
    pub(super) started: u32,
}

impl Pool {
    /// What it reckoned with for the call that came last and found no worker: to be asked before anything else
    /// happens to the pool.
    pub fn reckoned(&self) -> Reckoned {
        let Door { queued, wait, started } = self.door;
        Reckoned {
            queued,
            workers: self.workers.len() as u32,
            starting: self.starting.len() as u32,
            started: self.latest_why().filter(|_| started > 0).map(|why| (started, why)),
            max: self.config.max,
            wait,
            run: self.run_times.mean(),
            start: self.start_time(),
            target: self.delay_target(),
        }
    }

    pub(super) fn come_to_the_door(&mut self) {
        self.door = Door { queued: self.queue.len() as u32, ..Door::default() };
    }

    /// As [`start_where_it_pays`](Self::start_where_it_pays), for the call that has just come.
    pub(super) fn start_for_it(&mut self, now: Now, out: &mut Vec<super::Decision>) {
        let before = self.starting.len();
        self.start_where_it_pays(now, out);
        self.door.started = self.starting.len().saturating_sub(before) as u32;
    }

    fn latest_why(&self) -> Option<Why> {
        self.decisions().rev().find_map(|entry| match entry.act {
            Act::Start { why, .. } => Some(why),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{Arrival, CallId, Decision, PoolConfig};
    use crate::settings::{Criticality, Settings};

    const MS: Duration = Duration::from_millis(1);

    fn arrival(call: u64, deadline: Now) -> Arrival {
        Arrival { call: CallId(call), criticality: Criticality::Default, caller: 0, deadline }
    }

    #[test]
    fn a_call_that_cannot_run_finds_what_it_was_judged_by() {
        let mut pool = Pool::new(PoolConfig { max: 1, ..PoolConfig::from_settings(&Settings::default()) });
        let mut out = Vec::new();
        pool.on_arrival(MS, arrival(1, MS * 1000), &mut out);
        let first = pool.reckoned();
        assert_eq!((first.workers, first.starting, first.started), (0, 1, Some((1, Why::Unknown))));
        assert_eq!((first.queued, first.wait, first.run), (0, None, None));
        let worker = crate::ids::WorkerId(1);
        pool.on_started(MS * 2, worker, MS, &mut out);
        for at in 3..40 {
            pool.on_idle(MS * at * 10, worker, MS * 10, &mut out);
            pool.on_arrival(MS * at * 10, arrival(at as u64, MS * 10_000), &mut out);
        }
        out.clear();
        let now = MS * 391;
        pool.on_arrival(now, arrival(99, now + MS * 5), &mut out);
        assert!(matches!(out[..], [Decision::Refuse { .. }]), "{out:?}");
        let refused = pool.reckoned();
        assert_eq!((refused.workers, refused.queued, refused.started), (1, 0, None));
        assert_eq!((refused.wait, refused.run), (Some(MS * 9), Some(MS * 10)));
        out.clear();
        pool.on_arrival(now, arrival(100, now), &mut out);
        assert_eq!(pool.reckoned().wait, None, "it had no time at all, and was judged by nothing else");
    }
}
