//! The way to disk: a bounded queue and the thread that empties it.
//!
//! Calls never wait for it and never wake it: the thread looks four times a second. A row waits
//! until its answer is sent, at most [`HOLD`], so what a kill can cost is well under a second.
//! When writing fails, history on disk is off: one warning, the reason in the status, and another
//! try every [`RETRY`]; meanwhile rows wait in the queue, and when that is full the newer ones are
//! counted as dropped. Calls are answered from memory all the while.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fp_core::{Invocation, InvocationId, Tenant};
use parking_lot::Mutex;

use super::compaction::Compaction;
use super::record::Record;
use super::sampling::{Sampling, arrival_of};
use super::share::{Place, Share};
use super::types::DiskState;
use crate::clock::Clock;
use crate::config::HistoryConfig;
use crate::store::StoreError;
use crate::store::telemetry::{
    Batch, NewRow, Segments, Skipped, TelemetryLimits, TelemetryReader, TelemetryWriter,
};

/// How often the thread looks: with [`HOLD`] and a commit this keeps the promise that a kill
/// costs at most one second of history.
const TICK: Duration = Duration::from_millis(250);

/// Longest wait of a row for its answer to be sent. Later news become an update.
const HOLD: Duration = Duration::from_millis(500);

/// Between two tries while history is off.
const RETRY: Duration = Duration::from_secs(10);

/// Between two looks at the files' age and size. At 1,000 rows/s of 1 KiB this is 10 MB.
const RETENTION: Duration = Duration::from_secs(10);

/// Rows in the queue: sixteen seconds at the interface's limit over all functions.
const QUEUE_ROWS: usize = 16_384;

/// Bytes in the queue: rows may hold a megabyte of logs each.
const QUEUE_BYTES: usize = 32 << 20;

/// Seconds (each once for each tenant) of which it is remembered in memory that calls were left out,
/// while no file takes the note: a day of one tenant's. Beyond that the oldest are forgotten and their calls are reported as unknown.
const REMEMBERED_SECONDS: usize = 86_400;

/// A row that waits to be written.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    record: Arc<Record>,
    _place: Place,
}

#[derive(Debug, Default)]
struct Queue {
    rows: Vec<Waiting>,
    amendments: Vec<Arc<Record>>,
}

/// What the calls, the queries and the thread share.
#[derive(Debug)]
struct Shared {
    clock: Clock,
    sampling: Sampling,
    queue: Mutex<Queue>,
    /// Rows and bytes in the queue and in the thread's hands.
    queued_rows: AtomicUsize,
    queued_bytes: AtomicUsize,
    dropped: AtomicU64,
    /// Calls that are in no file, until a file notes it.
    skipped: Mutex<Skipped>,
    state: Mutex<DiskState>,
    bytes: AtomicU64,
    closing: AtomicBool,
}

