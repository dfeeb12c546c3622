//! A lease: a worker of its own, or a seat on a shared one, for one call.
//!
//! Dropping it gives the worker or the slot back. What differs between the two is decided here:
//! an interrupted call ends a worker of its own, because an exception was raised into the middle
//! of code; on a shared worker an asyncio task was cancelled, so when it has ended in order the
//! slot serves on.

use std::sync::Arc;
use std::time::Duration;

use fp_core::WorkerId;
use fp_core::record::LogLine;
use fp_sandbox::{Answer, Call, CallError, SharedCall, StreamPiece, Worker};

use super::VersionPool;

/// What a lease is of.
pub(super) enum Seat {
    Sole(Box<Worker>),
    Shared(SharedCall),
}

impl Seat {
    pub(super) fn worker_id(&self) -> WorkerId {
        match self {
            Self::Sole(worker) => worker.id(),
            Self::Shared(call) => call.worker_id(),
        }
    }
}

/// A worker or a slot of one, as the pool hands it over.
pub(super) struct Granted {
    pub(super) seat: Seat,
    /// How long the worker's start took, for the calls that had to wait for it.
    pub(super) start: Option<Duration>,
}

/// A place for one call. Dropping it returns the worker or the slot to its pool.
pub struct Lease {
    pub(super) pool: Arc<VersionPool>,
    pub(super) granted: Option<Granted>,
    pub(super) serial: u64,
    pub(super) since: Duration,
    pub(super) spoilt: bool,
    /// Calls that were queued before this one when it arrived.
    pub queue_length: u32,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("worker", &self.worker_id()).finish_non_exhaustive()
    }
}

impl Lease {
    fn granted(&self) -> &Granted {
        self.granted.as_ref().expect("a lease holds its seat until it is dropped")
    }

    fn seat(&mut self) -> &mut Seat {
        &mut self.granted.as_mut().expect("a lease holds its seat until it is dropped").seat
    }

    /// The worker's id.
    pub fn worker_id(&self) -> WorkerId {
        self.granted().seat.worker_id()
    }

    /// How long the worker took to start, when this call is among its first.
    pub fn start(&self) -> Option<Duration> {
        self.granted().start
    }

    /// The serial of the call, for its frames.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Runs the handler.
    pub async fn call(&mut self, call: Call<'_>) -> Result<Answer, CallError> {
        match self.seat() {
            Seat::Sole(worker) => worker.call(call).await,
            Seat::Shared(seat) => seat.call(call).await,
        }
    }

    /// The next piece of a stream. Cancel-safe.
    pub async fn next_chunk(&mut self) -> Result<StreamPiece, CallError> {
        match self.seat() {
            Seat::Sole(worker) => worker.next_chunk().await,
            Seat::Shared(seat) => seat.next_chunk().await,
        }
    }

    /// What the call has printed and logged so far; leaves nothing behind.
    pub fn take_logs(&mut self) -> Vec<LogLine> {
        match self.seat() {
            Seat::Sole(worker) => worker.take_logs(),
            Seat::Shared(seat) => seat.take_logs(),
        }
    }

    /// The worker takes no new calls. It ends with the lease, a shared one with the last of its
    /// calls.
    pub fn spoil(&mut self) {
        if std::mem::replace(&mut self.spoilt, true) {
            return;
        }
        if matches!(self.granted().seat, Seat::Shared(_)) {
            self.pool.spoil(self.worker_id());
        }
    }

    /// The handler has ended, in order: where its worker stands out against its siblings, it takes no new
    /// calls, and why is told.
    pub(crate) fn judge(&mut self, failed: bool) -> Option<String> {
        let ran = self.pool.clock.now().saturating_sub(self.since);
        let why = self.pool.is_odd(self.worker_id(), failed, ran);
        if why.is_some() {
            self.spoil();
        }
        why
    }

    /// The rest of the answer is not wanted: it must be settled. That ends a worker of its own.
    pub fn give_up(&mut self) {
        self.spoilt |= matches!(self.granted().seat, Seat::Sole(_));
    }

    /// The call has ended, and so that another may follow it.
    pub fn is_reusable(&self) -> bool {
        !self.spoilt
            && match &self.granted().seat {
                Seat::Sole(worker) => worker.is_reusable(),
                Seat::Shared(call) => call.is_reusable(),
            }
    }

    /// Interrupts what runs, gives it the grace for its `finally` blocks, and returns what it
    /// printed. `is_late` says that its time was up: then a shared worker whose event loop stands
    /// still for the whole grace is ended with all its calls.
    pub async fn settle(&mut self, grace: Duration, is_late: bool) -> Vec<LogLine> {
        let serial = self.serial;
        match self.seat() {
            Seat::Sole(worker) => {
                // It is used again only if the handler had ended before the notice came.
                worker.cancel_handle().cancel(serial);
                worker.settle(grace).await
            }
            Seat::Shared(call) => {
                call.cancel();
                call.settle(grace, is_late).await
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(granted) = self.granted.take() else { return };
        let ran = self.pool.clock.now().saturating_sub(self.since);
        self.pool.give_back(granted, ran, self.spoilt);
    }
}
