//! Degraded answers: what callers get instead of a refusal, and what nobody else's answer ever is.

use std::net::TcpListener;

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::contract::{deploy, try_deploy};
use crate::platform::{Platform, up};

/// Starts only while somebody listens, and says what it was asked.
const MOODY: &str = r#"
import socket
socket.create_connection(("127.0.0.1", PORT)).close()
def handler(message, context):
    extra = {"set-cookie": "a=1"} if message["query"].get("cookie") else {}
    if message["query"].get("public"):
        extra = {"cache-control": "public", "vary": "accept"}
    if "gone" in message["query"]:
        return {"status_code": 404, "body": "gone"}
    return {"status_code": 200, "headers": {"content-type": "text/plain", **extra}, "body": message["path"]}
"#;

/// Answers for another, and says what it knows of that.
const SPARE: &str = r#"
def handler(message, context):
    return {"for": message["path"], "id": message["path_params"]["id"], "body": message["body"],
            "left": context.remaining_ms(), "auth": context.auth}
"#;

/// Answers, or not, as the listener is there; each call starts cold.
fn moody(platform: &Platform, listener: &TcpListener, event: &str, fallback: &Value) {
    let port = listener.local_addr().expect("bound").port();
    let code = MOODY.replace("PORT", &port.to_string());
    let settings = json!({
        "network": "full", "scaling": { "idle": "0s" }, "latency": { "fallback": fallback },
        "slo": { "availability": 99.0 },
    });
    deploy(platform, "moody", event, &code, &settings);
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

fn get(platform: &Platform, path: &str, header: Option<(&str, &str)>) -> Response<Bytes> {
    let mut request = Request::get(path);
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    platform.call(request.body(Bytes::new()).expect("a request"))
}

fn said<'a>(answer: &'a Response<Bytes>, name: &str) -> Option<&'a str> {
    answer.headers().get(name).map(|value| value.to_str().expect("text"))
}

fn record(platform: &Platform, answer: &Response<Bytes>) -> Value {
    let id = said(answer, "x-serverless-instance-id").expect("an invocation");
    platform.api(&format!("/invocations/{id}"))
}

#[test]
fn a_refused_call_gets_the_last_good_answer_and_nobody_elses() {
    let platform = up().start();
    let open = listener();
    moody(&platform, &open, "http|GET|/moody/{id}", &json!({ "stale": "5m" }));
    let asked = [
        ("/moody/1?a=b", None),
        ("/moody/2", Some(("cookie", "session=mine"))),
        ("/moody/3", Some(("authorization", "Basic bWluZTptaW5l"))),
        ("/moody/4?cookie=1", None),
        ("/moody/5", Some(("x-api-key", "mine"))),
        ("/moody/6?public=1", Some(("x-api-key", "mine"))),
        ("/moody/7", None),
    ];
    for (path, header) in asked {
        let answer = get(&platform, path, header);
        assert_eq!((answer.status().as_u16(), said(&answer, "x-degraded")), (200, None), "{path}");
    }
    drop(open);
    // The very same question has an answer, however it is traced and timed.
    let stale = get(&platform, "/moody/1?a=b", Some(("x-request-timeout", "20s")));
    assert_eq!(stale.status(), 200, "{stale:?}");
    let how = said(&stale, "x-degraded").expect("marked");
    let age: u64 = how.strip_prefix("stale; age=").and_then(|age| age.parse().ok()).expect(how);
    assert!(age < 60, "{how}");
    assert_eq!((&stale.body()[..], said(&stale, "content-type")), (&b"/moody/1"[..], Some("text/plain")));
    // Its record is that of the refusal.
    let call = record(&platform, &stale);
    assert_eq!(
        (&call["outcome"], &call["status"], &call["degraded"], &call["attempts"]),
        (&json!("start_failed"), &json!(200), &json!(how), &json!(0)),
        "{call}"
    );
    assert!(call["error"].as_str().is_some_and(|error| error.contains("ConnectionRefused")), "{call}");
    let explained = platform.cli(&["explain", "call", call["id"].as_str().expect("an id")]).stdout;
    assert!(explained.contains("instead of the refusal"), "{explained}");

    // What was made for somebody, or is another question, is given to nobody: the refusal goes out.
    let refused = [
        ("/moody/1", None),
        ("/moody/1?a=c", None),
        ("/moody/1?a=b", Some(("cookie", "session=other"))),
        ("/moody/1?a=b", Some(("authorization", "Basic b3RoZXI6b3RoZXI="))),
        ("/moody/1?a=b", Some(("x-api-key", "other"))),
        ("/moody/1?a=b", Some(("cache-control", "no-cache"))),
        ("/moody/2", None),
        ("/moody/2", Some(("cookie", "session=mine"))),
        ("/moody/3", None),
        ("/moody/4?cookie=1", None),
        ("/moody/5", None),
        ("/moody/5", Some(("x-api-key", "other"))),
        ("/moody/6?public=1", Some(("accept", "text/html"))),
    ];
    for (path, header) in refused {
        let answer = get(&platform, path, header);
        assert_eq!((answer.status().as_u16(), said(&answer, "x-degraded")), (503, None), "{path} {header:?}");
        assert!(said(&answer, "retry-after").is_some(), "{answer:?}");
    }
    assert_eq!(get(&platform, "/moody/5", Some(("x-api-key", "mine"))).status(), 200);
    // Its author says that all may have it.
    assert_eq!(get(&platform, "/moody/6?public=1", None).status(), 200);

    // The objective is not told that all was well.
    let slo = &platform.api("/functions/moody")["slo"];
    assert_eq!((&slo["good"], &slo["bad"]), (&json!(7), &json!(16)), "{slo}");

    // Another version begins with nothing.
    let open = listener();
    moody(&platform, &open, "http|GET|/moody/{id}", &json!({ "stale": "5m" }));
    drop(open);
    assert_eq!(get(&platform, "/moody/7", None).status(), 503);
}

