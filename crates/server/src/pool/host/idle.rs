//! Which pools have an idle worker: those of a tenant, the one that has been idle longest first.
//!
//! A pool enters itself when a worker of it becomes idle ([`Idle::note`]), which costs two loads
//! while it is entered already. Who looks for a worker to end goes from the longest idle on; what
//! has meanwhile been used is put back in its place or, if it is busy, taken off, so that all looks
//! together cost no more than the calls between them, however many there are and however often they
//! are in vain.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use fp_core::Tenant;
use fp_core::pool::Room;
use parking_lot::Mutex;

/// Tenants beyond which those without a pool are forgotten.
const MANY: usize = 64;

/// A pool of workers, as those who look for an idle one see it.
pub(crate) trait Holds: Send + Sync {
    /// Since when its longest idle worker has been so; none if all have something to do.
    fn idle_since(&self) -> Option<Duration>;
    /// Ends that worker, if it is of this kind.
    fn make_room(self: &Arc<Self>, room: Room) -> bool;
    /// Where it is entered.
    fn entered(&self) -> &Entered;
}

/// Whether a pool is on the lists of its tenant.
#[derive(Debug, Default)]
pub(crate) struct Entered {
    any: AtomicBool,
    spare: AtomicBool,
}

/// The pools of one tenant that may have an idle worker. Two lists: what `min` keeps is for some who
/// look, and not for others.
#[derive(Debug)]
pub(crate) struct Idle<P> {
    any: List<P>,
    spare: List<P>,
}

#[derive(Debug)]
struct List<P> {
    entered: fn(&Entered) -> &AtomicBool,
    room: Room,
    pools: Mutex<Pools<P>>,
}

#[derive(Debug)]
struct Pools<P> {
    /// Those that have come since somebody looked.
    new: Vec<Weak<P>>,
    /// By the time since which they are idle, as it was then, and a number to tell them apart.
    known: BTreeMap<(Duration, u64), Weak<P>>,
    next_number: u64,
}

impl<P> Default for Pools<P> {
    fn default() -> Self {
        Self { new: Vec::new(), known: BTreeMap::new(), next_number: 0 }
    }
}

impl<P: Holds> Default for Idle<P> {
    fn default() -> Self {
        let list = |room, entered| List { entered, room, pools: Mutex::default() };
        Self {
            any: list(Room::Any, |entered| &entered.any),
            spare: list(Room::Spare, |entered| &entered.spare),
        }
    }
}

impl<P: Holds> Idle<P> {
    /// A worker of the pool has become idle; said after it is.
    pub(crate) fn note(&self, pool: &Arc<P>) {
        self.any.note(pool);
        self.spare.note(pool);
    }

    /// Ends the worker that has been idle longest, of those that are; false if none is of this kind.
    pub(super) fn end_one(&self, room: Room) -> bool {
        match room {
            Room::Any => self.any.end_one_until(Duration::MAX).is_ok(),
            Room::Spare | Room::Uncalled => self.spare.end_one_until(Duration::MAX).is_ok(),
        }
    }

    /// As [`end_one`](Self::end_one), of those that `min` does not keep and that have been idle since
    /// `latest` or longer. Else since when the longest idle one has been so.
    fn end_spare_until(&self, latest: Duration) -> Result<(), Option<Duration>> {
        self.spare.end_one_until(latest)
    }
}

impl<P: Holds> List<P> {
    fn note(&self, pool: &Arc<P>) {
        let entered = (self.entered)(pool.entered());
        // Not written when nothing changes, which is so at the end of nearly every call.
        if !entered.load(Ordering::Relaxed) && !entered.swap(true, Ordering::SeqCst) {
            self.pools.lock().new.push(Arc::downgrade(pool));
        }
    }

