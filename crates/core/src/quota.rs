//! Quotas: how much a tenant or a function may use, and the meter that keeps the account.
//!
//! The rate is kept by the generic cell rate algorithm (ITU-T I.371, the leaky bucket as a meter):
//! one time per meter instead of a count that must be refilled. What a quota does not name is not
//! limited. A [`Meter`] never waits and never sleeps: it admits a call, or says which quota is spent
//! and when trying again makes sense.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// When trying again makes sense after a limit that no clock lifts: something has to end first, and
/// a second is the smallest wait that `Retry-After` can name.
const UNTIMED: Duration = Duration::from_secs(1);

/// Calls per time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rate {
    /// Calls in a second; above zero.
    pub per_second: f64,
}

impl Rate {
    /// The longest and the shortest distance between two calls that can be asked for.
    const SLOWEST: f64 = 1.0 / 86_400.0;
    const FASTEST: f64 = 1e6;

    /// The distance between calls that come evenly.
    pub fn interval(self) -> Duration {
        Duration::from_secs_f64(1.0 / self.per_second)
    }
}

/// Why a text is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "write calls per time, such as \"100/s\", \"300/min\" or \"1000/h\", from 1 in a day to a million in a second"
)]
pub struct BadRate;

impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Self, BadRate> {
        let (count, unit) = text.split_once('/').ok_or(BadRate)?;
        let seconds = match unit.trim() {
            "s" | "second" => 1.0,
            "min" | "minute" => 60.0,
            "h" | "hour" => 3600.0,
            "d" | "day" => 86_400.0,
            _ => return Err(BadRate),
        };
        let per_second = count.trim().parse::<f64>().map_err(|_| BadRate)? / seconds;
        // Not a number fails this, too. A hair of room for 1/d, which no binary fraction is.
        let fits = (Self::SLOWEST * 0.999..=Self::FASTEST).contains(&per_second);
        if fits { Ok(Self { per_second }) } else { Err(BadRate) }
    }
}

impl fmt::Display for Rate {
    /// In the largest unit of time that leaves a number of one or more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1.0, "s"), (60.0, "min"), (3600.0, "h"), (86_400.0, "d")];
        let whole = |count: f64| (count - count.round()).abs() < 1e-6;
        let fitting = units.iter().find(|(seconds, _)| {
            let count = self.per_second * seconds;
            count >= 0.999 && whole(count)
        });
        match fitting {
            Some((seconds, unit)) => write!(f, "{}/{unit}", (self.per_second * seconds).round()),
            None => write!(f, "{}/s", self.per_second),
        }
    }
}

/// How much may be used. None is no limit; for the weight, that of everybody.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quota {
    /// Calls per time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Calls at once that the rate lets pass after quiet; without it, a second's worth of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Calls under way at once, those that wait for a worker among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Accepted asynchronous calls that have not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<u32>,
    /// Memory limits of all workers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Deployed code, unpacked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<ByteSize>,
    /// Memory of the history ring.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<ByteSize>,
    /// Calls per time that go to the history on disk unsampled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history_rate: Option<Rate>,
    /// How much of CPU, worker places and memory is its, against other tenants that want them at the
    /// same time; 1 where it is not said. Not a limit: what the others leave is had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
}

impl Quota {
    /// What the tenant weighs against others.
    pub fn weight(&self) -> f64 {
        self.weight.unwrap_or(crate::share::DEFAULT_WEIGHT)
    }

    /// Whether it limits calls as they come.
    pub fn limits_calls(&self) -> bool {
        self.rate.is_some() || self.concurrency.is_some()
    }

    /// Rows that a second of history on disk may have unsampled: a whole one at least.
    pub fn history_rows_per_second(&self) -> Option<u32> {
        self.history_rate.map(|rate| rate.per_second.ceil() as u32)
    }
}

/// Which part of a quota is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spent {
    /// Calls per time.
    Rate,
    /// Calls at once.
    Concurrency,
    /// Accepted asynchronous calls.
    Backlog,
    /// Memory of workers.
    Memory,
    /// Deployed code.
    Code,
}

impl Spent {
    /// As `[quota]` spells it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Concurrency => "concurrency",
            Self::Backlog => "backlog",
            Self::Memory => "memory",
            Self::Code => "code",
        }
    }
}

