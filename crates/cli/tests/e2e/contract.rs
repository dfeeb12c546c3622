//! What callers and handlers rely on: routing, the message, return values, outcomes, headers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::platform::{Platform, call, up};

/// Deploys one file through the management API.
pub(crate) fn deploy(platform: &Platform, name: &str, event: &str, code: &str, settings: &Value) {
    let answer = try_deploy(platform, name, event, code, settings);
    assert_eq!(answer.status(), 200, "{name}: {}", String::from_utf8_lossy(answer.body()));
}

pub(crate) fn try_deploy(
    platform: &Platform,
    name: &str,
    event: &str,
    code: &str,
    settings: &Value,
) -> Response<Bytes> {
    let body =
        json!({"event_type": event, "function_name": name, "function_code": code, "settings": settings});
    let request = Request::post("/functions").header("content-type", "application/json");
    call(platform.api, request.body(body.to_string().into()).expect("a request"))
}

fn send(
    platform: &Platform,
    verb: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response<Bytes> {
    let mut request = Request::builder().method(verb).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    platform.call(request.body(Bytes::copy_from_slice(body)).expect("a request"))
}

fn json_of(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body())
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(answer.body())))
}

fn header<'a>(answer: &'a Response<Bytes>, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

const ECHO: &str = r#"
def handler(message, context):
    body = message["body"]
    return {
        "kind": type(body).__name__,
        "body": body.decode("latin-1") if isinstance(body, bytes) else body,
        "raw": len(message["raw_body"]),
        "path": message["path"], "verb": message["verb"], "type": message["message_type"],
        "query": message["query"], "query_all": message["query_all"],
        "params": message["path_params"],
        "any_case": message["headers"].get("X-AnY-CaSe"),
        "function": context["function_name"], "version": context.version,
        "left": context.remaining_ms(),
    }
"#;

