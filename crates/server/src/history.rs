//! What happened: the ring in memory and what was kept on disk.
//!
//! A call is visible as soon as it waits or runs ([`History::begin`]); when it ends it moves into the ring
//! ([`History::finish`]), which holds the newest calls within a budget of bytes, and, by the
//! sampling rules of the interface, to disk. Queries read the ring first, then the telemetry
//! files. Counters are never taken from here: history is sampled, counters are not.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fp_core::record::{Invocation, Kept};
use fp_core::{InvocationId, Outcome, Tenant, TraceId, WorkerId};
use parking_lot::RwLock;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::config::HistoryConfig;
use crate::store::StoreError;
use crate::store::service_spans::ServiceSpans;
use crate::store::telemetry::{RowQuery, TraceCalls};

mod compaction;
mod disk;
mod questions;
mod record;
mod ring;
mod sampling;
mod select;
mod services;
mod share;
mod traces;
mod types;

use disk::Disk;
pub use questions::Answer;
use record::Record;
use ring::Ring;
use select::Selection;
pub(crate) use traces::{FoundTrace, Traces, Which};
pub use types::{
    Cursor, CursorError, DiskState, Entry, Filter, HistoryStatus, Lookup, Page, Running, RunningView,
    TraceEntry, TraceSummary,
};

/// Below the data directory.
const DIRECTORY: &str = "history";

/// A list that goes to disk is cut off after this long; its page then says where to go on.
const QUERY_TIME: Duration = Duration::from_secs(2);

/// What is read from disk at once, in microseconds: ten minutes hold at most 600,000 rows, which
/// SQLite goes through in about half a second.
const SLICE_US: u64 = 600 * 1_000_000;

/// Queries at once; more wait their turn. They are for people and tools; calls come first.
const QUERIES: usize = 4;

/// Writes a period that is over, compacted at once: for measurements, which have no hours to wait.
/// The calls are in the order of their arrival, from `start` (Unix time in seconds, a full hour) on.
///
/// # Errors
/// When the file cannot be written.
pub fn write_period(
    data_dir: &Path,
    start: u64,
    calls: impl IntoIterator<Item = Kept>,
) -> Result<(), StoreError> {
    crate::store::telemetry::write_period(&data_dir.join(DIRECTORY), start, calls)
}

/// Records and queries of invocations; shared as `Arc<History>`.
#[derive(Debug)]
pub struct History {
    inner: Arc<Inner>,
    /// Queries at once: each may hold a connection and a thread of the blocking pool.
    queries: Arc<Semaphore>,
}

/// What queries take with them to the blocking pool.
#[derive(Debug)]
struct Inner {
    ring: Ring,
    disk: Disk,
    /// What services around the functions have sent; none without a disk.
    services: Option<ServiceSpans>,
    /// From when on the calls of named tenants are shown, Unix time in microseconds.
    shown: RwLock<HashMap<Tenant, u64>>,
}

impl History {
    /// Opens the history of a data directory and starts its writer. A directory that cannot be
    /// written does not stop the platform: history on disk is then off, with a warning and the
    /// reason in [`History::status`], and is tried again every ten seconds.
    ///
    /// # Errors
    /// Only when the writer's thread cannot be started.
    pub fn open(config: &HistoryConfig, data_dir: &Path, clock: Clock) -> Result<Self, StoreError> {
        let ring = Ring::new(config.ring_bytes, clock.wall_now_us());
        let disk = Disk::open(config, data_dir, clock)?;
        let services = services::open(config, data_dir);
        Ok(Self {
            inner: Arc::new(Inner { ring, disk, services, shown: RwLock::default() }),
            queries: Arc::new(Semaphore::new(QUERIES)),
        })
    }

    /// Shows the calls of a named tenant that came after its beginning: those before are of an earlier
    /// tenant of this name. Those of tenants that were never said are not shown.
    pub fn show_tenant(&self, tenant: &Tenant, since_us: u64) {
        self.inner.shown.write().insert(tenant.clone(), since_us);
    }

