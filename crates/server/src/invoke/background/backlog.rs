//! How much of accepted calls may wait: each tenant's so many bytes, on disk and here.
//!
//! Quotas count a tenant's calls, where it has one; this is what nobody may pass, so that what was
//! accepted neither fills the disk nor outgrows the memory at the next start.

use std::collections::HashMap;
use std::sync::Arc;

use fp_core::Tenant;
use parking_lot::Mutex;

/// Most that the accepted calls of one tenant may weigh: some hundred bodies of the largest size, or
/// 200,000 small calls.
const MOST: u64 = 2 << 30;

/// What the beginning of a head weighs: of a call that waits, ids and path are in memory, too, which is
/// dearer than the disk by about that much.
const WEIGHT_OF_HEAD: u64 = 16;

/// Bytes that a call takes in memory besides its path.
const LEAST_HEAD: u64 = 512;

/// What accepted calls weigh.
#[derive(Debug)]
pub(super) struct Backlog {
    most: u64,
    tenants: Mutex<HashMap<Tenant, u64>>,
}

impl Default for Backlog {
    fn default() -> Self {
        Self { most: MOST, tenants: Mutex::default() }
    }
}

/// More than may wait.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the accepted calls of tenant {tenant} that have not ended take {taken} MiB already, the most is {most} MiB; try again when some have ended"
)]
pub(super) struct TooMuch {
    tenant: Tenant,
    taken: u64,
    most: u64,
}

/// What a call with a head and a body of so many bytes weighs.
pub(super) fn weight(head: u64, body: u64) -> u64 {
    WEIGHT_OF_HEAD * (LEAST_HEAD + head) + body
}

impl Backlog {
    /// Takes in calls that weigh so much together, until the loads are dropped.
    pub(super) fn load(self: &Arc<Self>, tenant: &Tenant, weights: &[u64]) -> Result<Vec<Load>, TooMuch> {
        let mut tenants = self.tenants.lock();
        let taken = tenants.get(tenant).copied().unwrap_or(0);
        let sum = weights.iter().sum::<u64>().saturating_add(taken);
        if sum > self.most {
            return Err(TooMuch { tenant: tenant.clone(), taken: taken >> 20, most: self.most >> 20 });
        }
        tenants.insert(tenant.clone(), sum);
        drop(tenants);
        let of = |weight: &u64| Load { backlog: self.clone(), tenant: tenant.clone(), weight: *weight };
        Ok(weights.iter().map(of).collect())
    }

    /// The same for one that an earlier life accepted.
    pub(super) fn load_again(self: &Arc<Self>, tenant: &Tenant, weight: u64) -> Load {
        *self.tenants.lock().entry(tenant.clone()).or_default() += weight;
        Load { backlog: self.clone(), tenant: tenant.clone(), weight }
    }
}

/// What one call weighs.
#[derive(Debug)]
pub(super) struct Load {
    backlog: Arc<Backlog>,
    tenant: Tenant,
    weight: u64,
}

impl Drop for Load {
    fn drop(&mut self) {
        let mut tenants = self.backlog.tenants.lock();
        if let Some(taken) = tenants.get_mut(&self.tenant) {
            *taken -= self.weight;
            if *taken == 0 {
                tenants.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_calls_weigh_no_more_than_they_may_and_no_other_tenants() {
        let backlog = Arc::new(Backlog { most: 100 << 20, ..Backlog::default() });
        let [acme, globex] = ["acme", "globex"].map(|name| name.parse::<Tenant>().expect("a tenant"));
        let body = weight(400, 30 << 20);
        let both = backlog.load(&acme, &[body, body]).expect("it fits");
        let refused = backlog.load(&acme, &[body, body]).expect_err("too much");
        assert_eq!(refused, TooMuch { tenant: acme.clone(), taken: 60, most: 100 });
        let third = backlog.load(&acme, &[body]).expect("nothing of what was refused is counted");
        let resumed = backlog.load_again(&acme, body);
        backlog.load(&acme, &[1]).expect_err("one that is resumed counts");
        assert_eq!(backlog.load(&globex, &[body]).map(|loads| loads.len()), Ok(1));
        drop((both, third, resumed));
        assert!(backlog.tenants.lock().is_empty());
    }

    #[test]
    fn what_waits_in_memory_is_bounded_by_what_it_weighs() {
        let paths = MOST / weight(64 << 10, 0) * (64 << 10);
        assert!(paths <= MOST / WEIGHT_OF_HEAD);
        assert!(MOST / weight(400, 0) >= 100_000, "small calls are not kept from waiting");
    }
}
