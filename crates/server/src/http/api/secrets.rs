//! Secrets: setting, listing, deleting. No answer ever has a value in it, nor an error the text
//! that was sent as one.

use std::sync::Arc;

use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fp_core::code::Code;
use fp_core::{Scope, SecretName};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::extract::{Answer, ApiJson, ApiQuery, TextPath, wrong_parameter};
use super::functions::refused;
use super::time::rfc3339;
use crate::app::App;
use crate::catalog::{SecretNotDeleted, SecretUse};
use crate::http::caller::Caller;
use crate::http::openapi;
use crate::http::problem::Problem;
use crate::secrets::SecretValue;

pub(super) fn routes() -> [UtoipaMethodRouter<Arc<App>>; 2] {
    [routes!(list_secrets), routes!(set_secret, delete_secret)]
}

/// A secret, without its value.
#[derive(Debug, Serialize, ToSchema)]
struct Secret {
    /// Its name.
    #[schema(example = "STRIPE_KEY")]
    name: String,
    /// When it was set first.
    #[schema(format = DateTime)]
    created_at: String,
    /// When its value was set last.
    #[schema(format = DateTime)]
    rotated_at: String,
    /// The live functions that read it.
    functions: Vec<String>,
}

impl From<SecretUse> for Secret {
    fn from(used: SecretUse) -> Self {
        Self {
            name: used.secret.name.to_string(),
            created_at: rfc3339(used.secret.created_us),
            rotated_at: rfc3339(used.secret.rotated_us),
            functions: used.functions.iter().map(ToString::to_string).collect(),
        }
    }
}

/// All secrets.
#[derive(Debug, Serialize, ToSchema)]
struct SecretPage {
    /// By name.
    items: Vec<Secret>,
    /// Always null: the list is complete.
    #[schema(value_type = Option<String>)]
    next: Option<()>,
}

/// List secrets.
///
/// Names, times and the functions that read them; values are never told.
#[utoipa::path(
    get,
    path = "/secrets",
    tag = "secrets",
    responses((status = 200, description = "The secrets, by name", body = SecretPage))
)]
async fn list_secrets(State(app): State<Arc<App>>, caller: Caller) -> Result<Answer<SecretPage>, Problem> {
    caller.require(Scope::Read)?;
    let secrets = app.catalog.list_secrets(&caller.tenant);
    Ok(Answer(SecretPage { items: secrets.into_iter().map(Secret::from).collect(), next: None }))
}

/// The value of a secret.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetSecret {
    /// The value, of at most 64 KiB.
    #[schema(value_type = String, min_length = 1, max_length = 65_536)]
    value: Value,
    /// How the value is written: `text`, or `base64` for bytes that are no text.
    #[schema(value_type = Option<String>, pattern = "^(text|base64)$", example = "text")]
    encoding: Option<Value>,
}

impl SetSecret {
    /// Its errors do not repeat what was sent.
    fn into_value(self) -> Result<SecretValue, Problem> {
        let wrong = |field: &'static str, detail: &'static str| {
            Problem::new(Code::Unprocessable, detail).field(field)
        };
        let Value::String(text) = self.value else {
            return Err(wrong("value", "value is not a text; write {\"value\": \"…\"}"));
        };
        let encoding = self.encoding.unwrap_or_else(|| "text".into());
        let value = SecretValue::from(text.into_bytes());
        match encoding.as_str() {
            Some("text") => Ok(value),
            Some("base64") => match STANDARD.decode(value.bytes()) {
                Ok(bytes) => Ok(bytes.into()),
                Err(_) => Err(wrong("value", "value is not Base64 with its padding")),
            },
            _ => Err(wrong("encoding", "encoding is neither \"text\" nor \"base64\"")),
        }
    }
}

