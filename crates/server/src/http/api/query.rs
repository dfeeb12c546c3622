//! `GET /query`: counts, rates and percentiles of many calls, grouped by what is asked.

use std::sync::Arc;

use axum::extract::State;
use fp_core::Scope;
use fp_core::query::{Query, Row};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::extract::{Answer, ApiQuery, wrong_parameter};
use super::time::rfc3339;
use crate::app::App;
use crate::history;
use crate::http::caller::Caller;
use crate::http::problem::Problem;
use crate::http::question::{self, in_unit, name_of, unit_of, value_of};

pub(super) fn routes() -> UtoipaMethodRouter<Arc<App>> {
    routes!(query_calls)
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Question {
    /// The question. Empty: all calls of the last hour in one row.
    #[param(example = "outcome != \"ok\" and phase.queue > 50ms since 1h group by function")]
    q: String,
}

/// The answer to a question.
#[derive(Debug, Serialize, ToSchema)]
struct QueryAnswer {
    /// One for each combination of the values that are grouped by, in the question's order.
    items: Vec<QueryRow>,
    /// Rows that the question's limit left out.
    left_out: usize,
    /// The calls arrived at this time or later.
    #[schema(format = DateTime)]
    from: String,
    /// And before this time.
    #[schema(format = DateTime)]
    to: String,
    /// Whether all of the time that was asked for was looked at. If not, what is between `from` and `to` was.
    whole: bool,
    /// What is grouped by.
    group_by: Vec<String>,
    /// What mean, percentiles and maximum are of.
    #[schema(example = "duration")]
    measure: String,
    /// The unit of them: `ms`, `bytes`, or none.
    unit: Option<String>,
}

/// A row of an answer.
#[derive(Debug, Serialize, ToSchema)]
struct QueryRow {
    /// What is alike in its calls, by field: texts, numbers (times in milliseconds), truths, or null.
    #[schema(value_type = Object)]
    group: Map<String, Value>,
    /// Ended calls. Those that history kept a sample of are counted as many as they stand for.
    count: u64,
    /// Calls per second.
    rate: f64,
    /// Calls that were bad for the availability objective.
    failed: u64,
    /// Their part of all, 0 to 1.
    failed_share: f64,
    /// Mean of the measure; null where no call has it.
    mean: Option<f64>,
    /// Percentiles of it, within a 128th.
    p50: Option<f64>,
    p90: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
    p99_9: Option<f64>,
    /// Its largest value.
    max: Option<f64>,
    /// The trace of the call with that.
    slowest_trace_id: Option<String>,
}

impl QueryAnswer {
    fn of(query: &Query, answer: &history::Answer) -> Self {
        let seconds = answer.to_us.saturating_sub(answer.from_us).max(1) as f64 / 1e6;
        Self {
            items: answer.rows.iter().map(|row| QueryRow::of(query, row, seconds)).collect(),
            left_out: answer.left_out,
            from: rfc3339(answer.from_us),
            to: rfc3339(answer.to_us),
            whole: answer.is_whole,
            group_by: query.group_by.iter().map(|by| name_of(*by).to_owned()).collect(),
            measure: query.measure.name().to_owned(),
            unit: unit_of(query.measure).map(str::to_owned),
        }
    }
}

impl QueryRow {
    fn of(query: &Query, row: &Row, seconds: f64) -> Self {
        let value = |value: f64| in_unit(query.measure, value);
        let percentile = |per_mille| row.spread.percentile(per_mille).map(value);
        let fields = query.group_by.iter().zip(&row.key);
        Self {
            group: fields.map(|(by, key)| (name_of(*by).to_owned(), value_of(*by, key))).collect(),
            count: row.count,
            rate: (row.count as f64 / seconds * 1e3).round() / 1e3,
            failed: row.failed,
            failed_share: row.failed_share(),
            mean: row.spread.mean().map(value),
            p50: percentile(500),
            p90: percentile(900),
            p95: percentile(950),
            p99: percentile(990),
            p99_9: percentile(999),
            max: row.spread.max().map(|max| value(max as f64)),
            slowest_trace_id: row.slowest.map(|trace| trace.to_string()),
        }
    }
}

/// Ask about many calls.
///
/// Which calls, in which time, grouped by which fields of their records: counts, rates, failures and
/// percentiles of each group, and the trace of its slowest call. The operator asks about every tenant's
/// calls at once, unless they act for one. `docs/query.md` has the fields and the grammar.
#[utoipa::path(
    get,
    path = "/query",
    tag = "invocations",
    params(Question),
    responses((status = 200, description = "The answer", body = QueryAnswer))
)]
async fn query_calls(
    State(app): State<Arc<App>>,
    caller: Caller,
    ApiQuery(Question { q }): ApiQuery<Question>,
) -> Result<Answer<QueryAnswer>, Problem> {
    caller.require(Scope::Read)?;
    let (query, answer) =
        question::ask(&app, &caller, &q).await.map_err(|error| wrong_parameter("q", error))?;
    Ok(Answer(QueryAnswer::of(&query, &answer)))
}
