//! The workers of one version: who is idle since when, and who has a free slot.
//!
//! Reuse is last in, first out, so that the workers at the bottom grow old and can be retired;
//! with several slots a worker that already runs something is preferred for the same reason.

use std::collections::{BTreeMap, VecDeque};

use super::Now;
use crate::ids::WorkerId;

#[derive(Debug)]
pub(super) struct Workers {
    slots: u32,
    all: BTreeMap<WorkerId, Worker>,
    /// Workers that run nothing and may be used, longest idle first.
    idle: VecDeque<WorkerId>,
    /// Workers that run something and have a free slot.
    partial: Vec<WorkerId>,
    running: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Worker {
    /// Calls that it runs.
    pub(super) running: u32,
    /// Its latest dispatch, or when it became idle.
    pub(super) since: Now,
    /// It has completed a call.
    pub(super) has_served: bool,
    /// No call asked for it.
    pub(super) adopted: bool,
    /// It takes no new calls and ends with those that it runs.
    pub(super) spoilt: bool,
}

impl Workers {
    pub(super) fn new(slots: u32) -> Self {
        let (all, idle, partial) = Default::default();
        Self { slots, all, idle, partial, running: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Calls that run.
    pub(super) fn running(&self) -> u32 {
        self.running
    }

    pub(super) fn busy(&self) -> impl Iterator<Item = Worker> + '_ {
        self.all.values().copied().filter(|worker| worker.running > 0)
    }

    pub(super) fn has_free_slot(&self) -> bool {
        !self.idle.is_empty() || !self.partial.is_empty()
    }

    pub(super) fn idle_count(&self) -> usize {
        self.idle.len()
    }

    /// The worker that has been idle longest.
    pub(super) fn longest_idle(&self) -> Option<(WorkerId, Worker)> {
        let worker = *self.idle.front()?;
        Some((worker, *self.all.get(&worker)?))
    }

    /// A new worker, not offered yet; `adopted` if no call asked for it.
    pub(super) fn add(&mut self, now: Now, worker: WorkerId, adopted: bool) {
        let fresh = Worker { running: 0, since: now, has_served: false, adopted, spoilt: false };
        self.all.insert(worker, fresh);
    }

    /// Takes a slot for a call.
    pub(super) fn take(&mut self, now: Now) -> Option<WorkerId> {
        let id = self.partial.pop().or_else(|| self.idle.pop_back())?;
        self.occupy(now, id);
        self.offer(id);
        Some(id)
    }

    /// As [`take`](Self::take), of a worker that runs nothing.
    pub(super) fn take_idle(&mut self, now: Now) -> Option<WorkerId> {
        let id = self.idle.pop_back()?;
        self.occupy(now, id);
        self.offer(id);
        Some(id)
    }

    /// One more call on a worker that is not on offer.
    pub(super) fn occupy(&mut self, now: Now, id: WorkerId) {
        if let Some(worker) = self.all.get_mut(&id) {
            worker.running += 1;
            worker.since = now;
            self.running += 1;
        }
    }

    /// One call less; the worker is taken off offer. False if it is unknown or ran nothing.
    pub(super) fn release(&mut self, now: Now, id: WorkerId) -> bool {
        let Some(worker) = self.all.get_mut(&id).filter(|worker| worker.running > 0) else { return false };
        worker.running -= 1;
        worker.has_served = true;
        if worker.running == 0 {
            worker.since = now;
        }
        self.running -= 1;
        self.withdraw(id);
        true
    }

    /// Puts the worker's free slots, if any, where [`take`](Self::take) finds them.
    pub(super) fn offer(&mut self, id: WorkerId) {
        match self.all.get(&id) {
            Some(Worker { spoilt: true, .. }) => {}
            Some(Worker { running: 0, .. }) => self.idle.push_back(id),
            Some(worker) if worker.running < self.slots => self.partial.push(id),
            _ => {}
        }
    }

    pub(super) fn get(&self, id: WorkerId) -> Option<Worker> {
        self.all.get(&id).copied()
    }

    /// Takes the worker off offer for good; what it is then, if it is known.
    pub(super) fn spoil(&mut self, id: WorkerId) -> Option<Worker> {
        let worker = self.all.get_mut(&id)?;
        worker.spoilt = true;
        let worker = *worker;
        self.withdraw(id);
        Some(worker)
    }

    /// Forgets a worker and what it ran.
    pub(super) fn remove(&mut self, id: WorkerId) -> Option<Worker> {
        let worker = self.all.remove(&id)?;
        self.running -= worker.running;
        self.withdraw(id);
        Some(worker)
    }

    fn withdraw(&mut self, id: WorkerId) {
        // With one slot a busy worker is on no list, which is every release's case.
        if let Some(at) = self.partial.iter().rposition(|other| *other == id) {
            self.partial.swap_remove(at);
        } else if !self.all.contains_key(&id)
            && let Some(at) = self.idle.iter().position(|other| *other == id)
        {
            self.idle.remove(at);
        }
    }
}
