//! Objectives of functions: how they stand, how their budgets went, and their alerts.

use std::sync::Arc;

use axum::extract::State;
use fp_core::slo::Culprit;
use fp_core::{FunctionName, Scope};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::extract::{Answer, ApiQuery, NamePath, no_function, wrong_parameter};
use super::time::rfc3339;
use crate::app::App;
use crate::http::caller::Caller;
use crate::http::openapi;
use crate::http::problem::Problem;
use crate::slo::{AlertRecord, SloView};

/// Points of a budget's course: a day each in a month, some hours in a week; a terminal's line has
/// room for them.
const POINTS: u32 = 30;

pub(super) fn routes() -> [UtoipaMethodRouter<Arc<App>>; 3] {
    [routes!(list_objectives), routes!(list_alerts), routes!(get_objective)]
}

/// A function's objective.
#[derive(Debug, Serialize, ToSchema)]
struct FunctionObjective {
    /// The function.
    #[schema(example = "hello")]
    function: String,
    /// How it stands.
    slo: SloView,
    /// How many of its alerts fire.
    firing: usize,
}

/// The objectives of a tenant's functions.
#[derive(Debug, Serialize, ToSchema)]
struct ObjectivePage {
    /// In the order of the functions' names; functions without an objective are left out.
    items: Vec<FunctionObjective>,
    /// Always null: the list is complete.
    #[schema(value_type = Option<String>)]
    next: Option<()>,
}

/// The course of an error budget over its window.
#[derive(Debug, Serialize, ToSchema)]
struct BudgetCourse {
    /// `availability` or `latency`.
    objective: &'static str,
    /// The share left at the end of each of thirty equal parts of the window, the last of which ends now; measured by
    /// what all of the window's calls allow. Empty without calls.
    left: Vec<f64>,
}

/// A function's objective with the course of its budget and its alerts.
#[derive(Debug, Serialize, ToSchema)]
struct ObjectiveDetail {
    /// The function.
    #[schema(example = "hello")]
    function: String,
    /// How it stands.
    slo: SloView,
    /// How the budgets went.
    budget: Vec<BudgetCourse>,
    /// The newest hundred alerts, those that fire included, the newest first.
    alerts: Vec<SloAlert>,
}

/// An alert from its beginning on.
#[derive(Debug, Serialize, ToSchema)]
struct SloAlert {
    /// Unique within the tenant.
    #[schema(example = "hello:availability:page-1h:1767225652")]
    id: String,
    /// Of which function.
    #[schema(example = "hello")]
    function: String,
    /// `availability` or `latency`.
    objective: &'static str,
    /// `page` or `ticket`.
    severity: &'static str,
    /// `firing` or `ended`.
    state: &'static str,
    /// Whether a silence keeps those from it who would be told.
    silenced: bool,
    /// The long window.
    long: &'static str,
    /// The short window.
    short: &'static str,
    /// The burn rate that both exceeded.
    factor: f64,
    /// Burn rate of the long window when it began.
    burn_long: f64,
    /// Burn rate of the short window when it began.
    burn_short: f64,
    /// Bad calls in the long window when it began.
    bad: u64,
    /// When it began.
    #[schema(format = DateTime)]
    began_at: String,
    /// When its condition held last; null while it fires.
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    /// What broke it; null until that was looked for, or when history has none of the calls.
    culprit: Option<AlertCulprit>,
    /// Calls that spent the budget, the newest before its beginning first; at most twenty.
    calls: Vec<AlertCall>,
}

/// Where most of the calls went wrong that spent a budget.
#[derive(Debug, Serialize, ToSchema)]
struct AlertCulprit {
    /// `route`, `queue`, `start`, `run` or `send`.
    phase: String,
    /// The author's span within `run`, if it is one's.
    span: Option<String>,
    /// Bad calls that point at it.
    calls: u64,
    /// Bad calls that were looked at.
    of: u64,
    /// What it took beyond its median in good calls, on average, in milliseconds.
    excess_ms: f64,
}

/// A call that spent an error budget.
#[derive(Debug, Serialize, ToSchema)]
struct AlertCall {
    /// The invocation.
    id: String,
    /// Its trace.
    trace_id: String,
    /// The outcome's word.
    outcome: String,
    /// The reason behind the word.
    reason: Option<String>,
    /// Arrival.
    #[schema(format = DateTime)]
    started_at: String,
    /// The whole call, in milliseconds.
    duration_ms: f64,
}

/// Alerts, the newest first.
#[derive(Debug, Serialize, ToSchema)]
struct AlertPage {
    /// Of each function the newest hundred.
    items: Vec<SloAlert>,
    /// Always null: the list is complete.
    #[schema(value_type = Option<String>)]
    next: Option<()>,
}

/// Which alerts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AlertQuery {
    /// Alerts of this function.
    #[param(pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$", example = "cats")]
    function: Option<String>,
    /// Those that fire, or those that ended.
    #[param(value_type = Option<openapi::AlertStateWord>, inline)]
    state: Option<String>,
}

