//! The policies of the platform in virtual time, with modelled workers and a seed.
//!
//! [`run`] plays a [`Scenario`] (who calls, how long calls and starts take) against the very
//! pool policy that the server uses and gives a [`Report`]. Nothing waits and nothing is random
//! beyond the seed: the same scenario gives the same report, byte for byte. A minute of a busy
//! function takes milliseconds, so questions such as "what if `max` were 8" have quick answers,
//! and the cases that the policies must meet are tests.
//!
//! ```
//! let scenario = fp_sim::Scenario::parse(
//!     r#"
//!     name = "ten a second"
//!     duration = "60s"
//!     [function]
//!     service = { kind = "exponential", mean = "200ms" }
//!     start = "50ms"
//!     [[streams]]
//!     name = "callers"
//!     rate = 10
//!     "#,
//! )?;
//! let report = fp_sim::run(&scenario);
//! assert_eq!(report.total.answered, report.total.offered);
//! assert!((report.workers.mean_running - 2.0).abs() < 0.3);
//! # Ok::<(), fp_sim::ScenarioError>(())
//! ```

mod distribution;
mod histogram;
mod report;
mod scenario;
mod trace;
mod world;

pub use distribution::Distribution;
pub use report::{HedgeSummary, Objective, Percentiles, Point, Report, Sample, Summary, WorkerSummary};
pub use scenario::{
    Burst, Change, Diurnal, Function, Incident, Interrupted, Pause, Process, Scaler, Scenario, ScenarioError,
    SlowWorkers, Step, Stream,
};
pub use trace::{Recorded, read_trace};
pub use world::run;

/// The scenarios that come with the platform: name and text.
pub const SCENARIOS: [(&str, &str); 9] = [
    ("step", include_str!("../scenarios/step.toml")),
    ("step-poisson", include_str!("../scenarios/step-poisson.toml")),
    ("burst", include_str!("../scenarios/burst.toml")),
    ("day", include_str!("../scenarios/day.toml")),
    ("overload", include_str!("../scenarios/overload.toml")),
    ("fairness", include_str!("../scenarios/fairness.toml")),
    ("priority", include_str!("../scenarios/priority.toml")),
    ("tail", include_str!("../scenarios/tail.toml")),
    ("unhealthy", include_str!("../scenarios/unhealthy.toml")),
];