    /// Shows nothing of a tenant any more, and keeps nothing of it in memory.
    pub fn hide_tenant(&self, tenant: &Tenant) {
        self.inner.shown.write().remove(tenant);
        self.inner.ring.forget(tenant);
        self.inner.disk.forget(tenant);
        if let Some(services) = &self.inner.services {
            services.forget(tenant);
        }
    }

    /// What may be kept of a tenant's calls from now on: bytes in memory, rows a second on disk that go
    /// there unsampled. None is no limit of its own; without, tenants that call share both equally.
    pub fn limit_tenant(&self, tenant: &Tenant, ring_bytes: Option<u64>, rows_per_second: Option<u32>) {
        let ring_bytes = ring_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        self.inner.ring.limit(tenant, ring_bytes);
        self.inner.disk.limit(tenant, rows_per_second);
    }

    /// Memory that a tenant's ended calls take, in bytes.
    pub fn ring_bytes_of(&self, tenant: &Tenant) -> u64 {
        self.inner.ring.bytes_of(tenant) as u64
    }

    /// A call has arrived; it is visible from now on.
    pub fn begin(&self, running: Running) {
        self.inner.ring.begin_on(running, None);
    }

    /// A call that had arrived is no more and leaves no record: nobody is there that could see one.
    pub(crate) fn withdraw(&self, id: InvocationId) {
        self.inner.ring.withdraw(id);
    }

    /// The same for one that a worker runs already.
    pub fn begin_on(&self, running: Running, worker: WorkerId) {
        self.inner.ring.begin_on(running, Some(worker));
    }

    /// A queued call was given to a worker.
    pub fn set_running(&self, id: InvocationId, worker: WorkerId) {
        self.inner.ring.set_running(id, worker);
    }

    /// A call has ended; its record is visible to queries when this returns.
    pub fn finish(&self, kept: Kept) -> Finished {
        let Invocation { tenant, started_us, .. } = &kept.invocation;
        // What nobody may see takes no part of what a later tenant of the name has.
        let is_shown = self.inner.shows(tenant, tenant, *started_us);
        let row = if is_shown { self.inner.disk.weigh(&kept.invocation) } else { None };
        let record = Record::new(kept, row.as_ref().map_or(0, |(weight, _)| *weight));
        let record = if is_shown { self.inner.ring.finish(record) } else { self.inner.ring.end(record) };
        if let Some((_, share)) = row {
            self.inner.disk.keep(&record, share);
        }
        Finished { record, inner: self.inner.clone() }
    }

    /// One call of a tenant.
    pub async fn get(&self, tenant: &Tenant, id: InvocationId) -> Lookup {
        // A call that ends between the two looks is in the ring by the second. What is another's is
        // looked for on, so that the answer is that for a call that never was.
        if let Some(view) = self.inner.ring.running(id)
            && self.inner.shows(tenant, &view.running.tenant, view.running.started_us)
        {
            return Lookup::Running(Box::new(view));
        }
        if let Some(record) = self.inner.ring.ended(tenant, id) {
            let invocation = &record.at_end().invocation;
            if self.inner.shows(tenant, &invocation.tenant, invocation.started_us) {
                return Lookup::Done(record.kept());
            }
        }
        let tenant = tenant.clone();
        self.in_background(move |inner| inner.find_on_disk(&tenant, id)).await.unwrap_or(Lookup::Unknown)
    }

    /// Calls of a tenant, newest arrival first, those that have not ended included. A page may be
    /// short, or empty, and still have a next one: searching the disk takes turns.
    pub async fn list(&self, tenant: &Tenant, filter: &Filter) -> Page {
        let (tenant, filter) = (tenant.clone(), filter.clone());
        let page =
            self.in_background(move |inner| inner.list(&tenant, &filter, Instant::now() + QUERY_TIME)).await;
        page.unwrap_or(Page { items: Vec::new(), next: None })
    }

