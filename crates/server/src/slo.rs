//! Rates, percentiles and objectives per function.
//!
//! One [`FunctionBook`] per function, kept across its versions; a call is recorded in it once,
//! when its outcome is known, and is never sampled. Pages and metrics read views; the SLO
//! windows are `fp_core::slo`'s. Totals and windows survive restarts as snapshots in the
//! registry, and so do the rates, minutes and durations of the recent past: one at the stop, and
//! while running every ten seconds of what has changed, so a kill costs about as much.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fp_core::settings::Slo;
use fp_core::{FunctionName, Tenant};
use parking_lot::{Mutex, RwLock};

mod alerts;
mod capacity;
mod durations;
mod evidence;
mod function;
mod hedges;
mod rates;
mod rolling;
mod silences;
mod snapshot;
mod standing;
mod views;

pub use alerts::{AlertRecord, BadCall};
pub(crate) use alerts::{Happened, Notice};
pub use durations::DurationCounts;
pub use function::FunctionBook;
pub use hedges::HedgeCounts;
pub(crate) use silences::SilenceRecord;
pub use views::{
    AlertView, BurnRate, FunctionView, LatencySloView, MinuteView, OutcomeCount, ReasonCount, SloView,
};

pub(crate) use rolling::tells_latency;

use self::alerts::Alerts;
use self::silences::Silences;
use crate::clock::Clock;
use crate::store::Registry;

/// Between two snapshots of one function.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(10);

/// Snapshots per tick. A snapshot of a function that is called all the time is up to 30 KiB and
/// the registry is synced for it: more functions than 32 × 10 that change all the time are saved
/// less often, in turn.
const SNAPSHOTS_PER_TICK: usize = 32;

type Key = (Tenant, FunctionName);

/// One book per function; shared as `Arc<SloBook>`.
#[derive(Debug)]
pub struct SloBook {
    registry: Arc<Registry>,
    clock: Clock,
    books: RwLock<BTreeMap<Key, Arc<FunctionBook>>>,
    /// Snapshots of functions that nobody has asked for since the start.
    saved: RwLock<BTreeMap<Key, Vec<u8>>>,
    /// Alerts that fire and that did.
    alerts: Mutex<Alerts>,
    /// Of which nobody is told.
    silences: Mutex<Silences>,
}

impl SloBook {
    /// Reads the snapshots kept last and begins. Without them (the registry says why in the log)
    /// all counters begin anew.
    pub async fn open(registry: Arc<Registry>, clock: Clock) -> Self {
        let snapshots = registry.load_slo().await.unwrap_or_else(|error| {
            tracing::warn!(error = %error.chain(), "SLO counters could not be read and begin anew");
            Vec::new()
        });
        let saved = snapshots.into_iter().map(|(tenant, name, bytes)| ((tenant, name), bytes)).collect();
        let alerts = registry.load_alerts().await.unwrap_or_else(|error| {
            tracing::warn!(error = %error.chain(), "alerts could not be read and are forgotten");
            Vec::new()
        });
        let silences = registry.load_silences().await.unwrap_or_else(|error| {
            tracing::warn!(error = %error.chain(), "silences could not be read and are forgotten");
            Vec::new()
        });
        let (alerts, silences) = (Mutex::new(Alerts::of(alerts)), Mutex::new(Silences::of(silences)));
        Self { registry, clock, books: RwLock::default(), saved: RwLock::new(saved), alerts, silences }
    }

    /// The book of a function, made when there is none; its objective becomes `slo`.
    pub fn function(&self, tenant: &Tenant, name: &FunctionName, slo: Option<&Slo>) -> Arc<FunctionBook> {
        let key = (tenant.clone(), name.clone());
        let mut books = self.books.write();
        let book = books.entry(key).or_insert_with_key(|key| {
            let saved = self.saved.write().remove(key);
            let restored = |bytes: Vec<u8>| restore(key, &bytes, &self.clock);
            let book = saved.map_or_else(FunctionBook::default, restored);
            self.resume_alerts(key, &book);
            Arc::new(book)
        });
        book.set_objective(slo.cloned());
        book.clone()
    }

    /// Drops the book of a deleted function.
    pub fn remove(&self, tenant: &Tenant, name: &FunctionName) {
        let key = (tenant.clone(), name.clone());
        self.books.write().remove(&key);
        self.saved.write().remove(&key);
        self.alerts.lock().forget(&key);
    }

    /// The book of a function, if there is one.
    pub fn get(&self, tenant: &Tenant, name: &FunctionName) -> Option<Arc<FunctionBook>> {
        self.books.read().get(&(tenant.clone(), name.clone())).cloned()
    }

    /// Housekeeping; called each second. Hands snapshots that are due to the registry, without
    /// waiting for them.
    pub fn tick(&self, now: Duration) {
        let mut due = Vec::new();
        for (key, book) in self.books.read().iter() {
            book.tick(now);
            let age = book.unsaved_for(now).filter(|age| *age >= SNAPSHOT_EVERY);
            due.extend(age.map(|age| (age, key.clone(), book.clone())));
        }
        due.sort_by_key(|(age, ..)| std::cmp::Reverse(*age));
        due.truncate(SNAPSHOTS_PER_TICK);
        if due.is_empty() {
            return;
        }
        let snapshots = due.iter().map(|(_, key, book)| snapshot_of(key, book)).collect();
        if !self.registry.try_save_slo(snapshots) {
            due.iter().for_each(|(_, _, book)| book.set_unsaved(now));
        }
    }

    /// Keeps a snapshot of every book; called once when stopping, before the registry closes.
    pub async fn close(&self) {
        let snapshots = self.books.read().iter().map(|(key, book)| snapshot_of(key, book)).collect();
        if let Err(error) = self.registry.save_slo(snapshots).await {
            tracing::warn!(error = %error.chain(), "the last seconds of the SLO counters are lost");
        }
    }
}

fn snapshot_of(key: &Key, book: &FunctionBook) -> (Tenant, FunctionName, Vec<u8>) {
    (key.0.clone(), key.1.clone(), book.snapshot())
}

fn restore((tenant, name): &Key, bytes: &[u8], clock: &Clock) -> FunctionBook {
    FunctionBook::from_snapshot(bytes, clock.now(), clock.wall_now_us()).unwrap_or_else(|error| {
        tracing::warn!(%tenant, function = %name, %error, "SLO counters could not be read and begin anew");
        FunctionBook::default()
    })
}

#[cfg(test)]
mod tests;
