//! The door: which requests come in when more are there than can be seen to at once.
//!
//! Whoever serves many connections from few threads finds requests and answers of workers in one heap,
//! and takes them as they lie. Under a flood of requests an answer, of which there is one for each worker
//! that is busy, then waits for a thousand refusals, and the workers for it: the flood costs capacity
//! although it is refused. So requests are let in a few at a time, and what became of those before comes
//! first. While some stand outside, tenants take turns, and within a tenant its callers do: the others'
//! requests do not stand behind the flood.
//!
//! Nothing is refused here, and nobody waits while there is no crowd.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::ids::Tenant;
use crate::pool::Now;

/// How many come in within one [`WINDOW`] before the others stand in line: what one caller with many
/// connections does at once is no crowd.
const AT_ONCE: u32 = 16;

/// Some ten times what a thread takes to let one in.
const WINDOW: Duration = Duration::from_micros(200);

/// How many are let in at each turn, between which answers are seen to: a refusal costs about as much as
/// an answer, so two of them halve at worst what is left to answers of one worker, and few pools have one.
const EACH_TURN: usize = 2;

/// Lines that take turns.
#[derive(Debug)]
struct Lines<K, L> {
    lines: BTreeMap<K, L>,
    order: VecDeque<K>,
}

impl<K: Ord + Clone, L: Default> Lines<K, L> {
    fn line(&mut self, key: K) -> &mut L {
        if !self.lines.contains_key(&key) {
            self.order.push_back(key.clone());
        }
        self.lines.entry(key).or_default()
    }

    /// Takes from the line whose turn it is; `take` says whether more is in it.
    fn take<T>(&mut self, take: impl FnOnce(&mut L) -> (Option<T>, bool)) -> Option<T> {
        let key = self.order.pop_front()?;
        let (taken, has_more) = take(self.lines.get_mut(&key)?);
        if has_more {
            self.order.push_back(key);
        } else {
            self.lines.remove(&key);
        }
        taken
    }
}

impl<K, L> Default for Lines<K, L> {
    fn default() -> Self {
        Self { lines: BTreeMap::new(), order: VecDeque::new() }
    }
}

/// Who stands outside; a ticket is whatever its holder is told by that it may come in.
#[derive(Debug)]
pub struct Door<T> {
    tenants: Lines<Tenant, Lines<u64, VecDeque<T>>>,
    outside: usize,
    window: Now,
    within: u32,
}

impl<T> Default for Door<T> {
    fn default() -> Self {
        Self { tenants: Lines::default(), outside: 0, window: Now::ZERO, within: 0 }
    }
}

impl<T> Door<T> {
    /// Whether a request that is here at `now` may come in at once; if not it is to
    /// [`stand`](Self::stand) in line.
    pub fn is_open(&mut self, now: Now) -> bool {
        if self.outside > 0 {
            return false;
        }
        if now.saturating_sub(self.window) >= WINDOW {
            (self.window, self.within) = (now, 0);
        }
        self.within += 1;
        self.within <= AT_ONCE
    }

    /// Stands in the line of a caller (any number that is the same for one) of a tenant.
    pub fn stand(&mut self, tenant: &Tenant, caller: u64, ticket: T) {
        self.tenants.line(tenant.clone()).line(caller).push_back(ticket);
        self.outside += 1;
    }

    /// Whoever comes in now. Those who have left, as `is_there` says, are nobody's turn.
    pub fn turn(&mut self, is_there: impl Fn(&T) -> bool) -> Vec<T> {
        let mut called = Vec::with_capacity(EACH_TURN);
        while called.len() < EACH_TURN
            && let Some(next) = self.next()
        {
            if is_there(&next) {
                called.push(next);
            }
        }
        called
    }

    fn next(&mut self) -> Option<T> {
        let next = self.tenants.take(|callers| {
            let next = callers.take(|line| (line.pop_front(), !line.is_empty()));
            (next, !callers.order.is_empty())
        })?;
        self.outside -= 1;
        Some(next)
    }

    /// How many stand outside.
    pub fn outside(&self) -> usize {
        self.outside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Now = Duration::from_secs(1);

    fn tenant(name: &str) -> Tenant {
        name.parse().expect("a name")
    }

    fn all(door: &mut Door<u32>) -> Vec<u32> {
        std::iter::from_fn(|| Some(door.turn(|_| true)).filter(|called| !called.is_empty()))
            .flatten()
            .collect()
    }

    #[test]
    fn nobody_waits_while_there_is_no_crowd() {
        let mut door = Door::<u32>::default();
        for window in 0..10 {
            let now = AT + WINDOW * window;
            assert!((0..AT_ONCE).all(|_| door.is_open(now)));
        }
        assert!(!door.is_open(AT + WINDOW * 9));
    }

    #[test]
    fn who_comes_later_does_not_overtake() {
        let mut door = Door::default();
        door.stand(&Tenant::default(), 1, 7);
        assert!(!door.is_open(AT + WINDOW * 100));
        assert_eq!(door.turn(|_| true), [7]);
        assert!(door.is_open(AT + WINDOW * 100));
    }

    #[test]
    fn tenants_take_turns_and_so_do_the_callers_of_one() {
        let (loud, quiet) = (tenant("loud"), tenant("quiet"));
        let mut door = Door::default();
        for ticket in 0..6 {
            door.stand(&loud, 1, ticket);
        }
        door.stand(&loud, 2, 100);
        door.stand(&quiet, 1, 200);
        door.stand(&quiet, 1, 201);
        assert_eq!(door.outside(), 9);
        assert_eq!(all(&mut door), [0, 200, 100, 201, 1, 2, 3, 4, 5]);
        assert_eq!(door.outside(), 0);
        assert!(door.tenants.lines.is_empty() && door.tenants.order.is_empty());
    }

    #[test]
    fn a_turn_is_not_spent_on_who_has_left() {
        let mut door = Door::default();
        for ticket in 0..10 {
            door.stand(&Tenant::default(), 1, ticket);
        }
        assert_eq!(door.turn(|ticket| *ticket >= 7), [7, 8]);
        assert_eq!(door.outside(), 1);
    }
}
