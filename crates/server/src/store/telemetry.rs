//! Telemetry files: the wide events that history keeps on disk.
//!
//! One SQLite file per [`Segment`] of time under `history/`, so that retention is an unlink. One
//! [`TelemetryWriter`] (owned by history's writer thread) adds to them; any number of queries
//! read through a [`TelemetryReader`], which keeps a few connections open. A file that turns out
//! to be damaged is set aside and costs its period, nothing else.

use std::sync::Arc;

use fp_core::record::{Invocation, Kept};
use fp_core::{FunctionName, InvocationId, Tenant, TraceId};
use parking_lot::Mutex;
use rusqlite::Connection;
use rusqlite::types::ToSql;

mod rows;
mod segments;
mod writer;

pub(crate) use rows::NewRow;
pub(crate) use segments::{Segment, Segments};
pub(crate) use writer::{Batch, TelemetryLimits, TelemetryWriter};

use super::database;

/// Connections kept open for queries: the present hour, the one before, and two that somebody
/// pages through.
const OPEN_READERS: usize = 4;

/// How far apart the calls of one trace may be, in microseconds; a trace is looked for this long
/// before and after a time at which it is known to have been.
const TRACE_SPAN_US: u64 = 3_600 * 1_000_000;

/// A stretch of time within one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) segment: Segment,
    /// The first microsecond of it.
    pub(crate) from_us: u64,
    /// The first microsecond after it.
    pub(crate) to_us: u64,
}

/// What a list asks of one file; what SQL cannot say is left to the visitor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowQuery<'a> {
    pub(crate) tenant: &'a Tenant,
    pub(crate) function: Option<&'a FunctionName>,
    pub(crate) outcome: Option<&'a str>,
    /// Arrived at this microsecond or later.
    pub(crate) from_us: u64,
    /// Arrived before this microsecond.
    pub(crate) to_us: u64,
    /// Took at least so many microseconds.
    pub(crate) min_us: Option<u64>,
    /// Took at most so many microseconds.
    pub(crate) max_us: Option<u64>,
}

/// Reads the files.
#[derive(Debug)]
pub(crate) struct TelemetryReader {
    segments: Arc<Segments>,
    idle: Mutex<Vec<(Segment, Connection)>>,
}

impl TelemetryReader {
    pub(crate) fn new(segments: Arc<Segments>) -> Self {
        Self { segments, idle: Mutex::default() }
    }

    /// One call. It is in the file of the time in its id; at an hour's edge the clock may have
    /// been read on the other side.
    pub(crate) fn find(&self, id: InvocationId) -> Option<Kept> {
        let second = id.unix_ms() / 1_000;
        let mut tried = Vec::with_capacity(3);
        for near in [second, second + 1, second.saturating_sub(1)] {
            let segment = self.segments.of_second(near);
            if tried.contains(&segment) {
                continue;
            }
            tried.push(segment);
            if let Some(kept) = self.with(segment, |connection| rows::find(connection, id)).flatten() {
                return Some(kept);
            }
        }
        None
    }

    /// Whether calls that arrived in a second are known to be in no file.
    pub(crate) fn was_skipped(&self, second: u64) -> bool {
        let segment = self.segments.of_second(second);
        self.with(segment, |connection| rows::was_skipped(connection, second)).unwrap_or(false)
    }

    /// A time, newest first, as the files hold it.
    pub(crate) fn stretches(&self, from_us: u64, to_us: u64) -> Vec<Stretch> {
        let mut newer_us = u64::MAX;
        let stretch = |segment: Segment| {
            let end_us = segment.end_us().min(newer_us);
            newer_us = segment.start_us();
            Stretch { segment, from_us: segment.start_us().max(from_us), to_us: end_us.min(to_us) }
        };
        let stretches = self.segments.newest_first().into_iter().map(stretch);
        stretches.filter(|stretch| stretch.from_us < stretch.to_us).collect()
    }

    /// Shows the rows of one segment, newest arrival first, until `visit` wants no more.
    pub(crate) fn visit(
        &self,
        segment: Segment,
        query: &RowQuery<'_>,
        mut visit: impl FnMut(Invocation) -> bool,
    ) {
        self.with(segment, |connection| visit_rows(connection, query, &mut visit));
    }

