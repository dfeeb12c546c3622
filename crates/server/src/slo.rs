//! Rates, percentiles and objectives per function.
//!
//! One [`FunctionBook`] per function, kept across its versions; a call is recorded in it once,
//! when its outcome is known, and is never sampled. Pages and metrics read views; the SLO
//! windows are `fp_core::slo`'s.

use std::sync::Arc;
use std::time::Duration;

use fp_core::settings::Slo;
use fp_core::{FunctionName, Outcome, Tenant};

mod views;

pub use views::{AlertView, BurnRate, FunctionView, LatencySloView, MinuteView, OutcomeCount, SloView};

use crate::store::Registry;

/// One book per function; shared as `Arc<SloBook>`.
#[derive(Debug)]
pub struct SloBook {}

impl SloBook {
    /// Reads the snapshots kept last and begins.
    pub async fn open(_registry: Arc<Registry>) -> Self {
        Self {}
    }

    /// The book of a function, made when there is none; its objective becomes `slo`.
    pub fn function(&self, _tenant: &Tenant, _name: &FunctionName, _slo: Option<&Slo>) -> Arc<FunctionBook> {
        Arc::new(FunctionBook {})
    }

    /// Drops the book of a deleted function.
    pub fn remove(&self, _tenant: &Tenant, _name: &FunctionName) {}

    /// The book of a function, if there is one.
    pub fn get(&self, _tenant: &Tenant, _name: &FunctionName) -> Option<Arc<FunctionBook>> {
        None
    }

    /// Housekeeping; called each second. Every ten seconds it hands snapshots of what has
    /// changed to the registry, without waiting for them.
    pub fn tick(&self, _now: Duration, _wall_us: u64) {}

    /// Keeps a snapshot of every book; called once when stopping, before the registry closes.
    pub async fn close(&self) {}
}

/// Rates, percentiles and the objective of one function.
#[derive(Debug, Default)]
pub struct FunctionBook {}

impl FunctionBook {
    /// One call has ended. `caller_was_short` as in [`Outcome::sli`]; `duration` is what the
    /// latency objective judges.
    pub fn record(
        &self,
        _now: Duration,
        _wall_us: u64,
        _outcome: Outcome,
        _caller_was_short: bool,
        _duration: Duration,
        _cold: bool,
    ) {
    }

    /// Replaces the objective; counters of an unchanged objective go on.
    pub fn set_objective(&self, _slo: Option<Slo>) {}

    /// Median of the warm calls of the last minutes that reached a handler; none before the
    /// first one.
    pub fn warm_p50(&self) -> Option<Duration> {
        None
    }

    /// Rates and percentiles now.
    pub fn view(&self, _now: Duration) -> FunctionView {
        FunctionView::default()
    }

    /// The objective's state now; none without an objective.
    pub fn slo(&self, _wall_us: u64) -> Option<SloView> {
        None
    }
}
