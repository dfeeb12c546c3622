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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use fp_core::Tenant;
use fp_core::pool::Room;
use fp_core::share::{Claim, Places};
use fp_sandbox::Sandbox;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::VersionPool;

/// Workers of deploys that nobody has called, of all functions together: some 200 MB.
const MOST_UNCALLED: usize = 64;

/// Pools beyond which those that are gone are forgotten.
const MANY: usize = 256;

/// How long a worker of somebody who holds no more than its share must have been idle before others may
/// have its place: who is called more often than that finds it.
const LONG_IDLE: Duration = Duration::from_secs(5);

/// Idle workers that a tenant loses at once when it has more than its share of a short memory: the
/// launcher looks again in a quarter of a second.
const AT_ONCE: usize = 8;

/// The pools of this host; shared as `Arc<HostWorkers>`.
#[derive(Debug)]
pub(crate) struct HostWorkers {
    sandbox: Sandbox,
    pools: Mutex<Vec<Weak<VersionPool>>>,
    /// Pools with a worker that a deploy brought, the oldest first.
    uncalled: Mutex<VecDeque<Weak<VersionPool>>>,
    places: Mutex<Places>,
    /// Somebody waits for a place: read at the end of every call, without the lock.
    is_short: AtomicBool,
    /// A place came free.
    freed: Notify,
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

impl HostWorkers {
    /// Those of a sandbox, which asks them for room from here on. No more than `most` at once, and no
    /// more than there are open files for.
    pub(crate) fn of(sandbox: &Sandbox, most: Option<u32>) -> Arc<Self> {
        let possible = u32::try_from(sandbox.most_workers()).unwrap_or(u32::MAX);
        let most = most.map_or(possible, |most| most.min(possible));
        let host = Arc::new(Self {
            sandbox: sandbox.clone(),
            pools: Mutex::default(),
            uncalled: Mutex::default(),
            places: Mutex::new(Places::new(most)),
            is_short: AtomicBool::new(false),
            freed: Notify::new(),
        });
        let (asked, told) = (Arc::downgrade(&host), Arc::downgrade(&host));
        sandbox.make_room_by(
            move || asked.upgrade().is_some_and(|host| host.make_room()),
            move |tenant| {
                if let Some(host) = told.upgrade() {
                    (0..AT_ONCE).find(|_| !host.end_idle_of(tenant, Room::Any));
                }
            },
        );
        host
    }

    /// What a tenant weighs from here on, for places, CPU and memory.
    pub(crate) fn weigh(&self, tenant: &Tenant, weight: f64) {
        self.places.lock().weigh(tenant, weight);
        self.sandbox.weigh(tenant, weight);
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
            oldest.make_room(Room::Uncalled);
        }
    }

    /// A place for a worker of the tenant. Waits, if others are to give one up that are at work.
    pub(crate) async fn place(
        self: &Arc<Self>,
        tenant: &Tenant,
        limit: Duration,
    ) -> Result<HostPlace, NoPlace> {
        let deadline = Instant::now() + limit;
        let mut waiting = None;
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // From here on no place comes free unnoticed.
            freed.as_mut().enable();
            let (claim, most) = {
                let mut places = self.places.lock();
                (places.claim(tenant), places.most())
            };
            match claim {
                Claim::Granted => return Ok(HostPlace { host: self.clone(), tenant: tenant.clone() }),
                Claim::Yield => return Err(NoPlace::Yield(most)),
                Claim::From(giver) if giver == *tenant => {
                    if !self.end_idle_of(tenant, Room::Spare) && !self.end_long_idle() {
                        return Err(NoPlace::Full(most));
                    }
                }
                Claim::From(giver) => {
                    waiting.get_or_insert_with(|| Waiting::begin(self, tenant));
                    if !self.end_idle_of(&giver, Room::Any) && timeout_at(deadline, freed).await.is_err() {
                        return Err(NoPlace::Full(most));
                    }
                }
            }
        }
    }

    /// A place for a worker that is there already.
    pub(crate) fn take_place(self: &Arc<Self>, tenant: &Tenant) -> HostPlace {
        self.places.lock().take(tenant);
        HostPlace { host: self.clone(), tenant: tenant.clone() }
    }

    /// Whether a worker of the tenant that has just ended a call should go, for somebody who waits.
    pub(crate) fn wants_back(&self, tenant: &Tenant) -> bool {
        self.is_short.load(Ordering::Relaxed) && self.places.lock().owes(tenant)
    }

    /// Ends the worker of the tenant that has been idle longest; false if all have something to do.
    fn end_idle_of(&self, tenant: &Tenant, room: Room) -> bool {
        let mut idle: Vec<_> = self
            .live_pools()
            .filter(|pool| pool.spec().tenant == *tenant)
            .filter_map(|pool| Some((pool.idle_for()?, pool)))
            .collect();
        idle.sort_by_key(|(idle, _)| std::cmp::Reverse(*idle));
        idle.iter().any(|(_, pool)| pool.make_room(room))
    }

    /// Ends the worker that has been idle longest, whoever's it is and however few it has: but not one
    /// that has just been used, or whoever comes now and then would start anew each time.
    fn end_long_idle(&self) -> bool {
        let idle = self.live_pools().filter_map(|pool| Some((pool.idle_for()?, pool)));
        let mut idle: Vec<_> = idle.filter(|(idle, _)| *idle >= LONG_IDLE).collect();
        idle.sort_by_key(|(idle, _)| std::cmp::Reverse(*idle));
        idle.iter().any(|(_, pool)| pool.make_room(Room::Spare))
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
        self.live_pools().any(|pool| pool.make_room(Room::Spare))
    }

    /// Not under the lock: pools have locks of their own, and come back here with a place.
    fn live_pools(&self) -> impl Iterator<Item = Arc<VersionPool>> + use<> {
        let pools: Vec<_> = self.pools.lock().iter().filter_map(Weak::upgrade).collect();
        pools.into_iter()
    }
}

/// A worker's place, given back by its drop.
#[derive(Debug)]
pub(crate) struct HostPlace {
    host: Arc<HostWorkers>,
    tenant: Tenant,
}

impl Drop for HostPlace {
    fn drop(&mut self) {
        self.host.places.lock().release(&self.tenant);
        self.host.freed.notify_waiters();
    }
}

/// Somebody who waits for a place, until it is dropped.
struct Waiting<'a> {
    host: &'a HostWorkers,
    tenant: &'a Tenant,
}

impl<'a> Waiting<'a> {
    fn begin(host: &'a HostWorkers, tenant: &'a Tenant) -> Self {
        let mut places = host.places.lock();
        places.wait(tenant);
        host.is_short.store(true, Ordering::Relaxed);
        drop(places);
        Self { host, tenant }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut places = self.host.places.lock();
        places.leave(self.tenant);
        // Under the lock, so that it is not unsaid for one who has just begun.
        self.host.is_short.store(places.has_waiting(), Ordering::Relaxed);
    }
}
