//! Requests to the management listeners, and answers as snapshots show them.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use serde_json::Value;

use crate::platform;

/// Members whose values differ from run to run.
const VARYING: [&str; 31] = [
    "api_addr",
    "call_id",
    "code_hash",
    "container_id",
    "correlation_id",
    "cpu_ms",
    "created_at",
    "deployed_at",
    "duration_ms",
    "gateway_addr",
    "host_pid",
    "id",
    "instance_id",
    "max_ms",
    "memory_peak_bytes",
    "minutes",
    "next",
    "otlp_addr",
    "p50_ms",
    "p90_ms",
    "p99_9_ms",
    "p99_ms",
    "phases",
    "rate_per_second",
    "span_id",
    "started_at",
    "trace_id",
    "traces_addr",
    "version_started",
    "warm_p50_ms",
    "worker",
];

/// A request without a body.
pub(crate) fn bare(verb: &str, path: &str) -> Request<Bytes> {
    Request::builder().method(verb).uri(path).body(Bytes::new()).expect("a request")
}

/// A request with a body of a content type.
pub(crate) fn with_body(
    verb: &str,
    path: &str,
    content_type: &str,
    body: impl Into<Bytes>,
) -> Request<Bytes> {
    let request = Request::builder().method(verb).uri(path).header("content-type", content_type);
    request.body(body.into()).expect("a request")
}

/// A request with a JSON body.
pub(crate) fn json(verb: &str, path: &str, body: &Value) -> Request<Bytes> {
    with_body(verb, path, "application/json", body.to_string())
}

/// Sends a request and shows what came back: status, content type, `Allow`, body.
pub(crate) fn show(address: SocketAddr, request: Request<Bytes>) -> String {
    let asked = format!("{} {}", request.method(), request.uri());
    let answer = platform::call(address, request);
    format!("{asked}\n{}", shown(&answer))
}

fn shown(answer: &Response<Bytes>) -> String {
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let mut text = format!("{} {}\n", answer.status().as_u16(), header("content-type").unwrap_or("-"));
    for name in ["allow", "retry-after"] {
        if let Some(value) = header(name) {
            text += &format!("{name}: {value}\n");
        }
    }
    match serde_json::from_slice::<Value>(answer.body()) {
        Ok(mut body) => {
            steady(&mut body);
            text + &serde_json::to_string_pretty(&body).expect("JSON") + "\n"
        }
        Err(_) => text + &format!("{} bytes\n", answer.body().len()),
    }
}

/// Replaces what varies; null stays, since it says that there is nothing.
fn steady(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                if VARYING.contains(&name.as_str()) && !member.is_null() && !member.is_boolean() {
                    *member = "…".into();
                }
                steady(member);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(steady),
        _ => {}
    }
}
