//! How many workers the calls need that come: Erlang's formula over what was seen.
//!
//! A fixed utilisation gives small functions too few workers and large ones too many: for one call
//! in a hundred to wait, a load of 1 needs 5 workers (20 % busy) and a load of 100 needs 125
//! (80 %). So the load (arrivals × mean run time) is measured and the number of workers follows
//! from the share of calls that may wait (M/M/c; runs that vary less than exponentially wait less).

use super::{Now, Pool, TRUSTED_RUNS};

/// The share of calls that may wait where no objective says another: as the usual objective of 99 %.
const USUAL_SHARE: f64 = 0.01;

/// The share that a latency objective can ask for at least: beyond 1 in 10,000 the arrivals of a minute say
/// nothing of what is needed.
const LEAST_SHARE: f64 = 1e-4;

/// Seconds of arrivals that are kept: the stable window of Knative's autoscaler.
const KEPT: u64 = 60;

/// Seconds that show a growing demand soon enough, and a tenth of the others as with Knative's panic
/// window; until so much was seen, only calls that wait start workers.
const RECENT: u64 = 6;

/// The share of calls that wait when calls arrive independently of each other at a load (mean number of
/// calls in work) for so many workers; 1 when they cannot keep up.
pub fn waiting_share(load: f64, workers: u32) -> f64 {
    if load <= 0.0 {
        return 0.0;
    }
    let busy = load / f64::from(workers);
    if busy >= 1.0 || busy.is_nan() {
        return 1.0;
    }
    let blocked = (1..=workers).fold(1.0, |blocked, workers| next_blocked(blocked, load, workers));
    blocked / (1.0 - busy * (1.0 - blocked))
}

/// The fewest workers with which at most this share of calls waits, and at most `most`.
pub fn workers_for(load: f64, share: f64, most: u32) -> u32 {
    if load <= 0.0 || load.is_nan() {
        return 0;
    }
    let mut blocked = 1.0;
    for workers in 1..most {
        blocked = next_blocked(blocked, load, workers);
        let busy = load / f64::from(workers);
        if busy < 1.0 && blocked / (1.0 - busy * (1.0 - blocked)) <= share {
            return workers;
        }
    }
    most
}

/// Erlang's B by its recursion: stable where factorials overflow.
fn next_blocked(blocked: f64, load: f64, workers: u32) -> f64 {
    load * blocked / (f64::from(workers) + load * blocked)
}

/// Arrivals by the second, of the last minute. Memory is taken with the first call.
#[derive(Debug, Default)]
pub(super) struct Demand {
    counts: Option<Box<[u32; KEPT as usize]>>,
    /// The second of the first call, and the latest that was written to.
    first: u64,
    latest: u64,
}

impl Demand {
    /// A call arrived.
    pub(super) fn note(&mut self, now: Now) {
        let second = now.as_secs();
        let Some(counts) = &mut self.counts else {
            self.counts.insert(Box::new([0; KEPT as usize]))[(second % KEPT) as usize] = 1;
            (self.first, self.latest) = (second, second);
            return;
        };
        if second > self.latest {
            let passed = (self.latest + 1..=second).take(KEPT as usize);
            passed.for_each(|second| counts[(second % KEPT) as usize] = 0);
            self.latest = second;
        }
        counts[(second % KEPT) as usize] += 1;
    }

    /// Calls per second: the most of what the last seconds and the last minute show, so that demand
    /// that grows is followed soon and demand that pauses is not forgotten at once.
    pub(super) fn per_second(&self, now: Now) -> f64 {
        [RECENT, KEPT].into_iter().map(|window| self.rate_over(window, now)).fold(0.0, f64::max)
    }

    fn rate_over(&self, window: u64, now: Now) -> f64 {
        let Some(counts) = &self.counts else { return 0.0 };
        let second = now.as_secs();
        let from = (second + 1).saturating_sub(window).max(self.first);
        let calls: u64 =
            (from..=second.min(self.latest)).map(|at| u64::from(counts[(at % KEPT) as usize])).sum();
        // The present second has only begun; less than one of them is no basis for a rate.
        let seconds = (now.as_secs_f64() - from as f64).max(1.0);
        calls as f64 / seconds
    }

    /// Whether enough of it was seen to start workers by.
    fn is_known(&self, now: Now) -> bool {
        self.counts.is_some() && now.as_secs() >= self.first + RECENT
    }
}

/// What was last worked out.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    /// Workers that the calls need; none while too little is known of them.
    pub(super) wanted: Option<u32>,
    pub(super) at: Now,
}

impl Pool {
    /// Works the wanted number out again, once a second at most: it is a sum over all workers.
    pub(super) fn look_at_size(&mut self, now: Now) {
        if now.as_secs() > self.size.at.as_secs() || self.size.at.is_zero() {
            self.size = Size { wanted: self.wanted(now), at: now };
        }
    }

    fn wanted(&self, now: Now) -> Option<u32> {
        if self.run_times.count() < TRUSTED_RUNS || !self.demand.is_known(now) {
            return None;
        }
        let slots = workers_for(
            self.demanded(now),
            self.waiting_share(),
            self.config.max.saturating_mul(self.config.slots),
        );
        Some(slots.div_ceil(self.config.slots))
    }

    /// The mean number of calls in work.
    fn demanded(&self, now: Now) -> f64 {
        // A worker of one call is also taken while it starts.
        let each = self.run_times.mean().unwrap_or_default() + self.replacement_time();
        self.demand.per_second(now) * each.as_secs_f64()
    }

    /// The share of calls that may wait: what the latency objective leaves.
    fn waiting_share(&self) -> f64 {
        let by_objective = |objective: super::Objective| (1.0 - objective.percent / 100.0).max(LEAST_SHARE);
        self.config.objective.map_or(USUAL_SHARE, by_objective)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Erlang's tables.
    #[test]
    fn one_call_in_a_hundred_waits_with_so_many_workers() {
        let known = [
            (1.0, [3, 4, 5, 6]),
            (10.0, [14, 17, 19, 22]),
            (50.0, [58, 64, 68, 74]),
            (100.0, [111, 119, 125, 134]),
        ];
        for (load, workers) in known {
            let told = [0.2, 0.05, 0.01, 0.001].map(|share| workers_for(load, share, 10_000));
            assert_eq!(told, workers, "load {load}");
        }
        assert_eq!((workers_for(0.0, 0.01, 10), workers_for(f64::NAN, 0.01, 10)), (0, 0));
        assert_eq!(workers_for(500.0, 0.01, 16), 16, "more than that there may not be");
        assert!((waiting_share(10.0, 14) - 0.174).abs() < 0.001, "{}", waiting_share(10.0, 14));
        assert_eq!((waiting_share(3.0, 3), waiting_share(0.0, 0)), (1.0, 0.0));
    }

    #[test]
    fn a_rate_follows_what_grows_and_remembers_a_minute() {
        let mut demand = Demand::default();
        assert_eq!(demand.per_second(Duration::from_secs(5)), 0.0);
        (0..600).for_each(|call| demand.note(Duration::from_millis(call * 100)));
        assert!((demand.per_second(Duration::from_secs(60)) - 10.0).abs() < 0.3);
        (0..600).for_each(|call| demand.note(Duration::from_millis(60_000 + call * 10)));
        let grown = demand.per_second(Duration::from_secs(66));
        assert!((80.0..=120.0).contains(&grown), "six seconds show it: {grown}");
        let after = demand.per_second(Duration::from_secs(100));
        assert!((8.0..=17.0).contains(&after), "a minute's mean: {after}");
        assert_eq!(demand.per_second(Duration::from_secs(200)), 0.0);
    }
}
