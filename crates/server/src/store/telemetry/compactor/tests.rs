use std::path::Path;

use fp_core::query::{Calls, Key, Query, Seen, Totals};
use fp_core::record::{LogLine, LogSource, Span, SpanEvent, Trigger};
use fp_core::settings::Criticality;
use fp_core::{FunctionName, InvocationId, Outcome, SpanId, Tenant, TraceId, WorkerId};
use proptest::prelude::*;

use super::super::tests::{generous, open, trace, write};
use super::super::{Batch, NewRow, RowQuery, SkippedAt, Stretch, TelemetryReader, TelemetryWriter};
use super::*;
use crate::history::tests::{EPOCH_US, call};

const SEGMENT: Segment = Segment(EPOCH_US / 1_000_000);

fn skipped_at(second: u64) -> SkippedAt {
    SkippedAt::new(&Tenant::default(), SEGMENT.0 + second)
}

/// A directory with its writer and reader.
struct Store {
    dir: tempfile::TempDir,
    writer: TelemetryWriter,
    reader: TelemetryReader,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (writer, reader) = open(dir.path(), generous());
        Self { dir, writer, reader }
    }

    fn write(&mut self, calls: &[Kept]) {
        write(&mut self.writer, EPOCH_US, calls);
    }

    fn amend(&mut self, call: &Kept, outcome: Outcome) {
        let late = NewRow { kept: call, send_ns: 77_000, outcome, weight: 3 };
        self.writer.write(EPOCH_US, &Batch { amendments: vec![late], ..Batch::default() }).unwrap();
    }

    fn skip(&mut self, second: u64) {
        let batch = Batch { skipped: [(skipped_at(second), 1)].into(), ..Batch::default() };
        self.writer.write(EPOCH_US, &batch).unwrap();
    }

    fn compact(&self) -> Compacted {
        Compactor::new(self.reader.segments.clone()).compact(SEGMENT, &mut || true).unwrap()
    }

    fn blocks(&self) -> std::path::PathBuf {
        self.reader.segments.blocks_path(SEGMENT)
    }

    fn files(&self) -> Vec<String> {
        names(&self.dir.path().join("history"))
    }

    fn ask(&self, question: &str) -> Vec<Total> {
        totals_of(question, |query, totals| {
            let stretch = Stretch { segment: SEGMENT, from_us: 0, to_us: u64::MAX };
            assert!(self.reader.total(stretch, query, totals, &mut || true));
        })
    }

    /// Everything that can be asked about these calls.
    fn answers(&self, calls: &[Kept]) -> Answers {
        let lists = queries().map(|query| {
            let mut found = Vec::new();
            self.reader.visit(SEGMENT, &query, |call| {
                // Rows leave the glob to the visitor.
                if query.event_type.is_none_or(|glob| fp_core::glob::matches(glob, &call.event_type)) {
                    found.push(call);
                }
                true
            });
            found
        });
        let by_id = |call: &Kept| self.reader.find(call.invocation.id);
        let by_trace = |call: &Kept| {
            let mut calls = trace(&self.reader, call.invocation.trace_id, Some(EPOCH_US));
            calls.sort_by_key(|call| call.invocation.id);
            calls
        };
        Answers {
            lists: lists.into(),
            found: calls.iter().step_by(3).map(by_id).collect(),
            traces: calls.iter().step_by(3).map(by_trace).collect(),
            totals: QUESTIONS.map(|question| self.ask(question)).into(),
            skipped: (0..20).map(|second| self.reader.was_skipped(skipped_at(second))).collect(),
        }
    }
}

#[derive(Debug, PartialEq)]
struct Answers {
    lists: Vec<Vec<fp_core::Invocation>>,
    found: Vec<Option<Kept>>,
    traces: Vec<Vec<Kept>>,
    totals: Vec<Vec<Total>>,
    skipped: Vec<bool>,
}

/// A row of an answer, without the slowest call: of several that are equally slow it is any.
type Total = (Vec<Key>, u64, u64, Option<u64>, Option<f64>);

/// Every field, every kind of test and of group.
const QUESTIONS: [&str; 12] = [
    "group by function, tenant, outcome, reason of phase.run",
    "outcome != ok and phase.queue > 1us group by time(7ms), blame of phase.queue",
    "cold or not latency_met group by latency_met, cold, caller_was_short of cpu",
    "error = none and limit_hit != none group by error, limit_hit, degraded of deadline",
    "path ~ /cats/* or verb in (GET, PUT) group by event_type, verb, path, trigger",
    "worker != none group by worker, version, criticality of memory_peak",
    "worker > 0 group by called_by, deadline_from of request_bytes",
    "status >= 500 or attempts > 1 group by status, attempts, queue_length of response_bytes",
    "not (duration < 2ms and function = dogs) group by weight of log_bytes",
    "function = dogs group by correlation_id of phase.send",
    "phase.start > 0 and send <= 50us group by time(1s) of phase.route",
    "latency_met = none and correlation_id !~ *a* of worker",
];

