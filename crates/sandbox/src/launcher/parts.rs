//! Each tenant's part of the host: a group of its own, in which its workers' groups stand.
//!
//! A process cannot be moved between groups without waiting for the kernel, so a worker is born in the
//! part in which it stays. A blank worker of the operator's own tenant stands in that one's part, as
//! if there were no others. As soon as there are, one blank worker of each kind stands in a part that
//! is nobody's yet: whoever comes first gets both. A tenant that has had one keeps one of its kind
//! ready in its part while it goes on. Beyond that its workers are forked on the way, at 2-3 ms more.
//!
//! Their memory is [`memory`]'s.

mod memory;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fp_core::Tenant;
use fp_core::settings::Network;
use fp_core::share::DEFAULT_WEIGHT;

use self::memory::Cap;
use super::Launcher;

/// The part of the operator's own tenant, there from the beginning.
pub(super) const OWN: u64 = 0;

/// How long a part without workers is kept, and a blank worker in it: as long as calls of a tenant that
/// come now and then are far from being a burst.
const KEPT: Duration = Duration::from_secs(60);

/// Tenants that keep a blank worker ready at once, the latest ones: some 30 MiB of them.
const MOST_READY: usize = 8;

/// Until a part is looked at again whose last blank workers are just ending.
const ENDING: Duration = Duration::from_millis(250);

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
    /// What limits its memory.
    cap: Cap,
}

impl Part {
    fn of(tenant: Option<Tenant>) -> Self {
        Self { tenant, kinds: Vec::new(), used: Instant::now(), cap: Cap::default() }
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
            self.cgroups.tenant(&self.parts.group_of(id)).remove();
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
            if is_empty && self.end_blanks_in(id) {
                self.remove_part(id);
            } else if let Some(part) = self.parts.all.get_mut(&id) {
                // Its workers keep it, and what is ending is asked again soon.
                part.used = if is_empty { now.checked_sub(KEPT - ENDING).unwrap_or(now) } else { now };
                part.kinds.clear();
            }
        }
    }

    /// The tenant's next worker gets another one: of this one's groups some may be gone, while in others
    /// what is left of a worker lingers.
    fn remove_part(&mut self, id: u64) {
        self.parts.all.remove(&id);
        let group = self.cgroups.tenant(&self.parts.group_of(id));
        self.lingering.extend(Some(group).filter(|group| !group.remove()));
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
}
