//! Jaeger's query API, as its UI asks it.

use serde_json::{Value, json};

use crate::exchange::{bare, json as send_json, show};
use crate::platform::{Platform, call, up};

const CODE: &str = "\
from functionsplatform.sdk import tracing

def handler(message, context):
    with tracing.span_from_context(context['tracer'], context, name='inner') as span:
        tracing.set_attr(span, 'colour', 'black')
        print('one line')
    return {}
";

fn ask(platform: &Platform, path: &str) -> Value {
    let answer = call(platform.traces, bare("GET", path));
    assert_eq!(answer.status(), 200, "{path}: {answer:?}");
    let answer: Value = serde_json::from_slice(answer.body()).expect("JSON");
    assert_eq!(answer["errors"], Value::Null);
    answer["data"].clone()
}

#[test]
fn a_call_is_a_trace_of_its_function() {
    let platform = up().start();
    let body = json!({"event_type": "http|GET|/seen", "function_name": "seen", "function_code": CODE});
    assert_eq!(call(platform.api, send_json("POST", "/functions", &body)).status(), 200);
    let answer = platform.get("/seen");
    assert_eq!(answer.status(), 200, "{answer:?}");
    let trace_id = answer.headers()["traceparent"].to_str().expect("text")[3..35].to_owned();
    assert_eq!(ask(&platform, "/api/services"), json!(["seen"]));
    let operations = ask(&platform, "/api/services/seen/operations");
    let operations: Vec<_> =
        operations.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert!(["GET /seen", "inner", "run"].iter().all(|name| operations.contains(name)), "{operations:?}");
    let kinds = ask(&platform, "/api/operations?service=seen&spanKind=server");
    assert_eq!(kinds, json!([{"name": "GET /seen", "spanKind": "server"}]));
    for query in [
        "",
        "&operation=inner",
        "&tags=%7B%22colour%22%3A%22%5C%22black%5C%22%22%7D",
        "&lookback=1h&limit=20",
    ] {
        let found = ask(&platform, &format!("/api/traces?service=seen{query}"));
        assert!(!found.as_array().expect("a list").is_empty(), "{query}: {found}");
    }
    for query in ["&operation=outer", "&tags=%7B%22colour%22%3A%22red%22%7D", "&minDuration=1h"] {
        assert_eq!(ask(&platform, &format!("/api/traces?service=seen{query}")), json!([]), "{query}");
    }
    let trace = &ask(&platform, &format!("/api/traces/{trace_id}"))[0];
    let span = |name: &str| {
        let spans = trace["spans"].as_array().expect("spans");
        spans
            .iter()
            .find(|span| span["operationName"] == name)
            .cloned()
            .unwrap_or_else(|| panic!("{name}: {trace}"))
    };
    assert_eq!(span("inner")["references"][0]["spanID"], span("run")["spanID"]);
    assert_eq!(span("run")["references"][0]["spanID"], span("GET /seen")["spanID"]);
    assert!(span("run")["logs"].to_string().contains("one line"), "{trace}");
}

#[test]
fn errors_are_jaegers() {
    let platform = up().start();
    let paths = [
        "/api/traces",
        "/api/traces/xyz",
        "/api/traces/abc",
        "/api/operations",
        "/api/traces?service=a&start=x",
    ];
    let steps = paths.map(|path| show(platform.traces, bare("GET", path)));
    insta::assert_snapshot!(steps.join("\n"));
}
