//! Putting an outcome into HTTP: the answer's head, or a problem document.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fp_core::code::Code;
use fp_core::outcome::Outcome;
use fp_core::record::Phases;
use fp_core::trace_context::TraceContext;
use fp_core::{InvocationId, TraceId};
use fp_sandbox::protocol::{AnswerHead, BodyKind};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body as _;

use super::GatewayBody;
use super::intake::cookie_name;
use crate::clock::Clock;
use crate::http::caller::is_session;
use crate::http::problem::{Problem, status};
use crate::invoke::background::MAX_CORRELATION_ID;
use crate::invoke::{Completed, Fault, Reply};

const INSTANCE_ID: HeaderName = HeaderName::from_static("x-serverless-instance-id");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const DEGRADED: HeaderName = HeaderName::from_static("x-degraded");

/// Headers that describe the connection, not the answer (RFC 9110 section 7.6.1); a function
/// cannot set them, nor the length, which follows from the body.
const NOT_THE_FUNCTIONS: [HeaderName; 6] = [
    http::header::CONNECTION,
    http::header::TRANSFER_ENCODING,
    http::header::UPGRADE,
    http::header::TRAILER,
    HeaderName::from_static("keep-alive"),
    CONTENT_LENGTH,
];

/// What is known of a request before it is an invocation, and every answer carries.
#[derive(Debug)]
pub(super) struct Edge {
    pub(super) correlation_id: Arc<str>,
    pub(super) arrived: Duration,
}

impl Edge {
    pub(super) fn of(parts: &Parts, arrived: Duration) -> Self {
        let given = parts.headers.get(CORRELATION_ID).and_then(|value| value.to_str().ok());
        let usable = given.filter(|id| !id.is_empty() && id.len() <= MAX_CORRELATION_ID);
        let correlation_id = usable.map_or_else(new_correlation_id, Into::into);
        Self { correlation_id, arrived }
    }

    /// An answer without an invocation.
    pub(super) fn refuse(&self, problem: Problem, now: Duration) -> Response<GatewayBody> {
        let mut response = problem_response(problem.component("gateway"), None);
        let route = now.saturating_sub(self.arrived).as_nanos() as u64;
        let phases = Phases { route, ..Phases::default() };
        self.stamp(response.headers_mut(), &phases);
        response
    }

    /// The answer of an invocation.
    pub(super) fn respond(
        &self,
        completed: Completed,
        clock: &Clock,
        full_errors: bool,
    ) -> Response<GatewayBody> {
        let Completed { reply, id, trace, phases, finished, degraded } = completed;
        let receipt = finished.map(|finished| (finished, clock.clone()));
        let mut response = match reply {
            Reply::Whole { head, body } => {
                answer(head, |empty| GatewayBody::whole(if empty { Bytes::new() } else { body }, receipt))
            }
            Reply::Stream { head, pieces } => answer(head, |_| GatewayBody::stream(pieces)),
            Reply::Fault(fault) => {
                let problem = problem_of(&fault, full_errors).invocation(id, trace.trace_id);
                problem_response(problem, receipt)
            }
        };
        self.stamp(response.headers_mut(), &phases);
        stamp_invocation(response.headers_mut(), id, &trace);
        if let Some(how) = degraded {
            response.headers_mut().insert(DEGRADED, ascii(&how));
        }
        response
    }

    fn stamp(&self, headers: &mut HeaderMap, phases: &Phases) {
        if let Ok(value) = HeaderValue::from_str(&self.correlation_id) {
            headers.insert(CORRELATION_ID, value);
        }
        headers.insert(SERVER_TIMING, server_timing(phases));
    }
}

fn stamp_invocation(headers: &mut HeaderMap, id: InvocationId, trace: &TraceContext) {
    headers.insert(INSTANCE_ID, ascii(&id.text()));
    headers.insert(TRACEPARENT, ascii(&trace.traceparent()));
}

fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("identifiers, names and numbers are header text")
}

/// `route;dur=0.012, queue;dur=0.000, start;dur=0.000, run;dur=0.301`, in milliseconds.
pub(in crate::http) fn server_timing(phases: &Phases) -> HeaderValue {
    let named = [
        ("route;dur=", phases.route),
        (", queue;dur=", phases.queue),
        (", start;dur=", phases.start),
        (", run;dur=", phases.run),
    ];
    // Names and glue take 45 bytes, four numbers of 17 digits with their points 72.
    let mut line = [0; 128];
    let mut end = 0;
    let mut push = |bytes: &[u8]| {
        line[end..end + bytes.len()].copy_from_slice(bytes);
        end += bytes.len();
    };
    for (name, nanos) in named {
        push(name.as_bytes());
        let micros = nanos / 1000;
        push_digits(micros / 1000, 1, &mut push);
        push(b".");
        push_digits(micros % 1000, 3, &mut push);
    }
    HeaderValue::from_bytes(&line[..end]).expect("names and numbers are header text")
}

/// A number with so many digits at least.
fn push_digits(mut number: u64, least: usize, push: &mut impl FnMut(&[u8])) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while number > 0 {
        at -= 1;
        digits[at] += (number % 10) as u8;
        number /= 10;
    }
    push(&digits[at.min(digits.len() - least)..]);
}

/// Whether a function would sign its caller in at the pages, which are on another port of the host: by
/// the session's name, or by none, since browsers send what has no name as it is.
fn sets_session(name: &HeaderName, value: &HeaderValue) -> bool {
    if *name != SET_COOKIE {
        return false;
    }
    let set = cookie_name(value.as_bytes());
    set.is_empty() || is_session(set)
}

pub(in crate::http) fn new_correlation_id() -> Arc<str> {
    // As any trace id has it: 32 hexadecimal digits.
    Arc::from(&*TraceId(fastrand::u128(..).to_be_bytes()).text())
}

