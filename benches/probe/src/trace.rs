//! The processor time of recording: everything that the platform does for a call because it is
//! traced, on the thread that serves it, in the order in which it does it.
//!
//! Ids are drawn, the record is made and becomes visible, gets its worker, its end is counted for
//! the objective and the percentiles, the record moves into a ring that is full (so that the oldest
//! goes), and sending is noted. The calls come as fast as they can, so that sampling leaves nearly
//! all of them out of the disk, as it does at the rates where the cost counts. Time is processor
//! time of the whole process, the writer's thread included.

use std::path::Path;
use std::time::Duration;

use fp_core::record::{Invocation, Kept};
use fp_core::{Outcome, WorkerId};
use fp_server::clock::Clock;
use fp_server::config::HistoryConfig;
use fp_server::history::{History, Running};
use fp_server::slo::FunctionBook;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::calls::Calls;

/// Fills within the first round, so that every later record pushes out another.
const RING_BYTES: usize = 32 << 20;

pub(crate) async fn measure(dir: &Path, calls: u64, rounds: usize) -> anyhow::Result<Value> {
    let clock = Clock::start();
    let config = HistoryConfig { ring_bytes: RING_BYTES, ..HistoryConfig::default() };
    let history = History::open(&config, dir, clock.clone())?;
    let book = FunctionBook::default();
    let mut made = Calls::new()?;
    let mut round = |recorded: bool| {
        let began = processor_time();
        for _ in 0..calls {
            let kept = made.next(clock.wall_now_us());
            if recorded {
                record(&history, &book, &clock, kept);
            } else {
                std::hint::black_box(kept);
            }
        }
        (processor_time() - began).as_secs_f64() * 1e6 / calls as f64
    };
    round(true);
    // Making the record is part of the cost, the random numbers for its odd values are not; the
    // difference of the two leaves both out, and an upper bound with both in is told beside it.
    let (mut whole, mut made_only) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        whole.push(round(true));
        made_only.push(round(false));
    }
    history.close().await;
    let (whole, made_only) = (median(whole), median(made_only));
    Ok(json!({ "us_per_call": whole, "us_making_calls": made_only, "calls": calls, "rounds": rounds }))
}

fn record(history: &History, book: &FunctionBook, clock: &Clock, kept: Kept) {
    let invocation = &kept.invocation;
    let total = Duration::from_nanos(invocation.phases.total());
    let outcome = invocation.outcome;
    history.begin_on(running(invocation), WorkerId(1));
    let now = clock.now();
    book.record(now, clock.wall_us(now), outcome, false, total, false);
    book.record_work(
        now,
        Duration::from_nanos(invocation.phases.queue),
        Duration::from_nanos(invocation.phases.run),
    );
    let finished = history.finish(kept);
    finished.sent(20_000, None::<Outcome>);
}

fn running(call: &Invocation) -> Running {
    Running {
        id: call.id,
        tenant: call.tenant.clone(),
        function: call.function.clone(),
        version: call.version,
        event_type: call.event_type.clone(),
        trigger: call.trigger,
        verb: call.verb.clone(),
        path: call.path.clone(),
        correlation_id: call.correlation_id.clone(),
        trace_id: call.trace_id,
        span_id: call.span_id,
        parent_span_id: call.parent_span_id,
        called_by: call.called_by.clone(),
        started_us: call.started_us,
        criticality: call.criticality,
        deadline_ms: call.deadline_ms,
        deadline_from: call.deadline_from,
    }
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
