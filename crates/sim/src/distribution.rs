//! How long things take.

use std::time::Duration;

use fastrand::Rng;
use serde::Deserialize;

use crate::scenario::{ScenarioError, time};

/// A distribution of times.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
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
        }
    }

    pub(crate) fn check(&self, field: &str) -> Result<(), ScenarioError> {
        let refuse =
            |message: &str| Err(ScenarioError::Value { field: field.into(), message: message.into() });
        match *self {
            Self::Lognormal { sigma, .. } if !(0.0..=5.0).contains(&sigma) => {
                refuse("sigma must be within 0 and 5")
            }
            Self::Bimodal { slow_percent, .. } if !(0.0..=100.0).contains(&slow_percent) => {
                refuse("slow_percent must be within 0 and 100")
            }
            Self::Pareto { shape, .. } if !(shape > 0.0 && shape <= 100.0) => {
                refuse("shape must be above 0 and at most 100")
            }
            _ => Ok(()),
        }
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
