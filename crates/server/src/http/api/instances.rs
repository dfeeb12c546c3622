//! Instances: the older name of invocations, in the shape of the platform that this one follows.
//!
//! One run of a function was one container there, so its id is `container_id`. The lists are
//! plain arrays. Programs that are written for this platform use `/invocations`.

use std::sync::Arc;

use axum::extract::State;
use fp_core::Scope;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::extract::{Answer, ApiQuery, InvocationPath};
use super::invocations::{Found, InvocationQuery, InvocationView, find};
use crate::app::App;
use crate::http::caller::Caller;
use crate::http::openapi;
use crate::http::problem::Problem;

pub(super) fn routes() -> [UtoipaMethodRouter<Arc<App>>; 3] {
    [routes!(list_instances), routes!(get_instance), routes!(get_instance_logs)]
}

/// One run of a function.
#[derive(Debug, Serialize, ToSchema)]
struct Instance {
    /// The id of the run.
    #[schema(example = "0190b2a8-4e5c-7cc1-b4a5-0d2f6a1c9e11")]
    container_id: String,
    /// The same id.
    instance_id: String,
    /// The function.
    #[schema(example = "cats")]
    function_name: String,
    /// Everything else, as in `/invocations/{id}`; `status` is the HTTP status, `state` and
    /// `outcome` say how far it has come.
    #[serde(flatten)]
    invocation: InvocationView,
}

impl From<InvocationView> for Instance {
    fn from(invocation: InvocationView) -> Self {
        let InvocationView { call, .. } = &invocation;
        Self {
            container_id: call.id.clone(),
            instance_id: call.id.clone(),
            function_name: call.function.clone(),
            invocation,
        }
    }
}

/// List instances.
///
/// Newest first, as a plain list; `/invocations` has the same in pages.
#[utoipa::path(
    get,
    path = "/functions/instances",
    tag = "instances",
    params(InvocationQuery),
    responses((status = 200, description = "Runs of functions", body = Vec<Instance>))
)]
async fn list_instances(
    State(app): State<Arc<App>>,
    caller: Caller,
    ApiQuery(query): ApiQuery<InvocationQuery>,
) -> Result<Answer<Vec<Instance>>, Problem> {
    caller.require(Scope::Read)?;
    let filter = query.filter(app.clock.wall_now_us())?;
    let page = app.history.list(&caller.tenant, &filter).await;
    Ok(Answer(page.items.into_iter().map(|entry| InvocationView::of(entry).into()).collect()))
}

/// Look at one instance.
#[utoipa::path(
    get,
    path = "/functions/instances/{id}",
    tag = "instances",
    params(openapi::IdParam),
    responses((status = 200, description = "The run", body = Instance))
)]
async fn get_instance(
    State(app): State<Arc<App>>,
    caller: Caller,
    InvocationPath(id): InvocationPath,
) -> Result<Answer<Instance>, Problem> {
    let view = InvocationView::from(find(&app, &caller, id).await?);
    Ok(Answer(view.into()))
}

/// What an instance printed and logged.
#[derive(Debug, Serialize, ToSchema)]
struct InstanceLogs {
    /// The captured text, without prefixes; empty while it runs.
    #[schema(example = "hello\n")]
    logs: String,
}

/// Read an instance's logs.
///
/// Everything that it printed and logged, in order, once it has ended.
#[utoipa::path(
    get,
    path = "/functions/instances/{id}/logs",
    tag = "instances",
    params(openapi::IdParam),
    responses((status = 200, description = "Its logs", body = InstanceLogs))
)]
async fn get_instance_logs(
    State(app): State<Arc<App>>,
    caller: Caller,
    InvocationPath(id): InvocationPath,
) -> Result<Answer<InstanceLogs>, Problem> {
    let logs = match find(&app, &caller, id).await? {
        Found::Running(_) => String::new(),
        Found::Done(kept) => kept.logs.iter().map(|line| &*line.text).collect(),
    };
    Ok(Answer(InstanceLogs { logs }))
}
