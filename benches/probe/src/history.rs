//! What wide events take on disk, and how long queries over an hour of millions take.
//!
//! Some hundred thousand calls go the whole way: recorded, written as rows by the platform's writer,
//! compacted. The hour of ten millions is written by the compaction's own writer at once, since rows
//! of that many would take minutes and are gone anyway when the hour is over.

use std::path::Path;
use std::time::{Duration, Instant};

use fp_core::query::Query;
use fp_core::record::Kept;
use fp_core::{InvocationId, Tenant, TraceId};
use fp_server::clock::Clock;
use fp_server::config::HistoryConfig;
use fp_server::history::{self, Filter, History, Lookup};
use serde_json::{Value, json};

use crate::calls::Calls;

const HOUR: u64 = 3_600;

/// Fits into the queue of the way to disk, which is emptied by closing.
const BATCH: u64 = 16_000;

/// Calls and traces that are looked up.
const LOOKUPS: usize = 40;

pub(crate) async fn measure(dir: &Path, calls: u64, hour: u64) -> anyhow::Result<Value> {
    let now = Clock::start().wall_now_us() / 1_000_000;
    let mut made = Calls::new()?;
    let whole_way = whole_way(&dir.join("whole-way"), now - now % HOUR - 3 * HOUR, calls, &mut made).await?;
    let hour = one_hour(&dir.join("hour"), now - now % HOUR - 3 * HOUR, hour, &mut made).await?;
    Ok(json!({ "whole_way": whole_way, "hour": hour }))
}

/// Everything goes to disk, and little of it stays in memory.
fn config() -> HistoryConfig {
    HistoryConfig {
        ring_bytes: 1 << 20,
        per_function_per_second: u32::MAX,
        total_per_second: u32::MAX,
        disk_bytes: 1 << 40,
        ..HistoryConfig::default()
    }
}

/// Arrivals of so many calls, evenly over an hour.
fn arrivals(start: u64, calls: u64) -> impl Iterator<Item = u64> {
    (0..calls).map(move |n| start * 1_000_000 + n * HOUR * 1_000_000 / calls)
}

async fn whole_way(dir: &Path, start: u64, calls: u64, made: &mut Calls) -> anyhow::Result<Value> {
    let began = Instant::now();
    let mut left = arrivals(start, calls).peekable();
    while left.peek().is_some() {
        let history = History::open(&config(), dir, Clock::start())?;
        for started_us in left.by_ref().take(BATCH as usize) {
            history.finish(made.next(started_us)).sent(20_000, None);
        }
        history.close().await;
        anyhow::ensure!(history.status().dropped == 0, "rows were dropped: {:?}", history.status());
    }
    let wrote = began.elapsed();
    let rows = bytes_of(&dir.join("history"))?;
    let history = History::open(&config(), dir, Clock::start())?;
    let began = Instant::now();
    let compacted = history.compact().await;
    let compacting = began.elapsed();
    anyhow::ensure!(compacted as u64 == calls, "{compacted} of {calls} calls were compacted");
    history.close().await;
    let blocks = bytes_of(&dir.join("history"))?;
    Ok(json!({
        "calls": calls,
        "bytes_per_row": rows as f64 / calls as f64,
        "bytes_per_event": blocks as f64 / calls as f64,
        "us_to_write": wrote.as_secs_f64() * 1e6 / calls as f64,
        "us_to_compact": compacting.as_secs_f64() * 1e6 / calls as f64,
    }))
}

fn bytes_of(dir: &Path) -> std::io::Result<u64> {
    std::fs::read_dir(dir)?.try_fold(0, |sum, entry| Ok(sum + entry?.metadata()?.len()))
}

