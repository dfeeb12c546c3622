//! The edge against callers that half-close, ask for heads only, send what is no request, or are
//! in the middle of one when the platform stops.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use crate::contract::deploy;
use crate::platform::{Platform, call, up};

const ECHO: &str = "def handler(message, context):\n    return {'body': message['body']}\n";
const SLEEPER: &str = "import time\ndef handler(message, context):\n    time.sleep(float(message['query'].get('s', '0')))\n    return 'slept'\n";
const ENDLESS: &str = "import time\ndef handler(message, context):\n    print('begun')\n    while True:\n        yield 'piece'\n        time.sleep(0.01)\n";

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream
}

/// Everything that comes until the other side closes.
fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The answer to a caller that says at once that it sends no more.
fn half_closed(platform: &Platform, request: &str) -> String {
    let mut stream = connect(platform.gateway);
    stream.write_all(request.as_bytes()).expect("sent");
    stream.shutdown(Shutdown::Write).expect("half a close");
    rest(stream)
}

/// The newest record of a function, once it has ended.
fn record(platform: &Platform, function: &str) -> Value {
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        let found = platform.api(&format!("/invocations?function={function}&limit=1"));
        if let Some(item) = found["items"].get(0).filter(|item| item["state"] == "done") {
            return item.clone();
        }
        assert!(Instant::now() < limit, "no record: {found}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_caller_that_only_ends_its_sending_is_answered() {
    let platform = up().start();
    deploy(&platform, "echo", "http|*|/echo", ECHO, &json!({}));
    deploy(&platform, "sleeper", "http|GET|/sleeper", SLEEPER, &json!({}));
    platform.get("/echo");
    let answer = half_closed(&platform, "GET /echo HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(answer.contains("HTTP/1.1 200 OK") && answer.ends_with("{\"body\": null}"), "{answer}");
    let posted = half_closed(
        &platform,
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi",
    );
    assert!(posted.ends_with("{\"body\": \"hi\"}"), "{posted}");
    // Longer than an end alone is waited on: the caller is asked whether it is still there.
    let slow = half_closed(&platform, "GET /sleeper?s=0.8 HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(slow.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"), "{slow}");
    assert!(slow.ends_with("slept"), "{slow}");
    assert_eq!(record(&platform, "sleeper")["outcome"], "ok");
    let both = "GET /echo HTTP/1.1\r\nhost: a\r\n\r\n".repeat(2);
    let answers = half_closed(&platform, &both);
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    let half = half_closed(&platform, "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhi");
    assert!(half.is_empty() || half.starts_with("HTTP/1.1 400"), "{half}");
}

#[test]
fn a_head_of_a_stream_is_a_whole_answer() {
    let platform = up().start();
    deploy(&platform, "endless", "http|GET|/endless", ENDLESS, &json!({}));
    let mut stream = connect(platform.gateway);
    write!(stream, "HEAD /endless HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("sent");
    let answer = rest(stream);
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("\r\n\r\n"), "{answer}");
    let record = record(&platform, "endless");
    assert_eq!((&record["outcome"], &record["status"]), (&json!("ok"), &json!(200)), "{record}");
}

#[test]
fn what_is_no_request_is_told_so_in_a_problem_document() {
    let platform = up().start();
    let many: String = (0..110).map(|number| format!("x-{number}: 1\r\n")).collect();
    let long = "a".repeat(70_000);
    let cases = [
        ("GET /a b HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 400, "bad_request"),
        (format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"), 414, "path_too_long"),
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), 431, "headers_too_large"),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -3\r\n\r\n".to_owned(), 400, "bad_request"),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd".to_owned(),
            400,
            "bad_request",
        ),
    ];
    for address in [platform.gateway, platform.api, platform.traces] {
        for (request, status, code) in &cases {
            let mut stream = connect(address);
            let _ = stream.write_all(request.as_bytes());
            let answer = rest(stream);
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{code}: {answer:?}"));
            let head = head.to_ascii_lowercase();
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
            for line in [
                "\r\ncontent-type: application/problem+json",
                "\r\nserver-timing: route;dur=",
                "\r\nx-correlation-id: ",
            ] {
                assert!(head.contains(line), "{line} in {head}");
            }
            assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
            let problem: Value = serde_json::from_str(body).expect("JSON");
            assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)));
            assert_eq!(problem["blame"], "caller");
        }
    }
    // After a sound request on the same connection, too.
    let mut stream = connect(platform.gateway);
    write!(stream, "GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\nGET /a b HTTP/1.1\r\n\r\n").expect("sent");
    let answer = rest(stream);
    assert!(answer.contains("HTTP/1.1 404") && answer.contains("HTTP/1.1 400"), "{answer}");
}