/// A quota is spent.
#[derive(Debug, Clone, PartialEq)]
pub struct OverQuota {
    /// Which part.
    pub spent: Spent,
    /// How much it allows, as people write it.
    pub limit: String,
    /// When trying again makes sense.
    pub retry_after: Duration,
}

/// The account of one tenant's or one function's quota.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    quota: Quota,
    /// When the next call would come if calls came evenly ("theoretical arrival time").
    next: Duration,
    running: u32,
    backlog: u32,
    memory: u64,
}

impl Meter {
    /// An unused account.
    pub fn new(quota: Quota) -> Self {
        Self { quota, ..Self::default() }
    }

    /// What it allows.
    pub fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Another quota from now on; what is in use stays in use.
    pub fn set(&mut self, quota: Quota) {
        self.quota = quota;
        self.next = Duration::ZERO;
    }

    /// Calls under way.
    pub fn running(&self) -> u32 {
        self.running
    }

    /// Accepted asynchronous calls that have not ended.
    pub fn backlog(&self) -> u32 {
        self.backlog
    }

    /// Memory limits of the workers there are, in bytes.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// Whether a call would be admitted now.
    pub fn check(&self, now: Duration) -> Result<(), OverQuota> {
        if let Some(most) = self.quota.concurrency
            && self.running >= most
        {
            return Err(over(Spent::Concurrency, format!("{most} calls at once"), UNTIMED));
        }
        self.check_rate(now)
    }

    fn check_rate(&self, now: Duration) -> Result<(), OverQuota> {
        let Some(rate) = self.quota.rate else { return Ok(()) };
        let early = self.next.saturating_sub(now).saturating_sub(self.slack(rate));
        if early.is_zero() { Ok(()) } else { Err(over(Spent::Rate, rate.to_string(), early)) }
    }

    /// Admits a call, which [`end`](Self::end) or [`undo`](Self::undo) follows.
    pub fn begin(&mut self, now: Duration) -> Result<(), OverQuota> {
        self.check(now)?;
        self.note_rate(now);
        self.running += 1;
        Ok(())
    }

    /// Takes a call off the rate alone: it runs some other time.
    pub fn spend(&mut self, now: Duration) -> Result<(), OverQuota> {
        self.check_rate(now)?;
        self.note_rate(now);
        Ok(())
    }

    fn note_rate(&mut self, now: Duration) {
        if let Some(rate) = self.quota.rate {
            self.next = self.next.max(now) + rate.interval();
        }
    }

    /// What was spent was not used: somebody else has refused the call.
    pub fn unspend(&mut self) {
        if let Some(rate) = self.quota.rate {
            self.next = self.next.saturating_sub(rate.interval());
        }
    }

    /// An admitted call is over.
    pub fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// An admitted call was refused by somebody else: it has used nothing.
    pub fn undo(&mut self) {
        self.end();
        self.unspend();
    }

    /// Accepts an asynchronous call, until [`finish`](Self::finish).
    pub fn accept(&mut self) -> Result<(), OverQuota> {
        match self.quota.backlog {
            Some(most) if self.backlog >= most => {
                Err(over(Spent::Backlog, format!("{most} accepted calls"), UNTIMED))
            }
            _ => {
                self.backlog += 1;
                Ok(())
            }
        }
    }

    /// An accepted call of an earlier life, which no quota takes back.
    pub fn accept_again(&mut self) {
        self.backlog += 1;
    }

    /// An accepted call has ended.
    pub fn finish(&mut self) {
        self.backlog = self.backlog.saturating_sub(1);
    }

    /// Reserves a worker's memory, until [`give_back`](Self::give_back).
    pub fn reserve(&mut self, bytes: u64) -> Result<(), OverQuota> {
        let wanted = self.memory.saturating_add(bytes);
        match self.quota.memory {
            Some(most) if wanted > most.as_u64() => {
                let limit = format!("{} of workers' memory", crate::settings::show_size(most));
                Err(over(Spent::Memory, limit, UNTIMED))
            }
            _ => {
                self.memory = wanted;
                Ok(())
            }
        }
    }

    /// A worker is gone.
    pub fn give_back(&mut self, bytes: u64) {
        self.memory = self.memory.saturating_sub(bytes);
    }

