use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::history::tests::{EPOCH_US, call, id_of, trace_of};

const HOUR_US: u64 = 3_600_000_000;

pub(super) fn open(dir: &Path, limits: TelemetryLimits) -> (TelemetryWriter, TelemetryReader) {
    let segments = Arc::new(Segments::new(&dir.join("history")));
    segments.read().unwrap();
    (TelemetryWriter::new(segments.clone(), limits), TelemetryReader::new(segments))
}

pub(super) fn generous() -> TelemetryLimits {
    TelemetryLimits { disk_bytes: 1 << 40, keep: Duration::from_secs(1 << 30) }
}

fn row(kept: &Kept) -> NewRow<'_> {
    NewRow { kept, send_ns: 5, outcome: kept.invocation.outcome, weight: 3 }
}

pub(super) fn write(writer: &mut TelemetryWriter, now_us: u64, calls: &[Kept]) {
    let batch = Batch { rows: calls.iter().map(row).collect(), ..Batch::default() };
    writer.write(now_us, &batch).unwrap();
}

/// The calls of a trace, whoever's.
pub(super) fn trace(reader: &TelemetryReader, trace_id: TraceId, near_us: Option<u64>) -> Vec<Kept> {
    let mut calls = TraceCalls::new(&|_| true, Instant::now() + Duration::from_secs(60));
    reader.trace(trace_id, near_us, &mut calls);
    calls.into_calls().iter().map(|kept| Kept::clone(kept)).collect()
}

/// A call with something in every field.
fn full() -> Kept {
    let mut kept = call(1);
    let invocation = &mut kept.invocation;
    invocation.trigger = fp_core::record::Trigger::Async;
    invocation.parent_span_id = Some(fp_core::SpanId::from_random(9));
    invocation.outcome = fp_core::Outcome::ResponseTooLarge;
    invocation.blame = invocation.outcome.blame(true);
    invocation.called_by = Some("front".parse().expect("a name"));
    invocation.link =
        Some(fp_core::record::Link { trace_id: invocation.trace_id, span_id: invocation.span_id });
    invocation.caller_was_short = true;
    invocation.error = Some("ValueError: ä".into());
    invocation.cold = true;
    invocation.criticality = fp_core::settings::Criticality::Sheddable;
    invocation.limit_hit = Some("memory".into());
    invocation.deadline_from = fp_core::deadline::DeadlineFrom::Envoy;
    invocation.latency_met = Some(false);
    invocation.degraded = Some("hedged".into());
    kept.result = Some("{}".into());
    kept.logs[0].level = Some("INFO".into());
    kept.spans.push(fp_core::record::Span {
        span_id: fp_core::SpanId::from_random(10),
        parent_span_id: Some(fp_core::SpanId::from_random(11)),
        name: "print-headers".into(),
        start_ns: 12,
        duration_ns: 13,
        attributes: vec![("b".into(), serde_json::json!([1, {"x": null}])), ("a".into(), "\u{0}".into())],
        events: vec![fp_core::record::SpanEvent {
            time_ns: 14,
            name: "exception".into(),
            attributes: vec![("k".into(), 1.5.into())],
        }],
        error: Some("boom".into()),
    });
    kept
}

#[test]
fn every_field_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path(), generous());
    let mut kept = full();
    write(&mut writer, EPOCH_US, std::slice::from_ref(&kept));
    kept.invocation.phases.send = 5;
    kept.invocation.weight = 3;
    assert_eq!(reader.find(id_of(1)).as_ref(), Some(&kept));
    assert_eq!(trace(&reader, trace_of(1), None), [kept]);
    assert_eq!(reader.find(id_of(2)), None);
    assert_eq!(trace(&reader, trace_of(2), None), []);
}

#[test]
fn what_a_hostile_worker_says_of_itself_stops_no_batch() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path(), generous());
    let mut kept = full();
    kept.invocation.cpu_us = u64::MAX;
    kept.invocation.memory_peak_kib = u64::MAX;
    kept.spans[0].start_ns = u64::MAX;
    kept.spans[0].duration_ns = u64::MAX;
    write(&mut writer, EPOCH_US, &[kept, call(2)]);
    let found = reader.find(id_of(1)).unwrap();
    assert_eq!((found.invocation.cpu_us, found.spans[0].duration_ns), (i64::MAX as u64, i64::MAX as u64));
    assert!(reader.find(id_of(2)).is_some());
}

