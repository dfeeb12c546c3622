//! Secrets: values that functions may read and nobody else may see.
//!
//! They lie in the registry, each sealed for its place under the key file ([`key`], [`seal`]),
//! and open in the memory of this process only, in a type that is neither printed nor left
//! behind ([`value`]). Readers take a snapshot; a change is written and synced before it is
//! swapped in. [`FunctionSecrets`] is what one function gets of them, with the [`mask`] for all
//! that is kept of its calls. This room knows no function but by the names that it asks for.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

pub(crate) mod key;
pub(crate) mod mask;
mod seal;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use fp_core::code::Code;
use fp_core::{SecretName, Settings, Tenant};
use fp_sandbox::SecretFrames;

use crate::store::StoreError;
use crate::store::registry::{Registry, SealedSecret};

pub use self::key::KeyError;
pub(crate) use self::mask::{Cut, Mask};
pub use self::value::SecretValue;

use self::key::{Key, KeyFile};
use self::seal::Place;

/// Name of the key file in the data directory.
const KEY_FILE: &str = "secrets.key";

/// Largest value, in bytes: what AWS takes for one; a chain of certificates fits.
pub const MAX_VALUE: usize = 64 << 10;

/// Earlier values of a secret that a function was given which stay masked in what is kept of its calls:
/// a worker may have kept one in a variable.
const PAST_VALUES: usize = 2;

/// Why a secret cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The key file is not as it must be.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There are secrets and no key.
    #[error(
        "the data directory keeps secrets, and the key file {path:?} that they are sealed under is not there; put it back, or name where it is with --secrets-key-file; --discard-unreadable-secrets starts without them and deletes them"
    )]
    KeyMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The key is another one.
    #[error(
        "the key file {path:?} is not the one that the secrets of the data directory are sealed under; put that one back, or name it with --secrets-key-file; --discard-unreadable-secrets starts without them and deletes them"
    )]
    WrongKey {
        /// Which file.
        path: PathBuf,
    },
    /// A row does not open under the right key.
    #[error(
        "secret {name} of tenant {tenant} does not open: its row in registry.db was damaged, changed or moved; restore the file, or start with --discard-unreadable-secrets and set the secret again"
    )]
    Tampered {
        /// Whose.
        tenant: Tenant,
        /// Which.
        name: SecretName,
    },
    /// The registry failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SecretsError {
    /// The error's word.
    pub fn code(&self) -> Code {
        match self {
            Self::Store(error) => error.code(),
            _ => Code::StorageFailed,
        }
    }
}

/// What may be told of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretView {
    /// Its name.
    pub name: SecretName,
    /// When it was set first, Unix time in microseconds.
    pub created_us: u64,
    /// When its value was set last.
    pub rotated_us: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    value: Arc<SecretValue>,
    created_us: u64,
    rotated_us: u64,
}

/// All secrets at one moment.
#[derive(Debug, Clone)]
struct Entries {
    /// Which one, counted from 1: whoever holds something derived compares this, and finds a count
    /// and values that belong together.
    change: u64,
    all: BTreeMap<(Tenant, SecretName), Entry>,
    /// The change with which the last tenant of a name ended that had secrets.
    ended: BTreeMap<Tenant, u64>,
}

impl Entries {
    fn get(&self, tenant: &Tenant, name: &SecretName) -> Option<&Entry> {
        self.all.get(&(tenant.clone(), name.clone()))
    }
}

/// All secrets of all tenants.
#[derive(Debug)]
pub struct Secrets {
    registry: Arc<Registry>,
    key_file: KeyFile,
    entries: ArcSwap<Entries>,
    /// The key once there is one; held while a secret is written.
    writing: tokio::sync::Mutex<Option<Key>>,
}

