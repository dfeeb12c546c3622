//! Percentiles of any number of times in bounded memory.
//!
//! Counts by microsecond up to 2.048 ms, then 1,024 buckets per doubling, so a percentile is at most
//! 0.1 % above the exact one. Each bucket also keeps its largest value: where a bucket holds only
//! one value (fixed times, cold starts of one length) its percentiles are exact. Memory is taken
//! per doubling that occurs: 12 KiB, of which all up to a day take half a MiB.

use std::time::Duration;

/// Buckets of a block; the first two blocks' are a microsecond wide.
const BLOCK: u64 = 1024;

/// Log-linear counts of times.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histogram {
    blocks: Vec<Option<Box<Block>>>,
    count: u64,
    sum: u128,
}

#[derive(Debug, Clone)]
struct Block {
    counts: [u32; BLOCK as usize],
    /// The largest value of each bucket.
    largest: [u64; BLOCK as usize],
}

impl Histogram {
    pub(crate) fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (block, bucket) = place(micros);
        if self.blocks.len() <= block {
            self.blocks.resize(block + 1, None);
        }
        let block = self.blocks[block].get_or_insert_with(Block::empty);
        block.counts[bucket] += 1;
        block.largest[bucket] = block.largest[bucket].max(micros);
        self.count += 1;
        self.sum += u128::from(micros);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        if self.blocks.len() < other.blocks.len() {
            self.blocks.resize(other.blocks.len(), None);
        }
        for (ours, theirs) in self.blocks.iter_mut().zip(&other.blocks) {
            let Some(theirs) = theirs else { continue };
            let ours = ours.get_or_insert_with(Block::empty);
            for bucket in 0..BLOCK as usize {
                ours.counts[bucket] += theirs.counts[bucket];
                ours.largest[bucket] = ours.largest[bucket].max(theirs.largest[bucket]);
            }
        }
        self.count += other.count;
        self.sum += other.sum;
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// In milliseconds; 0 of nothing.
    pub(crate) fn mean_ms(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 / 1000.0 }
    }

    /// By the nearest rank, in milliseconds; 0 of nothing.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        // A hundredth of a rank less, so that 0.999 × 1000 is rank 999 whatever the rounding.
        let rank = (self.count as f64 * share - 0.01).ceil().max(1.0) as u64;
        let mut seen = 0;
        for block in self.blocks.iter().flatten() {
            for (count, largest) in block.counts.iter().zip(&block.largest) {
                seen += u64::from(*count);
                if seen >= rank {
                    return *largest as f64 / 1000.0;
                }
            }
        }
        0.0
    }

    /// How many were at most this long, as exactly as the buckets are wide.
    pub(crate) fn count_within(&self, time: Duration) -> u64 {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let entries = self.blocks.iter().flatten().flat_map(|block| block.counts.iter().zip(&block.largest));
        entries.filter(|(_, largest)| **largest <= micros).map(|(count, _)| u64::from(*count)).sum()
    }
}

impl Block {
    fn empty() -> Box<Self> {
        Box::new(Self { counts: [0; BLOCK as usize], largest: [0; BLOCK as usize] })
    }
}

/// Block and bucket of a value: the block grows with each doubling above the first block.
fn place(micros: u64) -> (usize, usize) {
    let doublings = (u64::BITS - (micros / BLOCK).leading_zeros()) as usize;
    let width = doublings.saturating_sub(1);
    (doublings, ((micros >> width) % BLOCK) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(micros: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        micros.into_iter().for_each(|micros| histogram.record(Duration::from_micros(micros)));
        histogram
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let histogram = of((1..=1000).rev());
        let told = [0.5, 0.9, 0.99, 0.999, 1.0].map(|share| histogram.quantile_ms(share));
        assert_eq!(told, [0.5, 0.9, 0.99, 0.999, 1.0]);
        assert_eq!(of([]).quantile_ms(0.5), 0.0);
        assert_eq!((histogram.mean_ms(), histogram.count()), (0.5005, 1000));
    }

    #[test]
    fn a_million_values_are_told_to_a_thousandth_and_few_values_exactly() {
        let histogram = of(1..=1_000_000);
        for share in [0.001, 0.1, 0.5, 0.9, 0.99, 0.9999] {
            let (told, exact) = (histogram.quantile_ms(share), share * 1000.0);
            assert!((exact..=exact * 1.001).contains(&told), "{share}: {told} for {exact}");
        }
        assert_eq!(of([10_000; 98].into_iter().chain([1_000_003; 2])).quantile_ms(0.99), 1000.003);
        assert!(histogram.blocks.len() <= 12, "a block for each doubling");
    }

    #[test]
    fn values_stay_in_order_across_blocks() {
        let mut last = (0, 0);
        for micros in 0..100_000 {
            let next = place(micros);
            assert!(next >= last && (next.0 > last.0 || next.1 <= last.1 + 1), "{micros}");
            last = next;
        }
        assert!(place(u64::MAX).0 < 64);
    }

    #[test]
    fn two_are_one_when_added() {
        let mut both = of(1..=500);
        both.add(&of(501..=4000));
        assert_eq!((both.count(), both.quantile_ms(0.5)), (4000, 2.0));
        assert_eq!(both.count_within(Duration::from_micros(1000)), 1000);
        assert_eq!(both.count_within(Duration::from_secs(9)), 4000);
    }
}