    /// The calls of a trace. Looked for around `near_us` where that is known, else around the time
    /// in the id; where that is no time of history (an id that we did not make), in every file,
    /// newest first, until the first that has none after one that had some.
    pub(crate) fn trace(&self, trace_id: TraceId, near_us: Option<u64>) -> Vec<Kept> {
        let around_us = near_us.unwrap_or_else(|| time_in(trace_id));
        let from_us = around_us.saturating_sub(TRACE_SPAN_US);
        let near = self.stretches(from_us, around_us.saturating_add(TRACE_SPAN_US));
        if near_us.is_some() || !near.is_empty() {
            return near.iter().flat_map(|stretch| self.trace_in(stretch.segment, trace_id)).collect();
        }
        let mut calls = Vec::new();
        for segment in self.segments.newest_first() {
            let found = self.trace_in(segment, trace_id);
            if found.is_empty() && !calls.is_empty() {
                break;
            }
            calls.extend(found);
        }
        calls
    }

    fn trace_in(&self, segment: Segment, trace_id: TraceId) -> Vec<Kept> {
        self.with(segment, |connection| rows::find_trace(connection, trace_id)).unwrap_or_default()
    }

    /// Lets go of every file.
    pub(crate) fn close(&self) {
        self.idle.lock().clear();
    }

    /// Runs a query in a segment; none if there is no such file or it cannot be read, which is
    /// logged.
    fn with<T>(&self, segment: Segment, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        if !self.segments.is_known(segment) {
            return None;
        }
        let result = self.checkout(segment).and_then(|connection| {
            let value = query(&connection)?;
            self.give_back(segment, connection);
            Ok(value)
        });
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                // Retention may have taken the file away meanwhile.
                if self.segments.is_known(segment) {
                    self.report(segment, &error);
                }
                None
            }
        }
    }

    fn report(&self, segment: Segment, error: &rusqlite::Error) {
        let file = self.segments.path(segment);
        tracing::warn!(file = %file.display(), %error, "a period of history cannot be read");
        if database::is_damage(error) {
            self.segments.report_damage(segment);
        }
    }

    fn checkout(&self, segment: Segment) -> rusqlite::Result<Connection> {
        let mut idle = self.idle.lock();
        idle.retain(|(segment, _)| self.segments.is_known(*segment));
        if let Some(at) = idle.iter().position(|(open, _)| *open == segment) {
            return Ok(idle.remove(at).1);
        }
        drop(idle);
        database::open_reader(&self.segments.path(segment))
    }

    fn give_back(&self, segment: Segment, connection: Connection) {
        let mut idle = self.idle.lock();
        idle.push((segment, connection));
        let oldest = (idle.len() > OPEN_READERS).then(|| idle.remove(0));
        drop(idle);
        drop(oldest);
    }
}

/// The time that our own trace ids begin with.
fn time_in(trace_id: TraceId) -> u64 {
    let milliseconds = trace_id.0[..6].iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte));
    milliseconds * 1_000
}

/// The conditions of a list that SQL can check, newest arrival first.
fn visit_rows(
    connection: &Connection,
    query: &RowQuery<'_>,
    visit: &mut dyn FnMut(Invocation) -> bool,
) -> rusqlite::Result<()> {
    let tenant = query.tenant.as_str();
    let [from_us, to_us] = [query.from_us, query.to_us].map(saturate);
    let [min_us, max_us] = [query.min_us, query.max_us].map(|limit| limit.map(saturate));
    let function = query.function.map(FunctionName::as_str);
    let mut sql = String::from(
        "SELECT * FROM invocations WHERE tenant = :tenant AND started_us >= :from AND started_us < :to",
    );
    let mut parameters: Vec<(&str, &dyn ToSql)> =
        vec![(":tenant", &tenant), (":from", &from_us), (":to", &to_us)];
    if let Some(function) = &function {
        sql.push_str(" AND function = :function");
        parameters.push((":function", function));
    }
    if let Some(outcome) = &query.outcome {
        sql.push_str(" AND outcome = :outcome");
        parameters.push((":outcome", outcome));
    }
    if let Some(min_us) = &min_us {
        sql.push_str(" AND (route_ns + queue_ns + start_ns + run_ns + send_ns) / 1000 >= :min");
        parameters.push((":min", min_us));
    }
    if let Some(max_us) = &max_us {
        sql.push_str(" AND (route_ns + queue_ns + start_ns + run_ns + send_ns) / 1000 <= :max");
        parameters.push((":max", max_us));
    }
    if query.outcome.is_some_and(|word| word != "ok") {
        // Said once more as the partial index says it, so that the planner may use that.
        sql.push_str(" AND outcome <> 'ok'");
    }
    sql.push_str(" ORDER BY started_us DESC, id DESC");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(parameters.as_slice())?;
    while let Some(row) = found.next()? {
        if !visit(rows::read_invocation(row)?) {
            break;
        }
    }
    Ok(())
}

fn saturate(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
