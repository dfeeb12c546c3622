//! Quotas: the accounts of tenants and functions, and what is on them.
//!
//! Every function has an [`Account`] beside its tenant's; calls, accepted calls and workers are
//! entered in both, and each entry is a value whose drop takes it off again. What nobody limits
//! costs two atomic loads per call. The arithmetic is [`fp_core::quota`].

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use fp_core::quota::{Meter, OverQuota, Quota, Spent};
use fp_core::{FunctionName, Tenant};
use parking_lot::Mutex;

use crate::store::StoreError;
use crate::store::registry::Registry;

/// Accounts beyond which those of functions that are no more are forgotten.
const MANY: usize = 256;

/// Whoever can do without a worker: asked when a tenant wants to start one and has no memory left.
pub(crate) trait Spare: Send + Sync {
    /// Ends an idle worker that no `scaling.min` keeps, if there is one.
    fn spare_one(self: Arc<Self>) -> bool;
}

/// Why something is not had now.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    /// Whose quota: `tenant acme` or `function thumbs`.
    whose: String,
    over: OverQuota,
}

impl Refused {
    /// One sentence: whose quota, which, how much, what to do.
    pub(crate) fn sentence(&self) -> String {
        let Self { whose, over: OverQuota { spent, limit, .. } } = self;
        let word = spent.word();
        format!("{whose} is over its quota {word:?} of {limit}; wait, send less, or have quota.{word} raised")
    }

    /// Which part of the quota.
    pub(crate) fn spent(&self) -> Spent {
        self.over.spent
    }

    /// When trying again makes sense.
    pub(crate) fn retry_after(&self) -> Duration {
        self.over.retry_after
    }
}

/// Whoever divides what there is between tenants: told what each weighs.
type Weigh = Box<dyn Fn(&Tenant, f64) + Send + Sync>;

/// The accounts of everybody.
pub(crate) struct Quotas {
    registry: Arc<Registry>,
    weigh: OnceLock<Weigh>,
    tenants: Mutex<HashMap<Tenant, Arc<Purse>>>,
    functions: Mutex<HashMap<(Tenant, FunctionName), Weak<Account>>>,
}

impl std::fmt::Debug for Quotas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quotas").field("functions", &self.functions.lock().len()).finish_non_exhaustive()
    }
}

/// What a tenant uses now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Calls under way, where calls are limited.
    pub(crate) running: u32,
    /// Accepted asynchronous calls that have not ended.
    pub(crate) backlog: u32,
    /// Memory limits of its workers, in bytes.
    pub(crate) memory: u64,
}

