//! The layout of a telemetry file, and its rows in and out.
//!
//! `invocations` is the wide event with a column for every field, named as the field; durations
//! carry their unit. `spans` holds the author's spans and `logs` what was captured, both by the
//! row number of their invocation, so that they are read and written in one place. `skipped`
//! says in which seconds of whom calls arrived that are in no file (its `second` is a number of `skipped.rs`).

use std::sync::Arc;

use fp_core::deadline::DeadlineFrom;
use fp_core::outcome::Blame;
use fp_core::record::{Invocation, Kept, LogLine, LogSource, Phases, Span, SpanEvent, Trigger};
use fp_core::settings::Criticality;
use fp_core::{InvocationId, Outcome, SpanId, TraceId, VersionNumber, WorkerId};
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};
use rusqlite_migration::{M, Migrations};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Skipped, SkippedAt, TraceCalls};

/// The layout, step by step; steps are only ever added.
pub(super) fn layout() -> Migrations<'static> {
    Migrations::new(vec![
        M::up(
            "CREATE TABLE invocations (
             number           INTEGER PRIMARY KEY,
             id               BLOB NOT NULL,
             tenant           TEXT NOT NULL,
             function         TEXT NOT NULL,
             version          INTEGER NOT NULL,
             event_type       TEXT NOT NULL,
             trigger          TEXT NOT NULL,
             verb             TEXT NOT NULL,
             path             TEXT NOT NULL,
             correlation_id   TEXT NOT NULL,
             trace_id         BLOB NOT NULL,
             span_id          BLOB NOT NULL,
             parent_span_id   BLOB,
             started_us       INTEGER NOT NULL,
             route_ns         INTEGER NOT NULL,
             queue_ns         INTEGER NOT NULL,
             start_ns         INTEGER NOT NULL,
             run_ns           INTEGER NOT NULL,
             send_ns          INTEGER NOT NULL,
             outcome          TEXT NOT NULL,
             reason           TEXT,
             blame            TEXT,
             caller_was_short INTEGER NOT NULL,
             status           INTEGER NOT NULL,
             error            TEXT,
             cold             INTEGER NOT NULL,
             attempts         INTEGER NOT NULL,
             worker           INTEGER,
             criticality      TEXT NOT NULL,
             deadline_ms      INTEGER NOT NULL,
             queue_length     INTEGER NOT NULL,
             request_bytes    INTEGER NOT NULL,
             response_bytes   INTEGER NOT NULL,
             log_bytes        INTEGER NOT NULL,
             cpu_us           INTEGER NOT NULL,
             memory_peak_kib  INTEGER NOT NULL,
             limit_hit        TEXT,
             latency_met      INTEGER,
             degraded         TEXT,
             weight           INTEGER NOT NULL,
             result           TEXT
         );
         CREATE UNIQUE INDEX invocations_id ON invocations (id);
         CREATE INDEX invocations_trace ON invocations (trace_id);
         CREATE INDEX invocations_started ON invocations (started_us);
         CREATE INDEX invocations_function ON invocations (function, started_us);
         CREATE INDEX invocations_failed ON invocations (started_us) WHERE outcome <> 'ok';
         CREATE TABLE spans (
             invocation     INTEGER NOT NULL,
             position       INTEGER NOT NULL,
             span_id        BLOB NOT NULL,
             parent_span_id BLOB,
             name           TEXT NOT NULL,
             start_ns       INTEGER NOT NULL,
             duration_ns    INTEGER NOT NULL,
             attributes     TEXT NOT NULL,
             events         TEXT NOT NULL,
             error          TEXT,
             PRIMARY KEY (invocation, position)
         ) WITHOUT ROWID;
         CREATE TABLE logs (
             invocation INTEGER NOT NULL,
             position   INTEGER NOT NULL,
             time_us    INTEGER NOT NULL,
             source     TEXT NOT NULL,
             level      TEXT,
             text       TEXT NOT NULL,
             PRIMARY KEY (invocation, position)
         ) WITHOUT ROWID;
         CREATE TABLE skipped (
             second INTEGER PRIMARY KEY,
             calls  INTEGER NOT NULL
         );",
        ),
        M::up("ALTER TABLE invocations ADD COLUMN called_by TEXT"),
        M::up("ALTER TABLE invocations ADD COLUMN link TEXT"),
        M::up("ALTER TABLE invocations ADD COLUMN deadline_from INTEGER NOT NULL DEFAULT 0"),
    ])
}

/// A call on its way into a file: what was recorded, and what was learnt since.
#[derive(Debug)]
pub(crate) struct NewRow<'a> {
    pub(crate) kept: &'a Kept,
    pub(crate) send_ns: u64,
    pub(crate) outcome: Outcome,
    pub(crate) weight: u32,
}

