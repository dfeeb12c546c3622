//! Every call in memory: those that have not ended, and the newest that have.
//!
//! Shards by invocation id, each with one short lock. The ended calls of a shard stand in lanes, one
//! for each tenant. When a shard's bytes exceed its share of the budget, the oldest of a lane go, and
//! never of one that holds no more than an equal share: a tenant that is loud pushes out its own calls.
//! With one tenant, that is the oldest of all. A lane may have a limit of its own besides (a quota).
//! The newest call stays whatever its size.

mod lane;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use fp_core::record::State;
use fp_core::{InvocationId, Tenant, TraceId, WorkerId};
use parking_lot::Mutex;

use self::lane::Lane;
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
    lanes: HashMap<Tenant, Lane>,
    /// Lanes that hold anything.
    occupied: usize,
    bytes: usize,
    /// Of lanes that begin: calls that ended by this time are not in them.
    horizon_us: u64,
}

impl Shard {
    fn lane(&mut self, tenant: &Tenant) -> &mut Lane {
        // A name is a shared text, whose clone costs less than to look twice.
        self.lanes.entry(tenant.clone()).or_insert_with(|| Lane::new(self.horizon_us))
    }

    fn push(&mut self, record: Record) -> Arc<Record> {
        let bytes = record.footprint();
        let tenant = record.at_end().invocation.tenant.clone();
        let lane = self.lane(&tenant);
        let was_empty = lane.len() == 0;
        let record = lane.push(record);
        self.occupied += usize::from(was_empty);
        self.bytes += bytes;
        record
    }

    /// Takes one out if the shard, or the lane of who has just added to it, is over its budget.
    fn evict(&mut self, adder: &Tenant, budget: usize) -> Option<Arc<Record>> {
        let lane = self.lanes.get(adder)?;
        let (bytes, calls) = (lane.bytes(), lane.len());
        if bytes > lane.limit && calls > 1 {
            return self.take_from(adder);
        }
        if self.bytes <= budget {
            return None;
        }
        let share = budget / self.occupied.max(1);
        // The usual case: who adds much makes the room. What it has just added stays.
        if bytes > share && calls > 1 {
            return self.take_from(adder);
        }
        let others = self.lanes.iter().filter(|(tenant, lane)| *tenant != adder && lane.bytes() > share);
        let largest = others.max_by_key(|(_, lane)| lane.bytes()).map(|(tenant, _)| tenant.clone());
        self.take_from(&largest?)
    }

