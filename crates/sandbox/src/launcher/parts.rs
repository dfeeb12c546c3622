//! Each tenant's part of the host: a group of its own, in which its workers' groups stand.
//!
//! A process cannot be moved between groups without waiting for the kernel, so a worker is born in the
//! part in which it stays. A blank worker of the operator's own tenant stands in that one's part, as
//! if there were no others. As soon as there are, one blank worker of each kind stands in a part that
//! is nobody's yet: whoever comes first gets both. A tenant that has had one keeps one of its kind
//! ready in its part while it goes on. Beyond that its workers are forked on the way, at 2-3 ms more.
//!
//! Memory is looked after while several tenants have workers: [`fp_core::share::memory_caps`] decides,
//! up to four times a second, whose part may not grow, and who is to end a worker.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fp_core::Tenant;
use fp_core::settings::Network;
use fp_core::share::{DEFAULT_WEIGHT, Use, memory_caps};

use super::Launcher;
use crate::control::FromLauncher;

/// The part of the operator's own tenant, there from the beginning.
pub(super) const OWN: u64 = 0;

/// How long a part without workers is kept, and a blank worker in it: as long as calls of a tenant that
/// come now and then are far from being a burst.
const KEPT: Duration = Duration::from_secs(60);

/// Tenants that keep a blank worker ready at once, the latest ones: some 30 MiB of them.
const MOST_READY: usize = 8;

/// Between two looks at the memory: workers grow by hundreds of MB in that time, which is what is kept
/// free for the others.
const LOOK: Duration = Duration::from_millis(250);

/// The same while less than half of it is taken.
const CALM_LOOK: Duration = Duration::from_secs(1);

/// What blank workers differ in: their template and their network.
pub(super) type Kind = (u64, Network);

/// One tenant's part of the host.
#[derive(Debug)]
struct Part {
    /// None as long as it is nobody's.
    tenant: Option<Tenant>,
    /// What its workers were made from lately.
    kinds: Vec<Kind>,
    /// When one was last wanted or there.
    used: Instant,
    /// Its memory is limited.
    is_capped: bool,
}

impl Part {
    fn of(tenant: Option<Tenant>) -> Self {
        Self { tenant, kinds: Vec::new(), used: Instant::now(), is_capped: false }
    }
}

/// All parts.
#[derive(Debug)]
pub(super) struct Parts {
    launcher: u64,
    all: BTreeMap<u64, Part>,
    weights: BTreeMap<Tenant, f64>,
    next: u64,
    /// There are tenants besides the operator's own.
    are_several: bool,
    /// What all may take together; none where no group limits memory.
    memory: Option<u64>,
    look_at: Option<Instant>,
}

impl Parts {
    /// Those of a launcher, which is told from others of its directory by the first worker that it may
    /// have: what an earlier one left may still be going.
    pub(super) fn new(launcher: u64, memory: Option<u64>) -> Self {
        let own = Part::of(Some(Tenant::default()));
        Self {
            launcher,
            all: BTreeMap::from([(OWN, own)]),
            weights: BTreeMap::new(),
            next: OWN + 1,
            are_several: false,
            memory,
            look_at: None,
        }
    }

    fn weight(&self, tenant: Option<&Tenant>) -> f64 {
        tenant.and_then(|tenant| self.weights.get(tenant)).copied().unwrap_or(DEFAULT_WEIGHT)
    }

    fn of_tenant(&self, tenant: &Tenant) -> Option<u64> {
        self.all.iter().find_map(|(id, part)| (part.tenant.as_ref() == Some(tenant)).then_some(*id))
    }

    /// Name of a part's group in each hierarchy.
    pub(super) fn group_of(&self, part: u64) -> String {
        format!("t{}-{part}", self.launcher)
    }

    /// Whether it is nobody's.
    fn is_vacant(&self, id: u64) -> bool {
        self.all.get(&id).is_some_and(|part| part.tenant.is_none())
    }

    /// Parts whose tenants keep a blank worker ready.
    fn ready(&self) -> Vec<(u64, &Part)> {
        let now = Instant::now();
        let is_going_on = |(id, part): &(&u64, &Part)| {
            **id != OWN && part.tenant.is_some() && now.saturating_duration_since(part.used) < KEPT
        };
        let mut ready: Vec<_> = self.all.iter().filter(is_going_on).map(|(id, part)| (*id, part)).collect();
        ready.sort_by_key(|(_, part)| std::cmp::Reverse(part.used));
        ready.truncate(MOST_READY);
        ready
    }
}