/// The word that serde writes for a value of a small enum.
fn word(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        other => unreachable!("{other:?} is no word"),
    }
}

/// The value of such a word.
fn value_of<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_value(serde_json::Value::String(text)).map_err(unreadable)
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
}

/// SQLite's numbers have a sign. A worker that says more than that of itself must not keep the rows
/// of others from being written.
fn column(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Writes a call unless it is there already (after a batch that failed half-way).
pub(super) fn insert(connection: &Connection, row: &NewRow<'_>) -> rusqlite::Result<()> {
    let invocation = &row.kept.invocation;
    let phases = invocation.phases;
    let blame = if row.outcome == invocation.outcome {
        invocation.blame
    } else {
        row.outcome.blame(invocation.caller_was_short)
    };
    let inserted = connection
        .prepare_cached(
            "INSERT OR IGNORE INTO invocations (
                 id, tenant, function, version, event_type, trigger, verb, path, correlation_id,
                 trace_id, span_id, parent_span_id, started_us,
                 route_ns, queue_ns, start_ns, run_ns, send_ns,
                 outcome, reason, blame, caller_was_short, status, error, cold, attempts, worker,
                 criticality, deadline_ms, queue_length, request_bytes, response_bytes, log_bytes,
                 cpu_us, memory_peak_kib, limit_hit, latency_met, degraded, weight, result, called_by, link,
                 deadline_from)
             VALUES (
                 :id, :tenant, :function, :version, :event_type, :trigger, :verb, :path, :correlation_id,
                 :trace_id, :span_id, :parent_span_id, :started_us,
                 :route_ns, :queue_ns, :start_ns, :run_ns, :send_ns,
                 :outcome, :reason, :blame, :caller_was_short, :status, :error, :cold, :attempts, :worker,
                 :criticality, :deadline_ms, :queue_length, :request_bytes, :response_bytes, :log_bytes,
                 :cpu_us, :memory_peak_kib, :limit_hit, :latency_met, :degraded, :weight, :result, :called_by, :link,
                 :deadline_from)",
        )?
        .execute(named_params! {
            ":id": invocation.id.0,
            ":tenant": invocation.tenant.as_str(),
            ":function": invocation.function.as_str(),
            ":version": invocation.version.0,
            ":event_type": &*invocation.event_type,
            ":trigger": word(invocation.trigger),
            ":verb": &*invocation.verb,
            ":path": &*invocation.path,
            ":correlation_id": &*invocation.correlation_id,
            ":trace_id": invocation.trace_id.0,
            ":span_id": invocation.span_id.0,
            ":parent_span_id": invocation.parent_span_id.map(|id| id.0),
            ":started_us": column(invocation.started_us),
            ":route_ns": column(phases.route),
            ":queue_ns": column(phases.queue),
            ":start_ns": column(phases.start),
            ":run_ns": column(phases.run),
            ":send_ns": column(row.send_ns),
            ":outcome": row.outcome.word(),
            ":reason": row.outcome.reason(),
            ":blame": blame.map(word),
            ":caller_was_short": invocation.caller_was_short,
            ":status": invocation.status,
            ":error": invocation.error.as_deref(),
            ":cold": invocation.cold,
            ":attempts": invocation.attempts,
            ":worker": invocation.worker.map(|worker| column(worker.0)),
            ":criticality": word(invocation.criticality),
            ":deadline_ms": column(invocation.deadline_ms),
            ":deadline_from": invocation.deadline_from.number(),
            ":queue_length": invocation.queue_length,
            ":request_bytes": column(invocation.request_bytes),
            ":response_bytes": column(invocation.response_bytes),
            ":log_bytes": column(invocation.log_bytes),
            ":cpu_us": column(invocation.cpu_us),
            ":memory_peak_kib": column(invocation.memory_peak_kib),
            ":limit_hit": invocation.limit_hit.as_deref(),
            ":latency_met": invocation.latency_met,
            ":degraded": invocation.degraded.as_deref(),
            ":weight": row.weight,
            ":result": row.kept.result.as_deref(),
            ":called_by": invocation.called_by.as_ref().map(|function| function.as_str()),
            ":link": invocation.link.map(|link| link.to_string()),
        })?;
    if inserted == 0 {
        return Ok(());
    }
    let number = connection.last_insert_rowid();
    insert_spans(connection, number, &row.kept.spans)?;
    insert_logs(connection, number, &row.kept.logs)
}

