//! When a second attempt pays most, from how long attempts run.
//!
//! Of a second attempt after the delay d with probability q the share of calls over the objective is
//! P(X > O) × (1 − q × P(Y ≤ O − d)), and its price is q × P(X > d) attempts per call (Kaler, He and
//! Elnikety, "Optimal Reissue Policies for Reducing Tail Latency", SPAA 2017, who show that one reissue is
//! as good as several). So the best d makes q × P(Y ≤ O − d) largest, with q the share of due attempts that
//! the budget pays for. Not a percentile: where more calls are slow than the percentile leaves out it *is*
//! the slow value, and a second attempt then comes when all is over.

use std::time::Duration;

use super::times::{BUCKETS, Survival, share_within, upper_edge};

/// Delays whose gain differs by less than this part of the best are equally good, and the smallest of them
/// is taken: gains rest on some hundred runs and are not known more exactly than that.
const AS_GOOD: f64 = 0.01;

/// No delay is shorter: timers are no finer, and a second attempt must not be the rule. (Finagle's backup
/// requests have the same floor.)
const SHORTEST: Duration = Duration::from_millis(1);

/// What to do with the calls to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// There was none yet.
    Learning,
    /// No second attempt would bring a call under the objective.
    NothingToGain,
    /// There is nothing to pay for one.
    NoBudget,
    /// A second attempt so long after dispatch.
    After(Duration),
}

impl Plan {
    /// The best for this objective, where a call may cost `budget` second attempts.
    pub(super) fn of(survival: &Survival, objective: Duration, budget: f64) -> Self {
        let beyond = 1.0 - share_within(survival, objective);
        // Less than one run in all that is remembered.
        if beyond < 1e-6 {
            return Self::NothingToGain;
        }
        if budget <= 0.0 {
            return Self::NoBudget;
        }
        let delays = || {
            let after = (0..BUCKETS).map(|at| (upper_edge(at), f64::from(survival[at])));
            after.filter(|(delay, _)| (SHORTEST..objective).contains(delay))
        };
        let gain = |(delay, longer): (Duration, f64)| {
            let paid = if longer > budget { budget / longer } else { 1.0 };
            paid * share_within(survival, objective - delay)
        };
        let best = delays().map(gain).fold(0.0, f64::max);
        if best <= 0.0 {
            return Self::NothingToGain;
        }
        let good_enough = |delay: &(Duration, f64)| gain(*delay) >= best * (1.0 - AS_GOOD);
        let (delay, _) = delays().find(good_enough).expect("the best is among them");
        Self::After(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::super::times::RunTimes;
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn survival(runs: impl IntoIterator<Item = (u32, u64)>) -> Survival {
        let mut times = RunTimes::default();
        for (count, run) in runs {
            (0..count).for_each(|_| times.add_run(ms(run)));
        }
        times.survival()
    }

    #[test]
    fn of_equal_delays_the_smallest_within_the_budget_is_taken() {
        let two_speeds = survival([(980, 10), (20, 200)]);
        let Plan::After(delay) = Plan::of(&two_speeds, ms(100), 0.03) else { panic!() };
        assert!((ms(10)..ms(12)).contains(&delay), "{delay:?}");
        // Half of the slow ones is all that can be paid for, at any delay.
        let Plan::After(delay) = Plan::of(&two_speeds, ms(100), 0.01) else { panic!() };
        assert!((ms(10)..ms(12)).contains(&delay), "{delay:?}");
    }

    #[test]
    fn a_slow_share_beyond_the_percentile_of_the_budget_is_hedged_all_the_same() {
        // The 95th percentile is 200 ms here: a delay from it would never help.
        let Plan::After(delay) = Plan::of(&survival([(900, 10), (100, 200)]), ms(100), 0.05) else {
            panic!()
        };
        assert!((ms(10)..ms(12)).contains(&delay), "{delay:?}");
    }

    #[test]
    fn what_lies_between_the_usual_and_the_objective_is_left_alone_when_the_budget_is_short() {
        // 30 ms are in time. Only what is longer is worth what the budget has.
        let runs = survival([(850, 10), (100, 30), (50, 300)]);
        let Plan::After(delay) = Plan::of(&runs, ms(100), 0.05) else { panic!() };
        assert!((ms(30)..ms(36)).contains(&delay), "{delay:?}");
    }

    #[test]
    fn there_is_no_delay_where_none_would_help() {
        assert_eq!(Plan::of(&survival([(1000, 10)]), ms(100), 0.05), Plan::NothingToGain);
        assert_eq!(Plan::of(&survival([(1000, 200)]), ms(100), 0.05), Plan::NothingToGain);
        assert_eq!(Plan::of(&survival([(980, 10), (20, 200)]), ms(100), 0.0), Plan::NoBudget);
    }
}
