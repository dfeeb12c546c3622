//! One tenant's ended calls in one shard of the ring, in the order in which they ended.
//!
//! Each is known by its serial number. Two indexes lead to it: by id, and by trace, where a slot also
//! holds the serial of the trace's call before it, so that a trace is a chain and evicting costs the
//! same whatever the trace. Who looks in a lane sees one tenant's calls and nobody else's.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use fp_core::{InvocationId, TraceId};

use super::{ById, CHUNK};
use crate::history::record::Record;

#[derive(Debug)]
struct Slot {
    record: Arc<Record>,
    /// Serial of the call before it in its trace, if that was in this lane.
    before_in_trace: Option<u64>,
}

/// The calls of one tenant.
#[derive(Debug)]
pub(super) struct Lane {
    slots: VecDeque<Slot>,
    /// Serial of the oldest slot.
    first: u64,
    by_id: ById<u64>,
    /// Serial of the trace's newest call. Callers choose trace ids, so this one hashes with a
    /// key.
    by_trace: HashMap<TraceId, u64>,
    bytes: usize,
    /// The most that it may hold, whatever room there is.
    pub(super) limit: usize,
    /// No slot ended before this one's time: keeps `ended_us` in the order of the slots.
    last_ended_us: u64,
    /// Every call that was evicted had ended by this time.
    horizon_us: u64,
}

impl Lane {
    /// An empty lane; calls that ended by `horizon_us` are not in it.
    pub(super) fn new(horizon_us: u64) -> Self {
        Self {
            slots: VecDeque::new(),
            first: 0,
            by_id: ById::default(),
            by_trace: HashMap::new(),
            bytes: 0,
            limit: usize::MAX,
            last_ended_us: 0,
            horizon_us,
        }
    }

    /// Calls in it.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Every call that is in it no more had ended by this time.
    pub(super) fn horizon_us(&self) -> u64 {
        self.horizon_us
    }

    fn slot(&self, serial: u64) -> Option<&Slot> {
        let at = serial.checked_sub(self.first)?;
        self.slots.get(usize::try_from(at).ok()?)
    }

    /// Adds the newest.
    pub(super) fn push(&mut self, mut record: Record) -> Arc<Record> {
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

    /// Takes the oldest out.
    pub(super) fn pop(&mut self) -> Option<Arc<Record>> {
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

    /// The call of an id.
    pub(super) fn get(&self, id: InvocationId) -> Option<Arc<Record>> {
        let serial = *self.by_id.get(&id)?;
        self.slot(serial).map(|slot| slot.record.clone())
    }

    /// Serial of a trace's newest call.
    pub(super) fn newest_of(&self, trace_id: TraceId) -> Option<u64> {
        self.by_trace.get(&trace_id).copied()
    }

    /// Shows a chunk of a trace's chain, from a serial on towards older calls; returns where it goes on.
    pub(super) fn links_from(&self, serial: u64, visit: &mut dyn FnMut(&Arc<Record>)) -> Option<u64> {
        let mut next = Some(serial);
        for _ in 0..CHUNK {
            let slot = next.and_then(|serial| self.slot(serial))?;
            visit(&slot.record);
            next = slot.before_in_trace;
        }
        next
    }

    /// Fills `chunk` with the newest records before serial `end`; returns the serial of the last.
    pub(super) fn newest_before(&self, end: u64, chunk: &mut Vec<Arc<Record>>) -> u64 {
        let len = end.saturating_sub(self.first).min(self.slots.len() as u64) as usize;
        let start = len.saturating_sub(CHUNK);
        chunk.extend(self.slots.range(start..len).rev().map(|slot| slot.record.clone()));
        self.first + start as u64
    }

    /// Panics unless what it counts and indexes is what it holds.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let bytes: usize = self.slots.iter().map(|slot| slot.record.footprint()).sum();
        assert_eq!(self.bytes, bytes);
        assert_eq!(self.by_id.len(), self.slots.len());
        let ends: Vec<_> = self.slots.iter().map(|slot| slot.record.ended_us).collect();
        assert!(ends.is_sorted());
        for (trace, serial) in &self.by_trace {
            let slot = self.slot(*serial).expect("an index leads to a slot");
            assert_eq!(slot.record.at_end().invocation.trace_id, *trace);
        }
    }
}
