//! What is simulated, as a TOML file.
//!
//! The function's settings as `function.toml` has them, how it behaves, and one or more streams of
//! calls. `docs/simulate.md` lists every key. Files that a scenario names are read by whoever
//! parses it: nothing here does I/O.

use std::sync::Arc;
use std::time::Duration;

use fp_core::Settings;
use fp_core::pool::PoolConfig;
use serde::Deserialize;
use toml::Value;

mod change;
mod document;
mod error;
mod stream;
pub(crate) mod time;

pub use change::Change;
pub use error::ScenarioError;
pub use stream::{Burst, Diurnal, Process, Step, Stream};

use crate::distribution::Distribution;
use crate::trace::{self, Recorded};

/// Most calls of a scenario: ten million are less than a minute of simulation.
const MOST_CALLS: f64 = 10e6;

/// Longest scenario: a week has all that comes round.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is simulated. Made by [`parse`](Self::parse), which also checks it; the fields may be
/// changed afterwards.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Its name, for the report.
    pub name: String,
    /// Where all draws come from.
    pub seed: u64,
    /// How long calls arrive; what has arrived by then is still seen to its end.
    pub duration: Duration,
    /// Calls that arrive before this are played, and not counted.
    pub warmup: Duration,
    /// Workers that are up when it begins, such as the one in which a deploy loaded its handler.
    pub warm: u32,
    /// By what all rates are multiplied; recorded arrivals come as much faster.
    pub load: f64,
    /// The function's settings: `timeout`, `concurrency`, `idempotent`, `criticality`, `scaling`,
    /// `latency` and `slo`, each with the platform's default.
    pub settings: Settings,
    /// Who says how many workers there are.
    pub scaler: Scaler,
    /// Most calls in the queue, if not what the platform makes of the settings.
    pub queue_bound: Option<u32>,
    /// How the function behaves.
    pub function: Function,
    /// Who calls.
    pub streams: Vec<Stream>,
    /// When the function behaves differently for a while.
    pub incidents: Vec<Incident>,
}

/// Who says how many workers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaler {
    /// The platform.
    #[default]
    Platform,
    /// Knative's autoscaler, with its defaults; all else stays as on the platform.
    Knative,
}

/// How the function and its workers behave.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// How long a call runs.
    pub service: Distribution,
    /// How long a worker takes to start.
    pub start: Distribution,
    /// How many of a hundred calls end in an error of the function's, after their run.
    #[serde(default)]
    pub error_percent: f64,
    /// How many of a hundred calls end their worker, after their run.
    #[serde(default)]
    pub crash_percent: f64,
    /// How many of a hundred calls never end by themselves.
    #[serde(default)]
    pub stuck_percent: f64,
    /// How many of a hundred starts fail, after their time.
    #[serde(default)]
    pub start_failure_percent: f64,
    /// Every worker stands still from time to time, as one that collects garbage does.
    #[serde(default)]
    pub pause: Option<Pause>,
    /// Some workers are slower than the others.
    #[serde(default)]
    pub slow_workers: Option<SlowWorkers>,
    /// How long a worker lives before it dies, whatever it does then; for ever if not said.
    #[serde(default)]
    pub worker_life: Option<Distribution>,
    /// What becomes of a worker whose call was interrupted.
    #[serde(default)]
    pub interrupted: Interrupted,
}

/// What becomes of a worker whose call was interrupted: at its deadline, because its caller left, or
/// because another attempt was faster. Workers that run several calls at once go on in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interrupted {
    /// It is ended, and another is started when one is wanted: as on the platform.
    #[default]
    Replaced,
    /// It takes the next call at once, as in textbooks.
    Kept,
}

/// A worker stands still, and with it what it runs. The first time is at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// From the beginning of one to that of the next.
    #[serde(with = "time")]
    pub every: Duration,
    /// How long.
    #[serde(rename = "for", with = "time")]
    pub lasts: Duration,
}

/// Workers that take longer over every call.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowWorkers {
    /// How many of a hundred.
    pub percent: f64,
    /// By what their run times are multiplied.
    pub factor: f64,
}

/// A time in which the function behaves differently; what is not said stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incident {
    /// When it begins.
    #[serde(with = "time")]
    pub from: Duration,
    /// When it is over.
    #[serde(with = "time")]
    pub until: Duration,
    /// By what the run times of calls that are dispatched then are multiplied.
    #[serde(default = "unchanged")]
    pub factor: f64,
    /// Replaces the function's.
    #[serde(default)]
    pub error_percent: Option<f64>,
    /// Replaces the function's.
    #[serde(default)]
    pub crash_percent: Option<f64>,
    /// Replaces the function's.
    #[serde(default)]
    pub stuck_percent: Option<f64>,
    /// Replaces the function's.
    #[serde(default)]
    pub start_failure_percent: Option<f64>,
}

fn unchanged() -> f64 {
    1.0
}

