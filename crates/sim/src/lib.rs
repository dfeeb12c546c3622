//! The policies of the platform in virtual time, with modelled workers and a seed.
//!
//! [`run`] plays a [`Scenario`] (who calls, how long calls and starts take) against the very
//! pool policy that the server uses and gives a [`Report`]. Nothing waits and nothing is random
//! beyond the seed: the same scenario gives the same report, byte for byte. A minute of a busy
//! function takes milliseconds, so questions such as "what if `max` were 8" have quick answers,
//! and the cases that the policies must meet are tests.

mod distribution;
mod report;
mod scenario;
mod world;

pub use distribution::Distribution;
pub use report::{Percentiles, Report, Sample, Summary, WorkerSummary};
pub use scenario::{Function, Process, Scenario, ScenarioError, Stream};
pub use world::run;

/// The scenarios that come with the platform: name and text.
pub const SCENARIOS: [(&str, &str); 5] = [
    ("step", include_str!("../scenarios/step.toml")),
    ("step-poisson", include_str!("../scenarios/step-poisson.toml")),
    ("overload", include_str!("../scenarios/overload.toml")),
    ("fairness", include_str!("../scenarios/fairness.toml")),
    ("priority", include_str!("../scenarios/priority.toml")),
];
