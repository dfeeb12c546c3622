//! Exact counts by time, in three resolutions: 10 s slots for an hour, 1 min slots for three
//! days, 1 h slots for thirty days.
//!
//! Only slots in which something happened take memory, so a function without calls costs
//! nothing; one that is called all the time costs 150 KiB. Slots are numbered from the Unix
//! epoch: a restart or a clock that was set leaves a gap, not a shift.

use std::collections::VecDeque;
use std::time::Duration;

use super::Counts;
use crate::outcome::Sli;

/// Seconds per slot, and for how many slots each resolution reaches back. One more than the
/// window is kept because the oldest is partly outside of it.
const RESOLUTIONS: [(u64, u64); 3] = [(10, 361), (60, 3 * 24 * 60 + 1), (3600, 30 * 24 + 1)];

/// First byte of a snapshot.
const SNAPSHOT_VERSION: u8 = 1;

/// Slots further ahead of the clock than this come from a clock that was wrong.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3600);

/// What happened to a function's calls, for all of its objectives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    tiers: [Tier; 3],
}

/// One resolution: slot numbers ascending, empty slots left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tier {
    slots: VecDeque<(u64, [u32; 6])>,
}

/// A snapshot that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Written by another release.
    #[error("slo snapshot has version {found}, this release reads {SNAPSHOT_VERSION}; its counts are lost")]
    Version {
        /// The version found.
        found: u8,
    },
    /// Not a snapshot, or cut off.
    #[error("slo snapshot is damaged; its counts are lost")]
    Damaged,
}

impl History {
    /// No events.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one call that ended at `now`. `latency_met` is none where the call does not count
    /// for a latency objective.
    pub fn record(&mut self, now: Duration, sli: Sli, latency_met: Option<bool>) {
        self.add(now, Counts::of_call(sli, latency_met));
    }

    /// Counts many calls at once.
    pub fn add(&mut self, now: Duration, counts: Counts) {
        for (tier, (seconds, kept)) in self.tiers.iter_mut().zip(RESOLUTIONS) {
            tier.add(now.as_secs() / seconds, counts);
            tier.forget_before((now.as_secs() / seconds).saturating_sub(kept - 1));
        }
    }

    /// The counts of the last `window`, the running slot included. At the far end a slot counts
    /// if at least half of it lies inside; a window is read at the finest resolution that
    /// reaches back so far.
    pub fn sum(&self, now: Duration, window: Duration) -> Counts {
        let reaches = |(seconds, kept): &(u64, u64)| Duration::from_secs(seconds * (kept - 1)) >= window;
        let at = RESOLUTIONS.iter().position(reaches).unwrap_or(RESOLUTIONS.len() - 1);
        let slot = Duration::from_secs(RESOLUTIONS[at].0);
        let middle_of_first = now.saturating_sub(window).saturating_sub(slot / 2);
        let first = middle_of_first.as_millis().div_ceil(slot.as_millis()) as u64;
        self.tiers[at].sum(first, now.as_secs() / slot.as_secs())
    }

    /// Whether a bad event can lie within the last `window`: no for certain, yes give or take an hour.
    /// A look at few slots, so that functions that do well cost next to nothing to watch.
    pub fn may_have_bad(&self, now: Duration, window: Duration) -> bool {
        let first = now.saturating_sub(window).as_secs() / 3600;
        let recent = self.tiers[2].slots.iter().rev().take_while(|(slot, _)| *slot >= first);
        recent.into_iter().any(|(_, [_, bad, _, _, _, late])| *bad > 0 || *late > 0)
    }