impl SloAlert {
    fn of(record: AlertRecord, silenced: bool) -> Self {
        let call = |call: crate::slo::BadCall| AlertCall {
            id: call.id.to_string(),
            trace_id: call.trace_id.to_string(),
            outcome: call.outcome.into(),
            reason: call.reason.map(Into::into),
            started_at: rfc3339(call.started_us),
            duration_ms: call.duration_us as f64 / 1e3,
        };
        Self {
            function: record.function.to_string(),
            objective: record.objective.word(),
            severity: record.severity.word(),
            state: state(&record),
            silenced,
            long: record.long(),
            short: record.short(),
            factor: record.factor,
            burn_long: record.burn_long,
            burn_short: record.burn_short,
            bad: record.bad,
            began_at: rfc3339(record.began_us),
            ended_at: record.ended_us.map(rfc3339),
            culprit: record.culprit.map(AlertCulprit::of),
            calls: record.calls.into_iter().map(call).collect(),
            id: record.id,
        }
    }
}

impl AlertCulprit {
    fn of(culprit: Culprit) -> Self {
        let Culprit { phase, span, calls, of, excess_ms } = culprit;
        Self { phase: phase.into(), span: span.map(Into::into), calls, of, excess_ms }
    }
}

/// An alert as the API shows it, for those who are told.
pub(crate) fn alert_document(record: AlertRecord) -> serde_json::Value {
    serde_json::to_value(SloAlert::of(record, false)).unwrap_or_default()
}

fn shown(app: &App, caller: &Caller, alerts: Vec<AlertRecord>) -> Vec<SloAlert> {
    let show = |alert: AlertRecord| {
        let silenced = alert.ended_us.is_none() && app.slo.is_silent(&caller.tenant, &alert);
        SloAlert::of(alert, silenced)
    };
    alerts.into_iter().map(show).collect()
}

fn state(record: &AlertRecord) -> &'static str {
    if record.ended_us.is_none() { "firing" } else { "ended" }
}

/// List the objectives of functions and how they stand.
#[utoipa::path(
    get,
    path = "/slo",
    tag = "slo",
    responses((status = 200, description = "The objectives", body = ObjectivePage))
)]
async fn list_objectives(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Answer<ObjectivePage>, Problem> {
    caller.require(Scope::Read)?;
    let now_us = app.clock.wall_now_us();
    let alerts = app.slo.alerts(&caller.tenant, None);
    let objective = |name: &FunctionName| {
        let slo = app.slo.get(&caller.tenant, name)?.slo(now_us)?;
        let fires = |alert: &&AlertRecord| alert.function == *name && alert.ended_us.is_none();
        let firing = alerts.iter().filter(fires).count();
        Some(FunctionObjective { function: name.to_string(), slo, firing })
    };
    let mut items: Vec<_> =
        app.catalog.list(&caller.tenant).iter().filter_map(|function| objective(&function.name)).collect();
    items.sort_by(|a, b| a.function.cmp(&b.function));
    Ok(Answer(ObjectivePage { items, next: None }))
}

/// List alerts, those that fire and those that did.
///
/// An alert begins when both of its windows burn faster than its factor, and with as many bad calls as
/// chance hardly gives. It ends once that has not been so for a fifth of the short window.
#[utoipa::path(
    get,
    path = "/slo/alerts",
    tag = "slo",
    params(AlertQuery),
    responses((status = 200, description = "The alerts", body = AlertPage))
)]
async fn list_alerts(
    State(app): State<Arc<App>>,
    caller: Caller,
    ApiQuery(query): ApiQuery<AlertQuery>,
) -> Result<Answer<AlertPage>, Problem> {
    caller.require(Scope::Read)?;
    let wanted = query.state.as_deref();
    if wanted.is_some_and(|word| !["firing", "ended"].contains(&word)) {
        return Err(wrong_parameter("state", "state is firing or ended"));
    }
    let name = query.function.map(|name| name.parse::<FunctionName>()).transpose();
    let name = name.map_err(|error| wrong_parameter("function", error.to_string()))?;
    let mut alerts = app.slo.alerts(&caller.tenant, name.as_ref());
    alerts.retain(|alert| wanted.is_none_or(|word| word == state(alert)));
    Ok(Answer(AlertPage { items: shown(&app, &caller, alerts), next: None }))
}

/// Look at a function's objective: how it stands, how its budget went, its alerts.
#[utoipa::path(
    get,
    path = "/slo/functions/{name}",
    tag = "slo",
    params(openapi::NameParam),
    responses((status = 200, description = "The objective", body = ObjectiveDetail))
)]
async fn get_objective(
    State(app): State<Arc<App>>,
    caller: Caller,
    NamePath(name): NamePath,
) -> Result<Answer<ObjectiveDetail>, Problem> {
    caller.require(Scope::Read)?;
    let now_us = app.clock.wall_now_us();
    let function = app.catalog.get(&caller.tenant, &name).ok_or_else(|| no_function(name.as_str()))?;
    let book = app.slo.get(&function.tenant, &function.name);
    let stands = book.and_then(|book| Some((book.slo(now_us)?, book.burn_down(now_us, POINTS))));
    let Some((slo, budget)) = stands else {
        let detail = format!("{name} has no objective");
        return Err(Problem::new(fp_core::code::Code::NotFound, detail));
    };
    let course =
        |(indicator, left): (fp_core::slo::Indicator, _)| BudgetCourse { objective: indicator.word(), left };
    Ok(Answer(ObjectiveDetail {
        function: name.to_string(),
        slo,
        budget: budget.into_iter().map(course).collect(),
        alerts: shown(&app, &caller, app.slo.alerts(&caller.tenant, Some(&name))),
    }))
}
