//! The bound on the queue's delay: a queue may absorb a burst, but not stand.
//!
//! CoDel's idea (RFC 8289): when even the least delay of a tenth of a second is above its target, the
//! queue does not absorb anything, it only makes everybody late. Then calls that would wait longer
//! are refused, those that stay are the newest of each caller, and new ones are let in only while
//! their wait is within the target: the queue is as long as the workers need it to stay busy. As
//! soon as it has drained, all is as before. Each class of calls is looked at by itself.
//!
//! None of this is for calls that wait for workers on their way, and none while more workers may be
//! started: then a queue that stands starts one.

use std::collections::BTreeSet;
use std::time::Duration;

use super::journal::Act;
use super::queue::Waiting;
use super::{Arrival, Decision, Now, Pool, TRUSTED_RUNS, micros, wait};
use crate::outcome::{Outcome, ShedReason};
use crate::settings::Criticality;

/// How long the delay must stand above its target: CoDel's, some round trips of the callers.
const INTERVAL: Duration = Duration::from_millis(100);

/// The least target: what a burst of a few calls needs, and a host that is busy with others.
const LEAST_TARGET: Duration = Duration::from_millis(20);

/// The target without an objective, in usual run times: a call that takes five times as long as
/// usual is what its callers would call slow.
const WITHOUT_OBJECTIVE: u32 = 4;

/// How long a call may have waited at most while the queue stands, in targets: with an objective two of them
/// are all of its slack. But no less than any queue may before it is said to stand.
const LONGEST: u32 = 2;

/// A queue that is above its target again so soon after it stood need not be so for the whole interval: the
/// overload goes on, and the queue was empty by chance. CoDel, too, takes up dropping where it was within
/// sixteen intervals.
const RESUMED: Duration = Duration::from_millis(1600);

const CLASSES: [Criticality; 3] = [Criticality::Critical, Criticality::Default, Criticality::Sheddable];

/// The delay of each class: what stands of a lower one is no reason to refuse calls of a higher one.
#[derive(Debug, Default)]
pub(super) struct Delay {
    classes: [ClassDelay; 3],
    /// Since when there can be no more workers: what was waited before that was for starts.
    limited_since: Option<Now>,
}

#[derive(Debug, Default, Clone, Copy)]
struct ClassDelay {
    /// Since when the longest wait in the queue has been above its target.
    above_since: Option<Now>,
    /// Since when the queue stands.
    standing_since: Option<Now>,
    /// When it stood last.
    ended: Option<Now>,
}

impl Delay {
    /// Whether nothing was above the target: what most calls find.
    pub(super) fn is_quiet(&self) -> bool {
        self.classes.iter().all(|class| class.above_since.is_none() && class.standing_since.is_none())
    }

    /// Whether calls are refused for their wait.
    pub(super) fn is_standing(&self) -> bool {
        self.classes.iter().any(|class| class.standing_since.is_some())
    }
}

impl Pool {
    /// How long calls may wait; none while too little is known of their run times.
    pub(super) fn delay_target(&self) -> Option<Duration> {
        // Who says how many workers there are may give some for those that wait.
        if self.run_times.count() < TRUSTED_RUNS || self.config.is_led {
            return None;
        }
        let run = self.run_times.median()? + self.replacement_time();
        let target = match self.config.objective {
            Some(objective) => objective.under.saturating_sub(run) / 2,
            None => run * WITHOUT_OBJECTIVE,
        };
        Some(target.max(LEAST_TARGET))
    }

    /// Whether a call at this place of a standing queue, with this wait before it, would wait too long. One
    /// call may always wait, so that a worker that comes free finds it.
    pub(super) fn would_wait_too_long(&self, arrival: &Arrival, place: usize, wait: Duration) -> bool {
        let class = self.delay.classes[arrival.criticality as usize];
        if place <= 1 || class.standing_since.is_none() {
            return false;
        }
        let Some(target) = self.delay_target() else { return false };
        // Callers take turns: who asks for little waits for those who ask for much, and is not refused for it.
        let is_modest = self.queue.is_modest(arrival);
        wait > if is_modest { longest(target) } else { bound(arrival.criticality, target) }
    }

    /// In which classes the newest call of a caller goes first: those before it are late already. Of critical
    /// calls none is to be lost, so those that wait longest are not left to it.
    pub(super) fn newest_goes_first(&self, now: Now) -> [bool; 3] {
        CLASSES.map(|class| {
            let is_above = || self.over_at(class).is_some_and(|over| over <= now);
            let stands = self.delay.classes[class as usize].standing_since.is_some();
            class != Criticality::Critical && stands && is_above()
        })
    }

    /// Whether a queue has stood above its target.
    pub(super) fn stands(&self, now: Now) -> bool {
        self.delay.classes.iter().any(|class| class.has_stood(now, Now::ZERO))
    }

    /// When the oldest call of the class has waited longer than it should, or had.
    fn over_at(&self, class: Criticality) -> Option<Now> {
        Some(self.queue.oldest(class)?.saturating_add(self.delay_target()?))
    }

    /// To be asked whenever calls have left the queue or waited in it.
    pub(super) fn look_at_delay(&mut self, now: Now, out: &mut Vec<Decision>) {
        self.delay.limited_since = self.is_at_its_limits().then(|| self.delay.limited_since.unwrap_or(now));
        for class in CLASSES {
            self.look_at_class(now, class, out);
        }
    }

