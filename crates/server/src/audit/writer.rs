//! The thread that writes the log.
//!
//! What waits is written together, each kind with one write to the kernel at once, so that a kill of
//! the platform loses nothing that was written. Changes are on the disk before the thread goes on; the
//! rest follows with the kernel's own writing, which a power cut may cost some seconds.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::series::{Limits, Lines, Series};
use super::{Job, Kind, Record, Shared};
use crate::store::StoreError;

/// Jobs that are taken together: bounds the memory of their lines.
const GROUP: usize = 256;

/// Starts the thread.
pub(super) fn start(
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Job>,
    limits: Limits,
) -> Result<JoinHandle<()>, StoreError> {
    let writer = move || Writer::new(shared, limits).serve(jobs);
    let thread = std::thread::Builder::new().name("audit".into()).spawn(writer);
    thread.map_err(|source| StoreError::Thread { source })
}

#[derive(Debug)]
struct Writer {
    shared: Arc<Shared>,
    /// One for each of [`Kind::ALL`].
    series: [Series; 4],
    last_seq: u64,
    /// The last write failed, and that was said.
    is_failing: bool,
}

/// The lines of one kind that are written together.
#[derive(Debug, Default)]
struct Batch {
    lines: Vec<u8>,
    records: u64,
    last_seq: u64,
    /// Lost records that one of these speaks of.
    speaks_of: u64,
}

impl Writer {
    fn new(shared: Arc<Shared>, limits: Limits) -> Self {
        let series = Kind::ALL.map(|kind| Series::new(&shared.dir, kind, limits));
        let last_seq = series.iter().map(Series::last_seq).max().unwrap_or(0);
        Self { shared, series, last_seq, is_failing: false }
    }

    fn serve(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut group = Vec::with_capacity(GROUP);
        while jobs.blocking_recv_many(&mut group, GROUP) > 0 {
            let waiting = self.write(group.drain(..));
            for caught in waiting {
                // Who asked may have left.
                let _ = caught.send(());
            }
        }
        self.series.iter().for_each(Series::sync);
    }

    /// Writes the records of a group; those who wait for it come back.
    fn write(&mut self, group: impl Iterator<Item = Job>) -> Vec<oneshot::Sender<()>> {
        let mut batches: [Batch; 4] = Default::default();
        let mut waiting = Vec::new();
        for job in group {
            match job {
                Job::Note(record) => self.put(&mut batches, *record),
                Job::Catch(caught) => waiting.push(caught),
            }
        }
        for (index, batch) in batches.into_iter().enumerate() {
            if batch.records > 0 {
                self.append(index, &batch);
            }
        }
        waiting
    }

    fn put(&mut self, batches: &mut [Batch; 4], mut record: Record) {
        self.last_seq += 1;
        record.seq = self.last_seq;
        record.lost_before = self.shared.unsaid.swap(0, Ordering::Relaxed);
        let batch = &mut batches[record.kind as usize];
        serde_json::to_writer(&mut batch.lines, &record).expect("words and numbers, into memory");
        batch.lines.push(b'\n');
        batch.records += 1;
        batch.last_seq = record.seq;
        batch.speaks_of += record.lost_before;
    }

    fn append(&mut self, index: usize, batch: &Batch) {
        let are_durable = Kind::ALL[index] == Kind::Change;
        let lines = Lines { bytes: &batch.lines, last_seq: batch.last_seq, are_durable };
        match self.series[index].append(&lines, &self.shared.names) {
            Ok(()) => self.on_written(),
            Err(error) => self.on_failure(batch, &error),
        }
    }

    fn on_written(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            let lost = self.shared.lost.load(Ordering::Relaxed);
            tracing::warn!(lost, "the audit log is written again; the next record says how many are missing");
        }
    }

    fn on_failure(&mut self, batch: &Batch, error: &io::Error) {
        self.shared.lose(batch.records);
        // Those were counted before; only their mention is gone.
        self.shared.unsaid.fetch_add(batch.speaks_of, Ordering::Relaxed);
        if !std::mem::replace(&mut self.is_failing, true) {
            let dir = &self.shared.dir;
            tracing::warn!(%error, ?dir, "the audit log cannot be written; calls go on and are counted");
        }
    }
}
