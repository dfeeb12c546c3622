//! How many workers Knative would have: a model of its autoscaler, to compare the platform's with.
//!
//! What decides is as in Knative Serving's `autoscaler.go` with the defaults of its `config-autoscaler`:
//! the average of calls in flight (waiting and running) over a window, divided by what one worker is to
//! have, which is 70 % of what it could; every two seconds, or at once when a call finds nobody. When the
//! average over a tenth of the window asks for twice of what is ready, that shorter window decides and
//! nothing is taken away until it has been quiet for a whole window. The last worker goes when nothing was
//! asked for during a window and a grace. Nothing else of Knative is played: starts, the queue, its order
//! and its refusals are the platform's.

use std::collections::VecDeque;
use std::time::Duration;

use fp_core::pool::Now;

/// `tick-interval`.
const TICK: Duration = Duration::from_secs(2);
/// `stable-window`, in seconds.
const STABLE: usize = 60;
/// `panic-window-percentage` of it: 10 %, in seconds.
const PANIC: usize = 6;
/// `panic-threshold-percentage`.
const PANIC_THRESHOLD: f64 = 2.0;
/// `container-concurrency-target-percentage`.
const UTILISATION: f64 = 0.7;
/// `max-scale-up-rate` and `max-scale-down-rate`: in one decision.
const MAX_UP: f64 = 1000.0;
const MAX_DOWN: f64 = 2.0;
/// `scale-to-zero-grace-period`.
const GRACE: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

/// The scaler of one function.
#[derive(Debug)]
pub(super) struct Knative {
    /// Calls in flight that one worker is to have.
    target: f64,
    /// Mean calls in flight of the latest full seconds, the oldest first.
    seconds: VecDeque<f64>,
    /// When the present second began, and call-seconds in it so far.
    second: Now,
    so_far: f64,
    next_tick: Now,
    panics_since: Option<Now>,
    most_in_panic: u32,
    /// Since when no worker is wanted.
    unwanted_since: Option<Now>,
}

impl Knative {
    /// Of workers that take so many calls at once.
    pub(super) fn new(slots: u32) -> Self {
        Self {
            target: f64::from(slots) * UTILISATION,
            seconds: VecDeque::with_capacity(STABLE),
            second: Now::ZERO,
            so_far: 0.0,
            next_tick: TICK,
            panics_since: None,
            most_in_panic: 0,
            unwanted_since: None,
        }
    }

    /// So many calls were in flight for that time.
    pub(super) fn pass(&mut self, from: Now, until: Now, in_flight: u32) {
        let mut from = from;
        while from < until {
            let end = self.second + SECOND;
            let to = until.min(end);
            self.so_far += f64::from(in_flight) * to.saturating_sub(from).as_secs_f64();
            from = to;
            if to == end {
                if self.seconds.len() == STABLE {
                    self.seconds.pop_front();
                }
                self.seconds.push_back(std::mem::take(&mut self.so_far));
                self.second = end;
            }
        }
    }

    /// When it decides next.
    pub(super) fn next_wake(&self) -> Now {
        self.next_tick
    }

    /// How many workers there are to be, where so many are ready.
    pub(super) fn decide(&mut self, now: Now, ready: u32) -> u32 {
        while self.next_tick <= now {
            self.next_tick += TICK;
        }
        let ready_at_least_one = f64::from(ready.max(1));
        let most = (MAX_UP * ready_at_least_one).ceil();
        let least = (ready_at_least_one / MAX_DOWN).floor();
        let for_average = |seconds: usize| (self.average(seconds) / self.target).ceil();
        let (stable, panic) = (for_average(STABLE), for_average(PANIC));
        let within = |wanted: f64| wanted.max(least).min(most) as u32;
        if panic / ready_at_least_one >= PANIC_THRESHOLD {
            self.panics_since = Some(now);
        } else if self.panics_since.is_some_and(|since| since + SECOND * (STABLE as u32) < now) {
            self.panics_since = None;
            self.most_in_panic = 0;
        }
        let mut wanted = within(stable);
        if self.panics_since.is_some() {
            self.most_in_panic = self.most_in_panic.max(wanted).max(within(panic));
            wanted = self.most_in_panic;
        }
        self.keep_the_last(now, ready, wanted)
    }

    /// A call came and nobody was there, or on the way.
    pub(super) fn poke(&mut self, now: Now) -> u32 {
        self.decide(now, 0).max(1)
    }

    /// The last one stays for the grace.
    fn keep_the_last(&mut self, now: Now, ready: u32, wanted: u32) -> u32 {
        if wanted > 0 {
            self.unwanted_since = None;
            return wanted;
        }
        let since = *self.unwanted_since.get_or_insert(now);
        u32::from(now < since + GRACE && ready > 0)
    }

    /// Calls in flight over so many seconds, or those that there were. A second that has just begun says too
    /// little to count, unless there is no other.
    fn average(&self, seconds: usize) -> f64 {
        let counted = self.seconds.len().min(seconds);
        if counted == 0 {
            return self.so_far;
        }
        self.seconds.iter().rev().take(counted).sum::<f64>() / counted as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Now {
        Duration::from_secs(seconds)
    }

    /// Asks every two seconds with so many calls in flight; what it wanted each time.
    fn play(scaler: &mut Knative, from: u64, until: u64, in_flight: u32, mut ready: u32) -> Vec<u32> {
        let ticks = (from / 2 + 1)..=(until / 2);
        ticks
            .map(|tick| {
                scaler.pass(at(tick * 2 - 2), at(tick * 2), in_flight);
                ready = scaler.decide(at(tick * 2), ready);
                ready
            })
            .collect()
    }

    #[test]
    fn a_steady_load_has_what_it_needs_at_seven_tenths() {
        let mut scaler = Knative::new(1);
        let wanted = play(&mut scaler, 0, 120, 7, 10);
        assert!(wanted.iter().all(|wanted| *wanted == 10), "{wanted:?}");
        let mut shared = Knative::new(100);
        assert_eq!(play(&mut shared, 0, 120, 140, 2).last(), Some(&2));
    }

    #[test]
    fn twice_of_what_is_ready_is_a_panic_that_takes_nothing_away_for_a_window() {
        let mut scaler = Knative::new(1);
        play(&mut scaler, 0, 60, 7, 10);
        // Six seconds of twenty calls in flight want 29 workers; the minute would want twelve.
        let wanted = play(&mut scaler, 60, 66, 20, 10);
        assert_eq!(wanted, [11, 23, 29]);
        let after = play(&mut scaler, 66, 124, 0, 29);
        assert!(after.iter().all(|wanted| *wanted == 29), "{after:?}");
        let later = play(&mut scaler, 124, 130, 0, 29);
        assert_eq!(later, [29 / 2, 7, 3], "then half at most in one decision");
    }

    #[test]
    fn the_last_worker_goes_a_window_and_a_grace_after_the_last_call() {
        let mut scaler = Knative::new(1);
        play(&mut scaler, 0, 10, 1, 2);
        let wanted = play(&mut scaler, 10, 110, 0, 2);
        let last = wanted.iter().rposition(|wanted| *wanted > 0).expect("kept for a while");
        assert_eq!(12 + last as u64 * 2, 10 + 60 + 28, "{wanted:?}");
        assert_eq!(scaler.poke(at(200)), 1);
    }
}
