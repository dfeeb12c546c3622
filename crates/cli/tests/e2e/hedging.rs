//! Second attempts at slow calls: who gets one, who answers, and what is left of the other.
//!
//! The handlers ask the test what to do, so that nothing here depends on how quick the machine is:
//! the attempt that is told to be slow would take a minute.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::contract::deploy;
use crate::platform::{Platform, up};

/// Does as the test says, which it asks with the call's id; tells it when it was interrupted.
const OBEDIENT: &str = r#"
import socket, time
def ask(port, words):
    with socket.create_connection(("127.0.0.1", int(port))) as line:
        line.sendall((words + "\n").encode())
        return line.makefile().readline().strip()
def handler(message, context):
    port = message["query"].get("ask")
    if not port:
        return "quick"
    word = ask(port, "begun " + context.invocation_id)
    print("told to be", word)
    if word == "raise":
        raise ValueError("as told")
    if word == "slow":
        try:
            time.sleep(60)
        finally:
            ask(port, "interrupted " + context.invocation_id)
    return word
"#;

const FIXED: &str = "20ms";

fn settings(hedge: &str) -> Value {
    let slo = json!({"latency": {"under": "100ms", "percent": 99}});
    json!({"network": "full", "latency": {"hedge": hedge}, "scaling": {"min": 3, "max": 3, "idle": "10m"}, "slo": slo})
}

/// A platform with the function, its workers up, and something in its hedging budget: each call adds a
/// twentieth.
fn platform(verb: &str, settings: &Value) -> Platform {
    let platform = up().start();
    deploy(&platform, "obedient", &format!("http|{verb}|/obey"), OBEDIENT, settings);
    let limit = Instant::now() + Duration::from_secs(30);
    while platform.api("/workers")["items"].as_array().map_or(0, Vec::len) < 3 {
        assert!(Instant::now() < limit, "three workers start");
        thread::yield_now();
    }
    (0..60).for_each(|_| assert_eq!(call(&platform, verb, "").status(), 200));
    platform
}

fn call(platform: &Platform, verb: &str, query: &str) -> Response<Bytes> {
    let request = Request::builder().method(verb).uri(format!("/obey{query}"));
    platform.call(request.header("Idempotency-Key", "one").body(Bytes::new()).expect("a request"))
}

/// An attempt that waits for its word.
struct Attempt {
    said: String,
    line: TcpStream,
}

impl Attempt {
    fn next(listener: &TcpListener) -> Self {
        let (line, _) = listener.accept().expect("an attempt");
        let mut said = String::new();
        BufReader::new(&line).read_line(&mut said).expect("it says something");
        Self { said: said.trim().to_owned(), line }
    }

    fn tell(mut self, word: &str) {
        self.line.write_all(format!("{word}\n").as_bytes()).expect("it listens");
    }
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let query = format!("?ask={}", listener.local_addr().expect("bound").port());
    (listener, query)
}

