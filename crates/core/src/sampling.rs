//! Which calls history keeps on disk, and how many calls each kept one stands for.
//!
//! One [`Sampler`] per function. Within a second the first calls are all kept; beyond that the
//! first ones of every kind worth looking at ([`Kind`]), and of the rest every n-th, with n
//! doubling as the second goes on, so that a second of any rate adds rows by the logarithm of
//! the rate. Every call is accounted for: a kept row's weight is one plus the calls of its kind
//! that were left out since the kind's last kept row, so the weights of a kind add up to its
//! calls, errors never stand for good calls, and no random draw is needed.

use crate::outcome::{Outcome, Sli};
use crate::record::Invocation;

/// Kept first of each kind, per second and function (the interface's figure).
pub const FIRST_OF_KIND: u32 = 10;

/// The first stride beyond the limits, and the rows kept with each stride before it doubles.
/// At 20,000 calls in a second this adds about 110 rows; the relative error of a count made from
/// a stratum's rows stays below 1/16 whatever the rate.
const STRIDE: u32 = 16;

/// Calls end on many threads, so some are reported a moment after the second has changed; they
/// count in the new one, or each would begin both seconds anew. Further back means that the clock
/// was set.
const LATE_SECONDS: u64 = 2;

/// Whether a call of `second` counts in the `present` one.
pub fn is_within(second: u64, present: u64) -> bool {
    second <= present && present - second <= LATE_SECONDS
}

/// What makes a call worth keeping. Each outcome that counts as bad is a kind of its own, so
/// that a flood of one error does not hide another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing special.
    Plain,
    /// A call with a bad outcome.
    Bad(Outcome),
    /// Good, but over the latency objective.
    SloMiss,
    /// More than one attempt.
    Hedged,
    /// A start was part of it.
    Cold,
}

/// Kinds: one per outcome, and the four others.
const KINDS: usize = Outcome::ALL.len() + 4;

