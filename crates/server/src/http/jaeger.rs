//! The query API of Jaeger (v1, JSON), so that its UI, Grafana and scripts can read our traces.
//!
//! A function is a service; the names of spans are operations. Reading only. Answers and errors
//! have Jaeger's own envelope, and parameters that it ignores are ignored here too.

mod model;
pub(in crate::http) mod search;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use fp_core::{FunctionName, Scope, Tenant, TraceId};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use self::model::{LogLines, Trace};
use self::search::{Parameters, Search};
use crate::app::App;
use crate::history::Filter;
use crate::http::caller::Caller;
use crate::http::problem::Problem;

/// Traces that are looked at to learn a service's operations: enough for each operation of a
/// function to appear, few enough to read in milliseconds.
const SAMPLE: usize = 100;

/// The routes under `/api` of the traces port, without the guard.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/api/services", get(list_services))
        .route("/api/services/{service}/operations", get(list_service_operations))
        .route("/api/operations", get(list_operations))
        .route("/api/traces", get(search_traces))
        .route("/api/traces/{id}", get(get_trace))
        .with_state(app)
}

/// Jaeger's envelope.
#[derive(Debug, Serialize)]
struct Envelope<T> {
    data: Option<Vec<T>>,
    total: usize,
    limit: usize,
    offset: usize,
    errors: Option<Vec<JaegerError>>,
}

/// An error as Jaeger words it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct JaegerError {
    code: u16,
    msg: String,
}

impl JaegerError {
    fn bad_request(msg: impl Into<String>) -> Self {
        Self { code: 400, msg: msg.into() }
    }

    fn not_found() -> Self {
        Self { code: 404, msg: "trace not found".to_owned() }
    }
}

impl IntoResponse for JaegerError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code).unwrap_or(StatusCode::BAD_REQUEST);
        let errors = Some(vec![self]);
        envelope(status, &Envelope::<()> { data: None, total: 0, limit: 0, offset: 0, errors })
    }
}

fn answer<T: Serialize>(data: Vec<T>) -> Response {
    let total = data.len();
    envelope(StatusCode::OK, &Envelope { data: Some(data), total, limit: 0, offset: 0, errors: None })
}

fn envelope<T: Serialize>(status: StatusCode, envelope: &Envelope<T>) -> Response {
    let json = serde_json::to_vec(envelope).expect("Jaeger's answers have string keys only");
    (status, [(CONTENT_TYPE, "application/json")], json).into_response()
}

/// Functions that are deployed, and those that recent traces speak of.
async fn list_services(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let tenant = caller.tenant;
    let mut services: BTreeSet<_> = app.catalog.list(&tenant).iter().map(|f| f.name.to_string()).collect();
    let recent = app.history.search_traces(&tenant, &Filter { limit: SAMPLE, ..Filter::default() }).await;
    for trace in recent {
        services.extend(trace.functions.iter().map(|(name, _)| name.to_string()));
    }
    Ok(answer(services.into_iter().collect()))
}

async fn list_service_operations(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(service): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let operations = operations(&app, &caller.tenant, &service).await;
    Ok(answer(operations.into_iter().map(|(name, _)| name).collect()))
}

/// An operation with the kind of its spans.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Operation {
    name: String,
    span_kind: &'static str,
}

async fn list_operations(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let parameters = Parameters::parse(query.as_deref());
    let Some(service) = parameters.first("service") else {
        return Ok(JaegerError::bad_request("parameter 'service' is required").into_response());
    };
    let wanted = parameters.first("spanKind").filter(|kind| !kind.is_empty());
    let all = operations(&app, &caller.tenant, service).await.into_iter();
    let of_kind = all.filter(|(_, kind)| wanted.is_none_or(|wanted| wanted == *kind));
    Ok(answer(of_kind.map(|(name, span_kind)| Operation { name, span_kind }).collect()))
}

/// Names and kinds of the spans in a service's recent traces.
async fn operations(app: &App, tenant: &Tenant, service: &str) -> BTreeSet<(String, &'static str)> {
    let Ok(function) = service.parse::<FunctionName>() else { return BTreeSet::new() };
    let filter = Filter { function: Some(function), limit: SAMPLE, ..Filter::default() };
    let mut operations = BTreeSet::new();
    for trace in load(app, tenant, &filter).await {
        operations.extend(trace.operations_of(service));
    }
    operations
}

async fn search_traces(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let tenant = &caller.tenant;
    let parameters = Parameters::parse(query.as_deref());
    let ids: Vec<_> = parameters.all("traceID").collect();
    if !ids.is_empty() {
        return Ok(traces_by_id(&app, tenant, &ids).await);
    }
    let search = match Search::read(&parameters, app.clock.wall_now_us()) {
        Ok(search) => search,
        Err(error) => return Ok(error.into_response()),
    };
    let mut found = load(&app, tenant, &search.filter()).await;
    found.retain(|trace| search.matches(trace));
    found.truncate(search.limit);
    Ok(answer(found))
}

/// The traces that pass a filter, newest first, without log lines: a list needs none.
async fn load(app: &App, tenant: &Tenant, filter: &Filter) -> Vec<Trace> {
    let mut traces = Vec::new();
    for summary in app.history.search_traces(tenant, filter).await {
        // It may have been dropped from the ring since it was listed.
        if let Some(calls) = app.history.trace(tenant, summary.trace_id).await {
            traces.push(Trace::of(summary.trace_id, &calls, LogLines::LeaveOut));
        }
    }
    traces
}

async fn traces_by_id(app: &App, tenant: &Tenant, ids: &[&str]) -> Response {
    let mut traces = Vec::new();
    for id in ids {
        match find(app, tenant, id).await {
            Ok(trace) => traces.push(trace),
            Err(error) if error.code == 404 => {}
            Err(error) => return error.into_response(),
        }
    }
    answer(traces)
}

async fn get_trace(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    Ok(match find(&app, &caller.tenant, &id).await {
        Ok(trace) => answer(vec![trace]),
        Err(error) => error.into_response(),
    })
}

async fn find(app: &App, tenant: &Tenant, id: &str) -> Result<Trace, JaegerError> {
    let trace_id = read_trace_id(id)?;
    let calls = app.history.trace(tenant, trace_id).await;
    let calls = calls.filter(|calls| !calls.is_empty()).ok_or_else(JaegerError::not_found)?;
    Ok(Trace::of(trace_id, &calls, LogLines::Include))
}

/// Jaeger's clients leave out leading zeros and may write capitals.
fn read_trace_id(text: &str) -> Result<TraceId, JaegerError> {
    let padded = format!("{:0>32}", text.to_ascii_lowercase());
    let read = padded.parse().ok().filter(|id: &TraceId| id.0 != [0; 16]);
    read.ok_or_else(|| JaegerError::bad_request(format!("{text:?} is not a trace id")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_ids_may_lack_leading_zeros() {
        assert_eq!(read_trace_id("1F").expect("an id").to_string(), format!("{:032x}", 0x1f));
        for bad in ["", "0", "xyz", "1".repeat(33).as_str()] {
            assert_eq!(read_trace_id(bad).expect_err(bad).code, 400);
        }
    }
}