fn seen() -> Vec<Seen> {
    let seen = |tenant, from_us| Seen { tenant, from_us, to_us: EPOCH_US + 5_000_000 };
    vec![seen(Tenant::default(), EPOCH_US + 1_000), seen("other".parse().unwrap(), EPOCH_US + 2_000_000)]
}

fn totals_of(question: &str, add: impl FnOnce(&Query, &mut Totals<'_>)) -> Vec<Total> {
    let query = Query::parse(&format!("{question} limit 5000")).unwrap();
    let mut totals = Totals::new(&query, seen());
    add(&query, &mut totals);
    let mut rows: Vec<Total> = (totals.into_rows().unwrap().0.into_iter())
        .map(|row| (row.key, row.count, row.failed, row.spread.max(), row.spread.percentile(900)))
        .collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn queries() -> [RowQuery<'static>; 9] {
    use std::sync::LazyLock;
    static NAMES: LazyLock<(Tenant, Tenant, FunctionName)> =
        LazyLock::new(|| (Tenant::default(), "other".parse().unwrap(), "dogs".parse().unwrap()));
    let (tenant, other, dogs) = &*NAMES;
    let all = RowQuery {
        tenant,
        function: None,
        outcome: None,
        event_type: None,
        from_us: 0,
        to_us: u64::MAX,
        min_us: None,
        max_us: None,
    };
    [
        all,
        RowQuery { tenant: other, ..all },
        RowQuery { function: Some(dogs), ..all },
        RowQuery { outcome: Some("shed"), ..all },
        RowQuery { outcome: Some("ok"), min_us: Some(2_000), ..all },
        RowQuery { max_us: Some(1_000), ..all },
        RowQuery { from_us: EPOCH_US + 2_000_000, to_us: EPOCH_US + 4_000_000, ..all },
        RowQuery { event_type: Some("http|*|/cats/*"), ..all },
        RowQuery { function: Some(dogs), outcome: Some("function_error"), ..all },
    ]
}

/// Calls with something different in every field; several at the same microsecond, in one trace.
fn any_call() -> impl Strategy<Value = Kept> {
    let text = || proptest::option::of("[a-zé\u{0}\"]{0,12}");
    let choices = (0usize..18, 0u8..4, any::<bool>(), 0u64..3, any::<u8>());
    let times = (0u64..6_000, 0u64..4, any::<[u32; 5]>(), 0u64..9);
    (choices, times, any::<[u64; 3]>(), [text(), text(), text(), text()], "[0-9a-f]{0,40}").prop_map(
        |((outcome, kind, yes, worker, small), (ms, us, phases, trace), random, texts, correlation)| {
            let mut kept = call(ms);
            let invocation = &mut kept.invocation;
            invocation.started_us = EPOCH_US + ms * 1_000 + us;
            let made_ms = invocation.started_us / 1_000 + u64::from(small % 3) - 1;
            invocation.id =
                InvocationId::from_parts(made_ms.max(EPOCH_US / 1_000), u128::from(random[0]) << 7);
            invocation.trace_id = match trace {
                0..3 => TraceId([trace as u8 + 1; 16]),
                3..6 => TraceId::from_parts(EPOCH_US / 1_000, trace.into()),
                _ => TraceId::from_parts(invocation.started_us / 1_000, random[1].into()),
            };
            invocation.outcome = Outcome::ALL[outcome];
            invocation.blame = invocation.outcome.blame(yes);
            invocation.caller_was_short = yes;
            invocation.tenant = if kind == 1 { "other".parse().unwrap() } else { Tenant::default() };
            invocation.function = if kind > 1 { "dogs" } else { "cats" }.parse().unwrap();
            if kind == 3 {
                invocation.event_type = "http|POST|/dogs".into();
                invocation.trigger = Trigger::Async;
                invocation.criticality = Criticality::Sheddable;
                invocation.called_by = Some("front".parse().unwrap());
                let (trace_id, span_id) = (invocation.trace_id, SpanId::from_random(random[1]));
                invocation.link = Some(fp_core::record::Link { trace_id, span_id });
            }
            invocation.parent_span_id = yes.then(|| SpanId::from_random(random[2]));
            invocation.span_id = SpanId::from_random(random[1]);
            let [route, queue, start, run, _] = phases.map(u64::from);
            invocation.phases = fp_core::record::Phases { route, queue, start, run, send: 0 };
            invocation.worker =
                worker.checked_sub(1).map(|id| if yes { u64::MAX / 2 } else { id }).map(WorkerId);
            invocation.correlation_id = correlation.into();
            invocation.status = 200 + u16::from(small);
            invocation.latency_met = [None, Some(false), Some(true)][worker as usize];
            // Rows hold nothing larger.
            invocation.memory_peak_kib = random[0] >> (1 + small % 63);
            let [error, limit_hit, degraded, result] = texts.map(|text| text.map(Into::into));
            invocation.error = error;
            invocation.limit_hit = limit_hit;
            invocation.degraded = degraded;
            kept.result = result;
            kept.logs = (0..small % 3).map(|n| line(ms * 1_000 + u64::from(n) * 7, yes)).collect();
            kept.spans = (0..small % 2).map(|_| span(random[0])).collect();
            kept
        },
    )
}

fn line(after_us: u64, yes: bool) -> LogLine {
    let (source, level) =
        if yes { (LogSource::Logging, Some("INFO".into())) } else { (LogSource::Stdout, None) };
    LogLine { time_us: EPOCH_US + after_us, source, level, text: "hällo \"you\"\n".into() }
}

fn span(random: u64) -> Span {
    Span {
        span_id: SpanId::from_random(random),
        parent_span_id: Some(SpanId::from_random(!random)),
        name: "s".into(),
        start_ns: EPOCH_US * 1_000 + 12,
        duration_ns: random / 2,
        attributes: vec![("b".into(), serde_json::json!([1, {"x": null}])), ("a".into(), "\u{0}".into())],
        events: vec![SpanEvent { time_ns: 14, name: "e".into(), attributes: vec![("k".into(), 1.5.into())] }],
        error: random.is_multiple_of(2).then(|| "boom".into()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn compacted_history_answers_as_rows_do(
        calls in proptest::collection::vec(any_call(), 1..60),
        late in proptest::collection::vec(any_call(), 0..20),
        amended in proptest::collection::vec(0usize..60, 0..5),
        seconds in proptest::collection::vec(0u64..20, 0..4),
    ) {
        let (mut rows, mut compacted) = (Store::new(), Store::new());
        for store in [&mut rows, &mut compacted] {
            store.write(&calls);
            seconds.iter().for_each(|second| store.skip(*second));
        }
        prop_assert!(compacted.compact().whole);
        prop_assert_eq!(compacted.files(), ["2026-01-01T00-00-00Z.blocks"]);
        let answers = rows.answers(&calls);
        prop_assert_eq!(&answers, &compacted.answers(&calls));
        // Call by call, of both tenants.
        let one_by_one = answers.lists[..2].concat();
        for (question, totals) in QUESTIONS.iter().zip(answers.totals) {
            let plainly = totals_of(question, |_, totals| totals.add(&Calls(&one_by_one)).unwrap());
            prop_assert_eq!(plainly, totals, "{}", question);
        }

        // What comes late: new calls, the same once more, and what was learnt later of others.
        let all = [&calls[..], &late[..]].concat();
        for store in [&mut rows, &mut compacted] {
            store.write(&late);
            store.write(&calls[..1]);
            for place in &amended {
                store.amend(&calls[place % calls.len()], Outcome::Cancelled);
            }
        }
        prop_assert_eq!(rows.answers(&all), compacted.answers(&all));
        prop_assert!(compacted.compact().whole);
        prop_assert_eq!(rows.answers(&all), compacted.answers(&all));
    }
}

fn some_calls(count: u64) -> Vec<Kept> {
    (0..count).map(call).collect()
}

#[test]
fn rows_that_a_kill_left_beside_their_blocks_count_once() {
    let mut store = Store::new();
    let calls = some_calls(50);
    store.write(&calls);
    store.skip(3);
    let before = store.answers(&calls);
    let kill_copy = tempfile::tempdir().unwrap();
    store.writer.close();
    store.reader.close();
    let rows = store.reader.segments.path(SEGMENT);
    std::fs::copy(&rows, kill_copy.path().join("rows")).unwrap();
    store.compact();
    std::fs::copy(kill_copy.path().join("rows"), &rows).unwrap();
    let (writer, reader) = open(store.dir.path(), generous());
    let store = Store { dir: store.dir, writer, reader };
    assert_eq!(store.answers(&calls), before);
    assert!(store.compact().whole);
    assert_eq!(store.answers(&calls), before);
}

#[test]
fn stopping_leaves_the_rows_and_nothing_else() {
    let mut store = Store::new();
    let calls = some_calls(50);
    store.write(&calls);
    let before = store.answers(&calls);
    let result = Compactor::new(store.reader.segments.clone()).compact(SEGMENT, &mut || false);
    assert!(matches!(result, Err(CompactError::Stopped)));
    assert_eq!(store.answers(&calls), before);
    store.writer.close();
    store.reader.close();
    assert_eq!(store.files(), ["2026-01-01T00-00-00Z.db"]);
}

#[test]
fn a_segment_that_goes_meanwhile_leaves_nothing_unfinished() {
    let mut store = Store::new();
    store.write(&some_calls(40));
    let segments = store.reader.segments.clone();
    let compactor = Compactor::new(segments.clone());
    let done = compactor.compact(SEGMENT, &mut || {
        // As retention does, but for the files: they stay for this test to see.
        segments.forget_rows(SEGMENT);
        true
    });
    assert!(!done.unwrap().whole);
    assert!(store.files().iter().all(|name| !name.ends_with("unfinished")), "{:?}", store.files());
}

#[test]
fn blocks_wait_for_readers_without_holding_up_others() {
    let mut store = Store::new();
    store.write(&some_calls(3));
    let segments = store.reader.segments.clone();
    std::fs::write(segments.unfinished_path(SEGMENT), "").unwrap();
    let reading = segments.hold_still();
    let putting = std::thread::spawn({
        let segments = segments.clone();
        move || segments.put_blocks(SEGMENT, || false).unwrap()
    });
    let until = std::time::Instant::now() + Duration::from_millis(50);
    while std::time::Instant::now() < until {
        assert!(segments.can_be_held_still(), "another reader had to wait");
        std::thread::yield_now();
    }
    drop(reading);
    assert!(putting.join().unwrap());
}

#[test]
fn a_block_ends_when_its_spans_are_large() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = BlocksWriter::create(&dir.path().join("x")).unwrap();
    let mut kept = call(1);
    let mut large = span(1);
    large.attributes = vec![("key".into(), "v".repeat(9 << 20).into())];
    kept.spans = vec![large];
    assert!(writer.push(kept).unwrap());
}

#[test]
fn rows_that_come_meanwhile_stay_beside_the_blocks() {
    let mut store = Store::new();
    let calls = some_calls(40);
    store.write(&calls);
    let compactor = Compactor::new(store.reader.segments.clone());
    let late = call(100);
    let Store { writer, reader, .. } = &mut store;
    let done = compactor.compact(SEGMENT, &mut || {
        write(writer, EPOCH_US, std::slice::from_ref(&late));
        true
    });
    assert!(!done.unwrap().whole);
    assert!(calls.iter().chain([&late]).all(|call| reader.find(call.invocation.id).is_some()));
    assert!(store.compact().whole);
    assert_eq!(store.files(), ["2026-01-01T00-00-00Z.blocks"]);
    assert!(store.reader.find(late.invocation.id).is_some());
}

#[test]
fn a_segment_is_compacted_a_while_after_its_end_and_when_late_rows_have_rested() {
    let mut store = Store::new();
    let next = |store: &Store, after: u64| {
        let compactor = Compactor::new(store.reader.segments.clone());
        compactor.next(EPOCH_US + after * 1_000_000, |_| true)
    };
    store.write(&some_calls(1));
    assert_eq!(next(&store, 3_600 + 299), None);
    assert_eq!(next(&store, 3_600 + 300), Some(SEGMENT));
    store.compact();
    assert_eq!(next(&store, 7_200), None);
    store.write(&[call(7)]);
    assert_eq!(next(&store, 7_200), None, "the late row was written just now");
}

#[test]
fn retention_takes_blocks_as_it_takes_rows() {
    let mut store = Store::new();
    store.write(&some_calls(10));
    store.compact();
    let mut other = call(0);
    other.invocation.started_us += 3_600_000_000;
    store.write(&[other]);
    let bytes = store.writer.retain(EPOCH_US).unwrap();
    assert!(bytes > std::fs::metadata(store.blocks()).unwrap().len());
    store.writer.retain(u64::MAX).unwrap();
    assert!(!store.blocks().exists());
    assert!(store.reader.find(call(0).invocation.id).is_none());
}

#[test]
fn damaged_blocks_are_set_aside_and_never_believed() {
    let mut store = Store::new();
    let calls = some_calls(20);
    store.write(&calls);
    store.compact();
    let sound = std::fs::read(store.blocks()).unwrap();
    let mut aside = 0;
    for at in (0..sound.len()).step_by(sound.len() / 60) {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        std::fs::write(store.blocks(), bytes).unwrap();
        let (_, reader) = open(store.dir.path(), generous());
        for call in calls.iter().step_by(4) {
            let found = reader.find(call.invocation.id);
            let mut sent = call.clone();
            (sent.invocation.phases.send, sent.invocation.weight) = (5, 3);
            assert!(found.is_none() || found == Some(sent));
        }
        aside += usize::from(!store.blocks().exists());
    }
    assert!(aside > 30, "{aside}");
}