#[test]
fn what_is_gone_is_not_brought_back_and_what_is_old_is_forgotten() {
    let platform = up().start();
    let open = listener();
    moody(&platform, &open, "http|GET|/moody", &json!({ "stale": "1ms" }));
    assert_eq!(get(&platform, "/moody", None).status(), 200);
    drop(open);
    // A start takes longer than a millisecond.
    let answer = get(&platform, "/moody", None);
    assert_eq!(answer.status(), 503, "{answer:?}");
    let id = said(&answer, "x-serverless-instance-id").expect("an invocation");
    let logs = platform.cli(&["logs", id]).stdout;
    assert!(logs.contains("no degraded answer: there was no good answer"), "{logs}");
}

#[test]
fn another_function_answers_what_was_refused() {
    let platform = up().start();
    let open = listener();
    moody(&platform, &open, "http|POST|/moody/{id}", &json!({ "function": "spare" }));
    drop(open);
    let ask = || {
        let request = Request::post("/moody/7").header("x-request-timeout", "20s");
        let request =
            request.header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let request = request.header("content-type", "application/json");
        platform.call(request.body(Bytes::from_static(b"{\"a\":1}")).expect("a request"))
    };
    // There is none yet: the refusal goes out, and says why where its author looks.
    let refused = ask();
    assert_eq!((refused.status().as_u16(), said(&refused, "x-degraded")), (503, None), "{refused:?}");
    let id = said(&refused, "x-serverless-instance-id").expect("an invocation");
    let logs = platform.cli(&["logs", id]).stdout;
    assert!(logs.contains("function spare does not exist"), "{logs}");

    // It may be one that nobody else can call.
    let private = json!({ "visibility": "private" });
    deploy(&platform, "spare", "http|GET|/unused", SPARE, &private);
    let answer = ask();
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(said(&answer, "x-degraded"), Some("fallback; function=spare"));
    let told: Value = serde_json::from_slice(answer.body()).expect("JSON");
    assert_eq!(
        (&told["for"], &told["id"], &told["body"]),
        (&json!("/moody/7"), &json!("7"), &json!({"a": 1}))
    );
    assert_eq!(told["auth"], json!({ "kind": "function", "function": "moody" }));
    assert!(told["left"].as_u64().is_some_and(|left| (1..=20_000).contains(&left)), "{told}");

    let call = record(&platform, &answer);
    assert_eq!((&call["outcome"], &call["function"]), (&json!("start_failed"), &json!("moody")), "{call}");
    let calls = platform.api("/invocations?function=spare");
    let spare = &calls["items"][0];
    assert_eq!(
        (&spare["outcome"], &spare["called_by"], &spare["event_type"], &spare["trace_id"]),
        (&json!("ok"), &json!("moody"), &json!("http|POST|/moody/{id}"), &call["trace_id"]),
        "{spare}"
    );
    assert_eq!(spare["deadline_from"], "x-request-timeout");

    // A fallback's own fallback is not asked, and its failure does not replace the refusal.
    deploy(&platform, "third", "http|GET|/third", SPARE, &json!({}));
    let failing = "def handler(message, context):\n    raise ValueError('no')\n";
    deploy(
        &platform,
        "spare",
        "http|GET|/unused",
        failing,
        &json!({"latency": {"fallback": {"function": "third"}}}),
    );
    let refused = ask();
    assert_eq!((refused.status().as_u16(), said(&refused, "x-degraded")), (503, None), "{refused:?}");
    assert_eq!(platform.api("/invocations?function=third")["items"], json!([]));
}

#[test]
fn a_fallback_that_can_never_answer_is_refused_at_the_deploy() {
    let platform = up().start();
    let code = "def handler(message, context):\n    return 1\n";
    let cases = [
        (json!({ "latency": { "fallback": { "function": "self" } } }), "its own fallback"),
        (
            json!({ "latency": { "fallback": { "stale": "5m" } }, "visibility": "private" }),
            "never given to others",
        ),
    ];
    for (settings, why) in cases {
        let answer = try_deploy(&platform, "self", "http|GET|/self", code, &settings);
        let problem: Value = serde_json::from_slice(answer.body()).expect("JSON");
        assert_eq!(
            (answer.status().as_u16(), &problem["field"]),
            (422, &json!("latency.fallback")),
            "{problem}"
        );
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(why)), "{problem}");
    }
}
