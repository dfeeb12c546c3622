//! What pages, the API and metrics see of a function's book.

use serde::Serialize;
use utoipa::ToSchema;

/// How many calls ended in one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct OutcomeCount {
    /// The outcome's word.
    pub outcome: &'static str,
    /// Calls in the last 60 minutes.
    pub last_hour: u64,
    /// Calls since the function was created.
    pub total: u64,
}

/// How many calls ended in one way for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ReasonCount {
    /// The outcome's word.
    pub outcome: &'static str,
    /// The reason's word.
    pub reason: &'static str,
    /// Calls in the last 60 minutes.
    pub last_hour: u64,
    /// Calls since the function was created.
    pub total: u64,
}

/// One minute of a function.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct MinuteView {
    /// Calls that ended in it.
    pub calls: u64,
    /// Of these, calls that count as bad in the availability SLI.
    pub errors: u64,
    /// 99th percentile of their durations, in milliseconds; none without calls.
    pub p99_ms: Option<f64>,
    /// 99th percentile of how long its calls waited for a worker, in milliseconds; none without calls.
    pub queue_p99_ms: Option<f64>,
    /// Mean number of calls that ran at once.
    pub demand: f64,
    /// Mean number of workers.
    pub workers: f64,
}

/// Rates and percentiles of one function.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct FunctionView {
    /// Calls per second over the last minute.
    pub rate_per_second: f64,
    /// Calls since the function was created.
    pub calls: u64,
    /// Every outcome that occurred, in the order of the interface's table.
    pub outcomes: Vec<OutcomeCount>,
    /// Those of them that have a reason, by reason: refusals, missed deadlines.
    pub reasons: Vec<ReasonCount>,
    /// Share of bad calls among good and bad ones in the last 60 minutes (0–1).
    pub error_ratio: f64,
    /// Median of the last five to six minutes, in milliseconds; none without calls.
    pub p50_ms: Option<f64>,
    /// 90th percentile.
    pub p90_ms: Option<f64>,
    /// 99th percentile.
    pub p99_ms: Option<f64>,
    /// 99.9th percentile.
    pub p99_9_ms: Option<f64>,
    /// Slowest call.
    pub max_ms: Option<f64>,
    /// Median of warm calls only.
    pub warm_p50_ms: Option<f64>,
    /// Share of cold calls in the last 60 minutes (0–1).
    pub cold_share: f64,
    /// The last 60 minutes, oldest first; the last one is the current minute.
    pub minutes: Vec<MinuteView>,
}

/// The burn rate of one window: 1 spends the budget exactly in the objective's window.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct BurnRate {
    /// `5m`, `30m`, `1h`, `2h`, `6h`, `1d`, `3d`.
    pub window: &'static str,
    /// Error ratio of the window divided by the budget.
    pub availability: Option<f64>,
    /// The same of the latency objective.
    pub latency: Option<f64>,
}

/// A burn-rate condition that is crossed.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct AlertView {
    /// `availability` or `latency`.
    pub objective: &'static str,
    /// `page` or `ticket`.
    pub severity: &'static str,
    /// The long window.
    pub long: &'static str,
    /// The short window.
    pub short: &'static str,
    /// The factor that both windows exceed.
    pub factor: f64,
    /// Burn rate of the long window.
    pub burn: f64,
}

/// State of a latency objective.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LatencySloView {
    /// The threshold, in milliseconds.
    pub under_ms: f64,
    /// The share that must be under it, in percent.
    pub percent: f64,
    /// The share that was, in percent; none without calls.
    pub attained: Option<f64>,
    /// Calls under the threshold.
    pub good: u64,
    /// Calls over it.
    pub bad: u64,
    /// Share of the error budget that is left (1 untouched, negative when overspent).
    pub budget_left: f64,
}

/// State of a function's objective over its window.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct SloView {
    /// Days of the rolling window.
    pub window_days: u32,
    /// The availability objective, in percent.
    pub availability: Option<f64>,
    /// Availability attained, in percent; none without calls.
    pub attained: Option<f64>,
    /// Good calls.
    pub good: u64,
    /// Bad calls.
    pub bad: u64,
    /// Calls that count as neither, by the caller's doing.
    pub excluded: u64,
    /// Calls whose caller left.
    pub cancelled: u64,
    /// Share of the availability budget that is left (1 untouched, negative when overspent).
    pub budget_left: Option<f64>,
    /// What is left, in seconds of full outage.
    pub budget_seconds_left: Option<f64>,
    /// The latency objective.
    pub latency: Option<LatencySloView>,
    /// Burn rates by window, shortest first.
    pub burn: Vec<BurnRate>,
    /// Conditions that are crossed now.
    pub alerts: Vec<AlertView>,
}
