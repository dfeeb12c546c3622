//! Settings that change while workers run.

use super::{Act, Decision, Now, Pool, PoolConfig};

impl Pool {
    /// What it acts on.
    pub fn config(&self) -> &PoolConfig {
        &self.config
    }

    /// Other settings hold from here on, to which those before [can become](PoolConfig::can_become). Workers, what
    /// waits and what was learnt stay. What there are too many of goes: idle workers at once, others when
    /// their calls have ended. Calls that wait keep their places, also beyond a smaller bound of the queue.
    pub fn set_config(&mut self, now: Now, config: PoolConfig, out: &mut Vec<Decision>) {
        let config = config.as_acted_on();
        debug_assert!(self.config.can_become(&config), "workers would have to be others");
        self.config = config;
        let from = std::mem::replace(&mut self.floor, config.min);
        if from != config.min {
            self.note(now, Act::Floor { from, to: config.min });
        }
        // More may be allowed, or less be wanted, than when starts were last put off.
        self.no_spare_start_before = Now::ZERO;
        while self.total() > self.config.max
            && let Some((worker, _)) = self.workers.longest_idle()
        {
            self.retire(now, worker, out);
        }
        self.on_timer(now, out);
    }
}
