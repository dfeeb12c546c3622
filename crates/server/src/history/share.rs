//! What each tenant may put on the disk, so that one that is loud takes nothing from the others.
//!
//! The limit over all functions is divided by the tenants that call: who called in this second or
//! the one before has an equal part. With one tenant, that is all of it. A tenant may have a limit of
//! its own besides (a quota).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use fp_core::Tenant;
use fp_core::sampling;
use parking_lot::Mutex;

/// How much more of the queue a tenant may hold than is free: alone it comes to four fifths, two that
/// are loud to four ninths each, and a ninth is left for whoever comes next (the dynamic threshold of
/// Choudhury and Hahne, "Dynamic Queue Length Thresholds", 1998).
const OF_WHAT_IS_FREE: usize = 4;

/// A second in the upper half, a count in it in the lower one.
#[derive(Debug, Default)]
struct Tally(AtomicU64);

impl Tally {
    /// Counts one more in this second, if there are fewer than `most`; what was counted before it,
    /// and in a second before where that has ended now.
    fn take(&self, second: u64, most: u32) -> Option<Taken> {
        let mut tally = self.0.load(Ordering::Relaxed);
        loop {
            let (present, count) = (tally >> 32, tally as u32);
            let is_present = sampling::is_within(second, present);
            let (present, before) = if is_present { (present, count) } else { (second, 0) };
            if before >= most {
                return None;
            }
            let next = present << 32 | u64::from(before + 1);
            match self.0.compare_exchange_weak(tally, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(Taken { before, ended: (!is_present).then_some(count) }),
                Err(now) => tally = now,
            }
        }
    }

    fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed) as u32
    }
}

#[derive(Debug)]
struct Taken {
    before: u32,
    /// The count of the second that was over with this.
    ended: Option<u32>,
}

/// One tenant's part.
#[derive(Debug)]
pub(super) struct Share {
    /// Rows of this second.
    taken: Tally,
    /// Rows in a second that it may have at most, whatever its part.
    limit: AtomicU32,
    /// Of it in the queue, and in the writer's hands.
    queued_rows: AtomicUsize,
    queued_bytes: AtomicUsize,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            taken: Tally::default(),
            limit: AtomicU32::new(u32::MAX),
            queued_rows: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
        }
    }
}

/// A row's place in the queue, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    share: Arc<Share>,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.share.queued_rows.fetch_sub(1, Ordering::Relaxed);
        self.share.queued_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The parts of all tenants.
#[derive(Debug)]
pub(super) struct Shares {
    tenants: Mutex<HashMap<Tenant, Arc<Share>>>,
    /// How many they are: read for each row, without the lock.
    count: AtomicUsize,
    /// Rows in a second for all of them together.
    total: u32,
    /// Tenants of which there are rows in this second.
    calling: Tally,
    /// And in the one before.
    called: AtomicU32,
}

impl Shares {
    pub(super) fn new(total: u32) -> Self {
        Self {
            tenants: Mutex::default(),
            count: AtomicUsize::new(0),
            total,
            calling: Tally::default(),
            called: AtomicU32::new(0),
        }
    }

    /// A tenant's part.
    pub(super) fn of(&self, tenant: &Tenant) -> Arc<Share> {
        let mut tenants = self.tenants.lock();
        let share = tenants.entry(tenant.clone()).or_default().clone();
        self.count.store(tenants.len(), Ordering::Relaxed);
        share
    }