#[test]
fn a_row_is_written_once_and_can_be_amended() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path(), generous());
    write(&mut writer, EPOCH_US, &[call(1), call(1)]);
    write(&mut writer, EPOCH_US, &[call(1)]);
    assert_eq!(trace(&reader, trace_of(1), None).len(), 1);
    assert_eq!(reader.find(id_of(1)).unwrap().logs.len(), 1);
    let kept = call(1);
    let late = NewRow { kept: &kept, send_ns: 77, outcome: fp_core::Outcome::Cancelled, weight: 1 };
    writer.write(EPOCH_US, &Batch { amendments: vec![late], ..Batch::default() }).unwrap();
    let found = reader.find(id_of(1)).unwrap().invocation;
    assert_eq!((found.phases.send, found.outcome), (77, fp_core::Outcome::Cancelled));
    assert_eq!(found.blame, Some(fp_core::outcome::Blame::Caller));
}

#[test]
fn lists_are_newest_first_and_keep_to_their_conditions() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path(), generous());
    let mut calls: Vec<_> = (0..10).map(call).collect();
    calls[4].invocation.outcome = fp_core::Outcome::Crashed;
    calls[5].invocation.function = "dogs".parse().unwrap();
    calls[6].invocation.phases.run = 50_000_000;
    calls[7].invocation.tenant = "other".parse().unwrap();
    write(&mut writer, EPOCH_US, &calls);
    let tenant = Tenant::default();
    let query = || RowQuery {
        tenant: &tenant,
        function: None,
        outcome: None,
        event_type: None,
        from_us: 0,
        to_us: u64::MAX,
        min_us: None,
        max_us: None,
    };
    let list = |query: RowQuery<'_>| {
        let mut serials = Vec::new();
        for stretch in reader.stretches(query.from_us, query.to_us) {
            reader.visit(stretch.segment, &query, |invocation| {
                serials.push((invocation.started_us - EPOCH_US) / 1_000);
                true
            });
        }
        serials
    };
    assert_eq!(list(query()), [9, 8, 6, 5, 4, 3, 2, 1, 0]);
    assert_eq!(list(RowQuery { outcome: Some("crashed"), ..query() }), [4]);
    assert_eq!(list(RowQuery { outcome: Some("ok"), min_us: Some(2_501), ..query() }), [6]);
    assert_eq!(list(RowQuery { max_us: Some(2_500), to_us: EPOCH_US + 3_000, ..query() }), [2, 1, 0]);
    let dogs = "dogs".parse().unwrap();
    assert_eq!(list(RowQuery { function: Some(&dogs), ..query() }), [5]);
    assert_eq!(list(RowQuery { from_us: EPOCH_US + 9_000, ..query() }), [9]);
}

#[test]
fn stretches_cover_a_time_once_also_where_an_hour_is_split() {
    let reader = TelemetryReader::new(Arc::new(Segments::new(Path::new("/nowhere"))));
    let hour = EPOCH_US / 1_000_000;
    for start in [hour, hour + 1_800, hour + 3_600, hour + 9_000] {
        reader.segments.add(Segment(start));
    }
    let stretches: Vec<_> = reader
        .stretches(EPOCH_US + 60_000_000, EPOCH_US + 4_000_000_000)
        .iter()
        .map(|stretch| [stretch.from_us, stretch.to_us].map(|us| us / 1_000_000 - hour))
        .collect();
    assert_eq!(stretches, [[3_600, 4_000], [1_800, 3_600], [60, 1_800]]);
}

#[test]
fn a_trace_with_a_callers_id_is_found_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path(), generous());
    let foreign = TraceId([0xee; 16]);
    for hour in 0..4 {
        let mut kept = in_hour(hour, hour);
        if hour == 1 {
            kept.invocation.trace_id = foreign;
        }
        write(&mut writer, EPOCH_US + hour * HOUR_US, &[kept]);
    }
    assert_eq!(trace(&reader, foreign, None).len(), 1);
    assert_eq!(trace(&reader, foreign, Some(EPOCH_US + 2 * HOUR_US)).len(), 1);
    assert_eq!(trace(&reader, foreign, Some(EPOCH_US + 9 * HOUR_US)).len(), 0);
}

