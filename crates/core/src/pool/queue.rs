//! The queue of one function version: who is next, who must go, who is late.
//!
//! Order: class first, strictly; within a class callers take turns, one call each per round,
//! earliest deadline first within the round; a caller's own calls go by deadline, then by
//! arrival, or while the queue stands the newest first. A caller that joins waits for the next round, so that nobody is overtaken for ever.
//! Everything is indexed: each operation is logarithmic in the queue's length.

use std::collections::{BTreeMap, BTreeSet};

use super::{Arrival, CallId, Now};
use crate::settings::Criticality;

/// When a caller's turn is: round, then deadline and serial of its first call.
type Turn = (u64, Now, u64, u64);

#[derive(Debug, Default)]
pub(super) struct Queue {
    classes: [Class; 3],
    /// Where each call is: its class, caller, deadline and serial.
    places: BTreeMap<CallId, (Criticality, u64, Now, u64)>,
    deadlines: BTreeSet<(Now, CallId)>,
    next_serial: u64,
}

/// A call in the queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) arrival: Arrival,
    since: Now,
    serial: u64,
}

/// The calls of one criticality.
#[derive(Debug, Default)]
struct Class {
    /// The round that was served last.
    round: u64,
    turns: BTreeSet<Turn>,
    lines: BTreeMap<u64, Line>,
    /// Callers by the length of their lines.
    lengths: BTreeSet<(usize, u64)>,
    /// By serial, since when which call waits.
    ages: BTreeMap<u64, (Now, CallId)>,
    len: usize,
}

/// The calls of one caller.
#[derive(Debug)]
struct Line {
    round: u64,
    calls: BTreeMap<(Now, u64), Waiting>,
    /// The same calls by serial, with their deadlines.
    serials: BTreeMap<u64, Now>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn first_deadline(&self) -> Option<Now> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Since when the call of this class waits that has waited longest.
    pub(super) fn oldest(&self, class: Criticality) -> Option<Now> {
        self.classes[class as usize].ages.first_key_value().map(|(_, (since, _))| *since)
    }

    /// How many calls of this class and those below it wait.
    pub(super) fn len_from(&self, class: Criticality) -> usize {
        self.classes[class as usize..].iter().map(|class| class.len).sum()
    }

    /// Whether one of its caller's calls waits in its class at most, or fewer than of another caller.
    pub(super) fn is_modest(&self, arrival: &Arrival) -> bool {
        let class = &self.classes[arrival.criticality as usize];
        let longest = class.lengths.last().map_or(0, |(longest, _)| *longest);
        class.lines.get(&arrival.caller).is_none_or(|line| line.calls.len() < longest.max(2))
    }

    pub(super) fn push(&mut self, now: Now, arrival: Arrival) {
        let serial = self.next_serial;
        self.next_serial += 1;
        self.put_back(Waiting { arrival, since: now, serial });
    }

    /// Puts back what was taken: it is as old as it was.
    pub(super) fn put_back(&mut self, waiting: Waiting) {
        let Waiting { arrival, since, serial } = waiting;
        self.places.insert(arrival.call, (arrival.criticality, arrival.caller, arrival.deadline, serial));
        self.deadlines.insert((arrival.deadline, arrival.call));
        let class = &mut self.classes[arrival.criticality as usize];
        class.len += 1;
        class.ages.insert(serial, (since, arrival.call));
        class.change(arrival.caller, |line| {
            line.calls.insert((arrival.deadline, serial), waiting);
            line.serials.insert(serial, arrival.deadline);
        });
    }

    /// Takes the call whose turn it is; of the classes that are said so the newest one of its caller.
    pub(super) fn pop(&mut self, newest_first: [bool; 3]) -> Option<Waiting> {
        self.pop_from(Criticality::Critical, newest_first)
    }

