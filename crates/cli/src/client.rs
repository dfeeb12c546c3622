//! The HTTP client behind every verb that talks to a running platform.
//!
//! One small wrapper over hyper: base address, key, limits, and one way to turn whatever went
//! wrong into a [`Failure`]. Problem documents of the API (RFC 9457) become `title: detail`
//! and their hint; an address that nothing listens on becomes exit code 6.

mod connector;

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use fp_core::code::Code;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::exit::{Exit, Failure, plain};
use crate::flags::Global;

use self::connector::Connector;

/// A listening socket on this or a near machine answers within milliseconds; five seconds
/// survive one lost SYN and its retransmission.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The slowest answer of the management API is a deploy: a start limit of 10 s and the upload.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// A client of one platform.
#[derive(Debug)]
pub(crate) struct Client {
    base: Uri,
    key: Option<HeaderValue>,
    tenant: Option<HeaderValue>,
    http: legacy::Client<Connector, Full<Bytes>>,
}

/// A successful answer of the management API.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The body as it came.
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body read as JSON of the wanted shape.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::new(Exit::Other, format!("the answer is not what the management API sends: {error}"))
                .hint("check that --platform-uri names the API's address, not the gateway's")
        })
    }
}

impl Client {
    /// A client of the platform that the flags name.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let base = parse_base(&global.platform_uri())?;
        let key = global.key.as_deref().filter(|key| !key.is_empty()).map(bearer).transpose()?;
        let tenant =
            global.tenant.as_deref().filter(|name| !name.is_empty()).map(tenant_header).transpose()?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_LIMIT));
        connector.set_nodelay(true);
        let is_https = base.scheme_str() == Some("https");
        let connector = Connector::new(connector, is_https, global.ca_cert.as_deref())?;
        let http = legacy::Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { base, key, tenant, http })
    }

    /// GET of a path of the management API.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.call(Method::GET, path, None).await
    }

    /// A call with a JSON body.
    pub(crate) async fn post_json(&self, path: &str, body: &Value) -> Result<Answer, Failure> {
        let body = Bytes::from(body.to_string());
        self.call(Method::POST, path, Some(("application/json", body))).await
    }

    /// A call with a JSON body whose answer is read as it comes, whatever its status.
    pub(crate) async fn post_and_stream(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<Response<Incoming>, Failure> {
        let body = Bytes::from(body.to_string());
        self.exchange(self.request(Method::POST, path, Some(("application/json", body)))?).await
    }

    /// A call of the management API; any status that is not 2xx is a failure.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Answer, Failure> {
        let request = self.request(method, path, body)?;
        let exchange = async {
            let response = self.exchange(request).await?;
            let status = response.status();
            let body = collect(response).await?;
            Ok::<_, Failure>((status, body))
        };
        let (status, body) = tokio::time::timeout(ANSWER_LIMIT, exchange).await.map_err(|_| {
            let limit = ANSWER_LIMIT.as_secs();
            Failure::new(Exit::Unreachable, format!("no answer from {} within {limit} s", self.base))
        })??;
        if status.is_success() { Ok(Answer { body }) } else { Err(problem(status, &body)) }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let prefix = self.base.path().trim_end_matches('/');
        let uri = join(&self.base, &format!("{prefix}{path}"))?;
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, key);
        }
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Tenant", tenant);
        }
        if let Some((content_type, _)) = body {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        request
            .body(Full::new(body.map(|(_, body)| body).unwrap_or_default()))
            .map_err(|error| Failure::usage(format!("cannot make a request of this: {error}")))
    }

    /// One exchange with any HTTP server, whatever the status; the body is not read yet.
    pub(crate) async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Failure> {
        let uri = request.uri().clone();
        self.http.request(request).await.map_err(|error| unreachable(&uri, &error))
    }
}

/// The whole body of a response.
async fn collect(response: Response<Incoming>) -> Result<Bytes, Failure> {
    let collected = response.into_body().collect().await.map_err(|error| {
        Failure::new(Exit::Unreachable, format!("the connection broke off in mid-answer: {}", chain(&error)))
    })?;
    Ok(collected.to_bytes())
}

/// A path of the server that `base` names.
pub(crate) fn join(base: &Uri, path_and_query: &str) -> Result<Uri, Failure> {
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(path_and_query.parse().map_err(|error| {
        Failure::usage(format!("{path_and_query:?} is not the path of a request: {error}"))
    })?);
    Uri::from_parts(parts).map_err(|error| Failure::usage(format!("{path_and_query:?}: {error}")))
}

