//! When the calls of a stream come.

use std::f64::consts::TAU;
use std::time::Duration;

use fastrand::Rng;
use fp_core::pool::Now;

use crate::distribution::positive_unit;
use crate::scenario::{Process, Scenario, Stream};

/// The arrivals of one stream, one after the other.
pub(super) struct Arrivals<'a> {
    stream: &'a Stream,
    load: f64,
    until: Now,
    rng: Rng,
    /// How many there were.
    count: usize,
    last: Now,
}

/// A call that will come.
pub(super) struct Arriving {
    pub(super) at: Now,
    /// How long it runs, where that was recorded.
    pub(super) service: Option<Duration>,
    /// Which of the stream's callers makes it.
    pub(super) caller: u32,
}

impl<'a> Arrivals<'a> {
    pub(super) fn new(scenario: &'a Scenario, stream: &'a Stream, rng: Rng) -> Self {
        let until = stream.until(scenario);
        Self { stream, load: scenario.load, until, rng, count: 0, last: stream.from }
    }

    /// The next one; none when the stream has ended.
    pub(super) fn next(&mut self) -> Option<Arriving> {
        let (at, service) = match (self.stream.burst, self.stream.is_recorded()) {
            (Some(_), _) => (self.next_of_burst()?, None),
            (None, true) => self.next_recorded()?,
            (None, false) => (self.next_drawn()?, None),
        };
        if at >= self.until {
            return None;
        }
        self.count += 1;
        self.last = at;
        let caller = if self.stream.callers > 1 { self.rng.u32(..self.stream.callers) } else { 0 };
        Some(Arriving { at, service, caller })
    }

    fn next_of_burst(&self) -> Option<Now> {
        let burst = self.stream.burst?;
        let size = (f64::from(burst.size) * self.load).round().max(1.0) as usize;
        match (u32::try_from(self.count / size).ok()?, burst.every) {
            (0, _) => Some(self.stream.from),
            (round, Some(every)) => self.stream.from.checked_add(every.checked_mul(round)?),
            (_, None) => None,
        }
    }

    fn next_recorded(&self) -> Option<(Now, Option<Duration>)> {
        let call = self.stream.recorded.get(self.count)?;
        let since = if self.load == 1.0 { call.arrival } else { call.arrival.div_f64(self.load) };
        Some((self.stream.from + since, call.service))
    }

    fn next_drawn(&mut self) -> Option<Now> {
        let stream = self.stream;
        let step = match stream.process {
            Process::Even if self.count == 0 => 0.0,
            Process::Even => 1.0,
            Process::Poisson => -positive_unit(&mut self.rng).ln(),
        };
        if stream.steps.is_empty() && stream.diurnal.is_none() {
            return self.last.checked_add(gap(step / (stream.rate? * self.load)));
        }
        self.advance(step)
    }

    /// When the expected number of arrivals since the last one reaches `step`.
    fn advance(&self, mut step: f64) -> Option<Now> {
        let mut from = self.last.as_secs_f64();
        loop {
            let (rate, until) = self.piece(from);
            let all = self.expected(rate, from, until);
            if all >= step && rate > 0.0 {
                return Some(gap(self.when(rate, from, until, step)));
            }
            step -= all;
            if until >= self.until.as_secs_f64() {
                return None;
            }
            from = until;
        }
    }

    /// The rate at a time, apart from its swing, and until when it holds.
    fn piece(&self, at: f64) -> (f64, f64) {
        let steps = &self.stream.steps;
        let next = steps.partition_point(|step| step.at.as_secs_f64() <= at);
        let rate = match next.checked_sub(1) {
            Some(current) => steps[current].rate,
            None => self.stream.rate.unwrap_or_default(),
        };
        let until = steps.get(next).map_or(self.until, |step| step.at.min(self.until));
        (rate * self.load, until.as_secs_f64())
    }

    /// Arrivals expected between two times at this rate, with its swing.
    fn expected(&self, rate: f64, from: f64, until: f64) -> f64 {
        let swing = self.stream.diurnal.map_or(0.0, |swing| {
            let turn = TAU / swing.period.as_secs_f64();
            swing.amplitude / turn * ((turn * from).cos() - (turn * until).cos())
        });
        rate * (until - from + swing)
    }

    /// When `step` arrivals are expected to have come; that is known to be before `until`.
    fn when(&self, rate: f64, from: f64, until: f64, step: f64) -> f64 {
        if self.stream.diurnal.is_none() {
            return from + step / rate;
        }
        let (mut low, mut high) = (from, until);
        // Fifty halvings of a week are less than a nanosecond.
        for _ in 0..50 {
            let middle = (low + high) / 2.0;
            if self.expected(rate, from, middle) < step { low = middle } else { high = middle }
        }
        high
    }
}

/// At most a year, so that a rate close to zero has an end.
fn gap(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 366.0 * 86_400.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(stream: &str) -> Vec<f64> {
        let text = format!(
            "name = \"t\"\nduration = \"100s\"\n[function]\nservice = \"1ms\"\nstart = \"1ms\"\n[[streams]]\nname = \"s\"\n{stream}"
        );
        let scenario = Scenario::parse(&text).expect("valid");
        let mut arrivals = Arrivals::new(&scenario, &scenario.streams[0], Rng::with_seed(5));
        std::iter::from_fn(|| arrivals.next()).map(|call| call.at.as_secs_f64()).collect()
    }

    fn within(times: &[f64], from: f64, until: f64) -> usize {
        times.iter().filter(|at| (from..until).contains(*at)).count()
    }

    #[test]
    fn even_and_poisson_arrivals_have_their_rate() {
        let even = times("process = \"even\"\nrate = 10\nfrom = \"1s\"\nuntil = \"2s\"");
        assert_eq!(even, [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9]);
        let poisson = times("rate = 100");
        assert!((9_700..10_300).contains(&poisson.len()), "{}", poisson.len());
    }

    #[test]
    fn steps_change_the_rate_at_their_time() {
        let steps = "rate = 0\nsteps = [{ at = \"10s\", rate = 50 }, { at = \"20s\", rate = 0 }, { at = \"90s\", rate = 200 }]";
        let times = times(steps);
        assert_eq!((within(&times, 0.0, 10.0), within(&times, 20.0, 90.0)), (0, 0));
        assert!((430..570).contains(&within(&times, 10.0, 20.0)));
        assert!((1_850..2_150).contains(&within(&times, 90.0, 100.0)));
    }

    #[test]
    fn a_diurnal_rate_peaks_after_a_quarter_of_its_period() {
        let times = times("process = \"even\"\nrate = 100\ndiurnal = { period = \"100s\", amplitude = 0.8 }");
        assert!(times.len().abs_diff(10_000) <= 1, "{}", times.len());
        // ∫ 1 + 0.8 sin over the first half: 50 + 80/π.
        let half = within(&times, 0.0, 50.0) as f64;
        assert!((half - (5_000.0 + 8_000.0 / std::f64::consts::PI)).abs() < 2.0, "{half}");
        assert!(within(&times, 24.0, 26.0) > 355 && within(&times, 74.0, 76.0) < 45);
    }

    #[test]
    fn bursts_come_at_once_and_recorded_arrivals_as_they_were() {
        assert_eq!(times("burst = { size = 3 }\nfrom = \"2s\""), [2.0; 3]);
        assert_eq!(times("burst = { size = 2, every = \"40s\" }"), [0.0, 0.0, 40.0, 40.0, 80.0, 80.0]);
        assert_eq!(times("arrivals_ms = [7, 1.5, 1e9]"), [0.0015, 0.007]);
    }
}