fn insert_spans(connection: &Connection, number: i64, spans: &[Span]) -> rusqlite::Result<()> {
    if spans.is_empty() {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(
        "INSERT INTO spans (invocation, position, span_id, parent_span_id, name, start_ns, duration_ns,
                            attributes, events, error)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    for (position, span) in spans.iter().enumerate() {
        statement.execute(params![
            number,
            position,
            span.span_id.0,
            span.parent_span_id.map(|id| id.0),
            &*span.name,
            column(span.start_ns),
            column(span.duration_ns),
            json(&span.attributes),
            json(&span.events),
            span.error.as_deref(),
        ])?;
    }
    Ok(())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("lists of texts and JSON values are JSON")
}

fn insert_logs(connection: &Connection, number: i64, logs: &[LogLine]) -> rusqlite::Result<()> {
    if logs.is_empty() {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(
        "INSERT INTO logs (invocation, position, time_us, source, level, text)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for (position, line) in logs.iter().enumerate() {
        statement.execute(params![
            number,
            position,
            column(line.time_us),
            word(line.source),
            line.level.as_deref(),
            &*line.text,
        ])?;
    }
    Ok(())
}

/// Adds what was learnt after the row was written; false if there is no such row.
pub(super) fn amend(connection: &Connection, row: &NewRow<'_>) -> rusqlite::Result<bool> {
    let invocation = &row.kept.invocation;
    let blame = row.outcome.blame(invocation.caller_was_short);
    connection
        .prepare_cached(
            "UPDATE invocations SET send_ns = ?2, outcome = ?3, reason = ?4, blame = ?5 WHERE id = ?1",
        )?
        .execute(params![
            invocation.id.0,
            column(row.send_ns),
            row.outcome.word(),
            row.outcome.reason(),
            blame.map(word),
        ])
        .map(|rows| rows > 0)
}

/// Adds to the calls of some seconds that no file holds.
pub(super) fn add_skipped(connection: &Connection, skipped: &Skipped) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO skipped (second, calls) VALUES (?1, ?2)
         ON CONFLICT (second) DO UPDATE SET calls = calls + excluded.calls",
    )?;
    for (at, calls) in skipped {
        statement.execute(params![at.number(), calls])?;
    }
    Ok(())
}

pub(super) fn was_skipped(connection: &Connection, at: SkippedAt) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM skipped WHERE second = ?1")?.exists([at.number()])
}

/// Calls by the second of their arrival that are in no file.
pub(super) fn skipped(connection: &Connection) -> rusqlite::Result<Skipped> {
    let mut statement = connection.prepare_cached("SELECT second, calls FROM skipped")?;
    statement.query_map([], |row| Ok((SkippedAt::of_number(row.get(0)?), row.get(1)?)))?.collect()
}

/// Whether there is a row of a call.
pub(super) fn has(connection: &Connection, id: InvocationId) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM invocations WHERE id = ?1")?.exists([id.0])
}

/// Shows every call with everything beside it in the order of arrival and id.
pub(super) fn visit_all<E: From<rusqlite::Error>>(
    connection: &Connection,
    mut visit: impl FnMut(Kept) -> Result<(), E>,
) -> Result<(), E> {
    let mut statement = connection.prepare("SELECT * FROM invocations ORDER BY started_us, id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        visit(read_kept(connection, row)?)?;
    }
    Ok(())
}

/// One call with everything beside it.
pub(super) fn find(connection: &Connection, id: InvocationId) -> rusqlite::Result<Option<Kept>> {
    connection
        .prepare_cached("SELECT * FROM invocations WHERE id = ?1")?
        .query_row([id.0], |row| read_kept(connection, row))
        .optional()
}

/// Adds the calls of a trace; the number of all of them.
pub(super) fn find_trace(
    connection: &Connection,
    trace_id: TraceId,
    calls: &mut TraceCalls<'_>,
) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare_cached("SELECT * FROM invocations WHERE trace_id = ?1")?;
    let mut found = statement.query([trace_id.0])?;
    let mut count = 0;
    while let Some(row) = found.next()? {
        count += 1;
        let invocation = read_invocation(row)?;
        if calls.wants(&invocation) {
            calls.add(Arc::new(with_beside(connection, row, invocation)?));
        }
        if calls.is_over() {
            break;
        }
    }
    Ok(count)
}

fn read_kept(connection: &Connection, row: &Row<'_>) -> rusqlite::Result<Kept> {
    with_beside(connection, row, read_invocation(row)?)
}

fn with_beside(connection: &Connection, row: &Row<'_>, invocation: Invocation) -> rusqlite::Result<Kept> {
    let number: i64 = row.get("number")?;
    Ok(Kept {
        invocation,
        spans: read_spans(connection, number)?,
        logs: read_logs(connection, number)?,
        result: row.get("result")?,
    })
}

