//! `bench` against a server that stops answering for a while: the open loop must show it, the
//! closed loop hides it (with real sockets and a tenth of a tenth of the time; the exact
//! figures are tested in virtual time beside the schedule).

use std::convert::Infallible;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

const FREEZE_FROM: Duration = Duration::from_millis(800);
const FREEZE_TO: Duration = Duration::from_millis(1000);

/// A server that answers at once, except that what comes in the freeze, counted from the first
/// request, is answered at its end.
struct FreezingServer {
    address: std::net::SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl FreezingServer {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let first = Arc::new(OnceLock::new());
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let first = Arc::clone(&first);
                let service = service_fn(move |_| answer(*first.get_or_init(Instant::now)));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { address, _runtime: runtime }
    }
}

async fn answer(first: Instant) -> Result<Response<Full<Bytes>>, Infallible> {
    let now = first.elapsed();
    if now >= FREEZE_FROM && now < FREEZE_TO {
        tokio::time::sleep_until(first + FREEZE_TO).await;
    }
    Ok(Response::new(Full::new(Bytes::from_static(b"ok"))))
}

fn bench(server: &FreezingServer, arguments: &[&str]) -> serde_json::Value {
    let output = Command::new(env!("CARGO_BIN_EXE_functionsplatform"))
        .env_clear()
        .args(["bench", &format!("http://{}/", server.address), "--output", "json", "--duration", "2s"])
        .args(arguments)
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn the_open_loop_shows_the_freeze() {
    let report = bench(&FreezingServer::start(), &["--rate", "200"]);
    assert_eq!((&report["sent"], &report["valid"]), (&400.into(), &true.into()), "{report}");
    assert_eq!(report["by_status"]["200"], 400);
    let rate = report["rate_achieved"].as_f64().expect("a number");
    assert!((190.0..=200.0).contains(&rate), "{report}");
    // 40 of 400 fall into the freeze and wait 200, 195, … 5 ms: p99 is 180 ms on an idle machine.
    let p99 = report["latency_ms"]["p99"].as_f64().expect("a number");
    let max = report["latency_ms"]["max"].as_f64().expect("a number");
    assert!(p99 >= 150.0 && max >= 190.0, "{report}");
}

#[test]
fn the_closed_loop_hides_it() {
    let report = bench(&FreezingServer::start(), &["--closed", "--connections", "1"]);
    assert_eq!(report["mode"], "closed");
    assert!(report["sent"].as_u64().expect("a number") > 200, "{report}");
    assert!(report["latency_ms"]["p99"].as_f64().expect("a number") < 100.0, "{report}");
    assert!(report["latency_ms"]["max"].as_f64().expect("a number") >= 150.0, "{report}");
}

#[test]
fn a_load_that_cannot_be_sent_is_not_valid() {
    // No single connection makes 200,000 round trips a second.
    let report = bench(&FreezingServer::start(), &["--rate", "200000", "--connections", "1"]);
    assert_eq!(report["valid"], false, "{report}");
}
