//! The memory of parts: looked after while tenants beside the operator's own have workers.
//!
//! [`memory_caps`] decides, up to four times a second, whose part may not grow, and who is to end a
//! worker. A part that may not grow is limited a little above what it holds, never below: to make
//! room the kernel would hold up the launcher that writes the limit, and of version 2 it would end
//! workers at once. Who then wants more loses a worker of its own to the kernel.

use std::io;
use std::time::{Duration, Instant};

use fp_core::share::{Use, memory_caps};

use super::super::Launcher;
use crate::control::FromLauncher;

/// Between two looks at the memory: workers grow by hundreds of MB in that time, which is what is kept
/// free for the others.
const LOOK: Duration = Duration::from_millis(250);

/// The same while less than half of it is taken.
const CALM_LOOK: Duration = Duration::from_secs(1);

/// How far above what a part holds its limit is: what its workers may touch on all cores between the
/// look at it and the limit, and what the kernel counts ahead for each core.
const SLACK: u64 = 16 << 20;

/// The limit in force on the memory of a part, where there is one.
#[derive(Debug, Default)]
pub(super) struct Cap(Option<u64>);

impl Cap {
    pub(super) fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Lets a part that holds so much grow no more. Looks that follow only bring the limit down: else
    /// it would rise with each by what the part was allowed to grow. One that is refused leaves that
    /// before it in force.
    fn hold(&mut self, held: u64, set: impl FnOnce(Option<u64>) -> io::Result<()>) {
        let cap = held.saturating_add(SLACK);
        if self.0.is_none_or(|old| cap < old) && set(Some(cap)).is_ok() {
            self.0 = Some(cap);
        }
    }

    fn lift(&mut self, set: impl FnOnce(Option<u64>) -> io::Result<()>) {
        if self.is_set() && set(None).is_ok() {
            self.0 = None;
        }
    }
}

impl Launcher {
    pub(super) fn watch_memory(&mut self, now: Instant) {
        let Some(budget) = self.parts.memory else { return };
        if !self.has_tenants_at_work() {
            if self.parts.look_at.is_some_and(|at| at <= now) {
                self.lift_all_caps();
                let is_held = self.parts.all.values().any(|part| part.cap.is_set());
                self.parts.look_at = is_held.then(|| now + CALM_LOOK);
            }
        } else if self.parts.look_at.is_none_or(|at| at <= now) {
            let used = self.cgroups.memory_used(None);
            self.share_memory(used, budget);
            self.parts.look_at = Some(now + if used < budget / 2 { CALM_LOOK } else { LOOK });
        }
    }

    fn has_tenants_at_work(&self) -> bool {
        self.workers.values().any(|entry| entry.part != super::OWN && !entry.is_blank())
    }

    fn has_worker_at_work(&self, part: u64) -> bool {
        self.workers.values().any(|entry| entry.part == part && !entry.is_blank())
    }

    /// Limits those who have more than their share of a memory that is short.
    fn share_memory(&mut self, used: u64, budget: u64) {
        let tenants: Vec<_> = self.parts.all.iter().filter(|(_, part)| part.tenant.is_some()).collect();
        if used < budget / 2 && !tenants.iter().any(|(_, part)| part.cap.is_set()) {
            return;
        }
        let uses: Vec<_> = tenants
            .iter()
            .map(|(id, part)| Use {
                weight: self.parts.weight(part.tenant.as_ref()),
                used: self.memory_of_part(**id),
            })
            .collect();
        let ids: Vec<_> = tenants.iter().map(|(id, _)| **id).collect();
        let caps = memory_caps(budget, &uses);
        let mut above = Vec::new();
        for ((id, it), cap) in ids.into_iter().zip(&uses).zip(caps) {
            let Some(cap) = cap else {
                self.lift_cap(id);
                continue;
            };
            above.push((it.used as f64 / it.weight, id));
            self.hold_part(id);
            self.shrink_part(id, it.used.saturating_sub(cap));
        }
        above.sort_by(|a, b| b.0.total_cmp(&a.0));
        let names = above.iter().filter_map(|(_, id)| self.parts.all.get(id)?.tenant.clone());
        let names: Vec<_> = names.collect();
        if !names.is_empty() {
            self.say(&FromLauncher::MemoryShort(names), &[]);
        }
    }

    /// What a tenant takes: nothing as long as it has no worker but blank ones, which are the
    /// platform's.
    fn memory_of_part(&self, id: u64) -> u64 {
        match self.has_worker_at_work(id) {
            true => self.cgroups.memory_used(Some(&self.parts.group_of(id))),
            false => 0,
        }
    }

    fn hold_part(&mut self, id: u64) {
        let group = self.parts.group_of(id);
        let Some(part) = self.parts.all.get_mut(&id) else { return };
        // Looked at last, and with what the kernel could take back: that is part of what it limits.
        part.cap.hold(self.cgroups.memory_held(&group), |cap| self.cgroups.cap_memory(&group, cap));
    }

    fn lift_cap(&mut self, id: u64) {
        let group = self.parts.group_of(id);
        let Some(part) = self.parts.all.get_mut(&id) else { return };
        part.cap.lift(|cap| self.cgroups.cap_memory(&group, cap));
    }

    fn lift_all_caps(&mut self) {
        let all: Vec<_> = self.parts.all.keys().copied().collect();
        all.into_iter().for_each(|part| self.lift_cap(part));
    }

    /// Ends the largest workers of a part until so much comes free.
    fn shrink_part(&mut self, id: u64, mut surplus: u64) {
        let mut workers: Vec<_> = self
            .workers
            .iter()
            .filter(|(_, entry)| entry.part == id && !entry.is_blank())
            .map(|(serial, entry)| (entry.memory_used(), *serial))
            .collect();
        workers.sort_unstable_by(|a, b| b.cmp(a));
        for (used, serial) in workers {
            if surplus == 0 {
                return;
            }
            surplus = surplus.saturating_sub(used);
            if let Some(entry) = self.workers.get_mut(&serial) {
                entry.end_for_memory();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn refused(_: Option<u64>) -> io::Result<()> {
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// Does it, and says what was set.
    fn held(cap: &mut Cap, held: u64) -> Option<Option<u64>> {
        let mut said = None;
        cap.hold(held, |cap| {
            said = Some(cap);
            Ok(())
        });
        said
    }

    #[test]
    fn a_limit_is_remembered_until_it_is_lifted() {
        let mut cap = Cap::default();
        cap.hold(200 * MIB, refused);
        assert!(!cap.is_set());
        assert_eq!(held(&mut cap, 200 * MIB), Some(Some(200 * MIB + SLACK)));
        cap.hold(100 * MIB, refused);
        assert!(cap.is_set(), "the first one is in force");
        cap.lift(refused);
        assert!(cap.is_set(), "as before");
        let mut lifted = None;
        cap.lift(|cap| {
            lifted = Some(cap);
            Ok(())
        });
        assert_eq!((lifted, cap.is_set()), (Some(None), false));
        cap.lift(|_| panic!("there is none"));
    }

    #[test]
    fn a_limit_is_above_what_is_held_and_does_not_rise_with_it() {
        let mut cap = Cap::default();
        assert_eq!(held(&mut cap, 200 * MIB), Some(Some(200 * MIB + SLACK)));
        assert_eq!(held(&mut cap, 200 * MIB + SLACK), None);
        assert_eq!(held(&mut cap, 150 * MIB), Some(Some(150 * MIB + SLACK)));
    }
}