impl Secrets {
    /// Opens what the registry keeps. `discard` deletes what does not open instead of refusing.
    ///
    /// # Errors
    /// When the key file is readable for others, is another or is gone while there are secrets,
    /// and when a row was changed or moved.
    pub(crate) async fn open(
        registry: Arc<Registry>,
        data_dir: &Path,
        key_file: Option<&Path>,
        discard: bool,
    ) -> Result<Self, SecretsError> {
        let key_file = KeyFile::at(key_file.map_or_else(|| data_dir.join(KEY_FILE), Path::to_owned));
        let key = key_file.read()?;
        let mut all = BTreeMap::new();
        for row in registry.secrets().await? {
            let (tenant, name) = (row.tenant.clone(), row.name.clone());
            match opened(&key_file, key.as_ref(), row) {
                Ok(entry) => {
                    all.insert((tenant, name), entry);
                }
                Err(error) if discard => {
                    tracing::warn!(%tenant, secret = %name, %error, "a secret is deleted because it cannot be read");
                    registry.delete_secret(&tenant, &name).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            registry,
            key_file,
            entries: ArcSwap::from_pointee(Entries { change: 1, all, ended: BTreeMap::new() }),
            writing: tokio::sync::Mutex::new(key),
        })
    }

    /// The secrets of a tenant, by name.
    pub fn list(&self, tenant: &Tenant) -> Vec<SecretView> {
        let entries = self.entries.load();
        let own = entries.all.iter().filter(|((whose, _), _)| whose == tenant);
        own.map(|((_, name), entry)| view(name, entry)).collect()
    }

    /// Whether the tenant has it.
    pub fn has(&self, tenant: &Tenant, name: &SecretName) -> bool {
        self.value(tenant, name).is_some()
    }

    /// What a secret holds now.
    pub(crate) fn value(&self, tenant: &Tenant, name: &SecretName) -> Option<Arc<SecretValue>> {
        self.entries.load().get(tenant, name).map(|entry| entry.value.clone())
    }

    /// Whether a secret holds a byte that no environment variable can.
    pub(crate) fn has_nul(&self, tenant: &Tenant, name: &SecretName) -> bool {
        self.value(tenant, name).is_some_and(|value| value.bytes().contains(&0))
    }

    /// Keeps a value, the first or a new one; synced before it returns, and seen by every call
    /// that begins after that.
    ///
    /// # Errors
    /// When the key file cannot be used or the disk fails; the old value stays then.
    pub(crate) async fn set(
        &self,
        tenant: &Tenant,
        name: &SecretName,
        value: SecretValue,
        now_us: u64,
    ) -> Result<SecretView, SecretsError> {
        let mut key = self.writing.lock().await;
        if key.is_none() {
            *key = Some(self.key_file.read_or_make()?);
        }
        let key = key.as_ref().expect("made above");
        let place = (tenant.clone(), name.clone());
        let created_us = self.entries.load().get(tenant, name).map_or(now_us, |entry| entry.created_us);
        let row = SealedSecret {
            tenant: tenant.clone(),
            name: name.clone(),
            created_us,
            rotated_us: now_us,
            key_id: key.id().to_vec(),
            sealed: seal::seal(key, &Place { tenant, name }, value.bytes()),
        };
        self.registry.put_secret(row).await?;
        let entry = Entry { value: Arc::new(value), created_us, rotated_us: now_us };
        let view = view(name, &entry);
        self.swap(|entries| {
            entries.all.insert(place, entry);
        });
        Ok(view)
    }

    /// Deletes one; false if there was none. Functions that were given it go on masking it; nothing
    /// of it is kept here, so that who sets and deletes in turn holds no more than who sets.
    ///
    /// # Errors
    /// When the disk fails; the secret stays then.
    pub(crate) async fn delete(&self, tenant: &Tenant, name: &SecretName) -> Result<bool, SecretsError> {
        let _writing = self.writing.lock().await;
        let existed = self.registry.delete_secret(tenant, name).await?;
        self.swap(|entries| {
            entries.all.remove(&(tenant.clone(), name.clone()));
        });
        Ok(existed)
    }

    /// Drops those of a tenant that has ended; its rows went with it. Its functions stay as they are:
    /// calls that run still mask what they were given, and learn nothing of a later tenant's.
    pub(crate) async fn forget_tenant(&self, tenant: &Tenant) {
        let _writing = self.writing.lock().await;
        self.swap(|entries| {
            let before = entries.all.len();
            entries.all.retain(|(whose, _), _| whose != tenant);
            if entries.all.len() < before {
                entries.ended.insert(tenant.clone(), entries.change);
            }
        });
    }

    /// Called with `writing` held.
    fn swap(&self, change: impl FnOnce(&mut Entries)) {
        let mut next = Entries::clone(&self.entries.load());
        next.change += 1;
        change(&mut next);
        self.entries.store(Arc::new(next));
    }

    /// What a function with these settings reads; none if it names no secret.
    pub(crate) fn of_function(
        self: &Arc<Self>,
        tenant: &Tenant,
        settings: &Settings,
    ) -> Option<Arc<FunctionSecrets>> {
        if settings.secrets.is_empty() {
            return None;
        }
        let variables = |name: &SecretName| {
            let named = settings.secret_env.iter().filter(move |(_, secret)| *secret == name);
            named.map(|(variable, _)| variable.clone()).collect()
        };
        let wanted = settings.secrets.iter().map(|name| (name.clone(), variables(name))).collect();
        let nothing = Given {
            change: 0,
            values: vec![None; settings.secrets.len()],
            past: vec![Vec::new(); settings.secrets.len()],
            frames: Arc::new(SecretFrames::new(0)),
            mask: Arc::new(Mask::default()),
        };
        Some(Arc::new(FunctionSecrets {
            secrets: self.clone(),
            tenant: tenant.clone(),
            since: self.entries.load().change,
            wanted,
            given: ArcSwap::from_pointee(nothing),
        }))
    }
}

fn opened(file: &KeyFile, key: Option<&Key>, row: SealedSecret) -> Result<Entry, SecretsError> {
    let path = || file.path().to_owned();
    let key = key.ok_or_else(|| SecretsError::KeyMissing { path: path() })?;
    if row.key_id != key.id() {
        return Err(SecretsError::WrongKey { path: path() });
    }
    let place = Place { tenant: &row.tenant, name: &row.name };
    match seal::open(key, &place, row.sealed) {
        Some(value) => {
            Ok(Entry { value: Arc::new(value), created_us: row.created_us, rotated_us: row.rotated_us })
        }
        None => Err(SecretsError::Tampered { tenant: row.tenant, name: row.name }),
    }
}

fn view(name: &SecretName, entry: &Entry) -> SecretView {
    SecretView { name: name.clone(), created_us: entry.created_us, rotated_us: entry.rotated_us }
}

/// What one function reads, as it is now.
#[derive(Debug)]
pub(crate) struct FunctionSecrets {
    secrets: Arc<Secrets>,
    tenant: Tenant,
    /// The change that it was made after.
    since: u64,
    /// Names, each with the environment variables that hold it.
    wanted: Vec<(SecretName, Vec<String>)>,
    given: ArcSwap<Given>,
}

type Value = Arc<SecretValue>;

/// The values at one time, in the form that workers take.
#[derive(Debug)]
struct Given {
    /// The count of changes that this was made at.
    change: u64,
    values: Vec<Option<Value>>,
    /// Values that workers were given before, of each name the latest last.
    past: Vec<Vec<Value>>,
    frames: Arc<SecretFrames>,
    mask: Arc<Mask>,
}

impl FunctionSecrets {
    /// Whether another names the same secrets, for the same variables.
    pub(crate) fn is_alike(&self, other: &Self) -> bool {
        self.tenant == other.tenant && self.wanted == other.wanted
    }

