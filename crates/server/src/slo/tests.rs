use fp_core::Outcome;
use fp_core::outcome::{DeadlineReason, ShedReason};
use fp_core::settings::LatencyObjective;

use super::*;

/// 2026-01-01T00:00:00Z.
const WALL_US: u64 = 1_767_225_600_000_000;

fn name(text: &str) -> FunctionName {
    text.parse().unwrap()
}

fn slo(under_ms: u64) -> Slo {
    Slo {
        availability: Some(99.9),
        latency: Some(LatencyObjective { under: Duration::from_millis(under_ms), percent: 99.0 }),
        window_days: 30,
    }
}

/// Records a call that ends at `at` seconds of both clocks.
fn record(book: &FunctionBook, at: u64, outcome: Outcome, millis: u64, cold: bool) {
    let wall_us = WALL_US + at * 1_000_000;
    book.record(Duration::from_secs(at), wall_us, outcome, false, Duration::from_millis(millis), cold);
}

fn is_near(value: Option<f64>, wanted: f64) -> bool {
    value.is_some_and(|value| (value / wanted - 1.0).abs() < 0.02)
}

#[test]
fn every_call_of_260_ms_is_reported_as_260_ms() {
    let book = FunctionBook::default();
    (0..1_000).for_each(|_| record(&book, 5, Outcome::Ok, 260, false));
    let view = book.view(Duration::from_secs(6));
    for value in
        [view.p50_ms, view.p99_ms, view.p99_9_ms, view.max_ms, view.warm_p50_ms, view.minutes[59].p99_ms]
    {
        assert!(is_near(value, 260.0), "{value:?}");
    }
}

#[test]
fn rates_and_percentiles_are_of_the_recent_past_and_totals_are_not() {
    let book = FunctionBook::default();
    assert_eq!(
        book.view(Duration::ZERO),
        FunctionView { minutes: vec![MinuteView::default(); 60], ..FunctionView::default() }
    );
    (0..600).for_each(|n| record(&book, n / 10, Outcome::Ok, 10, n == 0));
    let view = book.view(Duration::from_secs(59));
    assert!((view.rate_per_second - 10.0).abs() < 1e-9);
    assert!((view.cold_share - 1.0 / 600.0).abs() < 1e-9);
    assert_eq!(view.minutes[59].calls, 600);
    // A minute later the rate is gone, six later the percentiles, an hour later the counts.
    let view = book.view(Duration::from_secs(120));
    assert_eq!(view.rate_per_second, 0.0);
    assert!(is_near(view.p99_ms, 10.0));
    book.tick(Duration::from_secs(6 * 60));
    let view = book.view(Duration::from_secs(6 * 60));
    assert_eq!(view.p99_ms, None);
    assert!(is_near(view.minutes[53].p99_ms, 10.0), "the minute's own percentile stays");
    let view = book.view(Duration::from_secs(61 * 60));
    assert!(view.minutes.iter().all(|minute| minute.calls == 0));
    assert_eq!(view.calls, 600);
    assert_eq!(view.outcomes, [OutcomeCount { outcome: "ok", last_hour: 0, total: 600 }]);
    assert!(is_near(book.warm_p50().map(|p50| p50.as_secs_f64() * 1e3), 10.0), "the last known stays");
}

#[test]
fn outcomes_are_counted_by_word_and_refusals_do_not_make_a_function_fast() {
    let book = FunctionBook::default();
    for _ in 0..10 {
        record(&book, 1, Outcome::Ok, 100, false);
        record(&book, 1, Outcome::Shed(ShedReason::QueueFull), 1, false);
        record(&book, 1, Outcome::Shed(ShedReason::QueueDelay), 1, false);
        record(&book, 1, Outcome::QuotaExceeded, 1, false);
    }
    let view = book.view(Duration::from_secs(1));
    let words: Vec<_> = view.outcomes.iter().map(|count| (count.outcome, count.total)).collect();
    assert_eq!(words, [("ok", 10), ("shed", 20), ("quota_exceeded", 10)]);
    assert!((view.error_ratio - 20.0 / 30.0).abs() < 1e-9);
    assert!(is_near(view.p50_ms, 100.0));
    assert_eq!(view.minutes[59].errors, 20);
}

