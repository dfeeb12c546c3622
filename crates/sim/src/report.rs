//! What came of a scenario.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::histogram::Histogram;

/// What came of a scenario; the same for the same scenario, byte for byte.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// Its seed.
    pub seed: u64,
    /// How long calls arrived, in seconds.
    pub seconds: f64,
    /// Of these, how many at the beginning were not counted.
    pub warmup_seconds: f64,
    /// All calls.
    pub total: Summary,
    /// Each stream's calls, in the scenario's order.
    pub streams: Vec<Summary>,
    /// Each tenant's calls, by name; empty where no stream says whose its calls are.
    pub tenants: Vec<Summary>,
    /// What became of hedging; none where nothing is ever hedged.
    pub hedging: Option<HedgeSummary>,
    /// The workers.
    pub workers: WorkerSummary,
    /// Latency of all that were answered, from the median to the slowest.
    pub curve: Vec<Point>,
    /// How far apart the samples of `timeline` are, in seconds.
    pub timeline_seconds: f64,
    /// The pool from time to time, as it was before anything happened then.
    pub timeline: Vec<Sample>,
}

/// What came of some calls. Those that arrived during the warm-up are left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The stream's or tenant's name, or `total`.
    pub name: String,
    /// Calls that arrived.
    pub offered: u64,
    /// Calls that were answered well within their deadline.
    pub answered: u64,
    /// Answers per second until the last call had ended (goodput).
    pub answered_per_second: f64,
    /// Answers that had to wait for a start.
    pub cold: u64,
    /// Answers that had to wait at all.
    pub waited: u64,
    /// Calls that had a second attempt.
    pub hedged: u64,
    /// Of these, how many it answered.
    pub hedges_won: u64,
    /// The others, by outcome and reason as records have them.
    pub failed: BTreeMap<String, u64>,
    /// From arrival to answer, of the answered, in milliseconds.
    pub latency_ms: Percentiles,
    /// From arrival to dispatch, of the answered, in milliseconds.
    pub wait_ms: Percentiles,
    /// How the objective was kept, where there is one.
    pub objective: Option<Objective>,
}

/// What became of hedging. Calls that arrived during the warm-up are left out, except from times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HedgeSummary {
    /// Second attempts.
    pub attempts: u64,
    /// Of these, how many answered first.
    pub won: u64,
    /// Second attempts per hundred calls that arrived.
    pub extra_percent: f64,
    /// What they cost: the time that workers spent on second attempts, in seconds.
    pub seconds: f64,
    /// What they saved, as far as the policy knows: how much longer the calls would have taken that
    /// they answered, in seconds.
    pub saved_seconds: f64,
    /// Why the other calls had none, in the platform's words.
    pub not_hedged: BTreeMap<String, u64>,
}

/// How an objective was kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Objective {
    /// Of a hundred calls that count, how many were answered; as `slo.availability` counts.
    pub available_percent: f64,
    /// Of a hundred answers, how many came within the latency objective; none without one.
    pub in_time_percent: Option<f64>,
    /// Whether all that was promised was kept.
    pub kept: bool,
}

/// Percentiles in milliseconds, at most 0.1 % above the exact ones; all zero without values.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Percentiles {
    /// Their mean.
    pub mean: f64,
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
    /// All; exact.
    pub max: f64,
}

/// A point of the latency curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Of a hundred answers, how many were at least as fast.
    pub percent: f64,
    /// As what.
    pub ms: f64,
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
    /// Workers that crashed, died, were ended with a call or replaced.
    pub lost: u64,
    /// Of these, how many were replaced because they stood out against their siblings.
    pub ejected: u64,
    /// Most at once, starting ones included.
    pub most: u32,
    /// How many there were on average, starting ones included.
    pub mean: f64,
    /// How much of the workers' time went into calls, in percent.
    pub busy_percent: f64,
    /// What they cost: the time of all workers together from when each was asked for, in seconds.
    pub worker_seconds: f64,
    /// How many calls ran at once on average, after the warm-up and while calls arrived.
    pub mean_running: f64,
    /// How many calls waited at once on average, in the same time.
    pub mean_queued: f64,
}

/// The pool at one time, and what happened since the sample before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds since the scenario began.
    pub at: f64,
    /// Workers without a call.
    pub idle: u32,
    /// Workers with a call.
    pub busy: u32,
    /// Workers on their way.
    pub starting: u32,
    /// Calls waiting.
    pub queued: u32,
    /// Calls that arrived since.
    pub offered: u32,
    /// Calls that were answered since.
    pub answered: u32,
    /// Calls that ended otherwise since.
    pub failed: u32,
    /// The slowest answer since, in milliseconds.
    pub slowest_ms: f64,
}

