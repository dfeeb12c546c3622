use std::time::Duration;

use fp_core::deadline::DeadlineFrom;
use fp_core::record::{Invocation, LogLine, LogSource, Phases, Span, Trigger};
use fp_core::settings::Criticality;
use fp_core::{FunctionName, SpanId, VersionNumber};

use super::*;

/// When the calls of these tests begin: 2026-01-01T00:00:00Z.
pub(crate) const EPOCH_US: u64 = 1_767_225_600_000_000;

fn mix(serial: u64) -> u128 {
    u128::from(serial.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

/// The id of the n-th call; calls arrive a millisecond apart.
pub(crate) fn id_of(serial: u64) -> InvocationId {
    InvocationId::from_parts(EPOCH_US / 1_000 + serial, mix(serial))
}

pub(crate) fn trace_of(serial: u64) -> TraceId {
    TraceId::from_parts(EPOCH_US / 1_000 + serial, mix(serial))
}

/// The n-th call: 2.5 ms, answered well.
pub(crate) fn call(serial: u64) -> Kept {
    let invocation = Invocation {
        id: id_of(serial),
        tenant: Tenant::default(),
        function: "cats".parse().unwrap(),
        version: VersionNumber(2),
        event_type: "http|GET|/cats/{id}".into(),
        trigger: Trigger::Http,
        verb: "GET".into(),
        path: format!("/cats/{serial}").into(),
        correlation_id: "corrélation".into(),
        trace_id: trace_of(serial),
        span_id: SpanId::from_random(serial + 1),
        parent_span_id: None,
        called_by: None,
        link: None,
        started_us: EPOCH_US + serial * 1_000,
        phases: Phases { route: 100_000, queue: 200_000, start: 0, run: 2_200_000, send: 0 },
        outcome: Outcome::Ok,
        blame: None,
        caller_was_short: false,
        status: 200,
        error: None,
        cold: false,
        attempts: 1,
        worker: Some(WorkerId(7)),
        criticality: Criticality::Default,
        deadline_ms: 60_000,
        deadline_from: DeadlineFrom::Timeout,
        queue_length: 0,
        request_bytes: 10,
        response_bytes: 20,
        log_bytes: 6,
        cpu_us: 30,
        memory_peak_kib: 40,
        limit_hit: None,
        latency_met: None,
        degraded: None,
        weight: 1,
    };
    let line = LogLine {
        time_us: invocation.started_us,
        source: LogSource::Stdout,
        level: None,
        text: "hällo\n".into(),
    };
    Kept { invocation, spans: Vec::new(), logs: vec![line], result: None }
}

pub(crate) fn running(serial: u64) -> Running {
    let Invocation { id, tenant, function, version, event_type, trigger, verb, path, .. } =
        call(serial).invocation;
    Running {
        id,
        tenant,
        function,
        version,
        event_type,
        trigger,
        verb,
        path,
        correlation_id: "c".into(),
        trace_id: trace_of(serial),
        span_id: SpanId::from_random(serial + 1),
        parent_span_id: None,
        called_by: None,
        started_us: EPOCH_US + serial * 1_000,
        criticality: Criticality::Default,
        deadline_ms: 60_000,
        deadline_from: DeadlineFrom::Timeout,
    }
}

fn failed(serial: u64) -> Kept {
    let mut kept = call(serial);
    kept.invocation.outcome = Outcome::FunctionError;
    kept.invocation.blame = Outcome::FunctionError.blame(false);
    kept.invocation.status = 500;
    kept
}

fn open(dir: &tempfile::TempDir) -> History {
    History::open(&HistoryConfig::default(), dir.path(), Clock::start()).unwrap()
}

fn ids(page: &Page) -> Vec<InvocationId> {
    page.items
        .iter()
        .map(|entry| match entry {
            Entry::Running(view) => view.running.id,
            Entry::Done(invocation) => invocation.id,
        })
        .collect()
}

fn tenant() -> Tenant {
    Tenant::default()
}

#[tokio::test]
async fn a_call_is_visible_from_its_arrival_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir);
    history.begin(running(1));
    let Lookup::Running(view) = history.get(&tenant(), id_of(1)).await else { panic!() };
    assert_eq!((view.state, view.worker), (fp_core::record::State::Queued, None));
    history.set_running(id_of(1), WorkerId(7));
    let Lookup::Running(view) = history.get(&tenant(), id_of(1)).await else { panic!() };
    assert_eq!((view.state, view.worker), (fp_core::record::State::Running, Some(WorkerId(7))));

    let finished = history.finish(call(1));
    assert_eq!(history.get(&tenant(), id_of(1)).await, Lookup::Done(Arc::new(call(1))));
    finished.sent(5_000, Some(Outcome::Cancelled));
    let Lookup::Done(kept) = history.get(&tenant(), id_of(1)).await else { panic!() };
    assert_eq!(kept.invocation.phases.send, 5_000);
    assert_eq!(kept.invocation.outcome, Outcome::Cancelled);
    assert_eq!(kept.invocation.blame, Outcome::Cancelled.blame(false));

    let other: Tenant = "other".parse().unwrap();
    assert_eq!(history.get(&other, id_of(1)).await, Lookup::Unknown);
    assert_eq!(history.get(&tenant(), id_of(2)).await, Lookup::Unknown);
    assert_eq!(history.status().running, 0);

    history.begin_on(running(3), WorkerId(7));
    let Lookup::Running(view) = history.get(&tenant(), id_of(3)).await else { panic!() };
    assert_eq!((view.state, view.worker), (fp_core::record::State::Running, Some(WorkerId(7))));
    // One that was refused at once had never begun.
    history.finish(call(4)).sent(1, None);
    assert_eq!(history.status().running, 1);
    assert!(matches!(history.get(&tenant(), id_of(4)).await, Lookup::Done(_)));
}