    /// The most rows in a second that a tenant may have; none is no limit of its own.
    pub(super) fn limit(&self, tenant: &Tenant, rows: Option<u32>) {
        self.of(tenant).limit.store(rows.unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// A tenant is no more.
    pub(super) fn forget(&self, tenant: &Tenant) {
        let mut tenants = self.tenants.lock();
        tenants.remove(tenant);
        self.count.store(tenants.len(), Ordering::Relaxed);
    }

    /// Takes a row's place in a tenant's part of a second, if there is one.
    pub(super) fn take(&self, share: &Share, second: u64) -> bool {
        let equal = self.total / self.called.load(Ordering::Relaxed).max(self.calling.count()).max(1);
        // Who is one of very many still has something.
        let part = equal.max(self.total.min(1)).min(share.limit.load(Ordering::Relaxed));
        let Some(taken) = share.taken.take(second, part) else { return false };
        if taken.before == 0
            && let Some(Taken { ended: Some(called), .. }) = self.calling.take(second, u32::MAX)
        {
            self.called.store(called, Ordering::Relaxed);
        }
        true
    }

    /// Takes a place in the queue for a row, of which so much is free.
    pub(super) fn enter(
        &self,
        share: Arc<Share>,
        bytes: usize,
        free_rows: usize,
        free_bytes: usize,
    ) -> Option<Place> {
        let is_alone = self.count.load(Ordering::Relaxed) == 1;
        let rows = share.queued_rows.fetch_add(1, Ordering::Relaxed);
        let held = share.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let place = Place { share, bytes };
        let fits = rows < free_rows.saturating_mul(OF_WHAT_IS_FREE)
            && held + bytes <= free_bytes.saturating_mul(OF_WHAT_IS_FREE);
        (is_alone || fits).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Tenant {
        name.parse().unwrap()
    }

    fn taken(shares: &Shares, name: &str, second: u64, tries: u32) -> u32 {
        let share = shares.of(&tenant(name));
        (0..tries).map(|_| u32::from(shares.take(&share, second))).sum()
    }

    #[test]
    fn one_tenant_has_all_and_more_have_equal_parts() {
        let shares = Shares::new(1_000);
        assert_eq!(taken(&shares, "default", 1, 5_000), 1_000);
        // Whoever comes in the same second is let in, and from then on each has a half.
        assert_eq!(taken(&shares, "acme", 1, 5_000), 500);
        for second in 2..5 {
            assert_eq!(taken(&shares, "acme", second, 5_000), 500);
            assert_eq!(taken(&shares, "default", second, 5_000), 500);
        }
        // The other is silent, and after a second is not reckoned with any more.
        assert_eq!(taken(&shares, "default", 8, 5_000), 500);
        assert_eq!(taken(&shares, "default", 11, 5_000), 1_000);
    }

    #[test]
    fn a_quiet_tenant_loses_no_row_to_a_loud_one() {
        let shares = Shares::new(1_000);
        for second in (1..100).map(|n| n * 3) {
            taken(&shares, "loud", second, 20_000);
            assert_eq!(taken(&shares, "quiet", second, 400), 400);
        }
    }

    #[test]
    fn a_limit_of_its_own_holds_whatever_room_there_is() {
        let shares = Shares::new(1_000);
        shares.limit(&tenant("acme"), Some(10));
        assert_eq!(taken(&shares, "acme", 1, 5_000), 10);
        shares.limit(&tenant("acme"), None);
        assert_eq!(taken(&shares, "acme", 5, 5_000), 1_000);
        let none = Shares::new(0);
        assert_eq!(taken(&none, "acme", 1, 10), 0);
    }

    #[test]
    fn the_queue_always_has_room_for_whoever_comes_next() {
        let shares = Shares::new(1_000);
        let room = 1_000;
        let mut held = Vec::new();
        let mut enter = |name: &str| {
            let free = room - held.len();
            let place = shares.enter(shares.of(&tenant(name)), 1, free, free);
            let fits = place.is_some();
            held.extend(place);
            fits
        };
        assert!(enter("quiet"));
        let loud = (0..5_000).filter(|_| enter("loud")).count();
        assert!((790..=810).contains(&loud), "{loud}");
        let louder = (0..5_000).filter(|_| enter("louder")).count();
        assert!((100..=200).contains(&louder), "{louder}");
        assert!(enter("quiet"));
        drop(held);
        assert_eq!(shares.of(&tenant("loud")).queued_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_is_alone_may_fill_the_queue() {
        let shares = Shares::new(1_000);
        assert!(shares.enter(shares.of(&tenant("default")), 100, 0, 0).is_some());
    }
}