impl Launcher {
    /// The part in which a worker of this kind for this tenant is, or is to be, born; and a blank one
    /// that stands there.
    pub(super) fn part_for(
        &mut self,
        tenant: &Tenant,
        zygote: u64,
        network: Network,
    ) -> Result<(u64, Option<u64>), String> {
        if *tenant != Tenant::default() && self.cgroups.divide() && !self.parts.are_several {
            self.parts.are_several = true;
        }
        let known = if self.cgroups.divide() { self.parts.of_tenant(tenant) } else { Some(OWN) };
        let blank = self.blank_for(zygote, network, known);
        let part = match known.or_else(|| blank.and_then(|blank| self.part_of(blank))) {
            Some(part) => part,
            None => self.vacant_part()?,
        };
        if known.is_none() {
            self.give_part(part, tenant);
        }
        if let (Some(it), Some(zygote)) = (self.parts.all.get_mut(&part), self.zygotes.get(&zygote)) {
            it.used = Instant::now();
            let kind = (zygote.template, network);
            if !it.kinds.contains(&kind) {
                it.kinds.push(kind);
            }
        }
        Ok((part, blank))
    }

    fn part_of(&self, worker: u64) -> Option<u64> {
        self.workers.get(&worker).map(|entry| entry.part)
    }

    /// A blank worker that is complete, else one that will be soonest: of this part, or of one that is
    /// nobody's.
    fn blank_for(&self, zygote: u64, network: Network, part: Option<u64>) -> Option<u64> {
        let blanks = self.workers.values().filter(|entry| {
            entry.is_blank()
                && entry.zygote == zygote
                && entry.network == network
                && part.map_or_else(|| self.parts.is_vacant(entry.part), |part| entry.part == part)
        });
        blanks.min_by_key(|entry| (!entry.is_complete(), entry.serial)).map(|entry| entry.serial)
    }

    /// One that is nobody's, made if there is none.
    fn vacant_part(&mut self) -> Result<u64, String> {
        if let Some(id) = self.parts.all.keys().find(|id| self.parts.is_vacant(**id)) {
            return Ok(*id);
        }
        let id = self.parts.next;
        self.make_part_group(id)?;
        self.parts.next += 1;
        self.parts.all.insert(id, Part::of(None));
        Ok(id)
    }

    pub(super) fn make_part_group(&self, id: u64) -> Result<(), String> {
        self.cgroups.create_tenant(&self.parts.group_of(id)).map_err(|error| {
            self.cgroups.remove_tenant(&self.parts.group_of(id));
            format!("making a tenant's cgroups: {error}")
        })
    }

    fn give_part(&mut self, id: u64, tenant: &Tenant) {
        if let Some(part) = self.parts.all.get_mut(&id) {
            part.tenant = Some(tenant.clone());
        }
        self.weigh_part(id);
    }

    fn weigh_part(&self, id: u64) {
        let Some(part) = self.parts.all.get(&id) else { return };
        let weight = self.parts.weight(part.tenant.as_ref());
        if let Err(error) = self.cgroups.weigh_tenant(&self.parts.group_of(id), weight) {
            eprintln!("launcher: a tenant's weight cannot be set: {error}");
        }
    }

    /// These tenants weigh that much from here on.
    pub(super) fn take_weights(&mut self, weights: BTreeMap<Tenant, f64>) {
        let parts: Vec<_> = weights.keys().filter_map(|tenant| self.parts.of_tenant(tenant)).collect();
        self.parts.weights.extend(weights);
        parts.into_iter().for_each(|part| self.weigh_part(part));
    }

    /// Where a blank worker of a kind is missing, if `most` of them are wanted where the operator's own
    /// stand.
    pub(super) fn part_without_blank(&mut self, kind: Kind, most: usize) -> Result<Option<u64>, String> {
        if self.blanks_in(kind, |part| part == OWN) < most {
            return Ok(Some(OWN));
        }
        if most == 0 || !self.parts.are_several {
            return Ok(None);
        }
        let ready = self.parts.ready();
        let wants = |(id, part): &(u64, &Part)| {
            part.kinds.contains(&kind) && self.blanks_in(kind, |other| other == *id) == 0
        };
        if let Some((id, _)) = ready.into_iter().find(wants) {
            return Ok(Some(id));
        }
        let is_there = self.blanks_in(kind, |part| self.parts.is_vacant(part)) > 0;
        if is_there { Ok(None) } else { self.vacant_part().map(Some) }
    }

    fn blanks_in(&self, kind: Kind, is_meant: impl Fn(u64) -> bool) -> usize {
        let is_of = |entry: &&super::workers::Entry| {
            let template = self.zygotes.get(&entry.zygote).map(|zygote| zygote.template);
            entry.is_blank() && template.map(|id| (id, entry.network)) == Some(kind) && is_meant(entry.part)
        };
        self.workers.values().filter(is_of).count()
    }