    /// No lock of ours is held while a pool is asked: it has one of its own, under which it comes here.
    fn end_one_until(&self, latest: Duration) -> Result<(), Option<Duration>> {
        let new = std::mem::take(&mut self.pools.lock().new);
        for pool in new.iter().filter_map(Weak::upgrade) {
            self.take_off(&pool);
            self.enter(&pool);
        }
        while let Some(((since, _), pool)) = self.take_first(latest)? {
            let Some(pool) = pool.upgrade() else { continue };
            // Before it is asked: what becomes idle after that enters itself.
            self.take_off(&pool);
            let is_as_it_was = pool.idle_since() == Some(since);
            let ended = is_as_it_was && pool.make_room(self.room);
            if ended || !is_as_it_was {
                self.enter(&pool);
            }
            if ended {
                return Ok(());
            }
        }
        Err(None)
    }

    /// The longest idle one, if it has been so since then; else since when.
    #[expect(clippy::type_complexity, reason = "an entry of the map")]
    fn take_first(&self, latest: Duration) -> Result<Option<((Duration, u64), Weak<P>)>, Option<Duration>> {
        let mut pools = self.pools.lock();
        match pools.known.first_key_value() {
            Some(((since, _), _)) if *since > latest => Err(Some(*since)),
            _ => Ok(pools.known.pop_first()),
        }
    }

    fn take_off(&self, pool: &Arc<P>) {
        (self.entered)(pool.entered()).store(false, Ordering::SeqCst);
    }

    /// Enters a pool with what it is known to have, unless it has just done so itself.
    fn enter(&self, pool: &Arc<P>) {
        let Some(since) = pool.idle_since() else { return };
        if (self.entered)(pool.entered()).swap(true, Ordering::SeqCst) {
            return;
        }
        let mut pools = self.pools.lock();
        let number = pools.next_number;
        pools.next_number += 1;
        pools.known.insert((since, number), Arc::downgrade(pool));
    }
}

/// Of all tenants.
#[derive(Debug)]
pub(super) struct AllIdle<P> {
    tenants: Mutex<HashMap<Tenant, Weak<Idle<P>>>>,
    /// Before this no worker has been idle for long.
    none_until: Mutex<Duration>,
}

impl<P: Holds> Default for AllIdle<P> {
    fn default() -> Self {
        Self { tenants: Mutex::default(), none_until: Mutex::default() }
    }
}

impl<P: Holds> AllIdle<P> {
    /// Those of a tenant, for its pools to hold.
    pub(super) fn of(&self, tenant: &Tenant) -> Arc<Idle<P>> {
        let mut tenants = self.tenants.lock();
        if let Some(known) = tenants.get(tenant).and_then(Weak::upgrade) {
            return known;
        }
        if tenants.len() >= MANY && tenants.len() == tenants.capacity() {
            tenants.retain(|_, idle| idle.strong_count() > 0);
        }
        let new = Arc::default();
        tenants.insert(tenant.clone(), Arc::downgrade(&new));
        new
    }

    /// Ends the longest idle worker of a tenant; false if none is of this kind.
    pub(super) fn end_one_of(&self, tenant: &Tenant, room: Room) -> bool {
        let idle = self.tenants.lock().get(tenant).and_then(Weak::upgrade);
        idle.is_some_and(|idle| idle.end_one(room))
    }

    /// Ends a worker of whoever has one to spare.
    pub(super) fn end_one(&self) -> bool {
        self.live().iter().any(|idle| idle.end_one(Room::Spare))
    }

    /// Ends a worker that has been idle for so long at least, whoever's it is and however few that has.
    /// Asked in vain it does not look again before there can be one, nor more often than in each
    /// fiftieth part of that time.
    pub(super) fn end_one_idle_for(&self, long: Duration, now: Duration) -> bool {
        let Some(latest) = now.checked_sub(long) else { return false };
        if now < *self.none_until.lock() {
            return false;
        }
        let mut oldest = now;
        for idle in self.live() {
            match idle.end_spare_until(latest) {
                Ok(()) => return true,
                Err(since) => oldest = oldest.min(since.unwrap_or(now)),
            }
        }
        *self.none_until.lock() = (oldest + long).max(now + long / 50);
        false
    }

