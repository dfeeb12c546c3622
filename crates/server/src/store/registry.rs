//! `registry.db`: functions and their versions, tenants and keys, accepted asynchronous calls and SLO
//! counters.
//!
//! What must never be lost. Every write is synced to the disk before its caller goes on;
//! concurrent writes share a sync. Reads are rare (start, deploy) and go through the writer as
//! well, so there is one connection and no question of order.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fp_core::settings::Handler;
use fp_core::{EventType, FunctionName, InvocationId, SecretName, Settings, Tenant, VersionNumber};

use super::StoreError;
use super::database::{self, Durability};
use super::writer::Writer;

mod access;
mod alerts;
mod quotas;
mod rows;
mod secrets;
mod silences;
mod stored_settings;

pub use access::{KeyHash, StoredKey, StoredTenant};
pub use alerts::StoredAlert;
pub use secrets::SealedSecret;
pub use silences::StoredSilence;

/// One version of a function as the registry keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredVersion {
    /// Whose.
    pub tenant: Tenant,
    /// Which function.
    pub function: FunctionName,
    /// Which version of it.
    pub version: VersionNumber,
    /// Order of creation among all functions.
    pub order: u64,
    /// When the function was first created, Unix time in microseconds.
    pub created_us: u64,
    /// When this version was deployed, Unix time in microseconds.
    pub deployed_us: u64,
    /// SHA-256 of the code tree, in hexadecimal.
    pub code_hash: String,
    /// Where the handler is.
    pub handler: Handler,
    /// What calls it.
    pub events: Vec<EventType>,
    /// Everything else.
    pub settings: Settings,
}

/// How far an accepted asynchronous call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AsyncState {
    /// Accepted, never dispatched.
    Queued,
    /// Dispatched at least once; not known to have ended.
    Started {
        /// When it last was, Unix time in microseconds.
        at_us: u64,
    },
}

/// An accepted asynchronous call, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsyncCall {
    /// Which call.
    pub id: InvocationId,
    /// Whose.
    pub tenant: Tenant,
    /// Of which function.
    pub function: FunctionName,
    /// That function's order of creation, which no later one of its name has; none where an
    /// earlier release accepted the call.
    pub order: Option<u64>,
    /// The event type that matched.
    pub event_type: String,
    /// Verb, path, headers, trace context and correlation id as JSON: opaque to the store.
    pub head_json: String,
    /// Length of the body, which stays on disk until it is asked for.
    pub body_bytes: u64,
    /// When it was accepted, Unix time in microseconds.
    pub accepted_us: u64,
    /// How far it is.
    pub state: AsyncState,
    /// Times it was dispatched.
    pub attempts: u32,
}

/// The registry; shared as `Arc<Registry>`.
#[derive(Debug)]
pub struct Registry {
    writer: Writer,
    starts: u64,
    /// The highest order of creation that was handed out: deploys of new functions that run at
    /// once have not written theirs yet.
    last_order: AtomicU64,
}

