//! Error answers: RFC 9457 problem documents, and the one table from codes to statuses.
//!
//! Every error that leaves a listener is a [`Problem`]. It is built from a [`Code`] and a
//! sentence of detail; status, blame, hint and whether trying again may help follow from the
//! code and can be overridden where a case is special. Both edges use it: axum's handlers
//! return it, the gateway turns it into a plain response.
//!
//! Members that do not apply are left out rather than null.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use fp_core::code::Code;
use fp_core::{Blame, InvocationId, TraceId};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use http_body_util::Full;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;

/// The media type of RFC 9457.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What an error answer says.
#[derive(Debug, Clone)]
pub struct Problem(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    document: Document,
    status: StatusCode,
    headers: HeaderMap,
}

#[derive(Debug, Clone)]
struct Document {
    code: Code,
    title: &'static str,
    status: u16,
    detail: Cow<'static, str>,
    component: &'static str,
    phase: Option<&'static str>,
    blame: Option<Blame>,
    retryable: bool,
    invocation_id: Option<InvocationId>,
    trace_id: Option<TraceId>,
    hint: Cow<'static, str>,
    /// In the order of their names.
    extra: Vec<(&'static str, Value)>,
}

/// Written as it goes, without a copy of what is in it: most are refusals of a platform that has no time.
impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(None)?;
        members.serialize_entry("code", &self.code)?;
        members.serialize_entry("title", self.title)?;
        members.serialize_entry("status", &self.status)?;
        members.serialize_entry("detail", &self.detail)?;
        members.serialize_entry("component", self.component)?;
        if let Some(phase) = self.phase {
            members.serialize_entry("phase", phase)?;
        }
        if let Some(blame) = &self.blame {
            members.serialize_entry("blame", blame)?;
        }
        members.serialize_entry("retryable", &self.retryable)?;
        if let Some(id) = &self.invocation_id {
            members.serialize_entry("invocation_id", &*id.text())?;
        }
        if let Some(id) = &self.trace_id {
            members.serialize_entry("trace_id", &*id.text())?;
        }
        members.serialize_entry("hint", &self.hint)?;
        for (name, value) in &self.extra {
            members.serialize_entry(name, value)?;
        }
        members.end()
    }
}

/// Room for a problem: most take some 500 bytes.
const USUAL_SIZE: usize = 768;

impl Problem {
    /// A problem with everything that follows from its code.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let status = status(code);
        let document = Document {
            code,
            title: code.title(),
            status: status.as_u16(),
            detail: detail.into(),
            component: component(code),
            phase: None,
            blame: Some(blame(code)),
            retryable: code.retryable(),
            invocation_id: None,
            trace_id: None,
            hint: Cow::Borrowed(code.what_to_do()),
            extra: Vec::new(),
        };
        Self(Box::new(Parts { document, status, headers: HeaderMap::new() }))
    }

    /// Another status than the code's: the handler's own, or 502 for an answer that is too large.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self.0.document.status = status.as_u16();
        self
    }

    /// Which part of the platform says so: `gateway`, `api`, `guard`, `worker`, …
    pub fn component(mut self, component: &'static str) -> Self {
        self.0.document.component = component;
        self
    }

    /// The phase of the call in which it failed.
    pub fn phase(mut self, phase: &'static str) -> Self {
        self.0.document.phase = Some(phase);
        self
    }

    /// Who is to blame, where the outcome knows better than the code.
    pub fn blame(mut self, blame: Option<Blame>) -> Self {
        self.0.document.blame = blame;
        self
    }

    /// The call and the trace that it is about.
    pub fn invocation(mut self, id: InvocationId, trace: TraceId) -> Self {
        self.0.document.invocation_id = Some(id);
        self.0.document.trace_id = Some(trace);
        self
    }

    /// When trying again makes sense: in whole seconds, never less than it takes.
    pub fn retry_after(self, after: std::time::Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.header(RETRY_AFTER, &seconds.max(1).to_string())
    }

    /// A hint for this very case instead of the code's general one.
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.document.hint = hint.into();
        self
    }

    /// The field at fault, as a dotted path.
    pub fn field(self, field: impl Into<String>) -> Self {
        self.extra("field", field.into())
    }

    /// The line at fault, in the handler's code or in function.toml.
    pub fn line(self, line: u32) -> Self {
        self.extra("line", line)
    }

    /// Why, where a code has several reasons.
    pub fn reason(self, reason: &'static str) -> Self {
        self.extra("reason", reason)
    }

    /// Any further member: `limit_bytes`, `near`, `traceback`, …
    pub fn extra(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        let (extra, value) = (&mut self.0.document.extra, value.into());
        match extra.binary_search_by_key(&name, |(name, _)| name) {
            Ok(at) => extra[at].1 = value,
            Err(at) => extra.insert(at, (name, value)),
        }
        self
    }

    /// A header of the answer, such as `Allow` or `Retry-After`. A value that no header can hold
    /// is left out: the document says the same.
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.insert(name, value);
        }
        self
    }

    /// The status it will be answered with.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.0.document.code
    }

    /// The document as it goes out.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(USUAL_SIZE);
        serde_json::to_writer(&mut json, &self.0.document).expect("a problem has string keys only");
        json
    }

    /// The answer for listeners that speak plain hyper.
    pub fn into_hyper(self) -> http::Response<Full<Bytes>> {
        let (parts, body) = self.into_parts();
        http::Response::from_parts(parts, Full::new(body))
    }

    /// The answer's head and its body.
    pub fn into_parts(self) -> (http::response::Parts, Bytes) {
        let body = Bytes::from(self.to_json());
        let mut parts = http::Response::new(()).into_parts().0;
        parts.status = self.0.status;
        parts.headers = self.0.headers;
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        (parts, body)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let code = self.code();
        let mut response = self.into_hyper().map(axum::body::Body::new);
        // For the audit log, which sees the answer and not what made it.
        response.extensions_mut().insert(code);
        response
    }
}

