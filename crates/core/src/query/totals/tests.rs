use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::outcome::{Outcome, ShedReason};
use crate::query::{Calls, Condition};
use crate::record::Invocation;
use crate::record::tests::kept;

fn call(function: &str, at_us: u64, run_ms: u64, outcome: Outcome) -> Invocation {
    let mut call = kept(outcome).invocation;
    call.function = function.parse().unwrap();
    call.started_us = at_us;
    call.trace_id = TraceId::from_parts(at_us / 1_000, run_ms.into());
    call.phases = crate::record::Phases { run: run_ms * 1_000_000, ..Default::default() };
    call
}

fn all() -> Seen {
    Seen { tenant: Tenant::default(), from_us: 0, to_us: u64::MAX }
}

fn answer(question: &str, seen: &Seen, batches: &[&[Invocation]]) -> Vec<Row> {
    let query = Query::parse(question).unwrap();
    let mut totals = Totals::new(&query, vec![seen.clone()]);
    for batch in batches {
        totals.add(&Calls(batch)).unwrap();
    }
    totals.into_rows().unwrap().0
}

fn text(key: &Key) -> &str {
    match key {
        Key::Text(Some(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn groups_have_counts_percentiles_and_the_slowest_calls_trace() {
    let shed = Outcome::Shed(ShedReason::QueueFull);
    let first = [call("a", 1, 10, Outcome::Ok), call("b", 2, 5, shed), call("a", 3, 30, Outcome::Ok)];
    let second = [call("a", 4, 20, Outcome::FunctionError)];
    let rows = answer("group by function", &all(), &[&first, &second]);
    assert_eq!(rows.iter().map(|row| text(&row.key[0])).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(rows.iter().map(|row| (row.count, row.failed)).collect::<Vec<_>>(), [(3, 1), (1, 1)]);
    assert_eq!(rows[0].slowest, Some(first[2].trace_id));
    assert!((rows[0].spread.percentile(500).unwrap() / 20e6 - 1.0).abs() < 0.01);
    assert!((rows[0].failed_share() - 1.0 / 3.0).abs() < 1e-12);
}

#[test]
fn a_record_counts_for_all_that_it_stands_for() {
    let mut sampled = call("a", 1, 10, Outcome::FunctionError);
    sampled.weight = 40;
    let rows = answer("", &all(), &[&[sampled, call("a", 2, 10, Outcome::Ok)]]);
    assert_eq!((rows[0].count, rows[0].failed, rows[0].spread.count()), (41, 40, 41));
}

#[test]
fn nothing_of_others_or_of_earlier_tenants_is_counted() {
    let mut theirs = call("a", 5, 10, Outcome::Ok);
    theirs.tenant = "blue".parse().unwrap();
    let calls = [call("a", 5, 10, Outcome::Ok), theirs, call("a", 9, 10, Outcome::Ok)];
    let count = |seen: &Seen| answer("", seen, &[&calls]).first().map_or(0, |row| row.count);
    assert_eq!(count(&all()), 2);
    assert_eq!(count(&Seen { tenant: "blue".parse().unwrap(), ..all() }), 1);
    assert_eq!(count(&Seen { tenant: "blue".parse().unwrap(), from_us: 6, ..all() }), 0);
    assert_eq!(count(&Seen { from_us: 6, ..all() }), 1);
    assert_eq!(count(&Seen { to_us: 9, ..all() }), 1);
}

#[test]
fn stretches_of_time_begin_at_whole_ones_and_come_in_order() {
    let calls: Vec<_> = [61, 5, 62, 119].map(|s| call("a", s * 1_000_000, 1, Outcome::Ok)).into();
    let rows = answer("group by time(1m)", &all(), &[&calls]);
    let told: Vec<_> = rows.iter().map(|row| (row.key[0].clone(), row.count)).collect();
    assert_eq!(told, [(Key::Time(0), 1), (Key::Time(60_000_000), 3)]);
}

#[test]
fn what_a_call_does_not_have_is_none_and_not_measured() {
    let mut refused = call("a", 1, 1, Outcome::Shed(ShedReason::QueueFull));
    refused.worker = None;
    let calls = [refused, call("a", 2, 1, Outcome::Ok)];
    let rows = answer("group by worker, blame of worker", &all(), &[&calls]);
    let told: Vec<_> = rows.iter().map(|row| (&row.key[..], row.spread.count())).collect();
    let platform = Key::Text(Some("platform".into()));
    assert_eq!(told.len(), 2);
    assert!(told.contains(&(&[Key::Number(4), Key::Text(None)][..], 1)));
    assert!(told.contains(&(&[Key::Number(NONE), platform][..], 0)));
    // Neither smaller nor larger than anything.
    assert_eq!(answer("worker > 0 or worker <= 0", &all(), &[&calls])[0].count, 1);
}

#[test]
fn too_many_groups_are_said_and_not_cut() {
    let calls: Vec<_> = (0..=MAX_GROUPS as u64).map(|at| call("a", at, at, Outcome::Ok)).collect();
    let query = Query::parse("group by duration").unwrap();
    let seen = all();
    let mut totals = Totals::new(&query, vec![seen.clone()]);
    totals.add(&Calls(&calls[..MAX_GROUPS])).unwrap();
    assert!(!totals.is_over());
    let (rows, left_out) = totals.clone().into_rows().unwrap();
    assert_eq!((rows.len(), left_out), (100, MAX_GROUPS - 100));
    totals.add(&Calls(&calls)).unwrap();
    assert_eq!(totals.into_rows().unwrap_err(), TooManyGroups);
}

#[test]
fn rows_are_ordered_by_what_is_asked() {
    let calls: Vec<_> =
        [("a", 1), ("b", 3), ("c", 2)].map(|(name, ms)| call(name, 1, ms, Outcome::Ok)).into();
    let order = |clause: &str| {
        let rows = answer(&format!("group by function {clause}"), &all(), &[&calls]);
        rows.iter().map(|row| text(&row.key[0]).to_owned()).collect::<String>()
    };
    assert_eq!(order("order by p99"), "bca");
    assert_eq!(order("order by max asc"), "acb");
    assert_eq!(order("order by function"), "abc");
    assert_eq!(order(""), "abc");
}

proptest! {
    /// Beside the plainest way to the same: call by call, group by group.
    #[test]
    fn answers_are_those_of_looking_at_each_call(
        calls in prop::collection::vec((0u8..4, 0u64..50, 0u64..6, 1u32..4, any::<bool>()), 0..80),
        cuts in prop::collection::vec(0usize..80, 0..3),
        least in 0u64..6,
    ) {
        let calls: Vec<_> = calls.into_iter().map(|(name, at, ms, weight, is_ok)| {
            let outcome = if is_ok { Outcome::Ok } else { Outcome::Crashed };
            Invocation { weight, ..call(["a", "b", "c", "d"][usize::from(name)], at, ms, outcome) }
        }).collect();
        let mut wanted: BTreeMap<(String, u64), (u64, u64, u64)> = BTreeMap::new();
        let passing = calls.iter().filter(|call| {
            call.function.as_str() != "d" && (call.phases.run >= least * 1_000_000 || call.outcome == Outcome::Ok)
        });
        for call in passing.filter(|call| (10..40).contains(&call.started_us)) {
            let entry = wanted.entry((call.function.to_string(), call.started_us / 7 * 7)).or_default();
            entry.0 += u64::from(call.weight);
            entry.1 += if call.outcome == Outcome::Ok { 0 } else { u64::from(call.weight) };
            entry.2 = entry.2.max(call.phases.run);
        }
        let question = format!(
            "function in (a, b, c) and (run >= {least}ms or not outcome != ok) group by function, time(7us) limit 5000"
        );
        let query = Query::parse(&question).unwrap();
        prop_assert!(!matches!(query.filter, Condition::All));
        let seen = Seen { from_us: 10, to_us: 40, ..all() };
        // In several batches and in two halves that are put together.
        let mut halves = [Totals::new(&query, vec![seen.clone()]), Totals::new(&query, vec![seen.clone()])];
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(calls.len())).chain([0, calls.len()]).collect();
        cuts.sort_unstable();
        for (at, pair) in cuts.windows(2).enumerate() {
            halves[at % 2].add(&Calls(&calls[pair[0]..pair[1]])).unwrap();
        }
        let [mut totals, other] = halves;
        totals.merge(other);
        let found: BTreeMap<_, _> = totals.into_rows().unwrap().0.into_iter().map(|row| {
            let Key::Time(time) = row.key[1] else { panic!() };
            let max = row.spread.max().unwrap();
            ((text(&row.key[0]).to_owned(), time), (row.count, row.failed, max))
        }).collect();
        prop_assert_eq!(found, wanted);
    }
}
