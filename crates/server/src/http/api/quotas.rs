//! Quotas of tenants: what the operator lets each use, and what it uses.
//!
//! A function's own quota is among its settings. Whoever may read a tenant's things may see its
//! quota; only the operator changes one.

use std::sync::Arc;

use axum::extract::State;
use bytesize::ByteSize;
use fp_core::code::Code;
use fp_core::quota::Quota;
use fp_core::settings::show_size;
use fp_core::{Scope, Tenant};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::extract::{Answer, ApiJson, TextPath};
use crate::app::App;
use crate::http::caller::{Caller, refused};
use crate::http::openapi;
use crate::http::problem::Problem;

pub(super) fn routes() -> [UtoipaMethodRouter<Arc<App>>; 1] {
    [routes!(get_quota, put_quota)]
}

/// What a tenant may use. What is left out is not limited.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Quota)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes the quota for the document; core reads it")]
struct QuotaSchema {
    /// Calls per time.
    #[schema(example = "100/s", nullable = false)]
    rate: Option<String>,
    /// Calls at once that the rate lets pass after quiet; without it, a second's worth of them.
    #[schema(minimum = 1, maximum = 1_000_000, nullable = false)]
    burst: Option<u32>,
    /// Calls under way at once.
    #[schema(minimum = 1, maximum = 1_000_000, nullable = false)]
    concurrency: Option<u32>,
    /// Accepted asynchronous calls that have not ended.
    #[schema(minimum = 1, maximum = 1_000_000, nullable = false)]
    backlog: Option<u32>,
    /// Memory limits of all workers together.
    #[schema(example = "2GiB", nullable = false)]
    memory: Option<String>,
    /// Deployed code, unpacked.
    #[schema(example = "500MiB", nullable = false)]
    code: Option<String>,
    /// Memory of the history ring that its calls may take.
    #[schema(example = "64MiB", nullable = false)]
    history: Option<String>,
    /// Its calls per time that go to the history on disk unsampled.
    #[schema(example = "100/s", nullable = false)]
    history_rate: Option<String>,
    /// How much of CPU, worker places and memory is its when other tenants want them at the same
    /// time, against theirs; 1 when left out. Not a limit: what others leave is had.
    #[schema(minimum = 0.01, maximum = 100.0, nullable = false)]
    weight: Option<f64>,
}

/// A tenant's quota and what of it is used.
#[derive(Debug, Serialize, ToSchema)]
struct QuotaView {
    /// Whose.
    tenant: String,
    /// What it may use.
    #[schema(value_type = QuotaSchema)]
    quota: Value,
    /// What it uses.
    used: Used,
}

/// What a tenant uses now.
#[derive(Debug, Serialize, ToSchema)]
struct Used {
    /// Calls under way, where calls are limited.
    concurrency: u32,
    /// Accepted asynchronous calls that have not ended.
    backlog: u32,
    /// Memory limits of its workers.
    #[schema(example = "256MiB")]
    memory: String,
    /// Deployed code, unpacked.
    #[schema(example = "12KiB")]
    code: String,
    /// Memory of the history ring that its calls take.
    #[schema(example = "3MiB")]
    history: String,
}

/// Look at a tenant's quota.
#[utoipa::path(
    get,
    path = "/tenants/{name}/quota",
    tag = "tenants",
    params(openapi::TenantParam),
    responses((status = 200, description = "The quota and its use", body = QuotaView))
)]
async fn get_quota(
    State(app): State<Arc<App>>,
    caller: Caller,
    TextPath(name): TextPath,
) -> Result<Answer<QuotaView>, Problem> {
    caller.require(Scope::Read)?;
    let tenant = known(&app, &name).filter(|tenant| caller.is_operator() || caller.tenant == *tenant);
    let tenant = tenant.ok_or_else(|| no_tenant(&name))?;
    Ok(Answer(view(&app, tenant).await))
}

/// Give a tenant a quota.
///
/// It holds from the next call on; calls and workers there are stay. What is left out is not limited.
#[utoipa::path(
    put,
    path = "/tenants/{name}/quota",
    tag = "tenants",
    params(openapi::TenantParam),
    request_body = QuotaSchema,
    responses(
        (status = 200, description = "The quota and its use", body = QuotaView),
        (status = 507, description = "The disk is full"),
    )
)]
async fn put_quota(
    State(app): State<Arc<App>>,
    caller: Caller,
    TextPath(name): TextPath,
    ApiJson(body): ApiJson<Value>,
) -> Result<Answer<QuotaView>, Problem> {
    caller.require_operator()?;
    let tenant = known(&app, &name).ok_or_else(|| no_tenant(&name))?;
    let quota = Quota::from_json(&body).map_err(|error| {
        Problem::new(Code::InvalidSettings, error.to_string()).field(error.field.as_str())
    })?;
    let since_us = app.access.tenant_since(&tenant).ok_or_else(|| no_tenant(&name))?;
    app.set_quota(&tenant, since_us, quota).await.map_err(refused)?;
    Ok(Answer(view(&app, tenant).await))
}

fn known(app: &App, name: &str) -> Option<Tenant> {
    app.access.tenant(name)
}

fn no_tenant(name: &str) -> Problem {
    Problem::new(Code::TenantNotFound, format!("there is no tenant {name:?}"))
}

async fn view(app: &App, tenant: Tenant) -> QuotaView {
    let (quota, usage) = app.quotas.of(&tenant);
    let used = Used {
        concurrency: usage.running,
        backlog: usage.backlog,
        memory: show_size(ByteSize(usage.memory)),
        code: show_size(ByteSize(app.catalog.code_bytes(&tenant).await)),
        history: show_size(ByteSize(app.history.ring_bytes_of(&tenant))),
    };
    QuotaView { tenant: tenant.as_str().to_owned(), quota: quota.to_json(), used }
}
