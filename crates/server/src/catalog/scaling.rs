//! What decides about the workers of a function, for who asks, and how many are kept by schedule.

use std::time::Duration;

use fp_core::pool::{Entry, ScalingView};
use fp_core::settings::{CivilMinute, Scaling, ScheduledFloor};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

use super::{Catalog, Deployed};
pub use crate::pool::HealthView;

const MINUTE: Duration = Duration::from_secs(60);

/// Seconds between looks at the schedules: what is due is a little late, and a day is looked through for little.
const LOOK_EVERY: u64 = 5;

impl Deployed {
    /// What the policy of its workers reckons with, and its latest decisions, the oldest first, each with its
    /// Unix time in microseconds.
    pub fn scaling(&self) -> (ScalingView, Vec<(u64, Entry)>) {
        self.pool.scaling()
    }

    /// What its breaker and its look for workers that stand out have done.
    pub fn health(&self) -> HealthView {
        self.pool.health()
    }
}

impl Catalog {
    /// Tells each function's book how many workers there are; called each second.
    pub(crate) fn note_workers(&self, now: Duration) {
        for function in self.snapshot.load().all() {
            let workers = function.pool.worker_count();
            if workers > 0 {
                function.book.note_workers(now, workers);
            }
        }
    }

    /// Tells the pools of functions with a schedule how many workers they keep now; called each second.
    pub(crate) fn keep_schedules(&self, wall_us: u64) {
        if !(wall_us / 1_000_000).is_multiple_of(LOOK_EVERY) {
            return;
        }
        let mut now = None;
        for function in self.snapshot.load().all() {
            if !function.settings.scaling.schedule.is_empty() {
                let now = now.get_or_insert_with(|| local(wall_us, TimeZone::system()));
                function.pool.set_floor(floor_at(&function.settings.scaling, now));
            }
        }
    }
}

fn local(wall_us: u64, zone: TimeZone) -> Zoned {
    let time = i64::try_from(wall_us).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok());
    time.unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone)
}

/// Workers that are kept at a time: what the schedule says, and no fewer than `min`.
fn floor_at(scaling: &Scaling, now: &Zoned) -> u32 {
    let on = scaling.schedule.iter().filter(|time| is_on(time, now)).map(|time| time.min);
    on.fold(scaling.min, u32::max)
}

/// Whether it began no longer ago than it lasts. Minutes are counted back as they passed, so that an hour that a
/// clock leaves out or repeats makes none longer.
fn is_on(time: &ScheduledFloor, now: &Zoned) -> bool {
    let minutes = i64::try_from(time.lasts.as_secs().div_ceil(MINUTE.as_secs())).unwrap_or(0);
    (0..minutes).any(|ago| now.checked_sub(ago.minutes()).is_ok_and(|at| time.cron.matches(civil(&at))))
}

fn civil(at: &Zoned) -> CivilMinute {
    let small = i8::unsigned_abs;
    CivilMinute {
        minute: small(at.minute()),
        hour: small(at.hour()),
        day: small(at.day()),
        month: small(at.month()),
        weekday: small(at.weekday().to_sunday_zero_offset()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_holds_from_its_minute_on_for_its_time() {
        let office = ScheduledFloor {
            cron: "0 8 * * 1-5".parse().expect("valid"),
            lasts: Duration::from_secs(10 * 3600),
            min: 4,
        };
        let scaling = Scaling { min: 1, schedule: vec![office], ..Scaling::default() };
        let floor = |time: &str| floor_at(&scaling, &time.parse::<Zoned>().expect(time));
        // A Tuesday.
        for (time, kept) in [("07:59:59", 1), ("08:00:00", 4), ("17:59:59", 4), ("18:00:00", 1)] {
            assert_eq!(floor(&format!("2026-11-24T{time}+01:00[Europe/Berlin]")), kept, "{time}");
        }
        assert_eq!(floor("2026-11-22T12:00:00+01:00[Europe/Berlin]"), 1, "a Sunday");
    }
}