pub(super) fn read_invocation(row: &Row<'_>) -> rusqlite::Result<Invocation> {
    let outcome: String = row.get("outcome")?;
    let reason: Option<String> = row.get("reason")?;
    let outcome = Outcome::from_words(&outcome, reason.as_deref()).ok_or_else(|| {
        let text = format!("outcome {outcome:?} with reason {reason:?} is unknown");
        unreadable(std::io::Error::new(std::io::ErrorKind::InvalidData, text))
    })?;
    let blame: Option<Blame> = match row.get_ref("blame")? {
        rusqlite::types::ValueRef::Null => None,
        _ => Some(value_of(row, "blame")?),
    };
    let event_type: String = row.get("event_type")?;
    Ok(Invocation {
        id: InvocationId(row.get("id")?),
        tenant: row.get_ref("tenant")?.as_str()?.parse().map_err(unreadable)?,
        function: row.get_ref("function")?.as_str()?.parse().map_err(unreadable)?,
        version: VersionNumber(row.get("version")?),
        event_type: event_type.into(),
        trigger: value_of::<Trigger>(row, "trigger")?,
        verb: row.get("verb")?,
        path: row.get("path")?,
        correlation_id: row.get("correlation_id")?,
        trace_id: TraceId(row.get("trace_id")?),
        span_id: SpanId(row.get("span_id")?),
        parent_span_id: row.get::<_, Option<[u8; 8]>>("parent_span_id")?.map(SpanId),
        called_by: added(row, "called_by")?,
        link: added(row, "link")?,
        started_us: row.get("started_us")?,
        phases: Phases {
            route: row.get("route_ns")?,
            queue: row.get("queue_ns")?,
            start: row.get("start_ns")?,
            run: row.get("run_ns")?,
            send: row.get("send_ns")?,
        },
        outcome,
        blame,
        caller_was_short: row.get("caller_was_short")?,
        status: row.get("status")?,
        error: row.get("error")?,
        cold: row.get("cold")?,
        attempts: row.get("attempts")?,
        worker: row.get::<_, Option<u64>>("worker")?.map(WorkerId),
        criticality: value_of::<Criticality>(row, "criticality")?,
        deadline_ms: row.get("deadline_ms")?,
        // Files of before it was kept have no such column.
        deadline_from: DeadlineFrom::from_number(row.get("deadline_from").unwrap_or(0)),
        queue_length: row.get("queue_length")?,
        request_bytes: row.get("request_bytes")?,
        response_bytes: row.get("response_bytes")?,
        log_bytes: row.get("log_bytes")?,
        cpu_us: row.get("cpu_us")?,
        memory_peak_kib: row.get("memory_peak_kib")?,
        limit_hit: row.get("limit_hit")?,
        latency_met: row.get("latency_met")?,
        degraded: row.get("degraded")?,
        weight: row.get("weight")?,
    })
}

/// A text of a column that came with a later release.
fn added<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text = match row.get_ref(column) {
        // A file of an earlier release is not written to any more, so it keeps its layout.
        Err(rusqlite::Error::InvalidColumnName(_)) => return Ok(None),
        text => text?.as_str_or_null()?,
    };
    text.map(|text| text.parse().map_err(unreadable)).transpose()
}

fn read_spans(connection: &Connection, number: i64) -> rusqlite::Result<Vec<Span>> {
    connection
        .prepare_cached("SELECT * FROM spans WHERE invocation = ?1 ORDER BY position")?
        .query_map([number], |row| {
            let attributes: String = row.get("attributes")?;
            let events: String = row.get("events")?;
            Ok(Span {
                span_id: SpanId(row.get("span_id")?),
                parent_span_id: row.get::<_, Option<[u8; 8]>>("parent_span_id")?.map(SpanId),
                name: row.get("name")?,
                start_ns: row.get("start_ns")?,
                duration_ns: row.get("duration_ns")?,
                attributes: serde_json::from_str(&attributes).map_err(unreadable)?,
                events: serde_json::from_str::<Vec<SpanEvent>>(&events).map_err(unreadable)?,
                error: row.get("error")?,
            })
        })?
        .collect()
}

fn read_logs(connection: &Connection, number: i64) -> rusqlite::Result<Vec<LogLine>> {
    connection
        .prepare_cached("SELECT * FROM logs WHERE invocation = ?1 ORDER BY position")?
        .query_map([number], |row| {
            Ok(LogLine {
                time_us: row.get("time_us")?,
                source: value_of::<LogSource>(row, "source")?,
                level: row.get("level")?,
                text: row.get("text")?,
            })
        })?
        .collect()
}
