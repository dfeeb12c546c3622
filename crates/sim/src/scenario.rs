//! What is simulated, as a TOML file.
//!
//! A pool's configuration, how the function behaves, and one or more streams of calls. The files
//! under `scenarios/` are the reference.

use std::time::Duration;

use fp_core::pool::{AUTO_IDLE, PoolConfig};
use fp_core::settings::Criticality;
use serde::Deserialize;

use crate::distribution::Distribution;

/// A scenario that cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// Not TOML, an unknown key or a value of the wrong kind.
    #[error("scenario cannot be read: {message}")]
    Syntax {
        /// What the parser says, with the line.
        message: String,
    },
    /// A value that makes no sense.
    #[error("{field}: {message}")]
    Value {
        /// Which.
        field: String,
        /// What is wrong with it.
        message: String,
    },
}

/// What is simulated.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name, for the report.
    pub name: String,
    /// Where all draws come from.
    #[serde(default)]
    pub seed: u64,
    /// How long calls arrive; what has arrived by then is still seen to its end.
    #[serde(with = "time")]
    pub duration: Duration,
    /// The pool.
    #[serde(default)]
    pub pool: Pool,
    /// The function.
    pub function: Function,
    /// Who calls.
    pub streams: Vec<Stream>,
}

/// The pool's configuration as a scenario writes it; the keys are those of `function.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    min: u32,
    max: u32,
    #[serde(with = "time")]
    idle: Duration,
    concurrency: u32,
    queue_bound: Option<u32>,
}

impl Default for Pool {
    fn default() -> Self {
        Self { min: 0, max: 16, idle: AUTO_IDLE, concurrency: 1, queue_bound: None }
    }
}

impl Scenario {
    /// Reads a scenario.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self =
            toml::from_str(text).map_err(|error| ScenarioError::Syntax { message: error.to_string() })?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The pool's configuration; what is not said is as the platform has it.
    pub fn pool_config(&self) -> PoolConfig {
        let mut settings = fp_core::Settings { concurrency: self.pool.concurrency, ..Default::default() };
        settings.scaling.max = self.pool.max;
        let usual = PoolConfig::from_settings(&settings);
        PoolConfig {
            min: self.pool.min,
            idle: self.pool.idle,
            queue_bound: self.pool.queue_bound.unwrap_or(usual.queue_bound),
            ..usual
        }
    }

    fn check(&self) -> Result<(), ScenarioError> {
        let refuse = |field: &str, message: &str| {
            Err(ScenarioError::Value { field: field.into(), message: message.into() })
        };
        if self.streams.is_empty() {
            return refuse("streams", "is empty; add [[streams]] with a rate");
        }
        if self.duration.is_zero() || self.duration > Duration::from_secs(24 * 3600) {
            return refuse("duration", "must be above 0 and at most a day");
        }
        self.function.service.check("function.service")?;
        self.function.start.check("function.start")?;
        for share in [self.function.crash_percent, self.function.start_failure_percent] {
            if !(0.0..=100.0).contains(&share) {
                return refuse("function", "shares are percentages from 0 to 100");
            }
        }
        for stream in &self.streams {
            // Ten million calls are half a minute of simulation and a gigabyte of figures.
            let calls = stream.rate * stream.until(self).saturating_sub(stream.from).as_secs_f64();
            if !(stream.rate > 0.0 && calls <= 10e6) {
                return refuse("streams.rate", "must be above 0, and of at most ten million calls in all");
            }
        }
        Ok(())
    }
}

/// How the function behaves.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// How long a call runs.
    pub service: Distribution,
    /// How long a worker takes to start.
    pub start: Distribution,
    /// How many of a hundred calls end their worker.
    #[serde(default)]
    pub crash_percent: f64,
    /// How many of a hundred starts fail.
    #[serde(default)]
    pub start_failure_percent: f64,
}

/// Calls of one kind.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Its name, which is also its caller's for fairness.
    pub name: String,
    /// Calls per second.
    pub rate: f64,
    /// How they are spaced.
    #[serde(default)]
    pub process: Process,
    /// When it begins.
    #[serde(default, with = "time")]
    pub from: Duration,
    /// When it ends; the end of the scenario if not said.
    #[serde(default, with = "optional_time")]
    pub until: Option<Duration>,
    /// How much time its callers give.
    #[serde(default = "Stream::usual_deadline", with = "time")]
    pub deadline: Duration,
    /// Its class.
    #[serde(default)]
    pub criticality: Criticality,
}

impl Stream {
    fn usual_deadline() -> Duration {
        fp_core::Settings::default().timeout
    }

    pub(crate) fn until(&self, scenario: &Scenario) -> Duration {
        self.until.unwrap_or(scenario.duration).min(scenario.duration)
    }
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

/// Times as `function.toml` writes them: `250ms`, `1m 30s`.
pub(crate) mod time {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(d)?;
        let hint = |_| de::Error::custom(format_args!("{text:?} is not a time; write 250ms or 30s"));
        humantime::parse_duration(&text).map_err(hint)
    }
}

mod optional_time {
    use std::time::Duration;

    use serde::Deserializer;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        super::time::deserialize(d).map(Some)
    }
}
