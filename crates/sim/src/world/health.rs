//! How calls end, told to those who judge it: the version's breaker, and who looks for a worker that
//! stands out.

use fp_core::breaker::{Breaker, Ending, Verdict};
use fp_core::outcome::Outcome;
use fp_core::outlier::{Ended, Outliers};
use fp_core::pool::Now;
use fp_core::{WorkerId, outcome::ShedReason};

/// The judges of the version.
#[derive(Debug, Default)]
pub(super) struct Health {
    breaker: Breaker,
    outliers: Outliers,
    /// The worker that died last: its death is one, however many calls shared it.
    died: Option<WorkerId>,
}

/// What a call is refused with while nearly all of them crash or time out.
pub(super) const BROKEN: Outcome = Outcome::Shed(ShedReason::BreakerOpen);

impl Health {
    /// Whether a call may go on, and then whether it is a probe.
    pub(super) fn enter(&mut self, now: Now) -> Option<bool> {
        match self.breaker.on_arrival(now) {
            Verdict::Pass => Some(false),
            Verdict::Probe => Some(true),
            Verdict::Refuse(_) => None,
        }
    }

    /// A call has ended; `worker` ran it.
    pub(super) fn note(&mut self, now: Now, is_probe: bool, outcome: Outcome, worker: Option<WorkerId>) {
        let ending = Ending::of(outcome);
        let is_same_death = outcome == Outcome::Crashed
            && std::mem::replace(&mut self.died, worker) == worker
            && worker.is_some();
        if !is_same_death {
            self.breaker.on_ended(now, ending);
        }
        if is_probe {
            self.breaker.on_probed(now, ending);
        }
    }

    /// A worker has ended a call: whether it stands out and is to be replaced.
    pub(super) fn is_odd(&mut self, now: Now, ended: Ended) -> bool {
        self.outliers.on_ended(now, ended).is_some()
    }

    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.outliers.on_gone(worker);
    }
}