/// A handle on the thread.
#[derive(Debug)]
pub(super) struct Disk {
    shared: Arc<Shared>,
    reader: TelemetryReader,
    compaction: Compaction,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Disk {
    /// Reads which files there are and starts the threads.
    pub(super) fn open(config: &HistoryConfig, data_dir: &Path, clock: Clock) -> Result<Self, StoreError> {
        let (disk, keeper) = Self::assemble(config, data_dir, clock);
        let thread = std::thread::Builder::new()
            .name("history".into())
            .spawn(move || keeper.run())
            .map_err(|source| StoreError::Thread { source })?;
        *disk.thread.lock() = Some(thread);
        disk.compaction.start()?;
        Ok(disk)
    }

    /// The handle and what its writing thread will run; nothing is compacted by itself.
    pub(super) fn assemble(config: &HistoryConfig, data_dir: &Path, clock: Clock) -> (Self, Keeper) {
        let segments = Arc::new(Segments::new(&data_dir.join(super::DIRECTORY)));
        let shared = Arc::new(Shared {
            clock: clock.clone(),
            sampling: Sampling::new(config),
            queue: Mutex::default(),
            queued_rows: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            skipped: Mutex::default(),
            state: Mutex::default(),
            bytes: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        });
        let limits = TelemetryLimits { disk_bytes: config.disk_bytes, keep: config.keep };
        let mut keeper = Keeper::new(shared.clone(), TelemetryWriter::new(segments.clone(), limits));
        segments.sweep();
        if let Err(error) = segments.read() {
            keeper.turn_off(&error, Instant::now());
        }
        let compaction = Compaction::new(segments.clone(), clock);
        let disk =
            Self { shared, reader: TelemetryReader::new(segments), compaction, thread: Mutex::default() };
        (disk, keeper)
    }

    /// Weight of a call's row and the share that it is of; none when it will have no row.
    pub(super) fn weigh(&self, invocation: &Invocation) -> Option<(u32, Arc<Share>)> {
        self.shared.sampling.weigh(invocation)
    }

    /// What a tenant may have on the disk from now on; none is no limit of its own.
    pub(super) fn limit(&self, tenant: &fp_core::Tenant, rows_per_second: Option<u32>) {
        self.shared.sampling.shares.limit(tenant, rows_per_second);
    }

    /// A tenant is no more.
    pub(super) fn forget(&self, tenant: &fp_core::Tenant) {
        self.shared.sampling.forget(tenant);
    }

    /// Queues a row. Where others call too, one tenant's rows cannot fill the queue.
    pub(super) fn keep(&self, record: &Arc<Record>, share: Arc<Share>) {
        let shared = &*self.shared;
        let bytes = record.footprint();
        let rows = shared.queued_rows.fetch_add(1, Ordering::Relaxed);
        let queued = shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let has_room = rows < QUEUE_ROWS && queued + bytes <= QUEUE_BYTES;
        let (free_rows, free_bytes) = (QUEUE_ROWS.saturating_sub(rows), QUEUE_BYTES.saturating_sub(queued));
        let enter = || shared.sampling.shares.enter(share, bytes, free_rows, free_bytes);
        let Some(place) = has_room.then(enter).flatten() else {
            shared.let_go(1, bytes);
            shared.dropped.fetch_add(1, Ordering::Relaxed);
            shared.note_skipped(&record.at_end().invocation);
            return;
        };
        let waiting = Waiting { since: Instant::now(), record: record.clone(), _place: place };
        shared.queue.lock().rows.push(waiting);
    }

    /// Queues later news about a row that was written. They are small and come at most once per
    /// row, so they share its bound.
    pub(super) fn amend(&self, record: &Arc<Record>) {
        let mut queue = self.shared.queue.lock();
        if queue.amendments.len() < QUEUE_ROWS {
            queue.amendments.push(record.clone());
        }
    }

    pub(super) fn reader(&self) -> &TelemetryReader {
        &self.reader
    }

    /// Whether calls of a tenant that arrived when this id was made are known to be in no file.
    pub(super) fn was_skipped(&self, tenant: &Tenant, id: InvocationId) -> bool {
        let at = arrival_of(tenant, id);
        self.shared.sampling.was_skipped(at)
            || self.shared.skipped.lock().contains_key(&at)
            || self.reader.was_skipped(at)
    }

    pub(super) fn state(&self) -> DiskState {
        self.shared.state.lock().clone()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn left_out(&self) -> u64 {
        self.shared.sampling.left_out()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Compacts what is due; blocks for that long.
    pub(super) fn compact(&self) -> usize {
        self.compaction.finish()
    }

    /// Writes what is queued and ends the threads; blocks for that long.
    pub(super) fn close(&self) {
        self.compaction.close();
        self.shared.closing.store(true, Ordering::Release);
        if let Some(thread) = self.thread.lock().take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::warn!("the writer of history ended with a fault; its last second is lost");
            }
        }
        self.reader.close();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn let_go(&self, rows: usize, bytes: usize) {
        self.queued_rows.fetch_sub(rows, Ordering::Relaxed);
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn note_skipped(&self, invocation: &Invocation) {
        *self.skipped.lock().entry(arrival_of(&invocation.tenant, invocation.id)).or_default() += 1;
    }
}

/// The thread: holds rows until they are complete, writes them, keeps the files within limits.
#[derive(Debug)]
pub(super) struct Keeper {
    shared: Arc<Shared>,
    writer: TelemetryWriter,
    waiting: Vec<Waiting>,
    amendments: Vec<Arc<Record>>,
    retry_at: Option<Instant>,
    retain_at: Instant,
}

impl Keeper {
    fn new(shared: Arc<Shared>, writer: TelemetryWriter) -> Self {
        let (waiting, amendments) = (Vec::new(), Vec::new());
        Self { shared, writer, waiting, amendments, retry_at: None, retain_at: Instant::now() }
    }

    fn run(mut self) {
        loop {
            let is_closing = self.shared.closing.load(Ordering::Acquire);
            self.step(Instant::now(), is_closing);
            if is_closing {
                break;
            }
            std::thread::park_timeout(TICK);
        }
        self.writer.close();
    }

    /// One look at the queue and at the files.
    pub(super) fn step(&mut self, now: Instant, is_closing: bool) {
        self.take_queue();
        if self.retry_at.is_some_and(|at| now < at && !is_closing) {
            return;
        }
        match self.write(now, is_closing) {
            Ok(()) => self.turn_on(),
            Err(error) => self.turn_off(&error, now),
        }
        if is_closing && !self.waiting.is_empty() {
            let lost = self.waiting.len();
            self.shared.dropped.fetch_add(lost as u64, Ordering::Relaxed);
            tracing::warn!(calls = lost, "history is off; the records of these calls are lost");
        }
    }

    fn take_queue(&mut self) {
        let mut queue = self.shared.queue.lock();
        self.waiting.append(&mut queue.rows);
        self.amendments.append(&mut queue.amendments);
        drop(queue);
        let now_second = self.shared.clock.wall_now_us() / 1_000_000;
        let mut skipped = self.shared.skipped.lock();
        self.shared.sampling.drain(now_second, &mut skipped);
        while skipped.len() > REMEMBERED_SECONDS {
            skipped.pop_first();
        }
    }

    fn write(&mut self, now: Instant, everything: bool) -> Result<(), StoreError> {
        let is_ready = |Waiting { since, record, .. }: &Waiting| {
            everything || record.is_sent() || now.duration_since(*since) >= HOLD
        };
        let (ready, held): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(is_ready);
        self.waiting = held;
        ready.iter().for_each(|row| row.record.take());
        let batch = Batch {
            rows: ready.iter().map(|row| new_row(&row.record)).collect(),
            amendments: self.amendments.iter().map(|record| new_row(record)).collect(),
            skipped: self.shared.skipped.lock().clone(),
        };
        let now_us = self.shared.clock.wall_now_us();
        let is_retention_due = now >= self.retain_at;
        if batch.is_empty() && !is_retention_due && self.retry_at.is_none() {
            return Ok(());
        }
        if let Err(error) = self.writer.write(now_us, &batch) {
            drop(batch);
            self.waiting.splice(0..0, ready);
            return Err(error);
        }
        forget(&mut self.shared.skipped.lock(), &batch.skipped);
        drop(batch);
        let bytes = ready.iter().map(|row| row.record.footprint()).sum();
        self.shared.let_go(ready.len(), bytes);
        self.amendments.clear();
        if is_retention_due {
            self.retain_at = now + RETENTION;
            self.shared.bytes.store(self.writer.retain(now_us)?, Ordering::Relaxed);
        }
        Ok(())
    }

    fn turn_on(&mut self) {
        self.retry_at = None;
        let mut state = self.shared.state.lock();
        if *state != DiskState::On {
            *state = DiskState::On;
            let lost = self.shared.dropped.load(Ordering::Relaxed);
            tracing::info!(lost_since_start = lost, "history is written to disk again");
        }
    }

    fn turn_off(&mut self, error: &StoreError, now: Instant) {
        self.retry_at = Some(now + RETRY);
        let mut state = self.shared.state.lock();
        if *state == DiskState::On {
            let why = error.chain();
            tracing::warn!(
                error = %why,
                "history is kept in memory only; free space or make the data directory writable"
            );
            let reason = format!("history is kept in memory only: {why}");
            *state = DiskState::Off { reason, since_us: self.shared.clock.wall_now_us() };
        }
    }
}

fn new_row(record: &Record) -> NewRow<'_> {
    NewRow {
        kept: record.at_end(),
        send_ns: record.send_ns(),
        outcome: record.outcome(),
        weight: record.disk_weight,
    }
}

/// Takes off what a file has noted; more may have come meanwhile.
fn forget(skipped: &mut Skipped, noted: &Skipped) {
    for (at, calls) in noted {
        if let Some(left) = skipped.get_mut(at) {
            *left = left.saturating_sub(*calls);
            if *left == 0 {
                skipped.remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests;
