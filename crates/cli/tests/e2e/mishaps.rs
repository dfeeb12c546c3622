//! What callers see when things change or die under them: deploys under load, killed workers, a
//! killed launcher.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::contract::deploy;
use crate::platform::{Platform, up};

/// As many as the platform promises to survive without one failed call.
const DEPLOYS: u32 = 50;

fn numbered(dir: &Path, number: u32) {
    let manifest = "name = \"numbered\"\nevents = [\"http|GET|/number\", \"http|GET|/sleep/{seconds}\"]\n";
    let handler = format!(
        "import socket, time\n\
        def handler(message, context):\n    \
            if 'tell' in message['query']:\n        \
                socket.create_connection(('127.0.0.1', int(message['query']['tell']))).close()\n    \
            time.sleep(float(message['path_params'].get('seconds', 0)))\n    \
            return {{'number': {number}}}\n"
    );
    std::fs::write(dir.join("function.toml"), manifest).expect("written");
    std::fs::write(dir.join("handler.py"), handler).expect("written");
}

#[test]
fn no_call_fails_because_of_a_deploy() {
    let dir = tempfile::tempdir().expect("a directory");
    numbered(dir.path(), 0);
    let platform = up().arg(dir.path()).start();
    let (stop, calls) = (AtomicBool::new(false), AtomicU32::new(0));
    let failures = std::thread::scope(|scope| {
        let caller = || {
            let mut failures = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let answer = platform.get("/number");
                calls.fetch_add(1, Ordering::Relaxed);
                if !answer.status().is_success() {
                    failures.push(format!("{answer:?}"));
                }
            }
            failures
        };
        let callers = [scope.spawn(caller), scope.spawn(caller)];
        for number in 1..=DEPLOYS {
            numbered(dir.path(), number);
            let deployed = platform.cli(&["deploy", dir.path().to_str().expect("UTF-8")]);
            assert!(deployed.status.success(), "{deployed:?}");
            let answer = platform.get("/number");
            assert_eq!(answer.body().as_ref(), format!("{{\"number\": {number}}}").as_bytes(), "{answer:?}");
        }
        stop.store(true, Ordering::Relaxed);
        callers.into_iter().flat_map(|caller| caller.join().expect("it returns")).collect::<Vec<_>>()
    });
    assert!(failures.is_empty(), "{} of {calls:?} calls failed: {:?}", failures.len(), failures[0]);
    assert!(calls.into_inner() >= DEPLOYS, "there was no load");
}

#[test]
fn other_settings_hold_at_once_and_the_workers_stay() {
    let platform = up().start();
    let code = "def handler(message, context):\n    return {'version': context.version}\n";
    let put = |settings: &Value| deploy(&platform, "steady", "http|GET|/steady", code, settings);
    let asked = || -> Value {
        let answer = platform.get("/steady");
        assert_eq!(answer.status(), 200, "{answer:?}");
        serde_json::from_slice(answer.body()).expect("JSON")
    };
    let pids = || -> Vec<u64> {
        let workers = platform.api("/workers");
        let workers = workers["items"].as_array().expect("workers").iter();
        workers.filter_map(|worker| worker["host_pid"].as_u64()).collect()
    };
    put(&json!({}));
    assert_eq!(asked()["version"], 1);
    let first = pids();
    assert_eq!(first.len(), 1, "{first:?}");

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                asked();
            }
        });
        for (number, settings) in [
            json!({ "timeout": "5s", "slo": { "availability": 99.0, "latency": { "under": "50ms", "percent": 99 } } }),
            json!({ "latency": { "hedge": "20ms" }, "idempotent": true, "scaling": { "max": 3 } }),
            json!({ "scaling": { "max": 3, "idle": "5m" } }),
        ]
        .iter()
        .enumerate()
        {
            put(settings);
            assert_eq!(asked()["version"], number + 2);
            assert!(pids().contains(&first[0]), "{settings}: {:?} of {first:?}", pids());
        }
        stop.store(true, Ordering::Relaxed);
        caller.join().expect("no call failed");
    });
    let before = pids();
    put(&json!({ "scaling": { "max": 3, "idle": "5m" } }));
    assert_eq!(asked()["version"], 5);
    assert!(pids().iter().all(|pid| !before.contains(pid)), "the same once more begins anew");
    let before = pids();
    put(&json!({ "scaling": { "max": 3, "idle": "5m" }, "env": { "LEVEL": "debug" } }));
    assert_eq!(asked()["version"], 6);
    assert!(pids().iter().all(|pid| !before.contains(pid)), "the environment is the worker's");
}

/// A call that sleeps, and the pid of the worker that runs it. The handler says by a connection
/// that it has begun: a call that was not read is made again on another worker.
fn sleeping_call(platform: &Platform) -> (TcpStream, u64) {
    let begun = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let tell = begun.local_addr().expect("bound").port();
    let mut stream = TcpStream::connect(platform.gateway).expect("it listens");
    write!(stream, "GET /sleep/20?tell={tell} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("sent");
    begun.accept().expect("the handler has begun");
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        let workers = platform.api("/workers");
        let busy = workers["items"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|worker| worker["state"] == "busy")
            .cloned();
        if let Some(worker) = busy {
            return (stream, worker["host_pid"].as_u64().expect("a pid"));
        }
        assert!(Instant::now() < limit, "the call never ran: {workers}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn kill(pid: impl std::fmt::Display) {
    signal("-KILL", pid);
}

fn signal(which: &str, pid: impl std::fmt::Display) {
    assert!(Command::new("kill").args([which, &pid.to_string()]).status().expect("kill runs").success());
}

fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let _ = stream.read_to_string(&mut text);
    text
}

#[test]
fn a_stopped_worker_costs_nobody_an_answer_and_is_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    numbered(dir.path(), 7);
    let platform = up().arg(dir.path()).start();
    assert_eq!(platform.get("/number").status(), 200);
    let pid = || platform.api("/workers")["items"][0]["host_pid"].as_u64().expect("a worker");
    let stopped = pid();
    signal("-STOP", stopped);
    let stands_still =
        || std::fs::read_to_string(format!("/proc/{stopped}/stat")).is_ok_and(|it| it.contains(") T "));
    let limit = Instant::now() + Duration::from_secs(10);
    while !stands_still() {
        assert!(Instant::now() < limit, "the signal has no effect");
        std::thread::sleep(Duration::from_millis(1));
    }
    // It takes the call and cannot read it; a minute later it would be a 504.
    let answer = platform.get("/number");
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_ne!(pid(), stopped, "the worker that stands still is still there");
}

#[test]
fn a_killed_worker_costs_its_own_caller_a_502_and_nobody_else_anything() {
    let dir = tempfile::tempdir().expect("a directory");
    numbered(dir.path(), 0);
    let platform = up().arg(dir.path()).start();
    let (call, pid) = sleeping_call(&platform);
    kill(pid);
    let answer = answer(call);
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("\"crashed\""), "{answer}");
    assert_eq!(platform.get("/number").status(), 200);
}

#[test]
fn a_killed_launcher_is_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    numbered(dir.path(), 0);
    let platform = up().arg(dir.path()).start();
    let (call, _) = sleeping_call(&platform);
    kill(platform.launcher());
    let answer = answer(call);
    // Not the function's doing.
    assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("\"blame\":\"platform\""), "{answer}");
    let limit = Instant::now() + Duration::from_secs(10);
    while platform.get("/number").status() != 200 {
        assert!(Instant::now() < limit, "no launcher came back: {}", platform.stderr());
        std::thread::sleep(Duration::from_millis(20));
    }
}