impl Registry {
    /// Opens or creates `registry.db` in the data directory. A damaged file is set aside with a
    /// warning and a new one begun.
    ///
    /// # Errors
    /// When the directory cannot be written, or a newer release wrote the file.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(data_dir).map_err(|source| StoreError::Directory {
            what: "the data directory",
            path: data_dir.into(),
            source,
        })?;
        let path = data_dir.join("registry.db");
        let connection = open_checked(&path)?;
        let starts = rows::count_start(&connection).map_err(|source| StoreError::Database {
            what: "counting starts",
            path: path.clone(),
            source,
        })?;
        Ok(Self { writer: Writer::start(connection, &path)?, starts, last_order: AtomicU64::new(0) })
    }

    /// How often this data directory was opened, this time included: makes worker ids unique
    /// across restarts.
    pub fn starts(&self) -> u64 {
        self.starts
    }

    /// The newest version of every function that is not deleted, first created first.
    ///
    /// # Errors
    /// As all methods: [`StoreError::Database`] when the disk fails, [`StoreError::Closed`] when
    /// stopping.
    pub async fn live_versions(&self) -> Result<Vec<StoredVersion>, StoreError> {
        self.writer.run("reading functions", |connection| Ok(rows::live_versions(connection)?)).await
    }

    /// The number that the next version of a function gets, the function's order of creation
    /// (the next free one if it does not exist), and when it was created (none if it does not
    /// exist). Numbers are never used again, also not after a delete.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions).
    pub async fn next_version(
        &self,
        tenant: &Tenant,
        function: &FunctionName,
    ) -> Result<(VersionNumber, u64, Option<u64>), StoreError> {
        let (tenant, function) = (tenant.clone(), function.clone());
        let work = move |connection: &_| Ok(rows::next_version(connection, &tenant, &function)?);
        let (version, order, created_us) = self.writer.run("reading a function", work).await?;
        let order = if created_us.is_none() { self.claim_order(order) } else { order };
        Ok((version, order, created_us))
    }

    /// An order of creation that nobody else gets, from the first that is free in the database on.
    fn claim_order(&self, free: u64) -> u64 {
        let next = |last: u64| Some(free.max(last + 1));
        let last = self.last_order.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let last = last.expect("next always has a value");
        free.max(last + 1)
    }

    /// Keeps a version; synced before it returns.
    ///
    /// # Errors
    /// [`StoreError::VersionExists`] when this number or a higher one was used before.
    pub async fn put_version(&self, version: StoredVersion) -> Result<(), StoreError> {
        let work = move |connection: &_| {
            if rows::put_version(connection, &version)? {
                return Ok(());
            }
            let function = version.function.to_string();
            Err(StoreError::VersionExists { function, version: version.version.0 }.into())
        };
        self.writer.run("writing a version", work).await
    }

    /// Forgets a function and its SLO counters; false if there was none. Calls that were
    /// accepted for it stay in the queue until they are finished.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions).
    pub async fn delete_function(
        &self,
        tenant: &Tenant,
        function: &FunctionName,
    ) -> Result<bool, StoreError> {
        let (tenant, function) = (tenant.clone(), function.clone());
        let work = move |connection: &_| Ok(rows::delete_function(connection, &tenant, &function)?);
        self.writer.run("deleting a function", work).await
    }

    /// The secrets of all tenants.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions).
    pub async fn secrets(&self) -> Result<Vec<SealedSecret>, StoreError> {
        self.writer.run("reading secrets", |connection| Ok(secrets::list(connection)?)).await
    }

    /// Keeps a secret in place of the one with its name; synced before it returns.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions).
    pub async fn put_secret(&self, secret: SealedSecret) -> Result<(), StoreError> {
        self.writer.run("writing a secret", move |connection| Ok(secrets::put(connection, &secret)?)).await
    }

    /// Forgets a secret; false if there was none.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions).
    pub async fn delete_secret(&self, tenant: &Tenant, name: &SecretName) -> Result<bool, StoreError> {
        let (tenant, name) = (tenant.clone(), name.clone());
        let work = move |connection: &_| Ok(secrets::delete(connection, &tenant, &name)?);
        self.writer.run("deleting a secret", work).await
    }

    /// Accepts calls with this body: all of them, or none; synced before it returns.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions); nothing was accepted then.
    pub async fn enqueue(&self, calls: Vec<AsyncCall>, body: Bytes) -> Result<(), StoreError> {
        self.writer
            .run("accepting a call", move |connection| Ok(rows::enqueue(connection, &calls, &body)?))
            .await
    }

    /// Calls that were accepted and have not ended, oldest first: some of those that come after this
    /// one, or the first; none at the end.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions).
    pub async fn pending_calls(&self, after: Option<AsyncCall>) -> Result<Vec<AsyncCall>, StoreError> {
        let work = move |connection: &_| Ok(rows::pending_calls(connection, after.as_ref())?);
        self.writer.run("reading accepted calls", work).await
    }

    /// An accepted call that has not ended.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions).
    pub async fn accepted_call(&self, id: InvocationId) -> Result<Option<AsyncCall>, StoreError> {
        self.writer.run("reading a call", move |connection| Ok(rows::accepted_call(connection, id)?)).await
    }

    /// The same with its body.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions).
    pub async fn whole_call(&self, id: InvocationId) -> Result<Option<(AsyncCall, Bytes)>, StoreError> {
        let work = move |connection: &_| {
            let Some(call) = rows::accepted_call(connection, id)? else { return Ok(None) };
            Ok(Some((call, Bytes::from(rows::body_of_call(connection, id)?))))
        };
        self.writer.run("reading a call", work).await
    }

    /// Marks a call as dispatched and counts the attempt.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions).
    pub async fn mark_started(&self, id: InvocationId, at_us: u64) -> Result<(), StoreError> {
        self.writer
            .run("marking a call", move |connection| Ok(rows::mark_started(connection, id, at_us)?))
            .await
    }

    /// Takes an ended call out of the queue.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions).
    pub async fn finish_call(&self, id: InvocationId) -> Result<(), StoreError> {
        self.writer.run("finishing a call", move |connection| Ok(rows::finish_call(connection, id)?)).await
    }

    /// Keeps SLO counters, one opaque snapshot per function that exists.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions).
    pub async fn save_slo(&self, snapshots: Vec<SloSnapshot>) -> Result<(), StoreError> {
        self.writer
            .run("writing SLO counters", move |connection| Ok(rows::save_slo(connection, &snapshots)?))
            .await
    }

    /// The same without waiting; false when the writer is busy (the next snapshot makes up for
    /// it).
    pub fn try_save_slo(&self, snapshots: Vec<SloSnapshot>) -> bool {
        self.writer
            .try_run("writing SLO counters", move |connection| Ok(rows::save_slo(connection, &snapshots)?))
    }

    /// The snapshots kept last.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions).
    pub async fn load_slo(&self) -> Result<Vec<SloSnapshot>, StoreError> {
        self.writer.run("reading SLO counters", |connection| Ok(rows::load_slo(connection)?)).await
    }

    /// Writes what is queued and ends the writer; later calls answer [`StoreError::Closed`].
    pub async fn close(&self) {
        self.writer.close().await;
    }
}

/// Whose function, which one, and its counters in a form that only their owner reads.
pub type SloSnapshot = (Tenant, FunctionName, Vec<u8>);

/// The registry is small, so all of it is checked at every start.
fn open_checked(path: &Path) -> Result<rusqlite::Connection, StoreError> {
    let connection = database::open_writer(path, &rows::layout(), Durability::Synced)?;
    match database::check(&connection, path) {
        Err(error) if error.is_damage() => {
            drop(connection);
            database::set_aside(path, &error)?;
            database::open_writer(path, &rows::layout(), Durability::Synced)
        }
        result => result.map(|()| connection),
    }
}

#[cfg(test)]
mod tests;
