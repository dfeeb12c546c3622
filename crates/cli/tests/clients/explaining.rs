//! What `explain call`, `timeout` and `scaling` make of the API's answers.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::stub::{Stub, ok, problem};

const ID: &str = "0190b2a8-4e5c-7cc1-b4a5-0d2f6a1c9e11";

/// A warm call that went well, with some members as they are here.
fn call(changes: &Value) -> String {
    let mut call = json!({
        "id": ID, "function": "thumbs", "version": 3, "event_type": "http|GET|/thumbs/{id}", "trigger": "http",
        "verb": "GET", "path": "/thumbs/7", "state": "done", "started_at": "2026-11-23T10:00:00Z",
        "deadline_ms": 60000, "deadline_from": "timeout", "called_by": null, "worker": "w17", "outcome": "ok",
        "reason": null, "blame": null, "status": 200, "error": null, "duration_ms": 12.5,
        "phases": { "route": 0.2, "queue": 0.1, "start": 0.0, "run": 12.0, "send": 0.2 }, "cold": false,
        "attempts": 1, "queue_length": 0, "request_bytes": 0, "cpu_ms": 11.5, "limit_hit": null,
        "latency_met": null, "weight": 1, "a_member_of_tomorrow": true,
    });
    let (all, changes) = (call.as_object_mut().expect("an object"), changes.as_object().expect("an object"));
    all.extend(changes.clone());
    call.to_string()
}

fn function() -> String {
    json!({
        "function_name": "thumbs", "version": 3,
        "settings": {
            "timeout": "1m", "stream_idle": "1m", "concurrency": 1, "memory": "256MiB",
            "scaling": { "min": 0, "max": 16, "idle": "auto" },
        },
    })
    .to_string()
}

fn stub(changes: &Value) -> Stub {
    let path = format!("GET /invocations/{ID}");
    Stub::start([ok(&path, &call(changes)), ok("GET /functions/thumbs", &function())])
}

#[test]
fn a_call_that_went_well_is_told_in_sentences() {
    assert_snapshot!(stub(&json!({})).run(&["explain", "call", ID]));
}

#[test]
fn a_cold_call_that_failed_says_what_to_do() {
    let failed = json!({
        "outcome": "out_of_memory", "blame": "function", "status": 502, "limit_hit": "memory", "cold": true,
        "queue_length": 4, "error": "the worker used more than 256 MiB", "latency_met": false,
        "phases": { "route": 0.2, "queue": 3.0, "start": 812.0, "run": 40.0, "send": 0.2 }, "duration_ms": 855.4,
        "version": 2, "weight": 16,
    });
    let stub = stub(&failed);
    assert_snapshot!(stub.run(&["explain", "call", ID]));
    let told = stub.run(&["--output", "json", "explain", "call", ID]);
    let told: Value = serde_json::from_str(&told.stdout).expect("JSON");
    assert_eq!(told["longest_phase"], json!({ "name": "start", "ms": 812.0 }));
    assert_eq!((&told["limit_hit"], &told["deadline_from"]), (&json!("memory"), &json!("timeout")));
    assert!(told["sentences"].as_array().expect("sentences").len() > 8);
}