    fn look_at_class(&mut self, now: Now, class: Criticality, out: &mut Vec<Decision>) {
        let Some((over, target)) = self.over_at(class).zip(self.delay_target()) else {
            return self.end_standing(now, class, true);
        };
        let delay = &mut self.delay.classes[class as usize];
        if over > now {
            delay.above_since = None;
        } else if delay.above_since.is_none_or(|since| over < since) {
            delay.above_since = Some(over);
        }
        let stands = delay.standing_since.is_some();
        let Some(limited_since) = self.delay.limited_since else {
            return self.end_standing(now, class, false);
        };
        let begins = self.delay.classes[class as usize].has_stood(now, limited_since);
        if !stands && !begins {
            return;
        }
        if !stands {
            self.begin_standing(now, class, target, out);
        }
        self.refuse_late(now, class, target, out);
    }

    /// When [`look_at_delay`](Self::look_at_delay) is due because of time alone.
    pub(super) fn next_delay_look(&self) -> Option<Now> {
        let is_starting = !self.is_at_its_limits() && !self.starting.is_empty();
        if self.queue.is_empty() || self.closed || is_starting {
            return None;
        }
        let target = self.delay_target()?;
        let limited_since = self.delay.limited_since.unwrap_or_default();
        let of_class = |class: Criticality| {
            let oldest = self.queue.oldest(class)?;
            let delay = self.delay.classes[class as usize];
            let ClassDelay { above_since, standing_since, .. } = delay;
            Some(match standing_since {
                Some(_) => oldest.saturating_add(longest(target)),
                None => {
                    let above_since = above_since.unwrap_or(oldest.saturating_add(target));
                    let above_since = above_since.max(limited_since);
                    above_since.saturating_add(delay.interval(above_since))
                }
            })
        };
        CLASSES.into_iter().filter_map(of_class).min()
    }

    /// Whether there can be no more workers for now, and most of those that there are do work: calls
    /// wait for others, not for starts.
    fn is_at_its_limits(&self) -> bool {
        let no_more = self.total() >= self.config.max || self.denials > 0 || self.start_failures > 0;
        !self.closed && no_more && self.workers.len() > self.starting.len()
    }

    /// Keeps, of each caller in its turn, the newest calls that can still run within the target.
    fn begin_standing(&mut self, now: Now, class: Criticality, target: Duration, out: &mut Vec<Decision>) {
        self.delay.classes[class as usize].standing_since = Some(now);
        let waited = self.queue.oldest(class).map_or(Duration::ZERO, |oldest| now.saturating_sub(oldest));
        let queued = self.queue.len_from(class);
        let above = self.queue.len() - queued;
        let places = |pool: &mut Self, time| pool.places_within(now, time).saturating_sub(above).max(1);
        let (soon, later) = (places(self, bound(class, target)), places(self, longest(target)));
        let newest = [true; 3];
        let (mut kept, mut rest, mut callers) = (Vec::new(), Vec::new(), BTreeSet::new());
        while let Some(waiting) = self.queue.pop_from(class, newest) {
            let is_first = callers.insert(waiting.arrival.caller);
            let may_stay = kept.len() < if is_first { later } else { soon };
            if may_stay { kept.push(waiting) } else { rest.push(waiting) }
        }
        kept.into_iter().for_each(|waiting| self.queue.put_back(waiting));
        let retry_after = self.retry_after(now);
        let refuse = |waiting: &Waiting| Decision::Refuse {
            call: waiting.arrival.call,
            outcome: TOO_LONG,
            retry_after,
        };
        out.extend(rest.iter().map(refuse));
        let (queued, refused) = (queued as u32, rest.len() as u32);
        self.note(now, Act::Standing { class, waited, target, queued, refused });
    }

    fn refuse_late(&mut self, now: Now, class: Criticality, target: Duration, out: &mut Vec<Decision>) {
        // Since the beginning nobody has waited that long.
        let Some(longest_ago) = now.checked_sub(longest(target)) else { return };
        while let Some(late) = self.queue.pop_older(class, longest_ago) {
            self.refuse(now, late, TOO_LONG, out);
        }
        if self.queue.oldest(class).is_none() {
            self.end_standing(now, class, true);
        }
    }

    fn end_standing(&mut self, now: Now, class: Criticality, drained: bool) {
        let delay = &mut self.delay.classes[class as usize];
        if drained {
            delay.above_since = None;
        }
        if let Some(since) = delay.standing_since.take() {
            delay.ended = Some(now);
            self.note(now, Act::Drained { class, stood: now.saturating_sub(since) });
        }
    }

    /// How many calls come to run within this time.
    fn places_within(&mut self, now: Now, time: Duration) -> usize {
        let mut releases = std::mem::take(&mut self.scratch);
        let run = self.fill_releases(now, &mut releases);
        let places = wait::releases_by(&releases, micros(run), micros(time));
        self.scratch = releases;
        usize::try_from(places).unwrap_or(usize::MAX)
    }
}

/// How long calls of a class may wait while it stands: critical ones are refused only when they would wait too
/// long in any case.
fn bound(class: Criticality, target: Duration) -> Duration {
    if class == Criticality::Critical { longest(target) } else { target }
}

fn longest(target: Duration) -> Duration {
    (target * LONGEST).max(target + INTERVAL)
}

impl ClassDelay {
    fn has_stood(&self, now: Now, limited_since: Now) -> bool {
        let since = self.above_since.map(|since| since.max(limited_since));
        since.is_some_and(|since| since.saturating_add(self.interval(since)) <= now)
    }

    /// How long the delay that is above its target since then must be so.
    fn interval(&self, since: Now) -> Duration {
        let goes_on = self.ended.is_some_and(|ended| since < ended.saturating_add(RESUMED));
        if goes_on { Duration::ZERO } else { INTERVAL }
    }
}

pub(super) const TOO_LONG: Outcome = Outcome::Shed(ShedReason::QueueDelay);