impl Quotas {
    /// The quotas that the registry knows.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub(crate) async fn open(registry: Arc<Registry>) -> Result<Self, StoreError> {
        let stored = registry.quotas().await?;
        let (weigh, tenants, functions) = Default::default();
        let quotas = Self { registry, weigh, tenants, functions };
        for (tenant, quota) in stored {
            quotas.tenant(&tenant).set(quota);
        }
        Ok(quotas)
    }

    /// Gives a tenant another quota.
    ///
    /// # Errors
    /// When it cannot be written; then the old one stays.
    pub(crate) async fn put(&self, tenant: &Tenant, quota: Quota) -> Result<(), StoreError> {
        self.registry.put_quota(tenant, &quota).await?;
        self.weigh(tenant, quota.weight());
        self.tenant(tenant).set(quota);
        Ok(())
    }

    /// Whom to tell what tenants weigh: those that have been given a weight now, others as they are.
    pub(crate) fn weigh_by(&self, tell: impl Fn(&Tenant, f64) + Send + Sync + 'static) {
        for (tenant, purse) in &*self.tenants.lock() {
            if let Some(weight) = purse.meter.lock().quota().weight {
                tell(tenant, weight);
            }
        }
        // A second one would be of a second catalogue, which there never is.
        self.weigh.set(Box::new(tell)).ok();
    }

    fn weigh(&self, tenant: &Tenant, weight: f64) {
        if let Some(tell) = self.weigh.get() {
            tell(tenant, weight);
        }
    }

    /// A tenant is no more: a later one of its name begins without a quota. Calls of its functions
    /// that still run stay on the old account.
    pub(crate) fn forget(&self, tenant: &Tenant) {
        // In the order of `function`, which sees both as they were or as they are.
        let mut functions = self.functions.lock();
        self.tenants.lock().remove(tenant);
        functions.retain(|(whose, _), _| whose != tenant);
        self.weigh(tenant, fp_core::share::DEFAULT_WEIGHT);
    }

    /// A tenant's quota, and what of it is used.
    pub(crate) fn of(&self, tenant: &Tenant) -> (Quota, Usage) {
        let purse = self.tenant(tenant);
        let meter = purse.meter.lock();
        let usage = Usage { running: meter.running(), backlog: meter.backlog(), memory: meter.memory() };
        (meter.quota().clone(), usage)
    }

    /// The account of a function; the same for all its versions.
    pub(crate) fn function(&self, tenant: &Tenant, name: &FunctionName) -> Arc<Account> {
        let key = (tenant.clone(), name.clone());
        let mut functions = self.functions.lock();
        if let Some(known) = functions.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        if functions.len() >= MANY && functions.len() == functions.capacity() {
            functions.retain(|_, account| account.strong_count() > 0);
        }
        let own = Purse::new(format!("function {name}"));
        let account = Arc::new(Account { tenant: self.tenant(tenant), own });
        functions.insert(key, Arc::downgrade(&account));
        account
    }

    fn tenant(&self, tenant: &Tenant) -> Arc<Purse> {
        let mut tenants = self.tenants.lock();
        let purse = tenants
            .entry(tenant.clone())
            .or_insert_with(|| Arc::new(Purse::new(format!("tenant {}", tenant.as_str()))));
        purse.clone()
    }
}

/// One meter, and whose it is.
struct Purse {
    whose: String,
    /// Whether calls are limited at all: read without the lock.
    limits_calls: AtomicBool,
    meter: Mutex<Meter>,
    /// Pools of the tenant, that may have a worker to spare. Empty for functions.
    spares: Mutex<Vec<Weak<dyn Spare>>>,
    /// A worker has become idle since all of them were asked in vain.
    may_spare: AtomicBool,
}

impl Purse {
    fn new(whose: String) -> Self {
        Self {
            whose,
            limits_calls: AtomicBool::new(false),
            meter: Mutex::default(),
            spares: Mutex::default(),
            may_spare: AtomicBool::new(true),
        }
    }

    fn set(&self, quota: Quota) {
        self.limits_calls.store(quota.limits_calls(), Ordering::Relaxed);
        self.meter.lock().set(quota);
    }

    fn limits_calls(&self) -> bool {
        self.limits_calls.load(Ordering::Relaxed)
    }

    fn ask<T>(&self, ask: impl FnOnce(&mut Meter) -> Result<T, OverQuota>) -> Result<T, Refused> {
        ask(&mut self.meter.lock()).map_err(|over| Refused { whose: self.whose.clone(), over })
    }
}

/// What a function and its tenant may use, and do.
pub(crate) struct Account {
    tenant: Arc<Purse>,
    own: Purse,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("whose", &self.own.whose).finish_non_exhaustive()
    }
}

impl Account {
    /// The function's own quota from now on.
    pub(crate) fn set(&self, quota: &Quota) {
        self.own.set(quota.clone());
    }

    /// Whether a call would be let in now: for those who have not read its body yet.
    pub(crate) fn check(&self, now: Duration) -> Result<(), Refused> {
        for purse in [&*self.tenant, &self.own] {
            if purse.limits_calls() {
                purse.ask(|meter| meter.check(now))?;
            }
        }
        Ok(())
    }