impl Scenario {
    /// Reads a scenario that names no files.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let no_files = |name: &str| Err(format!("{name} is a file; use Scenario::parse_with to read files"));
        Self::parse_with(text, &[], no_files)
    }

    /// Reads a scenario with some values changed. `read` is given the names of the files that the
    /// scenario names, and answers with their text, or with why they cannot be read.
    pub fn parse_with(
        text: &str,
        changes: &[Change],
        mut read: impl FnMut(&str) -> Result<String, String>,
    ) -> Result<Self, ScenarioError> {
        let scenario = document::read(text, changes).and_then(|mut scenario| {
            scenario.fill(&mut read)?;
            scenario.check()?;
            Ok(scenario)
        });
        scenario.map_err(|error| {
            let field = error.field().filter(|field| !changes.iter().any(|change| change.touches(field)));
            let line = field.and_then(|field| document::line_of(text, field));
            error.at(line)
        })
    }

    /// The pool's configuration; what is not said is as the platform has it.
    pub fn pool_config(&self) -> PoolConfig {
        let usual = PoolConfig::from_settings(&self.settings);
        let is_led = self.scaler != Scaler::Platform;
        PoolConfig {
            queue_bound: self.queue_bound.unwrap_or(usual.queue_bound),
            learns: usual.learns && !is_led,
            is_led,
            ..usual
        }
    }

    /// Reads the files that it names.
    fn fill(&mut self, read: &mut impl FnMut(&str) -> Result<String, String>) -> Result<(), ScenarioError> {
        let file = |field: String| move |message| ScenarioError::File { field, message, line: None };
        self.function.service.fill(&mut *read).map_err(file("function.service".into()))?;
        self.function.start.fill(&mut *read).map_err(file("function.start".into()))?;
        for (at, stream) in self.streams.iter_mut().enumerate() {
            for (key, times) in [("service", &mut stream.service), ("patience", &mut stream.patience)] {
                if let Some(times) = times {
                    times.fill(&mut *read).map_err(file(format!("streams.{at}.{key}")))?;
                }
            }
            let listed = stream.arrivals_ms.iter().map(|ms| {
                let arrival = trace::milliseconds(*ms).ok_or("must be milliseconds, none below 0");
                arrival.map(|arrival| Recorded { arrival, service: None })
            });
            let listed = listed.collect::<Result<Vec<_>, _>>();
            let mut recorded =
                listed.map_err(|why| ScenarioError::value(format!("streams.{at}.arrivals_ms"), why))?;
            if let Some(name) = &stream.trace {
                let calls = read(name)
                    .and_then(|text| trace::read_trace(&text).map_err(|why| format!("{name}, {why}")));
                recorded = calls.map_err(file(format!("streams.{at}.trace")))?;
            }
            recorded.sort_by_key(|call| call.arrival);
            stream.recorded = Arc::from(recorded);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ScenarioError> {
        let refuse = |field: &str, message: &str| Err(ScenarioError::value(field, message));
        if self.streams.is_empty() {
            return refuse("streams", "is empty; add [[streams]] with a rate");
        }
        if self.duration.is_zero() || self.duration > LONGEST {
            return refuse("duration", "must be above 0 and at most a week");
        }
        if self.warm > self.settings.scaling.max {
            return refuse("warm", "is more than scaling.max");
        }
        if self.warmup >= self.duration {
            return refuse("warmup", "must be shorter than duration");
        }
        if !(self.load > 0.0 && self.load.is_finite()) {
            return refuse("load", "must be above 0");
        }
        self.function.check()?;
        for (at, stream) in self.streams.iter().enumerate() {
            stream.check(&format!("streams.{at}"), self)?;
        }
        for (at, incident) in self.incidents.iter().enumerate() {
            incident.check(&format!("incidents.{at}"))?;
        }
        let calls: f64 = self.streams.iter().map(|stream| stream.expected_calls(self)).sum();
        if calls > MOST_CALLS {
            let message = format!(
                "make {calls:.0} calls, the limit is ten million; shorten the duration or lower the rates"
            );
            return refuse("streams", &message);
        }
        Ok(())
    }
}

impl Function {
    fn check(&self) -> Result<(), ScenarioError> {
        self.service.check("function.service")?;
        self.start.check("function.start")?;
        self.worker_life.iter().try_for_each(|life| life.check("function.worker_life"))?;
        for (key, share) in [
            ("error_percent", self.error_percent),
            ("crash_percent", self.crash_percent),
            ("stuck_percent", self.stuck_percent),
            ("start_failure_percent", self.start_failure_percent),
        ] {
            check_percent(&format!("function.{key}"), share)?;
        }
        if let Some(slow) = self.slow_workers {
            check_percent("function.slow_workers.percent", slow.percent)?;
            check_factor("function.slow_workers.factor", slow.factor)?;
        }
        match self.pause {
            Some(pause) if pause.lasts >= pause.every => Err(ScenarioError::value(
                "function.pause",
                "must last (for) less than the time from one to the next (every)",
            )),
            _ => Ok(()),
        }
    }
}

impl Incident {
    /// Whether it is on at this time.
    pub(crate) fn is_on(&self, now: Duration) -> bool {
        (self.from..self.until).contains(&now)
    }

    fn check(&self, at: &str) -> Result<(), ScenarioError> {
        if self.until <= self.from {
            return Err(ScenarioError::value(format!("{at}.until"), "must be after from"));
        }
        check_factor(&format!("{at}.factor"), self.factor)?;
        for (key, share) in [
            ("error_percent", self.error_percent),
            ("crash_percent", self.crash_percent),
            ("stuck_percent", self.stuck_percent),
            ("start_failure_percent", self.start_failure_percent),
        ] {
            check_percent(&format!("{at}.{key}"), share.unwrap_or_default())?;
        }
        Ok(())
    }
}

fn check_percent(field: &str, share: f64) -> Result<(), ScenarioError> {
    match (0.0..=100.0).contains(&share) {
        true => Ok(()),
        false => Err(ScenarioError::value(field, "is a percentage from 0 to 100")),
    }
}

fn check_factor(field: &str, factor: f64) -> Result<(), ScenarioError> {
    match factor > 0.0 && factor <= 10_000.0 {
        true => Ok(()),
        false => Err(ScenarioError::value(field, "must be above 0 and at most 10000")),
    }
}

/// A value of TOML as JSON, which is what settings are read from.
fn to_json(value: &Value) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}
