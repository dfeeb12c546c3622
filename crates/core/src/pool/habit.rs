//! When a function is called again: how long its last worker is kept, and when one is started
//! before the call comes.
//!
//! After Shahrad et al., "Serverless in the Wild" (ATC 2020): a histogram of the times between calls,
//! one bin per minute up to four hours. What 99 of 100 times are shorter than is how long a worker
//! is kept; what 95 of 100 are longer than is how long none is needed. Where the histogram says
//! nothing, a fixed time holds. Memory is taken with the first pause of a minute.

use std::time::Duration;

use serde::Serialize;

use super::workers::Worker;
use super::{AUTO_IDLE, Now, Pool};

/// The paper's bins: minutes up to four hours.
const BIN: Duration = Duration::from_secs(60);
const BINS: usize = 240;

/// Fewer pauses say nothing. The paper does not give its number; others who built it took ten.
const LEAST_PAUSES: u32 = 10;

/// The paper's bound on how even the bins may be (coefficient of variation): pauses that are spread over all
/// of them foretell nothing.
const LEAST_VARIATION: f64 = 2.0;

/// The paper's percentiles and its margins of a tenth.
const HEAD: f64 = 0.05;
const TAIL: f64 = 0.99;
const MARGIN: f64 = 0.1;

/// Pauses that are kept before all are halved, so that a function that changes its habit is followed.
const MOST_PAUSES: u32 = 1 << 12;

/// How long a worker beyond what is needed stays: as far as arrivals are looked back at. One that a new call
/// would be needed for within the minute is no gain in memory.
pub(super) const SPARE_IDLE: Duration = Duration::from_secs(60);

/// The pauses between calls of one version.
#[derive(Debug, Default)]
pub(super) struct Habit {
    last: Option<Now>,
    /// Pauses within the first minute, and of more than four hours; between them the bins.
    brief: u32,
    beyond: u32,
    bins: Option<Box<[u16; BINS]>>,
    /// Pauses in all.
    pauses: u32,
    choice: Choice,
    /// A worker was started for the next call already.
    pub(super) has_warmed: bool,
}

/// How long the last worker is kept, and why.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Choice {
    /// After the last call.
    pub keep: Duration,
    /// How long after the last call none is needed, where that is known to be minutes.
    pub warm_after: Option<Duration>,
    /// The pauses that say so; none where a fixed time holds.
    pub pauses: u32,
}

impl Default for Choice {
    fn default() -> Self {
        Self { keep: AUTO_IDLE, warm_after: None, pauses: 0 }
    }
}

impl Habit {
    /// A call arrived. Whether the choice is another one now.
    pub(super) fn note(&mut self, now: Now) -> bool {
        let Some(last) = self.last.replace(now) else { return false };
        self.has_warmed = false;
        let minutes = now.saturating_sub(last).as_secs() / BIN.as_secs();
        self.pauses += 1;
        match usize::try_from(minutes) {
            Ok(0) => self.brief += 1,
            Ok(at) if at < BINS => {
                let bins = self.bins.get_or_insert_with(|| Box::new([0; BINS]));
                bins[at] = bins[at].saturating_add(1);
            }
            _ => self.beyond += 1,
        }
        if self.pauses >= MOST_PAUSES {
            self.halve();
        }
        // Calls that follow each other within the minute are looked at now and then: they are many.
        if minutes == 0 && !self.pauses.is_multiple_of(64) {
            return false;
        }
        let choice = self.choose();
        let before = std::mem::replace(&mut self.choice, choice);
        (before.keep, before.warm_after) != (self.choice.keep, self.choice.warm_after)
    }

    /// What is done about it.
    pub(super) fn choice(&self) -> Choice {
        self.choice
    }

    /// When a worker should be there again, if none is.
    pub(super) fn warm_at(&self) -> Option<Now> {
        Some(self.last?.saturating_add(self.choice.warm_after.filter(|_| !self.has_warmed)?))
    }

    fn halve(&mut self) {
        self.bins.iter_mut().for_each(|bins| bins.iter_mut().for_each(|bin| *bin /= 2));
        self.brief /= 2;
        self.beyond /= 2;
        let binned: u32 = self.bins.iter().flat_map(|bins| bins.iter()).map(|bin| u32::from(*bin)).sum();
        self.pauses = self.brief + self.beyond + binned;
    }

    fn choose(&self) -> Choice {
        let within = self.pauses - self.beyond;
        if self.pauses < LEAST_PAUSES || self.beyond * 2 > self.pauses || self.variation() < LEAST_VARIATION {
            return Choice::default();
        }
        let head = self.minute_of(within, HEAD) as f64 * (1.0 - MARGIN);
        let tail = (self.minute_of(within, TAIL) + 1) as f64 * (1.0 + MARGIN);
        let minutes = |minutes: f64| BIN.mul_f64(minutes);
        Choice {
            keep: minutes(tail),
            // To end a worker and start it again within the minute gains nothing.
            warm_after: Some(minutes(head)).filter(|after| *after > SPARE_IDLE + BIN),
            pauses: self.pauses,
        }
    }

