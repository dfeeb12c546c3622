//! Which ended calls go to disk: a [`Sampler`] per function, and each tenant's [`Share`] of the limit over
//! all of them.
//!
//! What a sampler leaves out is counted by the tenant and the second of the call's arrival, which is in
//! its id: that is how a lookup tells "left out" from "never heard of it".

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fp_core::record::Invocation;
use fp_core::sampling::{Kind, Sampler};
use fp_core::{FunctionName, InvocationId, Tenant};
use parking_lot::Mutex;

use super::share::{Share, Shares};
use crate::config::HistoryConfig;
use crate::store::telemetry::{Skipped, SkippedAt};

/// As many as the ring's, for the same reason.
const SHARDS: usize = 16;

/// Samplers of functions that were silent for so many seconds are dropped; they hold nothing but
/// weights that no row has taken yet.
const SILENT_SECONDS: u64 = 600;

/// What one shard knows of a tenant.
#[derive(Debug)]
struct OfTenant {
    share: Arc<Share>,
    samplers: HashMap<FunctionName, Box<Sampler>>,
}

#[derive(Debug, Default)]
struct Shard {
    tenants: HashMap<Tenant, OfTenant>,
    /// Calls left out since the last drain.
    left_out: Skipped,
}

/// The samplers of all functions.
#[derive(Debug)]
pub(super) struct Sampling {
    shards: [Mutex<Shard>; SHARDS],
    per_function: u32,
    pub(super) shares: Shares,
    left_out: AtomicU64,
}

/// When a tenant's call arrived, as its id says.
pub(super) fn arrival_of(tenant: &Tenant, id: InvocationId) -> SkippedAt {
    SkippedAt::new(tenant, id.unix_ms() / 1_000)
}

impl Sampling {
    pub(super) fn new(config: &HistoryConfig) -> Self {
        Self {
            shards: Default::default(),
            per_function: config.per_function_per_second,
            shares: Shares::new(config.total_per_second),
            left_out: AtomicU64::new(0),
        }
    }

    /// The weight of a call's row on disk and the share that it is of; none when it is left out.
    pub(super) fn weigh(&self, invocation: &Invocation) -> Option<(u32, Arc<Share>)> {
        let second = (invocation.started_us + invocation.duration_us()) / 1_000_000;
        let kind = Kind::of(invocation);
        let mut shard = self.shard(&invocation.function).lock();
        let (sampler, share) = shard.sampler(&invocation.tenant, &invocation.function, &self.shares);
        let weight = sampler.on_call(second, kind, self.per_function, || self.shares.take(share, second));
        let kept = weight.map(|weight| (weight, share.clone()));
        if kept.is_none() {
            *shard.left_out.entry(arrival_of(&invocation.tenant, invocation.id)).or_default() += 1;
            drop(shard);
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        kept
    }

    fn shard(&self, function: &FunctionName) -> &Mutex<Shard> {
        let mix = |hash: usize, byte: &u8| hash.wrapping_mul(31).wrapping_add(usize::from(*byte));
        &self.shards[function.as_str().as_bytes().iter().fold(0, mix) % SHARDS]
    }

    /// Takes the counts of what was left out, and forgets functions that have been silent.
    pub(super) fn drain(&self, now_second: u64, into: &mut Skipped) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            for (at, calls) in std::mem::take(&mut shard.left_out) {
                *into.entry(at).or_default() += calls;
            }
            for of_tenant in shard.tenants.values_mut() {
                of_tenant.samplers.retain(|_, sampler| sampler.second() + SILENT_SECONDS >= now_second);
            }
            shard.tenants.retain(|_, of_tenant| !of_tenant.samplers.is_empty());
        }
    }

    /// A tenant is no more.
    pub(super) fn forget(&self, tenant: &Tenant) {
        self.shares.forget(tenant);
        for shard in &self.shards {
            shard.lock().tenants.remove(tenant);
        }
    }

    /// Whether calls that arrived then were left out since the last drain.
    pub(super) fn was_skipped(&self, at: SkippedAt) -> bool {
        self.shards.iter().any(|shard| shard.lock().left_out.contains_key(&at))
    }

    /// Calls left out since the start.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}

impl Shard {
    fn sampler(
        &mut self,
        tenant: &Tenant,
        function: &FunctionName,
        shares: &Shares,
    ) -> (&mut Sampler, &Arc<Share>) {
        // Names are shared texts, whose clones cost less than to look twice.
        let new = || OfTenant { share: shares.of(tenant), samplers: HashMap::new() };
        let OfTenant { share, samplers } = self.tenants.entry(tenant.clone()).or_insert_with(new);
        (samplers.entry(function.clone()).or_default(), share)
    }
}
