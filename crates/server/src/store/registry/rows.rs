//! The registry's layout and its statements.
//!
//! A deleted function leaves its row in `functions` behind: it holds the last version number,
//! which is never used again.

use fp_core::settings::Handler;
use fp_core::{EventType, FunctionName, InvocationId, Tenant, VersionNumber};
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};
use rusqlite_migration::{M, Migrations};

use super::{AsyncCall, AsyncState, StoredVersion, stored_settings};

/// The layout, step by step; steps are only ever added.
pub(super) fn layout() -> Migrations<'static> {
    Migrations::new(vec![
        M::up(FIRST),
        M::up(super::access::LAYOUT),
        M::up(super::secrets::LAYOUT),
        M::up(super::quotas::LAYOUT),
        M::up(WHICH_FUNCTION),
        M::up(BODIES_APART),
        M::up(super::alerts::LAYOUT),
        M::up(super::silences::LAYOUT),
    ])
}

/// Functions, accepted calls and SLO counters.
const FIRST: &str = "CREATE TABLE platform (
         starts INTEGER NOT NULL
     );
     INSERT INTO platform (starts) VALUES (0);
     CREATE TABLE functions (
         tenant         TEXT NOT NULL,
         function       TEXT NOT NULL,
         creation_order INTEGER NOT NULL UNIQUE,
         created_us     INTEGER NOT NULL,
         last_version   INTEGER NOT NULL,
         deleted        INTEGER NOT NULL DEFAULT 0,
         PRIMARY KEY (tenant, function)
     ) WITHOUT ROWID;
     CREATE TABLE versions (
         tenant      TEXT NOT NULL,
         function    TEXT NOT NULL,
         version     INTEGER NOT NULL,
         deployed_us INTEGER NOT NULL,
         code_hash   TEXT NOT NULL,
         file        TEXT NOT NULL,
         callable    TEXT NOT NULL,
         events      TEXT NOT NULL,
         settings    TEXT NOT NULL,
         PRIMARY KEY (tenant, function, version),
         FOREIGN KEY (tenant, function) REFERENCES functions (tenant, function)
     );
     CREATE TABLE async_calls (
         id          BLOB PRIMARY KEY NOT NULL,
         tenant      TEXT NOT NULL,
         function    TEXT NOT NULL,
         event_type  TEXT NOT NULL,
         head        TEXT NOT NULL,
         body        BLOB NOT NULL,
         accepted_us INTEGER NOT NULL,
         started     INTEGER NOT NULL,
         attempts    INTEGER NOT NULL
     );
     CREATE TABLE slo_snapshots (
         tenant   TEXT NOT NULL,
         function TEXT NOT NULL,
         snapshot BLOB NOT NULL,
         PRIMARY KEY (tenant, function)
     );";

/// Accepted calls know which function of their name they are for.
const WHICH_FUNCTION: &str = "ALTER TABLE async_calls ADD COLUMN creation_order INTEGER";

/// Bodies of accepted calls are beside them: whoever reads or marks a call passes over its body.
const BODIES_APART: &str = "CREATE TABLE async_bodies (
         id   BLOB PRIMARY KEY NOT NULL REFERENCES async_calls (id) ON DELETE CASCADE,
         body BLOB NOT NULL
     );
     INSERT INTO async_bodies (id, body) SELECT id, body FROM async_calls WHERE length(body) > 0;
     ALTER TABLE async_calls ADD COLUMN body_bytes INTEGER NOT NULL DEFAULT 0;
     UPDATE async_calls SET body_bytes = length(body), body = x'';
     ALTER TABLE async_calls DROP COLUMN body;
     CREATE INDEX async_calls_by_age ON async_calls (accepted_us, id);";

/// Calls that are read at once, and bytes of their heads: a backlog is never in memory whole.
const PAGE: usize = 256;
const PAGE_BYTES: usize = 1 << 20;

/// Counts this start and returns how many there were.
pub(super) fn count_start(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("UPDATE platform SET starts = starts + 1 RETURNING starts", [], |row| row.get(0))
}

pub(super) fn live_versions(connection: &Connection) -> rusqlite::Result<Vec<StoredVersion>> {
    let mut statement = connection.prepare_cached(
        "SELECT f.tenant, f.function, f.creation_order, f.created_us,
                v.version, v.deployed_us, v.code_hash, v.file, v.callable, v.events, v.settings
         FROM functions f JOIN versions v
           ON v.tenant = f.tenant AND v.function = f.function AND v.version = f.last_version
         WHERE NOT f.deleted
         ORDER BY f.creation_order",
    )?;
    statement.query_map([], read_version)?.collect()
}

