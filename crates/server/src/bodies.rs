//! How many bytes of request bodies the platform holds at once, in all and for each tenant.
//!
//! A body is counted as it comes, and held until the last clone of it is dropped: it carries its share
//! of the budget with it. Small ones are counted only while the platform waits for the rest of them, out
//! of a budget of their own, so that what comes with its head costs nothing. Whoever holds nothing may
//! always begin, so that one body of any size that a function's limit allows finds its place on the
//! smallest host.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use fp_core::Tenant;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bodies up to this size are not counted once they are whole: what a connection takes anyway for reading.
const SMALL: u64 = 64 << 10;

/// One part in how many of the host's memory bodies may take: most of it is for workers.
const SHARE_OF_MEMORY: u64 = 8;

/// The least that all may take together: some uploads of an ordinary size on the smallest host.
const LEAST: u64 = 256 << 20;

/// One part in how many of that a tenant may take, so that none takes it all.
const SHARE_OF_TENANT: u64 = 2;

/// One part in how many of it the beginnings of small bodies may take besides: a thousand slow senders at
/// once on the smallest host, each with all of the 64 KiB.
const SHARE_OF_BEGINNINGS: u64 = 2;

/// The bytes that are held.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    /// Of large bodies.
    bodies: Arc<Pot>,
    /// Of requests whose bodies are small so far and not here in whole, with their heads.
    beginnings: Arc<Pot>,
}

/// So many bytes for all, and who has them.
#[derive(Debug)]
struct Pot {
    most: u64,
    held: Mutex<Held>,
    /// Some have been given back.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    all: u64,
    tenants: HashMap<Tenant, u64>,
}

/// The bytes that there are for bodies are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the platform holds as many bytes of request bodies as it may; try again in a moment, or send less at once"
)]
pub(crate) struct NoRoom;

impl BodyBudget {
    /// So many bytes as this host has room for.
    pub(crate) fn of_host() -> Arc<Self> {
        let info = rustix::system::sysinfo();
        let memory = (info.totalram as u64).saturating_mul(info.mem_unit.into());
        Self::new((memory / SHARE_OF_MEMORY).max(LEAST))
    }

    /// So many bytes.
    pub(crate) fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { bodies: Pot::new(most), beginnings: Pot::new(most / SHARE_OF_BEGINNINGS) })
    }

    /// For a body of this tenant's; it takes nothing yet.
    pub(crate) fn purse<'a>(&'a self, tenant: &'a Tenant) -> Purse<'a> {
        Purse { budget: self, tenant, share: None, beginning: None }
    }

    /// What is held of everybody's, large bodies and beginnings.
    #[cfg(test)]
    pub(crate) fn held(&self) -> (u64, u64) {
        (self.bodies.held.lock().all, self.beginnings.held.lock().all)
    }
}

impl Pot {
    fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { most, held: Mutex::default(), freed: Notify::new() })
    }

    /// Makes `own` bytes of a tenant's `wanted` ones.
    fn take(&self, tenant: &Tenant, own: u64, wanted: u64) -> Result<(), NoRoom> {
        let mut held = self.held.lock();
        self.check(&held, tenant, own, wanted)?;
        let theirs = held.tenants.get(tenant).copied().unwrap_or(0);
        held.all = held.all - own + wanted;
        held.tenants.insert(tenant.clone(), theirs - own + wanted);
        Ok(())
    }

    fn check(&self, held: &Held, tenant: &Tenant, own: u64, wanted: u64) -> Result<(), NoRoom> {
        let theirs = held.tenants.get(tenant).copied().unwrap_or(0);
        let fits = |others: u64, most: u64| others == 0 || others.saturating_add(wanted) <= most;
        let has_room = fits(held.all - own, self.most) && fits(theirs - own, self.most / SHARE_OF_TENANT);
        if has_room { Ok(()) } else { Err(NoRoom) }
    }

    fn give_back(&self, tenant: &Tenant, bytes: u64) {
        let mut held = self.held.lock();
        held.all -= bytes;
        if let Some(theirs) = held.tenants.get_mut(tenant) {
            *theirs -= bytes;
            if *theirs == 0 {
                held.tenants.remove(tenant);
            }
        }
        drop(held);
        self.freed.notify_waiters();
    }
}

/// What a body takes while it is read: nothing, not even a count of a reference, as long as it is small
/// and here.
#[derive(Debug)]
pub(crate) struct Purse<'a> {
    budget: &'a BodyBudget,
    tenant: &'a Tenant,
    share: Option<Share>,
    beginning: Option<Share>,
}

impl Purse<'_> {
    /// Whether so many bytes would find room now. Nothing is taken: what is announced may never come.
    ///
    /// # Errors
    /// When they would not.
    pub(crate) fn look(&self, bytes: u64) -> Result<(), NoRoom> {
        if bytes <= SMALL {
            return Ok(());
        }
        let Self { budget, tenant, share, .. } = self;
        let own = share.as_ref().map_or(0, |share| share.bytes);
        budget.bodies.check(&budget.bodies.held.lock(), tenant, own, bytes)
    }

    /// Makes it enough for so many bytes, which are here.
    ///
    /// # Errors
    /// When there is no room.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), NoRoom> {
        if bytes <= SMALL {
            return Ok(());
        }
        let Self { budget, tenant, share, beginning } = self;
        share.get_or_insert_with(|| Share::of(&budget.bodies, tenant)).grow(bytes)?;
        *beginning = None;
        Ok(())
    }

    /// The same, once there is room.
    pub(crate) async fn grow_when_free(&mut self, bytes: u64) {
        let pot = self.budget.bodies.clone();
        loop {
            let mut freed = pin!(pot.freed.notified());
            freed.as_mut().enable();
            if self.grow(bytes).is_ok() {
                return;
            }
            freed.await;
        }
    }

    /// The rest is waited for: until it is whole a small body counts, too, with the head before it.
    ///
    /// # Errors
    /// When there is no room.
    pub(crate) fn wait(&mut self, head: u64, bytes: u64) -> Result<(), NoRoom> {
        let Self { budget, tenant, share, beginning } = self;
        if share.is_some() {
            return Ok(());
        }
        beginning.get_or_insert_with(|| Share::of(&budget.beginnings, tenant)).grow(head + bytes)
    }

    /// The body, which takes its share along.
    pub(crate) fn with(self, body: Bytes) -> Bytes {
        match self.share {
            Some(share) => share.with(body),
            None => body,
        }
    }
}