    /// The kept calls of a trace, oldest first; none if there is no such trace. All of them, unless they
    /// are thousands, tens of megabytes, or take longer to find than a query may.
    pub async fn trace(&self, tenant: &Tenant, trace_id: TraceId) -> Option<Vec<TraceEntry>> {
        let tenant = tenant.clone();
        let calls = self
            .in_background(move |inner| inner.trace(&tenant, trace_id, Instant::now() + QUERY_TIME))
            .await?;
        (!calls.is_empty()).then_some(calls)
    }

    /// The newest traces with at least one ended call that passes the filter; its `limit` counts
    /// traces.
    pub async fn search_traces(&self, tenant: &Tenant, filter: &Filter) -> Vec<TraceSummary> {
        let summaries = |traces: &mut Traces<'_>| {
            traces.filter_map(|trace| traces::summarise(trace.trace_id, &trace.calls)).collect()
        };
        self.read_traces(tenant, Which::Newest(filter.clone()), summaries).await.unwrap_or_default()
    }

    /// Has traces of a tenant read one after the other, all of them within the time of one query and in
    /// one place for queries. None only when the runtime is stopping.
    pub(crate) async fn read_traces<T, F>(&self, tenant: &Tenant, which: Which, read: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Traces<'_>) -> T + Send + 'static,
    {
        let tenant = tenant.clone();
        let query =
            move |inner: &Inner| read(&mut Traces::new(inner, &tenant, which, Instant::now() + QUERY_TIME));
        self.in_background(query).await
    }

    /// Calls of a tenant that have not ended.
    pub fn running_of(&self, tenant: &Tenant) -> usize {
        let shown = |running: &Running| self.inner.shows(tenant, &running.tenant, running.started_us);
        self.inner.ring.count_running(shown)
    }

    /// How history is doing.
    pub fn status(&self) -> HistoryStatus {
        let Inner { ring, disk, .. } = &*self.inner;
        let usage = ring.usage();
        HistoryStatus {
            disk: disk.state(),
            dropped: disk.dropped(),
            sampled_out: disk.left_out(),
            ring_bytes: usage.bytes,
            ring_calls: usage.calls,
            running: usage.running,
            disk_bytes: disk.bytes(),
        }
    }

    /// Compacts every period that is over, without the rests that this takes by itself; the number of
    /// calls. For measurements; may take minutes.
    pub async fn compact(&self) -> usize {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || inner.disk.compact()).await.unwrap_or(0)
    }

    /// Writes everything that is to be kept and ends the writer. Call it when no call runs any
    /// more.
    pub async fn close(&self) {
        if let Some(services) = &self.inner.services {
            services.close().await;
        }
        let inner = self.inner.clone();
        if tokio::task::spawn_blocking(move || inner.disk.close()).await.is_err() {
            tracing::warn!("the writer of history could not be waited for");
        }
    }

    /// Scans take milliseconds, which a thread that serves calls does not have. None only when
    /// the runtime is stopping.
    async fn in_background<T, F>(&self, query: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce(&Inner) -> T + Send + 'static,
    {
        let turn = self.queries.clone().acquire_owned().await.ok()?;
        let inner = self.inner.clone();
        let whole = move || {
            // Until the query has ended, which it does not when whoever asked has left.
            let _turn = turn;
            query(&inner)
        };
        tokio::task::spawn_blocking(whole).await.ok()
    }
}

impl Inner {
    /// From when on a tenant's calls are shown; none if it has none to show.
    fn shown_since(&self, tenant: &Tenant) -> Option<u64> {
        if *tenant == Tenant::default() { Some(0) } else { self.shown.read().get(tenant).copied() }
    }

    /// Whether a call of `whose` that began then is for this tenant's eyes.
    fn shows(&self, tenant: &Tenant, whose: &Tenant, started_us: u64) -> bool {
        tenant == whose && self.shown_since(tenant).is_some_and(|since_us| started_us >= since_us)
    }

