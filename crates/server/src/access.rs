//! Who may do what: tenants, their keys, and the sessions of people at pages.
//!
//! Everything is in an immutable snapshot, so that checking a key is one hash and one look-up: no
//! lock, no disk. Changes are written to the registry and swapped in, one at a time; a revocation
//! is swapped in first, so that it holds from the next request on. Secrets are never kept: of a key
//! there is the SHA-256 of its second half, compared in constant time. (It is 256 random bits, which
//! no dictionary has, so a slow hash would protect nothing and be a way to overload the platform.)
//!
//! Knows nothing of HTTP: `http::caller` asks here.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

mod sessions;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fp_core::code::Code;
use fp_core::{KeyId, KeyName, PresentedKey, Scope, Scopes, Tenant};
use fp_sandbox::BelowFloor;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use crate::clock::Clock;
use crate::random;
use crate::store::StoreError;
use crate::store::registry::{KeyHash, Registry, StoredKey};

pub use self::sessions::SESSION_LIFE;
use self::sessions::Sessions;
pub use crate::store::registry::StoredTenant;

/// Keys of one tenant that are in force at once: one for every pipeline and person of a large
/// company's department. All keys are in memory, a few hundred bytes each.
const MAX_KEYS: usize = 1_000;

/// Keys of one tenant that have ended and are still listed when it makes another; those that ended first
/// are forgotten, so that who makes and revokes keys in turn holds no more than who makes them.
const MAX_ENDED: usize = MAX_KEYS;

/// The granularity of "last used", in microseconds: a minute, so that a busy key costs the registry
/// a write a minute.
const USE_GRAIN_US: u64 = 60 * 1_000_000;

/// Why tenants or keys were not changed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// There is no such key in this tenant.
    #[error("no key has the id {id:?}; `functionsplatform key list` shows all")]
    NoKey {
        /// What was asked for.
        id: String,
    },
    /// There is no such tenant.
    #[error("there is no tenant {name:?}")]
    NoTenant {
        /// What was asked for.
        name: String,
    },
    /// The name is taken.
    #[error("the tenant {name} exists already; choose another name")]
    TenantExists {
        /// Which.
        name: Tenant,
    },
    /// The operator's tenant cannot go.
    #[error("the tenant default is the operator's own and cannot be deleted; delete its functions instead")]
    DefaultStays,
    /// The key of whoever asks has ended since they began to.
    #[error("the key has expired or was revoked while the request was being sent")]
    KeyEnded,
    /// The host does not keep tenants apart.
    #[error("tenants do not trust each other, and {0}")]
    BelowFloor(BelowFloor),
    /// A time in the past.
    #[error("the key would have expired before it is made; choose a later time")]
    AlreadyExpired,
    /// The tenant has as many keys as it may have.
    #[error("the tenant {tenant} has {MAX_KEYS} keys, the most that there may be; revoke some")]
    TooManyKeys {
        /// Whose.
        tenant: Tenant,
    },
    /// A revocation holds, but not beyond a restart.
    #[error("the key is refused from now on, but that could not be written; revoke it once more: {0}")]
    RevocationUnwritten(StoreError),
    /// The registry did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AccessError {
    /// The error's word.
    pub fn code(&self) -> Code {
        match self {
            Self::NoKey { .. } => Code::NotFound,
            Self::NoTenant { .. } => Code::TenantNotFound,
            Self::TenantExists { .. } => Code::TenantExists,
            Self::KeyEnded => Code::KeyInvalid,
            Self::BelowFloor(_) => Code::IsolationTooWeak,
            Self::DefaultStays | Self::AlreadyExpired => Code::Unprocessable,
            Self::TooManyKeys { .. } => Code::QuotaExceeded,
            Self::RevocationUnwritten(error) | Self::Store(error) => error.code(),
        }
    }
}

/// A key that is known here.
#[derive(Debug)]
pub struct Key {
    stored: StoredKey,
    /// Unix time in microseconds, rounded down to [`USE_GRAIN_US`]; 0 for never.
    used_us: AtomicU64,
    /// What the registry knows of it.
    noted_us: AtomicU64,
}

