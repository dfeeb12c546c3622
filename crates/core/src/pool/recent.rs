//! The latest durations of one kind, for estimates: exact quantiles of the last 128.
//!
//! Exact beats clever here: 128 values are enough for a median, follow a change of the function
//! within 128 calls, fit in 1 KiB and cost a short move per call. Memory is taken with the
//! first value, so that functions which are never called cost nothing.

use std::time::Duration;

/// How many values are kept; a median of 128 is within two percentiles of the true one.
const KEPT: usize = 128;

/// Durations in microseconds, saturating at 71 minutes (longer than any call may take).
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// In the order of arrival, wrapping at `next`.
    ring: Vec<u32>,
    /// The same values in ascending order.
    sorted: Vec<u32>,
    next: usize,
    sum: u64,
    count: u64,
}

impl Recent {
    pub(super) fn record(&mut self, value: Duration) {
        let value = u32::try_from(value.as_micros()).unwrap_or(u32::MAX);
        self.count += 1;
        self.sum += u64::from(value);
        if self.ring.len() < KEPT {
            self.ring.reserve_exact(KEPT - self.ring.len());
            self.sorted.reserve_exact(KEPT - self.sorted.len());
            self.ring.push(value);
        } else {
            let oldest = std::mem::replace(&mut self.ring[self.next], value);
            self.next = (self.next + 1) % KEPT;
            self.sum -= u64::from(oldest);
            let at = self.sorted.partition_point(|other| *other < oldest);
            self.sorted.remove(at);
        }
        let at = self.sorted.partition_point(|other| *other < value);
        self.sorted.insert(at, value);
    }

    /// How many values there ever were.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn median(&self) -> Option<Duration> {
        middle(&self.sorted)
    }

    pub(super) fn mean(&self) -> Option<Duration> {
        let mean = self.sum.checked_div(self.ring.len() as u64)?;
        Some(Duration::from_micros(mean))
    }

    /// The share of them that was over within this time.
    pub(super) fn share_within(&self, time: Duration) -> f64 {
        let micros = time.as_micros();
        let within = self.sorted.partition_point(|value| u128::from(*value) <= micros);
        within as f64 / self.sorted.len().max(1) as f64
    }

    /// How much longer something takes that has taken `elapsed`: the median of what was longer,
    /// or as long again when it has outlasted everything known (Lindy's rule).
    pub(super) fn remaining(&self, elapsed: Duration) -> Duration {
        let micros = elapsed.as_micros();
        let shorter = self.sorted.partition_point(|value| u128::from(*value) <= micros);
        match middle(&self.sorted[shorter..]) {
            Some(total) => total.saturating_sub(elapsed),
            None => elapsed,
        }
    }
}

fn middle(sorted: &[u32]) -> Option<Duration> {
    let at = sorted.len().checked_sub(1)? / 2;
    Some(Duration::from_micros(sorted[at].into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_within_a_time_counts_what_was_no_longer() {
        let mut recent = Recent::default();
        assert_eq!(recent.share_within(ms(5)), 0.0);
        for value in [10, 20, 30, 40] {
            recent.record(ms(value));
        }
        assert_eq!([5, 10, 39, 40].map(|value| recent.share_within(ms(value))), [0.0, 0.25, 0.75, 1.0]);
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn estimates_are_exact_and_forget_what_is_old() {
        let mut recent = Recent::default();
        assert_eq!((recent.median(), recent.mean(), recent.remaining(ms(3))), (None, None, ms(3)));
        for value in 1..=100 {
            recent.record(ms(value));
        }
        assert_eq!((recent.median(), recent.mean()), (Some(ms(50)), Some(Duration::from_micros(50_500))));
        assert_eq!(recent.remaining(ms(90)), ms(5), "half of 91..=100 takes 95 ms or less");
        assert_eq!(recent.remaining(ms(100)), ms(100));
        for _ in 0..KEPT {
            recent.record(ms(7));
        }
        assert_eq!((recent.median(), recent.mean()), (Some(ms(7)), Some(ms(7))));
        assert_eq!(recent.count(), 228);
    }
}