    fn list(&self, tenant: &Tenant, filter: &Filter, deadline: Instant) -> Page {
        let Some(since_us) = self.shown_since(tenant) else {
            return Page { items: Vec::new(), next: None };
        };
        let filter = &Filter { since_us: filter.since_us.max(Some(since_us)), ..filter.clone() };
        let mut selection = Selection::new(tenant, filter);
        // Running calls first: one that ends meanwhile is found again in the ring and replaced.
        for view in self.ring.running_that(|running| selection.wants_running(running)) {
            selection.add_running(view);
        }
        self.ring.scan(tenant, |record| {
            if selection.is_settled_at(record.ended_us) {
                return false;
            }
            if selection.wants_record(record) {
                selection.add_ended(record.invocation());
            }
            true
        });
        // Read after the scan: what was evicted before the scan came to it had ended by then.
        if !selection.is_settled_at(self.ring.horizon_us(tenant)) {
            self.list_from_disk(&mut selection, deadline);
        }
        selection.into_page()
    }

    /// Goes back in time slice by slice, because a filter that nothing passes would otherwise
    /// read all of history. At the deadline the page ends where the search has come to.
    fn list_from_disk(&self, selection: &mut Selection<'_>, deadline: Instant) {
        let reader = self.disk.reader();
        let query = selection.row_query();
        for stretch in reader.stretches(query.from_us, query.to_us) {
            let mut to_us = stretch.to_us;
            while to_us > stretch.from_us {
                if selection.is_settled_at(to_us) {
                    return;
                }
                if Instant::now() >= deadline {
                    return selection.stop_at(to_us);
                }
                let from_us = to_us.saturating_sub(SLICE_US).max(stretch.from_us);
                let slice = RowQuery { from_us, to_us, ..query };
                reader.visit(stretch.segment, &slice, |invocation| {
                    let is_settled = selection.is_settled_at(invocation.started_us);
                    if !is_settled {
                        selection.add_row(invocation);
                    }
                    !is_settled
                });
                to_us = from_us;
            }
        }
    }

    fn find_on_disk(&self, tenant: &Tenant, id: InvocationId) -> Lookup {
        match self.disk.reader().find(id) {
            Some(kept) if self.shows(tenant, &kept.invocation.tenant, kept.invocation.started_us) => {
                Lookup::Done(Arc::new(kept))
            }
            // Another's is answered as if it had never been.
            _ if self.disk.was_skipped(tenant, id) => Lookup::SampledOut,
            _ => Lookup::Unknown,
        }
    }

    fn trace(&self, tenant: &Tenant, trace_id: TraceId, deadline: Instant) -> Vec<TraceEntry> {
        let Some(since_us) = self.shown_since(tenant) else { return Vec::new() };
        let is_shown =
            |invocation: &Invocation| invocation.tenant == *tenant && invocation.started_us >= since_us;
        let records = self.ring.trace(tenant, trace_id, |record| is_shown(&record.at_end().invocation));
        let near_us = records.iter().map(|record| record.at_end().invocation.started_us).min();
        let mut calls = TraceCalls::new(&is_shown, deadline);
        for record in records {
            if calls.is_over() {
                break;
            }
            calls.add(record.kept());
        }
        self.disk.reader().trace(trace_id, near_us, &mut calls);
        traces::in_order(calls.into_calls())
    }
}

/// A call that has ended but whose answer may still be on its way.
#[derive(Debug)]
pub struct Finished {
    record: Arc<Record>,
    inner: Arc<Inner>,
}

impl Finished {
    /// The answer's last byte was written, `send_ns` after its head; `outcome` replaces the
    /// recorded one when sending failed.
    pub fn sent(&self, send_ns: u64, outcome: Option<Outcome>) {
        let was_written = self.record.set_sent(send_ns, outcome);
        if was_written && self.record.disk_weight > 0 {
            self.inner.disk.amend(&self.record);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