#[test]
fn a_call_that_runs_and_one_whose_function_is_gone() {
    let running = json!({
        "state": "queued", "outcome": null, "status": null, "duration_ms": null, "phases": null, "cold": null,
        "attempts": null, "queue_length": null, "worker": null, "weight": null, "trigger": "async",
    });
    let path = format!("GET /invocations/{ID}");
    let gone = Stub::start([
        ok(&path, &call(&running)),
        problem("GET /functions/thumbs", 404, r#"{"title":"There is no such thing"}"#),
    ]);
    assert_snapshot!(gone.run(&["explain", "call", ID]));
    let unknown = gone.run(&["explain", "call", "nothing"]);
    assert_eq!(unknown.exit, 3, "{unknown}");
}

#[test]
fn a_timeout_is_told_by_whose_limit_it_was() {
    let own = json!({
        "outcome": "timeout", "blame": "function", "status": 504, "duration_ms": 60001.0, "cpu_ms": 3.0,
        "phases": { "route": 0.2, "queue": 0.1, "start": 0.0, "run": 60000.0, "send": 0.2 },
        "error": "the handler did not answer within its timeout of 1m",
    });
    assert_snapshot!("timeout_own", stub(&own).run(&["explain", "timeout", ID]));
    let callers = json!({
        "outcome": "deadline_exceeded", "reason": "expired_in_queue", "blame": "caller", "status": 504,
        "deadline_ms": 250, "deadline_from": "x-request-timeout", "attempts": 0, "worker": null, "duration_ms": 250.3,
        "phases": { "route": 0.2, "queue": 250.0, "start": 0.0, "run": 0.0, "send": 0.1 }, "queue_length": 31,
    });
    let stub_of_callers = stub(&callers);
    assert_snapshot!("timeout_callers", stub_of_callers.run(&["explain", "timeout", ID]));
    let told = stub_of_callers.run(&["explain", "timeout", ID, "--output", "json"]);
    let told: Value = serde_json::from_str(&told.stdout).expect("JSON");
    assert_eq!((&told["limit"], &told["deadline_from"]), (&json!("caller"), &json!("x-request-timeout")));
    let stream = json!({
        "outcome": "timeout", "blame": "function", "status": 200,
        "error": "the stream passed stream_idle of 1m; send sooner, or raise stream_idle in function.toml",
    });
    let ran = stub(&stream).run(&["explain", "timeout", ID]);
    assert!(ran.stdout.contains("passed the function's stream_idle = \"1m\" now."), "{ran}");
    assert_snapshot!("timeout_none", stub(&json!({})).run(&["explain", "timeout", ID]));
}

#[test]
fn the_workers_of_a_function_are_told_with_what_is_known_of_their_starts() {
    let calls = json!({ "items": [
        { "id": "a", "state": "queued" },
        { "id": "b", "state": "done", "cold": true, "started_at": "2026-11-23T10:00:02Z", "worker": "w18",
          "queue_length": 2, "phases": { "queue": 1.5, "start": 3.25 } },
        { "id": "c", "state": "done", "cold": false, "started_at": "2026-11-23T10:00:01Z", "worker": "w17" },
    ], "next": null });
    let worker = |id: &str, function: &str, version: u32, state: &str| {
        json!({ "id": id, "host_pid": 7, "function": function, "version": version, "state": state,
                "started_at": "2026-11-23T09:59:00Z", "calls": 5, "running": 1 })
    };
    let workers = json!({ "items": [
        worker("w17", "thumbs", 3, "idle"), worker("w18", "thumbs", 3, "busy"), worker("w3", "thumbs", 2, "busy"),
        worker("w4", "cats", 1, "idle"),
    ], "next": null });
    let scaling = json!({
        "arrivals_per_second": 12.5, "run_mean_ms": 80.0, "wanted": 5, "start_ms": 3.25, "delay_target_ms": 320.0,
        "standing": true, "keep_s": 600.0, "pauses": null,
        "decisions": [
            { "at": "2026-11-23T10:00:02Z", "sentence": "started 1 worker: the last of 2 calls would have waited 40ms, a start takes 3.25ms (1 worker there)" },
        ],
    });
    let stub = Stub::start([
        ok("GET /functions/thumbs", &function()),
        ok("GET /functions/thumbs/scaling", &scaling.to_string()),
        ok("GET /workers", &workers.to_string()),
        ok("GET /invocations?limit=200&function=thumbs", &calls.to_string()),
    ]);
    assert_snapshot!(stub.run(&["explain", "scaling", "thumbs"]));
    let told = stub.run(&["explain", "scaling", "thumbs", "--output", "json"]);
    let told: Value = serde_json::from_str(&told.stdout).expect("JSON");
    assert_eq!((&told["waiting_calls"], &told["recent"]["cold"]), (&json!(1), &json!(1)));
    assert_eq!(told["settings"]["scaling"]["max"], 16);
    assert_eq!(told["scaling"]["wanted"], 5);
    assert_eq!(stub.run(&["explain", "scaling", "dogs"]).exit, 3);
}
