//! Every call in memory: those that have not ended, and the newest that have.
//!
//! Shards by invocation id, each with one short lock. A shard's ended calls stand in the order
//! in which they ended; each is known by its serial number there. Two indexes lead to it: by id,
//! and by trace, where a slot also holds the serial of the trace's call before it, so that a
//! trace is a chain and evicting costs the same whatever the trace. When the shard's bytes
//! exceed its share of the budget, the oldest go; the newest one stays whatever its size.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use fp_core::record::State;
use fp_core::{InvocationId, TraceId, WorkerId};
use parking_lot::Mutex;

use super::record::Record;
use super::types::{Running, RunningView};

/// Most shards. Two threads at 30,000 calls/s hold a lock for about 1 % of the time in all; 16
/// keep it so on machines with many more cores.
const MAX_SHARDS: usize = 16;

/// Smallest share of the budget that is worth a shard: small rings (tests, small machines) get
/// fewer shards so that they still hold the newest calls.
const MIN_SHARD_BYTES: usize = 1 << 20;

/// Records looked at per lock by a scan: bounds what a query can add to a call (each record is
/// about one cache miss, 0.1 µs).
const CHUNK: usize = 64;

/// Ids are ours and random in their last eight bytes, so one multiplication spreads them.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        let tail = bytes.last_chunk().map_or(0, |tail| u64::from_be_bytes(*tail));
        self.0 = tail.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

type ById<T> = HashMap<InvocationId, T, BuildHasherDefault<IdHasher>>;

#[derive(Debug)]
struct Slot {
    record: Arc<Record>,
    /// Serial of the call before it in its trace, if that was in this shard.
    before_in_trace: Option<u64>,
}

#[derive(Debug)]
struct RunningSlot {
    running: Running,
    worker: Option<WorkerId>,
}

impl RunningSlot {
    fn view(&self) -> RunningView {
        let state = if self.worker.is_some() { State::Running } else { State::Queued };
        RunningView { running: self.running.clone(), state, worker: self.worker }
    }
}

#[derive(Debug, Default)]
struct Shard {
    running: ById<RunningSlot>,
    slots: VecDeque<Slot>,
    /// Serial of the oldest slot.
    first: u64,
    by_id: ById<u64>,
    /// Serial of the trace's newest call. Callers choose trace ids, so this one hashes with a
    /// key.
    by_trace: HashMap<TraceId, u64>,
    bytes: usize,
    /// No slot ended before this one's time: keeps `ended_us` in the order of the slots.
    last_ended_us: u64,
    /// Every call that was evicted had ended by this time.
    horizon_us: u64,
}

impl Shard {
    fn slot(&self, serial: u64) -> Option<&Slot> {
        let at = serial.checked_sub(self.first)?;
        self.slots.get(usize::try_from(at).ok()?)
    }

    fn push(&mut self, mut record: Record) -> Arc<Record> {
        self.last_ended_us = self.last_ended_us.max(record.ended_us);
        record.ended_us = self.last_ended_us;
        let record = Arc::new(record);
        let serial = self.first + self.slots.len() as u64;
        let invocation = &record.at_end().invocation;
        self.bytes += record.footprint();
        self.by_id.insert(invocation.id, serial);
        let before_in_trace = self.by_trace.insert(invocation.trace_id, serial);
        self.slots.push_back(Slot { record: record.clone(), before_in_trace });
        record
    }

    /// Takes the oldest out if the shard is over its budget.
    fn evict(&mut self, budget: usize) -> Option<Arc<Record>> {
        if self.bytes <= budget || self.slots.len() <= 1 {
            return None;
        }
        let Slot { record, .. } = self.slots.pop_front()?;
        let serial = self.first;
        self.first += 1;
        self.bytes -= record.footprint();
        self.horizon_us = record.ended_us;
        let invocation = &record.at_end().invocation;
        // A newer call may have taken over the key.
        if self.by_id.get(&invocation.id) == Some(&serial) {
            self.by_id.remove(&invocation.id);
        }
        if self.by_trace.get(&invocation.trace_id) == Some(&serial) {
            self.by_trace.remove(&invocation.trace_id);
        }
        Some(record)
    }
}

/// The ring and the running calls.
#[derive(Debug)]
pub(crate) struct Ring {
    shards: Box<[Mutex<Shard>]>,
    shard_budget: usize,
}

/// How full the ring is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RingUse {
    pub(crate) bytes: usize,
    pub(crate) calls: usize,
    pub(crate) running: usize,
}

