//! What is noted while a scenario is played, and the report that comes of it.

use std::time::Duration;

use fp_core::hedge::{Attempt as Which, NotHedged};
use fp_core::outcome::Outcome;
use fp_core::pool::{Now, PoolView};

use super::calls::{Attempt, Call};
use super::fleet::Fleet;
use super::tally::Tally;
use crate::report::{HedgeSummary, Report, Sample, WorkerSummary, curve_of, rounded};
use crate::scenario::Scenario;

/// About as many samples as a plot has room for.
const SAMPLES: u32 = 240;

pub(super) struct Ledger<'a> {
    scenario: &'a Scenario,
    /// One for each stream.
    tallies: Vec<Tally>,
    pub(super) workers: WorkerSummary,
    /// The time that went into calls, and into second attempts at them.
    worked: Duration,
    worked_twice: Duration,
    /// Why calls were not hedged, by place in [`NotHedged::WORDS`].
    not_hedged: [u64; NotHedged::WORDS.len()],
    saved: Duration,
    /// Calls that ran and that waited, times seconds.
    running_time: f64,
    queued_time: f64,
    every: Duration,
    timeline: Vec<Sample>,
    /// What is noted for the next sample.
    next: Sample,
}

const NOTHING: Sample = Sample {
    at: 0.0,
    idle: 0,
    busy: 0,
    starting: 0,
    queued: 0,
    offered: 0,
    answered: 0,
    failed: 0,
    slowest_ms: 0.0,
};

