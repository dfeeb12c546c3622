//! Durations of all calls, for the metrics: over restarts, like the totals beside them.
//!
//! A histogram of two significant digits (an error below 1 %) from which counts at any edges can
//! be read, so that each objective's threshold can be one: 16 KiB for a function whose calls
//! spread from a microsecond to a minute, nothing for one that is not called.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::rolling::{put_histogram, take_values};

/// Longer calls count as this long, as in the rolling durations.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Durations of all calls.
#[derive(Debug, Default)]
pub(super) struct Durations {
    counts: Option<Histogram<u64>>,
    sum: Duration,
}

/// Counts of durations between edges.
#[derive(Debug, Clone, PartialEq)]
pub struct DurationCounts {
    /// Each edge with the calls above the edge before it and up to this one.
    pub up_to: Vec<(Duration, u64)>,
    /// Calls above the last edge.
    pub above: u64,
    /// The durations of all of them, added up.
    pub sum: Duration,
}

impl Durations {
    pub(super) fn record(&mut self, duration: Duration) {
        let counts = self.counts.get_or_insert_with(|| Histogram::new(2).expect("two digits are allowed"));
        let microseconds = duration.min(LONGEST).as_micros().max(1) as u64;
        counts.record(microseconds).expect("a histogram grows to any value");
        self.sum += duration;
    }

    pub(super) fn to_numbers(&self) -> Vec<u64> {
        let mut numbers = vec![u64::try_from(self.sum.as_nanos()).unwrap_or(u64::MAX)];
        put_histogram(&mut numbers, self.counts.as_ref());
        numbers
    }

    /// What [`to_numbers`](Self::to_numbers) wrote; none if it was something else.
    pub(super) fn from_numbers(numbers: &mut impl Iterator<Item = u64>) -> Option<Self> {
        let sum = Duration::from_nanos(numbers.next()?);
        let mut counts = Histogram::new(2).expect("two digits are allowed");
        take_values(numbers, |value, count| counts.record_n(value, count).ok())?;
        Some(Self { counts: (!counts.is_empty()).then_some(counts), sum })
    }

    /// Counts between `edges`, which must ascend.
    pub(super) fn counts(&self, edges: &[Duration]) -> DurationCounts {
        let below = |edge: &Duration| {
            let counted = |counts: &Histogram<u64>| counts.count_between(0, edge.as_micros() as u64);
            self.counts.as_ref().map_or(0, counted)
        };
        let mut before = 0;
        let mut between = |edge: &Duration| {
            let count = below(edge).saturating_sub(before);
            before += count;
            (*edge, count)
        };
        let up_to: Vec<_> = edges.iter().map(&mut between).collect();
        let all = self.counts.as_ref().map_or(0, Histogram::len);
        DurationCounts { up_to, above: all.saturating_sub(before), sum: self.sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_lie_between_the_edges_and_lose_nobody() {
        let mut durations = Durations::default();
        let milliseconds = Duration::from_millis;
        for duration in [0, 1, 4, 5, 40, 60, 700] {
            durations.record(milliseconds(duration));
        }
        let counts = durations.counts(&[milliseconds(5), milliseconds(50), milliseconds(500)]);
        assert_eq!(counts.up_to.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [4, 1, 1]);
        assert_eq!((counts.above, counts.sum), (1, milliseconds(810)));
        assert_eq!(Durations::default().counts(&[milliseconds(5)]).above, 0);
    }
}
