//! Sample data for tests: a platform in the middle of its day, an empty one, a hostile one.
//!
//! With `PAGES_OUT` set to a directory, the tests leave every sample page there to look at.

use std::time::Duration;

use fp_core::outcome::DeadlineReason;
use fp_core::record::{Kept, LogLine, LogSource, Phases, Span, SpanEvent, State, Trigger, phase_span_id};
use fp_core::settings::Criticality;
use fp_core::{Invocation, InvocationId, Outcome, SpanId, Tenant, TraceId, VersionNumber, WorkerId};

use super::overview::{Input, Summary};
use super::shell::Shell;
use super::workers::Worker;
use crate::history::{Entry, Running, RunningView, TraceSummary};
use crate::slo::{
    AlertView, BurnRate, FunctionView, LatencySloView, MinuteView, OutcomeCount, ReasonCount, SloView,
};

/// The samples' now: 2026-11-23 07:30:12 UTC.
pub(super) const NOW_US: u64 = 1_795_419_012_345_678;

pub(super) fn shell(current: &'static str) -> Shell {
    Shell {
        title: String::new(),
        current,
        api: if current == "Traces" { "http://localhost:8000".into() } else { String::new() },
        traces: if current == "Traces" { String::new() } else { "http://localhost:16686".into() },
        gateway: "http://127.0.0.1:5000".into(),
        api_uri: "http://127.0.0.1:8000".into(),
        live: true,
        signed_in: None,
        csrf_field: crate::http::csrf::FIELD,
        csrf_token: "0123456789abcdef0123456789abcdef".into(),
        warnings: Vec::new(),
        foot: vec![
            "functionsplatform 0.1.0".into(),
            "up for 3 h".into(),
            "history: 48,211 calls in memory (31.4 MiB), 212 MiB on disk".into(),
        ],
        css: super::assets::css_link(),
        js: super::assets::js_link(),
    }
}

/// A small generator, so that samples look alike in every run.
struct Draw(u64);