impl Kind {
    /// The kind of a call; the gravest reason counts.
    pub fn of(invocation: &Invocation) -> Self {
        if invocation.outcome.sli(invocation.caller_was_short) == Sli::Bad {
            Self::Bad(invocation.outcome)
        } else if invocation.latency_met == Some(false) {
            Self::SloMiss
        } else if invocation.attempts > 1 {
            Self::Hedged
        } else if invocation.cold {
            Self::Cold
        } else {
            Self::Plain
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Plain => 0,
            Self::SloMiss => 1,
            Self::Hedged => 2,
            Self::Cold => 3,
            Self::Bad(outcome) => 4 + outcome.index(),
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Stratum {
    /// Rows kept in this second.
    kept: u32,
    /// Of these, rows kept by stride.
    by_stride: u32,
    /// Calls left out since the last kept row, over all seconds.
    left_out: u32,
}

/// Decides for one function.
#[derive(Debug, Clone)]
pub struct Sampler {
    second: u64,
    kept: u32,
    strata: [Stratum; KINDS],
}

impl Default for Sampler {
    fn default() -> Self {
        Self { second: 0, kept: 0, strata: [Stratum::default(); KINDS] }
    }
}

impl Sampler {
    /// A call ended in `second` (of any clock). `per_function` is how many of this function are
    /// kept unconditionally in a second; `take_from_total` is asked only when that leaves room,
    /// and takes one place of the limit over all functions if there is one.
    ///
    /// Returns the weight of the row to keep, or none if the call is left out.
    pub fn on_call(
        &mut self,
        second: u64,
        kind: Kind,
        per_function: u32,
        take_from_total: impl FnOnce() -> bool,
    ) -> Option<u32> {
        if !is_within(second, self.second) {
            self.begin(second);
        }
        let stratum = &mut self.strata[kind.index()];
        let is_among_first = kind != Kind::Plain && stratum.kept < FIRST_OF_KIND;
        let is_within_limits = self.kept < per_function && take_from_total();
        if !is_within_limits && !is_among_first {
            let doublings = (stratum.by_stride / STRIDE).min(20);
            if stratum.left_out.saturating_add(1) < STRIDE << doublings {
                stratum.left_out += 1;
                return None;
            }
            stratum.by_stride += 1;
        }
        stratum.kept += 1;
        self.kept += 1;
        Some(1 + std::mem::take(&mut stratum.left_out))
    }

    fn begin(&mut self, second: u64) {
        self.second = second;
        self.kept = 0;
        for stratum in &mut self.strata {
            stratum.kept = 0;
            stratum.by_stride = 0;
        }
    }

    /// The second of the last call.
    pub fn second(&self) -> u64 {
        self.second
    }

    /// Calls that no row stands for yet.
    pub fn left_out(&self) -> u32 {
        self.strata.iter().map(|stratum| stratum.left_out).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: u32 = 200;

    fn run(sampler: &mut Sampler, second: u64, kind: Kind, calls: u32) -> (u32, u64) {
        let weights = (0..calls).filter_map(|_| sampler.on_call(second, kind, LIMIT, || true));
        weights.fold((0, 0), |(rows, sum), weight| (rows + 1, sum + u64::from(weight)))
    }

    #[test]
    fn everything_is_kept_with_weight_one_up_to_the_limit() {
        let mut sampler = Sampler::default();
        for second in 0..3 {
            assert_eq!(run(&mut sampler, second, Kind::Plain, LIMIT), (LIMIT, u64::from(LIMIT)));
        }
        assert_eq!(sampler.left_out(), 0);
    }

    #[test]
    fn a_busy_second_adds_rows_by_the_logarithm_of_its_rate() {
        let (rows, _) = run(&mut Sampler::default(), 1, Kind::Plain, 20_000);
        assert!((LIMIT + 90..LIMIT + 130).contains(&rows), "{rows}");
        let (rows, _) = run(&mut Sampler::default(), 1, Kind::Plain, 1_000_000);
        assert!(rows < LIMIT + 220, "{rows}");
    }

    #[test]
    fn the_first_of_every_kind_are_kept_however_busy_it_is() {
        let mut sampler = Sampler::default();
        run(&mut sampler, 1, Kind::Plain, 20_000);
        for kind in [Kind::SloMiss, Kind::Bad(Outcome::Crashed), Kind::Bad(Outcome::Timeout), Kind::Cold] {
            assert_eq!(run(&mut sampler, 1, kind, FIRST_OF_KIND), (FIRST_OF_KIND, 10), "{kind:?}");
            assert_eq!(run(&mut sampler, 1, kind, STRIDE - 1), (0, 0), "{kind:?}");
        }
    }

    #[test]
    fn calls_reported_late_count_in_the_present_second() {
        let mut sampler = Sampler::default();
        let kept = (0..2_000).filter(|n| sampler.on_call(7 - n % 2, Kind::Plain, LIMIT, || true).is_some());
        assert!(kept.count() < LIMIT as usize + 100);
        assert_eq!(run(&mut sampler, 1, Kind::Plain, LIMIT).0, LIMIT, "the clock was set back");
    }

    #[test]
    fn without_room_in_the_total_only_strides_are_left_for_plain_calls() {
        let mut sampler = Sampler::default();
        let kept: Vec<_> = (0..33).filter_map(|_| sampler.on_call(1, Kind::Plain, LIMIT, || false)).collect();
        assert_eq!(kept, [STRIDE, STRIDE]);
        assert_eq!(sampler.left_out(), 1);
    }

    proptest! {
        #[test]
        fn weights_add_up_to_the_calls(
            bursts in proptest::collection::vec((0u64..3, 0usize..4, 0u32..2_000, any::<bool>()), 1..30)
        ) {
            let kinds = [Kind::Plain, Kind::Bad(Outcome::Crashed), Kind::Cold, Kind::Hedged];
            let mut sampler = Sampler::default();
            let (mut second, mut calls, mut weights) = (1, 0, 0);
            for (later, kind, count, room) in bursts {
                second += later;
                calls += u64::from(count);
                for _ in 0..count {
                    let weight = sampler.on_call(second, kinds[kind], LIMIT, || room);
                    weights += weight.map_or(0, u64::from);
                }
            }
            prop_assert_eq!(weights + u64::from(sampler.left_out()), calls);
        }
    }
}
