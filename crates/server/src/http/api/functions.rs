//! Functions: what is deployed, deploying, deleting.
//!
//! `GET`, `POST /functions` and `DELETE` keep the shapes of the platform that this one
//! follows; `GET` and `PUT /functions/{name}` are ours.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use fp_core::code::Code;
use fp_core::event::EventError;
use fp_core::ids::IdError;
use fp_core::quota::Spent;
use fp_core::settings::{Handler, SettingsError};
use fp_core::{Blame, EventType, FunctionName, Scope, Settings, Tenant};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::extract::{Answer, ApiArchive, ApiJson, NamePath, no_function};
use super::settings::SettingsSchema;
use super::time::rfc3339;
use crate::app::App;
use crate::catalog::{Catalog, CatalogError, DeployRequest, Deployed, Source};
use crate::http::caller::Caller;
use crate::http::openapi;
use crate::http::problem::Problem;
use crate::slo::{FunctionView, SloView};

pub(super) fn routes() -> [UtoipaMethodRouter<Arc<App>>; 2] {
    [routes!(list_functions, create_function), routes!(get_function, deploy_function, delete_function)]
}

/// One function under one of its event types.
#[derive(Debug, Serialize, ToSchema)]
struct FunctionEntry {
    /// What calls it.
    #[schema(example = "http|GET|/api/cats")]
    event_type: String,
    /// Its name.
    #[schema(example = "cats")]
    function_name: String,
    /// The version that answers.
    #[schema(example = 1)]
    version: u32,
    /// Where its handler is.
    #[schema(example = "handler.py:handler")]
    handler: String,
    /// When the function was first created.
    #[schema(format = DateTime)]
    created_at: String,
    /// When this version was deployed.
    #[schema(format = DateTime)]
    deployed_at: String,
}

impl FunctionEntry {
    fn of(function: &Deployed, event_type: String) -> Self {
        Self {
            event_type,
            function_name: function.name.to_string(),
            version: function.version.0,
            handler: function.handler.to_string(),
            created_at: rfc3339(function.created_us),
            deployed_at: rfc3339(function.deployed_us),
        }
    }
}

/// Functions by event type, each list in order of creation: the first one answers the caller.
/// Functions without an event type are under the empty key.
type FunctionsByEvent = BTreeMap<String, Vec<FunctionEntry>>;

/// List all functions, by event type.
///
/// Several functions may share an event type: all run, the first in its list answers.
#[utoipa::path(
    get,
    path = "/functions",
    tag = "functions",
    responses((
        status = 200,
        description = "Functions by event type, without their code",
        body = BTreeMap<String, Vec<FunctionEntry>>,
    ))
)]
async fn list_functions(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Answer<FunctionsByEvent>, Problem> {
    caller.require(Scope::Read)?;
    let mut by_event = FunctionsByEvent::new();
    for function in app.catalog.list(&caller.tenant) {
        for event_type in event_texts(&function) {
            let entry = FunctionEntry::of(&function, event_type.clone());
            by_event.entry(event_type).or_default().push(entry);
        }
    }
    Ok(Answer(by_event))
}

fn event_texts(function: &Deployed) -> Vec<String> {
    match function.events.as_slice() {
        [] => vec![String::new()],
        events => events.iter().map(EventType::to_string).collect(),
    }
}

/// A function of one file.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "event_type": "http|GET|/hello",
    "function_name": "hello",
    "function_code": "def handler(message, context):\n    return {\"hello\": message[\"query\"].get(\"name\", \"world\")}\n",
    "settings": { "timeout": "5s" },
}))]
struct CreateFunction {
    /// What calls it: `http|VERB|/path`; `*` stands for any verb, `{name}` for a segment of the
    /// path and `{*rest}` for all that is left of it.
    #[schema(
        max_length = 1024,
        pattern = r"^http\|([A-Za-z-]{1,32}|\*)\|(/([^/{}%?#\s\x00-\x1f]+|\{[A-Za-z_][A-Za-z0-9_]*\}))*/(\{\*[A-Za-z_][A-Za-z0-9_]*\}|[^/{}%?#\s\x00-\x1f]*)$",
        example = "http|GET|/hello"
    )]
    event_type: String,
    /// Python source that defines `handler(message, context)`.
    #[schema(min_length = 1)]
    function_code: String,
    /// Its name; `instances` and `trigger` are reserved. The same name again makes a new version.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$", example = "hello")]
    function_name: String,
    /// Everything else; what is left out has its default.
    #[serde(default)]
    #[schema(value_type = Option<SettingsSchema>)]
    settings: Option<Map<String, Value>>,
}