#[test]
fn the_warm_median_ignores_cold_calls_and_is_there_after_the_first_warm_one() {
    let book = FunctionBook::default();
    record(&book, 1, Outcome::Ok, 500, true);
    assert_eq!(book.warm_p50(), None);
    record(&book, 1, Outcome::Ok, 20, false);
    assert!(is_near(book.warm_p50().map(|p50| p50.as_secs_f64() * 1e3), 20.0));
    (0..100).for_each(|_| record(&book, 1, Outcome::Ok, 40, false));
    book.tick(Duration::from_secs(2));
    assert!(is_near(book.warm_p50().map(|p50| p50.as_secs_f64() * 1e3), 40.0));
}

#[test]
fn an_objective_counts_good_bad_excluded_and_cancelled() {
    let book = FunctionBook::default();
    assert_eq!(book.slo(WALL_US), None);
    book.set_objective(Some(slo(250)));
    for _ in 0..996 {
        record(&book, 1, Outcome::Ok, 100, false);
    }
    record(&book, 1, Outcome::Ok, 300, false);
    record(&book, 1, Outcome::Crashed, 10, false);
    record(&book, 1, Outcome::QuotaExceeded, 0, false);
    record(&book, 1, Outcome::Cancelled, 0, false);
    let short = Outcome::DeadlineExceeded(DeadlineReason::Infeasible);
    book.record(Duration::from_secs(1), WALL_US + 1_000_000, short, true, Duration::ZERO, false);
    let view = book.slo(WALL_US + 2_000_000).unwrap();
    assert_eq!((view.good, view.bad, view.excluded, view.cancelled), (997, 1, 2, 1));
    // One bad call of 998 spends slightly more than a budget of one in a thousand.
    assert!(is_near(view.attained, 100.0 * 997.0 / 998.0));
    assert!((view.budget_left.unwrap() - (1.0 - 1_000.0 / 998.0)).abs() < 1e-6);
    assert!((view.budget_seconds_left.unwrap() - 2_592.0 * view.budget_left.unwrap()).abs() < 1e-3);
    let latency = view.latency.unwrap();
    assert_eq!((latency.good, latency.bad), (996, 2));
    assert_eq!(
        view.burn.iter().map(|burn| burn.window).collect::<Vec<_>>(),
        ["5m", "30m", "1h", "2h", "6h", "1d", "3d"]
    );
    assert!(view.burn.iter().all(|burn| is_near(burn.availability, 1_000.0 / 998.0)));
    assert_eq!(view.alerts, [], "one bad call is no evidence");
}

#[test]
fn an_outage_raises_alerts() {
    let book = FunctionBook::default();
    book.set_objective(Some(slo(250)));
    (0..1_000).for_each(|_| record(&book, 1, Outcome::Crashed, 1, false));
    let alerts = book.slo(WALL_US + 2_000_000).unwrap().alerts;
    assert!(alerts.iter().any(|alert| (alert.objective, alert.severity, alert.long, alert.short)
        == ("availability", "page", "1h", "5m")));
}

#[test]
fn another_threshold_begins_new_latency_counts_and_keeps_the_rest() {
    let book = FunctionBook::default();
    book.set_objective(Some(slo(250)));
    record(&book, 1, Outcome::Ok, 100, false);
    book.set_objective(Some(slo(250)));
    assert_eq!(book.slo(WALL_US + 2_000_000).unwrap().latency.unwrap().good, 1);
    book.set_objective(Some(slo(50)));
    let view = book.slo(WALL_US + 2_000_000).unwrap();
    assert_eq!((view.good, view.latency.unwrap().good), (1, 0));
    book.set_objective(None);
    assert_eq!(book.slo(WALL_US), None);
}

async fn registry_with(dir: &std::path::Path, function: &str) -> Arc<Registry> {
    let registry = Registry::open(dir).unwrap();
    let (version, order, _) = registry.next_version(&Tenant::default(), &name(function)).await.unwrap();
    let stored = crate::store::StoredVersion {
        tenant: Tenant::default(),
        function: name(function),
        version,
        order,
        created_us: 1,
        deployed_us: 1,
        code_hash: String::new(),
        handler: Default::default(),
        events: Vec::new(),
        settings: Default::default(),
    };
    registry.put_version(stored).await.unwrap();
    Arc::new(registry)
}