/// One segment of a path, percent-encoded.
pub(crate) fn segment(text: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// What an error answer says, as a failure with the exit code of its status.
pub(crate) fn problem(status: StatusCode, body: &[u8]) -> Failure {
    let exit = Exit::of_status(status);
    let Ok(problem) = serde_json::from_slice::<Value>(body) else {
        let text = String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned();
        let text = if text.is_empty() { String::new() } else { format!(": {text}") };
        return Failure::new(exit, format!("the platform answered {status}{text}"));
    };
    // 503 says "overloaded" unless the code says that something else stands in the way.
    let code = problem.get("code").and_then(Value::as_str).and_then(Code::from_word);
    let exit = match code {
        Some(Code::NotReady | Code::StartFailed | Code::StorageFailed | Code::StorageFull) => Exit::Other,
        _ => exit,
    };
    let word = |name: &str| problem.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut message = match (word("title"), word("detail")) {
        (Some(title), Some(detail)) => format!("{title}: {detail}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => format!("the platform answered {status}"),
    };
    if let Some(place) = place(&problem).filter(|place| !message.contains(place)) {
        message = format!("{message} ({place})");
    }
    if let Some(traceback) = word("traceback").filter(|text| !message.contains(text)) {
        message = format!("{message}\n{}", traceback.trim_end());
    }
    Failure { exit, message, hint: word("hint").map(str::to_owned) }
}

/// The field and the line that a problem is about.
fn place(problem: &Value) -> Option<String> {
    let field = problem.get("field").and_then(Value::as_str).map(|field| format!("field {field}"));
    let line = problem.get("line").and_then(Value::as_u64).map(|line| format!("line {line}"));
    match (field, line) {
        (Some(field), Some(line)) => Some(format!("{field}, {line}")),
        (one, other) => one.or(other),
    }
}

/// `http://host:port[/prefix]`; the scheme may be left out.
fn parse_base(text: &str) -> Result<Uri, Failure> {
    let fault = |why: &str| {
        Failure::usage(format!("{text:?} is not the URI of a platform: {why}"))
            .hint("write it as http://127.0.0.1:8000")
    };
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = full.parse().map_err(|error: http::uri::InvalidUri| fault(&error.to_string()))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(uri),
        Some("http" | "https") => Err(fault("it names no host")),
        _ => Err(fault("only http:// and https:// are spoken here")),
    }
}

fn tenant_header(name: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(name).map_err(|_| Failure::usage(format!("{name:?} is not the name of a tenant")))
}

fn bearer(key: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
        .map_err(|_| Failure::usage("the key holds characters that a header cannot carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn unreachable(uri: &Uri, error: &legacy::Error) -> Failure {
    let scheme = uri.scheme_str().unwrap_or("http");
    let place = format!("{scheme}://{}", uri.authority().map_or("", |authority| authority.as_str()));
    if error.is_connect() {
        return Failure::new(Exit::Unreachable, format!("cannot reach {place}: {}", root_cause(error)))
            .hint("start a platform with `functionsplatform up`, or say where it is with --platform-uri or FUNCTIONSPLATFORM_URI");
    }
    Failure::new(Exit::Unreachable, format!("{place} did not answer: {}", chain(error)))
}

/// The innermost error: the system's word on why a connection was not made.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    match inner.downcast_ref::<std::io::Error>() {
        Some(error) => plain(error),
        None => inner.to_string(),
    }
}

/// An error and what is behind it, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(source) = inner {
        text = format!("{text}: {source}");
        inner = source.source();
    }
    text
}

/// The headers of a request, from `K: V` lines.
pub(crate) fn headers(lines: &[crate::payload::Header]) -> HeaderMap {
    lines.iter().map(|line| (line.name.clone(), line.value.clone())).fold(
        HeaderMap::new(),
        |mut map, (name, value)| {
            map.append(name, value);
            map
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_shown_with_their_title_detail_and_hint() {
        let body = br#"{"title":"handler does not compile","detail":"invalid syntax","line":3,"field":"function_code","hint":"fix it"}"#;
        let failure = problem(StatusCode::UNPROCESSABLE_ENTITY, body);
        assert_eq!(failure.exit, Exit::Refused);
        assert_eq!(failure.message, "handler does not compile: invalid syntax (field function_code, line 3)");
        assert_eq!(failure.hint.as_deref(), Some("fix it"));
    }

    #[test]
    fn an_answer_that_is_no_problem_document_is_shown_in_part() {
        assert_eq!(
            problem(StatusCode::BAD_GATEWAY, b"nginx").message,
            "the platform answered 502 Bad Gateway: nginx"
        );
    }

    #[test]
    fn the_scheme_may_be_left_out_and_others_are_refused() {
        assert_eq!(parse_base("localhost:8000").expect("parses").to_string(), "http://localhost:8000/");
        assert_eq!(parse_base("ftp://x").expect_err("refused").exit, Exit::Usage);
        assert_eq!(parse_base("http://").expect_err("refused").exit, Exit::Usage);
    }

    #[test]
    fn names_are_encoded_as_one_segment() {
        assert_eq!(segment("a/b c.d"), "a%2Fb%20c.d");
    }
}