impl<'a> Ledger<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        Self {
            scenario,
            tallies: scenario.streams.iter().map(|_| Tally::default()).collect(),
            workers: WorkerSummary::default(),
            worked: Duration::ZERO,
            worked_twice: Duration::ZERO,
            not_hedged: [0; NotHedged::WORDS.len()],
            saved: Duration::ZERO,
            running_time: 0.0,
            queued_time: 0.0,
            every: interval(scenario.duration),
            timeline: Vec::new(),
            next: NOTHING,
        }
    }

    pub(super) fn offer(&mut self, now: Now, stream: usize) {
        self.next.offered += 1;
        self.tallies[stream].offered += u64::from(now >= self.scenario.warmup);
    }

    /// An attempt has run.
    pub(super) fn ran(&mut self, which: Which, ran: Duration) {
        self.worked += ran;
        if which == Which::Second {
            self.worked_twice += ran;
        }
    }

    pub(super) fn answer(&mut self, now: Now, call: &Call, attempt: Attempt) {
        let latency = now - call.arrived;
        self.next.answered += 1;
        self.next.slowest_ms = self.next.slowest_ms.max(latency.as_micros() as f64 / 1000.0);
        if call.arrived >= self.scenario.warmup {
            let wait = call.dispatched - call.arrived;
            self.tallies[call.stream as usize].answer(latency, wait, attempt.is_cold);
            self.note_race(call);
        }
    }

    pub(super) fn fail(&mut self, call: &Call, outcome: Outcome) {
        self.next.failed += 1;
        if call.arrived >= self.scenario.warmup {
            self.tallies[call.stream as usize].fail(outcome);
            self.note_race(call);
        }
    }

    /// What became of hedging the call.
    fn note_race(&mut self, call: &Call) {
        let Some(race) = &call.race else { return };
        match race.why_not() {
            Some(why) => self.not_hedged[why.index()] += 1,
            None => {
                let is_won = race.won() == Some(Which::Second);
                self.tallies[call.stream as usize].hedge(is_won);
                self.saved += race.worth().map_or(Duration::ZERO, |worth| worth.saved());
            }
        }
    }

    /// What became of hedging, where it is on.
    fn hedging(&self, total: &Tally) -> Option<HedgeSummary> {
        let settings = &self.scenario.settings;
        fp_core::hedge::HedgeConfig::of(&settings.latency, settings.slo.as_ref())?;
        let counted = NotHedged::WORDS.iter().zip(&self.not_hedged).filter(|(_, count)| **count > 0);
        let per_call = total.hedged as f64 / total.offered.max(1) as f64;
        Some(HedgeSummary {
            attempts: total.hedged,
            won: total.hedges_won,
            extra_percent: rounded(per_call * 100.0),
            seconds: rounded(self.worked_twice.as_secs_f64()),
            saved_seconds: rounded(self.saved.as_secs_f64()),
            not_hedged: counted.map(|(word, count)| ((*word).to_owned(), *count)).collect(),
        })
    }

    /// Time passed with so many calls running and waiting.
    pub(super) fn pass(&mut self, from: Now, until: Now, running: u32, waiting: u32) {
        let counted = until.min(self.scenario.duration).saturating_sub(from.max(self.scenario.warmup));
        let seconds = counted.as_secs_f64();
        self.running_time += seconds * f64::from(running);
        self.queued_time += seconds * f64::from(waiting);
    }

    /// When the next sample is due, if there is one.
    pub(super) fn next_sample(&self) -> Option<Now> {
        let at = self.every * self.timeline.len() as u32;
        (at <= self.scenario.duration).then_some(at)
    }

    pub(super) fn sample(&mut self, at: Now, view: PoolView) {
        let PoolView { idle, busy, starting, queued, .. } = view;
        let since = std::mem::replace(&mut self.next, NOTHING);
        self.timeline.push(Sample { at: at.as_secs_f64(), idle, busy, starting, queued, ..since });
    }

    pub(super) fn into_report(mut self, now: Now, fleet: &Fleet) -> Report {
        let scenario = self.scenario;
        // The queue of the last second is still served afterwards: that is time, too.
        let all_seconds = now.max(scenario.duration).as_secs_f64();
        let seconds = all_seconds - scenario.warmup.as_secs_f64();
        let counted = (scenario.duration - scenario.warmup).as_secs_f64();
        let worker_seconds = fleet.worker_time.as_secs_f64();
        self.workers.busy_percent = rounded(fleet.busy_percent(self.worked));
        self.workers.worker_seconds = rounded(worker_seconds);
        self.workers.mean = rounded(worker_seconds / all_seconds);
        self.workers.mean_running = rounded(self.running_time / counted);
        self.workers.mean_queued = rounded(self.queued_time / counted);
        let total = sum(&self.tallies);
        let streams = scenario.streams.iter().zip(&self.tallies);
        Report {
            scenario: scenario.name.clone(),
            seed: scenario.seed,
            seconds: scenario.duration.as_secs_f64(),
            warmup_seconds: scenario.warmup.as_secs_f64(),
            total: total.summarise("total", seconds, scenario),
            streams: streams.map(|(it, tally)| tally.summarise(&it.name, seconds, scenario)).collect(),
            tenants: self.tenants(seconds),
            hedging: self.hedging(&total),
            workers: self.workers,
            curve: curve_of(&total.latencies),
            timeline_seconds: self.every.as_secs_f64(),
            timeline: self.timeline,
        }
    }

    fn tenants(&self, seconds: f64) -> Vec<crate::report::Summary> {
        let streams = &self.scenario.streams;
        let mut names: Vec<_> = streams.iter().filter_map(|stream| stream.tenant.as_deref()).collect();
        names.sort_unstable();
        names.dedup();
        let of_tenant = |name: &str| {
            let own = streams.iter().zip(&self.tallies);
            sum(own.filter(|(stream, _)| stream.tenant.as_deref() == Some(name)).map(|(_, tally)| tally))
        };
        names.into_iter().map(|name| of_tenant(name).summarise(name, seconds, self.scenario)).collect()
    }
}

fn sum<'t>(tallies: impl IntoIterator<Item = &'t Tally>) -> Tally {
    let mut all = Tally::default();
    tallies.into_iter().for_each(|tally| all.add(tally));
    all
}

/// A round time apart, so that there are about [`SAMPLES`].
fn interval(duration: Duration) -> Duration {
    let least = duration / SAMPLES;
    let rounds = (0..).map(|power| Duration::from_millis(10u64.pow(power)));
    let candidates = rounds.flat_map(|unit| [unit, unit * 2, unit * 5]);
    candidates.take(40).find(|every| *every >= least).unwrap_or(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_a_round_time_apart() {
        for (seconds, every_ms) in [(1, 5), (30, 200), (60, 500), (3_600, 20_000), (7 * 86_400, 5_000_000)] {
            assert_eq!(
                interval(Duration::from_secs(seconds)),
                Duration::from_millis(every_ms),
                "{seconds} s"
            );
        }
    }
}
