//! Deadlines of callers: handed on from function to function, and heeded while a call waits.

use std::net::TcpListener;

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
