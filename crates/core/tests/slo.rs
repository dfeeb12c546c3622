//! The SLO mathematics against cases with known answers.

use std::time::Duration;

use fp_core::outcome::Sli;
use fp_core::settings::{LatencyObjective, Slo};
use fp_core::slo::{Alert, Change, Counts, History, Indicator, Objective, Severity, SnapshotError, Watch};
use proptest::prelude::*;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const HOUR: Duration = seconds(3600);
const DAY: Duration = seconds(86_400);

/// A Sunday in 2026, in whole days.
const EPOCH: Duration = seconds(20_600 * 86_400);

fn availability(percent: f64, window_days: u32) -> Objective {
    Objective { indicator: Indicator::Availability, percent, window_days }
}

fn good(count: u64) -> Counts {
    Counts { good: count, ..Counts::default() }
}

fn bad(count: u64) -> Counts {
    Counts { bad: count, ..Counts::default() }
}

/// Ten calls a second, good until `since`; then `bad_of_ten` of each ten fail. Returns the second
/// after `since` at which each alert row first fires.
fn first_firing(
    objective: Objective,
    since: Duration,
    bad_of_ten: u64,
    for_seconds: u64,
) -> [Option<u64>; 4] {
    let mut history = History::new();
    for slot in (1..=(3 * 86_400 + 3600) / 10).rev() {
        history.add(since - seconds(slot * 10), good(100));
    }
    let mut fired = [None; 4];
    for second in 0..for_seconds {
        history.add(since + seconds(second), good(10 - bad_of_ten));
        history.add(since + seconds(second) + Duration::from_millis(500), bad(bad_of_ten));
        let alerts = objective.alerts(&history, since + seconds(second + 1));
        for (fired, alert) in fired.iter_mut().zip(alerts) {
            *fired = fired.or(alert.firing.then_some(second + 1));
        }
    }
    fired
}

/// Crossings at 51.84, 129.6, 259.2 and 259.2 s, evaluated every second, wherever the
/// outage falls within the slots.
#[test]
fn a_full_outage_is_noticed_within_a_second_of_the_crossing() {
    for offset in [0, 29, 3597] {
        let fired = first_firing(availability(99.9, 30), EPOCH + seconds(offset), 10, 300);
        assert_eq!(fired, [52, 130, 260, 260].map(Some), "{offset} s into the hour");
    }
}

/// With a constant error ratio E an alert fires after window × factor × budget / E, and never
/// if E is at most factor × budget.
#[test]
fn a_partial_outage_takes_longer_in_proportion() {
    let fired = first_firing(availability(99.9, 30), EPOCH, 5, 300);
    assert_eq!(fired, [Some(104), Some(260), None, None]);
    let mut history = History::new();
    for slot in 0..360 {
        history.add(EPOCH + seconds(slot * 10), good(90));
        history.add(EPOCH + seconds(slot * 10), bad(10));
    }
    let alert = availability(99.0, 30).alerts(&history, EPOCH + HOUR)[0];
    assert!(
        !alert.firing && (alert.burn_long - 10.0).abs() < 1e-9,
        "10 times the budget, the factor is 14.4"
    );
}

#[test]
fn the_alert_table_follows_the_window() {
    for (days, factors) in
        [(30, [14.4, 6.0, 3.0, 1.0]), (28, [13.44, 5.6, 2.8, 0.9333]), (7, [13.44, 3.5, 1.4, 0.98])]
    {
        let rows = availability(99.9, days).alert_rows();
        for (row, factor) in rows.iter().zip(factors) {
            assert!((row.factor - factor).abs() < 1e-4 && row.factor >= 0.9, "{days} d: {row:?}");
        }
        assert_eq!(rows.map(|row| row.long), [HOUR, 6 * HOUR, DAY, 3 * DAY]);
        assert_eq!(rows.map(|row| row.short), [seconds(300), seconds(1800), 2 * HOUR, 6 * HOUR]);
        assert_eq!(
            rows.map(|row| row.severity),
            [Severity::Page, Severity::Page, Severity::Ticket, Severity::Ticket]
        );
    }
}

