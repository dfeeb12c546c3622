//! Telemetry files: the wide events that history keeps on disk.
//!
//! One SQLite file per [`Segment`] of time under `history/`, so that retention is an unlink. One
//! [`TelemetryWriter`] (owned by history's writer thread) adds to them; when a segment's time is
//! over, a [`Compactor`] makes [`blocks`] of its rows, a fifth of their size. Any number of queries
//! read both through a [`TelemetryReader`], which keeps a few files open. A file that turns out to
//! be damaged is set aside and costs its period, nothing else.

use std::path::Path;
use std::sync::Arc;

use fp_core::record::{Invocation, Kept};
use fp_core::{FunctionName, InvocationId, Tenant, TraceId};
use parking_lot::Mutex;
use rusqlite::Connection;
use rusqlite::types::ToSql;

mod blocks;
mod compactor;
mod footprint;
mod questions;
mod rows;
mod segments;
mod skipped;
mod trace_calls;
mod writer;

use blocks::{BlocksError, BlocksWriter};
pub(crate) use compactor::{CompactError, Compactor};
pub(crate) use footprint::heap_of_kept;
pub(crate) use rows::NewRow;
pub(crate) use segments::{Forms, Segment, Segments};
pub(crate) use skipped::{Skipped, SkippedAt};
pub(crate) use trace_calls::TraceCalls;
pub(crate) use writer::{Batch, TelemetryLimits, TelemetryWriter};

use super::{StoreError, database};
use blocks::Blocks;

/// Files of each form kept open for queries: the present hour, the one before, and two that somebody
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
    /// A glob. Rows do not look at it: it is left to the visitor.
    pub(crate) event_type: Option<&'a str>,
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
    idle: Mutex<Idle>,
}