#[tokio::test]
async fn counters_survive_a_restart_and_go_with_their_function() {
    let dir = tempfile::tempdir().unwrap();
    let tenant = Tenant::default();
    let registry = registry_with(dir.path(), "cats").await;
    let books = SloBook::open(registry.clone(), Clock::start()).await;
    let wall_us = books.clock.wall_now_us();
    let book = books.function(&tenant, &name("cats"), Some(&slo(250)));
    book.record(Duration::ZERO, wall_us, Outcome::Ok, false, Duration::from_millis(1), false);
    books.close().await;
    registry.close().await;

    let registry = registry_with(dir.path(), "cats").await;
    let books = SloBook::open(registry.clone(), Clock::start()).await;
    assert!(books.get(&tenant, &name("cats")).is_none());
    let book = books.function(&tenant, &name("cats"), Some(&slo(250)));
    let view = book.slo(wall_us + 1_000_000).unwrap();
    assert_eq!((view.good, view.latency.unwrap().good), (1, 1));
    assert_eq!(book.view(Duration::ZERO).calls, 1);

    books.remove(&tenant, &name("cats"));
    assert!(books.get(&tenant, &name("cats")).is_none());
    let anew = books.function(&tenant, &name("cats"), Some(&slo(250)));
    assert_eq!(anew.slo(wall_us + 1_000_000).unwrap().good, 0);
}

#[test]
fn a_restart_loses_nothing_of_the_last_hour() {
    let book = FunctionBook::default();
    // Ten minutes of calls, one outcome and one duration in each.
    for minute in 0..10 {
        record(&book, minute * 60, Outcome::Ok, 10 + minute, minute == 0);
        record(&book, minute * 60 + 1, Outcome::Crashed, 500, false);
    }
    let edges = [Duration::from_millis(15), Duration::from_millis(100)];
    book.tick(Duration::from_secs(600));
    let (before, durations) = (book.view(Duration::from_secs(600)), book.durations(&edges));
    let snapshot = book.snapshot();
    // The next life begins at once, and its clock with zero.
    let later_us = WALL_US + 600 * 1_000_000;
    let next = FunctionBook::from_snapshot(&snapshot, Duration::ZERO, later_us).unwrap();
    let after = next.view(Duration::ZERO);
    assert_eq!((&after.outcomes, after.calls), (&before.outcomes, 20));
    assert_eq!((after.error_ratio, after.cold_share), (before.error_ratio, before.cold_share));
    assert_eq!((after.rate_per_second, after.p99_ms), (before.rate_per_second, before.p99_ms));
    assert_eq!(next.warm_p50(), book.warm_p50());
    let calls = |view: &FunctionView| view.minutes.iter().map(|minute| minute.calls).collect::<Vec<_>>();
    assert_eq!(calls(&after), calls(&before));
    assert_eq!(after.minutes[51].p99_ms, before.minutes[51].p99_ms);
    assert_eq!(next.durations(&edges), durations, "as the totals beside it");
    // A snapshot of what was only restored is the same again, and an hour later nothing is left of it.
    let again = FunctionBook::from_snapshot(&next.snapshot(), Duration::ZERO, later_us).unwrap();
    assert_eq!(again.view(Duration::ZERO), after);
    let late = FunctionBook::from_snapshot(&snapshot, Duration::ZERO, later_us + 3_600_000_000).unwrap();
    assert!(late.view(Duration::ZERO).minutes.iter().all(|minute| minute.calls == 0));
    assert_eq!(late.view(Duration::ZERO).calls, 20);
    // A clock that was set back puts them into the future: they are left out.
    let early = FunctionBook::from_snapshot(&snapshot, Duration::ZERO, WALL_US - 1_000_000).unwrap();
    assert!(early.view(Duration::ZERO).minutes.iter().all(|minute| minute.calls == 0));
}

#[tokio::test]
async fn a_change_is_saved_within_ten_seconds_without_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let tenant = Tenant::default();
    let registry = registry_with(dir.path(), "cats").await;
    let books = SloBook::open(registry.clone(), Clock::start()).await;
    let book = books.function(&tenant, &name("cats"), None);
    record(&book, 1, Outcome::Ok, 1, false);
    books.tick(Duration::from_secs(10));
    assert_eq!(registry.load_slo().await.unwrap(), []);
    books.tick(Duration::from_secs(11));
    // The registry answers in order, so the snapshot is in by now.
    assert_eq!(registry.load_slo().await.unwrap().len(), 1);
    assert_eq!(book.unsaved_for(Duration::from_secs(30)), None);
}
