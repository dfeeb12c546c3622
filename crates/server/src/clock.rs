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
    /// The same moment on the kernel's monotonic clock, which workers read too.
    origin_monotonic: Duration,
    wall_origin_us: Arc<AtomicU64>,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        let origin_monotonic = monotonic();
        let clock = Self { origin: Instant::now(), origin_monotonic, wall_origin_us: Arc::default() };
        clock.resync();
        clock
    }

    /// Monotonic time since the clock started: what policies call `now`.
    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The moment of this clock at a time of the kernel's monotonic clock.
    pub fn of_monotonic(&self, at: Duration) -> Duration {
        at.saturating_sub(self.origin_monotonic)
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

/// What `Instant` and Python's `time.monotonic_ns` read, as a number.
fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workers_time_is_put_on_the_platforms_clock() {
        let clock = Clock::start();
        let before = clock.now();
        let meant = clock.of_monotonic(monotonic());
        let after = clock.now();
        // The two clocks were read one after the other when the clock was made.
        assert!(meant + Duration::from_millis(5) >= before && meant <= after + Duration::from_secs(1));
        assert_eq!(clock.of_monotonic(Duration::ZERO), Duration::ZERO);
    }
}
