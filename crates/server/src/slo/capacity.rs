//! What a function's workers had to do, and how long calls waited for them, minute by minute.
//!
//! Demand is the mean number of calls that ran, which is their running time divided by the time
//! (Little's law), so it is exact however short calls are. Workers are counted once a second. Kept
//! in memory only: after a restart the hour begins anew.

use std::collections::VecDeque;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::rolling::{MINUTES, histogram};

const MINUTE: Duration = Duration::from_secs(60);

/// Longer waits count as this long: no call waits longer than its function's timeout, an hour at most.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct Minute {
    number: u64,
    /// What its calls ran, all together.
    busy: Duration,
    /// Workers at each look, added up.
    workers: u64,
    looks: u32,
    /// Known when the minute is over.
    wait_p99: Option<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct Capacity {
    minutes: VecDeque<Minute>,
    /// How long the calls of one minute waited, in microseconds, and which minute.
    waits: Option<(u64, Histogram<u32>)>,
}

impl Minute {
    /// Mean number of calls that ran; of the minute that is not over, until `now`.
    pub(super) fn demand(&self, now: Duration) -> f64 {
        let so_far = now.saturating_sub(start_of(self.number)).min(MINUTE);
        self.busy.as_secs_f64() / so_far.as_secs_f64().max(1.0)
    }

    /// Mean number of workers.
    pub(super) fn workers(&self) -> f64 {
        self.workers as f64 / f64::from(self.looks.max(1))
    }
}

impl Capacity {
    /// A call ended at `now` that waited so long for a worker and then ran so long.
    pub(super) fn record(&mut self, now: Duration, waited: Duration, ran: Duration) {
        let number = now.as_secs() / 60;
        self.note_wait(number, waited);
        // A long call was at work in earlier minutes, too.
        let began = now.saturating_sub(ran);
        for minute in number.saturating_sub(MINUTES).max(began.as_secs() / 60)..=number {
            let in_it = (start_of(minute) + MINUTE).min(now).saturating_sub(began.max(start_of(minute)));
            if let Some(minute) = self.minute(minute) {
                minute.busy += in_it;
            }
        }
    }

    /// Once a second, while there are workers.
    pub(super) fn look(&mut self, now: Duration, workers: u32) {
        if let Some(minute) = self.minute(now.as_secs() / 60) {
            minute.workers += u64::from(workers);
            minute.looks += 1;
        }
    }

    /// The minute's entry, and how long calls waited in it.
    pub(super) fn of(&self, number: u64) -> Option<(&Minute, Option<Duration>)> {
        let minute = self.minutes.iter().find(|minute| minute.number == number)?;
        Some((minute, minute.wait_p99.or_else(|| self.wait_p99(number))))
    }

    fn note_wait(&mut self, number: u64, waited: Duration) {
        if self.waits.as_ref().is_none_or(|(minute, _)| *minute < number) {
            self.end_waits();
            self.waits = Some((number, histogram()));
        }
        if let Some((_, waits)) = &mut self.waits {
            // Zero cannot be counted.
            let microseconds = waited.min(LONGEST_WAIT).as_micros().max(1);
            waits.record(microseconds as u64).expect("a histogram grows to any value");
        }
    }

    fn end_waits(&mut self) {
        let Some((number, _)) = self.waits else { return };
        let p99 = self.wait_p99(number);
        if let Some(minute) = self.minutes.iter_mut().find(|minute| minute.number == number) {
            minute.wait_p99 = p99;
        }
    }

    fn wait_p99(&self, number: u64) -> Option<Duration> {
        let (_, waits) = self.waits.as_ref().filter(|(minute, _)| *minute == number)?;
        Some(Duration::from_micros(waits.value_at_quantile(0.99)))
    }

    /// Made when it is not there; none when it is older than what is kept.
    fn minute(&mut self, number: u64) -> Option<&mut Minute> {
        let at = self.minutes.partition_point(|minute| minute.number < number);
        if self.minutes.get(at).is_none_or(|minute| minute.number != number) {
            if self.minutes.back().is_some_and(|last| number + MINUTES <= last.number) {
                return None;
            }
            let minute = Minute { number, busy: Duration::ZERO, workers: 0, looks: 0, wait_p99: None };
            self.minutes.insert(at, minute);
            while self.minutes.len() > MINUTES as usize + 1 {
                self.minutes.pop_front();
            }
        }
        self.minutes.iter_mut().rfind(|minute| minute.number == number)
    }
}

fn start_of(number: u64) -> Duration {
    MINUTE * u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn demand_is_the_running_time_by_the_time() {
        let mut capacity = Capacity::default();
        // Ten calls of 12 s each within one minute: two at a time.
        for call in 0..10 {
            capacity.record(secs(612) + secs(5 * call), Duration::ZERO, secs(12));
        }
        let (minute, wait) = capacity.of(10).unwrap();
        assert_eq!(minute.demand(secs(700)), 2.0);
        assert_eq!(minute.demand(secs(630)), 4.0, "of half a minute, twice as much");
        assert_eq!(wait, Some(Duration::from_micros(1)));
    }

    #[test]
    fn a_long_call_was_at_work_in_each_minute_that_it_ran() {
        let mut capacity = Capacity::default();
        capacity.record(secs(630), Duration::ZERO, secs(150));
        let demand: Vec<_> = (7..=10).filter_map(|it| Some(capacity.of(it)?.0.demand(secs(900)))).collect();
        assert_eq!(demand, [1.0, 1.0, 0.5], "from 480 s to 630 s");
        capacity.record(secs(36_000), Duration::ZERO, secs(36_000));
        assert!(capacity.minutes.len() <= MINUTES as usize + 1);
    }

    #[test]
    fn workers_are_the_mean_of_the_looks_and_waits_outlive_their_minute() {
        let mut capacity = Capacity::default();
        for (at, workers) in [(60, 2), (61, 4)] {
            capacity.look(secs(at), workers);
        }
        for wait in 1..=100 {
            capacity.record(secs(62), Duration::from_millis(wait), Duration::from_millis(1));
        }
        capacity.record(secs(121), Duration::ZERO, Duration::from_millis(1));
        let (minute, wait) = capacity.of(1).unwrap();
        assert_eq!(minute.workers(), 3.0);
        let off = wait.unwrap().as_secs_f64() / 0.099 - 1.0;
        assert!(off.abs() < 0.01, "{wait:?}");
        assert!(capacity.of(3).is_none());
    }
}