    /// Lets a call in, until the entry is dropped. None where nothing is limited.
    pub(crate) fn begin(self: &Arc<Self>, now: Duration) -> Result<Option<CallEntry>, Refused> {
        let (tenants, own) = (self.tenant.limits_calls(), self.own.limits_calls());
        if !tenants && !own {
            return Ok(None);
        }
        self.enter([tenants, own], |meter| meter.begin(now), Meter::undo)?;
        Ok(Some(CallEntry { account: self.clone(), tenants, own }))
    }

    /// Takes something off the accounts that are concerned, the tenant's first; nothing where one refuses.
    fn enter(
        &self,
        [tenants, own]: [bool; 2],
        take: impl Fn(&mut Meter) -> Result<(), OverQuota>,
        give_back: impl Fn(&mut Meter),
    ) -> Result<(), Refused> {
        if tenants {
            self.tenant.ask(&take)?;
        }
        if own && let Err(refused) = self.own.ask(&take) {
            if tenants {
                give_back(&mut self.tenant.meter.lock());
            }
            return Err(refused);
        }
        Ok(())
    }

    /// Takes calls off the rates alone, because they run some other time: one of each function, or
    /// nothing where one of them is refused.
    pub(crate) fn spend_all<'a>(
        accounts: impl Iterator<Item = &'a Arc<Self>> + Clone,
        now: Duration,
    ) -> Result<(), Refused> {
        for (spent, account) in accounts.clone().enumerate() {
            if let Err(refused) = account.spend(now) {
                accounts.take(spent).for_each(|account| account.unspend());
                return Err(refused);
            }
        }
        Ok(())
    }

    fn spend(&self, now: Duration) -> Result<(), Refused> {
        self.enter([true, true], |meter| meter.spend(now), Meter::unspend)
    }

    fn unspend(&self) {
        self.tenant.meter.lock().unspend();
        self.own.meter.lock().unspend();
    }

    /// Takes an asynchronous call into the backlog, until the entry is dropped.
    pub(crate) fn accept(self: &Arc<Self>) -> Result<BacklogEntry, Refused> {
        self.enter([true, true], Meter::accept, Meter::finish)?;
        Ok(BacklogEntry(self.clone()))
    }

    /// As [`accept`](Self::accept), for a call that an earlier life accepted.
    pub(crate) fn accept_again(self: &Arc<Self>) -> BacklogEntry {
        self.tenant.meter.lock().accept_again();
        self.own.meter.lock().accept_again();
        BacklogEntry(self.clone())
    }

    /// Reserves a worker's memory, until the entry is dropped. Idle workers of the tenant make room.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<MemoryEntry, Refused> {
        loop {
            match self.tenant.ask(|meter| meter.reserve(bytes)) {
                Ok(()) => return Ok(MemoryEntry { account: self.clone(), bytes }),
                Err(refused) if !self.tenant.spare_one() => return Err(refused),
                Err(_) => {}
            }
        }
    }

    /// Says whom to ask for a worker to spare.
    pub(crate) fn register(&self, spare: Weak<dyn Spare>) {
        let mut spares = self.tenant.spares.lock();
        if spares.len() >= MANY && spares.len() == spares.capacity() {
            spares.retain(|spare| spare.strong_count() > 0);
        }
        spares.push(spare);
        drop(spares);
        self.note_spare();
    }

    /// A worker has become idle; said after it is.
    pub(crate) fn note_spare(&self) {
        let may_spare = &self.tenant.may_spare;
        // Not written when nothing changes: all calls of the tenant share it.
        if !may_spare.load(Ordering::Acquire) {
            may_spare.store(true, Ordering::Release);
        }
    }
}

impl Purse {
    fn spare_one(&self) -> bool {
        // Asking costs every pool its lock, and may be asked for ten times a second by each of them.
        if !self.may_spare.swap(false, Ordering::AcqRel) {
            return false;
        }
        // Not under the lock: a pool that ends a worker comes back here with its memory.
        let spares: Vec<_> = self.spares.lock().iter().filter_map(Weak::upgrade).collect();
        let found = spares.into_iter().any(Spare::spare_one);
        if found {
            self.may_spare.store(true, Ordering::Release);
        }
        found
    }
}

