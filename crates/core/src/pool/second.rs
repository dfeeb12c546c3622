//! A worker for a second attempt: one that is idle now, or none.

use super::{Now, Pool};
use crate::ids::WorkerId;

impl Pool {
    /// Takes the worker that became idle last for a second attempt at a call that runs. Nothing queues
    /// and nothing is started for that, and a worker that runs something is not taken, so no call waits
    /// for it that would not have waited anyway. The worker's end is reported as after
    /// [`Decision::Run`](super::Decision::Run).
    pub fn take_idle(&mut self, now: Now) -> Option<WorkerId> {
        if self.closed {
            return None;
        }
        self.workers.take_idle(now)
    }

    /// Calls that run, and calls that the workers that there are could run.
    pub fn load(&self) -> (u32, u32) {
        (self.workers.running(), (self.workers.len() as u32).saturating_mul(self.config.slots))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Arrival, CallId, Decision, Pool, PoolConfig};
    use crate::ids::WorkerId;
    use crate::settings::Criticality;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn arrival(call: u64) -> Arrival {
        Arrival { call: CallId(call), criticality: Criticality::Default, caller: 1, deadline: ms(9_000) }
    }

    /// A pool of two workers, both idle.
    fn pool(slots: u32) -> (Pool, Vec<Decision>) {
        let mut out = Vec::new();
        let mut pool = Pool::new(PoolConfig {
            is_led: false,
            min: 0,
            max: 2,
            idle: ms(60_000),
            learns: false,
            objective: None,
            slots,
            queue_bound: 8,
        });
        for worker in [1, 2] {
            pool.on_adopted(ms(0), WorkerId(worker), ms(3), &mut out);
        }
        out.clear();
        (pool, out)
    }

    #[test]
    fn a_second_attempt_takes_an_idle_worker_and_neither_queues_nor_starts() {
        let (mut pool, mut out) = pool(1);
        pool.on_arrival(ms(1), arrival(1), &mut out);
        assert_eq!(out, [Decision::Run { call: CallId(1), worker: WorkerId(2) }]);
        assert_eq!(pool.load(), (1, 2));
        assert_eq!(pool.take_idle(ms(2)), Some(WorkerId(1)));
        assert_eq!((pool.take_idle(ms(2)), pool.load(), pool.next_wake()), (None, (2, 2), None));
        // The next call waits, and gets the worker as soon as the attempt has ended.
        out.clear();
        pool.on_arrival(ms(3), arrival(2), &mut out);
        assert_eq!(out, []);
        pool.on_idle(ms(4), WorkerId(1), ms(2), &mut out);
        assert_eq!(out, [Decision::Run { call: CallId(2), worker: WorkerId(1) }]);
    }

    #[test]
    fn a_worker_that_runs_something_is_not_taken_though_it_has_a_free_slot() {
        let (mut pool, mut out) = pool(4);
        pool.on_arrival(ms(1), arrival(1), &mut out);
        assert_eq!(pool.take_idle(ms(2)), Some(WorkerId(1)));
        assert_eq!((pool.take_idle(ms(2)), pool.load()), (None, (2, 8)));
        // Its other slots are as good for calls as any.
        out.clear();
        pool.on_arrival(ms(3), arrival(2), &mut out);
        assert_eq!(out, [Decision::Run { call: CallId(2), worker: WorkerId(1) }]);
    }

    #[test]
    fn a_pool_that_closes_has_no_worker_for_second_attempts() {
        let (mut pool, mut out) = pool(1);
        pool.on_arrival(ms(1), arrival(1), &mut out);
        pool.close(&mut out);
        assert_eq!(pool.take_idle(ms(2)), None);
    }
}