impl Draw {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// A call that arrived `seconds` after the samples' hour began.
pub(super) fn call(seconds: u64) -> Invocation {
    let started_us = NOW_US - 3_600_000_000 + seconds * 1_000_000;
    let mut draw = Draw(seconds * 77 + 5);
    let cold = draw.next(9) == 0;
    let phases = Phases {
        route: 30_000 + draw.next(40_000),
        queue: draw.next(400_000),
        start: if cold { 2_000_000 + draw.next(3_000_000) } else { 0 },
        run: 3_000_000 + draw.next(18_000_000),
        send: 20_000 + draw.next(60_000),
    };
    Invocation {
        id: InvocationId::from_parts(started_us / 1_000, u128::from(seconds) * 0x1234_5678_9abc_def1),
        tenant: Tenant::default(),
        function: "thumbs".parse().expect("a name"),
        version: VersionNumber(4),
        event_type: "http|POST|/thumbs/{id}".into(),
        trigger: Trigger::Http,
        verb: "POST".into(),
        path: format!("/thumbs/{}", 1_000 + seconds).into(),
        correlation_id: "8f2d6c1e-checkout".into(),
        trace_id: TraceId::from_parts(started_us / 1_000, u128::from(seconds) * 0x9e37_79b9_7f4a_7c15),
        span_id: SpanId::from_random(0xabc0_0000_0000_0000 + seconds * 256),
        parent_span_id: None,
        called_by: None,
        link: None,
        started_us,
        phases,
        outcome: Outcome::Ok,
        blame: None,
        caller_was_short: false,
        status: 200,
        error: None,
        cold,
        attempts: 1,
        worker: Some(WorkerId(17)),
        criticality: Criticality::Default,
        deadline_ms: 60_000,
        deadline_from: fp_core::deadline::DeadlineFrom::Timeout,
        queue_length: draw.next(4) as u32,
        request_bytes: 1_204,
        response_bytes: 18_400,
        log_bytes: 96,
        cpu_us: phases.run / 1_500,
        memory_peak_kib: 41_200,
        limit_hit: None,
        latency_met: Some(true),
        degraded: None,
        weight: 1,
    }
}

fn failed(seconds: u64, outcome: Outcome, status: u16, error: &str) -> Invocation {
    let mut call = call(seconds);
    call.outcome = outcome;
    call.blame = outcome.blame(false);
    call.status = status;
    call.error = Some(error.into());
    call.latency_met = Some(false);
    call
}

/// Calls of every kind, newest first.
pub(super) fn entries() -> Vec<Entry> {
    let mut calls: Vec<_> = (3_540..3_598).map(call).collect();
    let late = Outcome::DeadlineExceeded(DeadlineReason::ExpiredRunning);
    calls[3] = failed(3_543, Outcome::FunctionError, 500, "KeyError: 'width'");
    calls[9] = failed(3_549, Outcome::Timeout, 504, "the handler ran longer than 2s");
    calls[20] = failed(3_560, late, 504, "40 ms were left, the handler needed more");
    calls[31] = failed(3_571, Outcome::OutOfMemory, 502, "worker used more than 256 MiB");
    calls[40] = failed(3_580, Outcome::Cancelled, 499, "the caller left");
    calls[41].attempts = 2;
    calls[50].verb = "GET".into();
    calls[50].path = "/api/v2/organisations/northwind-traders-international/reports/2026/quarterly".into();
    let done = calls.into_iter().map(|call| Entry::Done(Box::new(call)));
    let running = [(State::Running, 3_599), (State::Queued, 3_599)]
        .into_iter()
        .map(|(state, seconds)| Entry::Running(Box::new(running(state, seconds))));
    let mut entries: Vec<_> = done.chain(running).collect();
    entries.reverse();
    entries
}

pub(super) fn running(state: State, seconds: u64) -> RunningView {
    let call = call(seconds);
    let running = Running {
        id: call.id,
        tenant: call.tenant,
        function: call.function,
        version: call.version,
        event_type: call.event_type,
        trigger: call.trigger,
        verb: call.verb,
        path: call.path,
        correlation_id: call.correlation_id,
        trace_id: call.trace_id,
        span_id: call.span_id,
        parent_span_id: call.parent_span_id,
        called_by: call.called_by.clone(),
        started_us: call.started_us,
        criticality: call.criticality,
        deadline_ms: call.deadline_ms,
        deadline_from: call.deadline_from,
    };
    RunningView { running, state, worker: (state == State::Running).then_some(WorkerId(3)) }
}

pub(super) fn view(scale: u64, errors: bool) -> FunctionView {
    let mut draw = Draw(scale * 31 + 7);
    let minutes: Vec<_> = (0..60_u64)
        .map(|at| {
            let calls = if scale == 0 || (20..24).contains(&at) {
                0
            } else {
                scale + draw.next(scale + 1) + at * scale / 40
            };
            let bad = if errors && at > 38 && at < 47 { calls / 9 } else { 0 };
            let p99 = 18.0 + draw.next(30) as f64 + if bad > 0 { 280.0 } else { 0.0 };
            let demand = calls as f64 / 60.0;
            MinuteView {
                calls,
                errors: bad,
                p99_ms: (calls > 0).then_some(p99),
                queue_p99_ms: (calls > 0).then_some(if bad > 0 { 190.0 } else { 0.02 }),
                demand,
                workers: if scale > 0 { (demand * 1.3).ceil() } else { 0.0 },
            }
        })
        .collect();
    let calls: u64 = minutes.iter().map(|minute| minute.calls).sum();
    let bad: u64 = minutes.iter().map(|minute| minute.errors).sum();
    let some = |value: f64| (scale > 0).then_some(value);
    let mut outcomes = vec![OutcomeCount { outcome: "ok", last_hour: calls - bad, total: calls * 41 }];
    if errors {
        outcomes.push(OutcomeCount { outcome: "function_error", last_hour: bad, total: bad * 3 });
        outcomes.push(OutcomeCount { outcome: "cancelled", last_hour: 2, total: 31 });
    }
    let mut reasons = Vec::new();
    if errors {
        outcomes.push(OutcomeCount { outcome: "shed", last_hour: 19, total: 25 });
        for (reason, last_hour, total) in [("queue_delay", 17, 22), ("queue_full", 2, 3)] {
            reasons.push(ReasonCount { outcome: "shed", reason, last_hour, total });
        }
    }
    FunctionView {
        rate_per_second: scale as f64 / 37.0,
        calls: calls * 41,
        outcomes: if scale > 0 { outcomes } else { Vec::new() },
        reasons,
        error_ratio: bad as f64 / calls.max(1) as f64,
        p50_ms: some(8.4),
        p90_ms: some(21.9),
        p99_ms: some(if errors { 312.0 } else { 44.6 }),
        p99_9_ms: some(801.0),
        max_ms: some(1_240.0),
        warm_p50_ms: some(7.9),
        cold_share: 0.004,
        minutes,
    }
}

pub(super) fn slo(spent: bool) -> SloView {
    let burn = |window, availability, latency| BurnRate {
        window,
        availability: Some(availability),
        latency: Some(latency),
    };
    let (fast, slow) = if spent { (16.2, 7.1) } else { (0.0, 0.2) };
    SloView {
        window_days: 30,
        availability: Some(99.9),
        attained: Some(if spent { 99.71 } else { 99.983 }),
        good: 1_204_331,
        bad: if spent { 3_502 } else { 204 },
        excluded: 12,
        cancelled: 31,
        budget_left: Some(if spent { -1.9 } else { 0.83 }),
        budget_seconds_left: Some(if spent { -4_900.0 } else { 2_151.0 }),
        latency: Some(LatencySloView {
            under_ms: 250.0,
            percent: 99.0,
            attained: Some(99.42),
            good: 1_197_346,
            bad: 6_985,
            budget_left: 0.42,
        }),
        burn: vec![
            burn("5m", fast, 1.2),
            burn("30m", fast * 0.9, 0.8),
            burn("1h", slow * 2.1, 0.7),
            burn("2h", slow, 0.6),
            burn("6h", slow * 0.6, 0.6),
            burn("1d", slow * 0.4, 0.5),
            burn("3d", slow * 0.3, 0.6),
        ],
        alerts: if spent {
            let alert = |objective, severity, long, short, factor, burn| AlertView {
                objective,
                severity,
                long,
                short,
                factor,
                burn,
            };
            vec![alert("availability", "page", "1h", "5m", 14.4, 16.2)]
        } else {
            Vec::new()
        },
    }
}

pub(super) fn workers() -> Vec<Worker> {
    let worker = |number: u64, of: Option<(&str, u32)>, state: &str, calls| Worker {
        id: format!("w{number}"),
        host_pid: 4_100 + number as u32,
        of: of.map(|(name, version)| (name.to_owned(), version)),
        state: state.into(),
        started_us: NOW_US - number * 61_000_000,
        calls,
    };
    vec![
        worker(17, Some(("thumbs", 4)), "busy", 18_233),
        worker(18, Some(("thumbs", 4)), "idle", 9_120),
        worker(21, Some(("hello", 1)), "idle", 12),
        worker(22, None, "idle", 0),
        worker(23, Some(("checkout", 12)), "starting", 0),
    ]
}

pub(super) fn overview_input() -> Input {
    let summary = |name: &str, events: &[&str], scale, errors, slo: Option<SloView>| Summary {
        name: name.into(),
        version: 1 + (name.len() as u32 % 7),
        events: events.iter().map(|event| (*event).to_owned()).collect(),
        view: view(scale, errors),
        slo,
        workers: scale.min(6) as usize,
        busy: (scale / 60).min(6) as usize,
    };
    let functions = vec![
        summary(
            "checkout",
            &["http|POST|/checkout", "http|GET|/checkout/{order}"],
            420,
            true,
            Some(slo(true)),
        ),
        summary("thumbs", &["http|POST|/thumbs/{id}"], 180, false, Some(slo(false))),
        summary("hello", &["http|GET|/hello"], 3, false, None),
        summary("static-files", &["http|GET|/static/{*rest}"], 0, false, Some(slo(false))),
        summary(
            "a-function-with-quite-a-long-name-as-people-like-to-give.v2",
            &[
                "http|*|/a/very/long/path/with/{many}/{parameters}/in/{it}",
                "http|GET|/b",
                "http|GET|/c",
                "http|GET|/d",
            ],
            60,
            false,
            Some(slo(false)),
        ),
    ];
    let entries = entries();
    Input {
        matching: functions.len(),
        total: functions.len(),
        functions,
        query: String::new(),
        page: 0,
        workers: 14,
        busy: 5,
        running: 7,
        failures: entries
            .iter()
            .filter(|entry| matches!(entry, Entry::Done(call) if call.blame.is_some()))
            .cloned()
            .collect(),
        recent: entries.into_iter().take(8).collect(),
        minute_us: NOW_US - 12_345_678,
        now_us: NOW_US,
    }
}

fn author_span(call: &Invocation, serial: u64, parent: Option<u64>, name: &str, from: f64, to: f64) -> Span {
    let id = |serial: u64| SpanId::from_random(u64::from_be_bytes(call.span_id.0) ^ (serial << 32));
    let run_start = call.started_us * 1_000 + call.phases.route + call.phases.queue + call.phases.start;
    let at = |share: f64| (call.phases.run as f64 * share) as u64;
    Span {
        span_id: id(serial),
        parent_span_id: Some(parent.map_or_else(|| phase_span_id(call.span_id, "run"), id)),
        name: name.into(),
        start_ns: run_start + at(from),
        duration_ns: at(to - from),
        attributes: vec![
            ("special-attribute".into(), serde_json::Value::String("\"with-a-special-value\"".into())),
            ("rows".into(), serde_json::json!(42)),
        ],
        events: Vec::new(),
        error: None,
    }
}

fn logs(call: &Invocation) -> Vec<LogLine> {
    let line = |ms: u64, source, level: Option<&str>, text: &str| LogLine {
        time_us: call.started_us + ms * 1_000,
        source,
        level: level.map(Into::into),
        text: text.into(),
    };
    vec![
        line(2, LogSource::Stdout, None, "{'Host': '127.0.0.1:5000', 'User-Agent': 'curl/7.88.1'}\n"),
        line(3, LogSource::Logging, Some("INFO"), "resizing to 320x200\n"),
        line(5, LogSource::Logging, Some("WARNING"), "profile is missing, assuming sRGB\n"),
        line(9, LogSource::Stderr, None, "libpng warning: iCCP: known incorrect sRGB profile\n"),
        line(11, LogSource::Platform, None, "3 more lines were dropped: limits.logs is 1.0 MiB\n"),
    ]
}

/// One call with everything: spans, an event, logs.
pub(super) fn kept() -> Kept {
    let mut invocation = call(3_571);
    invocation.cold = true;
    invocation.phases =
        Phases { route: 61_000, queue: 1_240_000, start: 3_410_000, run: 18_200_000, send: 88_000 };
    let mut fetch = author_span(&invocation, 2, Some(1), "fetch-original", 0.08, 0.45);
    fetch.events.push(SpanEvent {
        time_ns: fetch.start_ns + 2_000_000,
        name: "retry".into(),
        attributes: vec![("attempt".into(), serde_json::json!(2))],
    });
    let spans = vec![
        author_span(&invocation, 1, None, "make-thumbnail", 0.02, 0.97),
        fetch,
        author_span(&invocation, 3, Some(1), "resize", 0.46, 0.81),
        author_span(&invocation, 4, Some(1), "store", 0.82, 0.96),
    ];
    Kept { logs: logs(&invocation), spans, invocation, result: None }
}

/// A call that failed.
pub(super) fn kept_failed() -> Kept {
    let error = "KeyError: 'width'\n  File \"handler.py\", line 14, in handler\n    size = message[\"body\"][\"width\"]";
    let mut invocation = failed(3_543, Outcome::FunctionError, 500, error);
    invocation.limit_hit = Some("memory".into());
    let mut span = author_span(&invocation, 1, None, "make-thumbnail", 0.02, 0.97);
    span.error = Some("KeyError: 'width'".into());
    Kept { logs: logs(&invocation), spans: vec![span], invocation, result: None }
}

/// A trace over two functions.
pub(super) fn trace() -> Vec<Kept> {
    let first = kept();
    let mut second = kept_failed();
    let inside = &first.spans[1];
    second.invocation.function = "originals".parse().expect("a name");
    second.invocation.event_type = "http|GET|/originals/{id}".into();
    second.invocation.verb = "GET".into();
    second.invocation.started_us = (inside.start_ns + 600_000) / 1_000;
    second.invocation.phases = Phases { route: 40_000, queue: 300_000, start: 0, run: 4_000_000, send: 0 };
    second.invocation.parent_span_id = Some(inside.span_id);
    second.spans = vec![author_span(&second.invocation, 1, None, "read-bucket", 0.1, 0.9)];
    vec![first, second]
}

pub(super) fn summaries() -> Vec<TraceSummary> {
    let summary = |(at, call): (usize, Invocation)| TraceSummary {
        trace_id: call.trace_id,
        name: call.root_span_name(),
        functions: vec![(call.function.clone(), 7), ("originals".parse().expect("a name"), 5)],
        started_us: call.started_us,
        duration_us: call.duration_us(),
        calls: 2,
        spans: 12,
        errors: usize::from(at % 7 == 3),
        outcome: if at % 7 == 3 { Outcome::FunctionError } else { Outcome::Ok },
    };
    (3_560..3_599).rev().map(call).enumerate().map(summary).collect()
}

pub(super) fn settings() -> fp_core::Manifest {
    let text = "name = \"thumbs\"\nevents = [\"http|POST|/thumbs/{id}\"]\nenv = { LEVEL = \"info\" }\n\
                [scaling]\nidle = \"0s\"\n[slo]\navailability = 99.9\nlatency = { under = \"250ms\", percent = 99 }\n";
    fp_core::Manifest::parse(text).expect("a manifest")
}

/// Phases of a hundred calls, one in twenty of them queued for long.
pub(super) fn phases() -> Vec<Phases> {
    (0..400)
        .map(|at| {
            let mut phases = call(at).phases;
            if at % 20 == 0 {
                phases.queue += Duration::from_millis(140).as_nanos() as u64;
            }
            phases
        })
        .collect()
}
