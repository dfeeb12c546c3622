//! Functions with `concurrency`: one worker, several calls, and nobody pays for another.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::platform::{self, Platform, up};

const HANDLER: &str = "import asyncio, time
gates = {}
def gate(name):
    return gates.setdefault(name, asyncio.Event())
async def pieces(own, other):
    yield own + '1 '
    gate(own).set()
    await gate(other).wait()
    yield own + '2'
async def handler(message, context):
    what, name = message['path_params']['what'], message['path_params']['name']
    began = time.monotonic()
    print('began', what, name)
    if what == 'sleep':
        await asyncio.sleep(0.3)
    elif what == 'wait':
        await gate(name).wait()
    elif what == 'open':
        gate(name).set()
    elif what == 'raise':
        raise ValueError(name)
    elif what == 'block':
        time.sleep(60)
    elif what == 'stream':
        return pieces(name, {'a': 'b', 'b': 'a'}[name])
    print('ended', what, name)
    return {'began': began, 'ended': time.monotonic(), 'name': name}
";

/// Calls at once in the only worker.
const CONCURRENCY: usize = 10;

fn write(dir: &Path, handler: &str) {
    let manifest = format!(
        "name = \"shared\"\nevents = [\"http|GET|/{{what}}/{{name}}\"]\nconcurrency = {CONCURRENCY}\n[scaling]\nmax = 1\n"
    );
    std::fs::write(dir.join("function.toml"), manifest).expect("written");
    std::fs::write(dir.join("handler.py"), handler).expect("written");
}

fn start() -> (Platform, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), HANDLER);
    (up().arg(dir.path()).start(), dir)
}

fn within(path: &str, time: &str) -> Request<Bytes> {
    Request::get(path).header("x-request-timeout", time).body(Bytes::new()).expect("a request")
}

fn body(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap_or_else(|e| panic!("{answer:?}: {e}"))
}

/// The one worker, once it runs so many calls.
fn worker_with(platform: &Platform, running: usize) -> Value {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        let workers = platform.api("/workers")["items"].as_array().expect("a list").clone();
        if let [worker] = &workers[..]
            && worker["running"] == running
        {
            return worker.clone();
        }
        assert!(Instant::now() < limit, "never {running} calls on one worker: {workers:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn ten_calls_sleep_side_by_side_in_one_worker_and_keep_their_logs_apart() {
    let (platform, _dir) = start();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..CONCURRENCY)
            .map(|n| {
                scope.spawn({
                    let platform = &platform;
                    move || platform.get(&format!("/sleep/n{n}"))
                })
            })
            .collect();
        let raised = platform.get("/raise/oh");
        assert_eq!(raised.status(), 500, "{raised:?}");
        calls.into_iter().map(|call| call.join().expect("it returns")).collect()
    });
    let times: Vec<_> = answers.iter().map(body).collect();
    let number = |value: &Value, key: &str| value[key].as_f64().expect("seconds");
    // They were in the handler together: nobody began after the first had ended.
    let last_began = times.iter().map(|time| number(time, "began")).fold(f64::MIN, f64::max);
    let first_ended = times.iter().map(|time| number(time, "ended")).fold(f64::MAX, f64::min);
    assert!(last_began < first_ended, "{times:?}");
    let worker = worker_with(&platform, 0);
    assert_eq!((&worker["calls"], &worker["state"]), (&json!(CONCURRENCY + 1), &json!("idle")));
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.status(), 200, "{answer:?}");
        let id = answer.headers()["x-serverless-instance-id"].to_str().expect("text");
        let record = platform.api(&format!("/invocations/{id}"));
        assert_eq!(record["worker"], worker["id"], "{record}");
        assert_eq!(record["outcome"], "ok", "{record}");
        let logs = platform.cli(&["logs", id]);
        assert_eq!(logs.stdout, format!("began sleep n{n}\nended sleep n{n}\n"));
    }
}