impl Key {
    fn new(stored: StoredKey) -> Self {
        let used_us = stored.last_used_us.unwrap_or(0);
        Self { stored, used_us: AtomicU64::new(used_us), noted_us: AtomicU64::new(used_us) }
    }

    /// Which key.
    pub fn id(&self) -> KeyId {
        self.stored.id
    }

    /// What people call it.
    pub fn name(&self) -> &KeyName {
        &self.stored.name
    }

    /// Whose.
    pub fn tenant(&self) -> &Tenant {
        &self.stored.tenant
    }

    /// What its holder may do.
    pub fn scopes(&self) -> Scopes {
        self.stored.scopes
    }

    /// When it was made, Unix time in microseconds.
    pub fn created_us(&self) -> u64 {
        self.stored.created_us
    }

    /// From when on it is of no use, Unix time in microseconds.
    pub fn expires_us(&self) -> Option<u64> {
        self.stored.expires_us
    }

    /// When it was revoked, Unix time in microseconds.
    pub fn revoked_us(&self) -> Option<u64> {
        self.stored.revoked_us
    }

    /// When it was last used, to the minute, Unix time in microseconds.
    pub fn last_used_us(&self) -> Option<u64> {
        Some(self.used_us.load(Ordering::Relaxed)).filter(|used_us| *used_us > 0)
    }

    /// Whether it opens anything.
    pub fn is_live(&self, now_us: u64) -> bool {
        self.ended_us(now_us).is_none()
    }

    /// When it ended, if it has.
    fn ended_us(&self, now_us: u64) -> Option<u64> {
        let expired_us = self.stored.expires_us.filter(|expires| now_us >= *expires);
        [self.stored.revoked_us, expired_us].into_iter().flatten().min()
    }

    fn note_use(&self, now_us: u64) {
        let grain = now_us - now_us % USE_GRAIN_US;
        // Not written when nothing changes: all threads that check the key share this word.
        if self.used_us.load(Ordering::Relaxed) != grain {
            self.used_us.store(grain, Ordering::Relaxed);
        }
    }

    /// The use that the registry does not know of yet.
    fn unnoted_use(&self) -> Option<(KeyId, u64)> {
        let used_us = self.used_us.load(Ordering::Relaxed);
        (used_us != self.noted_us.load(Ordering::Relaxed)).then_some((self.id(), used_us))
    }
}

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// For whom.
    pub tenant: Tenant,
    /// What people call it.
    pub name: KeyName,
    /// What its holder may do.
    pub scopes: Scopes,
    /// From when on it is of no use, Unix time in microseconds.
    pub expires_us: Option<u64>,
}

/// What somebody was let in by: their key, where they have one, and the tenant as it was then.
/// Either may end, and another tenant take the name, while their request is still on its way.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Whose holder they are.
    pub key: Option<Arc<Key>>,
    /// For whom they act.
    pub tenant: Tenant,
    /// When it began: [`Access::tenant_since`].
    pub since_us: u64,
}

/// A key that was just made, with its text, which is nowhere else.
pub struct FreshKey {
    /// What is known of it from now on.
    pub key: Arc<Key>,
    /// `fpk_…`: to be shown once.
    pub text: String,
}

impl fmt::Debug for FreshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshKey").field("key", &self.key).finish_non_exhaustive()
    }
}

/// All tenants and keys at one moment.
#[derive(Debug, Clone, Default)]
struct Snapshot {
    /// The named ones; `default` is always there.
    tenants: BTreeMap<Tenant, StoredTenant>,
    keys: HashMap<KeyId, Arc<Key>>,
}

/// Tenants, keys and sessions; shared as `Arc<Access>`.
#[derive(Debug)]
pub struct Access {
    snapshot: ArcSwap<Snapshot>,
    sessions: Sessions,
    registry: Arc<Registry>,
    clock: Clock,
    /// Held while a change is made from the latest snapshot, written and swapped in.
    changes: tokio::sync::Mutex<()>,
    /// Held over the whole of what begins, ends or is set with a tenant, in all rooms.
    lives: tokio::sync::Mutex<()>,
}

