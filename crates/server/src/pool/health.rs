//! How a version's calls end, told to those who judge it: its breaker, and who looks for a worker that
//! stands out. Both decide in core; here are their locks, which calls that go well hardly take.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fp_core::breaker::{Breaker, Ending, Verdict};
use fp_core::outlier::{Ended, Outliers};
use fp_core::{Outcome, WorkerId};
use fp_sandbox::WorkerSpec;
use parking_lot::Mutex;

use super::VersionPool;

/// The judges of one version.
#[derive(Debug)]
pub(super) struct Health {
    breaker: Mutex<Judged>,
    /// The breaker lets every call pass.
    is_closed: AtomicBool,
    /// One more call that ends well would change nothing for it.
    is_quiet: AtomicBool,
    outliers: Mutex<Outliers>,
    opened: AtomicU64,
    replaced: AtomicU64,
}

/// What the judges of a version have done, since its workers began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HealthView {
    /// The breaker refuses calls now, but for probes.
    pub is_open: bool,
    /// How often it has begun to.
    pub opened: u64,
    /// Workers that were replaced because they stood out.
    pub replaced: u64,
}

#[derive(Debug, Default)]
struct Judged {
    breaker: Breaker,
    /// The worker that died last: its death is one, however many calls shared it.
    died: Option<WorkerId>,
}

/// What the breaker refuses a call with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Broken {
    pub(crate) retry_after: Duration,
    /// How many of how many of the latest calls failed hard.
    pub(crate) evidence: (usize, usize),
}

impl Default for Health {
    fn default() -> Self {
        let (closed, quiet) = (AtomicBool::new(true), AtomicBool::new(false));
        let (breaker, outliers, opened, replaced) = Default::default();
        Self { breaker, is_closed: closed, is_quiet: quiet, outliers, opened, replaced }
    }
}

impl Health {
    /// Whether a call may go on, and whether it is a probe.
    pub(super) fn enter(&self, now: Duration) -> Result<bool, Broken> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let mut judged = self.breaker.lock();
        match judged.breaker.on_arrival(now) {
            Verdict::Pass => Ok(false),
            Verdict::Probe => Ok(true),
            Verdict::Refuse(retry_after) => Err(Broken { retry_after, evidence: judged.breaker.evidence() }),
        }
    }

    /// A call has ended. Whether that opened the breaker.
    pub(super) fn note(&self, now: Duration, outcome: Outcome, worker: Option<WorkerId>) -> bool {
        let ending = Ending::of(outcome);
        if ending == Ending::Silent || (ending == Ending::Well && self.is_quiet.load(Ordering::Relaxed)) {
            return false;
        }
        let mut judged = self.breaker.lock();
        if matches!(outcome, Outcome::Crashed | Outcome::OutOfMemory)
            && std::mem::replace(&mut judged.died, worker) == worker
            && worker.is_some()
        {
            return false;
        }
        let was_closed = judged.breaker.is_closed();
        judged.breaker.on_ended(now, ending);
        self.publish(&judged.breaker);
        let has_opened = was_closed && !judged.breaker.is_closed();
        self.opened.fetch_add(u64::from(has_opened), Ordering::Relaxed);
        has_opened
    }

    /// The probe has ended, or was given up. Whether that closed the breaker.
    pub(super) fn note_probe(&self, now: Duration, outcome: Option<Outcome>) -> bool {
        let mut judged = self.breaker.lock();
        judged.breaker.on_probed(now, outcome.map_or(Ending::Silent, Ending::of));
        self.publish(&judged.breaker);
        judged.breaker.is_closed()
    }

    fn publish(&self, breaker: &Breaker) {
        self.is_closed.store(breaker.is_closed(), Ordering::Relaxed);
        self.is_quiet.store(breaker.is_quiet(), Ordering::Relaxed);
    }

    /// Whether a worker is to be replaced after its call, and why.
    pub(super) fn is_odd(&self, now: Duration, ended: Ended) -> Option<String> {
        use fp_core::outlier::Oddity::{Failing, FailingAlone, Slow};
        let mut outliers = self.outliers.lock();
        let oddity = outliers.on_ended(now, ended)?;
        self.replaced.fetch_add(1, Ordering::Relaxed);
        let usual = outliers.usual();
        Some(match oddity {
            Failing(calls) => format!("its last {calls} calls failed while those of its siblings did not"),
            FailingAlone(calls) => {
                format!("its last {calls} calls failed, and it has no siblings to compare it with")
            }
            Slow(calls) => {
                format!("its last {calls} calls took far longer than the usual {usual:.1?} of its siblings")
            }
        })
    }

    /// Other settings hold: what they were judged by does not.
    pub(super) fn begin_anew(&self) {
        let mut judged = self.breaker.lock();
        *judged = Judged::default();
        self.publish(&judged.breaker);
    }

    pub(super) fn view(&self) -> HealthView {
        HealthView {
            is_open: !self.is_closed.load(Ordering::Relaxed),
            opened: self.opened.load(Ordering::Relaxed),
            replaced: self.replaced.load(Ordering::Relaxed),
        }
    }

    pub(super) fn forget(&self, worker: WorkerId) {
        self.outliers.lock().on_gone(worker);
    }
}