#[test]
fn streams_of_one_worker_go_on_together() {
    let (platform, _dir) = start();
    // Each sends its end only after the other has begun.
    let bodies = std::thread::scope(|scope| {
        let streams = ["a", "b"].map(|name| {
            scope.spawn({
                let platform = &platform;
                move || platform.get(&format!("/stream/{name}"))
            })
        });
        streams.map(|stream| stream.join().expect("it returns").into_body())
    });
    assert_eq!(bodies, ["a1 a2", "b1 b2"].map(Bytes::from));
}

#[test]
fn a_call_out_of_time_costs_the_others_nothing() {
    let (platform, _dir) = start();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| platform.get("/wait/a"));
        let worker = worker_with(&platform, 1);
        let late = platform.call(within("/wait/never", "200ms"));
        assert_eq!(late.status(), 504, "{late:?}");
        assert_eq!(worker_with(&platform, 1)["host_pid"], worker["host_pid"]);
        assert_eq!(platform.get("/open/a").status(), 200);
        assert_eq!(other.join().expect("it returns").status(), 200);
        assert_eq!(worker_with(&platform, 0)["host_pid"], worker["host_pid"], "it serves on");
    });
}

#[test]
fn a_call_that_blocks_the_loop_ends_its_worker_and_the_others_are_told_why() {
    let (platform, _dir) = start();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| platform.get("/wait/a"));
        let worker = worker_with(&platform, 1);
        let late = platform.call(within("/block/it", "300ms"));
        assert_eq!(late.status(), 504, "{late:?}");
        let other = other.join().expect("it returns");
        assert_eq!(other.status(), 502, "{other:?}");
        let detail = body(&other)["detail"].to_string();
        assert!(detail.contains("another call") && detail.contains("event loop"), "{detail}");
        assert_eq!(platform.get("/sleep/after").status(), 200);
        assert_ne!(worker_with(&platform, 0)["host_pid"], worker["host_pid"]);
    });
}

#[test]
fn a_killed_worker_costs_its_own_callers_a_502() {
    let (platform, _dir) = start();
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..3).map(|_| scope.spawn(|| platform.get("/wait/a"))).collect();
        let pid = worker_with(&platform, 3)["host_pid"].to_string();
        // All three must have been read: the platform would repeat one that was not.
        assert_eq!(platform.get("/open/other").status(), 200);
        assert!(Command::new("kill").args(["-KILL", &pid]).status().expect("kill runs").success());
        for call in calls {
            let answer = call.join().expect("it returns");
            assert_eq!(answer.status(), 502, "{answer:?}");
            assert_eq!(body(&answer)["code"], "crashed", "{answer:?}");
        }
    });
    assert_eq!(platform.get("/sleep/after").status(), 200);
}

#[test]
fn a_plain_function_is_refused_and_told_what_to_do() {
    let (platform, dir) = start();
    let plain = "def handler(message, context):\n    return 1\n";
    write(dir.path(), plain);
    let deployed = platform.cli(&["deploy", dir.path().to_str().expect("UTF-8")]);
    assert_eq!(deployed.status.code(), Some(4), "{deployed:?}");
    assert!(deployed.stderr.contains("async def"), "{deployed:?}");
    let request = json!({
        "event_type": "http|GET|/plain", "function_name": "plain", "function_code": plain,
        "settings": {"concurrency": 2},
    });
    let request = Request::post("/functions")
        .header("content-type", "application/json")
        .body(Bytes::from(request.to_string()))
        .expect("a request");
    let refused = platform::call(platform.api, request);
    assert_eq!(refused.status(), 422, "{refused:?}");
    let problem = body(&refused);
    assert!(problem["field"].as_str().is_some_and(|field| field.ends_with("concurrency")), "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("async def")), "{problem}");
    assert_eq!(platform.get("/sleep/old").status(), 200, "the old version stays");
}