#[test]
fn the_budget_is_so_many_seconds_of_full_outage() {
    for (percent, days, budget) in [(99.9, 7, 604.8), (99.9, 30, 2592.0), (99.99, 30, 259.2)] {
        assert!((availability(percent, days).budget_seconds() - budget).abs() < 1e-9, "{percent} {days}");
    }
    let objective = availability(99.9, 30);
    let mut history = History::new();
    history.add(EPOCH, good(999_500));
    history.add(EPOCH, bad(500));
    let standing = objective.standing(&history, EPOCH + seconds(1));
    assert_eq!((standing.events, standing.bad), (1_000_000, 500));
    assert!(
        (standing.budget_left - 0.5).abs() < 1e-9 && (standing.budget_left_seconds - 1296.0).abs() < 1e-6
    );
    assert!((standing.attained_percent.expect("events") - 99.95).abs() < 1e-9);
    history.add(EPOCH, bad(2000));
    assert!(objective.standing(&history, EPOCH).budget_left < -1.0, "overspent is negative");
    let empty = objective.standing(&History::new(), EPOCH);
    assert_eq!((empty.attained_percent, empty.budget_left), (None, 1.0));
}

#[test]
fn ratios_are_weighted_by_events() {
    let mut history = History::new();
    for second in 0..3600 {
        history.add(EPOCH + seconds(second), good(1000));
    }
    for second in 3600..7200 {
        history.add(EPOCH + seconds(second), if second % 2 == 0 { bad(1) } else { good(1) });
    }
    let now = EPOCH + seconds(7199);
    assert_eq!(history.sum(now, 2 * HOUR).events(Indicator::Availability), (1800, 3_603_600));
    let ratio = availability(99.9, 30).error_ratio(&history, now, 2 * HOUR);
    assert!((ratio - 0.000_499_5).abs() < 1e-9, "{ratio}");
}

/// With 10 calls in the window one failure is 100 times the budget, and no alert.
#[test]
fn at_low_traffic_an_alert_waits_for_evidence() {
    let objective = availability(99.9, 30);
    let fast = |history: &History| -> Alert { objective.alerts(history, EPOCH + seconds(200))[0] };
    let mut history = History::new();
    history.add(EPOCH, good(9));
    history.add(EPOCH + seconds(100), bad(1));
    let alert = fast(&history);
    assert!((alert.burn_long - 100.0).abs() < 1e-9 && !alert.firing);
    assert_eq!((alert.bad, alert.evidence), (1, 2));
    history.add(EPOCH + seconds(150), bad(1));
    assert!(fast(&history).firing);
}

#[test]
fn the_short_window_ends_the_alert_soon_after_the_trouble() {
    let objective = availability(99.9, 30);
    let mut history = History::new();
    for second in 0..7200 {
        let count = if (3600..4200).contains(&second) { bad(10) } else { good(10) };
        history.add(EPOCH + seconds(second), count);
    }
    assert!(objective.alerts(&history, EPOCH + seconds(4200))[0].firing);
    // short × (1 − factor × budget) = 295.7 s after recovery.
    assert!(objective.alerts(&history, EPOCH + seconds(4490))[0].firing);
    assert!(!objective.alerts(&history, EPOCH + seconds(4500))[0].firing);
}

#[test]
fn each_window_counts_what_lies_in_it() {
    let mut history = History::new();
    for hour in 0..40 * 24 {
        history.add(EPOCH + HOUR * hour, good(1));
    }
    let now = EPOCH + HOUR * (40 * 24) - seconds(1);
    for (window, count) in [
        (7 * DAY, 7 * 24),
        (28 * DAY, 28 * 24),
        (30 * DAY, 30 * 24),
        (3 * DAY, 72),
        (DAY, 24),
        (HOUR, 1),
        (HOUR - seconds(20), 0),
    ] {
        assert_eq!(history.sum(now, window).good, count, "{window:?}");
    }
    assert_eq!(history.sum(now + 50 * DAY, 30 * DAY), Counts::default());
}

