//! Several runs of one scenario side by side.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use fp_sim::{HedgeSummary, Report, Scenario};
use serde::Serialize;

/// One run, and what was changed for it.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    /// What was changed, or that nothing was.
    pub(super) name: String,
    /// What came of it.
    pub(super) report: Report,
    /// The threshold of its latency objective, in milliseconds.
    #[serde(skip)]
    pub(super) objective_ms: Option<f64>,
}

impl Run {
    pub(super) fn new(name: &str, (scenario, report): (Scenario, Report)) -> Self {
        let objective = scenario.settings.slo.and_then(|slo| slo.latency);
        let objective_ms = objective.map(|latency| latency.under.as_secs_f64() * 1000.0);
        Self { name: name.to_owned(), report, objective_ms }
    }

    /// A, B, C … by its place.
    pub(super) fn letter(&self, runs: &[Self]) -> char {
        let at = runs.iter().position(|run| std::ptr::eq(run, self)).unwrap_or_default();
        letter(at)
    }
}

pub(super) fn letter(at: usize) -> char {
    char::from(b'A' + (at % 26) as u8)
}

/// A figure of a run, and how it is printed.
struct Row {
    name: String,
    decimals: usize,
    values: Vec<f64>,
}

/// A table with a column for each run, and with two runs one for what the second changes.
pub(super) fn table(runs: &[Run]) -> String {
    let mut text = String::new();
    let Some(first) = runs.first() else { return text };
    let Report { scenario, seed, seconds, .. } = &first.report;
    let _ = writeln!(text, "{scenario}, seed {seed}, {seconds} s");
    for (at, run) in runs.iter().enumerate() {
        let _ = writeln!(text, "  {}: {}", letter(at), run.name);
    }
    let rows = rows(runs);
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
    let _ = write!(text, "\n{:width$}", "");
    for at in 0..runs.len() {
        let _ = write!(text, " {:>12}", letter(at));
    }
    text.push('\n');
    for row in rows {
        let _ = write!(text, "{:width$}", row.name);
        for value in &row.values {
            let _ = write!(text, " {value:>12.*}", row.decimals);
        }
        if let [before, after] = row.values[..]
            && !row.name.ends_with('%')
        {
            let _ = write!(text, " {:>9}", change(before, after));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn rows(runs: &[Run]) -> Vec<Row> {
    let row = |name: &str, decimals, of: &dyn Fn(&Report) -> f64| Row {
        name: name.to_owned(),
        decimals,
        values: runs.iter().map(|run| of(&run.report)).collect(),
    };
    let mut rows = vec![
        row("calls offered", 0, &|it| it.total.offered as f64),
        row("answered", 0, &|it| it.total.answered as f64),
        row("answered per second", 1, &|it| it.total.answered_per_second),
        row("latency p50, ms", 1, &|it| it.total.latency_ms.p50),
        row("latency p90, ms", 1, &|it| it.total.latency_ms.p90),
        row("latency p99, ms", 1, &|it| it.total.latency_ms.p99),
        row("latency p99.9, ms", 1, &|it| it.total.latency_ms.p99_9),
        row("latency max, ms", 1, &|it| it.total.latency_ms.max),
        row("waited, p99, ms", 1, &|it| it.total.wait_ms.p99),
        row("cold", 0, &|it| it.total.cold as f64),
    ];
    if runs.iter().any(|run| run.report.hedging.is_some()) {
        let of = |it: &Report, figure: fn(&HedgeSummary) -> f64| it.hedging.as_ref().map_or(0.0, figure);
        rows.push(row("hedged", 0, &|it| of(it, |hedging| hedging.attempts as f64)));
        rows.push(row("hedges won", 0, &|it| of(it, |hedging| hedging.won as f64)));
        rows.push(row("hedges per call, %", 2, &|it| of(it, |hedging| hedging.extra_percent)));
        rows.push(row("hedges ran, s", 1, &|it| of(it, |hedging| hedging.seconds)));
    }
    let reasons: BTreeSet<_> = runs.iter().flat_map(|run| run.report.total.failed.keys()).collect();
    for reason in reasons {
        rows.push(row(reason, 0, &|it| it.total.failed.get(reason).copied().unwrap_or(0) as f64));
    }
    if runs.iter().any(|run| run.report.total.objective.is_some()) {
        let of = |it: &Report| it.total.objective;
        rows.push(row("available, %", 3, &|it| of(it).map_or(f64::NAN, |it| it.available_percent)));
        let in_time = |it: &Report| of(it).and_then(|it| it.in_time_percent).unwrap_or(f64::NAN);
        rows.push(row("answers in time, %", 3, &in_time));
    }
    rows.extend([
        row("cost, worker-seconds", 1, &|it| it.workers.worker_seconds),
        row("workers on average", 2, &|it| it.workers.mean),
        row("workers at most", 0, &|it| f64::from(it.workers.most)),
        row("workers started", 0, &|it| it.workers.started as f64),
        row("workers lost", 0, &|it| it.workers.lost as f64),
        row("workers busy, %", 1, &|it| it.workers.busy_percent),
        row("calls running on average", 2, &|it| it.workers.mean_running),
        row("calls waiting on average", 2, &|it| it.workers.mean_queued),
    ]);
    rows
}

/// `-78 %`, `× 34`, or nothing where there is nothing to say.
fn change(before: f64, after: f64) -> String {
    let percent = (after / before - 1.0) * 100.0;
    match percent {
        _ if before == after || !percent.is_finite() || percent.abs() < 0.05 => String::new(),
        huge if huge >= 900.0 => format!("× {:.0}", after / before),
        small if small.abs() < 10.0 => format!("{small:+.1} %"),
        large => format!("{large:+.0} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_in_percent_where_there_is_one() {
        let told =
            [(100.0, 22.0), (100.0, 102.5), (2.0, 68.0), (5.0, 5.0), (0.0, 3.0)].map(|(a, b)| change(a, b));
        assert_eq!(told, ["-78 %", "+2.5 %", "× 34", "", ""]);
    }
}
