//! One ended call in memory.
//!
//! The record itself never changes; what is learnt afterwards (how long sending took, and
//! whether it failed) is kept beside it in atomics and worked in when somebody looks. The disk
//! row waits for it, up to a limit; which of the two came first is decided by one atomic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use fp_core::Outcome;
use fp_core::record::{Invocation, Kept};

use crate::store::telemetry::heap_of_kept;

/// `late_outcome` before one is known.
const NONE: u8 = u8::MAX;

/// How far a record is on its way to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// The answer may still be on its way.
    Sending,
    /// It is sent; the row may be written.
    Sent,
    /// The row was taken for writing before that.
    Taken,
}

/// An ended call.
#[derive(Debug)]
pub(crate) struct Record {
    kept: Kept,
    /// When it ended, Unix time in microseconds; never before it began.
    pub(crate) ended_us: u64,
    /// Weight of its row on disk; 0 when sampling left it out.
    pub(crate) disk_weight: u32,
    footprint: usize,
    send_ns: AtomicU64,
    late_outcome: AtomicU8,
    stage: AtomicU8,
}

impl Record {
    pub(crate) fn new(kept: Kept, disk_weight: u32) -> Self {
        let invocation = &kept.invocation;
        Self {
            ended_us: ended_us(invocation),
            disk_weight,
            footprint: size_of::<Self>() + BOOKKEEPING + heap_of_kept(&kept),
            send_ns: AtomicU64::new(invocation.phases.send),
            late_outcome: AtomicU8::new(NONE),
            stage: AtomicU8::new(Stage::Sending as u8),
            kept,
        }
    }

    /// Bytes that it takes in memory, its share of the indexes included.
    pub(crate) fn footprint(&self) -> usize {
        self.footprint
    }

    /// What was recorded when the call ended.
    pub(crate) fn at_end(&self) -> &Kept {
        &self.kept
    }

    /// The outcome as known now.
    pub(crate) fn outcome(&self) -> Outcome {
        let late = self.late_outcome.load(Ordering::Acquire);
        Outcome::ALL.get(usize::from(late)).copied().unwrap_or(self.kept.invocation.outcome)
    }

    /// The phase `send` as known now.
    pub(crate) fn send_ns(&self) -> u64 {
        self.send_ns.load(Ordering::Relaxed)
    }

    /// Duration of the call as known now, in microseconds.
    pub(crate) fn duration_us(&self) -> u64 {
        let phases = self.kept.invocation.phases;
        (phases.total() - phases.send + self.send_ns()) / 1_000
    }

    /// The wide event as known now.
    pub(crate) fn invocation(&self) -> Invocation {
        let mut invocation = self.kept.invocation.clone();
        self.bring_up_to_date(&mut invocation);
        invocation
    }

    /// Everything as known now.
    pub(crate) fn kept(&self) -> Arc<Kept> {
        let mut kept = self.kept.clone();
        self.bring_up_to_date(&mut kept.invocation);
        Arc::new(kept)
    }

    fn bring_up_to_date(&self, invocation: &mut Invocation) {
        invocation.phases.send = self.send_ns();
        invocation.outcome = self.outcome();
        if invocation.outcome != self.kept.invocation.outcome {
            invocation.blame = invocation.outcome.blame(invocation.caller_was_short);
        }
    }

    /// The last byte was sent. Returns whether the row was taken before and needs an amendment.
    pub(crate) fn set_sent(&self, send_ns: u64, outcome: Option<Outcome>) -> bool {
        self.send_ns.store(send_ns, Ordering::Relaxed);
        if let Some(outcome) = outcome {
            self.late_outcome.store(outcome.index() as u8, Ordering::Release);
        }
        self.stage.swap(Stage::Sent as u8, Ordering::AcqRel) == Stage::Taken as u8
    }

    /// Whether the answer is sent.
    pub(crate) fn is_sent(&self) -> bool {
        self.stage.load(Ordering::Acquire) == Stage::Sent as u8
    }

    /// The row is about to be written: what is learnt from now on is an amendment.
    pub(crate) fn take(&self) {
        let (sending, taken) = (Stage::Sending as u8, Stage::Taken as u8);
        // Failing means that it is sent already: then the row is complete.
        let _ = self.stage.compare_exchange(sending, taken, Ordering::AcqRel, Ordering::Acquire);
    }
}

fn ended_us(invocation: &Invocation) -> u64 {
    invocation.started_us.saturating_add(invocation.duration_us())
}

/// Bytes per record beside the record: its slot in the ring (24), its share of the two indexes
/// (24 and 24 bytes an entry at a load of one half, each with a control byte), and the counts of
/// its `Arc` (16).
const BOOKKEEPING: usize = 140;