async fn one_hour(dir: &Path, start: u64, calls: u64, made: &mut Calls) -> anyhow::Result<Value> {
    let began = Instant::now();
    let mut known: Vec<(InvocationId, TraceId)> = Vec::new();
    let every = (calls / LOOKUPS as u64).max(1);
    let mut number = 0;
    let hour = arrivals(start, calls).map(|started_us| {
        let kept: Kept = made.next(started_us);
        if number % every == every / 2 {
            known.push((kept.invocation.id, kept.invocation.trace_id));
        }
        number += 1;
        kept
    });
    history::write_period(dir, start, hour)?;
    let wrote = began.elapsed();

    let bytes = bytes_of(&dir.join("history"))?;
    let history = History::open(&config(), dir, Clock::start())?;
    let queries = queries(&history, made, start).await;
    let questions = questions(&history, start).await?;
    let lookups = lookups(&history, &known).await?;
    history.close().await;
    Ok(json!({
        "calls": calls,
        "bytes_per_event": bytes as f64 / calls as f64,
        "us_to_write": wrote.as_secs_f64() * 1e6 / calls as f64,
        "queries_ms": queries,
        "questions_ms": questions,
        "lookups": lookups,
    }))
}

/// Lists over the whole hour, each to its end; the slowest counts.
async fn queries(history: &History, made: &Calls, start: u64) -> Value {
    let since = Filter {
        since_us: Some(start * 1_000_000),
        until_us: Some((start + HOUR) * 1_000_000),
        ..Filter::default()
    };
    let (busy, rare) = (made.function(0), made.function(16));
    let all = [
        ("newest 50", since.clone()),
        ("newest 50 failed", Filter { outcome: Some("function_error".into()), ..since.clone() }),
        ("newest 50 of a rare function", Filter { function: Some(rare), ..since.clone() }),
        ("newest 50 of a rare route", Filter { event_type: Some("*functions/15/*".into()), ..since.clone() }),
        (
            // In no block can it be known beforehand that there is none, and there are fewer than asked.
            "every slow refusal of a busy function",
            Filter {
                function: Some(busy),
                outcome: Some("shed".into()),
                min_duration: Some(Duration::from_secs(20)),
                limit: Filter::MAX_LIMIT,
                ..since
            },
        ),
    ];
    let mut times = serde_json::Map::new();
    for (name, filter) in all {
        let (began, limit) = (Instant::now(), filter.limit);
        let mut filter = filter;
        let mut found = 0;
        // A list that takes longer than it may is cut off, and goes on with its next page.
        loop {
            let page = history.list(&Tenant::default(), &filter).await;
            found += page.items.len();
            filter.cursor = page.next;
            if filter.cursor.is_none() || found >= limit {
                break;
            }
        }
        times.insert(name.into(), json!(began.elapsed().as_secs_f64() * 1e3));
    }
    times.into()
}

/// Questions about all calls of the hour.
async fn questions(history: &History, start: u64) -> anyhow::Result<Value> {
    let (from_us, to_us) = (start * 1_000_000, (start + HOUR) * 1_000_000);
    let mut times = serde_json::Map::new();
    for question in [
        "group by function",
        "outcome != ok and phase.queue > 5us group by function, tenant",
        "cold or status >= 500 group by time(5m), outcome, reason of phase.run",
    ] {
        let query = Query::parse(question)?;
        let began = Instant::now();
        let answer = history.ask(vec![Tenant::default()], query, from_us, to_us).await?;
        anyhow::ensure!(answer.is_whole && !answer.rows.is_empty(), "{question}: no whole answer");
        times.insert(question.into(), json!(began.elapsed().as_secs_f64() * 1e3));
    }
    Ok(times.into())
}

async fn lookups(history: &History, known: &[(InvocationId, TraceId)]) -> anyhow::Result<Value> {
    let tenant = Tenant::default();
    let (mut by_id, mut by_trace) = (Vec::new(), Vec::new());
    for (id, trace_id) in known {
        let began = Instant::now();
        let found = history.get(&tenant, *id).await;
        by_id.push(began.elapsed().as_secs_f64() * 1e3);
        anyhow::ensure!(matches!(found, Lookup::Done(_)), "the call {id} is not there");
        let began = Instant::now();
        let found = history.trace(&tenant, *trace_id).await;
        by_trace.push(began.elapsed().as_secs_f64() * 1e3);
        anyhow::ensure!(found.is_some_and(|calls| calls.len() == 1), "the trace {trace_id} is not there");
    }
    Ok(json!({ "call_ms": by_id, "trace_ms": by_trace }))
}
