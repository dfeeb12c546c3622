//! A book's counters as bytes.
//!
//! A version byte, the number of totals and the totals, the latency threshold that the counts
//! were made with, and the two histories with their lengths; all numbers are 64 bits, little
//! endian. Totals stand in the order of `Outcome::ALL`: when that changes, so must the version.

/// First byte.
const VERSION: u8 = 1;

/// Most totals that are believed; there are 18 outcomes.
const MAX_TOTALS: u64 = 256;

/// Why a snapshot was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SnapshotError {
    /// Another release, or not one of ours.
    #[error("the snapshot is of another release, or damaged")]
    Shape,
    /// One of its histories.
    #[error(transparent)]
    History(fp_core::slo::SnapshotError),
}

/// What is kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) totals: Vec<u64>,
    pub(super) under_ns: u64,
    pub(super) availability: Vec<u8>,
    pub(super) latency: Vec<u8>,
}

impl Snapshot {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        let number = |bytes: &mut Vec<u8>, value: u64| bytes.extend_from_slice(&value.to_le_bytes());
        number(&mut bytes, self.totals.len() as u64);
        self.totals.iter().for_each(|total| number(&mut bytes, *total));
        number(&mut bytes, self.under_ns);
        for part in [&self.availability, &self.latency] {
            number(&mut bytes, part.len() as u64);
            bytes.extend_from_slice(part);
        }
        bytes
    }

    pub(super) fn from_bytes(mut bytes: &[u8]) -> Result<Self, SnapshotError> {
        Self::read(&mut bytes).filter(|_| bytes.is_empty()).ok_or(SnapshotError::Shape)
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let version = take(bytes, 1)?;
        if version != [VERSION] {
            return None;
        }
        let count = number(bytes).filter(|count| *count <= MAX_TOTALS)?;
        let totals = (0..count).map(|_| number(bytes)).collect::<Option<_>>()?;
        let under_ns = number(bytes)?;
        let mut part = || {
            let len = usize::try_from(number(bytes)?).ok()?;
            Some(take(bytes, len)?.to_vec())
        };
        Some(Self { totals, under_ns, availability: part()?, latency: part()? })
    }
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*first))
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (first, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_reads_back_and_a_cut_one_is_refused() {
        let snapshot = Snapshot {
            totals: (0..18).collect(),
            under_ns: u64::MAX,
            availability: vec![1, 2, 3],
            latency: Vec::new(),
        };
        let bytes = snapshot.to_bytes();
        assert_eq!(Snapshot::from_bytes(&bytes), Ok(snapshot));
        for len in 0..bytes.len() {
            assert_eq!(Snapshot::from_bytes(&bytes[..len]), Err(SnapshotError::Shape), "{len}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Snapshot::from_bytes(&longer), Err(SnapshotError::Shape));
    }
}
