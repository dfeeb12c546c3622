//! `POST /functions/trigger`: run what an event type names, without waiting for it.
//!
//! The call is on disk before the answer says so. Shape and leniency are those of the platform
//! that this one follows; what the gateway would refuse of the same request is refused here.

use std::sync::Arc;

use axum::extract::State;
use fp_core::Scope;
use fp_core::code::Code;
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::extract::{Answer, ApiJson};
use super::text_request::TextRequest;
use crate::app::App;
use crate::http::caller::Caller;
use crate::http::gateway::{entrance, intake};
use crate::http::problem::Problem;
use crate::invoke::{TriggerCall, TriggerError};

pub(super) fn routes() -> UtoipaMethodRouter<Arc<App>> {
    routes!(trigger_functions)
}

/// A trigger that was accepted.
#[derive(Debug, Serialize, ToSchema)]
struct Triggered {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
    /// Ids of the invocations, one for each function of the event type.
    #[schema(example = json!(["0190b2a8-4e5c-7cc1-b4a5-0d2f6a1c9e11"]))]
    container_ids: Vec<String>,
}

/// Run functions in the background.
///
/// Every function of the matching event type runs once, whatever it asks of its callers at the
/// gateway. The call is written durably before this
/// answers; its result is at `/invocations/{id}`.
#[utoipa::path(
    post,
    path = "/functions/trigger",
    tag = "functions",
    request_body = TextRequest,
    responses(
        (status = 200, description = "Accepted and written to disk", body = Triggered),
        (status = 404, description = "No function answers to this verb and path"),
        (status = 429, description = "A quota is spent"),
        (status = 503, description = "Not now: no worker could be started, or the platform is starting or stopping"),
        (status = 507, description = "The disk is full"),
    )
)]
async fn trigger_functions(
    State(app): State<Arc<App>>,
    caller: Caller,
    ApiJson(body): ApiJson<TextRequest>,
) -> Result<Answer<Triggered>, Problem> {
    caller.require(Scope::Invoke)?;
    let call = call_of(body, caller.facts())?;
    let ids = app.invoker.trigger(&caller.tenant, call).await.map_err(refused)?;
    caller.acted_on("invocation", ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    Ok(Answer(Triggered { status: "ok", container_ids: ids.iter().map(ToString::to_string).collect() }))
}

/// The call, if the gateway would take it: nobody waits, so a deadline is only read for its form.
fn call_of(request: TextRequest, by: Arc<Value>) -> Result<TriggerCall, Problem> {
    let (mut parts, body) = request.into_parts(true)?;
    entrance::keep_keys_out(&mut parts.headers);
    intake::time_given(&parts.headers).map_err(|problem| problem.field("http_header"))?;
    intake::check_json(&parts.headers, &body).map_err(|problem| problem.field("http_body"))?;
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes())));
    Ok(TriggerCall {
        verb: parts.method.to_string(),
        headers: headers.collect(),
        path: parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        body,
        by,
    })
}

fn refused(error: TriggerError) -> Problem {
    let problem = Problem::new(error.code, error.detail);
    let problem = match error.limit_bytes {
        Some(limit) => problem.component("gateway").extra("limit_bytes", limit),
        None => problem,
    };
    let problem = match error.limit_hit {
        Some(limit) => problem.extra("limit_hit", limit),
        None => problem,
    };
    let problem = match error.retry_after {
        Some(after) => problem.retry_after(after),
        None => problem,
    };
    match error.code {
        Code::NoRoute => problem.field("http_path"),
        Code::InvalidPath => problem.with_status(StatusCode::UNPROCESSABLE_ENTITY).field("http_path"),
        Code::TooLarge => problem.field("http_body"),
        _ => problem,
    }
}