    /// As [`pop`](Self::pop), of this class and those below it.
    pub(super) fn pop_from(&mut self, class: Criticality, newest_first: [bool; 3]) -> Option<Waiting> {
        let at = (class as usize..self.classes.len()).find(|at| self.classes[*at].len > 0)?;
        let class = &mut self.classes[at];
        let (round, _, _, caller) = *class.turns.first()?;
        let mut served = None;
        class.round = round;
        class.len -= 1;
        class.change(caller, |line| {
            served = line.take(newest_first[at]);
            line.round = round + 1;
        });
        let served = served?;
        self.forget(&served);
        Some(served)
    }

    pub(super) fn remove(&mut self, call: CallId) -> Option<Arrival> {
        let (criticality, caller, deadline, serial) = *self.places.get(&call)?;
        let class = &mut self.classes[criticality as usize];
        let mut removed = None;
        class.len -= 1;
        class.change(caller, |line| {
            line.serials.remove(&serial);
            removed = line.calls.remove(&(deadline, serial));
        });
        let removed = removed?;
        self.forget(&removed);
        Some(removed.arrival)
    }

    /// Takes a call of this class that has waited since then or before.
    pub(super) fn pop_older(&mut self, class: Criticality, since: Now) -> Option<CallId> {
        let (_, (oldest, call)) = self.classes[class as usize].ages.first_key_value()?;
        let (oldest, call) = (*oldest, *call);
        if oldest > since { None } else { self.remove(call).map(|arrival| arrival.call) }
    }

    /// Takes a call whose deadline has come.
    pub(super) fn pop_expired(&mut self, now: Now) -> Option<Arrival> {
        let (deadline, call) = *self.deadlines.first()?;
        if deadline > now { None } else { self.remove(call) }
    }

    /// The call that should leave a full queue for this one: the latest of the longest line in
    /// the lowest class below the arrival's; in its own class only of a caller who has at
    /// least two more than its own caller. None means that the arrival itself must go.
    pub(super) fn victim(&self, arrival: &Arrival) -> Option<CallId> {
        let lowest = self.classes.iter().rposition(|class| class.len > 0)?;
        let own = arrival.criticality as usize;
        if lowest < own {
            return None;
        }
        let class = &self.classes[lowest];
        let (longest, caller) = *class.lengths.last()?;
        let mine = class.lines.get(&arrival.caller).map_or(0, |line| line.calls.len());
        if lowest == own && longest < mine + 2 {
            return None;
        }
        let (_, victim) = class.lines.get(&caller)?.calls.last_key_value()?;
        Some(victim.arrival.call)
    }

    /// How many calls would run before this one.
    pub(super) fn ahead_of(&self, arrival: &Arrival) -> usize {
        let own = arrival.criticality as usize;
        let higher: usize = self.classes[..own].iter().map(|class| class.len).sum();
        higher + self.classes[own].ahead_of(arrival)
    }

    fn forget(&mut self, waiting: &Waiting) {
        let Waiting { arrival, serial, .. } = waiting;
        self.places.remove(&arrival.call);
        self.deadlines.remove(&(arrival.deadline, arrival.call));
        self.classes[arrival.criticality as usize].ages.remove(serial);
    }
}

impl Class {
    /// Changes a caller's line and puts it back where it belongs in the indexes.
    fn change(&mut self, caller: u64, change: impl FnOnce(&mut Line)) {
        let joining = Line { round: self.round + 1, calls: BTreeMap::new(), serials: BTreeMap::new() };
        let line = self.lines.entry(caller).or_insert(joining);
        if let Some(turn) = line.turn(caller) {
            self.turns.remove(&turn);
            self.lengths.remove(&(line.calls.len(), caller));
        }
        change(line);
        match line.turn(caller) {
            Some(turn) => {
                self.turns.insert(turn);
                self.lengths.insert((line.calls.len(), caller));
            }
            None => {
                self.lines.remove(&caller);
            }
        }
    }