/// The 503 to a request whose body was still on its way when the platform began to stop.
pub(super) fn stopping() -> Problem {
    Problem::new(Code::NotReady, "the platform is stopping, and the body was not here in whole")
        .header(http::header::RETRY_AFTER, "1")
}

/// The one table from codes to statuses.
pub fn status(code: Code) -> StatusCode {
    match code {
        Code::BadRequest | Code::InvalidBody | Code::InvalidDeadline | Code::InvalidPath => {
            StatusCode::BAD_REQUEST
        }
        Code::KeyInvalid
        | Code::KeyMissing
        | Code::SignatureInvalid
        | Code::SignatureMissing
        | Code::TokenInvalid
        | Code::TokenMissing => StatusCode::UNAUTHORIZED,
        Code::CrossSite | Code::ScopeMissing => StatusCode::FORBIDDEN,
        Code::NoRoute | Code::NotFound | Code::SampledOut | Code::TenantNotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        Code::EventConflict | Code::IsolationTooWeak | Code::SecretInUse | Code::TenantExists => {
            StatusCode::CONFLICT
        }
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::ForbiddenHost => StatusCode::MISDIRECTED_REQUEST,
        Code::HandlerNotLoadable
        | Code::InvalidArchive
        | Code::InvalidEvent
        | Code::InvalidManifest
        | Code::InvalidName
        | Code::InvalidSettings
        | Code::NameReserved
        | Code::SecretMissing
        | Code::Unprocessable
        | Code::UnsupportedEvent => StatusCode::UNPROCESSABLE_ENTITY,
        Code::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
        Code::PathTooLong => StatusCode::URI_TOO_LONG,
        Code::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Code::Cancelled => StatusCode::from_u16(499).expect("three digits"),
        Code::FunctionError | Code::PlatformError | Code::StorageFailed => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Crashed | Code::OutOfMemory => StatusCode::BAD_GATEWAY,
        Code::AuthUnavailable | Code::NotReady | Code::Shed | Code::StartFailed => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Code::DeadlineExceeded | Code::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Code::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
    }
}

/// Who is to blame when nothing more is known than the code.
fn blame(code: Code) -> Blame {
    match code {
        Code::BadRequest
        | Code::Cancelled
        | Code::CrossSite
        | Code::EventConflict
        | Code::ForbiddenHost
        | Code::HeadersTooLarge
        | Code::InvalidArchive
        | Code::InvalidBody
        | Code::InvalidDeadline
        | Code::InvalidEvent
        | Code::InvalidManifest
        | Code::InvalidName
        | Code::InvalidPath
        | Code::InvalidSettings
        | Code::IsolationTooWeak
        | Code::KeyInvalid
        | Code::KeyMissing
        | Code::MethodNotAllowed
        | Code::NameReserved
        | Code::NoRoute
        | Code::NotFound
        | Code::PathTooLong
        | Code::QuotaExceeded
        | Code::RequestTimeout
        | Code::ScopeMissing
        | Code::SecretInUse
        | Code::SecretMissing
        | Code::SignatureInvalid
        | Code::SignatureMissing
        | Code::TenantExists
        | Code::TenantNotFound
        | Code::TokenInvalid
        | Code::TokenMissing
        | Code::TooLarge
        | Code::Unprocessable
        | Code::UnsupportedEvent
        | Code::UnsupportedMediaType => Blame::Caller,
        Code::AuthUnavailable
        | Code::Crashed
        | Code::DeadlineExceeded
        | Code::FunctionError
        | Code::HandlerNotLoadable
        | Code::OutOfMemory
        | Code::StartFailed
        | Code::Timeout => Blame::Function,
        Code::NotReady
        | Code::PlatformError
        | Code::SampledOut
        | Code::Shed
        | Code::StorageFailed
        | Code::StorageFull => Blame::Platform,
    }
}

