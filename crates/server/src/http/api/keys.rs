//! Keys of a tenant: for those who administer it.

use std::sync::Arc;

use axum::extract::State;
use fp_core::code::Code;
use fp_core::{Scope, Scopes};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::extract::{Answer, ApiJson, TextPath};
use super::time::{rfc3339, until};
use crate::access::{FreshKey, Key, NewKey};
use crate::app::App;
use crate::http::caller::{Caller, refused};
use crate::http::openapi;
use crate::http::problem::Problem;

pub(super) fn routes() -> [UtoipaMethodRouter<Arc<App>>; 2] {
    [routes!(list_keys, create_key), routes!(revoke_key)]
}

/// A key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
struct KeyView {
    /// Its id: the eight characters after `fpk_`.
    #[schema(example = "k3j9x0ab")]
    id: String,
    /// What people call it.
    #[schema(example = "ci")]
    name: String,
    /// Whose it is.
    #[schema(example = "acme")]
    tenant: String,
    /// What its holder may do.
    #[schema(value_type = Vec<openapi::ScopeWord>)]
    scopes: Scopes,
    /// `active`, `expired` or `revoked`.
    #[schema(example = "active")]
    state: &'static str,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// From when on it is of no use; null for never.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// When it was last used, to the minute; null for never.
    #[schema(format = DateTime)]
    last_used_at: Option<String>,
    /// When it was revoked.
    #[schema(format = DateTime)]
    revoked_at: Option<String>,
}

impl KeyView {
    fn of(key: &Key, now_us: u64) -> Self {
        Self {
            id: key.id().to_string(),
            name: key.name().to_string(),
            tenant: key.tenant().to_string(),
            scopes: key.scopes(),
            state: match key.revoked_us() {
                Some(_) => "revoked",
                None if key.is_live(now_us) => "active",
                None => "expired",
            },
            created_at: rfc3339(key.created_us()),
            expires_at: key.expires_us().map(rfc3339),
            last_used_at: key.last_used_us().map(rfc3339),
            revoked_at: key.revoked_us().map(rfc3339),
        }
    }
}

/// The keys of a tenant.
#[derive(Debug, Serialize, ToSchema)]
struct KeyPage {
    /// In the order in which they were made; those that ended stay listed for thirty days, the last thousand of them.
    items: Vec<KeyView>,
    /// Always null: the list is complete.
    #[schema(value_type = Option<String>)]
    next: Option<()>,
}

/// List the tenant's keys.
#[utoipa::path(
    get,
    path = "/keys",
    tag = "keys",
    responses((status = 200, description = "Its keys, without their secrets", body = KeyPage))
)]
async fn list_keys(State(app): State<Arc<App>>, caller: Caller) -> Result<Answer<KeyPage>, Problem> {
    caller.require(Scope::Admin)?;
    let now_us = app.clock.wall_now_us();
    let items = app.access.keys(&caller.tenant).iter().map(|key| KeyView::of(key, now_us)).collect();
    Ok(Answer(KeyPage { items, next: None }))
}

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateKey {
    /// What people call it; several may have the same name.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$", example = "ci")]
    name: String,
    /// What its holder may do; `admin` stands for everything.
    #[schema(value_type = Vec<openapi::ScopeWord>, min_items = 1)]
    scopes: Vec<String>,
    /// From when on it is of no use: RFC 3339, or a time from now such as `90d`. Never, if left out.
    #[serde(default)]
    #[schema(value_type = Option<openapi::PointInTime>, example = "90d")]
    expires: Option<String>,
}

impl CreateKey {
    fn read(self, caller: &Caller, now_us: u64) -> Result<NewKey, Problem> {
        let wrong = |code, field, detail: String| Problem::new(code, detail).field(field);
        let name = self
            .name
            .parse()
            .map_err(|error: fp_core::ids::IdError| wrong(Code::InvalidName, "name", error.to_string()))?;
        let scopes = self.scopes.join(",").parse().map_err(|error: fp_core::scope::ScopeError| {
            wrong(Code::Unprocessable, "scopes", error.to_string())
        })?;
        let expires = |text: String| {
            until(&text, now_us).ok_or_else(|| {
                let detail =
                    format!("{text:?} is no time to come; write RFC 3339, or a time from now such as 90d");
                wrong(Code::Unprocessable, "expires", detail)
            })
        };
        let expires_us = self.expires.map(expires).transpose()?;
        Ok(NewKey { tenant: caller.tenant.clone(), name, scopes, expires_us })
    }
}

/// A key that was just made.
#[derive(Debug, Serialize, ToSchema)]
struct CreatedKey {
    /// The key itself. It is shown this once and cannot be had again.
    #[schema(pattern = "^fpk_[0-9a-z]{8}_[A-Za-z0-9_-]{43}$")]
    key: String,
    /// What is known of it from now on.
    #[serde(flatten)]
    view: KeyView,
}

/// Make a key.
///
/// The answer is the only place where the key can be read: the platform keeps a hash of it.
#[utoipa::path(
    post,
    path = "/keys",
    tag = "keys",
    request_body = CreateKey,
    responses(
        (status = 200, description = "The key", body = CreatedKey),
        (status = 429, description = "The tenant has as many keys as it may have"),
        (status = 507, description = "The disk is full"),
    )
)]
async fn create_key(
    State(app): State<Arc<App>>,
    caller: Caller,
    ApiJson(body): ApiJson<CreateKey>,
) -> Result<Answer<CreatedKey>, Problem> {
    caller.require(Scope::Admin)?;
    let now_us = app.clock.wall_now_us();
    let new = body.read(&caller, now_us)?;
    caller.acted_on("key", &new.name);
    let FreshKey { key, text } = app.access.create_key_for(new, &caller.grant()).await.map_err(refused)?;
    caller.acted_on("key", format_args!("{} ({}: {})", key.id(), key.name(), key.scopes()));
    Ok(Answer(CreatedKey { key: text, view: KeyView::of(&key, now_us) }))
}

/// Parameters of routes that name a key.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes the path for the document; the extractor reads it")]
struct KeyParam {
    /// The key's id.
    #[param(pattern = "^[0-9a-z]{8}$", example = "k3j9x0ab")]
    id: String,
}

/// Revoke a key.
///
/// It opens nothing from the next request on, and the sessions that were begun with it are over.
#[utoipa::path(
    delete,
    path = "/keys/{id}",
    tag = "keys",
    params(KeyParam),
    responses(
        (status = 200, description = "Revoked", body = KeyView),
        (status = 415, description = "A body came along, with a content type that is not accepted"),
        (status = 507, description = "The disk is full"),
    )
)]
async fn revoke_key(
    State(app): State<Arc<App>>,
    caller: Caller,
    TextPath(id): TextPath,
) -> Result<Answer<KeyView>, Problem> {
    caller.require(Scope::Admin)?;
    let key = app.access.revoke_key(&caller.tenant, &id).await.map_err(refused)?;
    Ok(Answer(KeyView::of(&key, app.clock.wall_now_us())))
}
