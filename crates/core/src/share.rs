//! Shares: what each tenant gets of what there is only so much of, when several want it.
//!
//! Two policies with one measure, a tenant's *weight* (its quota's; 1 where it says nothing).
//! [`Places`] hands out a bounded number of workers' places: free ones to whoever asks, and when
//! there is none, one of the tenant that holds most for its weight goes to one that holds less.
//! [`memory_caps`] says how much memory the workers of each tenant may take together, when all of
//! them together come near to what the host has. Nobody is limited while there is enough for all,
//! and a tenant alone is never limited. CPU is shared by the kernel, by the same weights.
//!
//! Always true, and tested as properties: a place is refused or taken only for somebody who holds
//! less for its weight, so that what has been moved is never moved back; who uses less memory than
//! its weight's part of three quarters of the host's is never capped.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::Tenant;

/// What a tenant weighs that nobody has given a weight.
pub const DEFAULT_WEIGHT: f64 = 1.0;

/// What a tenant may weigh: from a hundredth of another to a hundred times as much, which the
/// kernel's weights can tell apart (1 to 10,000, where 100 is the default).
pub const WEIGHTS: std::ops::RangeInclusive<f64> = 0.01..=100.0;

/// One place in so many is kept for tenants that hold few or none.
const KEPT_FREE: u32 = 16;

/// A bounded number of places, and who holds them.
#[derive(Debug, Clone)]
pub struct Places {
    most: u32,
    taken: u32,
    /// More than one tenant has held some.
    are_several: bool,
    holders: BTreeMap<Tenant, Holder>,
    /// None when something has changed since it was reckoned: it is asked at the end of every call.
    debts: Option<Debts>,
}

/// Who owes what to those who wait.
#[derive(Debug, Clone, Default)]
struct Debts {
    /// Who should give a place up for one of them.
    givers: BTreeSet<Tenant>,
    /// Who waits for a place that nobody owes.
    in_vain: Vec<Tenant>,
}

#[derive(Debug, Clone, Copy)]
struct Holder {
    weight: f64,
    taken: u32,
    waiting: u32,
}

impl Default for Holder {
    fn default() -> Self {
        Self { weight: DEFAULT_WEIGHT, taken: 0, waiting: 0 }
    }
}

impl Holder {
    /// What it holds for its weight, if it held `more` of them.
    fn level(self, more: i64) -> f64 {
        (i64::from(self.taken) + more) as f64 / self.weight
    }

    fn is_nobody(self) -> bool {
        self.taken == 0 && self.waiting == 0 && (self.weight - DEFAULT_WEIGHT).abs() < f64::EPSILON
    }
}

/// What becomes of a wish for a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It has one, until [`Places::release`].
    Granted,
    /// There is none, and this tenant should give one up: one that holds more for its weight, or, where
    /// there is none, the one who asks.
    From(Tenant),
    /// Others that hold less for their weight wait for what comes free.
    Yield,
}

impl Places {
    /// So many, all free.
    pub fn new(most: u32) -> Self {
        Self { most: most.max(1), taken: 0, are_several: false, holders: BTreeMap::new(), debts: None }
    }

    /// How many there are.
    pub fn most(&self) -> u32 {
        self.most
    }

    /// How many a tenant holds.
    pub fn taken_by(&self, tenant: &Tenant) -> u32 {
        self.holder(tenant).taken
    }

    /// From here on it weighs that much.
    pub fn weigh(&mut self, tenant: &Tenant, weight: f64) {
        let weight = if weight.is_nan() { DEFAULT_WEIGHT } else { weight };
        self.change(tenant, |holder| holder.weight = weight.clamp(*WEIGHTS.start(), *WEIGHTS.end()));
    }

    /// A tenant wants one.
    pub fn claim(&mut self, tenant: &Tenant) -> Claim {
        if self.has_one_for(tenant) {
            if self.somebody_has_less_than(tenant) {
                return Claim::Yield;
            }
            self.take(tenant);
            return Claim::Granted;
        }
        Claim::From(self.giver(tenant).unwrap_or(tenant).clone())
    }

