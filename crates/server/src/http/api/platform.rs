//! The platform itself: its workers, its host, its version, whether it is well.

use std::sync::Arc;

use axum::extract::State;
use fp_core::code::Code;
use fp_core::{Scope, Tenant};
use http::header::RETRY_AFTER;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::extract::Answer;
use super::time::rfc3339;
use crate::app::App;
use crate::http::caller::Caller;
use crate::http::problem::Problem;
use crate::invoke::WorkerView;
use crate::readiness::{Refused, Standing};

pub(super) fn routes() -> [UtoipaMethodRouter<Arc<App>>; 5] {
    [
        routes!(list_workers),
        routes!(get_host),
        routes!(get_health),
        routes!(get_readiness),
        routes!(get_version),
    ]
}

/// One worker: a sandboxed process of one version of a function.
#[derive(Debug, Serialize, ToSchema)]
struct Worker {
    /// Its id, as in the invocations that it ran.
    #[schema(example = "w17")]
    id: String,
    /// Its process id as the host sees it.
    #[schema(example = 4711)]
    host_pid: u32,
    /// The function.
    #[schema(example = "cats")]
    function: String,
    /// The version.
    version: u32,
    /// `idle` or `busy`.
    #[schema(example = "idle")]
    state: &'static str,
    /// When it was started.
    #[schema(format = DateTime)]
    started_at: String,
    /// Calls that it has taken.
    calls: u64,
    /// Calls that it runs now; more than one with `concurrency`.
    running: u32,
}

impl From<WorkerView> for Worker {
    fn from(worker: WorkerView) -> Self {
        Self {
            id: worker.id.to_string(),
            host_pid: worker.host_pid,
            function: worker.function.to_string(),
            version: worker.version.0,
            state: worker.state,
            started_at: rfc3339(worker.started_us),
            calls: worker.calls,
            running: worker.running,
        }
    }
}

/// All workers.
#[derive(Debug, Serialize, ToSchema)]
struct WorkerPage {
    /// The workers that live now.
    items: Vec<Worker>,
    /// Always null: the list is complete.
    #[schema(value_type = Option<String>)]
    next: Option<()>,
}

/// List workers.
#[utoipa::path(
    get,
    path = "/workers",
    tag = "platform",
    responses((status = 200, description = "The workers that live now", body = WorkerPage))
)]
async fn list_workers(State(app): State<Arc<App>>, caller: Caller) -> Result<Answer<WorkerPage>, Problem> {
    caller.require(Scope::Read)?;
    let workers = app.invoker.workers(&caller.tenant);
    Ok(Answer(WorkerPage { items: workers.into_iter().map(Worker::from).collect(), next: None }))
}

/// Look at the host.
///
/// What the platform found here and which parts of the isolation are enforced: what `doctor`
/// prints. Beside it the zygotes that workers are forked from: what each has preloaded, how long
/// that took, and its memory. For the operator only.
#[utoipa::path(
    get,
    path = "/host",
    tag = "platform",
    responses((status = 200, description = "The host", body = Object))
)]
async fn get_host(State(app): State<Arc<App>>, caller: Caller) -> Result<Answer<impl Serialize>, Problem> {
    caller.require_operator()?;
    Ok(Answer(Host { host: app.invoker.host(), zygotes: app.catalog.zygotes() }))
}

/// The host and what stands ready on it, as the rooms below describe both.
#[derive(Debug, Serialize)]
struct Host<H, Z> {
    #[serde(flatten)]
    host: H,
    zygotes: Z,
}

/// One word.
#[derive(Debug, Serialize, ToSchema)]
struct Status {
    /// `ok` or `ready`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Is it alive?
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "platform",
    responses((status = 200, description = "The platform answers", body = Status))
)]
async fn get_health() -> Answer<Status> {
    Answer(Status { status: "ok" })
}

/// Is it ready?
///
/// 200 once every directory given to `up` is deployed. Functions that were refused are named, to
/// those who may read the tenant `default`, until a later deploy of theirs is accepted.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "platform",
    responses(
        (status = 200, description = "Everything is deployed", body = Status),
        (status = 503, description = "Not now: no worker could be started, or the platform is starting or stopping"),
    )
)]
async fn get_readiness(
    State(app): State<Arc<App>>,
    caller: Option<Caller>,
) -> Result<Answer<Status>, Problem> {
    let sees_names =
        caller.is_some_and(|caller| caller.tenant == Tenant::default() && caller.scopes.allow(Scope::Read));
    match app.readiness.standing() {
        Standing::Ready => Ok(Answer(Status { status: "ready" })),
        Standing::Deploying => {
            let problem = Problem::new(Code::NotReady, "the functions are still being deployed");
            Err(problem.header(RETRY_AFTER, "1"))
        }
        Standing::Refused(refused) if sees_names => Err(refused_functions(&refused)),
        Standing::Refused(_) => Err(Problem::new(Code::NotReady, "some functions were refused")),
        Standing::Stopping => Err(Problem::new(Code::NotReady, "the platform is stopping")),
    }
}

fn refused_functions(refused: &[Refused]) -> Problem {
    let names: Vec<_> = refused.iter().map(|refused| refused.function.as_str()).collect();
    let detail = format!("not deployed, because refused: {}", names.join(", "));
    let each = |refused: &Refused| json!({ "function": refused.function, "directory": refused.directory, "detail": refused.detail });
    Problem::new(Code::NotReady, detail)
        .hint(
            "Mend them and run `functionsplatform deploy DIR`, or delete those that are not wanted any more.",
        )
        .extra("refused", refused.iter().map(each).collect::<Vec<_>>())
}

/// What runs and where it listens.
#[derive(Debug, Serialize, ToSchema)]
struct Version {
    /// Version of the platform.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// Where functions are called.
    #[schema(example = "127.0.0.1:5000")]
    gateway_addr: String,
    /// Where this API is.
    #[schema(example = "127.0.0.1:8000")]
    api_addr: String,
    /// Where traces are.
    #[schema(example = "127.0.0.1:16686")]
    traces_addr: String,
    /// Where spans of services are taken (OTLP/HTTP); null when the usual port was taken by somebody else.
    #[schema(example = "127.0.0.1:4318")]
    otlp_addr: Option<String>,
    /// When the platform started.
    #[schema(format = DateTime)]
    started_at: String,
}

/// Which version is it?
#[utoipa::path(
    get,
    path = "/version",
    tag = "platform",
    responses((status = 200, description = "Version and addresses", body = Version))
)]
async fn get_version(State(app): State<Arc<App>>) -> Answer<Version> {
    Answer(Version {
        version: env!("CARGO_PKG_VERSION"),
        gateway_addr: app.addresses.gateway.to_string(),
        api_addr: app.addresses.api.to_string(),
        traces_addr: app.addresses.traces.to_string(),
        otlp_addr: app.addresses.otlp.map(|otlp| otlp.to_string()),
        started_at: rfc3339(app.started_us),
    })
}