/// The handler's answer. `body` is asked for nothing where the status allows no body.
fn answer(head: AnswerHead, body: impl FnOnce(bool) -> GatewayBody) -> Response<GatewayBody> {
    let default = if head.kind == BodyKind::None { StatusCode::NO_CONTENT } else { StatusCode::OK };
    let status = head.status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(default);
    let empty = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let mut response = Response::new(body(empty));
    *response.status_mut() = status;
    for (name, value) in &head.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value))
            && !NOT_THE_FUNCTIONS.contains(&name)
            && !sets_session(&name, &value)
        {
            response.headers_mut().append(name, value);
        }
    }
    let content_type = match head.kind {
        BodyKind::Json => Some("application/json"),
        BodyKind::Text => Some("text/plain; charset=utf-8"),
        BodyKind::Bytes => Some("application/octet-stream"),
        BodyKind::None => None,
    };
    if let Some(content_type) = content_type.filter(|_| !empty) {
        let headers = response.headers_mut();
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
    }
    response
}

fn problem_response(
    problem: Problem,
    receipt: Option<(crate::history::Finished, Clock)>,
) -> Response<GatewayBody> {
    let (parts, body) = problem.into_parts();
    Response::from_parts(parts, GatewayBody::whole(body, receipt))
}

/// The answer to a HEAD: what a GET would have said of its body, and no body.
pub(super) fn without_body(mut response: Response<GatewayBody>) -> Response<GatewayBody> {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
    }
    response.body_mut().discard();
    response
}

/// The status of an outcome, for the answer and for the record.
pub(crate) fn status_of(outcome: Outcome) -> u16 {
    match outcome {
        Outcome::ResponseTooLarge => StatusCode::BAD_GATEWAY.as_u16(),
        Outcome::Ok => StatusCode::OK.as_u16(),
        outcome => status(Code::of(outcome).unwrap_or(Code::PlatformError)).as_u16(),
    }
}

fn component_of(phase: &str) -> &'static str {
    match phase {
        "route" => "gateway",
        "run" => "worker",
        _ => "pool",
    }
}

/// What callers are told of a function that does not start, where they are told no more.
const NOT_STARTED: &str = "no worker of the function can be started; the record of the call says why";

fn problem_of(fault: &Fault, full_errors: bool) -> Problem {
    let code = Code::of(fault.outcome).unwrap_or(Code::PlatformError);
    let status = StatusCode::from_u16(status_of(fault.outcome)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let detail = match &fault.exception {
        Some((kind, _)) if !full_errors => format!("the handler raised {kind}").into(),
        // Why is told in the words of the code that did not load.
        None if !full_errors && fault.outcome == Outcome::StartFailed => NOT_STARTED.into(),
        _ => fault.detail.clone(),
    };
    let mut problem = Problem::new(code, detail)
        .with_status(status)
        .component(component_of(fault.phase))
        .phase(fault.phase)
        .blame(fault.outcome.blame(fault.caller_was_short));
    if let Some(reason) = fault.outcome.reason() {
        problem = problem.reason(reason);
    }
    if let Some(limit) = fault.limit_hit {
        problem = problem.extra("limit_hit", limit);
    }
    if let Some(limit) = fault.limit_bytes {
        problem = problem.extra("limit_bytes", limit);
    }
    if let (true, Some((kind, message))) = (full_errors, &fault.exception) {
        problem = problem.extra("exception_type", kind.as_str()).extra("exception_message", message.as_str());
    }
    if let Some(after) = fault.retry_after {
        problem = problem.retry_after(after);
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_function_signs_anybody_in() {
        let sets = |text: &'static str| sets_session(&SET_COOKIE, &HeaderValue::from_static(text));
        for session in [
            "functionsplatform_session=x; Path=/",
            " functionsplatform_session = x",
            "__Host-functionsplatform_session=x; Secure; Path=/",
            "=functionsplatform_session=x",
            " =functionsplatform_session=x; Path=/",
            "functionsplatform_session",
            "",
        ] {
            assert!(sets(session), "{session:?}");
        }
        for other in ["a=1; Path=/", "my_functionsplatform_session=1", "a=functionsplatform_session=x"] {
            assert!(!sets(other), "{other:?}");
        }
        assert!(!sets_session(&CONTENT_TYPE, &HeaderValue::from_static("")));
    }

    #[test]
    fn times_are_told_in_milliseconds_with_three_digits_behind_the_point() {
        let told = |route, run| {
            let value = server_timing(&Phases { route, run, ..Phases::default() });
            value.to_str().expect("text").to_owned()
        };
        assert_eq!(
            told(12_345, 60_301_000_999),
            "route;dur=0.012, queue;dur=0.000, start;dur=0.000, run;dur=60301.000"
        );
        assert_eq!(told(999, 10_010_000).rsplit_once('=').expect("a number").1, "10.010");
        assert!(told(u64::MAX, u64::MAX).starts_with("route;dur=18446744073709.551, queue"));
        let all = u64::MAX;
        server_timing(&Phases { route: all, queue: all, start: all, run: all, send: all });
    }

    #[test]
    fn what_is_safe_tells_no_words_of_the_code() {
        let fault = Fault {
            outcome: Outcome::StartFailed,
            detail: "no worker of cats can be started: ValueError: password hunter2".into(),
            exception: None,
            phase: "start",
            limit_hit: None,
            limit_bytes: None,
            retry_after: None,
            caller_was_short: false,
        };
        let told = |full| String::from_utf8(problem_of(&fault, full).to_json()).expect("UTF-8");
        assert!(told(true).contains("hunter2"));
        assert!(!told(false).contains("hunter2"), "{}", told(false));
    }
}