/// What a body takes of the budget, until this is dropped.
#[derive(Debug)]
struct Share {
    pot: Arc<Pot>,
    tenant: Tenant,
    bytes: u64,
}

impl Share {
    fn of(pot: &Arc<Pot>, tenant: &Tenant) -> Self {
        Self { pot: pot.clone(), tenant: tenant.clone(), bytes: 0 }
    }

    /// Makes it enough for so many bytes. Larger ones grow by a half at least, as their memory does, so
    /// that the lock is taken a few times for a body of any size.
    ///
    /// # Errors
    /// When there is no room; what it had it keeps.
    fn grow(&mut self, bytes: u64) -> Result<(), NoRoom> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let wanted = bytes.max(self.bytes + self.bytes / 2);
        self.pot.take(&self.tenant, self.bytes, wanted)?;
        self.bytes = wanted;
        Ok(())
    }

    fn with(self, body: Bytes) -> Bytes {
        Bytes::from_owner(Carried { body, _share: self })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.pot.give_back(&self.tenant, self.bytes);
        }
    }
}

struct Carried {
    body: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Carried {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn tenant(name: &str) -> Tenant {
        name.parse().expect("a tenant")
    }

    fn share(budget: &BodyBudget, name: &str) -> Share {
        Share::of(&budget.bodies, &tenant(name))
    }

    #[test]
    fn a_tenant_has_half_and_all_together_no_more_than_there_is() {
        let budget = BodyBudget::new(8 * MIB);
        let held = |name: &str, bytes| {
            let mut share = share(&budget, name);
            share.grow(bytes).map(|()| share)
        };
        let acme = [held("acme", 2 * MIB), held("acme", 2 * MIB)];
        assert!(acme.iter().all(Result::is_ok));
        assert!(held("acme", MIB).is_err(), "half of it is theirs");
        let tenant = tenant("acme");
        let mut purse = budget.purse(&tenant);
        assert_eq!((purse.look(MIB), purse.look(SMALL)), (Err(NoRoom), Ok(())));
        assert!(purse.grow(SMALL).is_ok(), "small ones are not counted");
        let globex = [held("globex", 3 * MIB), held("globex", MIB)];
        assert!(globex.iter().all(Result::is_ok));
        assert!(held("initech", MIB).is_err(), "all of it is taken");
        drop((acme, globex));
        assert_eq!(budget.held(), (0, 0));
        assert!(budget.bodies.held.lock().tenants.is_empty());
    }

    #[test]
    fn a_look_takes_nothing() {
        let budget = BodyBudget::new(8 * MIB);
        let tenant = tenant("acme");
        budget.purse(&tenant).look(3 * MIB).expect("there is room");
        assert_eq!(budget.held(), (0, 0));
    }

    #[test]
    fn a_small_body_is_counted_while_it_is_waited_for() {
        let budget = BodyBudget::new(4 * MIB);
        let tenant = tenant("acme");
        let mut slow: Vec<_> = (0..16).map(|_| budget.purse(&tenant)).collect();
        let waits = slow.iter_mut().filter_map(|purse| purse.wait(1 << 10, SMALL).ok()).count();
        assert_eq!(waits, 15, "a tenant has half of a half");
        let small = Bytes::from_static(b"small");
        let whole: Vec<_> = slow.into_iter().map(|purse| purse.with(small.clone())).collect();
        assert_eq!((budget.held(), whole.len()), ((0, 0), 16));
    }

    #[test]
    fn a_body_that_is_alone_may_be_of_any_size_and_no_other_beside_it() {
        let budget = BodyBudget::new(MIB);
        let mut large = share(&budget, "acme");
        for mib in 1..=64 {
            large.grow(mib * MIB).expect("it is alone");
        }
        assert!(share(&budget, "globex").grow(MIB).is_err());
    }

    #[test]
    fn a_body_is_held_until_its_last_clone_goes() {
        let budget = BodyBudget::new(8 * MIB);
        let mut share = share(&budget, "acme");
        share.grow(MIB).expect("room");
        let body = share.with(Bytes::from(vec![7; MIB as usize]));
        let slice = body.slice(1..3);
        drop(body);
        assert_eq!((&*slice, budget.held().0), (&[7u8, 7][..], MIB));
        drop(slice);
        assert_eq!(budget.held().0, 0);
    }

    #[tokio::test]
    async fn whoever_can_wait_gets_its_room_when_another_gives_it_back() {
        let budget = BodyBudget::new(4 * MIB);
        let tenant = tenant("acme");
        let mut first = share(&budget, "acme");
        first.grow(2 * MIB).expect("room");
        let mut later = budget.purse(&tenant);
        let mut waits = pin!(later.grow_when_free(MIB));
        assert!(
            std::future::poll_fn(|cx| std::task::Poll::Ready(waits.as_mut().poll(cx))).await.is_pending()
        );
        drop(first);
        waits.await;
        assert_eq!(budget.held().0, MIB);
    }
}
