//! `services.db`: the spans that services around the functions have sent.
//!
//! A row for each, with what is searched by beside its JSON. A sender that got no answer sends
//! again, so one span is one row: the later replaces the earlier. Rows go by age and, when the file
//! has outgrown its limit, the oldest of the tenant with the most: nobody's spans push out those of
//! somebody who has less. Committed when the sender is answered, synced when SQLite likes: a power
//! cut may cost the last ones.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fp_core::{ServiceSpan, Tenant, TraceId};
use rusqlite::{Connection, params};
use rusqlite_migration::{M, Migrations};

use super::StoreError;
use super::database::{self, Durability};
use super::writer::{WorkError, Writer};

const FILE: &str = "services.db";

/// Most services and most spans of one trace that are read: more than anybody looks at, few enough
/// to be held.
const MOST_SERVICES: usize = 1_000;
const MOST_SPANS: usize = 20_000;

/// Rows that are looked at for their age with each write: senders bring at most 512 at once by
/// default (OpenTelemetry SDK, `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`), so that age keeps up.
const AGED_AT_ONCE: usize = 1_024;

/// Part of the largest tenant's rows that goes when the file is too large: one in so many.
const SHED_ONE_IN: u64 = 10;

const LAYOUT: &[M<'_>] = &[M::up(
    "CREATE TABLE spans (
        id INTEGER PRIMARY KEY,
        tenant TEXT NOT NULL,
        trace_id BLOB NOT NULL,
        span_id BLOB NOT NULL,
        service TEXT NOT NULL,
        start_us INTEGER NOT NULL,
        received_us INTEGER NOT NULL,
        body TEXT NOT NULL,
        UNIQUE (tenant, trace_id, span_id, service)
    );
    CREATE INDEX spans_by_service ON spans (tenant, service, start_us);",
)];

/// How much is kept how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Size of the file, in bytes.
    pub(crate) bytes: u64,
    /// Age of a span.
    pub(crate) keep: Duration,
}

/// Which part of a tenant's spans is meant: those that came after this, Unix time in microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) tenant: Tenant,
    pub(crate) since_us: u64,
}

/// The file.
#[derive(Debug)]
pub(crate) struct ServiceSpans {
    writer: Writer,
    path: PathBuf,
    limits: Limits,
}

impl ServiceSpans {
    /// Opens or creates the file in the data directory.
    pub(crate) fn open(data_dir: &Path, limits: Limits) -> Result<Self, StoreError> {
        let path = data_dir.join(FILE);
        let layout = Migrations::from_slice(LAYOUT);
        let connection = database::open_writer(&path, &layout, Durability::Written)?;
        Ok(Self { writer: Writer::start(connection, &path)?, path, limits })
    }

    /// Keeps spans of a tenant; they are there to be read when this returns.
    pub(crate) async fn keep(
        &self,
        tenant: Tenant,
        spans: Vec<ServiceSpan>,
        now_us: u64,
    ) -> Result<(), StoreError> {
        let limits = self.limits;
        let write = move |connection: &Connection| {
            write(connection, &tenant, &spans, now_us)?;
            drop_aged(connection, now_us.saturating_sub(limits.keep.as_micros() as u64))?;
            drop_over(connection, limits.bytes)
        };
        self.writer.run("keeping spans of services", write).await
    }

    /// Drops all of a tenant.
    pub(crate) fn forget(&self, tenant: &Tenant) {
        let tenant = tenant.clone();
        let forget = move |connection: &Connection| {
            connection.execute("DELETE FROM spans WHERE tenant = ?1", params![tenant.as_str()])?;
            Ok(())
        };
        // What stays is older than any later tenant of the name, and not shown.
        self.writer.try_run("dropping the spans of a tenant", forget);
    }

