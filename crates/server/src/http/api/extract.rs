//! Extractors that answer with problem documents instead of axum's plain text.
//!
//! Malformed input (JSON that does not parse, a query string that cannot be read) is 400;
//! well-formed but wrong input is 422 and names its field; a body over the limit is 413. JSON is
//! read into a tree first, so that a syntax error anywhere is a syntax error, whatever came
//! before it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Form, FromRequest, FromRequestParts, Path, Query, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use fp_core::code::Code;
use fp_core::{FunctionName, InvocationId, Scope};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::bodies::{BodyBudget, NoRoom, Purse};
use crate::http::caller::{self, Caller};
use crate::http::guard::{media_type, unsupported_media_type};
use crate::http::listener::UploadError;
use crate::http::problem::Problem;
use crate::http::whole::{self, Unread};

/// Largest JSON body: a handler's source of several megabytes is generated code, and the
/// ancestor's single-file deploys are kilobytes.
pub(crate) const MAX_JSON_BYTES: usize = 8 << 20;

/// Largest archive: room for vendored packages with native libraries (numpy's wheel is 17 MB).
pub(crate) const MAX_ARCHIVE_BYTES: usize = 128 << 20;

/// Largest form: the sign-in has a key and a path, and strangers may send one.
const MAX_FORM_BYTES: usize = 16 << 10;

/// A JSON body, read into `T`.
#[derive(Debug)]
pub(crate) struct ApiJson<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for ApiJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let media_type = media_type(request.headers());
        if media_type.as_deref() != Some("application/json") {
            return Err(unsupported_media_type(media_type.as_deref(), "application/json"));
        }
        let body = whole_body(request, MAX_JSON_BYTES).await?;
        read_json(&body).map(Self)
    }
}

/// A zip archive as the body, of a caller that may deploy.
#[derive(Debug)]
pub(crate) struct ApiArchive(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for ApiArchive {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let media_type = media_type(request.headers());
        if media_type.as_deref() != Some("application/zip") {
            return Err(unsupported_media_type(media_type.as_deref(), "application/zip"));
        }
        // It may be large, and is nobody's to send but theirs who may deploy it.
        if let Some(caller) = request.extensions().get::<Caller>()
            && let Err(problem) = caller.require(Scope::Deploy)
        {
            tokio::spawn(whole::discard(request.into_body()));
            return Err(problem);
        }
        whole_body(request, MAX_ARCHIVE_BYTES).await.map(Self)
    }
}

/// The fields of a form.
#[derive(Debug)]
pub(crate) struct ApiForm<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for ApiForm<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let whole = read_body(body, &parts.headers, MAX_FORM_BYTES, None).await?;
        let form = Form::from_request(Request::from_parts(parts, Body::from(whole)), state).await;
        form.map(|Form(form)| Self(form)).map_err(|rejection| {
            let detail = format!("the form cannot be read: {}", rejection.body_text());
            Problem::new(Code::BadRequest, detail)
        })
    }
}

/// The body of a request whose caller may still send it when it is here.
async fn whole_body(request: Request, limit: usize) -> Result<Bytes, Problem> {
    let (parts, body) = request.into_parts();
    let caller = parts.extensions.get::<Caller>();
    let budget = parts.extensions.get::<Arc<BodyBudget>>();
    let purse = budget.zip(caller).map(|(budget, caller)| budget.purse(&caller.tenant));
    let whole = read_body(body, &parts.headers, limit, purse).await?;
    caller::ask_again(&parts.extensions)?;
    Ok(whole)
}

async fn read_body(
    body: Body,
    head: &HeaderMap,
    limit: usize,
    purse: Option<Purse<'_>>,
) -> Result<Bytes, Problem> {
    whole::read(body, head, limit as u64, purse).await.map_err(|unread| match unread {
        Unread::TooLarge => {
            let detail = format!("the body is over the limit of {limit} bytes");
            let problem = Problem::new(Code::TooLarge, detail).component("api");
            problem.hint("Send less; large code goes as an archive.").extra("limit_bytes", limit)
        }
        Unread::NoRoom => {
            Problem::new(Code::Shed, NoRoom.to_string()).component("api").retry_after(Duration::from_secs(1))
        }
        Unread::Broken(error) => UploadError::problem_of(&error)
            .unwrap_or_else(|| Problem::new(Code::BadRequest, "the body ended before it was complete")),
    })
}

/// Reads JSON in two steps, so that syntax errors (400) and wrong values (422) do not mix.
fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let tree: Value = serde_json::from_slice(body).map_err(|error| {
        let detail = format!("the body is not JSON: {error}");
        Problem::new(Code::BadRequest, detail).hint("Send one JSON object, encoded as UTF-8.")
    })?;
    if !tree.is_object() {
        return Err(Problem::new(Code::Unprocessable, "the body is not a JSON object").field("body"));
    }
    serde_path_to_error::deserialize(tree).map_err(|error| {
        let path = error.path().to_string();
        let detail = error.inner().to_string();
        wrong_value(&path, detail)
    })
}

/// Serde names the field at fault in the path, or in backticks when it is missing or unknown.
fn wrong_value(path: &str, detail: String) -> Problem {
    let names_it = detail.contains("field `") || detail.contains("parameter `");
    let named = detail.split('`').nth(1).filter(|_| names_it);
    let field = match (path, named) {
        ("." | "?", Some(named)) => named.to_owned(),
        (path, Some(named)) if !path.ends_with(named) => format!("{path}.{named}"),
        (path, _) => path.to_owned(),
    };
    Problem::new(Code::Unprocessable, detail).field(field)
}