    /// Whether nobody will come for a blank worker of this kind where it stands.
    pub(super) fn is_stale_in(&self, part: u64, kind: Kind) -> bool {
        part != OWN
            && !self.parts.is_vacant(part)
            && !self.parts.ready().iter().any(|(id, it)| *id == part && it.kinds.contains(&kind))
    }

    /// When parts have something to do.
    pub(super) fn parts_due(&self) -> Option<Instant> {
        let expiring = self.parts.all.iter().filter(|(id, part)| **id != OWN && part.tenant.is_some());
        let expiry = expiring.map(|(_, part)| part.used + KEPT).min();
        [expiry, self.parts.look_at].into_iter().flatten().min()
    }

    /// Looks after the memory, and ends the parts of tenants that have gone.
    pub(super) fn keep_parts(&mut self) {
        if !self.parts.are_several {
            return;
        }
        let now = Instant::now();
        self.watch_memory(now);
        let is_over = |(id, part): &(&u64, &Part)| {
            **id != OWN && part.tenant.is_some() && now.saturating_duration_since(part.used) >= KEPT
        };
        let over: Vec<_> = self.parts.all.iter().filter(is_over).map(|(id, _)| *id).collect();
        for id in over {
            let is_empty = !self.workers.values().any(|entry| entry.part == id && !entry.is_blank());
            if is_empty && self.end_blanks_in(id) && self.cgroups.remove_tenant(&self.parts.group_of(id)) {
                self.parts.all.remove(&id);
            } else if let Some(part) = self.parts.all.get_mut(&id) {
                // Its workers keep it, and what is ending is asked again soon.
                part.used = if is_empty { now.checked_sub(KEPT - LOOK).unwrap_or(now) } else { now };
                part.kinds.clear();
            }
        }
    }

    /// True when there were none.
    fn end_blanks_in(&mut self, part: u64) -> bool {
        let mut none = true;
        for entry in self.workers.values_mut().filter(|entry| entry.part == part) {
            none = false;
            if entry.is_blank() {
                entry.discard();
            }
        }
        none
    }

    fn has_tenants_at_work(&self) -> bool {
        self.workers.values().any(|entry| entry.part != OWN && !entry.is_blank())
    }

    fn watch_memory(&mut self, now: Instant) {
        let Some(budget) = self.parts.memory else { return };
        if !self.has_tenants_at_work() {
            if self.parts.look_at.take().is_some() {
                let all: Vec<_> = self.parts.all.keys().copied().collect();
                all.into_iter().for_each(|part| self.cap_part(part, None));
            }
        } else if self.parts.look_at.is_none_or(|at| at <= now) {
            let used = self.cgroups.memory_used(None);
            self.share_memory(used, budget);
            self.parts.look_at = Some(now + if used < budget / 2 { CALM_LOOK } else { LOOK });
        }
    }

    /// Limits those who have more than their share of a memory that is short.
    fn share_memory(&mut self, used: u64, budget: u64) {
        let tenants: Vec<_> = self.parts.all.iter().filter(|(_, part)| part.tenant.is_some()).collect();
        if used < budget / 2 && !tenants.iter().any(|(_, part)| part.is_capped) {
            return;
        }
        let uses: Vec<_> = tenants
            .iter()
            .map(|(id, part)| Use {
                weight: self.parts.weight(part.tenant.as_ref()),
                used: self.cgroups.memory_used(Some(&self.parts.group_of(**id))),
            })
            .collect();
        let ids: Vec<_> = tenants.iter().map(|(id, _)| **id).collect();
        let caps = memory_caps(budget, &uses);
        let mut above = Vec::new();
        for ((id, it), cap) in ids.into_iter().zip(&uses).zip(caps) {
            self.cap_part(id, cap.map(|_| it.used));
            if let Some(cap) = cap {
                above.push((it.used as f64 / it.weight, id));
                self.shrink_part(id, it.used.saturating_sub(cap));
            }
        }
        above.sort_by(|a, b| b.0.total_cmp(&a.0));
        let names = above.iter().filter_map(|(_, id)| self.parts.all.get(id)?.tenant.clone());
        let names: Vec<_> = names.collect();
        if !names.is_empty() {
            self.say(&FromLauncher::MemoryShort(names), &[]);
        }
    }

    fn cap_part(&mut self, id: u64, cap: Option<u64>) {
        let group = self.parts.group_of(id);
        let Some(part) = self.parts.all.get_mut(&id) else { return };
        if cap.is_none() && !part.is_capped {
            return;
        }
        // Refused where it has grown meanwhile: the next look is soon.
        part.is_capped = self.cgroups.cap_memory(&group, cap).is_ok() && cap.is_some();
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
