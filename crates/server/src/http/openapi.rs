//! The OpenAPI document: what every operation has in common, and the words that its schemas use.
//!
//! Handlers describe themselves; here each operation gets the errors that its kind of input can
//! cause, and every error answer gets the shape of a problem document. `docs/openapi.json` is
//! this document; a test compares the two.

use fp_core::code::Code;
use fp_core::{Blame, Outcome, Scope};
use serde::Serialize;
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::Response;
use utoipa::openapi::schema::{AnyOf, KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Content, Info, License, OpenApi, PathItem, Ref, RefOr, Tag};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::api::parameters::LENIENT;
use super::caller::COOKIE_NAME;
use super::problem::PROBLEM_JSON;
use crate::audit::Kind;

const DESCRIPTION: &str = "\
Deploy functions, run them in the background and see what happened to each call. Every error is \
a problem document (RFC 9457) whose `code` is explained in docs/errors.md and by \
`functionsplatform explain code`. Functions themselves are called at the gateway, traces are on \
the traces port.\n\n\
The listener answers only to its own host names and refuses requests of foreign web pages; \
writes are taken only as `application/json` or `application/zip`.\n\n\
Who asks is known by a key (`Authorization: Bearer fpk_…`) or by the session of a browser. On \
loopback none is needed, unless the platform was started with `--require-key`. Everything is about \
the caller's own tenant; the operator, an admin of the tenant `default`, may name another in the \
header `X-Tenant`.";

/// Paths that answer everybody.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/version"];

/// Parameters of routes that name a function.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes the path for the document; the extractor reads it")]
pub(crate) struct NameParam {
    /// The function's name.
    #[param(pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$", example = "hello")]
    name: String,
}

/// Parameters of routes that name a tenant.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes the path for the document; the extractor reads it")]
pub(crate) struct TenantParam {
    /// The tenant's name.
    #[param(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", example = "acme")]
    name: String,
}

/// Parameters of routes that name a secret.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes the path for the document; the extractor reads it")]
pub(crate) struct SecretParam {
    /// The secret's name.
    #[param(pattern = "^[A-Za-z_][A-Za-z0-9_]{0,126}$", example = "STRIPE_KEY")]
    name: String,
}

/// Parameters of routes that name a silence.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes the path for the document; the extractor reads it")]
pub(crate) struct SilenceParam {
    /// The silence's id.
    #[param(pattern = "^[0-9a-f]{16}$", example = "3f2a9c01d4e5b677")]
    id: String,
}

/// Parameters of routes that name an invocation.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes the path for the document; the extractor reads it")]
pub(crate) struct IdParam {
    /// The invocation's id, as in the header `X-Serverless-Instance-Id`.
    #[param(format = "uuid", example = "0190b2a8-4e5c-7cc1-b4a5-0d2f6a1c9e11")]
    id: String,
}

/// What an error answer says (RFC 9457). Members that do not apply are left out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProblemDocument {
    /// The error's word; each has an entry in docs/errors.md.
    #[schema(schema_with = code_words)]
    code: String,
    /// The code in a few words.
    title: String,
    /// The status of the answer.
    status: u16,
    /// What happened here: the thing, the limit, what to do.
    detail: String,
    /// Which part of the platform says so.
    component: String,
    /// The phase of the call in which it failed.
    #[schema(nullable = false)]
    phase: Option<String>,
    /// `caller`, `function` or `platform`.
    #[schema(value_type = String, nullable = false)]
    blame: Option<Blame>,
    /// The very same request may succeed later.
    retryable: bool,
    /// The call that it is about.
    #[schema(nullable = false)]
    invocation_id: Option<String>,
    /// The trace that it is about.
    #[schema(nullable = false)]
    trace_id: Option<String>,
    /// What to do.
    hint: String,
    /// The field at fault, as a dotted path.
    #[schema(nullable = false)]
    field: Option<String>,
    /// The line at fault, in the code or in function.toml.
    #[schema(nullable = false)]
    line: Option<u32>,
    /// Why, where a code has several reasons.
    #[schema(nullable = false)]
    reason: Option<String>,
    /// The scope that the key lacks.
    #[schema(nullable = false)]
    scope: Option<String>,
    /// The name of the key that lacks it.
    #[schema(nullable = false)]
    key: Option<String>,
    /// The limit that was exceeded.
    #[schema(nullable = false)]
    limit_bytes: Option<u64>,
    /// Last lines of the traceback of a handler that cannot be loaded.
    #[schema(nullable = false)]
    traceback: Option<String>,
    /// The functions that stand against it.
    #[schema(nullable = false)]
    functions: Option<Vec<String>>,
}

