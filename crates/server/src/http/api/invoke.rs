//! `POST /functions/{name}/invoke`: run exactly this function and answer as it does.
//!
//! For callers that know a function and not its route: the event type may lead to another
//! function first. The request is checked, limited and recorded as at the gateway.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::HeaderValue;
use http::header::{CONTENT_SECURITY_POLICY, HOST};
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::extract::{ApiJson, NamePath, no_function};
use super::text_request::TextRequest;
use crate::app::App;
use crate::http::caller::Caller;
use crate::http::openapi;
use crate::http::problem::Problem;
use fp_core::Scope;

pub(super) fn routes() -> UtoipaMethodRouter<Arc<App>> {
    routes!(invoke_function)
}

/// Run one function and wait for its answer.
///
/// Only this function runs, also where others share its event type. Verb and path must be of
/// one of its event types. What it asks of its callers at the gateway is not asked here. Status,
/// headers and body are the function's own; what the platform
/// says instead is a problem document, as at the gateway.
#[utoipa::path(
    post,
    path = "/functions/{name}/invoke",
    tag = "functions",
    params(openapi::NameParam),
    request_body = TextRequest,
    responses(
        (status = 200, description = "The function's answer, with the status and type that it chose", body = inline(openapi::Archive), content_type = "*/*"),
        (status = 204, description = "The function's answer, without a body"),
        (status = 429, description = "A quota is spent"),
        (status = 502, description = "The function crashed, ran out of memory or answered too much"),
        (status = 503, description = "The call was shed, or no worker could be started"),
        (status = 504, description = "The function did not answer in time"),
    )
)]
async fn invoke_function(
    State(app): State<Arc<App>>,
    caller: Caller,
    NamePath(name): NamePath,
    ApiJson(request): ApiJson<TextRequest>,
) -> Result<Response, Problem> {
    caller.require(Scope::Invoke)?;
    let function = app.catalog.get(&caller.tenant, &name);
    let function = function.ok_or_else(|| no_function(name.as_str()))?;
    let (mut parts, body) = request.into_parts(false)?;
    if !parts.headers.contains_key(HOST) {
        let gateway = app.addresses.gateway.to_string();
        parts.headers.insert(HOST, HeaderValue::try_from(gateway).expect("an address is header text"));
    }
    let mut answer = app.gateway.invoke(function, parts, body, caller.facts()).await.map(Body::new);
    // A function's page must not be a page of this API, whatever shows it.
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    Ok(answer)
}
