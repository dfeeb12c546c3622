//! When workers start, and what becomes of starts that fail.

use std::time::Duration;

use super::estimate::UNKNOWN_START;
use super::journal::{Act, Why};
use super::{Decision, Now, Outcome, Pool};

/// Pause after the first failed start; it doubles with each further failure. A tenth of a second
/// is noticed by nobody, half a minute lets a host recover.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// While calls wait, the pool asks itself again whether a start pays, once per start time within
/// these bounds: estimates can turn out wrong while nothing else happens.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

impl Pool {
    /// Starts the workers that `min`, the queue, the size and the habit justify; if nothing can come, refuses
    /// the queue.
    pub(super) fn start_where_it_pays(&mut self, now: Now, out: &mut Vec<Decision>) {
        if !self.queue.is_empty() {
            self.look_at_size(now);
        }
        let (mut count, mut noted) = (0, None);
        while self.may_start(now)
            && let Some((why, wait)) = self.start_pays(now)
        {
            if noted != Some(why) {
                self.note_start(now, why, wait);
                noted = Some(why);
            } else {
                self.journal.one_more_start();
            }
            self.starting.push_back(now);
            count += 1;
        }
        if count > 0 {
            out.push(Decision::Start { count });
        }
        if self.queue.is_empty() {
            return;
        }
        self.look_again = now.saturating_add(self.start_time().clamp(LOOK_AGAIN.0, LOOK_AGAIN.1));
        if self.total() == 0 {
            while let Some(hopeless) = self.queue.pop([false; 3]) {
                self.refuse(now, hopeless.arrival.call, self.why_nobody_comes(), out);
            }
        }
    }

    fn note_start(&mut self, now: Now, why: Why, wait: Option<Duration>) {
        let (queued, start) = (self.queue.len() as u32, self.start_time());
        self.note(now, Act::Start { why, count: 1, queued, wait, start });
    }

    /// What a call ends as for which there is no worker and, for now, never will be.
    pub(super) fn why_nobody_comes(&self) -> Outcome {
        self.denied.unwrap_or(Outcome::StartFailed)
    }

    /// A start that was asked for at `asked` failed: no other before a pause. Starts that were
    /// under way together fail for one reason, so they count once.
    pub(super) fn pause_starts(&mut self, now: Now, asked: Now) {
        self.denied = None;
        if self.start_failures > 0 && asked < self.no_start_before {
            return;
        }
        let pause = longer_each_time(self.start_failures);
        self.start_failures = self.start_failures.saturating_add(1);
        self.no_start_before = now.saturating_add(pause);
        self.note(now, Act::StartFailed { failures: self.start_failures, pause });
    }

    /// Whether another start is allowed at all. After a failure one start at a time is the probe.
    pub(super) fn may_start(&self, now: Now) -> bool {
        !self.closed
            && self.total() < self.config.max
            && now >= self.no_start_before
            && (self.start_failures == 0 || self.starting.is_empty())
    }

    /// Whether another start is wanted, and the wait that it is to spare: fewer are there than are to be kept;
    /// the last call in the queue would wait longer for the workers that there are than for a new one, or
    /// notably and there are fewer of them than the calls need; or a call is due. Each start under way
    /// answers for as many queued calls as it has slots.
    fn start_pays(&mut self, now: Now) -> Option<(Why, Option<Duration>)> {
        if self.total() < self.floor && now >= self.no_spare_start_before {
            return Some((Why::Floor, None));
        }
        if self.config.is_led {
            return None;
        }
        let queued = self.queue.len();
        if queued <= self.starting.len() * self.config.slots as usize {
            return self.is_due_by_habit(now).then_some((Why::Habit, None));
        }
        if self.run_times.count() == 0 {
            return Some((Why::Unknown, None));
        }
        let wait = self.estimate_wait(now, queued);
        let why = if wait > self.start_time() {
            Why::Wait
        } else if wait > UNKNOWN_START && self.size.wanted.is_some_and(|wanted| self.total() < wanted) {
            // A shorter wait is cheaper than the work of a start.
            Why::Size
        } else if self.starting.is_empty() && self.stands(now) {
            Why::Standing
        } else {
            return None;
        };
        Some((why, Some(wait)))
    }

    /// Whether a worker should be there for a call that is expected, and none is. Says so once.
    fn is_due_by_habit(&mut self, now: Now) -> bool {
        let is_due = self.next_by_habit().is_some_and(|at| at <= now);
        self.habit.has_warmed |= is_due;
        is_due
    }

    fn next_by_habit(&self) -> Option<Now> {
        let is_missing = self.config.learns && self.total() == 0 && self.queue.is_empty();
        if is_missing { self.habit.warm_at() } else { None }
    }

    /// When a start should be considered (again).
    pub(super) fn next_start(&self) -> Option<Now> {
        // As of the distant future only what no time can change stands against a start.
        if !self.may_start(Now::MAX) {
            return None;
        }
        let for_min = || self.no_start_before.max(self.no_spare_start_before);
        let for_min = (self.total() < self.floor).then(for_min);
        let for_calls = (!self.queue.is_empty()).then(|| self.look_again.max(self.no_start_before));
        let by_habit = self.next_by_habit().map(|at| at.max(self.no_start_before));
        for_min.into_iter().chain(for_calls).chain(by_habit).min()
    }
}

/// The pause after so many failures before this one.
pub(super) fn longer_each_time(before: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << before.min(16)).min(LONGEST_PAUSE)
}
