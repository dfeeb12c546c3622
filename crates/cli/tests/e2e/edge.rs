//! The gateway's edge: what is no HTTP, HTTP/2, and callers that are slower than anybody needs to be.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;

use crate::contract::deploy;
use crate::platform::{Platform, up};

const ECHO: &str = "def handler(message, context):\n    return {'path': message['path']}\n";
const STREAM: &str = "def handler(message, context):\n    yield 'piece'\n";

/// The whole answer to bytes that may be no request.
pub(crate) fn raw(platform: &Platform, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(platform.gateway).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    // It may have been refused before it was sent in whole.
    let _ = stream.write_all(request);

    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn what_is_no_request_is_told_so() {
    let platform = up().start();
    deploy(&platform, "echo", "http|*|/echo", ECHO, &json!({}));
    let many: String = (0..110).map(|number| format!("x-{number}: 1\r\n")).collect();
    let cases = [
        ("too many headers", format!("GET /echo HTTP/1.1\r\nhost: a\r\n{many}\r\n"), "431"),
        (
            "a long header",
            format!("GET /echo HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(300_000)),
            "431",
        ),
        ("a long path", format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(70_000)), "414"),
        ("a space in the path", "GET /e cho HTTP/1.1\r\nhost: a\r\n\r\n".into(), "400"),
        ("another protocol", "\u{16}\u{3}\u{1} hello\r\n\r\n".into(), "400"),
        (
            "two lengths",
            "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd".into(),
            "400",
        ),
        (
            "a wrong chunk",
            "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc".into(),
            "400",
        ),
    ];
    for (what, request, status) in cases {
        let answer = raw(&platform, request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{what}: {answer:?}");
    }
    assert_eq!(platform.get("/echo").status(), 200);
}

/// One exchange over HTTP/2, without a look at HTTP/1 before.
fn http2(platform: &Platform, verb: &str, path: &str) -> Response<Bytes> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let uri = format!("http://{}{path}", platform.gateway);
    let request = Request::builder().method(verb).uri(uri).body(Empty::<Bytes>::new()).expect("a request");
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(platform.gateway).await.expect("it listens");
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.expect("it speaks HTTP/2");
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await.expect("an answer").into_parts();
        Response::from_parts(head, body.collect().await.expect("a whole body").to_bytes())
    })
}

#[test]
fn http2_answers_get_and_head() {
    let platform = up().start();
    deploy(&platform, "echo", "http|GET|/echo", ECHO, &json!({}));
    deploy(&platform, "stream", "http|GET|/stream", STREAM, &json!({}));
    let whole = http2(&platform, "GET", "/echo");
    assert_eq!(whole.body().as_ref(), b"{\"path\": \"/echo\"}");
    let head = http2(&platform, "HEAD", "/echo");
    assert_eq!((head.status().as_u16(), head.body().len()), (200, 0));
    assert_eq!(head.headers()["content-length"], whole.body().len().to_string());
    assert_eq!(http2(&platform, "GET", "/stream").body().as_ref(), b"piece");
    let head = http2(&platform, "HEAD", "/stream");
    assert_eq!((head.status().as_u16(), head.body().len()), (200, 0));
    assert_eq!(http2(&platform, "HEAD", "/nowhere").status(), 404);
}

#[test]
fn a_slow_upload_is_not_the_functions_time() {
    let platform = up().start();
    deploy(&platform, "echo", "http|POST|/echo", ECHO, &json!({"timeout": "300ms"}));
    let mut stream = TcpStream::connect(platform.gateway).expect("it listens");
    write!(stream, "POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 6\r\n\r\n")
        .expect("sent");
    for byte in b"slowly" {
        // The pace is what is tested: twice the function's timeout in all.
        std::thread::sleep(Duration::from_millis(100));
        stream.write_all(&[*byte]).expect("sent");
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// One that sends a byte now and then would hold its connection for ever.
#[test]
fn a_head_that_comes_drop_by_drop_is_cut_off() {
    let platform = up().start();
    let trickle = |begin: &str| {
        let mut stream = TcpStream::connect(platform.gateway).expect("it listens");
        stream.write_all(begin.as_bytes()).expect("it takes that");
        stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a limit");
        let begun = Instant::now();
        loop {
            let _ = stream.write_all(b"x");
            let mut answer = [0; 1024];
            match stream.read(&mut answer) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                // Closed, with or without a word about it.
                Ok(0) | Err(_) => return begun.elapsed(),
                Ok(_) => {}
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{begin:?} holds its connection");
        }
    };
    std::thread::scope(|threads| {
        for begin in ["G", "GET /hello HTTP/1.1\r\nHost: a\r\nX-", "PRI * HTTP/2.0\r\n"] {
            threads.spawn(move || trickle(begin));
        }
    });
}