#[tokio::test]
async fn lists_are_in_order_of_arrival_and_page_without_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir);
    // They end in another order than they arrived in.
    for serial in [5, 3, 9, 1, 7] {
        history.finish(call(serial));
    }
    for serial in [4, 8] {
        history.begin(running(serial));
    }
    let mut filter = Filter { limit: 3, ..Filter::default() };
    let mut seen = Vec::new();
    loop {
        let page = history.list(&tenant(), &filter).await;
        seen.extend(ids(&page));
        let Some(next) = page.next else { break };
        assert_eq!(page.items.len(), 3);
        filter.cursor = Some(next.to_string().parse().unwrap());
    }
    assert_eq!(seen, [9, 8, 7, 5, 4, 3, 1].map(id_of));
    assert!("1.2".parse::<Cursor>().is_err());
}

#[tokio::test]
async fn every_part_of_a_filter_must_hold() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir);
    for serial in 0..10 {
        history.finish(if serial % 2 == 0 { call(serial) } else { failed(serial) });
    }
    let mut slow = failed(10);
    slow.invocation.function = "dogs".parse().unwrap();
    slow.invocation.event_type = "http|POST|/dogs".into();
    slow.invocation.phases.run = 1_000_000_000;
    history.finish(slow);
    history.begin(running(11));
    let list = async |filter: Filter| ids(&history.list(&tenant(), &filter).await);

    let errors = Filter { outcome: Some("function_error".into()), limit: 2, ..Filter::default() };
    assert_eq!(list(errors).await, [10, 9].map(id_of));
    let dogs: Option<FunctionName> = Some("dogs".parse().unwrap());
    assert_eq!(list(Filter { function: dogs, ..Filter::default() }).await, [id_of(10)]);
    let glob = Filter { event_type: Some("http|*|/d*".into()), ..Filter::default() };
    assert_eq!(list(glob).await, [id_of(10)]);
    let long = Filter { min_duration: Some(Duration::from_millis(3)), ..Filter::default() };
    assert_eq!(list(long).await, [id_of(10)]);
    let short = Filter { max_duration: Some(Duration::from_millis(3)), limit: 1, ..Filter::default() };
    assert_eq!(list(short).await, [id_of(9)]);
    let between =
        Filter { since_us: Some(EPOCH_US + 3_000), until_us: Some(EPOCH_US + 5_000), ..Filter::default() };
    assert_eq!(list(between).await, [4, 3].map(id_of));
    assert_eq!(list(Filter { limit: 2, ..Filter::default() }).await, [11, 10].map(id_of));
    let other: Tenant = "other".parse().unwrap();
    assert_eq!(history.list(&other, &Filter::default()).await.items, []);
}