#[test]
fn outcomes_count_in_their_own_classes_and_latency_by_itself() {
    let mut history = History::new();
    for (sli, met) in [
        (Sli::Good, Some(true)),
        (Sli::Good, Some(false)),
        (Sli::Bad, None),
        (Sli::Excluded, None),
        (Sli::Cancelled, None),
    ] {
        history.record(EPOCH, sli, met);
    }
    let counts = history.sum(EPOCH, HOUR);
    assert_eq!(
        counts,
        Counts { good: 2, bad: 1, excluded: 1, cancelled: 1, latency_good: 1, latency_bad: 1 }
    );
    assert_eq!(counts.events(Indicator::Availability), (1, 3));
    assert_eq!(counts.events(Indicator::Latency), (1, 2));
}

#[test]
fn a_function_has_an_objective_for_each_thing_it_promises() {
    let latency = LatencyObjective { under: Duration::from_millis(250), percent: 99.0 };
    let slo = Slo { availability: Some(99.9), latency: Some(latency), window_days: 7 };
    let objectives = Objective::of(&slo);
    assert_eq!(objectives[0], availability(99.9, 7));
    assert_eq!((objectives[1].indicator, objectives[1].percent), (Indicator::Latency, 99.0));
    assert_eq!(Objective::of(&Slo { availability: None, latency: None, window_days: 7 }), []);
}

fn busy_history() -> History {
    let mut history = History::new();
    for minute in 0..5000 {
        history.add(EPOCH + seconds(minute * 60), good(minute));
        history.add(EPOCH + seconds(minute * 60), bad(minute % 3));
    }
    history
}

#[test]
fn snapshots_read_back_and_are_small() {
    let history = busy_history();
    let now = EPOCH + seconds(4999 * 60);
    let bytes = history.to_bytes();
    assert!(History::from_bytes(&bytes, now) == Ok(history));
    assert!(bytes.len() < 5000 * 6, "{} bytes", bytes.len());
}

#[test]
fn a_gap_in_time_ages_what_was_counted() {
    let now = EPOCH + seconds(5000 * 60);
    let bytes = busy_history().to_bytes();
    let later = History::from_bytes(&bytes, now + 10 * DAY).expect("whole");
    assert_eq!(later.sum(now + 10 * DAY, 3 * DAY), Counts::default());
    let all: u64 = (0..5000).sum();
    assert_eq!(later.sum(now + 10 * DAY, 30 * DAY).good, all);
    let much_later = History::from_bytes(&bytes, now + 40 * DAY).expect("whole");
    assert!(much_later == History::new());
    let before = History::from_bytes(&bytes, EPOCH - 10 * DAY).expect("whole");
    assert!(before == History::new(), "what lies in the future came from a wrong clock");
}

#[test]
fn a_clock_that_was_set_back_counts_where_it_says() {
    let mut history = History::new();
    history.add(EPOCH + seconds(600), good(1));
    history.add(EPOCH, good(1));
    history.add(EPOCH + seconds(600), good(1));
    assert_eq!(history.sum(EPOCH, HOUR).good, 1);
    assert_eq!(history.sum(EPOCH + seconds(600), HOUR).good, 3);
}

#[test]
fn damaged_snapshots_are_refused() {
    let bytes = busy_history().to_bytes();
    let now = EPOCH + 4 * DAY;
    assert_eq!(History::from_bytes(&[], now), Err(SnapshotError::Damaged));
    assert_eq!(History::from_bytes(&[9], now), Err(SnapshotError::Version { found: 9 }));
    assert!(History::from_bytes(&bytes[..bytes.len() - 1], now) == Err(SnapshotError::Damaged));
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(History::from_bytes(&longer, now) == Err(SnapshotError::Damaged));
}