    /// One more is held, wherever it came from: also beyond [`most`](Self::most).
    pub fn take(&mut self, tenant: &Tenant) {
        self.are_several |= self.taken > self.holder(tenant).taken;
        self.taken += 1;
        self.change(tenant, |holder| holder.taken += 1);
    }

    /// One less is held.
    pub fn release(&mut self, tenant: &Tenant) {
        self.taken = self.taken.saturating_sub(1);
        self.change(tenant, |holder| holder.taken = holder.taken.saturating_sub(1));
    }

    /// Somebody of this tenant waits for a place, until [`leave`](Self::leave).
    pub fn wait(&mut self, tenant: &Tenant) {
        self.change(tenant, |holder| holder.waiting += 1);
    }

    /// Somebody of this tenant does not wait any more.
    pub fn leave(&mut self, tenant: &Tenant) {
        self.change(tenant, |holder| holder.waiting = holder.waiting.saturating_sub(1));
    }

    /// Whether anybody waits.
    pub fn has_waiting(&self) -> bool {
        self.waiting().next().is_some()
    }

    /// Whom of those that wait a free place is for; none if nothing is free for them.
    pub fn next(&self) -> Option<&Tenant> {
        let least = self.waiting().min_by(|a, b| a.1.level(1).total_cmp(&b.1.level(1)));
        least.map(|(tenant, _)| tenant).filter(|tenant| self.has_one_for(tenant))
    }

    /// Whether the next place that the tenant could do without belongs to somebody who waits.
    pub fn owes(&mut self, tenant: &Tenant) -> bool {
        self.taken >= self.most && self.debts().givers.contains(tenant)
    }

    /// Those that wait though nobody holds more than they would.
    pub fn wait_in_vain(&mut self) -> &[Tenant] {
        &self.debts().in_vain
    }

    fn debts(&mut self) -> &Debts {
        let debts = self.debts.take().unwrap_or_else(|| self.reckon());
        self.debts.insert(debts)
    }

    /// For each who waits the same as [`giver`](Self::giver), but all are put in order once.
    fn reckon(&self) -> Debts {
        let mut most: Vec<_> = self.holders.iter().filter(|(_, holder)| holder.taken > 0).collect();
        most.sort_by(|a, b| b.1.level(0).total_cmp(&a.1.level(0)).then(b.0.cmp(a.0)));
        let mut debts = Debts::default();
        for (tenant, holder) in self.waiting() {
            let after = holder.level(1);
            let mut richer = most.iter().take_while(|(_, other)| other.level(0) >= after);
            match richer.find(|(other, holder)| *other != tenant && holder.level(-1) >= after) {
                Some((giver, _)) => _ = debts.givers.insert((*giver).clone()),
                None => debts.in_vain.push(tenant.clone()),
            }
        }
        debts
    }

    /// Who should give a place up for this tenant: of those who would still hold as much for their
    /// weight as it would then, the one who holds most.
    fn giver(&self, tenant: &Tenant) -> Option<&Tenant> {
        let after = self.holder(tenant).level(1);
        let can_give = |(other, holder): &(&Tenant, &Holder)| {
            *other != tenant && holder.taken > 0 && holder.level(-1) >= after
        };
        let most = self.holders.iter().filter(can_give).max_by(|a, b| a.1.level(0).total_cmp(&b.1.level(0)));
        most.map(|(giver, _)| giver)
    }

    /// Of the last ones, where there are several tenants, whoever holds most gets none: they are for
    /// those who come and must not wait for a call of others to end.
    fn has_one_for(&self, tenant: &Tenant) -> bool {
        let last = if self.are_several { self.most / KEPT_FREE } else { 0 };
        let left = self.most.saturating_sub(self.taken);
        let after = self.holder(tenant).level(1);
        let is_most = self.holders.iter().all(|(other, holder)| other == tenant || holder.level(0) < after);
        left > last || (left > 0 && (!is_most || self.holder(tenant).taken < last))
    }

    fn somebody_has_less_than(&self, tenant: &Tenant) -> bool {
        let mine = self.holder(tenant).level(1);
        self.waiting().any(|(other, holder)| other != tenant && holder.level(1) < mine)
    }

