//! Turns of deploys: how many are carried out at once.
//!
//! A deploy starts a worker whatever places there are, because a function that is too slow for its host
//! must be replaceable on a host that is full. So there are few of them at once, a part of those for one
//! tenant: no other's deploys wait for more than their turn. Who leaves while waiting has deployed nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use fp_core::Tenant;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Deploys at once: a handler may take ten seconds to load, and all the while it has a processor.
const ALL: usize = 32;

/// Deploys of one tenant at once: more are no faster, since loading a handler is work for a processor.
const OF_TENANT: usize = 8;

/// Tenants beyond which those that deploy nothing are forgotten: some kilobytes.
const MANY: usize = 64;

#[derive(Debug)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    tenants: Mutex<BTreeMap<Tenant, Arc<Semaphore>>>,
}

/// A deploy's turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(ALL)), tenants: Mutex::default() }
    }
}

impl Turns {
    /// Waits for the turn of a tenant's deploy.
    pub(super) async fn take(&self, tenant: &Tenant) -> Turn {
        let own = self.of(tenant);
        let _own = own.acquire_owned().await.expect("the semaphore is never closed");
        let _all = self.all.clone().acquire_owned().await.expect("the semaphore is never closed");
        Turn { _own, _all }
    }

    fn of(&self, tenant: &Tenant) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock();
        if tenants.len() >= MANY {
            tenants.retain(|_, own| Arc::strong_count(own) > 1);
        }
        tenants.entry(tenant.clone()).or_insert_with(|| Arc::new(Semaphore::new(OF_TENANT))).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tenant_that_deploys_much_waits_for_itself_alone() {
        let turns = Turns::default();
        let (loud, quiet) = ("loud".parse().expect("a name"), "quiet".parse().expect("a name"));
        let mut held = Vec::new();
        for _ in 0..OF_TENANT {
            held.push(turns.take(&loud).await);
        }
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut one_more = std::pin::pin!(turns.take(&loud));
        assert!(one_more.as_mut().poll(&mut context).is_pending());
        turns.take(&quiet).await;
        held.pop();
        assert!(one_more.as_mut().poll(&mut context).is_ready());
    }

    #[tokio::test]
    async fn tenants_that_deploy_nothing_are_forgotten() {
        let turns = Turns::default();
        for number in 0..3 * MANY {
            turns.take(&format!("t{number}").parse().expect("a name")).await;
        }
        assert!(turns.tenants.lock().len() <= MANY);
    }
}