    /// For its workers.
    pub(crate) fn frames(&self) -> Arc<SecretFrames> {
        self.current().frames.clone()
    }

    /// For what is kept of its calls: present and earlier values.
    pub(crate) fn mask(&self) -> Arc<Mask> {
        self.current().mask.clone()
    }

    fn current(&self) -> Arc<Given> {
        let entries = self.secrets.entries.load();
        let given = self.given.load_full();
        let is_over = || entries.ended.get(&self.tenant).is_some_and(|end| *end > self.since);
        if given.change == entries.change || is_over() {
            return given;
        }
        // Two calls may do this at once. Each goes on from what the other has stored: a value that one of
        // them has given away is never forgotten unmasked.
        self.given.rcu(|given| {
            // Another saw a later change.
            if given.change >= entries.change {
                given.clone()
            } else {
                Arc::new(self.taken_from(&entries, given))
            }
        });
        self.given.load_full()
    }

    fn taken_from(&self, entries: &Entries, before: &Given) -> Given {
        let change = entries.change;
        let value_of = |name: &SecretName| entries.get(&self.tenant, name).map(|entry| entry.value.clone());
        let values: Vec<_> = self.wanted.iter().map(|(name, _)| value_of(name)).collect();
        let is_same = |(new, old): (&Option<Value>, &Option<Value>)| match (new, old) {
            (Some(new), Some(old)) => Arc::ptr_eq(new, old),
            (new, old) => new.is_none() && old.is_none(),
        };
        // Another's secret has changed: workers need not hear of it.
        if values.iter().zip(&before.values).all(is_same) {
            let (past, frames, mask) = (before.past.clone(), before.frames.clone(), before.mask.clone());
            return Given { change, values, past, frames, mask };
        }
        let past: Vec<_> = before
            .past
            .iter()
            .zip(before.values.iter().zip(&values))
            .map(|(past, (old, new))| if is_same((new, old)) { past.clone() } else { longer(past, old) })
            .collect();
        let mut frames = SecretFrames::new(change);
        for ((name, variables), value) in self.wanted.iter().zip(&values) {
            frames.add(name, variables, value.as_ref().map(|value| value.bytes()));
        }
        let all = values.iter().flatten().chain(past.iter().flatten());
        let mask = Mask::of(all.map(|value| value.bytes()));
        Given { change, values, past, frames: Arc::new(frames), mask: Arc::new(mask) }
    }
}

/// Earlier values with one more, the latest last; the earliest go.
fn longer(past: &[Value], value: &Option<Value>) -> Vec<Value> {
    let all: Vec<_> = past.iter().chain(value).cloned().collect();
    all[all.len().saturating_sub(PAST_VALUES)..].to_vec()
}

#[cfg(test)]
mod tests;
