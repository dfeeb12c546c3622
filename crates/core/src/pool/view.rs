//! What a pool looks like from outside at one moment: numbers of workers and calls, and the times
//! that the policy reckons with. Made by [`super::Pool::view`]; nothing decides by it.

use std::time::Duration;

use serde::Serialize;

/// A pool in figures, for pages and `explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct PoolView {
    /// Workers with no call.
    pub idle: u32,
    /// Workers with at least one call.
    pub busy: u32,
    /// Workers on their way.
    pub starting: u32,
    /// Calls waiting.
    pub queued: u32,
    /// Calls running.
    pub running: u32,
    /// Median of the latest run times; none before the first.
    pub run_p50: Option<Duration>,
    /// Median of the latest start times; none before the first.
    pub start_p50: Option<Duration>,
    /// How long a call that arrived now would wait.
    pub expected_wait: Duration,
    /// Starts that failed since the last good one.
    pub start_failures: u32,
}