#[test]
fn the_message_holds_what_was_sent() {
    let platform = up().start();
    deploy(&platform, "echo", "http|*|/echo/{id}/{*rest}", ECHO, &json!({"timeout": "20s"}));
    let path = "/echo/caf%C3%A9%2Fau/lait/x?a=1&a=2&b=%C3%BC&c";
    let json_type = [("content-type", "application/json"), ("x-any-case", "one"), ("X-Any-Case", "two")];
    let echoed = json_of(&send(&platform, "POST", path, &json_type, br#"{"n": [1, "z\u00fc"]}"#));
    assert_eq!(echoed["body"], json!({"n": [1, "zü"]}));
    assert_eq!(echoed["path"], "/echo/café/au/lait/x");
    assert_eq!(echoed["params"], json!({"id": "café/au", "rest": "lait/x"}));
    assert_eq!(echoed["query"], json!({"a": "2", "b": "ü", "c": ""}));
    assert_eq!(echoed["query_all"], json!({"a": ["1", "2"], "b": ["ü"], "c": [""]}));
    assert_eq!((&echoed["verb"], &echoed["type"]), (&json!("POST"), &json!("http")));
    assert_eq!(echoed["any_case"], "one, two");
    assert_eq!((&echoed["function"], &echoed["version"]), (&json!("echo"), &json!(1)));
    let left = echoed["left"].as_f64().expect("a number");
    assert!((10_000.0..=20_000.0).contains(&left), "{left}");
    for (content_type, body, kind) in [
        (None, &b""[..], "NoneType"),
        (None, br#"{"arg": 21}"#, "dict"),
        (Some("application/x-www-form-urlencoded"), br#"{"arg": 21}"#, "dict"),
        (Some("application/x-www-form-urlencoded"), b"a=1&b=2", "dict"),
        (Some("text/plain"), b"plain text", "str"),
        (Some("application/octet-stream"), b"\xff\x00", "bytes"),
        (Some("application/vnd.x+json"), b"[1]", "list"),
    ] {
        let headers: Vec<_> = content_type.map(|value| ("content-type", value)).into_iter().collect();
        let echoed = json_of(&send(&platform, "PUT", "/echo/1/2", &headers, body));
        assert_eq!((&echoed["kind"], &echoed["raw"]), (&json!(kind), &json!(body.len())), "{content_type:?}");
    }
}

#[test]
fn callers_mistakes_are_refused_before_a_worker_runs() {
    let platform = up().start();
    deploy(&platform, "echo", "http|POST|/echo/{id}/{*rest}", ECHO, &json!({"limits": {"body": "1KiB"}}));
    let refused = |headers: &[(&str, &str)], body: &[u8]| send(&platform, "POST", "/echo/1/2", headers, body);
    let broken = refused(&[("content-type", "application/json")], b"{\"a\":");
    assert_eq!((broken.status().as_u16(), &json_of(&broken)["code"]), (400, &json!("invalid_body")));
    let deadline = refused(&[("grpc-timeout", "123456789S")], b"");
    assert_eq!((deadline.status().as_u16(), &json_of(&deadline)["code"]), (400, &json!("invalid_deadline")));
    let large = refused(&[], &[b'x'; 2000]);
    let problem = json_of(&large);
    assert_eq!((large.status().as_u16(), &problem["limit_bytes"]), (413, &json!(1024)));
    assert_eq!(header(&large, "content-type"), "application/problem+json");
    let recorded = platform.api("/invocations?outcome=too_large");
    assert_eq!(recorded["items"][0]["id"], problem["invocation_id"]);
    let bad_path = send(&platform, "POST", "/echo/%ff/2", &[], b"");
    assert_eq!((bad_path.status().as_u16(), &json_of(&bad_path)["code"]), (400, &json!("invalid_path")));
    let other_verb = send(&platform, "PUT", "/echo/1/2", &[], b"");
    assert_eq!((other_verb.status().as_u16(), header(&other_verb, "allow")), (405, "POST"));
    assert!(header(&other_verb, "server-timing").starts_with("route;dur="));
    let nowhere = send(&platform, "POST", "/nowhere", &[("x-correlation-id", "mine")], b"");
    assert_eq!((nowhere.status().as_u16(), header(&nowhere, "x-correlation-id")), (404, "mine"));
}

#[test]
fn an_answer_over_the_limit_names_the_limit() {
    let platform = up().start();
    let code = "def handler(message, context):\n    return 'x' * 2000\n";
    deploy(&platform, "large", "http|GET|/large", code, &json!({"limits": {"response": "1KiB"}}));
    let answer = send(&platform, "GET", "/large", &[], b"");
    let problem = json_of(&answer);
    assert_eq!((answer.status().as_u16(), &problem["code"]), (502, &json!("too_large")), "{problem}");
    assert_eq!(problem["limit_bytes"], 1024, "{problem}");
}

const ANSWERS: &str = r#"
import asyncio, time

def handler(message, context):
    return CASES[message["query"]["case"]](context)

async def coroutine():
    await asyncio.sleep(0)
    return {"async": True}

def stream():
    yield "a"
    yield b"b"
    yield {"c": 1}

def breaks_off():
    yield "begun"
    raise ValueError("in the middle")

CASES = {
    "dict": lambda c: {"result": 4, "status": "noice"},
    "list": lambda c: [1, None, True],
    "number": lambda c: 1.5,
    "text": lambda c: "süß",
    "bytes": lambda c: b"\x00\xff",
    "none": lambda c: None,
    "async": lambda c: coroutine(),
    "envelope": lambda c: {"status_code": 201, "headers": {"X-Mine": "yes", "content-length": "999"}, "body": {"a": 1}},
    "camel": lambda c: {"statusCode": 202, "body": "aGk=", "isBase64Encoded": True},
    "cookies": lambda c: {"status_code": 200, "cookies": ["a=1", "b=2"], "body": ""},
    "not_envelope": lambda c: {"status_code": 200, "other": 1},
    "own_500": lambda c: {"status_code": 503, "body": "mine"},
    "stream": lambda c: stream(),
    "breaks_off": lambda c: breaks_off(),
    "nan": lambda c: {"a": [1, float("nan")]},
    "raise": lambda c: 1 / 0,
}
"#;

#[test]
fn return_values_become_answers() {
    let platform = up().start();
    deploy(&platform, "answers", "http|GET|/answers", ANSWERS, &json!({}));
    let get = |case: &str| platform.get(&format!("/answers?case={case}"));
    for (case, status, content_type, body) in [
        ("dict", 200, "application/json", &b"{\"result\": 4, \"status\": \"noice\"}"[..]),
        ("list", 200, "application/json", b"[1, null, true]"),
        ("number", 200, "application/json", b"1.5"),
        ("text", 200, "text/plain; charset=utf-8", "süß".as_bytes()),
        ("bytes", 200, "application/octet-stream", b"\x00\xff"),
        ("none", 204, "", b""),
        ("async", 200, "application/json", b"{\"async\": true}"),
        ("envelope", 201, "application/json", b"{\"a\": 1}"),
        ("camel", 202, "application/octet-stream", b"hi"),
        ("not_envelope", 200, "application/json", b"{\"status_code\": 200, \"other\": 1}"),
        ("own_500", 503, "text/plain; charset=utf-8", b"mine"),
    ] {
        let answer = get(case);
        let seen = (answer.status().as_u16(), header(&answer, "content-type"), answer.body().as_ref());
        assert_eq!(seen, (status, content_type, body), "{case}");
    }
    assert_eq!(header(&get("envelope"), "x-mine"), "yes");
    let cookies = get("cookies");
    assert_eq!(cookies.headers().get_all("set-cookie").iter().count(), 2);
    let streamed = get("stream");
    assert!(streamed.body().starts_with(b"ab"), "{streamed:?}");
    let nan = json_of(&get("nan"));
    assert!(nan["detail"].as_str().expect("text").contains("result[\"a\"][1]"), "{nan}");
    let raised = get("raise");
    let problem = json_of(&raised);
    assert_eq!((raised.status().as_u16(), &problem["exception_type"]), (500, &json!("ZeroDivisionError")));
    assert_eq!((&problem["blame"], &problem["phase"]), (&json!("function"), &json!("run")));
    for name in ["x-serverless-instance-id", "x-correlation-id", "traceparent", "server-timing"] {
        assert!(raised.headers().contains_key(name), "{name}");
    }
}

/// The raw bytes of an answer, however it ends.
fn raw_get(platform: &Platform, path: &str) -> String {
    let mut stream = TcpStream::connect(platform.gateway).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    // An aborted connection may end in an error; what came before counts.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_stream_that_breaks_off_aborts_and_is_recorded() {
    let platform = up().start();
    deploy(&platform, "answers", "http|GET|/answers", ANSWERS, &json!({}));
    let answer = raw_get(&platform, "/answers?case=breaks_off");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("begun"), "{answer}");
    assert!(!answer.ends_with("0\r\n\r\n"), "the end must not look complete: {answer}");
    let recorded = platform.api("/invocations?function=answers&outcome=function_error");
    assert!(recorded["items"][0]["error"].as_str().expect("text").contains("in the middle"), "{recorded}");
}

#[test]
fn the_function_that_was_created_first_answers_and_all_run() {
    let platform = up().start();
    let one = "def handler(message, context):\n    print('one ran')\n    return 'one'\n";
    let two = "def handler(message, context):\n    print('two ran')\n    raise ValueError('two fails')\n";
    deploy(&platform, "zz-first", "http|GET|/shared", one, &json!({}));
    deploy(&platform, "aa-second", "http|GET|/shared", two, &json!({}));
    let answer = platform.get("/shared");
    assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (200, &b"one"[..]));
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let others = platform.api("/invocations?function=aa-second&outcome=function_error");
        if others["items"].as_array().is_some_and(|items| !items.is_empty()) {
            break;
        }
        assert!(Instant::now() < until, "the second function has no record");
        std::thread::yield_now();
    }
    let conflict = try_deploy(&platform, "other", "http|GET|/{any}", one, &json!({}));
    assert_eq!(conflict.status(), 200);
    let conflict = try_deploy(&platform, "another", "http|GET|/{name}", one, &json!({}));
    assert_eq!((conflict.status().as_u16(), &json_of(&conflict)["code"]), (409, &json!("event_conflict")));
}

const SLEEPER: &str = r#"
import socket, time

def handler(message, context):
    print("begun")
    try:
        if "tell" in message["query"]:
            socket.create_connection(("127.0.0.1", int(message["query"]["tell"]))).close()
        time.sleep(float(message["query"]["s"]))
        return "slept"
    finally:
        print("cleaned up")
"#;

/// Late calls of which at least one must have all its words in its logs.
const TRIES: usize = 5;

fn logs_of_a_late_call(platform: &Platform) -> String {
    let late = platform.get("/sleeper?s=30");
    let problem = json_of(&late);
    assert_eq!((late.status().as_u16(), &problem["code"]), (504, &json!("timeout")));
    let id = problem["invocation_id"].as_str().expect("an id");
    let logs = platform.api(&format!("/functions/instances/{id}/logs"));
    logs["logs"].as_str().expect("text").to_owned()
}

#[test]
fn deadlines_end_handlers_and_their_words_are_kept() {
    let platform = up().start();
    deploy(&platform, "sleeper", "http|GET|/sleeper", SLEEPER, &json!({"timeout": "400ms"}));
    // On a busy machine an answer may not wait for the handler's last words; most do.
    let logs: Vec<_> = (0..TRIES).map(|_| logs_of_a_late_call(&platform)).collect();
    let is_whole = |logs: &String| logs.starts_with("begun\ncleaned up\n") && logs.contains("time.sleep(");
    assert!(logs.iter().all(|logs| logs.starts_with("begun\n")), "{logs:#?}");
    assert!(logs.iter().any(is_whole), "{logs:#?}");
    let short = send(&platform, "GET", "/sleeper?s=30", &[("x-request-timeout", "150ms")], b"");
    assert_eq!((short.status().as_u16(), &json_of(&short)["reason"]), (504, &json!("expired_running")));
    assert_eq!(platform.get("/sleeper?s=0.01").status(), 200);
}

#[test]
fn a_caller_that_leaves_interrupts_its_handler() {
    let platform = up().start();
    deploy(&platform, "sleeper", "http|GET|/sleeper", SLEEPER, &json!({}));
    // The handler says by a connection that it has begun: before that, a cancelled call never runs.
    let begun = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let tell = begun.local_addr().expect("bound").port();
    let mut stream = TcpStream::connect(platform.gateway).expect("it listens");
    write!(stream, "GET /sleeper?s=30&tell={tell} HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    begun.accept().expect("the handler has begun");
    let one = |outcome: &str| {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let found = platform.api(&format!("/invocations?function=sleeper{outcome}"));
            if let Some(item) = found["items"].get(0) {
                return item.clone();
            }
            assert!(Instant::now() < until, "no record: {found}");
            std::thread::yield_now();
        }
    };
    assert_eq!(one("")["state"], "running");
    drop(stream);
    let record = one("&outcome=cancelled");
    assert_eq!((&record["status"], &record["blame"]), (&json!(499), &json!("caller")));
    let logs = platform.api(&format!("/functions/instances/{}/logs", record["id"].as_str().expect("an id")));
    assert_eq!(logs["logs"], "begun\ncleaned up\n");
}