impl CreateFunction {
    fn into_request(self, tenant: Tenant, since_us: u64) -> Result<DeployRequest, Problem> {
        let name: FunctionName = self.function_name.parse().map_err(wrong_name)?;
        let event: EventType = self.event_type.parse().map_err(wrong_event)?;
        let settings = self.settings.unwrap_or_default();
        let says_network = settings.contains_key("network");
        let mut settings = Settings::from_json(&Value::Object(settings)).map_err(wrong_settings)?;
        if !says_network {
            settings.network = Catalog::default_network(&tenant);
        }
        Ok(DeployRequest {
            tenant,
            tenant_since_us: since_us,
            name,
            handler: Handler::default(),
            events: vec![event],
            settings,
            source: Source::Inline(self.function_code),
        })
    }
}

fn wrong_name(error: IdError) -> Problem {
    let code = match error {
        IdError::Reserved { .. } => Code::NameReserved,
        _ => Code::InvalidName,
    };
    Problem::new(code, error.to_string()).field("function_name")
}

fn wrong_event(error: EventError) -> Problem {
    let code = match error {
        EventError::Kind { .. } => Code::UnsupportedEvent,
        _ => Code::InvalidEvent,
    };
    Problem::new(code, error.to_string()).field("event_type")
}

fn wrong_settings(error: SettingsError) -> Problem {
    let field = ["settings", error.field.as_str()].join(".");
    Problem::new(Code::InvalidSettings, error.to_string()).field(field.trim_end_matches('.'))
}

/// A deploy that was accepted.
#[derive(Debug, Serialize, ToSchema)]
struct DeployedFunction {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
    /// The function.
    #[schema(example = "hello")]
    function_name: String,
    /// The version that answers from now on.
    #[schema(example = 1)]
    version: u32,
    /// What calls it.
    event_types: Vec<String>,
}

impl DeployedFunction {
    fn of(function: &Deployed) -> Self {
        Self {
            status: "ok",
            function_name: function.name.to_string(),
            version: function.version.0,
            event_types: function.events.iter().map(EventType::to_string).collect(),
        }
    }
}

/// Create a function, or a new version of it.
///
/// The handler is loaded in a sandboxed worker before the deploy is accepted; if that fails, the
/// answer has the line and the last lines of the traceback, and the old version goes on.
#[utoipa::path(
    post,
    path = "/functions",
    tag = "functions",
    request_body = CreateFunction,
    responses(
        (status = 200, description = "Deployed; the new version answers from now on", body = DeployedFunction),
        (status = 409, description = "The event type conflicts with another function's"),
        (status = 429, description = "The tenant's quota of code, or of memory, is spent"),
        (status = 503, description = "Not now: no worker could be started, or the platform is starting or stopping"),
        (status = 507, description = "The disk is full"),
    )
)]
async fn create_function(
    State(app): State<Arc<App>>,
    caller: Caller,
    ApiJson(body): ApiJson<CreateFunction>,
) -> Result<Answer<DeployedFunction>, Problem> {
    caller.require(Scope::Deploy)?;
    let request = body.into_request(caller.tenant.clone(), caller.since_us)?;
    caller.acted_on("function", &request.name);
    deploy(&app, request).await
}

async fn deploy(app: &App, request: DeployRequest) -> Result<Answer<DeployedFunction>, Problem> {
    let deployed = app.catalog.deploy(request).await.map_err(refused)?;
    app.readiness.on_settled(&deployed.tenant, deployed.name.as_str());
    Ok(Answer(DeployedFunction::of(&deployed)))
}

/// Deploy a function's directory.
///
/// The archive has `function.toml` at its root, which must name this function. It is accepted
/// under the same conditions as a single file.
#[utoipa::path(
    put,
    path = "/functions/{name}",
    tag = "functions",
    params(openapi::NameParam),
    request_body(content = inline(openapi::Archive), content_type = "application/zip", description = "The directory as a zip archive"),
    responses(
        (status = 200, description = "Deployed; the new version answers from now on", body = DeployedFunction),
        (status = 409, description = "The event type conflicts with another function's"),
        (status = 429, description = "The tenant's quota of code, or of memory, is spent"),
        (status = 503, description = "Not now: no worker could be started, or the platform is starting or stopping"),
        (status = 507, description = "The disk is full"),
    )
)]
async fn deploy_function(
    State(app): State<Arc<App>>,
    caller: Caller,
    NamePath(name): NamePath,
    ApiArchive(archive): ApiArchive,
) -> Result<Answer<DeployedFunction>, Problem> {
    caller.require(Scope::Deploy)?;
    let request = app.catalog.read_archive(caller.tenant, name, archive).await.map_err(refused)?;
    deploy(&app, DeployRequest { tenant_since_us: caller.since_us, ..request }).await
}

/// What `Retry-After` says where somebody has to delete something first.
const UNTIMED_QUOTA: Duration = Duration::from_secs(60);

/// The same where a call has to end first: the smallest that it can name.
const BUSY_QUOTA: Duration = Duration::from_secs(1);

