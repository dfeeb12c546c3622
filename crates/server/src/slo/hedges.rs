//! What a function's second attempts came to, since the platform started: for pages and metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fp_core::hedge::{NotHedged, Race};

/// Counters; made with the first call of a function that may hedge.
#[derive(Debug, Default)]
pub(crate) struct Hedges {
    calls: AtomicU64,
    started: AtomicU64,
    won: AtomicU64,
    saved_us: AtomicU64,
    not: [AtomicU64; NotHedged::WORDS.len()],
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HedgeCounts {
    /// Calls that ran.
    pub calls: u64,
    /// Second attempts.
    pub started: u64,
    /// Those that answered instead of the first.
    pub won: u64,
    /// What they saved, as far as is known from how long such calls took before.
    pub saved: Duration,
    /// Calls without a second attempt, by reason as in [`NotHedged::WORDS`].
    pub not: [u64; NotHedged::WORDS.len()],
}

impl Hedges {
    /// A call has ended.
    pub(crate) fn note(&self, race: &Race) {
        let add = |counter: &AtomicU64, count| counter.fetch_add(count, Ordering::Relaxed);
        add(&self.calls, 1);
        match race.why_not() {
            Some(why) => add(&self.not[why.index()], 1),
            None => add(&self.started, 1),
        };
        if let Some(worth) = race.worth() {
            add(&self.won, 1);
            add(&self.saved_us, worth.saved().as_micros() as u64);
        }
    }

    pub(super) fn counts(&self) -> HedgeCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HedgeCounts {
            calls: of(&self.calls),
            started: of(&self.started),
            won: of(&self.won),
            saved: Duration::from_micros(of(&self.saved_us)),
            not: std::array::from_fn(|at| of(&self.not[at])),
        }
    }
}
