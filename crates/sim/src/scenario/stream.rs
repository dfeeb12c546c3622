//! Calls of one kind: who makes them, when they come, what they want.

use std::sync::Arc;
use std::time::Duration;

use fp_core::settings::Criticality;
use serde::Deserialize;

use super::error::ScenarioError;
use super::{Scenario, time};
use crate::distribution::Distribution;
use crate::trace::Recorded;

/// Calls of one kind.
///
/// When they come is said by exactly one of `rate` (with `process`, `steps` and `diurnal`),
/// `burst`, `trace` and `arrivals_ms`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Its name in the report.
    pub name: String,
    /// Whose calls they are. Calls of one tenant share a place in the queue's rounds.
    #[serde(default)]
    pub tenant: Option<String>,
    /// How many callers the calls come from, each with a place of its own in the queue's rounds.
    #[serde(default = "one")]
    pub callers: u32,
    /// Calls per second.
    #[serde(default)]
    pub rate: Option<f64>,
    /// How they are spaced.
    #[serde(default)]
    pub process: Process,
    /// Other rates from given times on.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// A rate that swings.
    #[serde(default)]
    pub diurnal: Option<Diurnal>,
    /// Many calls at once.
    #[serde(default)]
    pub burst: Option<Burst>,
    /// A file of recorded arrivals.
    #[serde(default)]
    pub trace: Option<String>,
    /// Recorded arrivals in the scenario itself, in milliseconds from its beginning.
    #[serde(default)]
    pub arrivals_ms: Vec<f64>,
    /// When it begins.
    #[serde(default, with = "time")]
    pub from: Duration,
    /// When it ends; the end of the scenario if not said.
    #[serde(default, with = "time::optional")]
    pub until: Option<Duration>,
    /// How much time its callers give; the function's `timeout` if not said, or if that is less.
    #[serde(default, with = "time::optional")]
    pub deadline: Option<Duration>,
    /// After how long its callers leave without an answer.
    #[serde(default)]
    pub patience: Option<Distribution>,
    /// With which verb, which decides whether a call may run twice if the function's `idempotent`
    /// does not.
    #[serde(default = "get")]
    pub verb: String,
    /// Whether its calls carry an `Idempotency-Key`.
    #[serde(default)]
    pub idempotency_key: bool,
    /// Its class; the function's if not said.
    #[serde(default)]
    pub criticality: Option<Criticality>,
    /// How long its calls run; as the function's if not said.
    #[serde(default)]
    pub service: Option<Distribution>,
    /// What `trace` or `arrivals_ms` hold, in order of arrival.
    #[serde(skip)]
    pub recorded: Arc<[Recorded]>,
}

fn get() -> String {
    "GET".to_owned()
}

fn one() -> u32 {
    1
}

/// How calls are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Process {
    /// Independently of each other, as many callers do.
    #[default]
    Poisson,
    /// Evenly, as one timer does.
    Even,
}

/// A rate from a time on.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// When, from the scenario's beginning.
    #[serde(with = "time")]
    pub at: Duration,
    /// Calls per second from then on.
    pub rate: f64,
}

/// A rate that swings around its mean as a sine does, at its mean and rising when the scenario
/// begins.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diurnal {
    /// From one peak to the next.
    #[serde(with = "time")]
    pub period: Duration,
    /// How far from the mean, as a share of it: 0.8 swings between 0.2 and 1.8 of the rate.
    pub amplitude: f64,
}

/// Many calls at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// How many.
    pub size: u32,
    /// How long until the next burst; none if not said.
    #[serde(default, with = "time::optional")]
    pub every: Option<Duration>,
}

impl Stream {
    /// When it ends in this scenario.
    pub(crate) fn until(&self, scenario: &Scenario) -> Duration {
        self.until.unwrap_or(scenario.duration).min(scenario.duration)
    }

    /// Whether its arrivals are listed rather than drawn.
    pub(crate) fn is_recorded(&self) -> bool {
        self.trace.is_some() || !self.arrivals_ms.is_empty()
    }

    pub(super) fn check(&self, at: &str, scenario: &Scenario) -> Result<(), ScenarioError> {
        let refuse =
            |key: &str, message: &str| Err(ScenarioError::value(format!("{at}{key}"), message.to_owned()));
        let ways =
            [self.rate.is_some(), self.burst.is_some(), self.trace.is_some(), !self.arrivals_ms.is_empty()];
        if ways.iter().filter(|is_said| **is_said).count() != 1 {
            return refuse("", "needs exactly one of rate, burst, trace and arrivals_ms");
        }
        let is_rate = |rate: f64| rate.is_finite() && rate >= 0.0;
        if self.rate.is_none() && (!self.steps.is_empty() || self.diurnal.is_some()) {
            return refuse("", "has steps or diurnal without a rate");
        }
        if !self.rate.is_none_or(|rate| is_rate(rate) && (rate > 0.0 || !self.steps.is_empty())) {
            return refuse(".rate", "must be above 0");
        }
        if !self.steps.iter().all(|step| is_rate(step.rate)) {
            return refuse(".steps", "have a rate below 0");
        }
        if !self.steps.is_sorted_by_key(|step| step.at) {
            return refuse(".steps", "must be in order of time");
        }
        if !self.diurnal.is_none_or(|swing| !swing.period.is_zero() && (0.0..=1.0).contains(&swing.amplitude))
        {
            return refuse(".diurnal", "needs a period above 0 and an amplitude from 0 to 1");
        }
        if !self.burst.is_none_or(|burst| burst.size > 0 && burst.every != Some(Duration::ZERO)) {
            return refuse(".burst", "needs a size and, if it comes again, an interval above 0");
        }
        if self.verb.is_empty() || !self.verb.bytes().all(|letter| letter.is_ascii_uppercase()) {
            return refuse(".verb", "must be a verb such as GET, in capitals");
        }
        if self.callers == 0 {
            return refuse(".callers", "must be at least 1");
        }
        if self.deadline == Some(Duration::ZERO) {
            return refuse(".deadline", "must be above 0");
        }
        if self.is_recorded() && self.recorded.is_empty() {
            return refuse(".trace", "holds no arrivals");
        }
        if self.until(scenario) < self.from {
            return refuse(".until", "is before from");
        }
        self.service.iter().try_for_each(|service| service.check(&format!("{at}.service")))?;
        self.patience.iter().try_for_each(|patience| patience.check(&format!("{at}.patience")))
    }

    /// How many calls it is expected to make.
    pub(super) fn expected_calls(&self, scenario: &Scenario) -> f64 {
        let seconds = self.until(scenario).saturating_sub(self.from).as_secs_f64();
        if let Some(burst) = self.burst {
            let times = burst.every.map_or(1.0, |every| (seconds / every.as_secs_f64()).ceil().max(1.0));
            return times * f64::from(burst.size);
        }
        if self.is_recorded() {
            return self.recorded.len() as f64;
        }
        let fastest = self.steps.iter().map(|step| step.rate).chain(self.rate).fold(0.0, f64::max);
        match self.steps.is_empty() {
            true => fastest * seconds * scenario.load,
            false => {
                let ends = self.steps.iter().skip(1).map(|step| step.at).chain([scenario.duration]);
                let first = self.steps[0].at.as_secs_f64() * self.rate.unwrap_or(0.0);
                let of_step =
                    |(step, end): (&Step, Duration)| end.saturating_sub(step.at).as_secs_f64() * step.rate;
                (first + self.steps.iter().zip(ends).map(of_step).sum::<f64>()) * scenario.load
            }
        }
    }
}