/// Turns the catalogue's refusal into an answer.
pub(super) fn refused(error: CatalogError) -> Problem {
    let mut problem = Problem::new(error.code, error.detail);
    if let Some(spent) = error.spent {
        let after = if spent == Spent::Code { UNTIMED_QUOTA } else { BUSY_QUOTA };
        problem = problem.extra("limit_hit", spent.word()).retry_after(after);
    }
    if error.code == Code::StartFailed {
        // A deploy calls a worker that the code itself ended by another name.
        problem = problem
            .blame(Some(Blame::Platform))
            .phase("start")
            .hint("Send it again; `functionsplatform doctor` shows whether the host lacks something.");
    }
    if let Some(field) = error.field {
        problem = problem.field(field);
    }
    if let Some(line) = error.line {
        problem = problem.line(line);
    }
    match error.traceback {
        Some(traceback) if !traceback.is_empty() => problem.extra("traceback", traceback),
        _ => problem,
    }
}

/// Everything about one function.
#[derive(Debug, Serialize, ToSchema)]
struct FunctionDetail {
    /// Its name.
    #[schema(example = "hello")]
    function_name: String,
    /// The version that answers.
    version: u32,
    /// What calls it.
    event_types: Vec<String>,
    /// Where its handler is.
    #[schema(example = "handler.py:handler")]
    handler: String,
    /// When the function was first created.
    #[schema(format = DateTime)]
    created_at: String,
    /// When this version was deployed.
    #[schema(format = DateTime)]
    deployed_at: String,
    /// SHA-256 of the code, in hexadecimal.
    code_hash: String,
    /// Every setting with its value in force, as in function.toml.
    #[schema(value_type = SettingsSchema)]
    settings: Value,
    /// Files of the code.
    files: Vec<CodeFile>,
    /// Calls, rates and percentiles.
    rates: FunctionView,
    /// The objective's state; null without an objective.
    slo: Option<SloView>,
}

/// One file of a function's code.
#[derive(Debug, Serialize, ToSchema)]
struct CodeFile {
    /// Path in the function's directory.
    #[schema(example = "handler.py")]
    path: String,
    /// Its size.
    bytes: u64,
}

/// Look at one function.
///
/// Settings in force, files, rates, percentiles and the state of its objective.
#[utoipa::path(
    get,
    path = "/functions/{name}",
    tag = "functions",
    params(openapi::NameParam),
    responses((status = 200, description = "The function", body = FunctionDetail))
)]
async fn get_function(
    State(app): State<Arc<App>>,
    caller: Caller,
    NamePath(name): NamePath,
) -> Result<Answer<FunctionDetail>, Problem> {
    caller.require(Scope::Read)?;
    let function = app.catalog.get(&caller.tenant, &name);
    let function = function.ok_or_else(|| no_function(name.as_str()))?;
    let files = app.catalog.source(&function).await;
    Ok(Answer(FunctionDetail::of(&app, &function, files)))
}

impl FunctionDetail {
    fn of(app: &App, function: &Deployed, files: Vec<(String, u64)>) -> Self {
        let book = app.slo.get(&function.tenant, &function.name);
        Self {
            function_name: function.name.to_string(),
            version: function.version.0,
            event_types: function.events.iter().map(EventType::to_string).collect(),
            handler: function.handler.to_string(),
            created_at: rfc3339(function.created_us),
            deployed_at: rfc3339(function.deployed_us),
            code_hash: function.code_hash.clone(),
            settings: function.settings.to_json(),
            files: files.into_iter().map(|(path, bytes)| CodeFile { path, bytes }).collect(),
            rates: book.as_ref().map(|book| book.view(app.clock.now())).unwrap_or_default(),
            slo: book.and_then(|book| book.slo(app.clock.wall_now_us())),
        }
    }
}

/// A function that was deleted.
#[derive(Debug, Serialize, ToSchema)]
struct DeletedFunction {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
    /// The function.
    #[schema(example = "hello")]
    function_name: String,
}

/// Delete a function.
///
/// Calls that run end in peace; its records stay for as long as history keeps them.
#[utoipa::path(
    delete,
    path = "/functions/{name}",
    tag = "functions",
    params(openapi::NameParam),
    responses(
        (status = 200, description = "Deleted", body = DeletedFunction),
        (status = 415, description = "A body came along, with a content type that is not accepted"),
        (status = 507, description = "The disk is full"),
    )
)]
async fn delete_function(
    State(app): State<Arc<App>>,
    caller: Caller,
    NamePath(name): NamePath,
) -> Result<Answer<DeletedFunction>, Problem> {
    caller.require(Scope::Deploy)?;
    app.catalog.delete(&caller.tenant, &name).await.map_err(refused)?;
    app.readiness.on_settled(&caller.tenant, name.as_str());
    Ok(Answer(DeletedFunction { status: "ok", function_name: name.to_string() }))
}