fn record(platform: &Platform, answer: &Response<Bytes>) -> Value {
    let id = answer.headers()["x-serverless-instance-id"].to_str().expect("an id");
    platform.api(&format!("/invocations/{id}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// The value of a sample without its time, such as `functionsplatform_hedges_total{…}`.
fn metric(platform: &Platform, start: &str, label: &str) -> f64 {
    let request = Request::get("/metrics").body(Bytes::new()).expect("a request");
    let answer = crate::platform::call(platform.api, request);
    let all = String::from_utf8_lossy(answer.body()).into_owned();
    let line = all.lines().find(|line| line.starts_with(start) && line.contains(label));
    let line = line.unwrap_or_else(|| panic!("{start} {label} in {all}"));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

#[test]
fn a_slow_call_is_answered_by_its_second_attempt_and_the_first_is_cancelled() {
    let platform = platform("GET", &settings(FIXED));
    let (listener, query) = listener();
    let (answer, interrupted) = thread::scope(|threads| {
        let calling = threads.spawn(|| call(&platform, "GET", &query));
        let first = Attempt::next(&listener);
        first.tell("slow");
        Attempt::next(&listener).tell("quick");
        let interrupted = Attempt::next(&listener);
        let said = interrupted.said.clone();
        interrupted.tell("");
        (calling.join().expect("it answers"), said)
    });
    assert_eq!((answer.status().as_u16(), &answer.body()[..]), (200, &b"quick"[..]));
    let record = record(&platform, &answer);
    assert_eq!(interrupted, format!("interrupted {}", text(&record["id"])), "its finally block runs");
    assert_eq!(record["attempts"], 2);
    assert_eq!(record["outcome"], "ok");
    let hedging = text(&record["hedging"]);
    assert!(hedging.starts_with("It was hedged: a second attempt was due 20ms after the first"), "{hedging}");
    assert!(hedging.contains("It answered; the first, which was cancelled"), "{hedging}");

    // One call in the trace, with two runs; the one that lost leads to the other.
    let path = format!("/api/traces/{}", text(&record["trace_id"]));
    let request = Request::get(path).body(Bytes::new()).expect("a request");
    let trace: Value =
        serde_json::from_slice(crate::platform::call(platform.traces, request).body()).expect("JSON");
    let spans = trace["data"][0]["spans"].as_array().expect("spans");
    let runs: Vec<_> = spans.iter().filter(|span| span["operationName"] == "run").collect();
    let has = |span: &Value, key: &str| {
        span["tags"]
            .as_array()
            .is_some_and(|tags| tags.iter().any(|tag| tag["key"] == key && tag["value"] == true))
    };
    let (lost, won): (Vec<&Value>, Vec<&Value>) =
        runs.into_iter().partition(|span| has(span, "functionsplatform.cancelled"));
    let ([lost], [won]) = (&lost[..], &won[..]) else { panic!("{spans:#?}") };
    let references = lost["references"].as_array().expect("references");
    assert!(
        references.iter().any(|it| it["refType"] == "FOLLOWS_FROM" && it["spanID"] == won["spanID"]),
        "{references:?}"
    );
    let worker = won["tags"].as_array().expect("tags").iter().find(|tag| tag["key"] == "faas.instance");
    assert_eq!(worker.map(|tag| &tag["value"]), Some(&record["worker"]));

    // The winner's output alone is the call's; what the loser printed is on its span.
    let logs = platform.cli(&["logs", text(&record["id"])]);
    assert_eq!(logs.stdout, "told to be quick\n");
    assert!(lost["logs"].to_string().contains("told to be slow"), "{lost}");

    assert_eq!(metric(&platform, "functionsplatform_hedges_total", "won=\"true\""), 1.0);
    assert_eq!(metric(&platform, "functionsplatform_hedges_total", "won=\"false\""), 0.0);
    let told = platform.cli(&["explain", "call", text(&record["id"])]);
    assert!(told.stdout.contains(hedging), "{}", told.stdout);
    let quick = text(&self::record(&platform, &call(&platform, "GET", ""))["hedging"]).to_owned();
    assert!(quick.starts_with("It was not hedged: it was quick"), "{quick}");
}

#[test]
fn an_error_never_wins_whoever_makes_it_and_whenever() {
    let platform = platform("GET", &settings(FIXED));
    let (listener, query) = listener();
    for (words, body) in [(["raise", "quick"], "quick"), (["quick", "raise"], "quick")] {
        let answer = thread::scope(|threads| {
            let calling = threads.spawn(|| call(&platform, "GET", &query));
            let attempts = [Attempt::next(&listener), Attempt::next(&listener)];
            // The one that raises first, then the one that answers.
            let mut words: Vec<_> = attempts.into_iter().zip(words).collect();
            words.sort_by_key(|(_, word)| *word == "quick");
            for (attempt, word) in words {
                attempt.tell(word);
            }
            calling.join().expect("it answers")
        });
        assert_eq!((answer.status().as_u16(), &answer.body()[..]), (200, body.as_bytes()));
        assert_eq!(record(&platform, &answer)["attempts"], 2);
    }
    // When both fail it is told once.
    let answer = thread::scope(|threads| {
        let calling = threads.spawn(|| call(&platform, "GET", &query));
        let attempts = [Attempt::next(&listener), Attempt::next(&listener)];
        attempts.into_iter().for_each(|attempt| attempt.tell("raise"));
        calling.join().expect("it answers")
    });
    assert_eq!(answer.status(), 500);
    assert_eq!(record(&platform, &answer)["error"], "ValueError: as told");
    // No worker is lost to handlers that only raised.
    assert_eq!(platform.api("/workers")["items"].as_array().map(Vec::len), Some(3));
}

#[test]
fn what_is_not_declared_idempotent_runs_once_whatever_its_caller_sends() {
    let platform = platform("POST", &settings("1ms"));
    let (listener, query) = listener();
    let slow = thread::scope(|threads| {
        threads.spawn(|| {
            for _ in 0..40 {
                let attempt = Attempt::next(&listener);
                // Long enough for many a delay of 1 ms.
                let limit = Instant::now() + Duration::from_millis(10);
                listener.set_nonblocking(true).expect("a socket");
                while Instant::now() < limit {
                    assert!(listener.accept().is_err(), "a second attempt began");
                    thread::yield_now();
                }
                listener.set_nonblocking(false).expect("a socket");
                attempt.tell("quick");
            }
        });
        (0..40).map(|_| record(&platform, &call(&platform, "POST", &query))).collect::<Vec<_>>()
    });
    assert!(slow.iter().all(|record| record["attempts"] == 1), "{slow:?}");
    assert_eq!(metric(&platform, "functionsplatform_hedges_total", "won=\"true\""), 0.0);
    assert_eq!(metric(&platform, "functionsplatform_calls_not_hedged_total", "not_idempotent"), 100.0);
    let why = text(&slow[0]["hedging"]);
    assert!(why.starts_with("It was not hedged: not idempotent"), "{why}");
}

/// Both workers of a call that is hedged end with its caller, or with a `kill -9` of theirs.
#[test]
fn whoever_leaves_or_dies_takes_only_what_is_theirs_along() {
    let platform = platform("GET", &settings(FIXED));
    let (listener, query) = listener();
    // The first attempt's worker is killed: the second answers.
    let answer = thread::scope(|threads| {
        let calling = threads.spawn(|| call(&platform, "GET", &query));
        let _first = Attempt::next(&listener);
        let second = Attempt::next(&listener);
        let id = second.said.rsplit(' ').next().expect("an id").to_owned();
        let running = platform.api(&format!("/invocations/{id}"));
        let workers = platform.api("/workers");
        let workers = workers["items"].as_array().expect("workers").clone();
        let first = workers.iter().find(|worker| worker["id"] == running["worker"]).expect("it runs there");
        kill(first["host_pid"].as_u64().expect("a pid"));
        second.tell("quick");
        calling.join().expect("it answers")
    });
    assert_eq!((answer.status().as_u16(), &answer.body()[..]), (200, &b"quick"[..]));
    // The caller leaves: both are interrupted.
    let gateway = platform.gateway;
    let mut line = TcpStream::connect(gateway).expect("the gateway listens");
    line.write_all(format!("GET /obey{query} HTTP/1.1\r\nHost: {gateway}\r\n\r\n").as_bytes()).expect("sent");
    [Attempt::next(&listener), Attempt::next(&listener)].into_iter().for_each(|attempt| attempt.tell("slow"));
    drop(line);
    let mut ids = HashMap::<String, u32>::new();
    for _ in 0..2 {
        let interrupted = Attempt::next(&listener);
        *ids.entry(interrupted.said.clone()).or_default() += 1;
        interrupted.tell("");
    }
    let [(said, 2)] = &ids.into_iter().collect::<Vec<_>>()[..] else { panic!("two of one call") };
    assert!(said.starts_with("interrupted "), "{said}");
}

fn kill(pid: u64) {
    let pid = pid.to_string();
    let killed = std::process::Command::new("kill").args(["-9", &pid]).status().expect("kill runs");
    assert!(killed.success());
}

/// Every 25th call is slow the first time that it runs, and quick when it runs again.
#[test]
fn with_an_objective_the_delay_is_found_and_the_budget_kept() {
    let platform = up().start();
    deploy(&platform, "obedient", "http|GET|/obey", OBEDIENT, &settings("auto"));
    let (listener, query) = listener();
    let (calls, every) = (400, 25);
    let answers = thread::scope(|threads| {
        threads.spawn(|| {
            let mut seen = HashMap::<String, u32>::new();
            for line in listener.incoming() {
                let line = line.expect("a line");
                let mut said = String::new();
                BufReader::new(&line).read_line(&mut said).expect("it says something");
                let attempt = Attempt { said: said.trim().to_owned(), line };
                if attempt.said == "end" {
                    return;
                }
                let times = seen.entry(attempt.said.clone()).or_default();
                *times += 1;
                if *times == 1 && attempt.said.starts_with("begun") {
                    thread::spawn(move || {
                        // Longer than the objective.
                        thread::sleep(Duration::from_millis(300));
                        // A cancelled one is gone.
                        let _ = (&attempt.line).write_all(b"first\n");
                    });
                } else {
                    attempt.tell("second");
                }
            }
        });
        let one = |at: u32| call(&platform, "GET", if at.is_multiple_of(every) { &query } else { "" });
        let answers: Vec<_> = (0..calls).map(one).collect();
        let mut line = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        line.write_all(b"end\n").expect("sent");
        answers
    });
    let hedged: Vec<_> = answers.iter().filter(|answer| answer.body() == "second").collect();
    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert!(hedged.len() >= 3, "{} of {} slow calls were hedged", hedged.len(), calls / every);
    assert!(hedged.iter().all(|answer| record(&platform, answer)["attempts"] == 2));
    let started = metric(&platform, "functionsplatform_hedges_total", "won=\"true\"")
        + metric(&platform, "functionsplatform_hedges_total", "won=\"false\"");
    assert!(started <= 0.05 * f64::from(calls), "{started}");
    assert!(metric(&platform, "functionsplatform_calls_not_hedged_total", "too_little_history") >= 100.0);
}
