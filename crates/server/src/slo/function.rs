//! The book of one function.
//!
//! One short lock: at 30,000 calls/s it is held for about 1 % of the time. The warm median, which
//! calls with a deadline ask for on their way in, is an atomic that is brought up to date each
//! second, and more often while there are few calls.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fp_core::Outcome;
use fp_core::code::Code;
use fp_core::outcome::Sli;
use fp_core::settings::Slo;
use fp_core::slo::{Alert, Change, History, Indicator, Objective, Watch};
use parking_lot::Mutex;

use super::capacity::Capacity;
use super::durations::{DurationCounts, Durations};
use super::hedges::{HedgeCounts, Hedges};
use super::rates;
use super::rolling::{Call, Rolling, tells_latency};
use super::snapshot::{Snapshot, SnapshotError};
use super::standing::Counted;
use super::views::{FunctionView, SloView};

/// What the recent past is numbered ahead of the platform's clock, which begins at each start: an
/// hour from before it has room there.
const BEFORE: Duration = Duration::from_secs(2 * 3600);

/// The longest short window of the alert table, 6 h: without a bad call in it nothing can fire.
const LONGEST_SHORT: Duration = Duration::from_secs(6 * 3600);

/// What a look at one row of the alert table changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Turn {
    /// Of which objective.
    pub(super) objective: Objective,
    /// Which row of its table, from 0.
    pub(super) row: usize,
    /// The row as it stands.
    pub(super) alert: Alert,
    /// What happened to it.
    pub(super) change: Change,
}

/// Rates, percentiles and the objective of one function.
#[derive(Debug, Default)]
pub struct FunctionBook {
    state: Mutex<State>,
    /// In microseconds; 0 before the first warm call.
    warm_p50_us: AtomicU64,
    /// Callers that were not let in, by code; since the platform started.
    refused: Mutex<BTreeMap<Code, u64>>,
    hedges: OnceLock<Box<Hedges>>,
}

#[derive(Debug, Default)]
struct State {
    objective: Option<Slo>,
    totals: [u64; Outcome::ALL.len()],
    rolling: Rolling,
    capacity: Capacity,
    durations: Durations,
    /// Counts for the objectives. The latency threshold is applied when a call is recorded, so
    /// the counts of another threshold cannot be used: they have a history of their own.
    availability: History,
    latency: History,
    /// The threshold that `latency` was counted with, in nanoseconds; 0 before there was one.
    under_ns: u64,
    /// Of each objective, each row of its alert table.
    watches: BTreeMap<&'static str, [Watch; 4]>,
    warm_calls: u64,
    /// Since when there is something that no snapshot holds.
    unsaved_since: Option<Duration>,
    /// Something was recorded since the last tick.
    is_busy: bool,
    /// The last moment that was told on both clocks; the second is Unix time in microseconds.
    seen: (Duration, u64),
}

impl FunctionBook {
    /// Where its second attempts are counted.
    pub(crate) fn hedges(&self) -> &Hedges {
        self.hedges.get_or_init(Box::default)
    }

    /// What its second attempts came to; none where no call could have had one.
    pub fn hedge_counts(&self) -> Option<HedgeCounts> {
        self.hedges.get().map(|hedges| hedges.counts())
    }

    /// A caller was not let in. That is no call, so it counts for no objective.
    pub(crate) fn note_refusal(&self, code: Code) {
        *self.refused.lock().entry(code).or_default() += 1;
    }

    /// How many callers were not let in since the platform started, by code.
    pub(crate) fn refusals(&self) -> BTreeMap<Code, u64> {
        self.refused.lock().clone()
    }

    /// One call has ended. `wall_us` is the Unix time of the end in microseconds,
    /// `caller_was_short` as in [`Outcome::sli`], and `duration` is what the latency objective
    /// judges.
    pub fn record(
        &self,
        now: Duration,
        wall_us: u64,
        outcome: Outcome,
        caller_was_short: bool,
        duration: Duration,
        cold: bool,
    ) {
        let call = Call { outcome, sli: outcome.sli(caller_was_short), duration, cold };
        let mut state = self.state.lock();
        state.totals[outcome.index()] += 1;
        state.rolling.record(now + BEFORE, call);
        state.seen = (now, wall_us);
        if tells_latency(outcome) {
            state.durations.record(duration);
        }
        state.count(Duration::from_micros(wall_us), call);
        state.unsaved_since.get_or_insert(now);
        state.is_busy = true;
        if !cold && matches!(outcome, Outcome::Ok | Outcome::FunctionError) {
            state.warm_calls += 1;
            // After the 1st, 2nd, 4th, 8th …: early on each call may move the median by much.
            if state.warm_calls.is_power_of_two() {
                self.update_warm_p50(&state, now);
            }
        }
    }

