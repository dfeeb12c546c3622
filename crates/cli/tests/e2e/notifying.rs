//! Who is told of an outage, what, and that it is told also after a kill.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::contract::deploy;
use crate::platform::{Platform, up};

/// A request that came to the receiver.
#[derive(Debug, Clone)]
struct Received {
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// Takes requests, or answers 503 to them, and keeps them.
struct Receiver {
    address: SocketAddr,
    takes: Arc<AtomicBool>,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let (takes, received) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (told, kept) = (takes.clone(), received.clone());
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer =
                    if told.load(Ordering::SeqCst) { "204 No Content" } else { "503 Service Unavailable" };
                if let Some(request) = answered(stream, answer) {
                    kept.lock().expect("nobody panics").push(request);
                }
            }
        });
        Self { address, takes, received }
    }

    /// Waits for the first that is so; what came before it is looked at, too.
    fn wait(&self, what: &str, is_it: impl Fn(&Received) -> bool) -> Received {
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end {
            if let Some(found) = self.received.lock().expect("nobody panics").iter().find(|one| is_it(one)) {
                return found.clone();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{what}: {:?}", self.received.lock().expect("nobody panics"));
    }
}

fn answered(stream: TcpStream, status: &str) -> Option<Received> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    reader.get_mut().write_all(answer.as_bytes()).ok()?;
    Some(Received { path, headers, body })
}

fn firing(platform: &Platform) -> Vec<Value> {
    platform.api("/slo/alerts?state=firing")["items"].as_array().expect("a list").clone()
}

#[test]
fn an_outage_is_told_also_after_a_kill() {
    let receiver = Receiver::start();
    let dir = tempfile::tempdir().expect("a directory");
    let (data, config) = (dir.path().join("data"), dir.path().join("platform.toml"));
    let address = receiver.address;
    let written = format!(
        "[[notify]]\nname = \"hook\"\nwebhook = \"http://{address}/hook\"\nsecret = \"s3cret\"\n\
         [[notify]]\nname = \"am\"\nalertmanager = \"http://{address}/am\"\nseverities = [\"page\"]\n"
    );
    std::fs::write(&config, written).expect("written");
    let start = || up().arg("--config").arg(&config).data_dir(&data).start();

    let mut platform = start();
    let code = "from functionsplatform.sdk import tracing\n\
                def handler(message, context):\n\
                \x20   with tracing.start_span('db'):\n\
                \x20       raise ValueError('gone')\n";
    deploy(&platform, "quiet", "http|GET|/quiet", code, &json!({ "slo": { "availability": 99.9 } }));
    let silenced = platform.cli(&["slo", "silence", "quiet", "--for", "2h", "--reason", "it moves"]);
    assert!(silenced.status.success() && silenced.stdout.contains("nobody is told until"), "{silenced:?}");
    deploy(&platform, "shop", "http|GET|/shop", code, &json!({ "slo": { "availability": 99.9 } }));
    for _ in 0..30 {
        assert_eq!(platform.get("/quiet").status(), 500);
        assert_eq!(platform.get("/shop").status(), 500);
    }
    let refused = receiver.wait("a webhook", |one| one.path == "/hook");
    assert_eq!(refused.header("webhook-timestamp").len(), 10, "{refused:?}");
    let (before, quiet): (Vec<_>, Vec<_>) =
        firing(&platform).into_iter().partition(|alert| alert["silenced"] == false);
    assert!(!quiet.is_empty() && quiet.iter().all(|alert| alert["function"] == "quiet"), "{quiet:?}");
    assert!(!before.is_empty() && before.iter().all(|alert| alert["function"] == "shop"), "{before:?}");
    assert_eq!(before[0]["culprit"]["phase"], "run", "{}", before[0]);
    assert!(before[0]["calls"].as_array().is_some_and(|calls| calls.len() == 20), "{}", before[0]);
    let trace = before[0]["calls"][0]["trace_id"].as_str().expect("an id").to_owned();
    platform.kill();

    receiver.received.lock().expect("nobody panics").clear();
    receiver.takes.store(true, Ordering::SeqCst);
    let platform = start();
    let ids = |alerts: &[Value]| alerts.iter().map(|alert| alert["id"].clone()).collect::<Vec<_>>();
    let loud: Vec<_> = firing(&platform).into_iter().filter(|alert| alert["silenced"] == false).collect();
    assert_eq!(ids(&loud), ids(&before));
    let id = refused.header("webhook-id").to_owned();
    let told = receiver.wait("the same once more", |one| one.header("webhook-id") == id);
    let document = told.json();
    assert_eq!((&document["type"], &document["tenant"]), (&json!("slo.alert.began"), &json!("default")));
    assert_eq!(document["alert"]["calls"][0]["trace_id"].as_str().map(str::len), Some(trace.len()));
    assert!(document["url"].as_str().is_some_and(|url| url.ends_with("/ui/functions/shop")), "{document}");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"s3cret");
    let signed = [format!("{id}.{}.", told.header("webhook-timestamp")).as_bytes(), &told.body].concat();
    let signature =
        STANDARD.decode(told.header("webhook-signature").trim_start_matches("v1,")).expect("Base64");
    ring::hmac::verify(&key, &signed, &signature).expect("signed");

    let shown = receiver.wait("what fires", |one| one.path == "/am/api/v2/alerts").json();
    let labels = &shown[0]["labels"];
    assert_eq!((&labels["alertname"], &labels["severity"]), (&json!("ErrorBudgetBurn"), &json!("page")));
    assert_eq!((&labels["function"], &labels["objective"]), (&json!("shop"), &json!("availability")));
    assert!(shown[0]["endsAt"].as_str() > shown[0]["startsAt"].as_str(), "{shown}");
    assert!(
        shown.as_array().is_some_and(|all| all.iter().all(|alert| alert["labels"]["severity"] == "page")),
        "{shown}"
    );
    // Nobody heard of what is silent, until it is not.
    let is_quiet = |one: &Received| String::from_utf8_lossy(&one.body).contains("quiet");
    assert!(!receiver.received.lock().expect("nobody panics").iter().any(is_quiet));
    let silences = platform.api("/slo/silences");
    let id = silences["items"][0]["id"].as_str().expect("an id");
    assert_eq!(silences["items"][0]["reason"], "it moves");
    let ended = platform.cli(&["slo", "silence", "--end", id]);
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(platform.cli(&["slo", "silence", "--end", id]).status.code(), Some(3));
    assert_eq!(platform.cli(&["slo", "silence", "nobody", "--for", "1h"]).status.code(), Some(3));
    assert_eq!(platform.cli(&["slo", "silence", "shop", "--for", "soon"]).status.code(), Some(4));
    receiver.wait("what was silent", is_quiet);
    let metrics = String::from_utf8(
        crate::platform::call(
            platform.api,
            http::Request::get("/metrics").body(bytes::Bytes::new()).expect("a request"),
        )
        .into_body()
        .to_vec(),
    )
    .expect("text");
    assert!(
        metrics.contains(r#"functionsplatform_notifications_total{to="hook",result="sent"}"#),
        "{metrics}"
    );
}