fn words(words: impl Iterator<Item = &'static str>, example: &str) -> Schema {
    let object = ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .enum_values(Some(words))
        .examples([serde_json::Value::from(example)]);
    Schema::Object(object.build())
}

/// One of the outcomes' words.
#[derive(Debug)]
pub(crate) struct OutcomeWord;

impl PartialSchema for OutcomeWord {
    fn schema() -> RefOr<Schema> {
        RefOr::T(words(Outcome::words(), "ok"))
    }
}

impl ToSchema for OutcomeWord {}

/// A zip archive as a request's body.
#[derive(Debug)]
pub(crate) struct Archive;

impl PartialSchema for Archive {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).format(Some(format)).build().into()
    }
}

impl ToSchema for Archive {}

/// One of the scopes' words.
#[derive(Debug)]
pub(crate) struct ScopeWord;

impl PartialSchema for ScopeWord {
    fn schema() -> RefOr<Schema> {
        RefOr::T(words(Scope::ALL.iter().map(|scope| scope.word()), "read"))
    }
}

impl ToSchema for ScopeWord {}

/// One of the kinds of records in the audit log.
#[derive(Debug)]
pub(crate) struct AuditKindWord;

impl PartialSchema for AuditKindWord {
    fn schema() -> RefOr<Schema> {
        RefOr::T(words(Kind::ALL.into_iter().map(Kind::word), "change"))
    }
}

impl ToSchema for AuditKindWord {}

/// Whether an alert fires.
#[derive(Debug)]
pub(crate) struct AlertStateWord;

impl PartialSchema for AlertStateWord {
    fn schema() -> RefOr<Schema> {
        RefOr::T(words(["firing", "ended"].into_iter(), "firing"))
    }
}

impl ToSchema for AlertStateWord {}

/// RFC 3339, or an age such as `1h`.
#[derive(Debug)]
pub(crate) struct PointInTime;

impl PartialSchema for PointInTime {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(SchemaType::new(Type::String));
        let time = text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
        let age = text().pattern(Some("^[0-9]{1,4}(s|m|h|d)$"));
        let either = AnyOf { items: vec![time.build().into(), age.build().into()], ..AnyOf::default() };
        RefOr::T(Schema::AnyOf(either))
    }
}

impl ToSchema for PointInTime {}

fn code_words() -> Schema {
    words(Code::ALL.iter().map(|code| code.word()), "not_found")
}

/// What the document says before its first route.
pub(crate) fn preamble() -> OpenApi {
    let mut info = Info::new("functionsplatform", env!("CARGO_PKG_VERSION"));
    info.description = Some(DESCRIPTION.to_owned());
    info.license = Some(License::new(env!("CARGO_PKG_LICENSE")));
    let mut document = OpenApi::new(info, utoipa::openapi::Paths::new());
    let tag = |name, description| {
        let mut tag = Tag::new(name);
        tag.description = Some(String::from(description));
        tag
    };
    document.tags = Some(vec![
        tag("functions", "What is deployed, deploying, deleting, running in the background"),
        tag("instances", "Runs of functions, in the older shape"),
        tag("invocations", "What happened to each call"),
        tag("slo", "Objectives of functions, their budgets and alerts"),
        tag("secrets", "Values that functions read and nobody else sees"),
        tag("tenants", "Who shares the platform; for the operator"),
        tag("keys", "Who may do what in a tenant; for its admins"),
        tag("audit", "Who asked for what; for a tenant's admins"),
        tag("platform", "Workers, host, health, metrics"),
    ]);
    document
}

/// Adds to every operation the errors that its kind of input can cause, and to every error the
/// shape of a problem document.
pub(crate) fn complete(mut document: OpenApi) -> OpenApi {
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            if !OPEN.contains(&path.as_str()) {
                add_access(operation);
            }
            add_common_errors(operation);
            if !LENIENT.contains(&path.as_str()) {
                add_errors(
                    operation,
                    [(422, "A query parameter that this route does not have; `field` names it")],
                );
            }
            shape_errors(operation);
        }
    }
    let components = document.components.get_or_insert_default();
    components.schemas.insert("Problem".to_owned(), ProblemDocument::schema());
    components.add_security_scheme(KEY, bearer());
    components.add_security_scheme(SESSION, cookie());
    document
}

/// Names of the security schemes.
const KEY: &str = "key";
const SESSION: &str = "session";

fn bearer() -> SecurityScheme {
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("fpk_…");
    SecurityScheme::Http(
        scheme.description(Some("A key, as `functionsplatform key create` makes them")).build(),
    )
}

fn cookie() -> SecurityScheme {
    let cookie = ApiKeyValue::with_description(COOKIE_NAME, "A browser's session, begun at /login");
    SecurityScheme::ApiKey(ApiKey::Cookie(cookie))
}