    /// What the call took of the function's workers: how long it waited for one, and how long it ran.
    pub fn record_work(&self, now: Duration, waited: Duration, ran: Duration) {
        self.state.lock().capacity.record(now + BEFORE, waited, ran);
    }

    /// How many workers there are; told once a second while there are any.
    pub(crate) fn note_workers(&self, now: Duration, workers: u32) {
        self.state.lock().capacity.look(now + BEFORE, workers);
    }

    /// Replaces the objective. Counters go on, except that another latency threshold begins
    /// with new ones.
    pub fn set_objective(&self, slo: Option<Slo>) {
        let mut state = self.state.lock();
        let latency = slo.as_ref().and_then(|slo| slo.latency.as_ref());
        if let Some(under_ns) = latency.map(|latency| nanoseconds(latency.under))
            && state.under_ns != under_ns
        {
            state.latency = History::new();
            state.under_ns = under_ns;
        }
        state.objective = slo;
    }

    /// Median of the warm calls of the last minutes; none before the first one. The last one
    /// known stays when there are no calls.
    pub fn warm_p50(&self) -> Option<Duration> {
        let microseconds = self.warm_p50_us.load(Ordering::Relaxed);
        (microseconds > 0).then(|| Duration::from_micros(microseconds))
    }

    fn update_warm_p50(&self, state: &State, now: Duration) {
        let durations = state.rolling.warm_durations((now + BEFORE).as_secs() / 60);
        if !durations.is_empty() {
            self.warm_p50_us.store(durations.value_at_quantile(0.5).max(1), Ordering::Relaxed);
        }
    }