/// Where a code comes from when nothing more is known.
fn component(code: Code) -> &'static str {
    match code {
        Code::CrossSite | Code::ForbiddenHost => "guard",
        Code::AuthUnavailable
        | Code::IsolationTooWeak
        | Code::KeyInvalid
        | Code::KeyMissing
        | Code::ScopeMissing
        | Code::SignatureInvalid
        | Code::SignatureMissing
        | Code::TenantExists
        | Code::TenantNotFound
        | Code::TokenInvalid
        | Code::TokenMissing => "access",
        Code::Crashed
        | Code::FunctionError
        | Code::HandlerNotLoadable
        | Code::OutOfMemory
        | Code::StartFailed
        | Code::Timeout => "worker",
        Code::DeadlineExceeded | Code::QuotaExceeded | Code::Shed => "admission",
        Code::Cancelled
        | Code::HeadersTooLarge
        | Code::InvalidBody
        | Code::InvalidDeadline
        | Code::InvalidPath
        | Code::NoRoute
        | Code::PathTooLong
        | Code::RequestTimeout => "gateway",
        Code::EventConflict
        | Code::InvalidArchive
        | Code::InvalidEvent
        | Code::InvalidManifest
        | Code::InvalidName
        | Code::InvalidSettings
        | Code::NameReserved
        | Code::SecretInUse
        | Code::SecretMissing
        | Code::UnsupportedEvent => "catalog",
        Code::SampledOut => "history",
        Code::StorageFailed | Code::StorageFull => "store",
        Code::BadRequest
        | Code::MethodNotAllowed
        | Code::NotFound
        | Code::TooLarge
        | Code::Unprocessable
        | Code::UnsupportedMediaType => "api",
        Code::NotReady | Code::PlatformError => "platform",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_its_code_says_and_leaves_out_what_does_not_apply() {
        let problem = Problem::new(Code::NotFound, "no function is called \"cats\"");
        let document: Value = serde_json::from_slice(&problem.to_json()).expect("JSON");
        let expected = serde_json::json!({
            "code": "not_found",
            "title": Code::NotFound.title(),
            "status": 404,
            "detail": "no function is called \"cats\"",
            "component": "api",
            "blame": "caller",
            "retryable": false,
            "hint": Code::NotFound.what_to_do(),
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn everything_that_was_said_is_in_the_answer() {
        let problem = Problem::new(Code::TooLarge, "body is 7 MiB, the limit is 6 MiB")
            .component("gateway")
            .phase("route")
            .invocation(InvocationId::from_parts(1, 2), TraceId::from_parts(1, 2))
            .hint("send less")
            .extra("limit_bytes", 6 << 20)
            .header(http::header::RETRY_AFTER, "1");
        let document: Value = serde_json::from_slice(&problem.to_json()).expect("JSON");
        assert_eq!(document["phase"], "route");
        assert_eq!(document["invocation_id"], "00000000-0001-7000-8000-000000000002");
        assert_eq!(document["trace_id"], "00000000000100000000000000000002");
        assert_eq!(document["hint"], "send less");
        assert_eq!(document["limit_bytes"], 6_291_456);
        let response = problem.into_hyper();
        assert_eq!(response.status(), 413);
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
        assert_eq!(response.headers()[http::header::RETRY_AFTER], "1");
    }

    #[test]
    fn statuses_agree_with_blame() {
        for code in Code::ALL {
            let by_caller = blame(code) == Blame::Caller;
            // A record that was sampled out is our doing, and still "not found" to who asks.
            let client_error = status(code).is_client_error()
                && !matches!(code, Code::HandlerNotLoadable | Code::SampledOut);
            assert_eq!(client_error, by_caller, "{code}");
        }
    }
}
