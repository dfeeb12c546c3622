//! The recent past as numbers, for snapshots: a restart must not make a function look idle.
//!
//! Times are kept as Unix time, because the clock that the slots are numbered by begins anew with
//! each start; at the next one they are put where they lie on its clock. A slot of a minute may so
//! move by less than one. Durations are kept as what a histogram has recorded: a value and how often.

use fp_core::Outcome;
use hdrhistogram::{Counter, Histogram};

use super::{LONGEST, Latencies, Minute, Rolling, histogram};

/// More of anything was never written: the slots of an hour, or the values of a histogram.
const MOST: u64 = 100_000;

impl Rolling {
    /// All that is known; `now_s` and `wall_s` are one moment, in seconds of the book's clock and of
    /// Unix time.
    pub(in super::super) fn to_numbers(&self, now_s: u64, wall_s: u64) -> Vec<u64> {
        let wall_of = |second: u64| (wall_s + second).saturating_sub(now_s);
        let mut numbers = vec![Outcome::ALL.len() as u64, self.seconds.len() as u64];
        for (second, count) in &self.seconds {
            numbers.extend([wall_of(*second), u64::from(*count)]);
        }
        numbers.push(self.minutes.len() as u64);
        for minute in &self.minutes {
            numbers.push(wall_of(minute.number * 60));
            numbers.extend(minute.by_outcome.iter().map(|count| u64::from(*count)));
            numbers.extend([minute.good, minute.bad, minute.cold].map(u64::from));
            numbers.push(minute.p99_us.map_or(0, |p99_us| p99_us + 1));
        }
        numbers.push(self.latencies.len() as u64);
        for latencies in &self.latencies {
            numbers.push(wall_of(latencies.minute * 60));
            put_histogram(&mut numbers, Some(&latencies.warm));
            put_histogram(&mut numbers, latencies.cold.as_ref());
        }
        numbers
    }

    /// What [`to_numbers`](Self::to_numbers) wrote, as far as it lies within this clock's past; none
    /// if it was something else.
    pub(in super::super) fn from_numbers(
        numbers: &mut impl Iterator<Item = u64>,
        now_s: u64,
        wall_s: u64,
    ) -> Option<Self> {
        let at = |wall: u64| (now_s + wall).checked_sub(wall_s).filter(|second| *second <= now_s);
        let mut rolling = Self::default();
        // An earlier release knew fewer; new ones come at the end.
        let outcomes = usize::try_from(numbers.next()?).ok().filter(|known| *known <= Outcome::ALL.len())?;
        for _ in 0..count(numbers)? {
            let (second, count) = (at(numbers.next()?), narrow(numbers)?);
            rolling.seconds.extend(second.map(|second| (second, count)));
        }
        for _ in 0..count(numbers)? {
            let second = at(numbers.next()?);
            let mut minute = Minute::new(second.unwrap_or_default() / 60);
            for count in minute.by_outcome.iter_mut().take(outcomes) {
                *count = narrow(numbers)?;
            }
            for count in [&mut minute.good, &mut minute.bad, &mut minute.cold] {
                *count = narrow(numbers)?;
            }
            minute.p99_us = numbers.next()?.checked_sub(1);
            rolling.minutes.extend(second.map(|_| minute));
        }
        for _ in 0..count(numbers)? {
            let second = at(numbers.next()?);
            let (mut warm, mut cold) = (histogram(), histogram());
            for durations in [&mut warm, &mut cold] {
                take_values(numbers, |value, count| {
                    durations.record_n(value, u32::try_from(count).ok()?).ok()
                })?;
            }
            let cold = (!cold.is_empty()).then_some(cold);
            rolling.latencies.extend(second.map(|second| Latencies { minute: second / 60, warm, cold }));
        }
        rolling.forget_before(now_s / 60);
        Some(rolling)
    }
}

/// A histogram's values and how often each was recorded.
pub(in super::super) fn put_histogram<C: Counter>(numbers: &mut Vec<u64>, histogram: Option<&Histogram<C>>) {
    let place = numbers.len();
    numbers.push(0);
    for value in histogram.iter().flat_map(|histogram| histogram.iter_recorded()) {
        numbers.extend([value.value_iterated_to(), value.count_at_value().as_u64()]);
        numbers[place] += 1;
    }
}

/// Gives what [`put_histogram`] wrote to `record`; none if it was something else.
pub(in super::super) fn take_values(
    numbers: &mut impl Iterator<Item = u64>,
    mut record: impl FnMut(u64, u64) -> Option<()>,
) -> Option<()> {
    // The end of the last value's class may lie a hundredth above it.
    let largest = LONGEST.as_micros() as u64 * 2;
    for _ in 0..count(numbers)? {
        let value = numbers.next().filter(|value| *value <= largest)?;
        record(value, numbers.next()?)?;
    }
    Some(())
}

fn count(numbers: &mut impl Iterator<Item = u64>) -> Option<u64> {
    numbers.next().filter(|count| *count <= MOST)
}

fn narrow(numbers: &mut impl Iterator<Item = u64>) -> Option<u32> {
    u32::try_from(numbers.next()?).ok()
}
