//! Workers for second attempts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fp_core::pool::CallId;

use super::{Lease, NEXT_CALL, VersionPool};

impl VersionPool {
    /// A lease of a worker that is idle now, for a second attempt at a call that runs; see
    /// [`fp_core::pool::Pool::take_idle`]. Nothing waits and nothing is started.
    pub(crate) fn take_idle(self: &Arc<Self>) -> Option<Lease> {
        let call = CallId(NEXT_CALL.fetch_add(1, Ordering::Relaxed));
        let now = self.clock.now();
        let mut state = self.state.lock();
        let state = &mut *state;
        let worker = state.policy.take_idle(now)?;
        let granted = self.seat_on(state, worker);
        self.mark_busy(state, worker);
        if let Some(shared) = state.shared.get_mut(&worker) {
            shared.start = None;
        }
        Some(self.lease_of(granted, call, 0))
    }

    /// Calls that run, and calls that its workers could run.
    pub(crate) fn load(&self) -> (u32, u32) {
        self.state.lock().policy.load()
    }
}
