//! A call that waits for a worker, as long as it does.

use std::sync::Arc;
use std::time::Duration;

use fp_core::pool::{CallId, Reckoned};
use tokio::sync::oneshot;

use super::{Grant, Lease, Refusal, VersionPool};

/// A place in the queue; giving it up takes the call out, or returns a worker granted too late.
pub struct Queued {
    pub(super) pool: Arc<VersionPool>,
    pub(super) call: CallId,
    pub(super) receiver: oneshot::Receiver<Grant>,
    pub(super) queue_length: u32,
    pub(super) reckoned: Reckoned,
}

impl Queued {
    /// What the policy reckoned with when the call came.
    pub(crate) fn reckoned(&self) -> &Reckoned {
        &self.reckoned
    }

    /// Waits for a worker, until the policy refuses the call or the version is replaced.
    pub async fn granted(mut self) -> Result<Lease, Refusal> {
        match (&mut self.receiver).await {
            Ok(Grant::Worker(granted)) => Ok(self.pool.lease_of(granted, self.call, self.queue_length)),
            Ok(Grant::Refused { outcome, retry_after, why }) => {
                Err(Refusal::Refused { outcome, retry_after, why, reckoned: None })
            }
            Ok(Grant::Moved) | Err(_) => Err(Refusal::Moved),
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.receiver.close();
        if let Ok(Grant::Worker(granted)) = self.receiver.try_recv() {
            return self.pool.give_back(granted, Duration::ZERO, false);
        }
        let mut state = self.pool.state.lock();
        if state.waiting.remove(&self.call).is_some() {
            let now = self.pool.clock.now();
            self.pool.decide_in(&mut state, |policy, out| policy.on_cancelled(now, self.call, out));
        }
    }
}
