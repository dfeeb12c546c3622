//! A version's workers as its pool holds them.

use std::time::Duration;

use fp_core::WorkerId;
use fp_sandbox::{SharedWorker, Worker};

use super::host::HostPlace;
use crate::quotas::MemoryEntry;

/// What a page shows of a worker.
#[derive(Debug, Clone)]
pub struct WorkerInfo {
    /// Its id.
    pub id: WorkerId,
    /// Process id on the host.
    pub host_pid: u32,
    /// When it was started, Unix time in microseconds.
    pub started_us: u64,
    /// Calls that it has taken.
    pub calls: u64,
    /// Calls that run on it now.
    pub running: u32,
}

/// A started worker in the form in which its version uses it.
pub(super) enum Ready {
    Sole(Box<Worker>),
    Shared(SharedWorker),
}

impl Ready {
    pub(super) fn id(&self) -> WorkerId {
        match self {
            Self::Sole(worker) => worker.id(),
            Self::Shared(worker) => worker.id(),
        }
    }
}

/// A worker as pages show it, and the room that it takes.
pub(super) struct Known {
    pub(super) info: WorkerInfo,
    pub(super) _room: Room,
}

/// What a worker takes of its tenant's quota, and of the host.
pub(super) struct Room {
    pub(super) _memory: MemoryEntry,
    pub(super) _place: HostPlace,
}

/// A worker that several calls share.
pub(super) struct Shared {
    pub(super) worker: SharedWorker,
    /// How long its start took, until a call has ended on it.
    pub(super) start: Option<Duration>,
}
