//! The only clock: monotonic time for decisions, wall time for records.
//!
//! Wall time is read once at start and carried forward by the monotonic clock, so that times in
//! one run never go backwards; [`Clock::resync`] follows the host's clock between calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A cheap, copyable handle on the process's clock.
#[derive(Debug, Clone)]
pub struct Clock {
    origin: Instant,
    wall_origin_us: Arc<AtomicU64>,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        let clock = Self { origin: Instant::now(), wall_origin_us: Arc::default() };
        clock.resync();
        clock
    }

    /// Monotonic time since the clock started: what policies call `now`.
    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The runtime's instant of a moment of this clock, for timers.
    pub fn instant(&self, at: Duration) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.origin + at)
    }

    /// Unix time of a moment of this clock, in microseconds.
    pub fn wall_us(&self, at: Duration) -> u64 {
        self.wall_origin_us.load(Ordering::Relaxed) + at.as_micros() as u64
    }

    /// Unix time now, in microseconds.
    pub fn wall_now_us(&self) -> u64 {
        self.wall_us(self.now())
    }

    /// Follows the host's wall clock; called once a second, outside of any call.
    pub fn resync(&self) {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let origin = wall.saturating_sub(self.now());
        self.wall_origin_us.store(origin.as_micros() as u64, Ordering::Relaxed);
    }
}
