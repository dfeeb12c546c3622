//! Functions and workers that break: the breaker of a version, and workers that stand out.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use crate::contract::deploy;
use crate::platform::{Platform, up};

/// Does what it is asked; once broken, its worker raises for ever.
const FRAIL: &str = r#"
import os
BROKEN = False
def handler(message, context):
    global BROKEN
    query = message["query"]
    if "die" in query:
        os._exit(3)
    BROKEN = BROKEN or "break" in query
    if BROKEN or "raise" in query:
        raise ValueError("broken")
    return {"pid": os.getpid()}
"#;

fn problem(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap_or_else(|_| panic!("{answer:?}"))
}

fn statuses(platform: &Platform, path: &str, calls: usize) -> Vec<u16> {
    (0..calls).map(|_| platform.get(path).status().as_u16()).collect()
}

#[test]
fn a_function_whose_calls_all_crash_is_refused_at_once_until_probes_end_well() {
    let platform = up().start();
    deploy(&platform, "frail", "http|GET|/frail", FRAIL, &json!({}));
    assert_eq!(statuses(&platform, "/frail?die=1", 10), [502; 10]);
    let refused = platform.get("/frail");
    let said = problem(&refused);
    assert_eq!(
        (refused.status().as_u16(), &said["reason"], &said["blame"], &said["retryable"]),
        (503, &json!("breaker_open"), &json!("function"), &json!(true)),
        "{said}"
    );
    assert_eq!(refused.headers()["retry-after"], "1");
    // It lets somebody try after a second, and everybody once three have ended well.
    let began = Instant::now();
    let mut good = 0;
    while good < 3 {
        assert!(began.elapsed() < Duration::from_secs(20), "it never recovers");
        good += usize::from(platform.get("/frail").status() == 200);
    }
    assert_eq!(statuses(&platform, "/frail", 5), [200; 5]);
    let refusals = platform.api("/invocations?function=frail&outcome=shed&limit=1");
    assert_eq!(refusals["items"][0]["reason"], "breaker_open", "{refusals}");
}

#[test]
fn a_function_that_merely_raises_is_never_refused() {
    let platform = up().start();
    deploy(&platform, "frail", "http|GET|/frail", FRAIL, &json!({}));
    assert_eq!(statuses(&platform, "/frail?raise=1", 40), [500; 40]);
    assert_eq!(platform.get("/frail").status(), 200);
}

#[test]
fn a_worker_whose_state_is_broken_for_good_is_replaced() {
    let platform = up().start();
    deploy(&platform, "frail", "http|GET|/frail", FRAIL, &json!({ "scaling": { "max": 1 } }));
    let before = platform.get("/frail");
    assert_eq!(before.status(), 200);
    assert_eq!(platform.get("/frail?break=1").status(), 500);
    assert_eq!(statuses(&platform, "/frail", 4), [500; 4]);
    assert_eq!(statuses(&platform, "/frail", 5), [200; 5], "served by another");
    let log = platform.stderr();
    assert!(log.contains("the worker is replaced"), "{log}");
}