    /// Once a second.
    pub(super) fn tick(&self, now: Duration) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.is_busy) {
            self.update_warm_p50(&state, now);
        }
        state.rolling.forget_before((now + BEFORE).as_secs() / 60);
    }

    /// How long something has been unsaved; none when nothing is.
    pub(super) fn unsaved_for(&self, now: Duration) -> Option<Duration> {
        self.state.lock().unsaved_since.map(|since| now.saturating_sub(since))
    }

    /// A snapshot did not reach the registry.
    pub(super) fn set_unsaved(&self, now: Duration) {
        self.state.lock().unsaved_since.get_or_insert(now);
    }

    /// Rates and percentiles now.
    pub fn view(&self, now: Duration) -> FunctionView {
        let state = self.state.lock();
        rates::function_view(&state.rolling, &state.capacity, &state.totals, now + BEFORE)
    }

    /// Durations of all calls that reached a handler, counted between `edges`
    /// (ascending).
    pub fn durations(&self, edges: &[Duration]) -> DurationCounts {
        self.state.lock().durations.counts(edges)
    }

    /// The objective's state at a Unix time; none without an objective.
    pub fn slo(&self, wall_us: u64) -> Option<SloView> {
        let state = self.state.lock();
        let counted = Counted { availability: &state.availability, latency: &state.latency };
        state.objective.as_ref().map(|slo| counted.slo_view(slo, Duration::from_micros(wall_us)))
    }

    /// One look at every alert at a Unix time: which began, and which ended.
    pub(super) fn look(&self, wall: Duration) -> Vec<Turn> {
        let mut state = self.state.lock();
        let State { objective, availability, latency, watches, .. } = &mut *state;
        let objectives = objective.as_ref().map(Objective::of).unwrap_or_default();
        // What is no longer promised cannot be broken.
        watches.retain(|word, _| objectives.iter().any(|objective| objective.indicator.word() == *word));
        let mut turns = Vec::new();
        for objective in objectives {
            let history = match objective.indicator {
                Indicator::Availability => &*availability,
                Indicator::Latency => &*latency,
            };
            let watches = watches.entry(objective.indicator.word()).or_default();
            if !watches.iter().any(Watch::is_firing) && !history.may_have_bad(wall, LONGEST_SHORT) {
                continue;
            }
            let alerts = objective.alerts(history, wall);
            for (row, (watch, alert)) in watches.iter_mut().zip(alerts).enumerate() {
                let turn = |change| Turn { objective, row, alert, change };
                turns.extend(watch.on_look(wall, &alert).map(turn));
            }
        }
        turns
    }

    /// An alert fired when the platform stopped: it goes on.
    pub(super) fn resume_alert(&self, indicator: Indicator, row: usize, wall: Duration) {
        let mut state = self.state.lock();
        if let Some(watch) = state.watches.entry(indicator.word()).or_default().get_mut(row) {
            *watch = Watch::firing(wall);
        }
    }

    /// The budgets that are left over the window, at the end of each of `points` equal parts of it.
    pub fn burn_down(&self, wall_us: u64, points: u32) -> Vec<(Indicator, Vec<f64>)> {
        let state = self.state.lock();
        let wall = Duration::from_micros(wall_us);
        let objectives = state.objective.as_ref().map(Objective::of).unwrap_or_default();
        let of = |objective: Objective| {
            let history = match objective.indicator {
                Indicator::Availability => &state.availability,
                Indicator::Latency => &state.latency,
            };
            (objective.indicator, objective.burn_down(history, wall, points))
        };
        objectives.into_iter().map(of).collect()
    }

    /// Its objective.
    pub(super) fn objective(&self) -> Option<Slo> {
        self.state.lock().objective.clone()
    }

    /// Words of the outcomes that it has seen.
    pub(super) fn outcomes_seen(&self) -> Vec<Outcome> {
        let state = self.state.lock();
        Outcome::ALL.into_iter().filter(|outcome| state.totals[outcome.index()] > 0).collect()
    }

    /// Totals and windows for the next start. They count as saved.
    pub(super) fn snapshot(&self) -> Vec<u8> {
        let mut state = self.state.lock();
        state.unsaved_since = None;
        let (now, wall_us) = state.seen;
        let mut recent = state.rolling.to_numbers((now + BEFORE).as_secs(), wall_us / 1_000_000);
        recent.extend(state.durations.to_numbers());
        let snapshot = Snapshot {
            totals: state.totals.to_vec(),
            under_ns: state.under_ns,
            availability: state.availability.to_bytes(),
            latency: state.latency.to_bytes(),
            recent,
        };
        drop(state);
        snapshot.to_bytes()
    }

    /// A book that goes on from a snapshot, as far as it still matters now, which is `wall_us` in
    /// Unix time.
    pub(super) fn from_snapshot(bytes: &[u8], now: Duration, wall_us: u64) -> Result<Self, SnapshotError> {
        let snapshot = Snapshot::from_bytes(bytes)?;
        let history = |bytes: &[u8]| {
            History::from_bytes(bytes, Duration::from_micros(wall_us)).map_err(SnapshotError::History)
        };
        let mut state = State {
            availability: history(&snapshot.availability)?,
            latency: history(&snapshot.latency)?,
            under_ns: snapshot.under_ns,
            seen: (now, wall_us),
            ..State::default()
        };
        if !snapshot.recent.is_empty() {
            let mut numbers = snapshot.recent.into_iter();
            let rolling = Rolling::from_numbers(&mut numbers, (now + BEFORE).as_secs(), wall_us / 1_000_000);
            state.rolling = rolling.ok_or(SnapshotError::Shape)?;
            state.durations = Durations::from_numbers(&mut numbers).ok_or(SnapshotError::Shape)?;
        }
        for (total, saved) in state.totals.iter_mut().zip(snapshot.totals) {
            *total = saved;
        }
        let book = Self { state: Mutex::new(state), ..Self::default() };
        book.update_warm_p50(&book.state.lock(), now);
        Ok(book)
    }
}

impl State {
    /// Counts a call for the objectives. Only functions that have one pay for it: 150 KiB each
    /// when called all the time.
    fn count(&mut self, wall: Duration, call: Call) {
        let Some(slo) = &self.objective else { return };
        self.availability.record(wall, call.sli, None);
        if let Some(objective) = &slo.latency {
            // As the record says it: a call that failed was not answered in time.
            let is_met = call.outcome == Outcome::Ok && call.duration < objective.under;
            let counts = matches!(call.sli, Sli::Good | Sli::Bad);
            self.latency.record(wall, call.sli, counts.then_some(is_met));
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