#[test]
fn skipped_seconds_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path(), generous());
    let at = |second| SkippedAt::new(&Tenant::default(), EPOCH_US / 1_000_000 + second);
    let skip = |calls| Batch { skipped: [(at(0), calls)].into(), ..Batch::default() };
    writer.write(EPOCH_US, &skip(3)).unwrap();
    writer.write(EPOCH_US, &skip(4)).unwrap();
    assert!(reader.was_skipped(at(0)));
    assert!(!reader.was_skipped(at(1)));
    assert!(!reader.was_skipped(at(3_600)));
}

fn in_hour(hour: u64, serial: u64) -> Kept {
    let mut kept = call(serial);
    kept.invocation.started_us += hour * HOUR_US;
    kept.invocation.id = InvocationId::from_parts(kept.invocation.started_us / 1_000, u128::from(serial));
    kept
}

#[test]
fn old_periods_go_whole_and_the_present_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let limits = TelemetryLimits { keep: Duration::from_secs(2 * 3_600), ..generous() };
    let (mut writer, reader) = open(dir.path(), limits);
    for hour in 0..5 {
        write(&mut writer, EPOCH_US + hour * HOUR_US, &[in_hour(hour, 1)]);
    }
    let bytes = writer.retain(EPOCH_US + 4 * HOUR_US + 1).unwrap();
    assert!(bytes > 0);
    let held: Vec<_> = (0..5).map(|hour| reader.find(in_hour(hour, 1).invocation.id).is_some()).collect();
    // The hour that ended less than two hours ago, and those after it.
    assert_eq!(held, [false, false, true, true, true]);
    writer.retain(u64::MAX).unwrap();
    assert!(reader.find(in_hour(4, 1).invocation.id).is_some());
    writer.close();
    reader.close();
    let files = std::fs::read_dir(dir.path().join("history")).unwrap().count();
    assert_eq!(files, 1, "no log is left beside the one file");
}

#[test]
fn a_busy_hour_is_split_and_its_oldest_part_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let limits = TelemetryLimits { disk_bytes: 2 << 20, ..generous() };
    let (mut writer, reader) = open(dir.path(), limits);
    for second in 0..120u64 {
        let mut calls = Vec::new();
        for n in 0..10 {
            let mut kept = call(second * 1_000 + n);
            kept.logs[0].text = "x".repeat(5_000).into();
            calls.push(kept);
        }
        let now_us = EPOCH_US + second * 1_000_000 + 500_000;
        write(&mut writer, now_us, &calls);
        let bytes = writer.retain(now_us).unwrap();
        assert!(bytes <= 2 << 20, "{bytes}");
    }
    assert!(reader.find(id_of(119_000)).is_some());
    assert!(reader.find(id_of(0)).is_none());
    let oldest = (0..120).find(|second| reader.find(id_of(second * 1_000)).is_some()).unwrap();
    assert!((40..115).contains(&oldest), "{oldest}");
    // What is left is whole.
    assert!((oldest..120).all(|second| reader.find(id_of(second * 1_000 + 9)).is_some()));
}

#[test]
fn a_damaged_file_is_set_aside_and_costs_its_period_only() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path(), generous());
    for hour in 0..2 {
        let calls: Vec<_> = (0..50).map(|serial| in_hour(hour, serial)).collect();
        write(&mut writer, EPOCH_US + hour * HOUR_US, &calls);
    }
    writer.close();
    reader.close();
    let path = dir.path().join("history/2026-01-01T00-00-00Z.db");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 3]).unwrap();
    let (mut writer, reader) = open(dir.path(), generous());
    // Found by a reader, or else by the writer: either way the next write goes through.
    let _ = reader.find(in_hour(0, 40).invocation.id);
    write(&mut writer, EPOCH_US + HOUR_US, &[in_hour(0, 60)]);
    assert!(reader.find(in_hour(0, 60).invocation.id).is_some());
    assert!(reader.find(in_hour(1, 49).invocation.id).is_some());
    let names = std::fs::read_dir(dir.path().join("history")).unwrap();
    let damaged =
        names.filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().contains(".db.damaged-"));
    assert_eq!(damaged.count(), 1);
}