proptest! {
    #[test]
    fn any_bytes_are_a_snapshot_or_an_error(mut bytes: Vec<u8>) {
        bytes.insert(0, 1);
        let _ = History::from_bytes(&bytes, EPOCH);
    }

    /// Against a plain list of events: a window's sum is off by at most the slot at its far end.
    #[test]
    fn sums_are_exact_up_to_the_slot_at_the_edge(
        events in prop::collection::vec(0..90_000u64, 0..200),
        window in prop::sample::select(vec![300u64, 1800, 3600, 7200, 21_600, 86_400]),
    ) {
        let mut history = History::new();
        let mut events = events;
        events.sort_unstable();
        for second in &events {
            history.add(EPOCH + seconds(*second), good(1));
        }
        let now = 90_000;
        let slot = if window <= 3600 { 10 } else { 60 };
        let within = |age: u64| events.iter().filter(|second| now - **second <= age).count() as u64;
        let sum = history.sum(EPOCH + seconds(now), seconds(window)).good;
        prop_assert!((within(window - slot)..=within(window + slot)).contains(&sum));
    }
}

/// A full outage of four minutes: the page begins at its 52nd second, its condition ends as
/// `short × (1 − factor × budget)` after it says, and the end is told a minute after that.
#[test]
fn an_alert_ends_once_its_condition_has_been_gone_for_a_while() {
    let objective = availability(99.9, 30);
    let since = EPOCH;
    let mut history = History::new();
    (1..=360).for_each(|slot| history.add(since - seconds(slot * 10), good(100)));
    let mut watch = Watch::default();
    let mut changes = Vec::new();
    for second in 0..1200 {
        history.add(since + seconds(second), if second < 240 { bad(10) } else { good(10) });
        let now = since + seconds(second + 1);
        let [page, ..] = objective.alerts(&history, now);
        changes.extend(watch.on_look(now, &page).map(|change| (second + 1, change)));
    }
    let [(52, Change::Began), (told, Change::Ended { last_held })] = changes[..] else {
        panic!("{changes:?}")
    };
    let last_held = (last_held - since).as_secs();
    assert!((530..=540).contains(&last_held), "by the formula 535.7 s, slots of 10 s: {last_held}");
    assert_eq!(told, last_held + 60);
    assert!(!watch.is_firing());
}

#[test]
fn a_ratio_that_hovers_about_the_factor_is_one_alert() {
    let objective = availability(99.9, 30);
    let [row, ..] = objective.alert_rows();
    let look = |firing| Alert { row, burn_long: 14.4, burn_short: 14.4, bad: 100, evidence: 1, firing };
    let mut watch = Watch::default();
    let changes: Vec<_> = (0..600).filter_map(|at| watch.on_look(seconds(at), &look(at % 59 == 0))).collect();
    assert_eq!(changes, [Change::Began]);
    let mut resumed = Watch::firing(seconds(600));
    assert_eq!(resumed.on_look(seconds(600), &look(true)), None, "a restart begins no second alert");
    assert_eq!(resumed.end(), Some(Change::Ended { last_held: seconds(600) }));
}

#[test]
fn the_budget_burns_down_to_what_is_left_of_it() {
    let objective = availability(99.0, 30);
    let mut history = History::new();
    for day in 0..30 {
        history.add(EPOCH - DAY * 30 + DAY * day + HOUR, good(1000));
    }
    history.add(EPOCH - DAY * 20 + HOUR * 2, bad(150));
    let down = objective.burn_down(&history, EPOCH, 30);
    let allowed = 30_150.0 * 0.01;
    assert_eq!(down.len(), 30);
    assert_eq!((down[9], down[10]), (1.0, 1.0 - 150.0 / allowed));
    let left = objective.standing(&history, EPOCH).budget_left;
    assert!((down[29] - left).abs() < 1e-12, "{} {left}", down[29]);
    assert!(objective.burn_down(&History::new(), EPOCH, 30).is_empty());
}

#[test]
fn a_history_without_bad_events_needs_no_look() {
    let mut history = History::new();
    history.add(EPOCH, good(10));
    assert!(!history.may_have_bad(EPOCH, HOUR * 6));
    history.add(EPOCH, bad(1));
    assert!(history.may_have_bad(EPOCH + HOUR * 6, HOUR * 6));
    assert!(!history.may_have_bad(EPOCH + HOUR * 8, HOUR * 6));
}