/// What a route that asks who asks can answer besides. Nobody at all is let in on loopback.
fn add_access(operation: &mut Operation) {
    let none: [&str; 0] = [];
    operation.security = Some(vec![
        SecurityRequirement::new(KEY, none),
        SecurityRequirement::new(SESSION, none),
        SecurityRequirement::default(),
    ]);
    let errors = [
        (400, "The request cannot be read"),
        (401, "A key is needed and none came, or the one that came is not in force"),
        (403, "The key lacks the scope that `scope` names, or the request comes from a foreign web page"),
        (404, "There is no such thing in the caller's tenant, or no tenant of the name in X-Tenant"),
    ];
    add_errors(operation, errors);
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten()
}

/// Statuses that any route of a kind can answer with.
fn common_errors(operation: &Operation) -> Vec<(u16, &'static str)> {
    let mut errors = vec![
        (403, "The request comes from a foreign web page"),
        (421, "The Host is not one of this listener's names"),
        (500, "The platform failed"),
    ];
    let parameters = operation.parameters.iter().flatten();
    for parameter in parameters {
        let RefOr::T(parameter) = parameter else { continue };
        errors.extend(match parameter.parameter_in {
            utoipa::openapi::path::ParameterIn::Path => [
                (400, "The path cannot be decoded, or the body cannot be read"),
                (404, "There is no such thing"),
            ],
            _ => [(400, "The request cannot be read"), (422, "A value is not allowed; `field` names it")],
        });
    }
    if operation.request_body.is_some() {
        errors.extend([
            (400, "The body cannot be read: it is not JSON, or it was cut off"),
            (408, "The body came too slowly"),
            (413, "The body is over the limit; `limit_bytes` has it"),
            (415, "The content type is not accepted here"),
            (422, "Well-formed but wrong; `field` names the value, `line` the line in the code"),
            (503, "The platform is stopping, or holds as many bytes of request bodies as it may"),
        ]);
    }
    errors
}

fn add_common_errors(operation: &mut Operation) {
    let errors = common_errors(operation);
    add_errors(operation, errors);
}

fn add_errors(operation: &mut Operation, errors: impl IntoIterator<Item = (u16, &'static str)>) {
    for (status, description) in errors {
        let responses = &mut operation.responses.responses;
        responses.entry(status.to_string()).or_insert_with(|| RefOr::T(Response::new(description)));
    }
}

fn shape_errors(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if status.starts_with(['4', '5']) && response.content.is_empty() {
            let problem = Content::new(Some(Ref::from_schema_name("Problem")));
            response.content.insert(PROBLEM_JSON.to_owned(), RefOr::T(problem));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::http::api;

    fn document() -> serde_json::Value {
        serde_json::to_value(api::document()).expect("JSON")
    }

    #[test]
    fn the_committed_document_is_up_to_date() {
        let fresh = api::document().to_pretty_json().expect("JSON") + "\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(path, &fresh).expect("docs/ can be written");
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == fresh,
            "docs/openapi.json is stale: UPDATE_OPENAPI=1 cargo test -p fp-server openapi"
        );
    }

    #[test]
    fn every_operation_has_a_name_a_summary_a_tag_and_shaped_errors() {
        let document = document();
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (verb, operation) in item.as_object().expect("operations") {
                let name = operation["operationId"].as_str().expect("a name");
                assert!(names.insert(name.to_owned()), "{name} twice");
                assert!(operation["summary"].is_string(), "{verb} {path}");
                assert!(operation["tags"].is_array(), "{verb} {path}");
                for (status, response) in operation["responses"].as_object().expect("responses") {
                    let shaped = !response["content"][PROBLEM_JSON].is_null();
                    assert_eq!(shaped, !status.starts_with('2'), "{verb} {path} {status}");
                }
            }
        }
        assert!(names.contains("list_functions") && names.contains("trigger_functions"), "{names:?}");
    }

    #[test]
    fn a_problem_has_only_members_that_the_document_knows() {
        let known = document()["components"]["schemas"]["Problem"]["properties"].clone();
        let problem = super::super::problem::Problem::new(Code::NotFound, "x")
            .phase("run")
            .field("a")
            .line(1)
            .reason("b")
            .extra("limit_bytes", 1)
            .extra("scope", "read")
            .extra("key", "ci")
            .extra("traceback", "c");
        let members: serde_json::Value = serde_json::from_slice(&problem.to_json()).expect("JSON");
        for member in members.as_object().expect("an object").keys() {
            assert!(!known[member].is_null(), "{member} is not in the document");
        }
    }
}