    fn waiting(&self) -> impl Iterator<Item = (&Tenant, Holder)> {
        self.holders.iter().filter(|(_, holder)| holder.waiting > 0).map(|(tenant, holder)| (tenant, *holder))
    }

    fn holder(&self, tenant: &Tenant) -> Holder {
        self.holders.get(tenant).copied().unwrap_or_default()
    }

    fn change(&mut self, tenant: &Tenant, change: impl FnOnce(&mut Holder)) {
        self.debts = None;
        let mut holder = self.holder(tenant);
        change(&mut holder);
        if holder.is_nobody() {
            self.holders.remove(tenant);
        } else {
            self.holders.insert(tenant.clone(), holder);
        }
    }
}

/// What a tenant's workers take of the memory now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Use {
    /// Its weight.
    pub weight: f64,
    /// Bytes.
    pub used: u64,
}

/// The part of the memory up to which nobody is limited. A quarter is what the others find free when
/// they come: workers grow by hundreds of MB in a second, and the kernel's own caches want some.
const CALM: f64 = 0.75;

/// The part at which whoever has more than its share is brought back to it, before those who have
/// less find nothing.
const SHORT: f64 = 0.9;

/// How much the workers of each tenant may take together, where that is limited: none below three
/// quarters of `budget` bytes. Above, whoever takes more than its fair share takes no more than it
/// does now; above nine tenths it is brought back to the share. Shares are max-min fair: of three
/// quarters of the budget those who take little keep what they take, and what they leave is divided
/// among the others by weight.
pub fn memory_caps(budget: u64, tenants: &[Use]) -> Vec<Option<u64>> {
    let total: u64 = tenants.iter().map(|tenant| tenant.used).fold(0, u64::saturating_add);
    let calm = budget as f64 * CALM;
    let several = tenants.iter().filter(|tenant| tenant.used > 0).count() > 1;
    if !several || (total as f64) < calm {
        return vec![None; tenants.len()];
    }
    let level = water_level(calm, tenants);
    let is_short = total as f64 >= budget as f64 * SHORT;
    let cap = |tenant: &Use| {
        let share = (level * tenant.weight) as u64;
        (tenant.used > share).then_some(if is_short { share } else { tenant.used })
    };
    tenants.iter().map(cap).collect()
}

