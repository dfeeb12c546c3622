//! The books of a run, and how they are shown.
//!
//! One histogram per way to end (three significant digits, nanoseconds). What was answered,
//! and what was given up after the timeout, counts in the percentiles; a connection that was
//! refused or broke has no latency and shows under `by_status` only.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::load::{Load, Measured};

/// Above the longest timeout anybody would wait for: one hour, in nanoseconds.
const HIGHEST_NS: u64 = 3_600_000_000_000;

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// With an answer of this status.
    Status(u16),
    /// Without an answer in time.
    Timeout,
    /// No connection could be made.
    Refused,
    /// The connection broke before the end of the answer.
    Broken,
}

impl Ending {
    /// The key in `by_status`.
    fn word(self) -> String {
        match self {
            Self::Status(status) => status.to_string(),
            Self::Timeout => "timeout".into(),
            Self::Refused => "refused".into(),
            Self::Broken => "broken".into(),
        }
    }

    fn has_latency(self) -> bool {
        matches!(self, Self::Status(_) | Self::Timeout)
    }
}

/// What one sender has seen.
#[derive(Debug)]
pub(crate) struct Recorder {
    endings: BTreeMap<Ending, Histogram<u64>>,
    late: Histogram<u64>,
    last_sent: Duration,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { endings: BTreeMap::new(), late: histogram(), last_sent: Duration::ZERO }
    }
}

impl Recorder {
    /// A request went out that was meant for `intended`.
    pub(crate) fn on_sent(&mut self, intended: Duration, now: Duration) {
        self.late.saturating_record(nanoseconds(now.saturating_sub(intended)));
        self.last_sent = self.last_sent.max(now);
    }

    /// It ended. The latency counts from `intended`.
    pub(crate) fn on_end(&mut self, intended: Duration, now: Duration, ending: Ending) {
        let latency = nanoseconds(now.saturating_sub(intended));
        self.endings.entry(ending).or_insert_with(histogram).saturating_record(latency);
    }

    /// Adds what another sender has seen.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (ending, theirs) in &other.endings {
            add(self.endings.entry(*ending).or_insert_with(histogram), theirs);
        }
        add(&mut self.late, &other.late);
        self.last_sent = self.last_sent.max(other.last_sent);
    }

    /// How many were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.late.len()
    }

    /// How many were answered, whatever the status.
    fn answered(&self) -> u64 {
        self.endings
            .iter()
            .filter(|(end, _)| matches!(end, Ending::Status(_)))
            .map(|(_, seen)| seen.len())
            .sum()
    }

    /// The latencies of everything that has one.
    pub(crate) fn latency(&self) -> Histogram<u64> {
        let mut all = histogram();
        self.endings.iter().filter(|(end, _)| end.has_latency()).for_each(|(_, seen)| add(&mut all, seen));
        all
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST_NS, 3).expect("the bounds are constants in range")
}

fn add(sum: &mut Histogram<u64>, part: &Histogram<u64>) {
    sum.add(part).expect("all histograms have the same bounds");
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(HIGHEST_NS)
}

/// Percentiles in milliseconds; none when nothing was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Percentiles {
    p50: Option<f64>,
    p90: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
    p99_9: Option<f64>,
    max: Option<f64>,
}

impl Percentiles {
    fn of(seen: &Histogram<u64>) -> Self {
        let at = |quantile: f64| (!seen.is_empty()).then(|| milliseconds(seen.value_at_quantile(quantile)));
        Self { p50: at(0.5), p90: at(0.9), p95: at(0.95), p99: at(0.99), p99_9: at(0.999), max: at(1.0) }
    }
}

/// To the microsecond: finer is the clock's and the scheduler's noise.
fn milliseconds(nanoseconds: u64) -> f64 {
    (nanoseconds as f64 / 1e3).round() / 1e3
}

/// What `bench` says.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    url: String,
    mode: &'static str,
    rate_asked: Option<f64>,
    duration_s: f64,
    connections: usize,
    sent: u64,
    answered: u64,
    rate_achieved: f64,
    /// At least 99 % of what was asked was sent.
    pub(crate) valid: bool,
    latency_ms: Percentiles,
    by_status: BTreeMap<String, u64>,
    latency_by_status_ms: BTreeMap<String, Percentiles>,
    late_ms: Percentiles,
}

impl Report {
    /// The report of a run.
    pub(crate) fn new(url: &str, load: &Load, measured: &Measured) -> Self {
        let books = &measured.books;
        // The sending phase: as long as asked, or longer when the last request went out late.
        let sending = match load.schedule {
            Some(_) if measured.whole => load.duration.max(books.last_sent),
            _ => measured.elapsed,
        };
        let sent = books.sent();
        let asked = load.schedule.map_or(1, |schedule| schedule.asked());
        let by_ending = || books.endings.iter().map(|(ending, seen)| (ending.word(), seen));
        Self {
            url: url.to_owned(),
            mode: if load.schedule.is_some() { "open" } else { "closed" },
            rate_asked: load.schedule.map(|schedule| schedule.rate()),
            duration_s: milliseconds(nanoseconds(measured.elapsed)) / 1e3,
            connections: measured.connections,
            sent,
            answered: books.answered(),
            rate_achieved: (sent as f64 / sending.as_secs_f64() * 10.0).round() / 10.0,
            valid: sent as f64 >= 0.99 * asked as f64,
            latency_ms: Percentiles::of(&books.latency()),
            by_status: by_ending().map(|(word, seen)| (word, seen.len())).collect(),
            latency_by_status_ms: by_ending().map(|(word, seen)| (word, Percentiles::of(seen))).collect(),
            late_ms: Percentiles::of(&books.late),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = self.rate_asked.map(|rate| format!(" of {rate}/s asked")).unwrap_or_default();
        let (seconds, connections) = (self.duration_s, self.connections);
        writeln!(f, "{} loop on {}", self.mode, self.url)?;
        writeln!(
            f,
            "sent {} in {seconds:.1} s: {}/s{asked}, {connections} connections",
            self.sent, self.rate_achieved
        )?;
        let statuses: Vec<_> =
            self.by_status.iter().map(|(word, count)| format!("{word}: {count}")).collect();
        writeln!(f, "answers  {}", if statuses.is_empty() { "none".into() } else { statuses.join(", ") })?;
        let latency = &self.latency_ms;
        for (name, value) in [
            ("p50", latency.p50),
            ("p90", latency.p90),
            ("p95", latency.p95),
            ("p99", latency.p99),
            ("p99.9", latency.p99_9),
            ("max", latency.max),
        ] {
            let value = value.map_or_else(|| "-".into(), |ms| format!("{ms:.3} ms"));
            writeln!(f, "{name:<6} {value:>14}")?;
        }
        Ok(())
    }
}
