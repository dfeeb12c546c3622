//! When to send: the open loop's schedule, as a pure policy.
//!
//! Request *i* is meant to be sent at `i / rate`, whatever happened to those before it. `now`
//! is an argument; the answer is what to do and when to ask again. Requests that no connection
//! was free for are sent late but keep their place in time; what could not be sent by the end
//! of the run is not sent at all and shows in `sent`.

use std::time::Duration;

/// How long after the end of the run what was due before it may still be sent: a sender that
/// was not scheduled for a moment loses nothing, one that cannot keep up stops.
const LATEST: Duration = Duration::from_millis(100);

/// The moments at which the requests of a run are meant to be sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Schedule {
    rate: f64,
    duration: Duration,
}

impl Schedule {
    /// `rate` requests a second for so long.
    pub(crate) fn new(rate: f64, duration: Duration) -> Self {
        Self { rate, duration }
    }

    /// How many requests a second.
    pub(crate) fn rate(&self) -> f64 {
        self.rate
    }

    /// How many requests in all: those whose moment lies before the end.
    pub(crate) fn asked(&self) -> u64 {
        // A hair is taken off so that 0.1 s at 30/s is 3 and not, by rounding, 4.
        ((self.rate * self.duration.as_secs_f64()) - 1e-9).ceil().max(1.0) as u64
    }

    /// When request `index` is meant to be sent, from the start of the run.
    pub(crate) fn intended(&self, index: u64) -> Duration {
        Duration::from_secs_f64(index as f64 / self.rate)
    }
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send the request that was meant for this moment, then ask again.
    Send {
        /// When it was meant to be sent.
        intended: Duration,
    },
    /// Nothing is due; ask again then.
    Wait {
        /// When.
        until: Duration,
    },
    /// Requests are due but every connection is in use; ask again when one is free, or then.
    Full {
        /// When it is too late for them.
        until: Duration,
    },
    /// Everything is sent, or time is up.
    Done,
}

/// One sender's part of a schedule: every `lanes`-th request, on so many connections.
#[derive(Debug, Clone)]
pub(crate) struct Pacer {
    schedule: Schedule,
    asked: u64,
    next: u64,
    stride: u64,
    connections: usize,
    in_use: usize,
}

impl Pacer {
    /// The part of lane `lane` of `lanes`.
    pub(crate) fn new(schedule: Schedule, lane: usize, lanes: usize, connections: usize) -> Self {
        let (next, stride) = (lane as u64, lanes as u64);
        Self { schedule, asked: schedule.asked(), next, stride, connections, in_use: 0 }
    }

    /// What to do at `now`, counted from the start of the run.
    pub(crate) fn decide(&mut self, now: Duration) -> Step {
        if self.next >= self.asked {
            return Step::Done;
        }
        let intended = self.schedule.intended(self.next);
        if now < intended {
            return Step::Wait { until: intended };
        }
        let until = self.schedule.duration + LATEST;
        if now >= until {
            return Step::Done;
        }
        if self.in_use >= self.connections {
            return Step::Full { until };
        }
        self.next += self.stride;
        self.in_use += 1;
        Step::Send { intended }
    }

