//! How long warm attempts run, with those that were cut off as what they are: longer than that.
//!
//! Log buckets, eight to a factor of two (each at most an eighth wider than its beginning), from
//! 64 µs to 18 minutes: 1.5 KiB. Old runs fade: all weights are halved whenever they have come to
//! [`REMEMBERED`]. The survival function is Kaplan and Meier's ("Nonparametric estimation from
//! incomplete observations", 1958): a loser that was cancelled after 20 ms counts as a run up to
//! 20 ms and says nothing beyond, so that hedging does not make the tail look short, and the delay
//! does not creep down with it.

use std::time::Duration;

/// Buckets to a factor of two.
const PARTS: u32 = 8;

/// The first factor of two begins here, in microseconds as a power of two: what is quicker is as good.
const FIRST: u32 = 6;

/// Factors of two: up to 2^30 µs, 18 minutes, beyond any timeout that a call waits for.
const OCTAVES: u32 = 24;

pub(super) const BUCKETS: usize = (PARTS * OCTAVES) as usize;

/// Weights are halved at this many runs: then 2 % are still 40 runs, and a change of the function is
/// half of what is known after 2,048 calls.
const REMEMBERED: f32 = 4096.0;

/// The share of attempts that run longer than the upper edge of each bucket.
pub(super) type Survival = [f32; BUCKETS];

#[derive(Debug)]
pub(super) struct RunTimes {
    /// Weights of runs that ended in the bucket.
    ended: [f32; BUCKETS],
    /// Weights of runs that were cut off in the bucket.
    cut_off: [f32; BUCKETS],
    /// All weights.
    total: f32,
}

impl Default for RunTimes {
    fn default() -> Self {
        Self { ended: [0.0; BUCKETS], cut_off: [0.0; BUCKETS], total: 0.0 }
    }
}

impl RunTimes {
    /// A run to its answer.
    pub(super) fn add_run(&mut self, ran: Duration) {
        self.ended[bucket(ran)] += 1.0;
        self.added();
    }

    /// A run that was cut off after this time.
    pub(super) fn add_longer_than(&mut self, ran: Duration) {
        self.cut_off[bucket(ran)] += 1.0;
        self.added();
    }

    /// Runs that are remembered.
    pub(super) fn runs(&self) -> u32 {
        self.total as u32
    }

    fn added(&mut self) {
        self.total += 1.0;
        if self.total >= REMEMBERED {
            self.ended.iter_mut().chain(&mut self.cut_off).for_each(|weight| *weight /= 2.0);
            self.total /= 2.0;
        }
    }

    /// Kaplan–Meier: the product of what is left in each bucket of those who came so far.
    pub(super) fn survival(&self) -> Survival {
        let (mut at_risk, mut left) = (self.total, 1.0);
        let mut survival = [0.0; BUCKETS];
        for (at, share) in survival.iter_mut().enumerate() {
            // Whoever was cut off in a bucket counts as having been there for its ends.
            if at_risk > 0.0 {
                left *= (1.0 - self.ended[at] / at_risk).max(0.0);
            }
            at_risk -= self.ended[at] + self.cut_off[at];
            *share = left;
        }
        survival
    }

    /// What runs that are longer than this usually take in all: their median; none if too few of them
    /// ever ended.
    pub(super) fn usual_beyond(&self, elapsed: Duration) -> Option<Duration> {
        let survival = self.survival();
        let reached = survival[bucket(elapsed)];
        let at = survival.iter().position(|left| *left <= reached / 2.0).filter(|_| reached > 0.0)?;
        Some(upper_edge(at))
    }
}

/// Where a duration belongs.
fn bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1 << FIRST);
    let octave = 63 - micros.leading_zeros();
    let part = (micros >> (octave - PARTS.ilog2())) as u32 & (PARTS - 1);
    (((octave - FIRST) * PARTS + part) as usize).min(BUCKETS - 1)
}

/// Where a bucket ends and the next begins.
pub(super) fn upper_edge(bucket: usize) -> Duration {
    let (octave, part) = (bucket as u32 / PARTS + FIRST, bucket as u32 % PARTS);
    Duration::from_micros(u64::from(PARTS + part + 1) << (octave - PARTS.ilog2()))
}

/// The share that is certainly over within this time: that of the buckets which end by then.
pub(super) fn share_within(survival: &Survival, time: Duration) -> f64 {
    let beyond = (0..BUCKETS).find(|at| upper_edge(*at) > time).unwrap_or(BUCKETS);
    beyond.checked_sub(1).map_or(0.0, |last| 1.0 - f64::from(survival[last]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn buckets_are_an_eighth_wide_and_lie_end_to_end() {
        for micros in [64_u64, 65, 100, 999, 1_000, 10_000, 123_456, 60_000_000, 1_073_741_823] {
            let at = bucket(Duration::from_micros(micros));
            let edge = upper_edge(at).as_micros() as u64;
            assert!(micros < edge && edge <= micros + micros / 8 + 8, "{micros} is below {edge}");
            assert_eq!(bucket(upper_edge(at)), (at + 1).min(BUCKETS - 1), "the next begins where it ends");
        }
        assert_eq!((bucket(Duration::ZERO), bucket(Duration::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn who_was_cut_off_counts_as_long_as_it_ran_and_no_longer() {
        // Of ten, five ended at 10 ms, two were cut off at 20, two ended at 40, one at 80: the textbook's
        // product is 5/10, then 5/10 × 1/3, then 0.
        let mut times = RunTimes::default();
        (0..5).for_each(|_| times.add_run(ms(10)));
        (0..2).for_each(|_| times.add_longer_than(ms(20)));
        [40, 40, 80].into_iter().for_each(|run| times.add_run(ms(run)));
        let survival = times.survival();
        let beyond = |time| f64::from(survival[bucket(ms(time))]);
        assert!((beyond(10) - 0.5).abs() < 1e-6 && (beyond(30) - 0.5).abs() < 1e-6);
        assert!((beyond(40) - 1.0 / 6.0).abs() < 1e-6, "{}", beyond(40));
        assert!(beyond(80) < 1e-6);
        assert!((share_within(&survival, ms(30)) - 0.5).abs() < 1e-6);
        assert_eq!(share_within(&survival, ms(1)), 0.0);
    }

    #[test]
    fn a_tail_that_is_always_cut_off_stays_a_tail() {
        let mut times = RunTimes::default();
        for call in 0..20_000 {
            match call % 50 {
                0 if call < 100 => times.add_run(ms(200)),
                0 => times.add_longer_than(ms(22)),
                _ => times.add_run(ms(10)),
            }
        }
        let survival = times.survival();
        assert!((0.015..0.025).contains(&survival[bucket(ms(100))]), "{}", survival[bucket(ms(100))]);
        assert!(times.runs() < 4096);
    }

    #[test]
    fn what_outlasts_a_time_usually_takes_the_median_of_what_did() {
        let mut times = RunTimes::default();
        assert_eq!(times.usual_beyond(ms(5)), None);
        (0..98).for_each(|_| times.add_run(ms(10)));
        (0..2).for_each(|_| times.add_run(ms(200)));
        let usual = times.usual_beyond(ms(20)).expect("two of them ended");
        assert!((ms(190)..ms(220)).contains(&usual), "{usual:?}");
        assert_eq!(times.usual_beyond(ms(300)), None);
    }
}