/// How much each may have per weight, so that all of it is had: those who take less keep that.
fn water_level(amount: f64, tenants: &[Use]) -> f64 {
    let mut by_level: Vec<_> = tenants.iter().filter(|tenant| tenant.weight > 0.0).collect();
    by_level.sort_unstable_by(|a, b| (a.used as f64 / a.weight).total_cmp(&(b.used as f64 / b.weight)));
    let mut weights: f64 = by_level.iter().map(|tenant| tenant.weight).sum();
    let mut left = amount;
    for tenant in by_level {
        let level = left / weights;
        if tenant.used as f64 / tenant.weight > level {
            return level;
        }
        left -= tenant.used as f64;
        weights -= tenant.weight;
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenant(number: usize) -> Tenant {
        format!("t{number}").parse().unwrap()
    }

    /// So many places, and these tenants hold some.
    fn held(most: u32, taken: &[u32]) -> Places {
        let mut places = Places::new(most);
        for (number, taken) in taken.iter().enumerate() {
            (0..*taken).for_each(|_| places.take(&tenant(number)));
        }
        places
    }

    #[test]
    fn a_tenant_alone_gets_every_place_and_then_its_own_again() {
        let mut places = Places::new(3);
        for _ in 0..3 {
            assert_eq!(places.claim(&tenant(0)), Claim::Granted);
        }
        assert_eq!(places.claim(&tenant(0)), Claim::From(tenant(0)));
        places.release(&tenant(0));
        assert_eq!(places.claim(&tenant(0)), Claim::Granted);
        assert!(!places.owes(&tenant(0)));
    }

    #[test]
    fn who_comes_late_gets_places_of_who_holds_most_until_both_hold_as_many() {
        let mut places = held(20, &[18, 2, 0]);
        let mut moved = 0;
        loop {
            match places.claim(&tenant(2)) {
                Claim::From(giver) if giver == tenant(2) => break,
                Claim::From(giver) => {
                    assert_eq!(giver, tenant(0), "the one with two keeps them");
                    places.release(&giver);
                    moved += 1;
                }
                claim => assert_eq!(claim, Claim::Granted),
            }
        }
        assert_eq!((moved, places.taken_by(&tenant(0)), places.taken_by(&tenant(2))), (9, 9, 9));
    }

    #[test]
    fn a_place_that_comes_free_is_kept_for_who_waits_with_less() {
        let mut places = held(4, &[4, 0]);
        places.wait(&tenant(1));
        assert!(places.owes(&tenant(0)) && !places.owes(&tenant(1)));
        places.release(&tenant(0));
        assert!(!places.owes(&tenant(0)), "one is free already");
        assert_eq!(places.claim(&tenant(0)), Claim::Yield);
        assert_eq!(places.claim(&tenant(1)), Claim::Granted);
        places.leave(&tenant(1));
        places.release(&tenant(0));
        assert_eq!(places.claim(&tenant(0)), Claim::Granted, "nobody waits any more");
    }

    #[test]
    fn what_comes_free_is_for_who_waits_with_least_and_nobody_waits_for_nothing() {
        let mut places = held(6, &[4, 2, 0]);
        places.wait(&tenant(1));
        places.wait(&tenant(2));
        assert_eq!(places.next(), None, "none is free");
        assert_eq!(places.wait_in_vain(), [], "both are owed one by the first");
        places.release(&tenant(0));
        assert_eq!(places.next(), Some(&tenant(2)));
        assert_eq!(places.wait_in_vain(), [tenant(1)], "all would hold three");
        places.take(&tenant(2));
        places.leave(&tenant(2));
        assert_eq!(places.next(), None);
    }

    #[test]
    fn the_last_places_are_for_who_holds_few() {
        let mut places = held(32, &[29, 1]);
        assert_eq!(places.claim(&tenant(0)), Claim::From(tenant(0)), "two are left");
        assert_eq!(places.claim(&tenant(2)), Claim::Granted);
        assert_eq!(places.claim(&tenant(1)), Claim::Granted);
        assert_eq!(places.claim(&tenant(1)), Claim::From(tenant(0)), "none is left");
        assert_eq!(held(32, &[31]).claim(&tenant(0)), Claim::Granted, "alone");
    }

    #[test]
    fn weights_say_how_many_are_fair() {
        let mut places = held(12, &[12, 0]);
        places.weigh(&tenant(1), 3.0);
        while let Claim::From(giver) = places.claim(&tenant(1))
            && giver == tenant(0)
        {
            places.release(&giver);
            assert_eq!(places.claim(&tenant(1)), Claim::Granted);
        }
        assert_eq!((places.taken_by(&tenant(0)), places.taken_by(&tenant(1))), (3, 9));
    }

    const GIB: u64 = 1 << 30;

    fn uses(used: &[u64]) -> Vec<Use> {
        used.iter().map(|used| Use { weight: 1.0, used: *used }).collect()
    }

    #[test]
    fn memory_is_limited_for_the_greedy_only_and_only_when_it_is_short() {
        assert_eq!(memory_caps(16 * GIB, &uses(&[10 * GIB, GIB])), [None, None]);
        // Three quarters are 12: one keeps its 1, the other stays where it is, then goes back to 11.
        assert_eq!(memory_caps(16 * GIB, &uses(&[12 * GIB, GIB])), [Some(12 * GIB), None]);
        assert_eq!(memory_caps(16 * GIB, &uses(&[14 * GIB, GIB])), [Some(11 * GIB), None]);
        assert_eq!(memory_caps(16 * GIB, &uses(&[9 * GIB, 6 * GIB])), [Some(6 * GIB), None]);
        assert_eq!(memory_caps(16 * GIB, &uses(&[16 * GIB])), [None], "alone");
        assert_eq!(memory_caps(16 * GIB, &uses(&[16 * GIB, 0])), [None, None], "as good as alone");
        assert_eq!(memory_caps(0, &[]), []);
    }

    proptest! {
        #[test]
        fn places_move_only_towards_fairness(
            most in 1..40u32,
            weights in prop::collection::vec(0.1..10f64, 2..5),
            wishes in prop::collection::vec((0..5usize, any::<bool>(), any::<bool>()), 1..300),
        ) {
            let mut places = Places::new(most);
            let tenants: Vec<_> = (0..weights.len()).map(tenant).collect();
            for (tenant, weight) in tenants.iter().zip(&weights) {
                places.weigh(tenant, *weight);
            }
            let level = |places: &Places, who: usize, more: f64| {
                (f64::from(places.taken_by(&tenants[who])) + more) / weights[who]
            };
            for (who, gives, waits) in wishes {
                let who = who % tenants.len();
                if waits { places.wait(&tenants[who]); } else { places.leave(&tenants[who]); }
                match places.claim(&tenants[who]) {
                    Claim::Granted => {}
                    Claim::Yield => {
                        let somebody = (0..tenants.len()).any(|other| level(&places, other, 1.0) < level(&places, who, 1.0));
                        prop_assert!(somebody);
                    }
                    Claim::From(giver) => {
                        let giver = tenants.iter().position(|tenant| *tenant == giver).unwrap();
                        prop_assert!(giver == who || level(&places, giver, -1.0) >= level(&places, who, 1.0));
                        if gives && places.taken_by(&tenants[giver]) > 0 {
                            places.release(&tenants[giver]);
                        }
                    }
                }
                let taken: u32 = tenants.iter().map(|tenant| places.taken_by(tenant)).sum();
                prop_assert!(taken <= most && taken == places.taken);
                // What is remembered of debts is what a look at each of those who wait would say.
                for debtor in &tenants {
                    let is_asked = |waits: &Tenant| places.holder(waits).waiting > 0 && places.giver(waits) == Some(debtor);
                    let owes = places.taken >= most && tenants.iter().any(is_asked);
                    prop_assert_eq!(places.owes(debtor), owes);
                }
                let in_vain = |waits: &&Tenant| places.holder(waits).waiting > 0 && places.giver(waits).is_none();
                let in_vain: Vec<_> = tenants.iter().filter(in_vain).cloned().collect();
                prop_assert_eq!(places.wait_in_vain(), in_vain);
                // Nobody is passed over by who holds more.
                if let Some(next) = places.next().cloned() {
                    let next = tenants.iter().position(|tenant| *tenant == next).unwrap();
                    let has_less = |(other, waits)| {
                        places.holder(waits).waiting > 0 && level(&places, other, 1.0) < level(&places, next, 1.0)
                    };
                    prop_assert!(!tenants.iter().enumerate().any(has_less));
                }
            }
        }

        #[test]
        fn who_uses_no_more_than_its_part_is_never_capped_and_the_rest_fits(
            budget in 1_000..1_000_000u64,
            tenants in prop::collection::vec((0.1..10f64, 0..400_000u64), 1..8),
        ) {
            let tenants: Vec<_> = tenants.into_iter().map(|(weight, used)| Use { weight, used }).collect();
            let caps = memory_caps(budget, &tenants);
            let weights: f64 = tenants.iter().map(|tenant| tenant.weight).sum();
            let total: u64 = tenants.iter().map(|tenant| tenant.used).sum();
            for (tenant, cap) in tenants.iter().zip(&caps) {
                let part = budget as f64 * CALM * tenant.weight / weights;
                prop_assert!(cap.is_none() || tenant.used as f64 >= part - 1.0);
                prop_assert!(cap.is_none_or(|cap| cap as f64 >= part - 1.0 && cap <= tenant.used));
            }
            if caps.iter().any(Option::is_some) && total as f64 >= budget as f64 * SHORT {
                let after: u64 = tenants.iter().zip(&caps).map(|(tenant, cap)| cap.unwrap_or(tenant.used)).sum();
                prop_assert!(after as f64 <= budget as f64 * CALM + 1.0, "{after} of {budget}");
            }
        }
    }
}
