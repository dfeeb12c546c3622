//! How a number is spread over calls that stand for several each.

/// Buckets of an octave: a percentile is at most 1/128 away from the exact one, less than the two
/// percent within which the platform's percentiles are promised.
const PARTS: u64 = 64;
const BITS: u32 = PARTS.ilog2();

/// Weighted counts by value: exact below 128, then in buckets of 1/64 of an octave each. Memory is
/// taken from the smallest to the largest value that occurs, 512 B an octave.
#[derive(Debug, Clone, Default)]
pub struct Spread {
    /// The bucket of the first count.
    first: usize,
    counts: Vec<u64>,
    count: u64,
    sum: f64,
    max: u64,
}

/// The bucket of a value: values below two octaves of [`PARTS`] are their own.
fn bucket_of(value: u64) -> usize {
    if value < 2 * PARTS {
        return value as usize;
    }
    let shift = value.ilog2() - BITS;
    (u64::from(shift) * PARTS + (value >> shift)) as usize
}

/// The middle of a bucket.
fn middle_of(bucket: usize) -> f64 {
    let bucket = bucket as u64;
    if bucket < 2 * PARTS {
        return bucket as f64;
    }
    let shift = bucket / PARTS - 1;
    let least = (bucket % PARTS + PARTS) << shift;
    least as f64 + (1u64 << shift) as f64 / 2.0
}

impl Spread {
    /// Adds a value that occurred so often.
    pub fn add(&mut self, value: u64, times: u64) {
        let bucket = bucket_of(value);
        *self.at(bucket) += times;
        self.count += times;
        self.sum += value as f64 * times as f64;
        self.max = self.max.max(value);
    }

    fn at(&mut self, bucket: usize) -> &mut u64 {
        if self.counts.is_empty() {
            self.first = bucket;
        }
        if bucket < self.first {
            let more = self.first - bucket;
            self.counts.splice(..0, std::iter::repeat_n(0, more));
            self.first = bucket;
        }
        let place = bucket - self.first;
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        &mut self.counts[place]
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        for (place, count) in other.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            *self.at(other.first + place) += count;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// Values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest; none without a value.
    pub fn max(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max)
    }

    /// The mean, exact but for rounding; none without a value.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// The smallest value that so many tenths of a percent of all do not exceed (nearest rank), to
    /// the middle of its bucket; none without a value.
    pub fn percentile(&self, per_mille: u16) -> Option<f64> {
        let rank = (u128::from(self.count) * u128::from(per_mille)).div_ceil(1_000).max(1) as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(middle_of(self.first + found).min(self.max as f64))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_values_are_exact_and_ranks_are_the_nearest() {
        let mut spread = Spread::default();
        (1..=100).for_each(|value| spread.add(value, 1));
        assert_eq!([500, 900, 990, 999].map(|p| spread.percentile(p)), [50.0, 90.0, 99.0, 100.0].map(Some));
        assert_eq!((spread.mean(), spread.max(), spread.count()), (Some(50.5), Some(100), 100));
        assert_eq!(Spread::default().percentile(500), None);
    }

    #[test]
    fn a_weight_counts_as_that_many() {
        let mut spread = Spread::default();
        spread.add(1_000_000, 98);
        spread.add(9_000_000, 2);
        assert!((spread.percentile(980).unwrap() / 1e6 - 1.0).abs() < 0.01);
        assert!((spread.percentile(990).unwrap() / 9e6 - 1.0).abs() < 0.01);
    }

    proptest! {
        #[test]
        fn percentiles_are_within_a_128th_and_merging_is_adding(
            values in prop::collection::vec((0u64..u64::MAX / 4, 1u64..5), 1..200),
            cut in 0usize..200,
            per_mille in 1u16..=1000,
        ) {
            let mut whole = Spread::default();
            let (mut left, mut right) = (Spread::default(), Spread::default());
            for (at, (value, times)) in values.iter().enumerate() {
                whole.add(*value, *times);
                if at < cut { left.add(*value, *times) } else { right.add(*value, *times) }
            }
            left.merge(&right);
            prop_assert_eq!(left.percentile(per_mille), whole.percentile(per_mille));
            prop_assert_eq!(left.count(), whole.count());
            let mut sorted: Vec<u64> =
                values.iter().flat_map(|(value, times)| std::iter::repeat_n(*value, *times as usize)).collect();
            sorted.sort_unstable();
            let rank = (sorted.len() * usize::from(per_mille)).div_ceil(1_000).max(1);
            let exact = sorted[rank - 1] as f64;
            let told = whole.percentile(per_mille).unwrap();
            prop_assert!((told - exact).abs() <= exact / 128.0 + 1e-9, "{told} {exact}");
        }
    }
}
