//! Workers that a pool gives up for others: of the host, of its tenant, of other tenants.

use std::time::Duration;

use super::journal::Act;
use super::{Decision, Now, Pool, workers};
use crate::ids::WorkerId;

/// Which of its idle workers a pool can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// One that no call has asked for yet.
    Uncalled,
    /// One that `min` does not keep.
    Spare,
    /// Any: the tenant has more than its share, and others want it.
    Any,
}

impl Pool {
    /// A worker is wanted elsewhere and there is no room for it: retires the one that has been idle
    /// longest, if it is of this kind. Whether there was one.
    pub fn make_room(&mut self, now: Now, room: Room, out: &mut Vec<Decision>) -> bool {
        let is_spare = room == Room::Any || self.workers.len() > self.floor as usize;
        // An adopted worker comes first of all, so as long as it is not called it is idle longest.
        let fits =
            |worker: &workers::Worker| room != Room::Uncalled || (worker.adopted && !worker.has_served);
        let found = self.workers.longest_idle().filter(|(_, worker)| is_spare && fits(worker));
        let Some((worker, _)) = found else { return false };
        self.note(now, Act::MakeRoom { count: 1 });
        self.workers.remove(worker);
        out.push(Decision::Retire { worker });
        true
    }

    /// Whether a worker has nothing to do.
    pub fn has_idle(&self) -> bool {
        self.workers.idle_count() > 0
    }

    /// Since when the worker has been idle that has been so longest; none if all have something to do.
    pub fn idle_since(&self) -> Option<Now> {
        self.workers.longest_idle().map(|(_, worker)| worker.since)
    }

    /// As [`on_idle`](Self::on_idle), for a worker whose place belongs to another tenant from here on:
    /// it takes no call of the queue, whatever waits there, and goes when its last call has ended.
    pub fn on_yield(&mut self, now: Now, worker: WorkerId, ran: Duration, out: &mut Vec<Decision>) {
        self.workers.spoil(worker);
        self.on_idle(now, worker, ran, out);
    }
}
