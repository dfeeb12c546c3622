//! Workers that stand out against their siblings: which one is to be replaced after its call.
//!
//! All workers of a version run the same code, so one whose calls fail, or take long, while those of
//! the others do not, has come into a state that it will not leave by itself: a broken global, a lost
//! connection, a heap that is collected without end. What all of them do is no outlier: then the
//! function or something that it needs is at fault, and new workers would not help. A version with one
//! worker has no siblings; for it a replacement is an experiment, made seldom.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::WorkerId;

/// Failures in a row that stand out: what Envoy's outlier detection takes, too.
const FAILURES: u32 = 5;

/// Slow calls in a row that stand out. More than for failures: of a function whose run times have two
/// humps, three in ten slow, eight in a row are slow once in fifteen thousand times.
const SLOW: u32 = 8;

/// Calls of siblings that must have gone well meanwhile, for each one of theirs that did not.
const GOOD_FOR_ONE_BAD: u64 = 4;

/// How far above the usual run time a call is slow, as a factor and at least.
const FAR: (u32, Duration) = (3, Duration::from_millis(10));

/// Run times that say what is usual.
const RUNS: usize = 64;

/// Of the workers that have served, one in so many is replaced at a time, and at least one: as Envoy does.
const SHARE: usize = 10;

/// For how long a replaced worker counts: time for the new one to show itself.
const AT_A_TIME: Duration = Duration::from_secs(10);

/// The pause after an experiment that did not help; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// A call on a worker that has ended, with an answer or an exception.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Which worker.
    pub worker: WorkerId,
    /// The handler raised, or answered with 500 or more.
    pub failed: bool,
    /// How long it ran.
    pub ran: Duration,
}

/// Why a worker is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oddity {
    /// So many of its calls failed in a row, while its siblings' did not.
    Failing(u32),
    /// The same, and it has no siblings to compare it with.
    FailingAlone(u32),
    /// So many of its calls in a row took so many times what is usual, while its siblings' did not.
    Slow(u32),
}

/// Good and bad calls of all workers since the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    good: u64,
    bad: u64,
}

/// Bad calls of one worker in a row, and what all had counted when they began.
#[derive(Debug, Clone, Copy, Default)]
struct Streak {
    length: u32,
    before: Counts,
}

#[derive(Debug, Default)]
struct Seen {
    failing: Streak,
    slow: Streak,
    has_served_well: bool,
}

/// The workers of one version. Times are since an epoch that its owner chose.
#[derive(Debug, Default)]
pub struct Outliers {
    workers: BTreeMap<WorkerId, Seen>,
    by_failing: Counts,
    by_slow: Counts,
    /// The latest run times, in microseconds, as a ring.
    runs: Vec<u64>,
    next_run: usize,
    /// Their median, brought up to date now and then.
    usual: Duration,
    /// When workers were replaced lately.
    replaced: Vec<Duration>,
    /// No experiment before.
    no_experiment_before: Duration,
    /// Experiments in a row after which nothing went well.
    in_vain: u32,
}

impl Outliers {
    /// A call has ended; why its worker is to be replaced, if it is.
    pub fn on_ended(&mut self, now: Duration, ended: Ended) -> Option<Oddity> {
        let Ended { worker, failed, ran } = ended;
        let is_slow = self.is_slow(ran);
        self.note_run(ran);
        if !failed {
            self.in_vain = 0;
        }
        let seen = self.workers.entry(worker).or_default();
        seen.has_served_well |= !failed;
        seen.failing.on_ended(failed, &mut self.by_failing);
        seen.slow.on_ended(is_slow, &mut self.by_slow);
        let oddity = if seen.failing.stands_out(FAILURES, self.by_failing) {
            Oddity::Failing(seen.failing.length)
        } else if seen.slow.stands_out(SLOW, self.by_slow) {
            Oddity::Slow(seen.slow.length)
        } else if seen.has_served_well
            && seen.failing.length >= FAILURES
            && seen.failing.others(self.by_failing) == Counts::default()
            && now >= self.no_experiment_before
        {
            Oddity::FailingAlone(seen.failing.length)
        } else {
            return None;
        };
        self.replaced.retain(|at| now.saturating_sub(*at) < AT_A_TIME);
        if self.replaced.len() >= (self.workers.len() / SHARE).max(1) {
            return None;
        }
        self.replaced.push(now);
        if matches!(oddity, Oddity::FailingAlone(_)) {
            let pause = FIRST_PAUSE.saturating_mul(1 << self.in_vain.min(16)).min(LONGEST_PAUSE);
            self.no_experiment_before = now.saturating_add(pause);
            self.in_vain = self.in_vain.saturating_add(1);
        }
        self.workers.remove(&worker);
        Some(oddity)
    }

    /// A worker is no more.
    pub fn on_gone(&mut self, worker: WorkerId) {
        self.workers.remove(&worker);
    }

    /// The usual run time.
    pub fn usual(&self) -> Duration {
        self.usual
    }

    fn is_slow(&self, ran: Duration) -> bool {
        let (factor, least) = FAR;
        self.runs.len() >= SLOW as usize * 2 && ran > (self.usual * factor).max(self.usual + least)
    }

