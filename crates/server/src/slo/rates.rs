//! The view of a function's rates and percentiles.

use std::time::Duration;

use fp_core::Outcome;
use hdrhistogram::Histogram;

use super::capacity::Capacity;
use super::rolling::{MINUTES, Rolling};
use super::views::{FunctionView, MinuteView, OutcomeCount, ReasonCount};

type ByOutcome = [u64; Outcome::ALL.len()];

pub(super) fn function_view(
    rolling: &Rolling,
    capacity: &Capacity,
    totals: &ByOutcome,
    now: Duration,
) -> FunctionView {
    let present = now.as_secs() / 60;
    let (all, warm) = rolling.durations(present);
    let mut hour: ByOutcome = Default::default();
    let (mut good, mut bad, mut cold) = (0, 0, 0);
    for minute in rolling.last_hour(present) {
        for (sum, count) in hour.iter_mut().zip(minute.by_outcome) {
            *sum += u64::from(count);
        }
        good += u64::from(minute.good);
        bad += u64::from(minute.bad);
        cold += u64::from(minute.cold);
    }
    FunctionView {
        rate_per_second: rolling.last_minute(now) as f64 / 60.0,
        calls: totals.iter().sum(),
        outcomes: outcome_counts(&hour, totals),
        reasons: reason_counts(&hour, totals),
        error_ratio: ratio(bad, good + bad),
        p50_ms: quantile_ms(&all, 0.5),
        p90_ms: quantile_ms(&all, 0.9),
        p99_ms: quantile_ms(&all, 0.99),
        p99_9_ms: quantile_ms(&all, 0.999),
        max_ms: quantile_ms(&all, 1.0),
        warm_p50_ms: quantile_ms(&warm, 0.5),
        cold_share: ratio(cold, hour.iter().sum()),
        minutes: minute_views(rolling, capacity, now),
    }
}

/// One entry per word; reasons are added up.
fn outcome_counts(hour: &ByOutcome, totals: &ByOutcome) -> Vec<OutcomeCount> {
    let mut counts: Vec<OutcomeCount> = Vec::new();
    for outcome in Outcome::ALL {
        let (last_hour, total) = (hour[outcome.index()], totals[outcome.index()]);
        if total == 0 {
            continue;
        }
        match counts.iter_mut().find(|count| count.outcome == outcome.word()) {
            Some(count) => {
                count.last_hour += last_hour;
                count.total += total;
            }
            None => counts.push(OutcomeCount { outcome: outcome.word(), last_hour, total }),
        }
    }
    counts
}

/// Those outcomes that have a reason.
fn reason_counts(hour: &ByOutcome, totals: &ByOutcome) -> Vec<ReasonCount> {
    let count = |outcome: &Outcome| {
        let (last_hour, total) = (hour[outcome.index()], totals[outcome.index()]);
        let reason = outcome.reason().filter(|_| total > 0)?;
        Some(ReasonCount { outcome: outcome.word(), reason, last_hour, total })
    };
    Outcome::ALL.iter().filter_map(count).collect()
}

fn minute_views(rolling: &Rolling, capacity: &Capacity, now: Duration) -> Vec<MinuteView> {
    let present = now.as_secs() / 60;
    let mut views = vec![MinuteView::default(); MINUTES as usize];
    for minute in rolling.last_hour(present) {
        let age = present.saturating_sub(minute.number) as usize;
        let p99_us = minute.p99_us.or_else(|| rolling.p99_us(minute.number));
        // A minute from a clock reading that is a moment ahead of `present` is the present one.
        views[MINUTES as usize - 1 - age] = MinuteView {
            calls: minute.calls(),
            errors: u64::from(minute.bad),
            p99_ms: p99_us.map(milliseconds),
            ..MinuteView::default()
        };
    }
    let first = (present + 1).saturating_sub(MINUTES);
    for (number, view) in (first..).zip(&mut views) {
        if let Some((minute, waited)) = capacity.of(number) {
            view.queue_p99_ms = waited.map(|waited| waited.as_secs_f64() * 1e3);
            view.demand = minute.demand(now);
            view.workers = minute.workers();
        }
    }
    views
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1_000.0
}

fn quantile_ms(durations: &Histogram<u32>, quantile: f64) -> Option<f64> {
    (!durations.is_empty()).then(|| milliseconds(durations.value_at_quantile(quantile)))
}