#[tokio::test]
async fn a_tenant_sees_its_own_calls_and_none_of_an_earlier_one_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir);
    let acme: Tenant = "acme".parse().unwrap();
    let theirs = |serial| {
        let mut kept = call(serial);
        kept.invocation.tenant = acme.clone();
        kept
    };
    history.show_tenant(&acme, EPOCH_US);
    history.finish(theirs(1));
    history.finish(theirs(2));
    history.finish(call(3));
    let seen = async |history: &History| {
        let listed = ids(&history.list(&acme, &Filter::default()).await);
        for serial in [1, 2, 3] {
            let by_id = matches!(history.get(&acme, id_of(serial)).await, Lookup::Done(_));
            let by_trace = history.trace(&acme, trace_of(serial)).await.is_some();
            assert_eq!((by_id, by_trace), (listed.contains(&id_of(serial)), listed.contains(&id_of(serial))));
        }
        listed
    };
    assert_eq!(seen(&history).await, [id_of(2), id_of(1)]);
    assert!(history.ring_bytes_of(&acme) > 0);
    history.hide_tenant(&acme);
    assert_eq!(seen(&history).await, []);
    history.finish(theirs(4));
    assert_eq!(history.ring_bytes_of(&acme), 0, "of a tenant that is no more nothing is kept in memory");
    assert_eq!(ids(&history.list(&tenant(), &Filter::default()).await), [id_of(3)]);
    history.close().await;
    drop(history);
    // What came before its end is on disk.
    let history = open(&dir);
    assert_eq!(seen(&history).await, [], "nobody has said that there is such a tenant");
    history.show_tenant(&acme, EPOCH_US + 2_000);
    assert_eq!(seen(&history).await, [id_of(2)]);
    let before = theirs(1);
    assert!(before.invocation.started_us < EPOCH_US + 2_000);
    history.finish(before);
    assert_eq!(
        history.ring_bytes_of(&acme),
        0,
        "a call of the earlier one takes none of the later one's room"
    );
}

#[tokio::test]
async fn a_trace_is_the_tenants_own_calls_and_not_any_number_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir);
    let acme: Tenant = "acme".parse().unwrap();
    history.show_tenant(&acme, EPOCH_US);
    for serial in 0..3_000 {
        let mut kept = call(serial);
        kept.invocation.trace_id = trace_of(0);
        if serial % 10 == 0 {
            kept.invocation.tenant = acme.clone();
        }
        history.finish(kept);
    }
    let theirs = history.trace(&acme, trace_of(0)).await.unwrap();
    assert_eq!(theirs.len(), 300);
    assert!(theirs.iter().all(|call| call.kept.invocation.tenant == acme));
    assert_eq!(history.trace(&tenant(), trace_of(0)).await.unwrap().len(), 2_000);
    let late = history.inner.trace(&tenant(), trace_of(0), Instant::now());
    assert_eq!(late.len(), 0, "the time was up before it began");
}

#[tokio::test]
async fn a_query_has_its_turn_until_it_ends_also_when_nobody_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir);
    let (go_on, held) = std::sync::mpsc::channel::<()>();
    let (began, has_begun) = tokio::sync::oneshot::channel();
    {
        let query = history.in_background(move |_| {
            began.send(()).unwrap();
            let _ = held.recv();
        });
        tokio::select! {
            _ = query => panic!("it is held"),
            begun = has_begun => begun.unwrap(),
        }
    }
    assert_eq!(history.queries.available_permits(), QUERIES - 1);
    drop(go_on);
    let all = history.queries.acquire_many(QUERIES as u32).await;
    assert!(all.is_ok(), "it has ended");
}

