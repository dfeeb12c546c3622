//! What a call, a timeout and a pool are explained by, asked of a real platform.

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use crate::contract::deploy;
use crate::platform::{Platform, call, up};

/// Calls it, with a header, and says which invocation that was.
fn ask(platform: &Platform, path: &str, header: Option<(&str, &str)>, wanted: u16) -> String {
    let mut request = Request::get(path);
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let answer = platform.call(request.body(Bytes::new()).expect("a request"));
    assert_eq!(answer.status(), wanted, "{answer:?}");
    answer.headers()["x-serverless-instance-id"].to_str().expect("text").to_owned()
}

fn explained(platform: &Platform, what: &[&str]) -> Value {
    let ran = platform.cli(&[&["explain", "--output", "json"], what].concat());
    assert!(ran.status.success(), "{ran:?}");
    serde_json::from_str(&ran.stdout).expect("JSON")
}

#[test]
fn a_timeout_is_explained_by_who_set_it() {
    let platform = up().start();
    let code = "import time\ndef handler(message, context):\n    time.sleep(30)\n";
    deploy(&platform, "slow", "http|GET|/slow", code, &json!({ "timeout": "300ms" }));
    let own = ask(&platform, "/slow", None, 504);
    let told = explained(&platform, &["timeout", &own]);
    assert_eq!((&told["limit"], &told["deadline_from"]), (&json!("timeout"), &json!("timeout")));
    assert_eq!(told["deadline_ms"], 300);
    let callers = ask(&platform, "/slow", Some(("X-Request-Timeout", "150ms")), 504);
    let told = explained(&platform, &["timeout", &callers]);
    assert_eq!((&told["limit"], &told["deadline_from"]), (&json!("caller"), &json!("x-request-timeout")));
    let ran = platform.cli(&["explain", "timeout", &callers]);
    assert!(ran.stdout.contains("the caller said so in the header x-request-timeout"), "{ran:?}");
    assert_eq!(platform.cli(&["explain", "timeout", "nothing"]).status.code(), Some(3));
    let gone = "0190b2a8-4e5c-7cc1-b4a5-0d2f6a1c9e11";
    assert_eq!(platform.cli(&["explain", "call", gone]).status.code(), Some(3));
}

#[test]
fn calls_and_workers_are_explained() {
    let platform = up().start();
    let code = "def handler(message, context):\n    return {'a': 1 // 0}\n";
    deploy(&platform, "broken", "http|GET|/broken", code, &json!({ "scaling": { "idle": "0s" } }));
    let failed = ask(&platform, "/broken", None, 500);
    let told = explained(&platform, &["call", &failed]);
    assert_eq!((&told["outcome"], &told["blame"]), (&json!("function_error"), &json!("function")));
    assert_eq!((&told["cold"], &told["deadline_from"]), (&json!(true), &json!("timeout")));
    let ran = platform.cli(&["explain", "call", &failed]);
    assert!(ran.stdout.contains("ZeroDivisionError") && ran.stdout.contains("cold start"), "{ran:?}");
    let decided = told["decisions"][0].as_str().unwrap_or_default();
    assert!(
        decided.starts_with("It had to wait: no worker was ready") && ran.stdout.contains(decided),
        "{told}"
    );
    let told = explained(&platform, &["scaling", "broken"]);
    assert_eq!((&told["recent"]["calls"], &told["recent"]["cold"]), (&json!(1), &json!(1)));
    assert_eq!(told["recent"]["starts"][0]["id"], failed);
    assert_eq!(platform.cli(&["explain", "scaling", "nothing"]).status.code(), Some(3));

    // The same, and one more, asked about as many.
    ask(&platform, "/broken", None, 500);
    let question = ["query", "--output", "json", "outcome != ok and cold since 1h group by function, error"];
    let ran = platform.cli(&question);
    assert!(ran.status.success(), "{ran:?}");
    let told: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let row = &told["items"][0];
    assert_eq!(
        (&row["count"], &row["failed"], &row["group"]["function"]),
        (&json!(2), &json!(2), &json!("broken"))
    );
    assert!(
        row["group"]["error"].as_str().is_some_and(|error| error.contains("ZeroDivisionError")),
        "{told}"
    );
    assert!(row["p99"].as_f64() > Some(0.0) && told["whole"] == true, "{told}");
    let ran = platform.cli(&["query", "group", "by", "function"]);
    assert!(
        ran.stdout.lines().any(|line| line.starts_with("broken") && line.contains("2 (100.00 %)")),
        "{ran:?}"
    );
    let ran = platform.cli(&["query", "outcme = ok"]);
    assert!(ran.status.code() == Some(4) && ran.stderr.contains("did you mean outcome?"), "{ran:?}");

    // What is refused says why, in its trace, too.
    let late = ask(&platform, "/broken", Some(("X-Request-Timeout", "0")), 504);
    let decided =
        explained(&platform, &["call", &late])["decisions"][0].as_str().unwrap_or_default().to_owned();
    assert!(decided.starts_with("It was refused at once (expired_in_queue), with 0s left"), "{decided}");
    let trace_id =
        platform.api(&format!("/invocations/{late}"))["trace_id"].as_str().unwrap_or_default().to_owned();
    let seen = Request::get(format!("/api/traces/{trace_id}")).body(Bytes::new()).expect("a request");
    let trace = String::from_utf8(call(platform.traces, seen).into_body().to_vec()).expect("text");
    assert!(trace.contains("\"refused\"") && trace.contains("time_left_ms"), "{trace}");
}