    fn ahead_of(&self, arrival: &Arrival) -> usize {
        let mine = self.lines.get(&arrival.caller);
        let my_round = mine.map_or(self.round + 1, |line| line.round);
        let in_line = mine.map_or(0, |line| line.calls.range(..=(arrival.deadline, u64::MAX)).count());
        let my_turn = my_round + in_line as u64;
        let of_others = |(caller, line): (&u64, &Line)| {
            if *caller == arrival.caller {
                return in_line;
            }
            let earlier_rounds = my_turn.saturating_sub(line.round) as usize;
            let first = line.calls.first_key_value().map(|((deadline, _), _)| *deadline);
            let before_me_in_round =
                earlier_rounds > 0 || first.is_some_and(|first| first <= arrival.deadline);
            let same_round = usize::from(line.round <= my_turn && before_me_in_round);
            line.calls.len().min(earlier_rounds + same_round)
        };
        self.lines.iter().map(of_others).sum()
    }
}

impl Line {
    fn take(&mut self, newest: bool) -> Option<Waiting> {
        if !newest {
            let (_, first) = self.calls.pop_first()?;
            self.serials.remove(&first.serial);
            return Some(first);
        }
        let (serial, deadline) = self.serials.pop_last()?;
        self.calls.remove(&(deadline, serial))
    }

    fn turn(&self, caller: u64) -> Option<Turn> {
        let ((deadline, serial), _) = self.calls.first_key_value()?;
        Some((self.round, *deadline, *serial, caller))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn call(id: u64, criticality: Criticality, caller: u64, deadline_ms: u64) -> Arrival {
        Arrival { call: CallId(id), criticality, caller, deadline: Duration::from_millis(deadline_ms) }
    }

    fn normal(id: u64, caller: u64, deadline_ms: u64) -> Arrival {
        call(id, Criticality::Default, caller, deadline_ms)
    }

    fn pop(queue: &mut Queue) -> Option<u64> {
        queue.pop([false; 3]).map(|waiting| waiting.arrival.call.0)
    }

    fn order(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| pop(queue)).collect()
    }

    #[test]
    fn classes_are_strict_and_deadlines_go_first_within_a_caller() {
        let mut queue = Queue::default();
        queue.push(Now::ZERO, call(1, Criticality::Sheddable, 1, 10));
        queue.push(Now::ZERO, normal(2, 1, 350));
        queue.push(Now::ZERO, normal(3, 1, 250));
        queue.push(Now::ZERO, normal(4, 1, 250));
        queue.push(Now::ZERO, call(5, Criticality::Critical, 1, 900));
        assert_eq!(order(&mut queue), [5, 3, 4, 2, 1]);
    }

    #[test]
    fn of_a_queue_that_stands_the_newest_of_each_caller_goes_first() {
        let mut queue = Queue::default();
        for (id, caller, deadline) in [(1, 7, 100), (2, 7, 900), (3, 8, 50), (4, 7, 300), (5, 8, 40)] {
            queue.push(Duration::from_millis(id), normal(id, caller, deadline));
        }
        queue.push(Duration::from_millis(6), call(6, Criticality::Sheddable, 7, 10));
        assert_eq!(queue.oldest(Criticality::Default), Some(Duration::from_millis(1)));
        let first = queue.pop([true; 3]).expect("six wait");
        assert_eq!(first.arrival.call.0, 5, "the caller with the earliest deadline, as ever");
        queue.put_back(first);
        let order: Vec<_> =
            std::iter::from_fn(|| queue.pop([true; 3])).map(|waiting| waiting.arrival.call.0).collect();
        assert_eq!(order, [4, 5, 2, 3, 1, 6], "who was served waits for the next round");
        assert!(queue.oldest(Criticality::Default).is_none() && queue.is_empty());
    }

    #[test]
    fn what_has_waited_too_long_is_taken_out_oldest_first() {
        let mut queue = Queue::default();
        (1..=3).for_each(|id| queue.push(Duration::from_millis(id), normal(id, id, 100 - id)));
        assert_eq!(queue.pop_older(Criticality::Default, Duration::from_millis(2)), Some(CallId(1)));
        assert_eq!(queue.pop_older(Criticality::Default, Duration::from_millis(2)), Some(CallId(2)));
        assert_eq!(queue.pop_older(Criticality::Default, Duration::from_millis(2)), None);
        assert_eq!(order(&mut queue), [3]);
    }