impl VersionPool {
    /// What its breaker and its look for workers that stand out have done.
    pub fn health(&self) -> HealthView {
        self.health.view()
    }

    /// Asks the breaker whether a call may go on. One that is a probe holds on to that until it has ended.
    pub(crate) fn ask_breaker(self: &Arc<Self>) -> Result<Option<Probe>, Broken> {
        let is_probe = self.health.enter(self.clock.now())?;
        Ok(is_probe.then(|| Probe { pool: self.clone(), outcome: None }))
    }

    /// A call has ended, for the breaker.
    pub(crate) fn note_end(&self, outcome: Outcome, worker: Option<WorkerId>) {
        if self.health.note(self.clock.now(), outcome, worker) {
            let WorkerSpec { tenant, function, version, .. } = &self.spec;
            tracing::warn!(%tenant, %function, %version, "nearly all of its calls crash or time out; calls are refused but for probes");
        }
    }

    /// The handler has ended on a worker: why that worker stands out and is to be replaced, if it does.
    pub(super) fn is_odd(&self, worker: WorkerId, failed: bool, ran: Duration) -> Option<String> {
        let ended = Ended { worker, failed, ran };
        let why = self.health.is_odd(self.clock.now(), ended)?;
        let WorkerSpec { tenant, function, .. } = &self.spec;
        tracing::warn!(%tenant, %function, %worker, "the worker is replaced: {why}");
        Some(why)
    }
}

/// A call that decides whether its version's breaker closes. Dropping it tells the breaker.
#[derive(Debug)]
pub(crate) struct Probe {
    pool: Arc<VersionPool>,
    outcome: Option<Outcome>,
}

impl Probe {
    /// How it ended; not said, it says nothing.
    pub(crate) fn ended(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let pool = &self.pool;
        if pool.health.note_probe(pool.clock.now(), self.outcome) {
            tracing::info!(tenant = %pool.spec.tenant, function = %pool.spec.function, "its calls end well again; all are let through");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    #[test]
    fn a_death_that_many_calls_shared_is_one() {
        let health = Health::default();
        for _ in 0..100 {
            health.note(NOW, Outcome::Crashed, Some(WorkerId(1)));
        }
        assert!(health.enter(NOW).is_ok());
        for worker in 2..11 {
            health.note(NOW, Outcome::Crashed, Some(WorkerId(worker)));
        }
        assert_eq!(health.enter(NOW).expect_err("open").evidence, (10, 10));
        assert_eq!(health.view(), HealthView { is_open: true, opened: 1, replaced: 0 });
        assert!(health.enter(NOW + NOW).expect("a probe"));
        health.note_probe(NOW + NOW, None);
        assert!(health.enter(NOW + NOW).expect("the next one"));
        health.begin_anew();
        assert!(!health.enter(NOW + NOW).expect("closed"));
    }
}
