//! Spans of services: from outside and from inside a worker, in the trace of the call, as Jaeger's API
//! shows it.

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::networks::{create, get, has_networks};
use crate::platform::{Platform, call, up};

const TRACE: &str = "5b8efff798038103d269b633813fc60c";

/// Sends a span below its call's `run`, as an exporter does that reads its environment.
const INSIDE: &str = "\
import json, os, urllib.request
def handler(message, context):
    _, trace, parent, _ = context.tracing_context['traceparent'].split('-')
    span = {'traceId': trace, 'spanId': 'eee19b7ec3c1b175', 'parentSpanId': parent, 'name': 'inside'}
    name = {'key': 'service.name', 'value': {'stringValue': os.environ['OTEL_SERVICE_NAME']}}
    body = {'resourceSpans': [{'resource': {'attributes': [name]}, 'scopeSpans': [{'spans': [span]}]}]}
    request = urllib.request.Request(
        os.environ['OTEL_EXPORTER_OTLP_ENDPOINT'] + '/v1/traces', json.dumps(body).encode(),
        {'content-type': 'application/json', 'x-tenant': 'acme', 'authorization': 'Bearer mine'})
    return json.load(urllib.request.urlopen(request))
";

fn send(platform: &Platform, path: &str, media_type: &str, body: impl Into<Bytes>) -> Response<Bytes> {
    let request = Request::post(path).header("content-type", media_type).body(body.into());
    call(platform.otlp, request.expect("a request"))
}

/// Services and names of the spans in a trace.
fn spans(platform: &Platform, trace: &str) -> Vec<(String, String)> {
    let answer =
        call(platform.traces, Request::get(format!("/api/traces/{trace}")).body(Bytes::new()).expect("one"));
    assert_eq!(answer.status(), 200, "{answer:?}");
    let answer: Value = serde_json::from_slice(answer.body()).expect("JSON");
    let found = &answer["data"][0];
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let spans = found["spans"].as_array().expect("spans").iter();
    spans
        .map(|span| {
            let process = span["processID"].as_str().expect("an id");
            (text(&found["processes"][process]["serviceName"]), text(&span["operationName"]))
        })
        .collect()
}

#[test]
fn services_send_spans_into_the_traces_of_calls() {
    let platform = up().start();
    let span = json!({
        "traceId": TRACE, "spanId": "eee19b7ec3c1b174", "name": "order", "kind": 3,
        "startTimeUnixNano": "1544712660000000000", "endTimeUnixNano": "1544712661000000000",
    });
    let name = json!({"key": "service.name", "value": {"stringValue": "web shop"}});
    let body = json!({"resourceSpans": [{
        "resource": {"attributes": [name]}, "scopeSpans": [{"spans": [span]}],
    }]});
    let answer = send(&platform, "/v1/traces", "application/json", body.to_string());
    assert_eq!((answer.status().as_u16(), &answer.body()[..]), (200, &b"{}"[..]), "{answer:?}");
    let order = ("web shop".to_owned(), "order".to_owned());
    assert_eq!(spans(&platform, TRACE), [order]);

    for (media_type, body, status) in [
        ("application/json", "{}", 200),
        ("application/json", "{", 400),
        ("application/x-protobuf", "", 200),
        ("application/x-protobuf", "no protobuf", 400),
        ("text/plain", "{}", 415),
    ] {
        let answer = send(&platform, "/v1/traces", media_type, body);
        assert_eq!(answer.status(), status, "{media_type} {body:?}: {answer:?}");
        let says = String::from_utf8_lossy(answer.body());
        assert_eq!(says.contains("no spans"), status == 200, "{media_type} {body:?}: {says}");
    }
    assert_eq!(send(&platform, "/v1/logs", "application/json", "{}").status(), 404);
    let foreign = Request::post("/v1/traces").header("host", "evil.example").body(Bytes::new());
    assert_eq!(call(platform.otlp, foreign.expect("a request")).status(), 421);

    if has_networks(&platform) {
        create(&platform, "front", INSIDE, "internal");
        assert_eq!(get(&platform, "/front"), json!({}));
        let calls = platform.api("/invocations?function=front");
        let trace = calls["items"][0]["trace_id"].as_str().expect("an id").to_owned();
        let own = ("front".to_owned(), "inside".to_owned());
        assert!(spans(&platform, &trace).contains(&own), "whose it is the listener says, not the request");
    }
}
