//! `GET /functions/{name}/scaling`: what the workers of a function are reckoned with, and the
//! latest decisions about them in words.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use fp_core::Scope;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::extract::{Answer, NamePath, no_function};
use super::time::rfc3339;
use crate::app::App;
use crate::catalog::Deployed;
use crate::http::caller::Caller;
use crate::http::openapi;
use crate::http::problem::Problem;

pub(super) fn routes() -> UtoipaMethodRouter<Arc<App>> {
    routes!(get_scaling)
}

/// The workers of a version and what decides about them.
#[derive(Debug, Serialize, ToSchema)]
struct ScalingReport {
    /// The function.
    #[schema(example = "cats")]
    function: String,
    /// Its version.
    #[schema(example = 1)]
    version: u32,
    /// Workers without a call.
    idle: u32,
    /// Workers with a call.
    busy: u32,
    /// Workers on their way.
    starting: u32,
    /// Workers that are kept: `scaling.min`, or more by schedule.
    kept: u32,
    /// The most that there may be.
    max: u32,
    /// Workers that the calls need, by Erlang's formula from arrivals, run times and the objective; null while too
    /// little is known.
    wanted: Option<u32>,
    /// Calls that run.
    running: u32,
    /// Calls that wait.
    queued: u32,
    /// Calls per second: the most of what the last seconds and the last minute show.
    arrivals_per_second: f64,
    /// Mean of the latest run times.
    run_mean_ms: Option<f64>,
    /// How long a start takes.
    start_ms: f64,
    /// How long a call that comes now waits; null if for ever.
    expected_wait_ms: Option<f64>,
    /// How long calls may wait when the queue stands; null while too little is known.
    delay_target_ms: Option<f64>,
    /// Whether calls are refused now because they would wait longer.
    standing: bool,
    /// How long the last worker is kept after a call, where the platform chooses (`scaling.idle = "auto"`).
    keep_s: Option<f64>,
    /// How long after a call none is needed, where that is known.
    warm_after_s: Option<f64>,
    /// The pauses between calls that these are chosen by; null where a fixed time holds.
    pauses: Option<u32>,
    /// The latest decisions, the newest first; at most 64.
    decisions: Vec<ScalingDecision>,
}

/// A decision and what it was made from.
#[derive(Debug, Serialize, ToSchema)]
struct ScalingDecision {
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// What kind: `start`, `retire`, `make_room`, `start_failed`, `start_denied`, `standing`, `drained`, `floor`
    /// or `keep`.
    #[schema(example = "start")]
    what: String,
    /// In words, with its inputs.
    sentence: String,
    /// Workers then, starting ones included.
    workers: u32,
    /// Calls per second then.
    arrivals_per_second: f64,
    /// Mean run time then.
    run_mean_ms: f64,
    /// Workers that the calls needed then.
    wanted: Option<u32>,
}

impl ScalingReport {
    fn of(function: &Deployed) -> Self {
        let (view, decisions) = function.scaling();
        let decision = |(at, entry): &(u64, fp_core::pool::Entry)| ScalingDecision {
            at: rfc3339(*at),
            what: entry.act.word().to_owned(),
            sentence: entry.to_string(),
            workers: entry.workers,
            arrivals_per_second: rounded(entry.arrivals),
            run_mean_ms: ms(entry.run),
            wanted: entry.wanted,
        };
        let keep = view.keep;
        Self {
            function: function.name.to_string(),
            version: function.version.0,
            idle: view.pool.idle,
            busy: view.pool.busy,
            starting: view.pool.starting,
            kept: view.floor,
            max: view.max,
            wanted: view.wanted,
            running: view.pool.running,
            queued: view.pool.queued,
            arrivals_per_second: rounded(view.arrivals),
            run_mean_ms: view.run_mean.map(ms),
            start_ms: ms(view.start),
            expected_wait_ms: Some(view.pool.expected_wait).filter(|wait| *wait < Duration::MAX).map(ms),
            delay_target_ms: view.delay_target.map(ms),
            standing: view.standing,
            keep_s: keep.map(|choice| rounded(choice.keep.as_secs_f64())),
            warm_after_s: keep.and_then(|choice| choice.warm_after).map(|after| rounded(after.as_secs_f64())),
            pauses: keep.map(|choice| choice.pauses).filter(|pauses| *pauses > 0),
            decisions: decisions.iter().rev().map(decision).collect(),
        }
    }
}

/// To a thousandth.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn ms(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e3)
}

/// See why a function has the workers that it has.
///
/// What the policy reckons with, and its latest decisions with their inputs, in words.
#[utoipa::path(
    get,
    path = "/functions/{name}/scaling",
    tag = "functions",
    params(openapi::NameParam),
    responses((status = 200, description = "Workers, inputs and decisions", body = ScalingReport))
)]
async fn get_scaling(
    State(app): State<Arc<App>>,
    caller: Caller,
    NamePath(name): NamePath,
) -> Result<Answer<ScalingReport>, Problem> {
    caller.require(Scope::Read)?;
    let function = app.catalog.get(&caller.tenant, &name);
    let function = function.ok_or_else(|| no_function(name.as_str()))?;
    Ok(Answer(ScalingReport::of(&function)))
}