    fn take_from(&mut self, tenant: &Tenant) -> Option<Arc<Record>> {
        let lane = self.lanes.get_mut(tenant)?;
        let record = lane.pop()?;
        self.occupied -= usize::from(lane.len() == 0);
        self.bytes -= record.footprint();
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

    pub(crate) fn begin_on(&self, running: Running, worker: Option<WorkerId>) {
        let slot = RunningSlot { running, worker };
        self.shard(slot.running.id).lock().running.insert(slot.running.id, slot);
    }

    /// Takes a call from the running ones without a record.
    pub(crate) fn withdraw(&self, id: InvocationId) {
        let ended = self.shard(id).lock().running.remove(&id);
        // Freed without the lock.
        drop(ended);
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
        let tenant = &record.at_end().invocation.tenant;
        let mut evicted = shard.evict(tenant, self.shard_budget);
        drop(shard);
        drop(ended);
        // Freeing a record takes longer than the rest of this, so it is done without the lock.
        while let Some(old) = evicted {
            drop(old);
            evicted = self.shard(id).lock().evict(tenant, self.shard_budget);
        }
        record
    }

    /// Takes a call from the running ones and keeps nothing of it: nobody may see it any more.
    pub(crate) fn end(&self, record: Record) -> Arc<Record> {
        let id = record.at_end().invocation.id;
        let ended = self.shard(id).lock().running.remove(&id);
        drop(ended);
        Arc::new(record)
    }

    /// Bytes that a tenant's ended calls take.
    pub(crate) fn bytes_of(&self, tenant: &Tenant) -> usize {
        let of = |shard: &Shard| shard.lanes.get(tenant).map_or(0, Lane::bytes);
        self.shards.iter().map(|shard| of(&shard.lock())).sum()
    }

    /// The most bytes that a tenant's ended calls may take from the next one on; none is no limit
    /// of its own. The newest one of each shard stays.
    pub(crate) fn limit(&self, tenant: &Tenant, bytes: Option<usize>) {
        let limit = bytes.map_or(usize::MAX, |bytes| bytes / self.shards.len());
        for shard in &self.shards {
            shard.lock().lane(tenant).limit = limit;
        }
    }

    /// Drops every ended call of a tenant, and its limit.
    pub(crate) fn forget(&self, tenant: &Tenant) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let Some(lane) = shard.lanes.remove(tenant) else { continue };
            shard.bytes -= lane.bytes();
            shard.occupied -= usize::from(lane.len() > 0);
            drop(shard);
            // Thousands of records are not freed under the lock.
            drop(lane);
        }
    }

    pub(crate) fn running(&self, id: InvocationId) -> Option<RunningView> {
        self.shard(id).lock().running.get(&id).map(RunningSlot::view)
    }

    /// A tenant's ended call.
    pub(crate) fn ended(&self, tenant: &Tenant, id: InvocationId) -> Option<Arc<Record>> {
        self.shard(id).lock().lanes.get(tenant)?.get(id)
    }

    /// The number of running calls that pass a test.
    pub(crate) fn count_running(&self, mut test: impl FnMut(&Running) -> bool) -> usize {
        let count =
            |shard: &Mutex<Shard>| shard.lock().running.values().filter(|slot| test(&slot.running)).count();
        self.shards.iter().map(count).sum()
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

    /// Shows a tenant's ended calls of each shard, newest end first, until `visit` says that it wants
    /// no more of that shard. No lock is held during `visit`.
    pub(crate) fn scan(&self, tenant: &Tenant, mut visit: impl FnMut(&Arc<Record>) -> bool) {
        let mut chunk = Vec::with_capacity(CHUNK);
        for shard in &self.shards {
            let mut end = u64::MAX;
            'shard: loop {
                match shard.lock().lanes.get(tenant) {
                    Some(lane) => end = lane.newest_before(end, &mut chunk),
                    None => break,
                }
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

    /// The ended calls of a tenant's in a trace that pass a test, in no order.
    pub(crate) fn trace(
        &self,
        tenant: &Tenant,
        trace_id: TraceId,
        mut test: impl FnMut(&Record) -> bool,
    ) -> Vec<Arc<Record>> {
        let mut records = Vec::new();
        let mut take = |record: &Arc<Record>| {
            if test(record) {
                records.push(record.clone());
            }
        };
        for shard in &self.shards {
            let of_lane =
                |look: &mut dyn FnMut(&Lane) -> Option<u64>| shard.lock().lanes.get(tenant).and_then(look);
            let mut next = of_lane(&mut |lane| lane.newest_of(trace_id));
            while let Some(serial) = next {
                next = of_lane(&mut |lane| lane.links_from(serial, &mut take));
            }
        }
        records
    }

    /// Every call of a tenant that is in the ring no more had ended by this time.
    pub(crate) fn horizon_us(&self, tenant: &Tenant) -> u64 {
        let of = |shard: &Shard| shard.lanes.get(tenant).map_or(shard.horizon_us, Lane::horizon_us);
        self.shards.iter().map(|shard| of(&shard.lock())).max().unwrap_or(0)
    }

    pub(crate) fn usage(&self) -> RingUse {
        self.shards.iter().fold(RingUse::default(), |sum, shard| {
            let shard = shard.lock();
            RingUse {
                bytes: sum.bytes + shard.bytes,
                calls: sum.calls + shard.lanes.values().map(Lane::len).sum::<usize>(),
                running: sum.running + shard.running.len(),
            }
        })
    }
}

#[cfg(test)]
mod tests;
