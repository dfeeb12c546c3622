//! All workers of this host together: who goes when there is no room for another.
//!
//! The sandbox starts no more workers than the platform has open files for. Where that bound is
//! reached, a worker that is idle goes for one that is wanted. And workers in which deploys loaded
//! their handlers are kept for whoever tries out what was just deployed: nobody does that with
//! thousands of functions at once, so only the newest of them are kept.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use fp_sandbox::Sandbox;
use parking_lot::Mutex;

use super::VersionPool;

/// Workers of deploys that nobody has called, of all functions together: some 200 MB.
const MOST_UNCALLED: usize = 64;

/// Pools beyond which those that are gone are forgotten.
const MANY: usize = 256;

/// The pools of this host; shared as `Arc<HostWorkers>`.
#[derive(Debug, Default)]
pub(crate) struct HostWorkers {
    pools: Mutex<Vec<Weak<VersionPool>>>,
    /// Pools with a worker that a deploy brought, the oldest first.
    uncalled: Mutex<VecDeque<Weak<VersionPool>>>,
}

impl HostWorkers {
    /// Those of a sandbox, which asks them for room from here on.
    pub(crate) fn of(sandbox: &Sandbox) -> Arc<Self> {
        let host = Arc::new(Self::default());
        let asked = Arc::downgrade(&host);
        sandbox.make_room_by(move || asked.upgrade().is_some_and(|host| host.make_room()));
        host
    }

    /// A pool that may have a worker to spare.
    pub(crate) fn register(&self, pool: &Arc<VersionPool>) {
        let mut pools = self.pools.lock();
        if pools.len() >= MANY && pools.len() == pools.capacity() {
            pools.retain(|pool| pool.strong_count() > 0);
        }
        pools.push(Arc::downgrade(pool));
    }

    /// A pool has got a worker that no call asked for.
    pub(crate) fn keep(&self, pool: &Arc<VersionPool>) {
        let oldest = {
            let mut uncalled = self.uncalled.lock();
            uncalled.push_back(Arc::downgrade(pool));
            (uncalled.len() > MOST_UNCALLED).then(|| uncalled.pop_front()).flatten()
        };
        if let Some(oldest) = oldest.as_ref().and_then(Weak::upgrade) {
            oldest.make_room(true);
        }
    }

    /// Ends an idle worker; false if all have something to do.
    fn make_room(&self) -> bool {
        loop {
            // Not in the condition: its lock would be held in the body, and pools have locks of their own.
            let oldest = self.uncalled.lock().pop_front();
            let Some(oldest) = oldest else { break };
            if oldest.upgrade().is_some_and(|pool| pool.make_room(true)) {
                return true;
            }
        }
        let pools: Vec<_> = self.pools.lock().iter().filter_map(Weak::upgrade).collect();
        pools.iter().any(|pool| pool.make_room(false))
    }
}