    /// How far ahead of the even pace calls may run: all of a burst but its first.
    fn slack(&self, rate: Rate) -> Duration {
        let burst = self.quota.burst.unwrap_or_else(|| rate.per_second.ceil().max(1.0) as u32);
        rate.interval().saturating_mul(burst.saturating_sub(1))
    }
}

fn over(spent: Spent, limit: String, retry_after: Duration) -> OverQuota {
    OverQuota { spent, limit, retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn metered(quota: Quota) -> Meter {
        Meter::new(quota)
    }

    fn rate(text: &str) -> Option<Rate> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut meter = metered(Quota { rate: rate("10/s"), burst: Some(3), ..Quota::default() });
        for _ in 0..3 {
            meter.begin(at(1000)).unwrap();
        }
        let over = meter.begin(at(1000)).unwrap_err();
        assert_eq!((over.spent, over.limit.as_str(), over.retry_after), (Spent::Rate, "10/s", at(100)));
        assert_eq!(meter.begin(at(1060)).unwrap_err().retry_after, at(40));
        meter.begin(at(1100)).unwrap();
        meter.begin(at(1150)).unwrap_err();
        // Quiet fills the burst up again, and no further.
        for _ in 0..3 {
            meter.begin(at(60_000)).unwrap();
        }
        meter.begin(at(60_000)).unwrap_err();
    }

    #[test]
    fn without_a_burst_a_seconds_worth_passes() {
        for (text, most) in [("5/s", 5), ("0.5/s", 1), ("30/min", 1)] {
            let mut meter = metered(Quota { rate: rate(text), ..Quota::default() });
            let passed = (0..20).filter(|_| meter.begin(at(7)).is_ok()).count();
            assert_eq!(passed, most, "{text}");
        }
    }

    #[test]
    fn no_more_than_the_rate_passes_in_the_long_run() {
        let mut meter = metered(Quota { rate: rate("100/s"), burst: Some(10), ..Quota::default() });
        // Ten seconds at fifty times the rate.
        let passed = (0..50_000).filter(|n| meter.begin(Duration::from_micros(n * 200)).is_ok()).count();
        assert!((1000..=1010).contains(&passed), "{passed}");
    }

    #[test]
    fn calls_at_once_are_counted_until_they_end() {
        let mut meter = metered(Quota { concurrency: Some(2), ..Quota::default() });
        meter.begin(at(0)).unwrap();
        meter.begin(at(0)).unwrap();
        assert_eq!(meter.begin(at(9)).unwrap_err().spent, Spent::Concurrency);
        meter.end();
        meter.begin(at(9)).unwrap();
        assert_eq!(meter.running(), 2);
    }

    #[test]
    fn what_another_refused_costs_nothing() {
        let mut meter =
            metered(Quota { rate: rate("1/s"), burst: Some(1), concurrency: Some(1), ..Quota::default() });
        meter.begin(at(0)).unwrap();
        meter.undo();
        meter.begin(at(0)).unwrap();
    }

    #[test]
    fn backlog_and_memory_are_given_back() {
        let mut meter =
            metered(Quota { backlog: Some(1), memory: Some(ByteSize::mib(300)), ..Quota::default() });
        meter.accept().unwrap();
        assert_eq!(meter.accept().unwrap_err().spent, Spent::Backlog);
        meter.finish();
        meter.accept().unwrap();
        meter.reserve(256 << 20).unwrap();
        let over = meter.reserve(256 << 20).unwrap_err();
        assert_eq!((over.spent, over.limit.as_str()), (Spent::Memory, "300MiB of workers' memory"));
        meter.give_back(256 << 20);
        meter.reserve(300 << 20).unwrap();
    }

    #[test]
    fn rates_are_read_and_written() {
        for (text, shown) in [
            ("100/s", "100/s"),
            (" 90 / min ", "90/min"),
            ("60/min", "1/s"),
            ("2.5/s", "150/min"),
            ("1/d", "1/d"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.to_string(), shown);
            let again: Rate = shown.parse().unwrap();
            assert!((again.per_second - rate.per_second).abs() < 1e-9, "{text}");
        }
        for wrong in ["", "100", "0/s", "-1/s", "nan/s", "inf/s", "1/y", "1/w", "2e6/s", "0.5/d", "/s"] {
            assert_eq!(wrong.parse::<Rate>(), Err(BadRate), "{wrong}");
        }
    }
}
