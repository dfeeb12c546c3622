//! What came of a scenario.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// What came of a scenario; the same for the same scenario, byte for byte.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// Its seed.
    pub seed: u64,
    /// How long calls arrived, in seconds.
    pub seconds: f64,
    /// All calls.
    pub total: Summary,
    /// Each stream's calls, in the scenario's order.
    pub streams: Vec<Summary>,
    /// The workers.
    pub workers: WorkerSummary,
    /// The pool once a second, as it was before anything happened at that time.
    pub timeline: Vec<Sample>,
}

/// What came of some calls.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The stream's name, or `total`.
    pub name: String,
    /// Calls that arrived.
    pub offered: u64,
    /// Calls that were answered within their deadline.
    pub answered: u64,
    /// Answers per second until the last call had ended (goodput).
    pub answered_per_second: f64,
    /// Answers that had to wait for a start.
    pub cold: u64,
    /// The others, by outcome and reason.
    pub failed: BTreeMap<String, u64>,
    /// From arrival to answer, of the answered, in milliseconds.
    pub latency_ms: Percentiles,
    /// From arrival to dispatch, of the answered, in milliseconds.
    pub wait_ms: Percentiles,
}

/// Exact percentiles in milliseconds, to the microsecond; all zero without values.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Percentiles {
    /// Half of them.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// 95 of a hundred.
    pub p95: f64,
    /// 99 of a hundred.
    pub p99: f64,
    /// 999 of a thousand.
    pub p99_9: f64,
    /// All.
    pub max: f64,
}

/// What came of the workers.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct WorkerSummary {
    /// Workers that started.
    pub started: u64,
    /// Starts that failed.
    pub failed_starts: u64,
    /// Workers that were retired.
    pub retired: u64,
    /// Workers that crashed or were ended with a call.
    pub lost: u64,
    /// Most at once, starting ones included.
    pub most: u32,
    /// How much of the workers' time went into calls, in percent.
    pub busy_percent: f64,
}

/// The pool at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Second of the scenario.
    pub second: u64,
    /// Workers without a call.
    pub idle: u32,
    /// Workers with a call.
    pub busy: u32,
    /// Workers on their way.
    pub starting: u32,
    /// Calls waiting.
    pub queued: u32,
}

impl Percentiles {
    /// By the nearest rank; the values are sorted in place.
    pub(crate) fn of(values: &mut [Duration]) -> Self {
        values.sort_unstable();
        let at = |share: f64| {
            let rank = (values.len() as f64 * share).ceil() as usize;
            let value = values.get(rank.saturating_sub(1)).copied().unwrap_or_default();
            value.as_micros() as f64 / 1000.0
        };
        Self { p50: at(0.5), p90: at(0.9), p95: at(0.95), p99: at(0.99), p99_9: at(0.999), max: at(1.0) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, seed {}, {} s", self.scenario, self.seed, self.seconds)?;
        writeln!(
            f,
            "\n{:<12} {:>9} {:>9} {:>9} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "stream",
            "offered",
            "answered",
            "per s",
            "cold",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms"
        )?;
        let streams = if self.streams.len() > 1 { self.streams.as_slice() } else { &[] };
        for row in streams.iter().chain([&self.total]) {
            let Percentiles { p50, p90, p99, p99_9, max, .. } = row.latency_ms;
            writeln!(
                f,
                "{:<12} {:>9} {:>9} {:>9.1} {:>7} {p50:>9.1} {p90:>9.1} {p99:>9.1} {p99_9:>9.1} {max:>9.1}",
                row.name, row.offered, row.answered, row.answered_per_second, row.cold
            )?;
        }
        if !self.total.failed.is_empty() {
            writeln!(f, "\nnot answered")?;
        }
        for (outcome, count) in &self.total.failed {
            writeln!(f, "  {outcome:<36} {count:>9}")?;
        }
        let WorkerSummary { started, failed_starts, retired, lost, most, busy_percent } = self.workers;
        writeln!(
            f,
            "\nworkers: {started} started, {most} at most at once, {retired} retired, {lost} lost, \
             {failed_starts} failed to start, {busy_percent:.1} % busy"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut values: Vec<_> = (1..=1000).rev().map(Duration::from_millis).collect();
        let expected =
            Percentiles { p50: 500.0, p90: 900.0, p95: 950.0, p99: 990.0, p99_9: 999.0, max: 1000.0 };
        assert_eq!(Percentiles::of(&mut values), expected);
        assert_eq!(Percentiles::of(&mut []), Percentiles::default());
    }
}