    /// The minute that this share of the pauses lies within or before.
    fn minute_of(&self, within: u32, share: f64) -> usize {
        let rank = (f64::from(within) * share).ceil().max(1.0) as u32;
        let mut seen = 0;
        self.counts()
            .position(|count| {
                seen += count;
                seen >= rank
            })
            .unwrap_or(BINS - 1)
    }

    fn counts(&self) -> impl Iterator<Item = u32> + '_ {
        let rest = (1..BINS).map(|at| self.bins.as_ref().map_or(0, |bins| u32::from(bins[at])));
        std::iter::once(self.brief).chain(rest)
    }

    /// Standard deviation of the bins over their mean.
    fn variation(&self) -> f64 {
        let mean = self.counts().map(f64::from).sum::<f64>() / BINS as f64;
        if mean == 0.0 {
            return 0.0;
        }
        let variance =
            self.counts().map(|count| (f64::from(count) - mean).powi(2)).sum::<f64>() / BINS as f64;
        variance.sqrt() / mean
    }
}

impl Pool {
    /// Until when this idle worker is kept, if `min` does not keep it.
    pub(super) fn kept_until(&self, worker: &Worker) -> Now {
        let idle_for = |time: Duration| worker.since.saturating_add(time);
        if self.config.is_led {
            return worker.since;
        }
        if worker.adopted && !worker.has_served {
            return idle_for(self.config.idle.min(super::UNCALLED_IDLE));
        }
        if !self.config.learns {
            return idle_for(self.config.idle);
        }
        let Choice { keep, warm_after, .. } = self.habit.choice();
        if self.is_spare() {
            return idle_for(keep.min(SPARE_IDLE));
        }
        match (warm_after, self.habit.last) {
            // It was started for a call that has yet to come.
            (Some(after), Some(last)) if worker.since >= last.saturating_add(after) => {
                last.saturating_add(keep).max(idle_for(SPARE_IDLE))
            }
            (Some(_), Some(_)) => idle_for(SPARE_IDLE),
            _ => idle_for(keep),
        }
    }

    /// Whether there are more workers than the calls need.
    pub(super) fn is_spare(&self) -> bool {
        self.size.wanted.is_some_and(|wanted| self.workers.len() > wanted.max(1) as usize)
    }

    /// When the size should be looked at for workers that could go.
    pub(super) fn next_size_look(&self) -> Option<Now> {
        let may_go = self.workers.len() > self.floor.max(1) as usize && self.workers.idle_count() > 0;
        (self.config.learns && may_go).then(|| self.size.at.saturating_add(SPARE_IDLE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(minutes: u64) -> Duration {
        BIN * u32::try_from(minutes).expect("few")
    }

    fn after(pauses: impl IntoIterator<Item = u64>) -> Habit {
        let (mut habit, mut now) = (Habit::default(), Now::ZERO);
        habit.note(now);
        for pause in pauses {
            now += minutes(pause);
            habit.note(now);
        }
        habit
    }

    #[test]
    fn a_few_calls_say_nothing_and_nothing_is_kept_of_them() {
        assert_eq!(after([30; 9]).choice(), Choice::default());
        let busy = after([0; 500]);
        assert!(busy.bins.is_none());
        assert_eq!(busy.choice().keep, BIN.mul_f64(1.1), "a minute and its margin");
    }

    #[test]
    fn a_timer_of_half_an_hour_has_its_worker_just_when_it_comes() {
        let Choice { keep, warm_after, pauses } = after([30; 20]).choice();
        assert_eq!((keep, warm_after, pauses), (BIN.mul_f64(34.1), Some(minutes(27)), 20));
    }

    #[test]
    fn bursts_with_pauses_keep_a_worker_for_the_pauses() {
        let pauses = (0..30).flat_map(|_| [0, 0, 0, 0, 12]);
        let Choice { keep, warm_after, .. } = after(pauses).choice();
        assert_eq!((keep, warm_after), (BIN.mul_f64(14.3), None));
    }

    #[test]
    fn pauses_that_are_all_alike_or_too_long_fall_back() {
        assert_eq!(after((0..480).map(|at| at % 240)).choice(), Choice::default(), "all are as likely");
        assert_eq!(after([300; 40]).choice(), Choice::default(), "beyond four hours");
    }

    #[test]
    fn another_habit_is_followed() {
        let habit = after([0; 8000].into_iter().chain([20; 4000]));
        assert!(habit.pauses < MOST_PAUSES);
        assert_eq!(habit.choice().keep, BIN.mul_f64(23.1));
    }
}
