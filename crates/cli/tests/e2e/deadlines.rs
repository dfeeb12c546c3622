//! Deadlines of callers: handed on from function to function, and heeded while a call waits.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::contract::deploy;
use crate::platform::{Platform, up};

/// Works for a while, asks the next one, and tells what time each had when it began.
const LINK: &str = r#"
import json, os, time, urllib.request
from functionsplatform.sdk import tracing
NEXT, WORK = {next}, {work}
def handler(message, context):
    left = [context.remaining_ms()]
    time.sleep(WORK)
    if NEXT:
        url = f"{os.environ['FUNCTIONSPLATFORM_GATEWAY']}/{NEXT}"
        with tracing.outbound_trace(url, {}) as headers:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
                left += json.load(answer)["left"]
    return {"left": left}
"#;

/// One quarter of a second a call; says that it has begun where it is asked to, and how often it ran.
const BUSY: &str = r#"
import socket, time
RUNS = 0
def handler(message, context):
    global RUNS
    if message["query"].get("count"):
        return {"runs": RUNS}
    RUNS += 1
    if port := message["query"].get("tell"):
        socket.create_connection(("127.0.0.1", int(port))).close()
    time.sleep(0.25)
"#;

fn within(platform: &Platform, path: &str, time: &str) -> Response<Bytes> {
    let request = Request::get(path).header("X-Request-Timeout", time);
    platform.call(request.body(Bytes::new()).expect("a request"))
}

fn json_of(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap_or_else(|_| panic!("{answer:?}"))
}

#[test]
fn a_chain_hands_on_the_time_that_is_left() {
    let platform = up().start();
    for (name, next, work) in [("c", "None", "0"), ("b", "'c'", "0.4"), ("a", "'b'", "0.7")] {
        let code = LINK.replace("{next}", next).replace("{work}", work);
        deploy(&platform, name, &format!("http|GET|/{name}"), &code, &json!({"timeout": "1m"}));
    }
    let answer = within(&platform, "/a", "30s");
    assert_eq!(answer.status(), 200, "{answer:?}");
    let left: Vec<f64> = serde_json::from_value(json_of(&answer)["left"].clone()).expect("three times");
    // Each the one before less its work, and at most a second for the way, cold starts included.
    for (left, at_most) in left.iter().zip([30_000.0, 29_300.0, 28_900.0]) {
        assert!((at_most - 3_000.0..=at_most).contains(left), "{left} ms of {at_most}");
    }
    assert!(left[0] - left[1] >= 700.0 && left[1] - left[2] >= 400.0, "{left:?}");
}

/// As a link, through the SDK's client; tells how its own call went where the next one does not answer.
const ASKING: &str = r#"
import os
from functionsplatform.sdk import http
def handler(message, context):
    url = f"{os.environ['FUNCTIONSPLATFORM_GATEWAY']}/{message['query']['next']}"
    try:
        answer = http.get(url)
    except http.RequestError as error:
        return {"failed": type(error).__name__, "left": context.remaining_ms()}
    return {"status": answer.status, "attempts": answer.attempts, "body": answer.json()}
"#;

#[test]
fn the_sdks_client_hands_on_the_time_that_is_left_and_the_trace_and_retries_refusals() {
    let platform = up().start();
    let code = LINK.replace("{next}", "None").replace("{work}", "0");
    deploy(&platform, "last", "http|GET|/last", &code, &json!({"timeout": "1m"}));
    deploy(&platform, "asking", "http|GET|/asking", ASKING, &json!({"timeout": "1m"}));
    let answer = within(&platform, "/asking?next=last", "30s");
    let told = json_of(&answer);
    let left = told["body"]["left"][0].as_u64().unwrap_or_else(|| panic!("{told}"));
    assert!((27_000..=30_000).contains(&left), "{told}");
    // One trace: the last call is below the span of the request that asked for it.
    let of = |function: &str| platform.api(&format!("/invocations?function={function}"))["items"][0].clone();
    let (asking, last) = (of("asking"), of("last"));
    assert_eq!(asking["trace_id"], last["trace_id"], "{asking} {last}");
    assert_eq!(last["deadline_from"], "x-request-timeout");
    // A refusal that names no long pause is asked again, and a POST of it would not be.
    let busy = "def handler(message, context):\n    return {'status_code': 503, 'body': '{}'}\n";
    deploy(&platform, "last", "http|GET|/last", busy, &json!({}));
    let told = json_of(&within(&platform, "/asking?next=last", "30s"));
    assert_eq!((&told["status"], &told["attempts"]), (&json!(503), &json!(3)), "{told}");
}

#[test]
fn a_call_whose_time_ends_in_the_queue_never_runs() {
    let platform = up().start();
    deploy(
        &platform,
        "busy",
        "http|GET|/busy",
        BUSY,
        &json!({"network": "full", "scaling": {"max": 1, "idle": "1m"}}),
    );
    let runs = || json_of(&platform.get("/busy?count=1"))["runs"].clone();
    let begun = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let busy = format!("/busy?tell={}", begun.local_addr().expect("bound").port());
    // What a call gets that has 100 ms while the only worker is busy for 250 ms.
    let refused = || {
        let reason = std::thread::scope(|threads| {
            let first = threads.spawn(|| platform.get(&busy));
            begun.accept().expect("the handler has begun");
            let answer = within(&platform, "/busy", "100ms");
            let problem = json_of(&answer);
            assert_eq!((answer.status().as_u16(), &problem["phase"]), (504, &json!("queue")), "{problem}");
            assert_eq!(first.join().expect("it answers").status(), 204);
            problem["reason"].clone()
        });
        reason.as_str().expect("a reason").to_owned()
    };
    assert_eq!(refused(), "expired_in_queue");
    assert_eq!(runs(), 1);
    // Twenty calls are history enough to say at once that it cannot be in time.
    (0..20).for_each(|_| assert_eq!(platform.get("/busy").status(), 204));
    assert_eq!(refused(), "infeasible");
    assert_eq!(runs(), 22);
}

/// Runs for as long as somebody holds the other end.
const HELD: &str = r#"
import socket
def handler(message, context):
    socket.create_connection(("127.0.0.1", int(message["query"]["port"]))).recv(1)
"#;

#[test]
fn a_caller_that_leaves_the_queue_has_waited_there() {
    let platform = up().start();
    let settings = json!({"network": "full", "scaling": {"max": 1}});
    deploy(&platform, "held", "http|GET|/held", HELD, &settings);
    let begun = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let path = format!("/held?port={}", begun.local_addr().expect("bound").port());
    // The state, or the outcome and more, of the latest call.
    let until = |is_so: &dyn Fn(&Value) -> bool| {
        let began = Instant::now();
        loop {
            let latest = platform.api("/invocations?function=held&limit=1")["items"][0].clone();
            if is_so(&latest) {
                return latest;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{latest}");
        }
    };
    std::thread::scope(|threads| {
        let first = threads.spawn(|| platform.get(&path));
        let (held, _) = begun.accept().expect("the handler has begun");
        let mut leaving = TcpStream::connect(platform.gateway).expect("the gateway listens");
        write!(leaving, "GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
        until(&|call| call["state"] == "queued");
        drop(leaving);
        let left = until(&|call| call["state"] == "done");
        assert_eq!((&left["outcome"], &left["attempts"]), (&json!("cancelled"), &json!(0)), "{left}");
        assert!(left["phases"]["queue"].as_f64().is_some_and(|queue| queue > 0.0), "{left}");
        drop(held);
        assert_eq!(first.join().expect("it answers").status(), 204);
    });
}
