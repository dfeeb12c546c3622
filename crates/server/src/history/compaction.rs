//! The thread that compacts what is over: slowly, behind everything else, one segment at a time.
//!
//! It has the lowest priority and rests as long as it works, so that on a busy machine calls do not
//! feel it and on an idle one it takes half a core at most: an hour of ten million calls is done in
//! a few minutes. It keeps no queue: which segments are left is read from the directory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::store::StoreError;
use crate::store::telemetry::{CompactError, Compactor, Segment, Segments};

/// Between two looks for something to do.
const LOOK: Duration = Duration::from_secs(30);

/// How long a segment that could not be compacted is left alone: a full disk stays full for a while.
const RETRY: Duration = Duration::from_secs(600);

/// The kernel's lowest priority.
const NICE: i32 = 19;

#[derive(Debug)]
struct Shared {
    clock: Clock,
    closing: AtomicBool,
    /// One segment at a time, whoever asks.
    compactor: Mutex<Compactor>,
}

/// A handle on the thread.
#[derive(Debug)]
pub(super) struct Compaction {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Compaction {
    pub(super) fn new(segments: Arc<Segments>, clock: Clock) -> Self {
        let compactor = Mutex::new(Compactor::new(segments));
        let shared = Arc::new(Shared { clock, closing: AtomicBool::new(false), compactor });
        Self { shared, thread: Mutex::default() }
    }

    pub(super) fn start(&self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new()
            .name("compaction".into())
            .spawn(move || shared.run())
            .map_err(|source| StoreError::Thread { source })?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Compacts everything that is due, without rest; the number of calls.
    pub(super) fn finish(&self) -> usize {
        self.shared.compact_all(&mut BTreeMap::new(), || {})
    }

    /// Ends the thread; a segment that is being compacted stays as it was.
    pub(super) fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        if let Some(thread) = self.thread.lock().take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::warn!("the compaction of history ended with a fault; it goes on at the next start");
            }
        }
    }
}

impl Drop for Compaction {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn run(&self) {
        // Of this thread alone, as Linux has it. Refused nowhere: it only lowers.
        let _ = rustix::process::setpriority_process(None, NICE);
        let mut failed = BTreeMap::new();
        loop {
            // Not at once: a start has other things to do.
            std::thread::park_timeout(LOOK);
            if self.is_closing() {
                return;
            }
            let mut began = Instant::now();
            self.compact_all(&mut failed, || {
                std::thread::park_timeout(began.elapsed());
                began = Instant::now();
            });
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn compact_all(&self, failed: &mut BTreeMap<Segment, Instant>, mut rest: impl FnMut()) -> usize {
        let mut calls = 0;
        while !self.is_closing() {
            failed.retain(|_, at| at.elapsed() < RETRY);
            let compactor = self.compactor.lock();
            let next = compactor.next(self.clock.wall_now_us(), |segment| !failed.contains_key(&segment));
            let Some(segment) = next else { break };
            let began = Instant::now();
            let result = compactor.compact(segment, &mut || {
                rest();
                !self.is_closing()
            });
            drop(compactor);
            match result {
                Ok(done) => {
                    calls += done.calls;
                    tracing::debug!(
                        from = segment.0, calls = done.calls, bytes_before = done.bytes_before,
                        bytes_after = done.bytes_after, whole = done.whole, took = ?began.elapsed(),
                        "a period of history was compacted"
                    );
                    if !done.whole {
                        failed.insert(segment, Instant::now());
                    }
                }
                Err(CompactError::Stopped) => break,
                Err(error) => {
                    tracing::warn!(
                        from = segment.0,
                        error = &error as &dyn std::error::Error,
                        "a period of history could not be compacted; it stays as it is for now"
                    );
                    failed.insert(segment, Instant::now());
                }
            }
        }
        calls
    }
}
