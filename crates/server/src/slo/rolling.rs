//! What happened lately: calls per second for a minute, by outcome per minute for an hour, and
//! the durations of the last five minutes.
//!
//! Only seconds and minutes in which something happened take memory, and durations are kept in
//! histograms of two significant digits (an error below 1 %) that grow to the largest value seen:
//! 2 KiB for a function that answers within a millisecond, 10 KiB within a minute.

use std::collections::VecDeque;
use std::time::Duration;

use fp_core::Outcome;
use fp_core::outcome::{DeadlineReason, Sli};
use hdrhistogram::Histogram;

mod kept;

pub(super) use kept::{put_histogram, take_values};

/// Seconds that a rate is taken over.
const RATE_SECONDS: u64 = 60;

/// Minutes of counts.
pub(super) const MINUTES: u64 = 60;

/// Closed minutes of durations besides the present one.
const LATENCY_MINUTES: u64 = 5;

/// Longer calls count as this long: a day bounds a histogram to 15 KiB.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Significant digits of durations.
const DIGITS: u8 = 2;

/// A call in the books.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) outcome: Outcome,
    pub(super) sli: Sli,
    pub(super) duration: Duration,
    pub(super) cold: bool,
}

/// Counts of one minute.
#[derive(Debug, Clone)]
pub(super) struct Minute {
    pub(super) number: u64,
    pub(super) by_outcome: [u32; Outcome::ALL.len()],
    pub(super) good: u32,
    pub(super) bad: u32,
    pub(super) cold: u32,
    /// Known when the minute is over.
    pub(super) p99_us: Option<u64>,
}

impl Minute {
    fn new(number: u64) -> Self {
        Self { number, by_outcome: [0; Outcome::ALL.len()], good: 0, bad: 0, cold: 0, p99_us: None }
    }

    pub(super) fn calls(&self) -> u64 {
        self.by_outcome.iter().map(|count| u64::from(*count)).sum()
    }
}

/// Durations of one minute, in microseconds.
#[derive(Debug, Clone)]
struct Latencies {
    minute: u64,
    warm: Histogram<u32>,
    cold: Option<Histogram<u32>>,
}

pub(super) fn histogram() -> Histogram<u32> {
    Histogram::new(DIGITS).expect("two digits are between zero and five")
}

/// The recent past of one function.
#[derive(Debug, Default)]
pub(super) struct Rolling {
    seconds: VecDeque<(u64, u32)>,
    minutes: VecDeque<Minute>,
    latencies: VecDeque<Latencies>,
}

/// Whether a call's duration says how long the function takes to answer. Refusals do not, and
/// neither do calls whose caller left; what timed out does, as a lower bound.
pub(crate) fn tells_latency(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Ok
        | Outcome::FunctionError
        | Outcome::Timeout
        | Outcome::DeadlineExceeded(DeadlineReason::ExpiredInQueue | DeadlineReason::ExpiredRunning)
        | Outcome::OutOfMemory
        | Outcome::Crashed
        | Outcome::ResponseTooLarge => true,
        Outcome::DeadlineExceeded(DeadlineReason::Infeasible)
        | Outcome::Shed(_)
        | Outcome::QuotaExceeded
        | Outcome::Cancelled
        | Outcome::StartFailed
        | Outcome::RequestTooLarge
        | Outcome::PlatformError => false,
    }
}

impl Rolling {
    pub(super) fn record(&mut self, now: Duration, call: Call) {
        let second = now.as_secs();
        self.count_second(second);
        let minute = self.minute(second / 60);
        let count = &mut minute.by_outcome[call.outcome.index()];
        *count = count.saturating_add(1);
        minute.good += u32::from(call.sli == Sli::Good);
        minute.bad += u32::from(call.sli == Sli::Bad);
        minute.cold += u32::from(call.cold);
        if tells_latency(call.outcome) {
            self.record_latency(second / 60, call);
        }
    }