    fn live(&self) -> Vec<Arc<Idle<P>>> {
        self.tenants.lock().values().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// A pool of one worker.
    #[derive(Default)]
    struct One {
        idle_since: Mutex<Option<Duration>>,
        is_kept: bool,
        entered: Entered,
        asked: AtomicU32,
    }

    impl One {
        fn asked(&self) -> u32 {
            self.asked.swap(0, Ordering::Relaxed)
        }
    }

    impl Holds for One {
        fn idle_since(&self) -> Option<Duration> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            *self.idle_since.lock()
        }

        fn make_room(self: &Arc<Self>, room: Room) -> bool {
            self.asked.fetch_add(1, Ordering::Relaxed);
            (room == Room::Any || !self.is_kept) && self.idle_since.lock().take().is_some()
        }

        fn entered(&self) -> &Entered {
            &self.entered
        }
    }

    fn pools(number: usize, is_kept: bool) -> Vec<Arc<One>> {
        (0..number).map(|_| Arc::new(One { is_kept, ..One::default() })).collect()
    }

    fn becomes_idle(idle: &Idle<One>, pool: &Arc<One>, at: u64) {
        *pool.idle_since.lock() = Some(Duration::from_secs(at));
        idle.note(pool);
    }

    fn idle_ones(pools: &[Arc<One>]) -> Vec<usize> {
        let is_idle = |at: &usize| pools[*at].idle_since.lock().is_some();
        (0..pools.len()).filter(is_idle).collect()
    }

    #[test]
    fn the_longest_idle_worker_goes_first_whatever_was_used_meanwhile() {
        let (idle, pools) = (Idle::default(), pools(4, false));
        for (pool, at) in pools.iter().zip([3, 1, 4, 2]) {
            becomes_idle(&idle, pool, at);
        }
        assert!(idle.end_one(Room::Spare));
        assert_eq!(idle_ones(&pools), [0, 2, 3]);
        // Used, and idle again; and busy.
        becomes_idle(&idle, &pools[3], 5);
        *pools[0].idle_since.lock() = None;
        assert!(idle.end_one(Room::Spare));
        assert_eq!(idle_ones(&pools), [3]);
        becomes_idle(&idle, &pools[0], 6);
        assert!(idle.end_one(Room::Any) && idle.end_one(Room::Spare));
        assert!(!idle.end_one(Room::Any) && !idle.end_one(Room::Spare));
    }

    #[test]
    fn looks_in_vain_ask_nobody_twice() {
        let (idle, pools) = (Idle::default(), pools(1_000, false));
        for pool in &pools {
            becomes_idle(&idle, pool, 1);
            *pool.idle_since.lock() = None;
        }
        let look = |times: usize| {
            assert!((0..times).all(|_| !idle.end_one(Room::Spare)));
            pools.iter().map(|pool| pool.asked()).sum::<u32>()
        };
        assert_eq!(look(1), 1_000);
        assert_eq!(look(500), 0, "nothing has become idle since");
        becomes_idle(&idle, &pools[7], 2);
        *pools[7].idle_since.lock() = None;
        assert_eq!(look(500), 1);
    }

    #[test]
    fn what_a_minimum_keeps_is_for_those_only_who_may_have_any() {
        let (idle, pools) = (Idle::default(), pools(1, true));
        becomes_idle(&idle, &pools[0], 1);
        assert!(!idle.end_one(Room::Spare));
        assert!(idle.end_one(Room::Any));
    }

    #[test]
    fn one_that_is_idle_for_long_is_anybodys() {
        let all = AllIdle::<One>::default();
        let (acme, long) = ("acme".parse().expect("a name"), Duration::from_secs(5));
        let (idle, pools) = (all.of(&acme), pools(2, false));
        let at = Duration::from_secs;
        assert!(!all.end_one_idle_for(long, at(10)), "nobody has any");
        becomes_idle(&idle, &pools[0], 11);
        becomes_idle(&idle, &pools[1], 14);
        assert!(!all.end_one_idle_for(long, at(14)) && !all.end_one_idle_for(long, at(15)));
        assert!(all.end_one_idle_for(long, at(16)));
        assert_eq!(idle_ones(&pools), [1]);
        assert!(!all.end_one_idle_for(long, at(17)));
        assert!(all.end_one_of(&acme, Room::Spare) && !all.end_one_of(&acme, Room::Spare));
    }
}