    #[test]
    fn callers_take_turns() {
        let mut queue = Queue::default();
        for id in 1..=4 {
            queue.push(Now::ZERO, normal(id, 7, 100));
        }
        queue.push(Now::ZERO, normal(10, 8, 100));
        assert_eq!(pop(&mut queue), Some(1));
        queue.push(Now::ZERO, normal(11, 9, 50));
        queue.push(Now::ZERO, normal(12, 8, 100));
        assert_eq!(order(&mut queue), [10, 11, 2, 12, 3, 4], "who joins waits for the next round");
    }

    #[test]
    fn a_full_queue_gives_way_to_a_higher_class_and_to_a_modest_caller() {
        let mut queue = Queue::default();
        for id in 1..=3 {
            queue.push(Now::ZERO, normal(id, 7, 100 + id));
        }
        assert_eq!(queue.victim(&normal(9, 7, 50)), None, "the same caller");
        assert_eq!(queue.victim(&normal(9, 8, 50)), Some(CallId(3)));
        assert_eq!(queue.victim(&call(9, Criticality::Sheddable, 8, 50)), None);
        queue.push(Now::ZERO, call(4, Criticality::Sheddable, 7, 500));
        assert_eq!(queue.victim(&call(9, Criticality::Critical, 7, 50)), Some(CallId(4)));
        assert_eq!(queue.victim(&normal(9, 7, 50)), Some(CallId(4)));
    }

    proptest! {
        /// Against a plain list: nothing is lost or served twice, and the place told at the door
        /// is the place that the call gets when nobody comes after it.
        #[test]
        fn every_call_leaves_once_and_at_its_place(
            calls in prop::collection::vec((0..3u8, 0..4u64, 1..50u64, any::<bool>()), 1..40),
            removed in 0..40u64,
        ) {
            let mut queue = Queue::default();
            let mut inside = BTreeSet::new();
            let mut last_ahead = 0;
            for (id, (class, caller, deadline, pops)) in (0..).zip(calls) {
                let class = [Criticality::Critical, Criticality::Default, Criticality::Sheddable][usize::from(class)];
                let arrival = call(id, class, caller, deadline);
                last_ahead = queue.ahead_of(&arrival);
                queue.push(Now::ZERO, arrival);
                inside.insert(id);
                if pops {
                    let served = pop(&mut queue).expect("one was pushed");
                    prop_assert!(inside.remove(&served));
                }
            }
            let last = *inside.last().unwrap_or(&0);
            let lower_bound = queue.len();
            if inside.contains(&removed) && removed != last {
                prop_assert_eq!(queue.remove(CallId(removed)).map(|arrival| arrival.call.0), Some(removed));
                prop_assert!(queue.remove(CallId(removed)).is_none());
                inside.remove(&removed);
            }
            prop_assert!(last_ahead <= 40 && lower_bound >= queue.len());
            let rest = order(&mut queue);
            prop_assert_eq!(rest.iter().copied().collect::<BTreeSet<_>>(), inside);
            prop_assert!(queue.is_empty() && queue.first_deadline().is_none());
            prop_assert!(queue.classes.iter().all(|class| class.turns.is_empty() && class.lengths.is_empty()));
        }

        #[test]
        fn the_place_told_at_the_door_is_close_to_the_place_taken(
            calls in prop::collection::vec((0..4u64, 1..50u64), 1..30),
        ) {
            let mut queue = Queue::default();
            let mut ahead = 0;
            let last = calls.len() as u64 - 1;
            for (id, (caller, deadline)) in (0..).zip(calls) {
                let arrival = normal(id, caller, deadline);
                ahead = queue.ahead_of(&arrival);
                queue.push(Now::ZERO, arrival);
            }
            let place = order(&mut queue).iter().position(|id| *id == last).expect("it is inside");
            prop_assert!(ahead.abs_diff(place) <= 3, "told {ahead}, taken {place}: others' calls of one round");
        }
    }
}
