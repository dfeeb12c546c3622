//! A tenant beside the victim's that sends twenty times what the victim does, all the time.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use crate::platform::{Platform, call};
use crate::siege::Siege;

/// Its functions' code.
const CODE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/attacks/rival.py"));

/// What it does, how many callers do it at once, and how long each waits between two calls: the
/// victim's one caller sends some 170 calls a second, and the flood is twenty times that.
pub(crate) const KINDS: [Kind; 4] = [
    Kind { probe: "spin", callers: 20, pause: Duration::ZERO },
    Kind { probe: "slow", callers: 100, pause: Duration::ZERO },
    Kind { probe: "hoard", callers: 8, pause: Duration::from_millis(20) },
    Kind { probe: "nothing", callers: 8, pause: Duration::from_micros(2350) },
];

#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) probe: &'static str,
    callers: usize,
    pause: Duration,
}

/// Its callers, until it is dropped.
pub(crate) struct Rivals {
    over: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    callers: Vec<JoinHandle<()>>,
}

/// The tenant with its two functions: one that may do what it likes, one with a quota.
pub(crate) fn settle(siege: &Siege) {
    let platform = &siege.platform;
    send(platform, "default", "/tenants", &json!({ "name": "rival" }));
    for (name, settings) in [
        ("free", json!({ "timeout": "10s", "memory": "128MiB", "scaling": { "max": 30 } })),
        ("bound", json!({ "quota": { "rate": "10/s", "burst": 1 } })),
    ] {
        let event = format!("http|GET|/{name}/{{probe}}");
        let body =
            json!({"function_name": name, "event_type": event, "function_code": CODE, "settings": settings});
        send(platform, "rival", "/functions", &body);
    }
}

fn send(platform: &Platform, tenant: &str, path: &str, body: &Value) {
    let request = Request::post(path).header("content-type", "application/json").header("x-tenant", tenant);
    let answer = call(platform.api, request.body(Bytes::from(body.to_string())).expect("a request"));
    assert_eq!(answer.status(), 200, "{path}: {answer:?}");
}

impl Rivals {
    /// They begin.
    pub(crate) fn begin(siege: &Siege, kind: Kind) -> Self {
        let gateway = siege.platform.gateway;
        let function = if kind.probe == "nothing" { "bound" } else { "free" };
        let path = format!("/t/rival/{function}/{}", kind.probe);
        let (over, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let callers = (0..kind.callers).map(|_| {
            let (over, answers, path) = (over.clone(), answers.clone(), path.clone());
            thread::spawn(move || call_until(gateway, &path, kind.pause, &over, &answers))
        });
        let callers = callers.collect();
        Self { over, answers, callers }
    }

    /// Answers that they have got.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }
}

impl Drop for Rivals {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for caller in self.callers.drain(..) {
            caller.join().expect("a caller returns");
        }
    }
}

/// One connection, call after call, at most one in every `pause`. Plain sockets: what the callers
/// compute is not the platform's doing.
fn call_until(gateway: SocketAddr, path: &str, pause: Duration, over: &AtomicBool, answers: &AtomicU64) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {gateway}\r\n\r\n");
    let mut next = Instant::now();
    while !over.load(Ordering::Relaxed) {
        let stream = TcpStream::connect(gateway).expect("it listens");
        stream.set_nodelay(true).expect("set");
        let mut reader = BufReader::new(stream);
        while !over.load(Ordering::Relaxed) {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            next = next.max(Instant::now().checked_sub(pause).unwrap_or(next)) + pause;
            let sent = reader.get_mut().write_all(request.as_bytes()).is_ok();
            if !sent || take_answer(&mut reader).is_none() {
                break;
            }
            answers.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Reads over an answer; none when the connection is to be used no more.
fn take_answer(reader: &mut BufReader<TcpStream>) -> Option<()> {
    let (mut line, mut length, mut stays) = (String::new(), 0, true);
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let head = line.trim_end().to_ascii_lowercase();
        match head.split_once(": ") {
            Some(("content-length", text)) => length = text.parse().ok()?,
            Some(("connection", "close")) => stays = false,
            _ if head.is_empty() => break,
            _ => {}
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()?;
    stays.then_some(())
}