#[test]
fn who_has_no_call_does_not_hold_up_a_stop() {
    let mut platform = up().arg("--drain-limit").arg("20s").start();
    deploy(&platform, "echo", "http|*|/echo", ECHO, &json!({}));
    let begun = |address, request: &str| {
        let mut stream = connect(address);
        stream.write_all(request.as_bytes()).expect("sent");
        stream
    };
    let silent: Vec<_> = [platform.gateway, platform.api, platform.traces]
        .into_iter()
        .flat_map(|address| {
            ["", "GET / HT", "GET / HTTP/1.1\r\nhost: a\r\n"].map(|request| begun(address, request))
        })
        .collect();
    let host = platform.api;
    let uploads = [
        begun(platform.gateway, "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc"),
        begun(
            platform.api,
            &format!(
                "POST /functions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{}}"
            ),
        ),
    ];
    // What was sent before this answer has been looked at, or is about to be.
    assert_eq!(platform.get("/echo").status(), 200);
    let began = Instant::now();
    let status = platform.stop();
    assert!(status.success() && began.elapsed() < Duration::from_secs(8), "{status} {:?}", began.elapsed());
    assert!(!platform.stderr().contains("cut off"), "{}", platform.stderr());
    for stream in silent {
        assert_eq!(rest(stream), "");
    }
    for stream in uploads {
        let answer = rest(stream);
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("not_ready"), "{answer:?}");
    }
}

#[test]
fn a_parameter_that_a_route_does_not_have_is_refused() {
    let platform = up().start();
    deploy(&platform, "echo", "http|*|/echo", ECHO, &json!({}));
    platform.get("/echo");
    let id = record(&platform, "echo")["id"].as_str().expect("an id").to_owned();
    let send = |verb: &str, path: &str| {
        let request = Request::builder().method(verb).uri(path).header("content-type", "application/json");
        call(platform.api, request.body(Bytes::from_static(b"{}")).expect("a request"))
    };
    for (verb, path) in [
        ("GET", "/functions"),
        ("GET", "/functions/echo"),
        ("HEAD", "/functions/echo"),
        ("GET", "/workers"),
        ("GET", "/host"),
        ("GET", "/version"),
        ("GET", "/metrics"),
        ("GET", &format!("/invocations/{id}")),
        ("GET", "/invocations"),
        ("PUT", "/functions/echo"),
        ("DELETE", "/functions/echo"),
        ("POST", "/functions"),
        ("POST", "/functions/trigger"),
    ] {
        let answer = send(verb, &format!("{path}?x=1"));
        assert_eq!(answer.status(), 422, "{verb} {path}: {:?}", answer.body());
        if verb != "HEAD" {
            let problem: Value = serde_json::from_slice(answer.body()).expect("JSON");
            assert_eq!(problem["field"], "x", "{verb} {path}");
        }
    }
    for probe in ["/healthz?x=1", "/readyz?x=1"] {
        assert_eq!(send("GET", probe).status(), 200, "{probe}");
    }
    for body in ["[]", "null", "7"] {
        for path in ["/functions", "/functions/trigger"] {
            let request = Request::post(path).header("content-type", "application/json");
            let answer = call(platform.api, request.body(body.into()).expect("a request"));
            let problem: Value = serde_json::from_slice(answer.body()).expect("JSON");
            assert_eq!((answer.status().as_u16(), &problem["field"]), (422, &json!("body")), "{path} {body}");
        }
    }
}

#[test]
fn a_b3_decision_without_ids_is_heeded() {
    let platform = up().start();
    deploy(&platform, "echo", "http|*|/echo", ECHO, &json!({}));
    for (name, value, flags) in [("b3", "0", "-02"), ("x-b3-sampled", "0", "-02"), ("b3", "1", "-03")] {
        let request = Request::get("/echo").header(name, value).body(Bytes::new()).expect("a request");
        let answer = platform.call(request);
        let traceparent = answer.headers()["traceparent"].to_str().expect("text");
        assert!(traceparent.ends_with(flags), "{name}: {value} gave {traceparent}");
    }
}