fn read_version(row: &Row<'_>) -> rusqlite::Result<StoredVersion> {
    let events: String = row.get("events")?;
    let settings: String = row.get("settings")?;
    Ok(StoredVersion {
        tenant: parsed(row, "tenant")?,
        function: parsed(row, "function")?,
        version: VersionNumber(row.get("version")?),
        order: row.get("creation_order")?,
        created_us: row.get("created_us")?,
        deployed_us: row.get("deployed_us")?,
        code_hash: row.get("code_hash")?,
        handler: Handler { file: row.get("file")?, callable: row.get("callable")? },
        events: serde_json::from_str::<Vec<EventType>>(&events).map_err(unreadable)?,
        settings: stored_settings::from_json(&settings).map_err(unreadable)?,
    })
}

pub(super) fn parsed<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(unreadable)
}

pub(super) fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
}

pub(super) fn next_version(
    connection: &Connection,
    tenant: &Tenant,
    function: &FunctionName,
) -> rusqlite::Result<(VersionNumber, u64, Option<u64>)> {
    let known = connection
        .prepare_cached(
            "SELECT last_version, creation_order, created_us, deleted FROM functions
             WHERE tenant = ?1 AND function = ?2",
        )?
        .query_row(params![tenant.as_str(), function.as_str()], |row| {
            Ok((row.get::<_, u32>(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    let next_order = || {
        connection
            .query_row("SELECT coalesce(max(creation_order), 0) + 1 FROM functions", [], |row| row.get(0))
    };
    Ok(match known {
        None => (VersionNumber(1), next_order()?, None),
        Some((last, _, _, true)) => (VersionNumber(last + 1), next_order()?, None),
        Some((last, order, created_us, false)) => (VersionNumber(last + 1), order, Some(created_us)),
    })
}

/// False when the number, or a higher one, was used before.
pub(super) fn put_version(connection: &Connection, version: &StoredVersion) -> rusqlite::Result<bool> {
    let raised = connection
        .prepare_cached(
            "INSERT INTO functions (tenant, function, creation_order, created_us, last_version)
             VALUES (:tenant, :function, :order, :created_us, :version)
             ON CONFLICT (tenant, function) DO UPDATE
                 SET creation_order = excluded.creation_order, created_us = excluded.created_us,
                     last_version = excluded.last_version, deleted = 0
                 WHERE last_version < excluded.last_version",
        )?
        .execute(named_params! {
            ":tenant": version.tenant.as_str(),
            ":function": version.function.as_str(),
            ":order": version.order,
            ":created_us": version.created_us,
            ":version": version.version.0,
        })?;
    if raised == 0 {
        return Ok(false);
    }
    connection
        .prepare_cached(
            "INSERT INTO versions
                 (tenant, function, version, deployed_us, code_hash, file, callable, events, settings)
             VALUES (:tenant, :function, :version, :deployed_us, :code_hash, :file, :callable, :events, :settings)",
        )?
        .execute(named_params! {
            ":tenant": version.tenant.as_str(),
            ":function": version.function.as_str(),
            ":version": version.version.0,
            ":deployed_us": version.deployed_us,
            ":code_hash": version.code_hash,
            ":file": version.handler.file,
            ":callable": version.handler.callable,
            ":events": serde_json::to_string(&version.events).expect("a list of texts is JSON"),
            ":settings": stored_settings::to_json(&version.settings),
        })?;
    Ok(true)
}

pub(super) fn delete_function(
    connection: &Connection,
    tenant: &Tenant,
    function: &FunctionName,
) -> rusqlite::Result<bool> {
    let key = params![tenant.as_str(), function.as_str()];
    let marked = connection.execute(
        "UPDATE functions SET deleted = 1 WHERE tenant = ?1 AND function = ?2 AND NOT deleted",
        key,
    )?;
    connection.execute("DELETE FROM versions WHERE tenant = ?1 AND function = ?2", key)?;
    connection.execute("DELETE FROM slo_snapshots WHERE tenant = ?1 AND function = ?2", key)?;
    super::alerts::forget_function(connection, tenant, function)?;
    Ok(marked > 0)
}

pub(super) fn enqueue(connection: &Connection, calls: &[AsyncCall], body: &[u8]) -> rusqlite::Result<()> {
    let mut head = connection.prepare_cached(
        "INSERT INTO async_calls
             (id, tenant, function, creation_order, event_type, head, body_bytes, accepted_us, started, attempts)
         VALUES (:id, :tenant, :function, :order, :event_type, :head, :body_bytes, :accepted_us, :started, :attempts)",
    )?;
    let mut own_body = connection.prepare_cached("INSERT INTO async_bodies (id, body) VALUES (?1, ?2)")?;
    for call in calls {
        head.execute(named_params! {
            ":id": call.id.0,
            ":tenant": call.tenant.as_str(),
            ":function": call.function.as_str(),
            ":order": call.order,
            ":event_type": call.event_type,
            ":head": call.head_json,
            ":body_bytes": body.len() as u64,
            ":accepted_us": call.accepted_us,
            ":started": match call.state {
                AsyncState::Queued => 0,
                AsyncState::Started { at_us } => at_us,
            },
            ":attempts": call.attempts,
        })?;
        if !body.is_empty() {
            own_body.execute(params![call.id.0, body])?;
        }
    }
    Ok(())
}

pub(super) fn pending_calls(
    connection: &Connection,
    after: Option<&AsyncCall>,
) -> rusqlite::Result<Vec<AsyncCall>> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM async_calls WHERE (accepted_us, id) > (?1, ?2) ORDER BY accepted_us, id",
    )?;
    let (after_us, after_id) = after.map_or((-1, [0; 16]), |call| (call.accepted_us as i64, call.id.0));
    let mut rows = statement.query(params![after_us, after_id])?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    while page.len() < PAGE && bytes < PAGE_BYTES {
        let Some(row) = rows.next()? else { break };
        let call = read_call(row)?;
        bytes += call.head_json.len();
        page.push(call);
    }
    Ok(page)
}

pub(super) fn accepted_call(
    connection: &Connection,
    id: InvocationId,
) -> rusqlite::Result<Option<AsyncCall>> {
    let mut statement = connection.prepare_cached("SELECT * FROM async_calls WHERE id = ?1")?;
    statement.query_row([id.0], read_call).optional()
}

/// Empty where there is none.
pub(super) fn body_of_call(connection: &Connection, id: InvocationId) -> rusqlite::Result<Vec<u8>> {
    let mut statement = connection.prepare_cached("SELECT body FROM async_bodies WHERE id = ?1")?;
    Ok(statement.query_row([id.0], |row| row.get(0)).optional()?.unwrap_or_default())
}

fn read_call(row: &Row<'_>) -> rusqlite::Result<AsyncCall> {
    let started: u64 = row.get("started")?;
    let accepted_us: u64 = row.get("accepted_us")?;
    Ok(AsyncCall {
        id: InvocationId(row.get("id")?),
        tenant: parsed(row, "tenant")?,
        function: parsed(row, "function")?,
        order: row.get("creation_order")?,
        event_type: row.get("event_type")?,
        head_json: row.get("head")?,
        body_bytes: row.get("body_bytes")?,
        accepted_us,
        state: match started {
            0 => AsyncState::Queued,
            // An earlier release noted only that it was; and a clock that was set back is not followed.
            at_us => AsyncState::Started { at_us: at_us.max(accepted_us) },
        },
        attempts: row.get("attempts")?,
    })
}

/// `started` is the time of the start; 0 before it.
pub(super) fn mark_started(connection: &Connection, id: InvocationId, at_us: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE async_calls SET started = ?2, attempts = attempts + 1 WHERE id = ?1")?
        .execute(params![id.0, at_us])
        .map(drop)
}

pub(super) fn finish_call(connection: &Connection, id: InvocationId) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM async_calls WHERE id = ?1")?.execute([id.0]).map(drop)
}

/// Keeps snapshots of functions that exist; a function that was deleted meanwhile has none.
pub(super) fn save_slo(
    connection: &Connection,
    snapshots: &[(Tenant, FunctionName, Vec<u8>)],
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO slo_snapshots (tenant, function, snapshot)
         SELECT tenant, function, ?3 FROM functions
         WHERE tenant = ?1 AND function = ?2 AND NOT deleted",
    )?;
    for (tenant, function, snapshot) in snapshots {
        statement.execute(params![tenant.as_str(), function.as_str(), snapshot])?;
    }
    Ok(())
}

pub(super) fn load_slo(connection: &Connection) -> rusqlite::Result<Vec<(Tenant, FunctionName, Vec<u8>)>> {
    let mut statement = connection.prepare_cached("SELECT tenant, function, snapshot FROM slo_snapshots")?;
    let rows = statement
        .query_map([], |row| Ok((parsed(row, "tenant")?, parsed(row, "function")?, row.get("snapshot")?)))?;
    rows.collect()
}
