//! All workers of this host together: who may have one more, and who goes when there is no room.
//!
//! The platform starts no more workers than it has open files for, or than it is told. Their places
//! are shared between tenants by [`fp_core::share::Places`]: while some are free whoever asks has one;
//! when there is none, an idle worker goes of the tenant that holds most for its weight, and where
//! none is idle, the next one of it that ends a call. Who holds more than others that wait gets no
//! more until they have theirs; what others leave idle for long is anybody's.
//!
//! Workers in which deploys loaded their handlers are kept for whoever tries out what was just
//! deployed: nobody does that with thousands of functions at once, so only the newest of them are
//! kept.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use fp_core::Tenant;
use fp_core::outcome::{Outcome, ShedReason};
use fp_core::pool::Room;
use fp_sandbox::Sandbox;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use self::hall::{Asked, Hall};
use self::idle::AllIdle;
use super::VersionPool;
use crate::clock::Clock;

mod hall;
mod idle;

pub(crate) use self::hall::HostPlace;
pub(super) use self::idle::{Entered, Holds, Idle};

/// Workers of deploys that nobody has called, of all functions together: some 200 MB.
const MOST_UNCALLED: usize = 64;

/// How long a worker of somebody who holds no more than its share must have been idle before others may
/// have its place: who is called more often than that finds it.
const LONG_IDLE: Duration = Duration::from_secs(5);

/// Idle workers that a tenant loses at once when it has more than its share of a short memory: the
/// launcher looks again in a quarter of a second.
const AT_ONCE: usize = 8;

/// Who waits for a place that another tenant is to give up looks for an idle worker of that one now and
/// then: not all become so by the end of a call, which asks whether it is wanted back.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The workers of this host; shared as `Arc<HostWorkers>`.
#[derive(Debug)]
pub(crate) struct HostWorkers {
    sandbox: Sandbox,
    clock: Clock,
    hall: Arc<Hall>,
    idle: AllIdle<VersionPool>,
    /// Pools with a worker that a deploy brought, the oldest first.
    uncalled: Mutex<VecDeque<Weak<VersionPool>>>,
}

/// Why there is no place for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPlace {
    /// All are taken, by those who hold no more than their share.
    #[error(
        "all of the platform's {0} workers have something to do; raise max_workers where it is set, or the limit of open files"
    )]
    Full(u32),
    /// Those who hold less come first.
    #[error("the tenant has more than its share of the platform's {0} workers, and others wait for theirs")]
    Yield(u32),
}

impl NoPlace {
    /// How calls end that no other worker is there for: neither they nor their function have done it.
    pub(super) fn outcome(self) -> Outcome {
        Outcome::Shed(ShedReason::QueueFull)
    }
}

impl HostWorkers {
    /// Those of a sandbox, which asks them for room from here on. No more than `most` at once, and no
    /// more than there are open files for.
    pub(crate) fn of(sandbox: &Sandbox, most: Option<u32>, clock: Clock) -> Arc<Self> {
        let possible = u32::try_from(sandbox.most_workers()).unwrap_or(u32::MAX);
        let most = most.map_or(possible, |most| most.min(possible));
        let host = Arc::new(Self {
            sandbox: sandbox.clone(),
            clock,
            hall: Hall::new(most),
            idle: AllIdle::default(),
            uncalled: Mutex::default(),
        });
        let (asked, told) = (Arc::downgrade(&host), Arc::downgrade(&host));
        sandbox.make_room_by(
            move || asked.upgrade().is_some_and(|host| host.make_room()),
            move |tenant| {
                if let Some(host) = told.upgrade() {
                    (0..AT_ONCE).find(|_| !host.idle.end_one_of(tenant, Room::Any));
                }
            },
        );
        host
    }

    /// What a tenant weighs from here on, for places, CPU and memory.
    pub(crate) fn weigh(&self, tenant: &Tenant, weight: f64) {
        self.hall.weigh(tenant, weight);
        self.sandbox.weigh(tenant, weight);
    }

    /// Where the pools of a tenant say that they have an idle worker.
    pub(super) fn idle_of(&self, tenant: &Tenant) -> Arc<Idle<VersionPool>> {
        self.idle.of(tenant)
    }

    /// A pool has got a worker that no call asked for.
    pub(crate) fn keep(&self, pool: &Arc<VersionPool>) {
        let oldest = {
            let mut uncalled = self.uncalled.lock();
            uncalled.push_back(Arc::downgrade(pool));
            (uncalled.len() > MOST_UNCALLED).then(|| uncalled.pop_front()).flatten()
        };
        if let Some(oldest) = oldest.as_ref().and_then(Weak::upgrade) {
            oldest.make_room(Room::Uncalled);
        }
    }

    /// A place for a worker of the tenant. Waits, if others are to give one up that are at work.
    pub(crate) async fn place(&self, tenant: &Tenant, limit: Duration) -> Result<HostPlace, NoPlace> {
        let deadline = Instant::now() + limit;
        loop {
            match self.hall.ask(tenant) {
                Asked::Place(place) => return Ok(place),
                Asked::Yield => return Err(NoPlace::Yield(self.hall.most())),
                Asked::Full => {
                    let ended = self.idle.end_one_of(tenant, Room::Spare)
                        || self.idle.end_one_idle_for(LONG_IDLE, self.clock.now());
                    if !ended {
                        return Err(NoPlace::Full(self.hall.most()));
                    }
                }
                Asked::Wait { giver, mut turn } => {
                    // What this ends is kept for who waits with least, which may be another one.
                    self.idle.end_one_of(&giver, Room::Any);
                    let until = deadline.min(Instant::now() + LOOK_AGAIN);
                    match timeout_at(until, turn.come()).await {
                        Ok(Some(place)) => return Ok(place),
                        Err(_) if until == deadline => return Err(NoPlace::Full(self.hall.most())),
                        Ok(None) | Err(_) => {}
                    }
                }
            }
        }
    }

    /// A place for a worker that is there already.
    pub(crate) fn take_place(&self, tenant: &Tenant) -> HostPlace {
        self.hall.take(tenant)
    }

    /// Whether a worker of the tenant that has just ended a call should go, for somebody who waits.
    pub(crate) fn wants_back(&self, tenant: &Tenant) -> bool {
        self.hall.owes(tenant)
    }

    /// Ends an idle worker; false if all have something to do.
    fn make_room(&self) -> bool {
        loop {
            // Not in the condition: its lock would be held in the body, and pools have locks of their own.
            let oldest = self.uncalled.lock().pop_front();
            let Some(oldest) = oldest else { break };
            if oldest.upgrade().is_some_and(|pool| pool.make_room(Room::Uncalled)) {
                return true;
            }
        }
        self.idle.end_one()
    }
}

#[cfg(test)]
mod tests {
    use fp_core::outcome::Blame;

    use super::*;

    #[test]
    fn that_a_host_is_full_is_no_functions_fault() {
        for why in [NoPlace::Full(2), NoPlace::Yield(2)] {
            assert_eq!(why.outcome().blame(false), Some(Blame::Platform));
        }
    }
}
