//! How long things take.
//!
//! In a scenario a text (`"10ms"`) is a fixed time, and a table names its kind.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, de};

use crate::scenario::{ScenarioError, time};
use crate::trace;

/// A distribution of times.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(remote = "Self", tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Distribution {
    /// Always the same.
    Fixed {
        /// The time.
        #[serde(with = "time")]
        time: Duration,
    },
    /// Memoryless: many short, few long.
    Exponential {
        /// Mean.
        #[serde(with = "time")]
        mean: Duration,
    },
    /// The usual shape of run times: a body with a long right tail.
    Lognormal {
        /// Median.
        #[serde(with = "time")]
        median: Duration,
        /// Standard deviation of the logarithm; 0.5 is mild, 1.5 is wild.
        sigma: f64,
    },
    /// Fast, and sometimes slow.
    Bimodal {
        /// The usual time.
        #[serde(with = "time")]
        fast: Duration,
        /// The other time.
        #[serde(with = "time")]
        slow: Duration,
        /// How many of a hundred are slow.
        slow_percent: f64,
    },
    /// A power law: no time is so long that a longer one could not come.
    Pareto {
        /// The shortest.
        #[serde(with = "time")]
        least: Duration,
        /// The smaller, the heavier the tail; the mean exists above 1.
        shape: f64,
    },
    /// Times that were measured, each as likely as the others.
    Empirical {
        /// Them, in milliseconds.
        #[serde(default)]
        values_ms: Vec<f64>,
        /// A file that holds them, one a line, or as the second field of recorded arrivals.
        #[serde(default)]
        file: Option<String>,
    },
}

impl Distribution {
    /// Draws a time.
    pub fn sample(&self, rng: &mut Rng) -> Duration {
        match *self {
            Self::Fixed { time } => time,
            Self::Exponential { mean } => scaled(mean, -positive_unit(rng).ln()),
            Self::Lognormal { median, sigma } => scaled(median, (sigma * standard_normal(rng)).exp()),
            Self::Bimodal { fast, slow, slow_percent } => {
                if rng.f64() * 100.0 < slow_percent {
                    slow
                } else {
                    fast
                }
            }
            Self::Pareto { least, shape } => scaled(least, positive_unit(rng).powf(-1.0 / shape)),
            Self::Empirical { ref values_ms, .. } => {
                let drawn = values_ms.get(rng.usize(..values_ms.len().max(1)));
                drawn.and_then(|ms| trace::milliseconds(*ms)).unwrap_or_default()
            }
        }
    }

    /// Takes in the measured times of a file; `read` gets its name.
    pub(crate) fn fill(&mut self, read: impl FnOnce(&str) -> Result<String, String>) -> Result<(), String> {
        let Self::Empirical { values_ms, file: Some(file) } = self else { return Ok(()) };
        let calls = trace::read_trace(&read(file)?).map_err(|why| format!("{file}, {why}"))?;
        let has_service = calls.iter().any(|call| call.service.is_some());
        let times =
            calls.iter().filter_map(|call| if has_service { call.service } else { Some(call.arrival) });
        values_ms.extend(times.map(|time| time.as_micros() as f64 / 1000.0));
        Ok(())
    }

    pub(crate) fn check(&self, field: &str) -> Result<(), ScenarioError> {
        let refuse = |key: &str, message: &str| Err(ScenarioError::value(format!("{field}.{key}"), message));
        match *self {
            Self::Lognormal { sigma, .. } if !(0.0..=5.0).contains(&sigma) => {
                refuse("sigma", "must be within 0 and 5")
            }
            Self::Bimodal { slow_percent, .. } if !(0.0..=100.0).contains(&slow_percent) => {
                refuse("slow_percent", "must be within 0 and 100")
            }
            Self::Pareto { shape, .. } if !(shape > 0.0 && shape <= 100.0) => {
                refuse("shape", "must be above 0 and at most 100")
            }
            Self::Empirical { ref values_ms, .. } if values_ms.is_empty() => {
                refuse("values_ms", "is empty; give measured times, or a file of them")
            }
            Self::Empirical { ref values_ms, .. }
                if values_ms.iter().any(|ms| trace::milliseconds(*ms).is_none()) =>
            {
                refuse("values_ms", "must be milliseconds, none below 0")
            }
            _ => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for Distribution {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TimeOrTable)
    }
}

struct TimeOrTable;

impl<'de> de::Visitor<'de> for TimeOrTable {
    type Value = Distribution;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time such as \"10ms\" or a table with a kind")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Distribution, E> {
        time::parse(text).map(|time| Distribution::Fixed { time }).map_err(E::custom)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Distribution, A::Error> {
        Distribution::deserialize(MapAccessDeserializer::new(map))
    }
}

/// At most a day, so that a tail without end has one.
fn scaled(time: Duration, factor: f64) -> Duration {
    Duration::from_secs_f64((time.as_secs_f64() * factor).clamp(0.0, 86_400.0))
}

/// Uniform in (0, 1].
pub(crate) fn positive_unit(rng: &mut Rng) -> f64 {
    1.0 - rng.f64()
}

/// Box and Muller's transformation.
fn standard_normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * positive_unit(rng).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Median and mean of many draws, in milliseconds.
    fn middle_and_mean(distribution: &Distribution) -> (f64, f64) {
        let mut rng = Rng::with_seed(7);
        let mut draws: Vec<f64> =
            (0..100_000).map(|_| distribution.sample(&mut rng).as_secs_f64() * 1000.0).collect();
        draws.sort_by(f64::total_cmp);
        (draws[50_000], draws.iter().sum::<f64>() / draws.len() as f64)
    }

    #[test]
    fn draws_have_the_medians_and_means_of_theory() {
        let ms = Duration::from_millis(100);
        for (distribution, median, mean) in [
            (Distribution::Fixed { time: ms }, 100.0, 100.0),
            (Distribution::Exponential { mean: ms }, 69.31, 100.0),
            (Distribution::Lognormal { median: ms, sigma: 0.5 }, 100.0, 113.31),
            (Distribution::Bimodal { fast: ms, slow: 2 * ms, slow_percent: 10.0 }, 100.0, 110.0),
            (Distribution::Pareto { least: ms, shape: 3.0 }, 125.99, 150.0),
        ] {
            let drawn = middle_and_mean(&distribution);
            assert!((drawn.0 / median - 1.0).abs() < 0.015, "{distribution:?}: median {}", drawn.0);
            assert!((drawn.1 / mean - 1.0).abs() < 0.015, "{distribution:?}: mean {}", drawn.1);
        }
    }
}
