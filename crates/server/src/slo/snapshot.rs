//! A book's counters as bytes.
//!
//! A version byte, the number of totals and the totals, the latency threshold that the counts
//! were made with, the two histories with their lengths, and how many numbers follow that tell of
//! the recent past and of all durations; all numbers are 64 bits, little endian, but these, which
//! are mostly small: seven bits a byte. Totals stand in the order of `Outcome::ALL`: when that
//! changes, so must the version; more at the end are none to what was written before.

/// First byte.
const VERSION: u8 = 2;

/// The version before, which ended with the histories.
const WITHOUT_RECENT: u8 = 1;

/// Most numbers that are believed: an hour of slots and some thousand values of histograms.
const MAX_RECENT: u64 = 200_000;

/// Most totals that are believed; there are 19 outcomes.
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
    /// The recent past and all durations; empty in what an earlier release wrote.
    pub(super) recent: Vec<u64>,
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
        number(&mut bytes, self.recent.len() as u64);
        self.recent.iter().for_each(|value| put_small(&mut bytes, *value));
        bytes
    }

    pub(super) fn from_bytes(mut bytes: &[u8]) -> Result<Self, SnapshotError> {
        Self::read(&mut bytes).filter(|_| bytes.is_empty()).ok_or(SnapshotError::Shape)
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let version = take(bytes, 1)?;
        let has_recent = version == [VERSION];
        if !has_recent && version != [WITHOUT_RECENT] {
            return None;
        }
        let count = number(bytes).filter(|count| *count <= MAX_TOTALS)?;
        let totals = (0..count).map(|_| number(bytes)).collect::<Option<_>>()?;
        let under_ns = number(bytes)?;
        let mut part = || {
            let len = usize::try_from(number(bytes)?).ok()?;
            Some(take(bytes, len)?.to_vec())
        };
        let (availability, latency) = (part()?, part()?);
        let count = if has_recent { number(bytes).filter(|count| *count <= MAX_RECENT)? } else { 0 };
        let recent = (0..count).map(|_| take_small(bytes)).collect::<Option<_>>()?;
        Some(Self { totals, under_ns, availability, latency, recent })
    }
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*first))
}

fn put_small(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_small(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
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
            recent: vec![0, 127, 128, u64::MAX],
        };
        let bytes = snapshot.to_bytes();
        assert_eq!(Snapshot::from_bytes(&bytes), Ok(snapshot));
        for len in 0..bytes.len() {
            assert_eq!(Snapshot::from_bytes(&bytes[..len]), Err(SnapshotError::Shape), "{len}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Snapshot::from_bytes(&longer), Err(SnapshotError::Shape));
        // As an earlier release wrote it.
        let before = Snapshot { recent: Vec::new(), ..Snapshot::from_bytes(&bytes).expect("as above") };
        let bytes = before.to_bytes();
        let bytes = [&[WITHOUT_RECENT], &bytes[1..bytes.len() - 8]].concat();
        assert_eq!(Snapshot::from_bytes(&bytes), Ok(before));
    }
}
