//! What is noted of calls while they are played.

use std::collections::BTreeMap;
use std::time::Duration;

use fp_core::outcome::{Outcome, Sli};

use crate::histogram::Histogram;
use crate::report::{Objective, Percentiles, Summary, rounded};
use crate::scenario::Scenario;

/// What is noted of some calls.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    pub(super) offered: u64,
    cold: u64,
    waited: u64,
    pub(super) hedged: u64,
    pub(super) hedges_won: u64,
    /// By place in [`Outcome::ALL`].
    failed: [u64; Outcome::ALL.len()],
    pub(super) latencies: Histogram,
    waits: Histogram,
}

impl Tally {
    pub(super) fn answer(&mut self, latency: Duration, wait: Duration, is_cold: bool) {
        self.cold += u64::from(is_cold);
        self.waited += u64::from(!wait.is_zero());
        self.latencies.record(latency);
        self.waits.record(wait);
    }

    /// The call had a second attempt.
    pub(super) fn hedge(&mut self, is_won: bool) {
        self.hedged += 1;
        self.hedges_won += u64::from(is_won);
    }

    pub(super) fn fail(&mut self, outcome: Outcome) {
        self.failed[outcome.index()] += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.cold += other.cold;
        self.waited += other.waited;
        self.hedged += other.hedged;
        self.hedges_won += other.hedges_won;
        self.failed.iter_mut().zip(&other.failed).for_each(|(ours, theirs)| *ours += theirs);
        self.latencies.add(&other.latencies);
        self.waits.add(&other.waits);
    }

    pub(super) fn summarise(&self, name: &str, seconds: f64, scenario: &Scenario) -> Summary {
        let answered = self.latencies.count();
        Summary {
            name: name.to_owned(),
            offered: self.offered,
            answered,
            answered_per_second: rounded(answered as f64 / seconds),
            cold: self.cold,
            waited: self.waited,
            hedged: self.hedged,
            hedges_won: self.hedges_won,
            failed: self.failed_by_name(),
            latency_ms: Percentiles::of(&self.latencies),
            wait_ms: Percentiles::of(&self.waits),
            objective: self.objective(scenario),
        }
    }

    fn failed_by_name(&self) -> BTreeMap<String, u64> {
        let name = |outcome: &Outcome| match outcome.reason() {
            Some(reason) => format!("{} ({reason})", outcome.word()),
            None => outcome.word().to_owned(),
        };
        let counted = Outcome::ALL.iter().zip(&self.failed).filter(|(_, count)| **count > 0);
        counted.map(|(outcome, count)| (name(outcome), *count)).collect()
    }

    /// Every caller of a simulation gives as much time as it was promised, so each missed deadline
    /// counts.
    fn objective(&self, scenario: &Scenario) -> Option<Objective> {
        let slo = scenario.settings.slo.as_ref()?;
        let good = self.latencies.count();
        let counted = |outcome: &Outcome| outcome.sli(false) == Sli::Bad;
        let bad: u64 =
            Outcome::ALL.iter().filter(|outcome| counted(outcome)).map(|it| self.failed[it.index()]).sum();
        let percent = |part: u64, all: u64| if all == 0 { 100.0 } else { part as f64 * 100.0 / all as f64 };
        let available = percent(good, good + bad);
        let in_time =
            slo.latency.as_ref().map(|latency| percent(self.latencies.count_within(latency.under), good));
        let is_available = slo.availability.is_none_or(|wanted| available >= wanted);
        let is_fast = slo.latency.as_ref().zip(in_time).is_none_or(|(wanted, share)| share >= wanted.percent);
        Some(Objective {
            available_percent: rounded(available),
            in_time_percent: in_time.map(rounded),
            kept: is_available && is_fast,
        })
    }
}