/// Set a secret.
///
/// The first value of that name, or a new one: functions see it at their next call, without a
/// deploy.
#[utoipa::path(
    put,
    path = "/secrets/{name}",
    tag = "secrets",
    params(openapi::SecretParam),
    request_body = SetSecret,
    responses(
        (status = 200, description = "Kept; every call that begins from now on sees it", body = Secret),
        (status = 507, description = "The disk is full"),
    )
)]
async fn set_secret(
    State(app): State<Arc<App>>,
    caller: Caller,
    TextPath(name): TextPath,
    ApiJson(body): ApiJson<SetSecret>,
) -> Result<Answer<Secret>, Problem> {
    caller.require(Scope::Deploy)?;
    let name: SecretName = name.parse().map_err(|error: fp_core::ids::IdError| {
        Problem::new(Code::InvalidName, error.to_string()).field("name")
    })?;
    let set = app.catalog.set_secret(&caller.tenant, caller.since_us, &name, body.into_value()?).await;
    set.map(Secret::from).map(Answer).map_err(refused)
}

/// Whether to delete what functions still read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeleteQuery {
    /// Delete it also while live functions read it: `true` or `false`.
    #[param(pattern = "^(true|false)$", example = "false", nullable = false)]
    force: Option<String>,
}

/// A secret that was deleted.
#[derive(Debug, Serialize, ToSchema)]
struct DeletedSecret {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
    /// Its name.
    #[schema(example = "STRIPE_KEY")]
    name: String,
}

/// Delete a secret.
///
/// One that live functions read is deleted only with `force=true`; asking for it fails in them
/// from then on.
#[utoipa::path(
    delete,
    path = "/secrets/{name}",
    tag = "secrets",
    params(openapi::SecretParam, DeleteQuery),
    responses(
        (status = 200, description = "Deleted", body = DeletedSecret),
        (status = 409, description = "Live functions read it; `functions` names them"),
        (status = 415, description = "A body came along, with a content type that is not accepted"),
        (status = 507, description = "The disk is full"),
    )
)]
async fn delete_secret(
    State(app): State<Arc<App>>,
    caller: Caller,
    TextPath(name): TextPath,
    ApiQuery(query): ApiQuery<DeleteQuery>,
) -> Result<Answer<DeletedSecret>, Problem> {
    caller.require(Scope::Deploy)?;
    let force = match query.force.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(wrong_parameter("force", "force is neither true nor false")),
    };
    let unknown = || Problem::new(Code::NotFound, format!("no secret is called {name:?}"));
    let parsed: SecretName = name.parse().map_err(|_| unknown())?;
    match app.catalog.delete_secret(&caller.tenant, &parsed, force).await {
        Ok(()) => Ok(Answer(DeletedSecret { status: "ok", name })),
        Err(SecretNotDeleted::NotFound) => Err(unknown()),
        Err(SecretNotDeleted::InUse { functions }) => {
            let functions: Vec<_> = functions.iter().map(ToString::to_string).collect();
            let detail = format!("secret {name} is read by {}", functions.join(", "));
            Err(Problem::new(Code::SecretInUse, detail).extra("functions", functions))
        }
        Err(SecretNotDeleted::Failed(error)) => Err(refused(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Vec<u8>, String> {
        let body: SetSecret = serde_json::from_str(json).expect("the right keys");
        match body.into_value() {
            Ok(value) => Ok(value.bytes().to_vec()),
            Err(problem) => Err(String::from_utf8(problem.to_json()).expect("UTF-8")),
        }
    }

    #[test]
    fn values_are_text_or_base64_and_no_error_repeats_one() {
        assert_eq!(read(r#"{"value": "tópsecret"}"#), Ok("tópsecret".into()));
        assert_eq!(read(r#"{"value": "AP8=", "encoding": "base64"}"#), Ok(vec![0, 255]));
        for json in [
            r#"{"value": 42424242}"#,
            r#"{"value": ["42424242"]}"#,
            r#"{"value": "42424242!", "encoding": "base64"}"#,
            r#"{"value": "42424242", "encoding": "42424242"}"#,
        ] {
            let problem = read(json).expect_err(json);
            assert!(problem.contains("unprocessable") && !problem.contains("4242"), "{problem}");
        }
    }
}