    fn note_run(&mut self, ran: Duration) {
        let micros = u64::try_from(ran.as_micros()).unwrap_or(u64::MAX);
        match self.runs.get_mut(self.next_run) {
            Some(oldest) => *oldest = micros,
            None => self.runs.push(micros),
        }
        self.next_run = (self.next_run + 1) % RUNS;
        // A sort of 64 numbers for every sixteenth call.
        if self.next_run.is_multiple_of(16) {
            let mut sorted = self.runs.clone();
            let middle = sorted.len() / 2;
            let (_, median, _) = sorted.select_nth_unstable(middle);
            self.usual = Duration::from_micros(*median);
        }
    }
}

impl Streak {
    fn on_ended(&mut self, is_bad: bool, all: &mut Counts) {
        if !is_bad {
            all.good += 1;
            self.length = 0;
            return;
        }
        if self.length == 0 {
            self.before = *all;
        }
        all.bad += 1;
        self.length = self.length.saturating_add(1);
    }

    /// What the others have done since it began.
    fn others(&self, all: Counts) -> Counts {
        let bad = (all.bad - self.before.bad).saturating_sub(u64::from(self.length));
        Counts { good: all.good - self.before.good, bad }
    }

    fn stands_out(&self, length: u32, all: Counts) -> bool {
        let others = self.others(all);
        self.length >= length
            && others.good >= u64::from(length)
            && others.good >= others.bad * GOOD_FOR_ONE_BAD
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const QUICK: Duration = Duration::from_millis(5);

    fn on(worker: u64, failed: bool, ran: Duration) -> Ended {
        Ended { worker: WorkerId(worker), failed, ran }
    }

    #[test]
    fn a_worker_that_fails_while_its_siblings_do_not_is_replaced() {
        let mut outliers = Outliers::default();
        for call in 0..4 {
            assert_eq!(outliers.on_ended(SECOND, on(1, true, QUICK)), None, "{call}");
            assert_eq!(outliers.on_ended(SECOND, on(2, false, QUICK)), None);
        }
        assert_eq!(outliers.on_ended(SECOND, on(2, false, QUICK)), None);
        assert_eq!(outliers.on_ended(SECOND, on(1, true, QUICK)), Some(Oddity::Failing(5)));
    }

    #[test]
    fn what_all_of_them_do_is_no_outlier() {
        let mut outliers = Outliers::default();
        for call in 0..1000_u64 {
            let ended = on(call % 4, call > 100, if call > 500 { 100 * QUICK } else { QUICK });
            assert_eq!(outliers.on_ended(SECOND * call as u32, ended), None, "{call}");
        }
    }

    #[test]
    fn a_worker_that_is_far_slower_than_its_siblings_is_replaced() {
        let mut outliers = Outliers::default();
        let mut found = None;
        for call in 0..200_u64 {
            let ran = if call > 100 && call % 4 == 0 { 50 * QUICK } else { QUICK };
            found = found.or(outliers.on_ended(SECOND, on(call % 4, false, ran)).map(|odd| (call % 4, odd)));
        }
        assert_eq!(found, Some((0, Oddity::Slow(8))));
    }

    #[test]
    fn one_without_siblings_is_replaced_as_an_experiment_made_less_and_less() {
        let mut outliers = Outliers::default();
        // One that never served well is the function's own affair.
        for _ in 0..100 {
            assert_eq!(outliers.on_ended(SECOND, on(1, true, QUICK)), None);
        }
        let (mut now, mut experiments) = (SECOND, 0);
        for worker in 2..1000 {
            now += SECOND;
            outliers.on_ended(now, on(worker, false, QUICK));
            experiments +=
                u32::from((0..5).any(|_| outliers.on_ended(now, on(worker, true, QUICK)).is_some()));
        }
        // Each served well at first: an experiment is worth its while, but not for each failure.
        assert!((50..=100).contains(&experiments), "{experiments}");
    }

    #[test]
    fn not_all_are_replaced_at_once() {
        let mut outliers = Outliers::default();
        let mut replaced = 0;
        for round in 0..20 {
            for worker in 0..30 {
                // Five of thirty are broken.
                let ended = on(worker + 100 * u64::from(round > 100), worker < 5, QUICK);
                replaced += u32::from(outliers.on_ended(SECOND, ended).is_some());
            }
        }
        assert_eq!(replaced, 3, "a tenth");
    }

    proptest! {
        /// Failures and slow calls that strike whoever comes cost next to no worker.
        #[test]
        fn chance_alone_replaces_next_to_nobody(seed in any::<u64>(), share in 0.0..0.3_f64) {
            let mut outliers = Outliers::default();
            let mut state = seed | 1;
            let mut random = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 11) as f64 / (1_u64 << 53) as f64
            };
            let mut replaced = 0;
            for call in 0..5_000_u32 {
                let worker = (random() * 8.0) as u64;
                let ran = if random() < share { 100 * QUICK } else { QUICK };
                let ended = on(worker, random() < share, ran);
                replaced += u32::from(outliers.on_ended(SECOND * call, ended).is_some());
            }
            // 0.3^5 of five thousand calls are twelve; each costs a start.
            prop_assert!(replaced <= 30, "{replaced}");
        }
    }
}
