//! Tenants: who shares the platform. For the operator only.

use std::sync::Arc;

use axum::extract::State;
use fp_core::Tenant;
use fp_core::ids::IdError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::extract::{Answer, ApiJson, TextPath};
use super::time::rfc3339;
use crate::access::{AccessError, StoredTenant};
use crate::app::App;
use crate::http::caller::{Caller, refused};
use crate::http::openapi;
use crate::http::problem::Problem;

pub(super) fn routes() -> [UtoipaMethodRouter<Arc<App>>; 2] {
    [routes!(list_tenants, create_tenant), routes!(get_tenant, delete_tenant)]
}

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
struct TenantView {
    /// Its name: also the label of its host name and the prefix of its paths at the gateway.
    #[schema(example = "acme")]
    name: String,
    /// When it was created; null for `default`, which is always there.
    #[schema(format = DateTime)]
    created_at: Option<String>,
    /// Functions that are deployed.
    #[schema(example = 3)]
    functions: usize,
    /// Keys that are in force.
    #[schema(example = 2)]
    keys: usize,
}

impl TenantView {
    fn of(app: &App, name: &Tenant, created_us: Option<u64>) -> Self {
        let now_us = app.clock.wall_now_us();
        Self {
            name: name.to_string(),
            created_at: created_us.map(rfc3339),
            functions: app.catalog.list(name).len(),
            keys: app.access.keys(name).iter().filter(|key| key.is_live(now_us)).count(),
        }
    }

    fn named(app: &App, tenant: &StoredTenant) -> Self {
        Self::of(app, &tenant.name, Some(tenant.created_us))
    }
}

/// All tenants.
#[derive(Debug, Serialize, ToSchema)]
struct TenantPage {
    /// `default` first, then by name.
    items: Vec<TenantView>,
    /// Always null: the list is complete.
    #[schema(value_type = Option<String>)]
    next: Option<()>,
}

/// List tenants.
#[utoipa::path(
    get,
    path = "/tenants",
    tag = "tenants",
    responses((status = 200, description = "Every tenant", body = TenantPage))
)]
async fn list_tenants(State(app): State<Arc<App>>, caller: Caller) -> Result<Answer<TenantPage>, Problem> {
    caller.require_operator()?;
    let mut items = vec![TenantView::of(&app, &Tenant::default(), None)];
    items.extend(app.access.tenants().iter().map(|tenant| TenantView::named(&app, tenant)));
    Ok(Answer(TenantPage { items, next: None }))
}

/// A tenant to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateTenant {
    /// Its name, which is a label of host names.
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", example = "acme")]
    name: String,
}

/// Create a tenant.
///
/// It has no functions and no keys; make its first key with `POST /keys` and `X-Tenant`.
#[utoipa::path(
    post,
    path = "/tenants",
    tag = "tenants",
    request_body = CreateTenant,
    responses(
        (status = 200, description = "Created", body = TenantView),
        (status = 409, description = "There is one of this name"),
        (status = 507, description = "The disk is full"),
    )
)]
async fn create_tenant(
    State(app): State<Arc<App>>,
    caller: Caller,
    ApiJson(body): ApiJson<CreateTenant>,
) -> Result<Answer<TenantView>, Problem> {
    caller.require_operator()?;
    let name: Tenant = body.name.parse().map_err(|error: IdError| {
        Problem::new(fp_core::code::Code::InvalidName, error.to_string()).field("name")
    })?;
    caller.acted_on("tenant", &name);
    let tenant = app.create_tenant(name).await.map_err(refused)?;
    Ok(Answer(TenantView::named(&app, &tenant)))
}

/// Look at one tenant.
#[utoipa::path(
    get,
    path = "/tenants/{name}",
    tag = "tenants",
    params(openapi::TenantParam),
    responses((status = 200, description = "The tenant", body = TenantView))
)]
async fn get_tenant(
    State(app): State<Arc<App>>,
    caller: Caller,
    TextPath(name): TextPath,
) -> Result<Answer<TenantView>, Problem> {
    caller.require_operator()?;
    if name == Tenant::default().as_str() {
        return Ok(Answer(TenantView::of(&app, &Tenant::default(), None)));
    }
    let tenants = app.access.tenants();
    let tenant = tenants.iter().find(|tenant| tenant.name.as_str() == name);
    let tenant = tenant.ok_or_else(|| refused(AccessError::NoTenant { name }))?;
    Ok(Answer(TenantView::named(&app, tenant)))
}

/// A tenant that was deleted.
#[derive(Debug, Serialize, ToSchema)]
struct DeletedTenant {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
    /// The tenant.
    #[schema(example = "acme")]
    name: String,
}

/// Delete a tenant and everything that is its.
///
/// Its keys open nothing any more, its functions answer nobody, accepted calls that have not begun
/// are dropped, and its history is not shown again, also not to a later tenant of this name. Calls
/// that run end in peace.
#[utoipa::path(
    delete,
    path = "/tenants/{name}",
    tag = "tenants",
    params(openapi::TenantParam),
    responses(
        (status = 200, description = "Deleted", body = DeletedTenant),
        (status = 415, description = "A body came along, with a content type that is not accepted"),
        (status = 422, description = "The tenant default cannot be deleted"),
        (status = 507, description = "The disk is full"),
    )
)]
async fn delete_tenant(
    State(app): State<Arc<App>>,
    caller: Caller,
    TextPath(name): TextPath,
) -> Result<Answer<DeletedTenant>, Problem> {
    caller.require_operator()?;
    let tenant =
        app.access.tenant(&name).ok_or_else(|| refused(AccessError::NoTenant { name: name.clone() }))?;
    app.delete_tenant(tenant).await.map_err(refused)?;
    Ok(Answer(DeletedTenant { status: "ok", name }))
}