impl Percentiles {
    pub(crate) fn of(times: &Histogram) -> Self {
        let [p50, p90, p95, p99, p99_9, max] =
            [0.5, 0.9, 0.95, 0.99, 0.999, 1.0].map(|share| times.quantile_ms(share));
        Self { mean: rounded(times.mean_ms()), p50, p90, p95, p99, p99_9, max }
    }
}

/// The latency curve: evenly spaced in nines, as far as there are ten calls beyond a point, and
/// the slowest.
pub(crate) fn curve_of(times: &Histogram) -> Vec<Point> {
    if times.count() == 0 {
        return Vec::new();
    }
    // Twenty points to a nine: 0, 10.9, 20.6 … 90, 91.1 … 99, …
    let shares = (0..).map(|step| 1.0 - 10f64.powf(-f64::from(step) / 20.0));
    let shares = shares.take_while(|share| times.count() as f64 * (1.0 - share) >= 1.0);
    let point = |share: f64| Point { percent: (share * 1e7).round() / 1e5, ms: times.quantile_ms(share) };
    shares.chain([1.0]).map(point).collect()
}

/// To a thousandth: more digits say nothing.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// A table, for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, seed {}, {} s", self.scenario, self.seed, self.seconds)?;
        match self.warmup_seconds {
            0.0 => writeln!(f)?,
            warmup => writeln!(f, " of which the first {warmup} s do not count")?,
        }
        writeln!(
            f,
            "\n{:<14} {:>9} {:>9} {:>9} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9}",
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
        for row in streams.iter().chain(&self.tenants).chain([&self.total]) {
            let Percentiles { p50, p90, p99, p99_9, max, .. } = row.latency_ms;
            writeln!(
                f,
                "{:<14} {:>9} {:>9} {:>9.1} {:>7} {p50:>9.1} {p90:>9.1} {p99:>9.1} {p99_9:>9.1} {max:>9.1}",
                row.name, row.offered, row.answered, row.answered_per_second, row.cold
            )?;
        }
        if !self.total.failed.is_empty() {
            writeln!(f, "\nnot answered")?;
        }
        for (outcome, count) in &self.total.failed {
            writeln!(f, "  {outcome:<38} {count:>9}")?;
        }
        if let Some(hedging) = &self.hedging {
            writeln!(f, "\nhedging: {hedging}")?;
        }
        if let Some(objective) = self.total.objective {
            writeln!(f, "\nobjective: {objective}")?;
        }
        write!(f, "\n{}", self.workers)
    }
}

impl fmt::Display for HedgeSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempts, won, extra_percent, seconds, saved_seconds, not_hedged } = self;
        write!(
            f,
            "{attempts} second attempts ({extra_percent:.2} % more), {won} of them first; they ran {seconds:.1} s \
             and saved {saved_seconds:.1} s"
        )?;
        let others: Vec<_> = not_hedged.iter().map(|(why, count)| format!("{why} {count}")).collect();
        if others.is_empty() { Ok(()) } else { write!(f, "\nnot hedged: {}", others.join(", ")) }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = if self.kept { "kept" } else { "missed" };
        write!(f, "{kept}; {:.3} % available", self.available_percent)?;
        match self.in_time_percent {
            Some(share) => write!(f, ", {share:.3} % of the answers in time"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for WorkerSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { started, failed_starts, retired, lost, ejected, most, busy_percent, .. } = self;
        writeln!(
            f,
            "workers: {started} started, {most} at most at once, {retired} retired, {lost} lost \
             ({ejected} stood out), {failed_starts} failed to start"
        )?;
        let Self { mean, worker_seconds, mean_running, mean_queued, .. } = self;
        writeln!(
            f,
            "cost: {worker_seconds:.1} worker-seconds, {mean:.2} workers on average, {busy_percent:.1} % busy; \
             {mean_running:.2} calls ran and {mean_queued:.2} waited at once"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_curve_is_even_in_nines_and_ends_with_the_slowest() {
        let mut times = Histogram::default();
        (1..=1000).for_each(|ms| times.record(Duration::from_millis(ms)));
        let curve = curve_of(&times);
        assert_eq!(curve.len(), 62, "three nines and the slowest");
        let at = |percent: f64| curve.iter().find(|point| point.percent == percent).map(|point| point.ms);
        assert_eq!((at(90.0), at(99.0), at(100.0)), (Some(900.0), Some(990.0), Some(1000.0)));
        assert!(curve.is_sorted_by(|a, b| a.percent < b.percent && a.ms <= b.ms));
        assert!(curve_of(&Histogram::default()).is_empty());
    }
}
