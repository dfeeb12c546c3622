//! How many bytes of request bodies the platform holds at once, in all and for each tenant.
//!
//! A body is held from its first bytes until the last clone of it is dropped: it carries its share
//! of the budget with it. Small ones are not counted, and cost nothing; what they take is bounded by
//! the number of calls at once. Whoever holds nothing may always begin, so that one body of any size
//! that a function's limit allows finds its place on the smallest host.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use fp_core::Tenant;
use parking_lot::Mutex;

/// Bodies up to this size are not counted: what a connection takes anyway for reading.
const SMALL: u64 = 64 << 10;

/// One part in how many of the host's memory bodies may take: most of it is for workers.
const SHARE_OF_MEMORY: u64 = 8;

/// The least that all may take together: some uploads of an ordinary size on the smallest host.
const LEAST: u64 = 256 << 20;

/// One part in how many of that a tenant may take, so that none takes it all.
const SHARE_OF_TENANT: u64 = 2;

/// The bytes that are held.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    most: u64,
    held: Mutex<Held>,
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

    fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { most, held: Mutex::default() })
    }

    /// For a body of this tenant's; it takes nothing yet.
    pub(crate) fn purse<'a>(self: &'a Arc<Self>, tenant: &'a Tenant) -> Purse<'a> {
        Purse { budget: self, tenant, share: None }
    }

    #[cfg(test)]
    fn share(self: &Arc<Self>, tenant: &Tenant) -> Share {
        Share { budget: self.clone(), tenant: tenant.clone(), bytes: 0 }
    }

    /// Makes `own` bytes of a tenant's `wanted` ones.
    fn take(&self, tenant: &Tenant, own: u64, wanted: u64) -> Result<(), NoRoom> {
        let mut held = self.held.lock();
        let theirs = held.tenants.get(tenant).copied().unwrap_or(0);
        let fits = |others: u64, most: u64| others == 0 || others.saturating_add(wanted) <= most;
        if !fits(held.all - own, self.most) || !fits(theirs - own, self.most / SHARE_OF_TENANT) {
            return Err(NoRoom);
        }
        held.all = held.all - own + wanted;
        held.tenants.insert(tenant.clone(), theirs - own + wanted);
        Ok(())
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
    }
}

/// What a body takes while it is read: nothing, not even a count of a reference, as long as it is small.
#[derive(Debug)]
pub(crate) struct Purse<'a> {
    budget: &'a Arc<BodyBudget>,
    tenant: &'a Tenant,
    share: Option<Share>,
}

impl Purse<'_> {
    /// Makes it enough for so many bytes.
    ///
    /// # Errors
    /// When there is no room.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), NoRoom> {
        if bytes <= SMALL {
            return Ok(());
        }
        let Self { budget, tenant, share } = self;
        let nothing = || Share { budget: Arc::clone(budget), tenant: tenant.clone(), bytes: 0 };
        share.get_or_insert_with(nothing).grow(bytes)
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
    budget: Arc<BodyBudget>,
    tenant: Tenant,
    bytes: u64,
}

impl Share {
    /// Makes it enough for a body of so many bytes. Larger ones grow by a half at least, as their
    /// memory does, so that the lock is taken a few times for a body of any size.
    ///
    /// # Errors
    /// When there is no room; what it had it keeps.
    fn grow(&mut self, bytes: u64) -> Result<(), NoRoom> {
        if bytes <= SMALL || bytes <= self.bytes {
            return Ok(());
        }
        let wanted = if self.bytes == 0 { bytes } else { bytes.max(self.bytes + self.bytes / 2) };
        self.budget.take(&self.tenant, self.bytes, wanted)?;
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
            self.budget.give_back(&self.tenant, self.bytes);
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

    #[test]
    fn a_tenant_has_half_and_all_together_no_more_than_there_is() {
        let budget = BodyBudget::new(8 * MIB);
        let held = |name: &str, bytes| {
            let mut share = budget.share(&tenant(name));
            share.grow(bytes).map(|()| share)
        };
        let acme = [held("acme", 2 * MIB), held("acme", 2 * MIB)];
        assert!(acme.iter().all(Result::is_ok));
        assert!(held("acme", MIB).is_err(), "half of it is theirs");
        assert!(held("acme", SMALL).is_ok(), "small ones are not counted");
        let globex = [held("globex", 3 * MIB), held("globex", MIB)];
        assert!(globex.iter().all(Result::is_ok));
        assert!(held("initech", MIB).is_err(), "all of it is taken");
        drop((acme, globex));
        assert_eq!(budget.held.lock().all, 0);
        assert!(budget.held.lock().tenants.is_empty());
    }

    #[test]
    fn a_body_that_is_alone_may_be_of_any_size_and_no_other_beside_it() {
        let budget = BodyBudget::new(MIB);
        let mut large = budget.share(&tenant("acme"));
        for mib in 1..=64 {
            large.grow(mib * MIB).expect("it is alone");
        }
        assert!(budget.share(&tenant("globex")).grow(MIB).is_err());
    }

    #[test]
    fn a_body_is_held_until_its_last_clone_goes() {
        let budget = BodyBudget::new(8 * MIB);
        let mut share = budget.share(&tenant("acme"));
        share.grow(MIB).expect("room");
        let body = share.with(Bytes::from(vec![7; MIB as usize]));
        let slice = body.slice(1..3);
        drop(body);
        assert_eq!((&*slice, budget.held.lock().all), (&[7u8, 7][..], MIB));
        drop(slice);
        assert_eq!(budget.held.lock().all, 0);
    }
}