    /// An exchange has ended; its connection is free.
    pub(crate) fn on_end(&mut self) {
        self.in_use -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{Ending, Recorder};
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A server with 1 ms of work, and nothing at all from 50 s to 60 s.
    fn frozen_until(t: Duration) -> Duration {
        let (from, to) = (Duration::from_secs(50), Duration::from_secs(60));
        if t >= from && t < to { to } else { t }
    }

    /// Runs the pacer against a server, given as when it has answered what came at a moment, in
    /// virtual time: the clock jumps from one event to the next.
    fn run(mut pacer: Pacer, mut answered_at: impl FnMut(Duration) -> Duration) -> Recorder {
        let mut recorder = Recorder::default();
        let mut now = Duration::ZERO;
        let mut running: std::collections::BinaryHeap<std::cmp::Reverse<Duration>> = Default::default();
        loop {
            while running.peek().is_some_and(|end| end.0 <= now) {
                running.pop();
                pacer.on_end();
            }
            match pacer.decide(now) {
                Step::Send { intended } => {
                    let end = answered_at(now);
                    recorder.on_sent(intended, now);
                    recorder.on_end(intended, end, Ending::Status(200));
                    running.push(std::cmp::Reverse(end));
                }
                Step::Wait { until } => now = until,
                Step::Full { until } => now = running.peek().map_or(until, |end| end.0.min(until)),
                Step::Done => return recorder,
            }
        }
    }

    fn percentiles_ms(recorder: &Recorder) -> [f64; 3] {
        let latency = recorder.latency();
        [0.95, 0.99, 0.999].map(|q| latency.value_at_quantile(q) as f64 / 1e6)
    }

    fn assert_near(measured: [f64; 3], expected: [f64; 3]) {
        for (measured, expected) in measured.iter().zip(expected) {
            assert!((measured - expected).abs() <= expected * 0.004 + 1.0, "{measured} is not {expected}");
        }
    }

    fn case_g1(connections: usize) -> Pacer {
        Pacer::new(Schedule::new(100.0, Duration::from_secs(100)), 0, 1, connections)
    }

    #[test]
    fn a_frozen_server_that_answers_the_backlog_at_once_shows_in_the_percentiles() {
        let recorder = run(case_g1(4096), |sent| frozen_until(sent) + MS);
        assert_eq!(recorder.sent(), 10_000);
        assert_near(percentiles_ms(&recorder), [5000.0, 9000.0, 9900.0]);
    }

    #[test]
    fn a_frozen_server_with_one_queue_shows_its_catching_up_too() {
        let mut free = Duration::ZERO;
        let recorder = run(case_g1(4096), |sent| {
            free = frozen_until(free.max(sent)) + MS;
            free
        });
        assert_near(percentiles_ms(&recorder), [5500.0, 9100.0, 9910.0]);
    }

    #[test]
    fn few_connections_do_not_hide_the_freeze() {
        let recorder = run(case_g1(2), |sent| frozen_until(sent) + MS);
        assert_eq!(recorder.sent(), 10_000);
        let [p95, p99, _] = percentiles_ms(&recorder);
        assert!(p95 > 5000.0 && p99 > 9000.0, "{p95} {p99}");
    }

    #[test]
    fn a_closed_loop_hides_it() {
        let mut recorder = Recorder::default();
        let mut now = Duration::ZERO;
        while now < Duration::from_secs(100) {
            let end = frozen_until(now) + MS;
            recorder.on_sent(now, now);
            recorder.on_end(now, end, Ending::Status(200));
            now = end.max(now + 10 * MS);
        }
        assert_near(percentiles_ms(&recorder), [1.0, 1.0, 1.0]);
    }

    #[test]
    fn what_cannot_be_sent_in_time_is_not_sent() {
        // One connection, 1.5 s a call, 10 s: sent at 0, 1.5, … 9 s.
        let schedule = Schedule::new(10.0, Duration::from_secs(10));
        let recorder = run(Pacer::new(schedule, 0, 1, 1), |sent| sent + 1500 * MS);
        assert_eq!((schedule.asked(), recorder.sent()), (100, 7));
    }

    #[test]
    fn lanes_share_the_schedule_without_gap_or_overlap() {
        let schedule = Schedule::new(7.0, Duration::from_secs(3));
        let mut sent = Vec::new();
        for lane in 0..3 {
            let mut pacer = Pacer::new(schedule, lane, 3, 100);
            while let Step::Send { intended } = pacer.decide(Duration::from_secs(3)) {
                sent.push(intended);
            }
        }
        sent.sort();
        let whole: Vec<_> = (0..schedule.asked()).map(|index| schedule.intended(index)).collect();
        assert_eq!(sent, whole);
        assert_eq!(schedule.asked(), 21);
        assert_eq!(Schedule::new(30.0, Duration::from_millis(100)).asked(), 3);
    }
}
