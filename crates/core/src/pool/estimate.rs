//! What the pool expects: how long calls run, starts take and places in the queue wait.

use std::time::Duration;

use super::delay::TOO_LONG;
use super::starts::LONGEST_PAUSE;
use super::{Arrival, EXPIRED, INFEASIBLE, Now, Outcome, Pool, TRUSTED_RUNS, micros, wait};

/// The part of an estimated wait behind others that is added to it before a call is let in: an estimate from the
/// median of 128 runs is off by some percent, and more on a host that others use, too.
const WAIT_SLACK: u32 = 8;

/// The start time to reckon with before any was measured: the platform's own target for a cold
/// start with a warm zygote.
pub(super) const UNKNOWN_START: Duration = Duration::from_millis(5);

impl Pool {
    /// Why a call that must wait may not, if it may not: it can no longer make its deadline, or the queue
    /// stands and its wait would be too long. A call is not judged while nothing runs: with nothing running
    /// nothing is learnt, and a function that once was slow would be refused for ever.
    pub(super) fn verdict_at_the_door(&mut self, now: Now, arrival: &Arrival) -> Option<Outcome> {
        if self.run_times.count() < TRUSTED_RUNS || self.workers.running() == 0 {
            return None;
        }
        let place = self.queue.ahead_of(arrival) + 1;
        let mut wait = self.estimate_wait(now, place);
        self.door.wait = Some(wait);
        if self.would_wait_too_long(arrival, place, wait) {
            return Some(TOO_LONG);
        }
        if self.may_start(now) {
            wait = wait.min(self.start_time());
        }
        // Behind others an estimate that falls short would be paid by callers who wait for nothing.
        let slack = if place > 1 { wait / WAIT_SLACK } else { Duration::ZERO };
        let ready = now.saturating_add(wait).saturating_add(slack);
        (!self.is_worth_a_run(arrival.deadline.saturating_sub(ready))).then_some(INFEASIBLE)
    }

    /// Whether a run with this much time is more likely to pay than to cost: a call that does not
    /// end in time has taken that time from others, and the worker with it, since its interrupted
    /// handler cannot be used again. Both count in the calls that could have run instead.
    fn is_worth_a_run(&self, left: Duration) -> bool {
        let in_time = self.run_times.share_within(left);
        let usual = self.run_times.mean().unwrap_or_default().max(Duration::from_micros(1));
        let lost = left.saturating_add(self.start_time());
        in_time >= (1.0 - in_time) * lost.as_secs_f64() / usual.as_secs_f64()
    }

    /// Why a call that waited must not start after all: it is late, or most likely will be, and
    /// interrupting it would cost its worker. An overloaded worker would else spend itself on
    /// calls that nobody waits for. (Calls that find a free slot run in any case, so run times
    /// are always learnt.)
    pub(super) fn verdict_at_dispatch(&self, now: Now, next: &Arrival) -> Option<Outcome> {
        if next.deadline <= now {
            return Some(EXPIRED);
        }
        let is_known = self.run_times.count() >= TRUSTED_RUNS;
        (is_known && !self.is_worth_a_run(next.deadline.saturating_sub(now))).then_some(INFEASIBLE)
    }

    pub(super) fn estimate_wait(&mut self, now: Now, place: usize) -> Duration {
        let mut scratch = std::mem::take(&mut self.scratch);
        let wait = self.wait_at(now, place, &mut scratch);
        self.scratch = scratch;
        wait
    }

    /// How long the call at this place of the queue (1 is the first) waits for a slot of the
    /// workers that there are.
    pub(super) fn wait_at(&self, now: Now, place: usize, releases: &mut Vec<u64>) -> Duration {
        let run = self.fill_releases(now, releases);
        match wait::nth_release(releases, micros(run), place as u64) {
            u64::MAX => Duration::MAX,
            wait => Duration::from_micros(wait),
        }
    }

    /// When each slot comes free first, and how long after that again.
    pub(super) fn fill_releases(&self, now: Now, releases: &mut Vec<u64>) -> Duration {
        releases.clear();
        let replacement = self.replacement_time();
        for worker in self.workers.busy() {
            let left = self.run_times.remaining(now.saturating_sub(worker.since)) + replacement;
            // A spoilt worker's place is taken by a new one with all its slots.
            let (left, slots) = match worker.spoilt {
                true => (left + self.start_time(), self.config.slots),
                false => (left, worker.running),
            };
            releases.extend(std::iter::repeat_n(micros(left), slots as usize));
        }
        for asked in &self.starting {
            let left = self.start_left(now.saturating_sub(*asked));
            releases.extend(std::iter::repeat_n(micros(left), self.config.slots as usize));
        }
        self.run_times.mean().unwrap_or_default() + replacement
    }

    /// What a slot takes to come free besides a run: with one call per worker the start of another one.
    pub(super) fn replacement_time(&self) -> Duration {
        if self.one_call() { self.start_time() } else { Duration::ZERO }
    }

    /// When trying again makes sense: when what is queued has run, by the rate at which slots come free.
    pub(super) fn retry_after(&mut self, now: Now) -> Duration {
        self.estimate_wait(now, self.queue.len() + 1).min(LONGEST_PAUSE)
    }

    pub(super) fn start_time(&self) -> Duration {
        self.start_times.median().unwrap_or(UNKNOWN_START)
    }

    fn start_left(&self, elapsed: Duration) -> Duration {
        match self.start_times.count() {
            0 if elapsed < UNKNOWN_START => UNKNOWN_START - elapsed,
            _ => self.start_times.remaining(elapsed),
        }
    }
}