    /// The spans of a trace, in the order in which they began.
    pub(crate) fn trace(&self, shown: &Shown, trace_id: TraceId) -> Result<Vec<ServiceSpan>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT body FROM spans WHERE tenant = ?1 AND trace_id = ?2 AND received_us >= ?3
                 ORDER BY start_us, id LIMIT ?4",
            )?;
            let named = params![shown.tenant.as_str(), trace_id.0, shown.since_us, MOST_SPANS as u64];
            let bodies = statement.query_map(named, |row| row.get::<_, String>(0))?;
            let spans =
                bodies.filter_map(|body| body.map(|body| serde_json::from_str(&body).ok()).transpose());
            spans.collect()
        })
    }

    /// The services that sent any.
    pub(crate) fn services(&self, shown: &Shown) -> Result<Vec<String>, StoreError> {
        self.read(|connection| {
            // From one name to the next by the index: as many steps as there are names.
            let mut statement = connection.prepare(
                "WITH RECURSIVE names (name) AS (
                    SELECT min(service) FROM spans WHERE tenant = ?1
                    UNION ALL
                    SELECT (SELECT min(service) FROM spans WHERE tenant = ?1 AND service > name)
                    FROM names WHERE name IS NOT NULL
                 )
                 SELECT name FROM names WHERE EXISTS (
                    SELECT 1 FROM spans WHERE tenant = ?1 AND service = name AND received_us >= ?2
                 ) LIMIT ?3",
            )?;
            let named = params![shown.tenant.as_str(), shown.since_us, MOST_SERVICES as u64];
            statement.query_map(named, |row| row.get(0))?.collect()
        })
    }

    /// The newest traces with spans of a service that began between two times, Unix microseconds.
    pub(crate) fn traces_of(
        &self,
        shown: &Shown,
        service: &str,
        (from_us, to_us): (u64, u64),
        most: usize,
    ) -> Result<Vec<TraceId>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT trace_id, max(start_us) AS newest FROM spans
                 WHERE tenant = ?1 AND service = ?2 AND start_us BETWEEN ?3 AND ?4 AND received_us >= ?5
                 GROUP BY trace_id ORDER BY newest DESC LIMIT ?6",
            )?;
            let within = |time_us: u64| i64::try_from(time_us).unwrap_or(i64::MAX);
            let named = params![
                shown.tenant.as_str(),
                service,
                within(from_us),
                within(to_us),
                shown.since_us,
                most as u64
            ];
            statement.query_map(named, |row| Ok(TraceId(row.get(0)?)))?.collect()
        })
    }

    /// Writes what is queued and ends the writer.
    pub(crate) async fn close(&self) {
        self.writer.close().await;
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let failed = |source| StoreError::Database {
            what: "reading spans of services",
            path: self.path.clone(),
            source,
        };
        query(&database::open_reader(&self.path).map_err(failed)?).map_err(failed)
    }
}

fn write(
    connection: &Connection,
    tenant: &Tenant,
    spans: &[ServiceSpan],
    now_us: u64,
) -> Result<(), WorkError> {
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO spans (tenant, trace_id, span_id, service, start_us, received_us, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for span in spans {
        let body = serde_json::to_string(span).expect("spans have texts as keys");
        statement.execute(params![
            tenant.as_str(),
            span.trace_id.0,
            span.span.span_id.0,
            &*span.service,
            span.span.start_ns / 1_000,
            now_us,
            body,
        ])?;
    }
    Ok(())
}

/// The ids grow with the time of receipt, so the oldest are looked at only.
fn drop_aged(connection: &Connection, before_us: u64) -> Result<(), WorkError> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM spans WHERE received_us < ?1 AND id IN (SELECT id FROM spans ORDER BY id LIMIT ?2)",
    )?;
    statement.execute(params![before_us, AGED_AT_ONCE as u64])?;
    Ok(())
}