/// Files that are open and in nobody's hands, or, of blocks, in anybody's.
#[derive(Debug, Default)]
struct Idle {
    connections: Vec<(Segment, Connection)>,
    blocks: Vec<(Segment, Arc<Blocks>)>,
    /// The segments' [`taken_away`](Segments::taken_away) when these were opened.
    taken_away: u64,
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
            let _still = self.segments.hold_still();
            let row = self.with_rows(segment, |connection| rows::find(connection, id)).flatten();
            let found = row.or_else(|| self.with_blocks(segment, |blocks| blocks.find(id)).flatten());
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Whether calls of a tenant that arrived in a second are known to be in no file.
    pub(crate) fn was_skipped(&self, at: SkippedAt) -> bool {
        let segment = self.segments.of_second(at.second());
        let _still = self.segments.hold_still();
        self.with_rows(segment, |connection| rows::was_skipped(connection, at)).unwrap_or(false)
            || self.with_blocks(segment, |blocks| Ok(blocks.skipped().contains_key(&at))).unwrap_or(false)
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

    /// Shows the calls of one segment, newest arrival first, until `visit` wants no more.
    pub(crate) fn visit(
        &self,
        segment: Segment,
        query: &RowQuery<'_>,
        mut visit: impl FnMut(Invocation) -> bool,
    ) {
        let _still = self.segments.hold_still();
        // What cannot be read is reported there.
        let _ = match self.segments.forms(segment) {
            Forms { rows: true, blocks: true } => self.visit_both(segment, query, &mut visit),
            Forms { rows: true, blocks: false } => {
                self.with_rows(segment, |connection| visit_rows(connection, query, &mut visit))
            }
            Forms { rows: false, .. } => {
                self.with_blocks(segment, |blocks| visit_blocks(blocks, query, &mut visit))
            }
        };
    }

    /// Calls of both forms in one order. One that is in both is as its row says, also when that
    /// does not pass.
    fn visit_both(
        &self,
        segment: Segment,
        query: &RowQuery<'_>,
        visit: &mut dyn FnMut(Invocation) -> bool,
    ) -> Option<()> {
        self.with_rows(segment, |connection| {
            let mut were_rows_shown = false;
            self.with_blocks(segment, |blocks| {
                let mut scan = blocks.scan(query);
                let mut show_until = |place, visit: &mut dyn FnMut(Invocation) -> bool| {
                    while let Some(call) = scan.next_before(place)? {
                        if !rows::has(connection, call.id).unwrap_or(false) && !visit(call) {
                            return Ok(false);
                        }
                    }
                    Ok::<bool, BlocksError>(true)
                };
                were_rows_shown = true;
                let mut damage = None;
                let mut goes_on = true;
                let shown = visit_rows(connection, query, &mut |row| {
                    let until = show_until(Some((row.started_us, row.id)), visit);
                    goes_on = until.unwrap_or_else(|error| damage.replace(error).is_none()) && visit(row);
                    goes_on
                });
                if shown.is_ok() && goes_on && damage.is_none() {
                    show_until(None, visit)?;
                }
                damage.map_or(Ok(()), Err)
            });
            if were_rows_shown { Ok(()) } else { visit_rows(connection, query, visit) }
        })
    }

    /// Adds the calls of a trace. Looked for around `near_us` where that is known, else around the time
    /// in the id; where that is no time of history (an id that we did not make), in every file,
    /// newest first, until the first that has none after one that had some.
    pub(crate) fn trace(&self, trace_id: TraceId, near_us: Option<u64>, calls: &mut TraceCalls<'_>) {
        let around_us = near_us.unwrap_or_else(|| time_in(trace_id));
        let from_us = around_us.saturating_sub(TRACE_SPAN_US);
        let near = self.stretches(from_us, around_us.saturating_add(TRACE_SPAN_US));
        if near_us.is_some() || !near.is_empty() {
            for stretch in near {
                self.trace_in(stretch.segment, trace_id, calls);
            }
            return;
        }
        for segment in self.segments.newest_first() {
            let found = self.trace_in(segment, trace_id, calls);
            if found == 0 && !calls.is_empty() || calls.is_over() {
                break;
            }
        }
    }

    /// The number of calls of the trace in a segment, wanted or not.
    fn trace_in(&self, segment: Segment, trace_id: TraceId, calls: &mut TraceCalls<'_>) -> usize {
        if calls.is_over() {
            return 0;
        }
        let _still = self.segments.hold_still();
        let rows = self.with_rows(segment, |connection| rows::find_trace(connection, trace_id, calls));
        let blocks = self.with_blocks(segment, |blocks| blocks.trace(trace_id, calls));
        rows.unwrap_or(0) + blocks.unwrap_or(0)
    }

    /// Lets go of every file.
    pub(crate) fn close(&self) {
        *self.idle.lock() = Idle::default();
    }

    /// Runs a query on a segment's rows; none if there are none or they cannot be read, which is
    /// logged. The segments are held still.
    fn with_rows<T>(
        &self,
        segment: Segment,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Option<T> {
        if !self.segments.forms(segment).rows {
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
                if self.segments.forms(segment).rows {
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

    /// The same for its blocks.
    fn with_blocks<T>(
        &self,
        segment: Segment,
        query: impl FnOnce(&Blocks) -> Result<T, BlocksError>,
    ) -> Option<T> {
        if !self.segments.forms(segment).blocks {
            return None;
        }
        match self.open_blocks(segment).and_then(|blocks| query(&blocks)) {
            Ok(value) => Some(value),
            Err(BlocksError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error @ (BlocksError::Damaged(_) | BlocksError::TooLarge)) => {
                self.idle.lock().blocks.retain(|(open, _)| *open != segment);
                self.segments.set_blocks_aside(segment, &error);
                None
            }
            Err(error) => {
                let file = self.segments.blocks_path(segment);
                tracing::warn!(file = %file.display(), %error, "a period of history cannot be read");
                None
            }
        }
    }

    fn open_blocks(&self, segment: Segment) -> Result<Arc<Blocks>, BlocksError> {
        let mut idle = self.idle();
        let at = idle.blocks.iter().position(|(open, _)| *open == segment);
        // The one that was used last stands last.
        let open = match at.map(|at| idle.blocks.remove(at).1) {
            Some(open) => open,
            None => {
                drop(idle);
                let open = Arc::new(Blocks::open(&self.segments.blocks_path(segment))?);
                idle = self.idle();
                open
            }
        };
        idle.blocks.push((segment, open.clone()));
        let oldest = (idle.blocks.len() > OPEN_READERS).then(|| idle.blocks.remove(0));
        drop(idle);
        drop(oldest);
        Ok(open)
    }

    /// What is open, without files that were taken away.
    fn idle(&self) -> parking_lot::MutexGuard<'_, Idle> {
        let mut idle = self.idle.lock();
        let taken_away = self.segments.taken_away();
        if idle.taken_away != taken_away {
            *idle = Idle { taken_away, ..Idle::default() };
        }
        idle.connections.retain(|(segment, _)| self.segments.forms(*segment).rows);
        idle.blocks.retain(|(segment, _)| self.segments.forms(*segment).blocks);
        idle
    }

    fn checkout(&self, segment: Segment) -> rusqlite::Result<Connection> {
        let mut idle = self.idle();
        if let Some(at) = idle.connections.iter().position(|(open, _)| *open == segment) {
            return Ok(idle.connections.remove(at).1);
        }
        drop(idle);
        database::open_reader(&self.segments.path(segment))
    }

    fn give_back(&self, segment: Segment, connection: Connection) {
        let mut idle = self.idle();
        idle.connections.push((segment, connection));
        let oldest = (idle.connections.len() > OPEN_READERS).then(|| idle.connections.remove(0));
        drop(idle);
        drop(oldest);
    }
}

/// Writes the blocks of a segment that has none.
pub(crate) fn write_period(
    dir: &Path,
    start: u64,
    calls: impl IntoIterator<Item = Kept>,
) -> Result<(), StoreError> {
    let segments = Segments::new(dir);
    segments.read()?;
    let path = segments.blocks_path(Segment(start));
    let write = || {
        let mut writer = BlocksWriter::create(&path)?;
        for kept in calls {
            writer.push(kept)?;
        }
        writer.finish(&Skipped::new())
    };
    let failed = |error| StoreError::Directory {
        what: "a period of history",
        path: path.clone(),
        source: std::io::Error::other(error),
    };
    write().map(drop).map_err(failed)
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

fn visit_blocks(
    blocks: &Blocks,
    query: &RowQuery<'_>,
    visit: &mut dyn FnMut(Invocation) -> bool,
) -> Result<(), BlocksError> {
    let mut scan = blocks.scan(query);
    while let Some(call) = scan.next_before(None)? {
        if !visit(call) {
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