/// The query string, read into a struct whose fields are all `Option<String>`: values are given
/// their types by the resource, which can then name the field. Unknown names are refused.
#[derive(Debug)]
pub(crate) struct ApiQuery<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::try_from_uri(&parts.uri).map_err(|rejection| {
            let text = rejection.body_text();
            let detail = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            let detail = detail.split_once(": ").map_or(detail, |(_field, message)| message);
            wrong_value("?", detail.replace("field `", "parameter `"))
        })?;
        Ok(Self(query.0))
    }
}

/// A function's name in the path. A text that no function can have is simply not found.
#[derive(Debug)]
pub(crate) struct NamePath(pub(crate) FunctionName);

impl<S: Send + Sync> FromRequestParts<S> for NamePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = path_text(parts, state).await?;
        text.parse().map(Self).map_err(|_| no_function(&text))
    }
}

/// A text in the path that the resource itself knows or does not know.
#[derive(Debug)]
pub(crate) struct TextPath(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for TextPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path_text(parts, state).await.map(Self)
    }
}

/// An invocation's id in the path.
#[derive(Debug)]
pub(crate) struct InvocationPath(pub(crate) InvocationId);

impl<S: Send + Sync> FromRequestParts<S> for InvocationPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = path_text(parts, state).await?;
        text.to_ascii_lowercase().parse().map(Self).map_err(|_| no_invocation(&text))
    }
}

async fn path_text<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<String, Problem> {
    let path = Path::<String>::from_request_parts(parts, state).await;
    let unreadable = "the path is not UTF-8 once its percent escapes are decoded";
    path.map(|Path(text)| text).map_err(|_| Problem::new(Code::InvalidPath, unreadable).component("api"))
}

/// The 404 for a function.
pub(crate) fn no_function(name: &str) -> Problem {
    Problem::new(Code::NotFound, format!("no function is called {name:?}"))
}

/// The 404 for an invocation.
pub(crate) fn no_invocation(id: &str) -> Problem {
    Problem::new(Code::NotFound, format!("no invocation has the id {id:?}, or its record is no longer kept"))
}

/// The 422 for a query parameter.
pub(crate) fn wrong_parameter(field: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(Code::Unprocessable, detail.into()).field(field)
}

/// A JSON answer with status 200.
#[derive(Debug)]
pub(crate) struct Answer<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(json) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
            Err(error) => {
                tracing::error!(%error, "an answer cannot be written as JSON");
                Problem::new(Code::PlatformError, "the answer cannot be written as JSON").into_response()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::listener::uploads::upload;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "read only by serde")]
    struct Sample {
        name: String,
        inner: Option<Inner>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "read only by serde")]
    struct Inner {
        count: f64,
    }

    fn fault(text: &str) -> (u16, Value) {
        let problem = read_json::<Sample>(text.as_bytes()).expect_err(text);
        let document: Value = serde_json::from_slice(&problem.to_json()).expect("JSON");
        (problem.status().as_u16(), document["field"].clone())
    }

    #[test]
    fn syntax_is_400_and_wrong_values_are_422_with_their_field() {
        assert_eq!(fault("{").0, 400);
        assert_eq!(fault("").0, 400);
        assert_eq!(fault("{\"name\": 1, ]").0, 400);
        assert_eq!(fault("[]"), (422, "body".into()));
        assert_eq!(fault("null"), (422, "body".into()));
        assert_eq!(fault("{}"), (422, "name".into()));
        assert_eq!(fault("{\"name\": 1}"), (422, "name".into()));
        assert_eq!(fault("{\"name\": \"a\", \"nmae\": 1}"), (422, "nmae".into()));
        assert_eq!(fault("{\"name\": \"a\", \"inner\": {\"count\": \"x\"}}"), (422, "inner.count".into()));
        assert_eq!(fault("{\"name\": \"a\", \"inner\": {}}"), (422, "inner.count".into()));
    }

    #[tokio::test]
    async fn nobody_sends_a_body_for_ever() {
        #[derive(Debug, serde::Deserialize)]
        struct Anything {}
        for media_type in ["application/json", "application/zip", "application/x-www-form-urlencoded"] {
            let (sender, body) = upload(std::time::Duration::from_millis(20));
            sender.send(Bytes::from_static(b"{")).await.expect("it is read");
            let request = http::Request::post("/").header(CONTENT_TYPE, media_type);
            let request = request.body(Body::new(body)).expect("a request");
            let problem = match media_type {
                "application/json" => ApiJson::<Anything>::from_request(request, &()).await.map(drop),
                "application/zip" => ApiArchive::from_request(request, &()).await.map(drop),
                _ => ApiForm::<Anything>::from_request(request, &()).await.map(drop),
            };
            assert_eq!(problem.expect_err("too slow").code(), Code::RequestTimeout, "{media_type}");
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_413_with_the_limit() {
        let problem =
            read_body(Body::from("12345"), &HeaderMap::new(), 4, None).await.expect_err("too large");
        assert_eq!(problem.status(), 413);
        let document: Value = serde_json::from_slice(&problem.to_json()).expect("JSON");
        assert_eq!(document["limit_bytes"], 4);
    }
}