    /// All counts as bytes: a few per slot.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![SNAPSHOT_VERSION];
        for tier in &self.tiers {
            write_number(&mut bytes, tier.slots.len() as u64);
            let mut last = 0;
            for (slot, fields) in &tier.slots {
                write_number(&mut bytes, slot - last);
                last = *slot;
                // Most fields of most slots are zero: a bit for each that is not.
                let present = (0..6).filter(|at| fields[*at] != 0).fold(0, |bits, at| bits | (1 << at));
                bytes.push(present);
                fields
                    .iter()
                    .filter(|field| **field != 0)
                    .for_each(|field| write_number(&mut bytes, (*field).into()));
            }
        }
        bytes
    }

    /// The counts of [`to_bytes`](Self::to_bytes), as far as they still matter at `now`.
    pub fn from_bytes(mut bytes: &[u8], now: Duration) -> Result<Self, SnapshotError> {
        let version = take_byte(&mut bytes)?;
        if version != SNAPSHOT_VERSION {
            return Err(SnapshotError::Version { found: version });
        }
        let mut history = Self::new();
        for (tier, (seconds, kept)) in history.tiers.iter_mut().zip(RESOLUTIONS) {
            let mut slot = 0u64;
            for _ in 0..take_number(&mut bytes)? {
                slot = slot.checked_add(take_number(&mut bytes)?).ok_or(SnapshotError::Damaged)?;
                let present = take_byte(&mut bytes)?;
                let mut fields = [0; 6];
                for (at, field) in fields.iter_mut().enumerate() {
                    if present & (1 << at) != 0 {
                        *field = take_number(&mut bytes)?.try_into().map_err(|_| SnapshotError::Damaged)?;
                    }
                }
                if slot <= (now + CLOCK_TOLERANCE).as_secs() / seconds {
                    tier.slots.push_back((slot, fields));
                }
            }
            if !tier.slots.iter().is_sorted_by(|(a, _), (b, _)| a < b) {
                return Err(SnapshotError::Damaged);
            }
            tier.forget_before((now.as_secs() / seconds).saturating_sub(kept - 1));
        }
        if bytes.is_empty() { Ok(history) } else { Err(SnapshotError::Damaged) }
    }
}

impl Tier {
    fn add(&mut self, slot: u64, counts: Counts) {
        // Almost always the last slot or a new one; earlier only after the clock was set back.
        let at = match self.slots.back() {
            Some((last, _)) if *last == slot => self.slots.len() - 1,
            Some((last, _)) if *last > slot => {
                let at = self.slots.partition_point(|(other, _)| *other < slot);
                if self.slots[at].0 != slot {
                    self.slots.insert(at, (slot, [0; 6]));
                }
                at
            }
            _ => {
                self.slots.push_back((slot, [0; 6]));
                self.slots.len() - 1
            }
        };
        for (field, more) in self.slots[at].1.iter_mut().zip(counts.fields()) {
            *field = field.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
        }
    }

    fn forget_before(&mut self, slot: u64) {
        while self.slots.front().is_some_and(|(first, _)| *first < slot) {
            self.slots.pop_front();
        }
    }

    fn sum(&self, first: u64, last: u64) -> Counts {
        let from = self.slots.partition_point(|(slot, _)| *slot < first);
        let inside = self.slots.range(from..).take_while(|(slot, _)| *slot <= last);
        inside.fold(Counts::default(), |mut sum, (_, [good, bad, excluded, cancelled, in_time, late])| {
            sum.good += u64::from(*good);
            sum.bad += u64::from(*bad);
            sum.excluded += u64::from(*excluded);
            sum.cancelled += u64::from(*cancelled);
            sum.latency_good += u64::from(*in_time);
            sum.latency_bad += u64::from(*late);
            sum
        })
    }
}

/// LEB128: seven bits per byte, the highest bit says that more follow.
fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_byte(bytes: &mut &[u8]) -> Result<u8, SnapshotError> {
    let (first, rest) = bytes.split_first().ok_or(SnapshotError::Damaged)?;
    *bytes = rest;
    Ok(*first)
}

fn take_number(bytes: &mut &[u8]) -> Result<u64, SnapshotError> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(bytes)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(SnapshotError::Damaged)
}