/// A call that is under way.
pub(crate) struct CallEntry {
    account: Arc<Account>,
    tenants: bool,
    own: bool,
}

impl Drop for CallEntry {
    fn drop(&mut self) {
        if self.tenants {
            self.account.tenant.meter.lock().end();
        }
        if self.own {
            self.account.own.meter.lock().end();
        }
    }
}

/// An accepted call that has not ended.
#[derive(Debug)]
pub(crate) struct BacklogEntry(Arc<Account>);

impl Drop for BacklogEntry {
    fn drop(&mut self) {
        self.0.tenant.meter.lock().finish();
        self.0.own.meter.lock().finish();
    }
}

/// The memory of a worker.
#[derive(Debug)]
pub(crate) struct MemoryEntry {
    account: Arc<Account>,
    bytes: u64,
}

impl Drop for MemoryEntry {
    fn drop(&mut self) {
        self.account.tenant.meter.lock().give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn quotas() -> (Quotas, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let registry = Arc::new(Registry::open(directory.path()).unwrap());
        (Quotas::open(registry).await.unwrap(), directory)
    }

    fn account(quotas: &Quotas, tenant: &str, name: &str) -> Arc<Account> {
        quotas.function(&tenant.parse().unwrap(), &name.parse().unwrap())
    }

    fn at_once(calls: u32) -> Quota {
        Quota { concurrency: Some(calls), ..Quota::default() }
    }

    #[tokio::test]
    async fn what_nobody_limits_is_not_entered() {
        let (quotas, _directory) = quotas().await;
        assert!(account(&quotas, "default", "a").begin(Duration::ZERO).unwrap().is_none());
    }

    #[tokio::test]
    async fn functions_of_a_tenant_share_its_quota_and_have_their_own() {
        let (quotas, _directory) = quotas().await;
        quotas.put(&"acme".parse().unwrap(), at_once(2)).await.unwrap();
        let (one, two) = (account(&quotas, "acme", "one"), account(&quotas, "acme", "two"));
        one.set(&at_once(1));
        let running = one.begin(Duration::ZERO).unwrap();
        let refused = one.begin(Duration::ZERO).map(|_| ()).unwrap_err();
        assert_eq!(
            refused.sentence(),
            "function one is over its quota \"concurrency\" of 1 calls at once; wait, send less, or have \
             quota.concurrency raised"
        );
        // The refusal has used nothing of the tenant's.
        let another = two.begin(Duration::ZERO).unwrap();
        let refused = two.begin(Duration::ZERO).map(|_| ()).unwrap_err();
        assert!(refused.sentence().starts_with("tenant acme is over"), "{refused:?}");
        assert!(account(&quotas, "other", "one").begin(Duration::ZERO).unwrap().is_none());
        drop((running, another));
        two.check(Duration::ZERO).unwrap();
    }

    #[tokio::test]
    async fn an_account_outlives_its_versions_and_not_its_function() {
        let (quotas, _directory) = quotas().await;
        let first = account(&quotas, "default", "a");
        first.set(&at_once(1));
        let running = first.begin(Duration::ZERO).unwrap();
        let second = account(&quotas, "default", "a");
        drop(first);
        second.begin(Duration::ZERO).map(|_| ()).unwrap_err();
        drop((running, second));
        assert!(account(&quotas, "default", "a").begin(Duration::ZERO).unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_refused_spends_no_rate() {
        let (quotas, _directory) = quotas().await;
        let hourly =
            |burst| Quota { rate: Some("1/h".parse().unwrap()), burst: Some(burst), ..Quota::default() };
        quotas.put(&"acme".parse().unwrap(), hourly(3)).await.unwrap();
        let (one, two) = (account(&quotas, "acme", "one"), account(&quotas, "acme", "two"));
        two.set(&hourly(1));
        Account::spend_all([&two].into_iter(), Duration::ZERO).unwrap();
        for _ in 0..9 {
            let refused = Account::spend_all([&one, &two].into_iter(), Duration::ZERO).unwrap_err();
            assert!(refused.sentence().starts_with("function two is over"), "{refused:?}");
        }
        Account::spend_all([&one].into_iter(), Duration::ZERO).unwrap();
        Account::spend_all([&one].into_iter(), Duration::ZERO).unwrap();
        let refused = Account::spend_all([&one].into_iter(), Duration::ZERO).unwrap_err();
        assert!(refused.sentence().starts_with("tenant acme is over"), "{refused:?}");
    }

    #[tokio::test]
    async fn a_later_tenant_has_accounts_of_its_own() {
        let (quotas, _directory) = quotas().await;
        let acme = "acme".parse().unwrap();
        let earlier = account(&quotas, "acme", "one");
        earlier.set(&at_once(9));
        let _still_runs = earlier.begin(Duration::ZERO).unwrap();
        let others = account(&quotas, "other", "one");
        quotas.forget(&acme);
        quotas.put(&acme, at_once(1)).await.unwrap();
        let later = account(&quotas, "acme", "one");
        let _running = later.begin(Duration::ZERO).unwrap();
        let refused = later.begin(Duration::ZERO).map(|_| ()).unwrap_err();
        assert!(refused.sentence().starts_with("tenant acme is over"), "{refused:?}");
        assert!(Arc::ptr_eq(&others, &account(&quotas, "other", "one")));
    }

    #[tokio::test]
    async fn a_tenants_quota_survives_a_restart() {
        let (quotas, directory) = quotas().await;
        let acme = "acme".parse().unwrap();
        quotas.put(&acme, at_once(3)).await.unwrap();
        quotas.registry.close().await;
        drop(quotas);
        let registry = Arc::new(Registry::open(directory.path()).unwrap());
        let again = Quotas::open(registry).await.unwrap();
        assert_eq!(again.of(&acme).0, at_once(3));
    }

    #[derive(Default)]
    struct Idle(Mutex<Vec<MemoryEntry>>, std::sync::atomic::AtomicU32);

    impl Spare for Idle {
        fn spare_one(self: Arc<Self>) -> bool {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.lock().pop().is_some()
        }
    }

    #[tokio::test]
    async fn pools_with_nothing_to_spare_are_asked_once() {
        let (quotas, _directory) = quotas().await;
        let memory = Some(bytesize::ByteSize(100));
        quotas.put(&"acme".parse().unwrap(), Quota { memory, ..Quota::default() }).await.unwrap();
        let busy = account(&quotas, "acme", "busy");
        let _memory = busy.reserve(100).unwrap();
        let idle = Arc::new(Idle::default());
        let spare: Weak<dyn Spare> = Arc::downgrade(&idle) as _;
        busy.register(spare);
        let asked = |times| {
            for _ in 0..times {
                busy.reserve(60).unwrap_err();
            }
            idle.1.load(Ordering::Relaxed)
        };
        assert_eq!(asked(9), 1);
        busy.note_spare();
        assert_eq!(asked(9), 2);
    }

    #[tokio::test]
    async fn idle_workers_make_room() {
        let (quotas, _directory) = quotas().await;
        let memory = Some(bytesize::ByteSize(100));
        quotas.put(&"acme".parse().unwrap(), Quota { memory, ..Quota::default() }).await.unwrap();
        let (one, two) = (account(&quotas, "acme", "one"), account(&quotas, "acme", "two"));
        let idle: Arc<dyn Spare> = Arc::new(Idle(Mutex::new(vec![one.reserve(60).unwrap()]), 0.into()));
        two.reserve(60).unwrap_err();
        two.register(Arc::downgrade(&idle));
        let mine = two.reserve(60).unwrap();
        assert_eq!(one.reserve(60).unwrap_err().spent(), Spent::Memory);
        drop(mine);
        one.reserve(100).unwrap();
    }
}