#[tokio::test]
async fn a_trace_is_all_its_calls_in_order_of_arrival() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir);
    for serial in [2, 1, 3] {
        let mut kept = if serial == 3 { failed(serial) } else { call(serial) };
        kept.invocation.trace_id = trace_of(77);
        kept.spans.push(Span {
            span_id: SpanId::from_random(100 + serial),
            parent_span_id: None,
            name: "print-headers".into(),
            start_ns: 1,
            duration_ns: 2,
            attributes: vec![("key".into(), serde_json::json!({"a": [1, "b"]}))],
            events: Vec::new(),
            error: None,
        });
        history.finish(kept);
    }
    history.finish(call(4));
    let trace = history.trace(&tenant(), trace_of(77)).await.unwrap();
    let order: Vec<_> = trace.iter().map(|entry| entry.kept.invocation.id).collect();
    assert_eq!(order, [1, 2, 3].map(id_of));
    // Root, route, queue, start (of no length), run and the author's.
    assert_eq!(trace[0].spans().len(), 6);
    assert_eq!(history.trace(&tenant(), trace_of(78)).await, None);

    let found = history.search_traces(&tenant(), &Filter { limit: 5, ..Filter::default() }).await;
    assert_eq!(found.iter().map(|summary| summary.trace_id).collect::<Vec<_>>(), [trace_of(4), trace_of(77)]);
    let chain = &found[1];
    assert_eq!((chain.calls, chain.spans, chain.errors), (3, 18, 2));
    assert_eq!(chain.name, "GET /cats/{id}");
    assert_eq!((chain.started_us, chain.duration_us), (EPOCH_US + 1_000, 4_500));
    assert_eq!(chain.functions, [("cats".parse().unwrap(), 18)]);
    let failed = Filter { outcome: Some("function_error".into()), ..Filter::default() };
    assert_eq!(history.search_traces(&tenant(), &failed).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_on_many_threads_are_visible_the_moment_they_end() {
    let dir = tempfile::tempdir().unwrap();
    let history = Arc::new(open(&dir));
    let tasks: Vec<_> = (0..4u64)
        .map(|thread| {
            let history = history.clone();
            tokio::spawn(async move {
                for serial in (0..500).map(|n| n * 4 + thread) {
                    history.begin(running(serial));
                    history.set_running(id_of(serial), WorkerId(1));
                    let finished = history.finish(call(serial));
                    let found = history.get(&tenant(), id_of(serial)).await;
                    assert!(matches!(found, Lookup::Done(_)), "{serial}: {found:?}");
                    finished.sent(1, None);
                    if serial % 100 == 0 {
                        let page = history.list(&tenant(), &Filter::default()).await;
                        assert!(!page.items.is_empty());
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let status = history.status();
    assert_eq!((status.ring_calls, status.running), (2_000, 0));
}

#[tokio::test]
async fn a_graceful_stop_loses_nothing_and_disk_continues_where_memory_ends() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir);
    // Far more than the ring of the second start will hold, all of the present hour.
    let now = Clock::start().wall_now_us() / 1_000 * 1_000 - 1_000_000;
    let at_now = |serial: u64| {
        let mut kept = call(serial);
        kept.invocation.started_us = now + serial * 1_000;
        kept.invocation.id = InvocationId::from_parts(now / 1_000 + serial, mix(serial));
        kept
    };
    for serial in 0..100 {
        // No sent(): the answers were on their way when the platform stopped.
        history.finish(at_now(serial));
    }
    history.close().await;
    let history = open(&dir);
    let status = history.status();
    assert_eq!((status.ring_calls, status.disk.clone(), status.dropped), (0, DiskState::On, 0));
    for serial in [0, 50, 99] {
        let id = at_now(serial).invocation.id;
        assert_eq!(history.get(&tenant(), id).await, Lookup::Done(Arc::new(at_now(serial))));
        let other: Tenant = "other".parse().unwrap();
        assert_eq!(history.get(&other, id).await, Lookup::Unknown);
    }
    for serial in 100..110 {
        history.finish(at_now(serial));
    }
    let mut filter = Filter { limit: 30, ..Filter::default() };
    let mut seen = Vec::new();
    loop {
        let page = history.list(&tenant(), &filter).await;
        seen.extend(ids(&page));
        filter.cursor = page.next;
        if page.next.is_none() {
            break;
        }
    }
    let all: Vec<_> = (0..110).rev().map(|serial| at_now(serial).invocation.id).collect();
    assert_eq!(seen, all);
    let trace = history.trace(&tenant(), trace_of(7)).await.unwrap();
    assert_eq!(trace[0].kept.invocation.id, at_now(7).invocation.id);
    let found = history.search_traces(&tenant(), &Filter { limit: 200, ..Filter::default() }).await;
    assert_eq!(found.len(), 110);
}

#[tokio::test]
async fn a_search_that_takes_too_long_goes_on_with_the_next_page() {
    let dir = tempfile::tempdir().unwrap();
    let config = HistoryConfig { keep: Duration::from_secs(1 << 40), ..HistoryConfig::default() };
    let at_hour = |hour: u64, serial: u64| {
        let mut kept = call(serial);
        kept.invocation.started_us += hour * 3_600_000_000;
        kept
    };
    let history = History::open(&config, dir.path(), Clock::start()).unwrap();
    (0..5).for_each(|hour| drop(history.finish(at_hour(hour, hour))));
    history.close().await;
    let history = History::open(&config, dir.path(), Clock::start()).unwrap();
    let mut filter = Filter { limit: 2, ..Filter::default() };
    let (mut seen, mut pages) = (Vec::new(), 0);
    loop {
        // Every search is cut off at once, before it has looked at anything.
        let page = history.inner.list(&tenant(), &filter, Instant::now());
        assert!(page.items.is_empty());
        assert!(page.next.is_some_and(|next| filter.cursor.is_none_or(|last| next <= last)));
        // The next one may go on.
        filter.cursor = page.next;
        let page = history.inner.list(&tenant(), &filter, Instant::now() + Duration::from_secs(60));
        seen.extend(ids(&page));
        pages += 1;
        filter.cursor = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(pages, 3);
    assert_eq!(seen, [4, 3, 2, 1, 0].map(id_of));
}

#[tokio::test]
async fn what_was_sampled_out_is_in_memory_and_then_said_to_be_sampled_out() {
    let config = HistoryConfig { per_function_per_second: 3, ..HistoryConfig::default() };
    // A second that ends in between lets more through: then it is tried in the next one.
    let mut tries = 0;
    let (dir, history) = loop {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(&config, dir.path(), Clock::start()).unwrap();
        for serial in 0..10 {
            history.finish(call(serial));
        }
        if history.status().sampled_out == 7 {
            break (dir, history);
        }
        tries += 1;
        assert!(tries < 5, "{} of 10 were left out, not 7", history.status().sampled_out);
        history.close().await;
    };
    assert!(matches!(history.get(&tenant(), id_of(9)).await, Lookup::Done(_)));
    history.close().await;
    let history = History::open(&config, dir.path(), Clock::start()).unwrap();
    assert!(matches!(history.get(&tenant(), id_of(2)).await, Lookup::Done(_)));
    assert_eq!(history.get(&tenant(), id_of(9)).await, Lookup::SampledOut);
    assert_eq!(history.get(&tenant(), id_of(5_000)).await, Lookup::Unknown);
}

/// A call of a stream of 30,000 a second.
fn busy_call(serial: u64) -> (Running, Kept) {
    let started_us = EPOCH_US + serial * 33;
    let id = InvocationId::from_parts(started_us / 1_000, mix(serial));
    let kept = Kept { invocation: Invocation { id, started_us, ..call(serial).invocation }, ..call(serial) };
    (Running { id, started_us, ..running(serial) }, kept)
}

/// CPU time of this thread: other work on the machine does not count.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Run with `cargo test --release -p fp-server --lib -- --ignored --nocapture cost_of`. The
/// platform itself runs on mimalloc; with the C library's allocator this says more.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_call() {
    const CALLS: u64 = 300_000;
    const THREADS: u64 = 2;
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::start();
    let history = History::open(&HistoryConfig::default(), dir.path(), clock.clone()).unwrap();
    let book = crate::slo::FunctionBook::default();
    let record = |(running, kept): (Running, Kept)| {
        let (id, now) = (running.id, clock.now());
        history.begin(running);
        history.set_running(id, WorkerId(1));
        let (outcome, took) = (kept.invocation.outcome, Duration::from_micros(kept.invocation.duration_us()));
        let finished = history.finish(kept);
        book.record(now, clock.wall_us(now), outcome, false, took, false);
        finished.sent(1_000, None);
    };
    let run = |thread: u64| {
        let batch = |batch: u64| {
            // Making the records is not measured.
            let calls = (0..1_000).map(|n| busy_call((batch * 1_000 + n) * THREADS + thread));
            let calls: Vec<_> = calls.collect();
            let before = cpu_time();
            calls.into_iter().for_each(record);
            cpu_time() - before
        };
        (0..CALLS / 1_000).map(batch).sum::<Duration>()
    };
    let cost = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || run(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<Duration>()
    });
    println!("{} ns of CPU per call", cost.as_nanos() / u128::from(CALLS * THREADS));
    println!("{:?}", history.status());
}

/// A call that arrived now.
fn call_now(serial: u64, function: &str) -> Kept {
    let mut kept = call(serial);
    kept.invocation.function = function.parse().unwrap();
    kept.invocation.started_us = Clock::start().wall_now_us();
    kept
}

async fn counts(history: &History, question: &str) -> Vec<(String, u64)> {
    let query = fp_core::query::Query::parse(question).unwrap();
    let answer = history.ask(vec![tenant()], query, 0, u64::MAX).await.unwrap();
    assert!(answer.is_whole);
    let row = |row: &fp_core::query::Row| (format!("{:?}", row.key), row.count);
    answer.rows.iter().map(row).collect()
}

#[tokio::test]
async fn a_question_counts_each_call_once_wherever_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir);
    for serial in 0..5 {
        history.finish(call_now(serial, "cats")).sent(1_000, None);
    }
    // In the ring and on its way to the disk.
    assert_eq!(counts(&history, "").await, [("[]".to_owned(), 5)]);
    history.close().await;

    // On the disk only, and beside it what has come since.
    let history = open(&dir);
    assert_eq!(counts(&history, "").await, [("[]".to_owned(), 5)]);
    for serial in 5..8 {
        history.finish(call_now(serial, "dogs")).sent(1_000, None);
    }
    let of = |name: &str| format!("[Text(Some({name:?}))]");
    assert_eq!(counts(&history, "group by function").await, [(of("cats"), 5), (of("dogs"), 3)]);
    assert_eq!(counts(&history, "function = dogs").await, [("[]".to_owned(), 3)]);
    history.close().await;
}

#[tokio::test]
async fn a_question_sees_nothing_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir);
    let blue: Tenant = "blue".parse().unwrap();
    history.show_tenant(&blue, 0);
    let mut theirs = call_now(1, "cats");
    theirs.invocation.tenant = blue.clone();
    history.finish(theirs).sent(1_000, None);
    assert_eq!(counts(&history, "").await, []);
    let query = || fp_core::query::Query::parse("group by tenant").unwrap();
    let both = history.ask(vec![tenant(), blue.clone()], query(), 0, u64::MAX).await.unwrap();
    assert_eq!(both.rows.iter().map(|row| row.count).sum::<u64>(), 1);
    history.hide_tenant(&blue);
    assert!(history.ask(vec![blue], query(), 0, u64::MAX).await.unwrap().rows.is_empty());
    history.close().await;
}