    fn count_second(&mut self, second: u64) {
        match self.seconds.back_mut() {
            // A call that read the clock a moment before another one counts in the later second.
            Some((last, count)) if *last >= second => *count += 1,
            _ => self.seconds.push_back((second, 1)),
        }
        while self.seconds.front().is_some_and(|(first, _)| first + RATE_SECONDS <= second) {
            self.seconds.pop_front();
        }
    }

    fn minute(&mut self, number: u64) -> &mut Minute {
        if self.minutes.back().is_none_or(|last| last.number < number) {
            self.forget_before(number);
            self.minutes.push_back(Minute::new(number));
        }
        self.minutes.back_mut().expect("one was pushed or there")
    }

    fn record_latency(&mut self, minute: u64, call: Call) {
        if self.latencies.back().is_none_or(|last| last.minute < minute) {
            self.latencies.push_back(Latencies { minute, warm: histogram(), cold: None });
        }
        let latencies = self.latencies.back_mut().expect("one was pushed or there");
        let durations =
            if call.cold { latencies.cold.get_or_insert_with(histogram) } else { &mut latencies.warm };
        // Zero cannot be counted.
        let microseconds = call.duration.min(LONGEST).as_micros().max(1);
        durations.record(microseconds as u64).expect("a histogram grows to any value");
    }

    /// Ends minutes that are over, and drops what is too old.
    pub(super) fn forget_before(&mut self, present: u64) {
        let is_unread = |minute: &Minute| minute.number < present && minute.p99_us.is_none();
        // Minutes end in turn, so the unread ones are the last.
        let unread =
            self.minutes.iter().rev().take_while(|minute| minute.number == present || is_unread(minute));
        for at in self.minutes.len() - unread.count()..self.minutes.len() {
            if is_unread(&self.minutes[at]) {
                self.minutes[at].p99_us = self.p99_us(self.minutes[at].number);
            }
        }
        while self.latencies.front().is_some_and(|first| first.minute + LATENCY_MINUTES < present) {
            self.latencies.pop_front();
        }
        while self.minutes.front().is_some_and(|first| first.number + MINUTES <= present) {
            self.minutes.pop_front();
        }
    }

    /// Calls in the last minute.
    pub(super) fn last_minute(&self, now: Duration) -> u64 {
        let recent = self.seconds.iter().filter(|(second, _)| second + RATE_SECONDS > now.as_secs());
        recent.map(|(_, count)| u64::from(*count)).sum()
    }

    /// The minutes of the last hour in which something happened, oldest first.
    pub(super) fn last_hour(&self, present: u64) -> impl Iterator<Item = &Minute> {
        self.minutes.iter().filter(move |minute| minute.number + MINUTES > present)
    }

    /// The 99th percentile of a minute whose durations are still there.
    pub(super) fn p99_us(&self, minute: u64) -> Option<u64> {
        self.latencies.iter().find(|latencies| latencies.minute == minute).and_then(Latencies::p99_us)
    }

    /// Durations of the last five to six minutes: of all calls, and of warm ones.
    pub(super) fn durations(&self, present: u64) -> (Histogram<u32>, Histogram<u32>) {
        let mut warm = histogram();
        let mut cold = histogram();
        for latencies in &self.latencies {
            if latencies.minute + LATENCY_MINUTES >= present {
                add(&mut warm, &latencies.warm);
                latencies.cold.iter().for_each(|durations| add(&mut cold, durations));
            }
        }
        add(&mut cold, &warm);
        (cold, warm)
    }

    /// Warm calls of the last five to six minutes.
    pub(super) fn warm_durations(&self, present: u64) -> Histogram<u32> {
        let mut warm = histogram();
        let recent = self.latencies.iter().filter(|latencies| latencies.minute + LATENCY_MINUTES >= present);
        recent.for_each(|latencies| add(&mut warm, &latencies.warm));
        warm
    }
}

fn add(sum: &mut Histogram<u32>, durations: &Histogram<u32>) {
    sum.add(durations).expect("both grow as they need");
}

impl Latencies {
    fn p99_us(&self) -> Option<u64> {
        let mut all = self.warm.clone();
        self.cold.iter().for_each(|durations| add(&mut all, durations));
        (!all.is_empty()).then(|| all.value_at_quantile(0.99))
    }
}
