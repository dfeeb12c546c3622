//! `registry.db`: functions, their versions, accepted asynchronous calls and SLO counters.

use std::path::Path;

use fp_core::settings::Handler;
use fp_core::{EventType, FunctionName, InvocationId, Settings, Tenant, VersionNumber};

use super::StoreError;

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
    Started,
}

/// An accepted asynchronous call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsyncCall {
    /// Which call.
    pub id: InvocationId,
    /// Whose.
    pub tenant: Tenant,
    /// Of which function.
    pub function: FunctionName,
    /// The event type that matched.
    pub event_type: String,
    /// Verb, path, headers, trace context and correlation id as JSON: opaque to the store.
    pub head_json: String,
    /// The body.
    pub body: Vec<u8>,
    /// When it was accepted, Unix time in microseconds.
    pub accepted_us: u64,
    /// How far it is.
    pub state: AsyncState,
    /// Times it was dispatched.
    pub attempts: u32,
}

/// The registry; shared as `Arc<Registry>`.
#[derive(Debug)]
pub struct Registry {}

impl Registry {
    /// Opens or creates `registry.db` in the data directory.
    pub fn open(_data_dir: &Path) -> Result<Self, StoreError> {
        Ok(Self {})
    }

    /// How often this data directory was opened, this time included: makes worker ids unique
    /// across restarts.
    pub fn starts(&self) -> u64 {
        1
    }

    /// The newest version of every function that is not deleted, first created first.
    pub async fn live_versions(&self) -> Result<Vec<StoredVersion>, StoreError> {
        Ok(Vec::new())
    }

    /// The number that the next version of a function gets, the function's order of creation
    /// (the next free one if it does not exist), and when it was created (none if it does not
    /// exist). Numbers are never used again, also not after a delete.
    pub async fn next_version(
        &self,
        _tenant: &Tenant,
        _function: &FunctionName,
    ) -> Result<(VersionNumber, u64, Option<u64>), StoreError> {
        Ok((VersionNumber(1), 1, None))
    }

    /// Keeps a version; synced before it returns.
    ///
    /// # Errors
    /// [`StoreError::VersionExists`] when the number is taken.
    pub async fn put_version(&self, _version: StoredVersion) -> Result<(), StoreError> {
        Ok(())
    }

    /// Forgets a function and its SLO counters; false if there was none.
    pub async fn delete_function(
        &self,
        _tenant: &Tenant,
        _function: &FunctionName,
    ) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Accepts calls: all of them, or none; synced before it returns.
    pub async fn enqueue(&self, _calls: Vec<AsyncCall>) -> Result<(), StoreError> {
        Ok(())
    }

    /// Calls that were accepted and have not ended, oldest first.
    pub async fn pending_calls(&self) -> Result<Vec<AsyncCall>, StoreError> {
        Ok(Vec::new())
    }

    /// Marks a call as dispatched and counts the attempt.
    pub async fn mark_started(&self, _id: InvocationId) -> Result<(), StoreError> {
        Ok(())
    }

    /// Takes an ended call out of the queue.
    pub async fn finish_call(&self, _id: InvocationId) -> Result<(), StoreError> {
        Ok(())
    }

    /// Keeps SLO counters, one opaque snapshot per function.
    pub async fn save_slo(&self, _snapshots: Vec<(Tenant, FunctionName, Vec<u8>)>) -> Result<(), StoreError> {
        Ok(())
    }

    /// The snapshots kept last.
    pub async fn load_slo(&self) -> Result<Vec<(Tenant, FunctionName, Vec<u8>)>, StoreError> {
        Ok(Vec::new())
    }

    /// Writes what is queued and ends the writer; later calls answer [`StoreError::Closed`].
    pub async fn close(&self) {}
}
