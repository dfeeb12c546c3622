//! `POST /functions/trigger`: run what an event type names, without waiting for it.
//!
//! The call is on disk before the answer says so. Shape and leniency are those of the platform
//! that this one follows: headers are text lines, the body is text.

use std::sync::Arc;

use axum::extract::State;
use bytes::Bytes;
use fp_core::Tenant;
use fp_core::code::Code;
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::extract::{Answer, ApiJson};
use crate::app::App;
use crate::http::problem::Problem;
use crate::invoke::{TriggerCall, TriggerError};

pub(super) fn routes() -> UtoipaMethodRouter<Arc<App>> {
    routes!(trigger_functions)
}

/// A request as text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "http_verb": "POST",
    "http_path": "/api/cats?colour=black",
    "http_header": "Content-Type: application/json\nX-Correlation-Id: nightly-7",
    "http_body": "{\"arg\": 21}",
}))]
struct TriggerRequest {
    /// The verb, in any case.
    #[schema(pattern = "^[A-Za-z-]{1,32}$", example = "POST")]
    http_verb: String,
    /// The path, with a query string if there is one; escapes must be UTF-8.
    #[schema(
        pattern = r"^/([^%#\s\x00-\x1f\x7f]|%[0-7][0-9A-Fa-f]|%([Cc][2-9A-Fa-f]|[Dd][0-9A-Fa-f])%[89ABab][0-9A-Fa-f]|%[Ee]0%[ABab][0-9A-Fa-f]%[89ABab][0-9A-Fa-f]|%[Ee][Dd]%[89][0-9A-Fa-f]%[89ABab][0-9A-Fa-f]|%[Ee][1-9A-Ca-cEeFf](%[89ABab][0-9A-Fa-f]){2}|%[Ff]0%[9ABab][0-9A-Fa-f](%[89ABab][0-9A-Fa-f]){2}|%[Ff][1-3](%[89ABab][0-9A-Fa-f]){3}|%[Ff]4%8[0-9A-Fa-f](%[89ABab][0-9A-Fa-f]){2})*$",
        example = "/api/cats"
    )]
    http_path: String,
    /// Header lines, `Name: value`; lines without `: ` are ignored.
    #[serde(default)]
    #[schema(default = "")]
    http_header: String,
    /// The body: text is passed on as it is, other JSON as its text. Of an object whose only key
    /// is `body`, that value is taken.
    #[serde(default)]
    #[schema(value_type = Value, default = "")]
    http_body: Value,
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
/// Every function of the matching event type runs once. The call is written durably before this
/// answers; its result is at `/invocations/{id}`.
#[utoipa::path(
    post,
    path = "/functions/trigger",
    tag = "functions",
    request_body = TriggerRequest,
    responses(
        (status = 200, description = "Accepted and written to disk", body = Triggered),
        (status = 404, description = "No function answers to this verb and path"),
        (status = 503, description = "Not now: no worker could be started, or the platform is starting or stopping"),
        (status = 507, description = "The disk is full"),
    )
)]
async fn trigger_functions(
    State(app): State<Arc<App>>,
    ApiJson(body): ApiJson<TriggerRequest>,
) -> Result<Answer<Triggered>, Problem> {
    let ids = app.invoker.trigger(&Tenant::default(), body.into_call()?).await.map_err(refused)?;
    Ok(Answer(Triggered { status: "ok", container_ids: ids.iter().map(ToString::to_string).collect() }))
}

impl TriggerRequest {
    fn into_call(self) -> Result<TriggerCall, Problem> {
        if !self.http_path.starts_with('/') {
            let detail = format!("path {:?} does not begin with /", self.http_path);
            return Err(Problem::new(Code::Unprocessable, detail).field("http_path"));
        }
        let verb = http::Method::from_bytes(self.http_verb.to_ascii_uppercase().as_bytes());
        let Ok(verb) = verb else {
            let detail = format!("{:?} is not an HTTP verb", self.http_verb);
            return Err(Problem::new(Code::Unprocessable, detail).field("http_verb"));
        };
        Ok(TriggerCall {
            verb: verb.to_string(),
            path: self.http_path,
            headers: header_lines(&self.http_header),
            body: body_bytes(self.http_body),
        })
    }
}

/// `Name: value` lines; anything else, such as a request line, is passed over.
fn header_lines(text: &str) -> Vec<(String, String)> {
    let pairs = text.lines().filter_map(|line| line.split_once(": "));
    let pairs = pairs.map(|(name, value)| (name.trim(), value.trim()));
    let sendable = pairs.filter(|(name, value)| {
        HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_str(value).is_ok()
    });
    sendable.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn body_bytes(body: Value) -> Bytes {
    match body {
        Value::Null => Bytes::new(),
        Value::String(text) => match serde_json::from_str::<Value>(&text).ok().and_then(only_body) {
            Some(inner) => value_bytes(inner),
            None => Bytes::from(text),
        },
        other => match only_body(other.clone()) {
            Some(inner) => value_bytes(inner),
            None => value_bytes(other),
        },
    }
}

/// The value of an object whose only key is `body`.
fn only_body(value: Value) -> Option<Value> {
    match value {
        Value::Object(mut object) if object.len() == 1 => object.remove("body"),
        _ => None,
    }
}

fn value_bytes(value: Value) -> Bytes {
    match value {
        Value::Null => Bytes::new(),
        Value::String(text) => Bytes::from(text),
        other => Bytes::from(other.to_string()),
    }
}

/// A path that no function answers is 404 here also when other verbs have it: the 405 and its
/// `Allow` would speak of this very route.
fn refused(error: TriggerError) -> Problem {
    let problem = Problem::new(error.code, error.detail);
    match error.code {
        Code::NoRoute => problem.field("http_path"),
        Code::MethodNotAllowed => problem.with_status(StatusCode::NOT_FOUND).field("http_verb"),
        Code::InvalidPath => problem.with_status(StatusCode::UNPROCESSABLE_ENTITY).field("http_path"),
        Code::InvalidDeadline => problem.with_status(StatusCode::UNPROCESSABLE_ENTITY).field("http_header"),
        Code::TooLarge => problem.field("http_body"),
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_lines_without_a_colon_and_a_space_are_ignored() {
        let lines =
            header_lines("GET / HTTP/1.1\r\nAccept: */*\r\nnonsense\r\nX-A:1\nbad name: 1\nX-B: a: b");
        let expected = [("Accept", "*/*"), ("X-B", "a: b")];
        assert_eq!(lines, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn an_object_whose_only_key_is_body_is_unwrapped() {
        let cases = [
            (serde_json::json!("plain"), "plain"),
            (serde_json::json!("{\"arg\": 21}"), "{\"arg\": 21}"),
            (serde_json::json!("{\"body\": {\"arg\": 21}}"), "{\"arg\":21}"),
            (serde_json::json!({"body": "text"}), "text"),
            (serde_json::json!({"body": 1, "other": 2}), "{\"body\":1,\"other\":2}"),
            (serde_json::json!({"arg": 21}), "{\"arg\":21}"),
            (serde_json::json!(null), ""),
            (serde_json::json!(4), "4"),
        ];
        for (given, expected) in cases {
            assert_eq!(body_bytes(given), expected);
        }
    }
}