fn drop_over(connection: &Connection, bytes: u64) -> Result<(), WorkError> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    let pages = pragma("page_count")?.saturating_sub(pragma("freelist_count")?);
    if pages * pragma("page_size")? <= bytes {
        return Ok(());
    }
    let largest = "SELECT tenant, count(*) FROM spans GROUP BY tenant ORDER BY count(*) DESC LIMIT 1";
    let (tenant, rows): (String, u64) =
        connection.query_row(largest, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    connection.execute(
        "DELETE FROM spans WHERE id IN (SELECT id FROM spans WHERE tenant = ?1 ORDER BY id LIMIT ?2)",
        params![tenant, rows.div_ceil(SHED_ONE_IN)],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use fp_core::SpanId;
    use fp_core::record::Span;
    use fp_core::service_span::SpanKind;

    use super::*;

    const NOW_US: u64 = 1_800_000_000_000_000;

    fn span(trace: u128, id: u64, service: &str) -> ServiceSpan {
        ServiceSpan {
            trace_id: TraceId(trace.to_be_bytes()),
            service: service.into(),
            resource: vec![("host.name".into(), "a".into())],
            kind: SpanKind::Client,
            links: Vec::new(),
            span: Span {
                span_id: SpanId(id.to_be_bytes()),
                parent_span_id: None,
                name: "GET".into(),
                start_ns: (NOW_US + id) * 1_000,
                duration_ns: 5,
                attributes: vec![("n".into(), id.into())],
                events: Vec::new(),
                error: None,
            },
        }
    }

    fn shown(tenant: &str, since_us: u64) -> Shown {
        Shown { tenant: tenant.parse().unwrap(), since_us }
    }

    fn open(dir: &Path, bytes: u64) -> ServiceSpans {
        ServiceSpans::open(dir, Limits { bytes, keep: Duration::from_secs(60) }).unwrap()
    }

    #[tokio::test]
    async fn spans_read_back_for_their_tenant_alone_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let spans = [span(1, 2, "shop"), span(1, 1, "bank"), span(2, 3, "shop")];
        let store = open(dir.path(), u64::MAX);
        store.keep("acme".parse().unwrap(), spans.to_vec(), NOW_US).await.unwrap();
        // The same again, as a sender does that got no answer.
        store.keep("acme".parse().unwrap(), spans[..1].to_vec(), NOW_US + 1).await.unwrap();
        store.close().await;
        let store = open(dir.path(), u64::MAX);
        let (acme, other, later) = (shown("acme", 0), shown("globex", 0), shown("acme", NOW_US + 1));
        let [first, second] = [1u128, 2].map(|id| TraceId(id.to_be_bytes()));
        assert_eq!(store.trace(&acme, first).unwrap(), [spans[1].clone(), spans[0].clone()]);
        assert_eq!(store.services(&acme).unwrap(), ["bank", "shop"]);
        let within = (NOW_US, NOW_US + 10);
        assert_eq!(store.traces_of(&acme, "shop", within, 10).unwrap(), [second, first]);
        assert_eq!(store.traces_of(&acme, "shop", within, 1).unwrap(), [second]);
        assert!(store.traces_of(&acme, "shop", (0, NOW_US), 10).unwrap().is_empty());
        assert!(store.trace(&other, first).unwrap().is_empty() && store.services(&other).unwrap().is_empty());
        assert_eq!(store.services(&later).unwrap(), ["shop"], "what came before is an earlier tenant's");
        assert_eq!(store.trace(&later, first).unwrap().len(), 1);
        store.forget(&acme.tenant);
        store.keep(other.tenant.clone(), Vec::new(), NOW_US).await.unwrap();
        assert!(store.trace(&acme, first).unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_oldest_go_by_age_and_the_largest_tenants_by_size() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), 200 << 10);
        let (small, large) = (shown("acme", 0), shown("globex", 0));
        store.keep(small.tenant.clone(), vec![span(1, 1, "s")], NOW_US).await.unwrap();
        for batch in 0..20u64 {
            let spans = (0..100).map(|id| span(2, 1 + batch * 100 + id, "l")).collect();
            store.keep(large.tenant.clone(), spans, NOW_US).await.unwrap();
        }
        let left = store.trace(&large, TraceId(2u128.to_be_bytes())).unwrap();
        assert!((1..1_500).contains(&left.len()), "{} of 2,000", left.len());
        assert_eq!(left.last().unwrap().span.attributes[0].1, 2_000, "the newest stays");
        assert_eq!(store.services(&small).unwrap(), ["s"]);
        let later_us = NOW_US + 61_000_000;
        store.keep(small.tenant.clone(), vec![span(3, 9, "t")], later_us).await.unwrap();
        assert_eq!(store.services(&small).unwrap(), ["t"]);
    }
}