impl Ring {
    /// A ring of so many bytes that grows as it fills; calls that ended by `horizon_us` are not
    /// in it.
    pub(crate) fn new(budget: usize, horizon_us: u64) -> Self {
        let shards = (budget / MIN_SHARD_BYTES).clamp(1, MAX_SHARDS);
        let shard = || Mutex::new(Shard { horizon_us, ..Shard::default() });
        Self { shards: (0..shards).map(|_| shard()).collect(), shard_budget: budget / shards }
    }

    /// By a random byte of the id that the hash of the maps does not see.
    fn shard(&self, id: InvocationId) -> &Mutex<Shard> {
        &self.shards[usize::from(id.0[7]) % self.shards.len()]
    }

    pub(crate) fn begin(&self, running: Running) {
        let slot = RunningSlot { running, worker: None };
        self.shard(slot.running.id).lock().running.insert(slot.running.id, slot);
    }

    pub(crate) fn set_running(&self, id: InvocationId, worker: WorkerId) {
        if let Some(slot) = self.shard(id).lock().running.get_mut(&id) {
            slot.worker = Some(worker);
        }
    }

    /// Moves a call from the running ones into the ring.
    pub(crate) fn finish(&self, record: Record) -> Arc<Record> {
        let id = record.at_end().invocation.id;
        let mut shard = self.shard(id).lock();
        let ended = shard.running.remove(&id);
        let record = shard.push(record);
        let mut evicted = shard.evict(self.shard_budget);
        drop(shard);
        drop(ended);
        // Freeing a record takes longer than the rest of this, so it is done without the lock.
        while let Some(record) = evicted {
            drop(record);
            evicted = self.shard(id).lock().evict(self.shard_budget);
        }
        record
    }

    pub(crate) fn running(&self, id: InvocationId) -> Option<RunningView> {
        self.shard(id).lock().running.get(&id).map(RunningSlot::view)
    }

    pub(crate) fn ended(&self, id: InvocationId) -> Option<Arc<Record>> {
        let shard = self.shard(id).lock();
        let serial = *shard.by_id.get(&id)?;
        shard.slot(serial).map(|slot| slot.record.clone())
    }

    /// Running calls that pass a test, in no order.
    pub(crate) fn running_that(&self, mut test: impl FnMut(&Running) -> bool) -> Vec<RunningView> {
        let mut views = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            views.extend(shard.running.values().filter(|slot| test(&slot.running)).map(RunningSlot::view));
        }
        views
    }

    /// Shows the ended calls of each shard, newest end first, until `visit` says that it wants no
    /// more of that shard. No lock is held during `visit`.
    pub(crate) fn scan(&self, mut visit: impl FnMut(&Arc<Record>) -> bool) {
        let mut chunk = Vec::with_capacity(CHUNK);
        for shard in &self.shards {
            let mut end = u64::MAX;
            'shard: loop {
                end = newest_before(&shard.lock(), end, &mut chunk);
                if chunk.is_empty() {
                    break;
                }
                for record in chunk.drain(..) {
                    if !visit(&record) {
                        break 'shard;
                    }
                }
            }
            chunk.clear();
        }
    }

    /// Every ended call of a trace, in no order.
    pub(crate) fn trace(&self, trace_id: TraceId) -> Vec<Arc<Record>> {
        let mut records = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let mut next = shard.by_trace.get(&trace_id).copied();
            while let Some(slot) = next.and_then(|serial| shard.slot(serial)) {
                records.push(slot.record.clone());
                next = slot.before_in_trace;
            }
        }
        records
    }

    /// Every call that is in the ring no more had ended by this time.
    pub(crate) fn horizon_us(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().horizon_us).max().unwrap_or(0)
    }

    pub(crate) fn usage(&self) -> RingUse {
        self.shards.iter().fold(RingUse::default(), |sum, shard| {
            let shard = shard.lock();
            RingUse {
                bytes: sum.bytes + shard.bytes,
                calls: sum.calls + shard.slots.len(),
                running: sum.running + shard.running.len(),
            }
        })
    }
}

/// Fills `chunk` with the newest records before serial `end`; returns the serial of the last.
fn newest_before(shard: &Shard, end: u64, chunk: &mut Vec<Arc<Record>>) -> u64 {
    let len = end.saturating_sub(shard.first).min(shard.slots.len() as u64) as usize;
    let start = len.saturating_sub(CHUNK);
    chunk.extend(shard.slots.range(start..len).rev().map(|slot| slot.record.clone()));
    shard.first + start as u64
}

#[cfg(test)]
mod tests;