impl Access {
    /// What the registry knows.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn open(registry: Arc<Registry>, clock: Clock) -> Result<Self, StoreError> {
        let tenants = registry.tenants().await?;
        let keys = registry.keys(clock.wall_now_us()).await?;
        let snapshot = Snapshot {
            tenants: tenants.into_iter().map(|tenant| (tenant.name.clone(), tenant)).collect(),
            keys: keys.into_iter().map(|key| (key.id, Arc::new(Key::new(key)))).collect(),
        };
        Ok(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            sessions: Sessions::default(),
            registry,
            clock,
            changes: tokio::sync::Mutex::new(()),
            lives: tokio::sync::Mutex::new(()),
        })
    }

    /// The key of this text, if it is one of ours and in force.
    pub fn check(&self, text: &str) -> Option<Arc<Key>> {
        let presented = PresentedKey::parse(text).ok()?;
        let hash = hash_of(presented.secret);
        let known = self.snapshot.load().keys.get(&presented.id).cloned();
        // An unknown id is compared with something as well: how long it takes says nothing.
        let expected = known.as_ref().map_or([0; 32], |key| key.stored.hash);
        let fits = bool::from(hash.ct_eq(&expected));
        self.in_force(known.filter(|_| fits)?)
    }

    /// The key of an id, in force or not.
    pub fn key(&self, id: KeyId) -> Option<Arc<Key>> {
        self.snapshot.load().keys.get(&id).cloned()
    }

    fn in_force(&self, key: Arc<Key>) -> Option<Arc<Key>> {
        let now_us = self.clock.wall_now_us();
        key.is_live(now_us).then(|| {
            key.note_use(now_us);
            key
        })
    }

    /// Begins a session of a key's holder; the text is for their cookie.
    pub fn sign_in(&self, key: &Key) -> String {
        self.sessions.begin(key.id(), key.tenant(), self.clock.now())
    }

    /// The key of a session that has not ended; one ends with its key.
    pub fn session(&self, text: &str) -> Option<Arc<Key>> {
        let id = self.sessions.key_of(text, self.clock.now())?;
        let key = self.snapshot.load().keys.get(&id).cloned();
        self.in_force(key?)
    }

    /// Ends a session.
    pub fn sign_out(&self, text: &str) {
        self.sessions.end(text);
    }

    /// Whether there is such a tenant.
    pub fn has_tenant(&self, tenant: &Tenant) -> bool {
        *tenant == Tenant::default() || self.snapshot.load().tenants.contains_key(tenant)
    }

    /// The tenant of a name, if there is one.
    pub fn tenant(&self, name: &str) -> Option<Tenant> {
        name.parse().ok().filter(|tenant| self.has_tenant(tenant))
    }

    /// When a tenant began, Unix time in microseconds: two of one name differ in that. 0 for `default`,
    /// which has always been.
    pub fn tenant_since(&self, tenant: &Tenant) -> Option<u64> {
        if *tenant == Tenant::default() {
            return Some(0);
        }
        self.snapshot.load().tenants.get(tenant).map(|stored| stored.created_us)
    }

    /// Whether what somebody was let in by still is what it was.
    ///
    /// # Errors
    /// When the key or the tenant has ended.
    pub fn still_holds(&self, grant: &Grant) -> Result<(), AccessError> {
        let Grant { key, tenant, since_us } = grant;
        if key.as_ref().is_some_and(|key| !self.is_in_force(key)) {
            return Err(AccessError::KeyEnded);
        }
        if self.tenant_since(tenant) != Some(*since_us) {
            return Err(AccessError::NoTenant { name: tenant.to_string() });
        }
        Ok(())
    }

    fn is_in_force(&self, key: &Key) -> bool {
        let snapshot = self.snapshot.load();
        let known = snapshot.keys.get(&key.id()).filter(|known| known.stored.hash == key.stored.hash);
        known.is_some_and(|known| known.is_live(self.clock.wall_now_us()))
    }

    /// Whether anybody shares the platform with the operator.
    pub fn has_named_tenants(&self) -> bool {
        !self.snapshot.load().tenants.is_empty()
    }

    /// The named tenants, by name.
    pub fn tenants(&self) -> Vec<StoredTenant> {
        self.snapshot.load().tenants.values().cloned().collect()
    }

    /// A tenant's keys, the newest last.
    pub fn keys(&self, tenant: &Tenant) -> Vec<Arc<Key>> {
        let snapshot = self.snapshot.load();
        let mut keys: Vec<_> = snapshot.keys.values().filter(|key| key.tenant() == tenant).cloned().collect();
        keys.sort_by_key(|key| (key.created_us(), key.id()));
        keys
    }

    /// Whether anybody can administer the platform with a key.
    pub fn has_operators_key(&self) -> bool {
        let now_us = self.clock.wall_now_us();
        let default = Tenant::default();
        let opens = |key: &Arc<Key>| key.scopes().allow(Scope::Admin) && key.is_live(now_us);
        self.keys(&default).iter().any(opens)
    }

    /// Lets through one at a time of those who begin, end or set something with a tenant in several rooms:
    /// nothing of an earlier one of a name happens to a later one, and what is written last is in force.
    pub(crate) async fn lives(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.lives.lock().await
    }

    /// Makes a tenant.
    pub async fn create_tenant(&self, name: Tenant) -> Result<StoredTenant, AccessError> {
        let _one_change = self.changes.lock().await;
        if self.has_tenant(&name) {
            return Err(AccessError::TenantExists { name });
        }
        let tenant = StoredTenant { name, created_us: self.clock.wall_now_us() };
        self.registry.put_tenant(tenant.clone()).await?;
        self.swap(|snapshot| drop(snapshot.tenants.insert(tenant.name.clone(), tenant.clone())));
        Ok(tenant)
    }

    /// Forgets a tenant with its keys and all else that the registry has of it. What others hold of
    /// it in memory is theirs to drop; the catalogue calls this and sees to that.
    pub(crate) async fn delete_tenant(&self, tenant: &Tenant) -> Result<(), AccessError> {
        let _one_change = self.changes.lock().await;
        if *tenant == Tenant::default() {
            return Err(AccessError::DefaultStays);
        }
        if !self.has_tenant(tenant) {
            return Err(AccessError::NoTenant { name: tenant.to_string() });
        }
        self.registry.delete_tenant(tenant).await?;
        self.swap(|snapshot| {
            snapshot.tenants.remove(tenant);
            snapshot.keys.retain(|_, key| key.tenant() != tenant);
        });
        self.sessions.end_of(tenant);
        Ok(())
    }

    /// Makes a key for somebody, unless theirs ends before: a revoked key leaves no successor behind.
    /// Its text is in the answer and nowhere else.
    /// Goes on when the future is dropped, like every change: what is written must be in force.
    pub async fn create_key_for(
        self: &Arc<Self>,
        new: NewKey,
        grant: &Grant,
    ) -> Result<FreshKey, AccessError> {
        let (access, grant) = (self.clone(), grant.clone());
        let whole = tokio::spawn(async move {
            let _one_change = access.changes.lock().await;
            access.still_holds(&grant)?;
            access.make_key(new).await
        });
        whole.await.expect("making a key does not panic")
    }

    /// Makes a key, as the platform itself. Its text is in the answer and nowhere else.
    pub async fn create_key(&self, new: NewKey) -> Result<FreshKey, AccessError> {
        let _one_change = self.changes.lock().await;
        self.make_key(new).await
    }

    /// Called with `changes` held.
    async fn make_key(&self, new: NewKey) -> Result<FreshKey, AccessError> {
        let now_us = self.clock.wall_now_us();
        if !self.has_tenant(&new.tenant) {
            return Err(AccessError::NoTenant { name: new.tenant.to_string() });
        }
        if new.expires_us.is_some_and(|expires_us| expires_us <= now_us) {
            return Err(AccessError::AlreadyExpired);
        }
        let Some(surplus) = self.surplus_beside_one_more(&new.tenant, now_us) else {
            return Err(AccessError::TooManyKeys { tenant: new.tenant });
        };
        let id = self.free_id();
        let secret = URL_SAFE_NO_PAD.encode(random::bytes::<32>());
        let stored = StoredKey {
            id,
            tenant: new.tenant,
            name: new.name,
            scopes: new.scopes,
            hash: hash_of(&secret),
            created_us: now_us,
            expires_us: new.expires_us,
            last_used_us: None,
            revoked_us: None,
        };
        self.registry.put_key(stored.clone(), surplus.clone()).await?;
        let key = Arc::new(Key::new(stored));
        self.swap(|snapshot| {
            snapshot.keys.insert(id, key.clone());
            surplus.iter().for_each(|id| drop(snapshot.keys.remove(id)));
        });
        Ok(FreshKey { key, text: PresentedKey { id, secret: &secret }.to_string() })
    }

    /// The keys that ended too long ago to be listed still if a tenant makes one more; none where it has
    /// as many in force as it may.
    fn surplus_beside_one_more(&self, tenant: &Tenant, now_us: u64) -> Option<Vec<KeyId>> {
        let snapshot = self.snapshot.load();
        let own = snapshot.keys.values().filter(|key| key.tenant() == tenant);
        let mut in_force = 0;
        let mut ended = Vec::new();
        for key in own {
            match key.ended_us(now_us) {
                Some(ended_us) => ended.push((ended_us, key.id())),
                None => in_force += 1,
            }
        }
        ended.sort_unstable();
        ended.truncate(ended.len().saturating_sub(MAX_ENDED));
        (in_force < MAX_KEYS).then(|| ended.into_iter().map(|(_, id)| id).collect())
    }

    fn free_id(&self) -> KeyId {
        let snapshot = self.snapshot.load();
        let draws = std::iter::repeat_with(|| KeyId::from_random(u64::from_ne_bytes(random::bytes())));
        let mut free = draws.filter(|id| !snapshot.keys.contains_key(id));
        free.next().expect("there is no end of draws")
    }

    /// Ends a tenant's key: it opens nothing from now on, and its sessions are over. Once more is as
    /// good as once. Goes on when the future is dropped: what holds now must hold after a restart.
    pub async fn revoke_key(self: &Arc<Self>, tenant: &Tenant, id: &str) -> Result<Arc<Key>, AccessError> {
        let (access, tenant, id) = (self.clone(), tenant.clone(), id.to_owned());
        let whole = tokio::spawn(async move { access.revoke_whole_key(&tenant, &id).await });
        whole.await.expect("revoking a key does not panic")
    }

    async fn revoke_whole_key(&self, tenant: &Tenant, id: &str) -> Result<Arc<Key>, AccessError> {
        let _one_change = self.changes.lock().await;
        let no_key = || AccessError::NoKey { id: id.to_owned() };
        let id: KeyId = id.parse().map_err(|_| no_key())?;
        let known = self.snapshot.load().keys.get(&id).cloned();
        let key = known.filter(|key| key.tenant() == tenant).ok_or_else(no_key)?;
        let revoked_us = key.revoked_us().unwrap_or_else(|| self.clock.wall_now_us());
        let stored = StoredKey {
            revoked_us: Some(revoked_us),
            last_used_us: key.last_used_us(),
            ..key.stored.clone()
        };
        let dead = Arc::new(Key::new(stored));
        self.swap(|snapshot| drop(snapshot.keys.insert(id, dead.clone())));
        self.registry.revoke_key(id, revoked_us).await.map_err(AccessError::RevocationUnwritten)?;
        Ok(dead)
    }

    /// Makes the next snapshot; only who holds `changes` may.
    fn swap(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut next = Snapshot::clone(&self.snapshot.load());
        change(&mut next);
        self.snapshot.store(Arc::new(next));
    }

    /// Housekeeping; called each second. Hands the registry what it does not know of the use of
    /// keys: of each key at most once a minute.
    pub fn tick(&self) {
        let snapshot = self.snapshot.load();
        let uses: Vec<_> = snapshot.keys.values().filter_map(|key| key.unnoted_use()).collect();
        if uses.is_empty() || !self.registry.try_note_use(uses.clone()) {
            return;
        }
        for (id, used_us) in uses {
            if let Some(key) = snapshot.keys.get(&id) {
                key.noted_us.store(used_us, Ordering::Relaxed);
            }
        }
    }
}

fn hash_of(secret: &str) -> KeyHash {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
pub(crate) mod tests;
