//! What each of the three networks reaches, and that those of their own are there in time.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use fp_core::settings::Network;
use fp_sandbox::{InnerListener, WorkerSpec};

use crate::stage::{PATIENCE, Stage, eventually, json, kill, parent_of};

/// Connects to ports of the loopback address, to an address out there, to a socket of its own.
const REACH: &str = "import socket
def attempt(address):
    try:
        socket.create_connection(address, timeout=5).close()
    except OSError as error:
        return error.errno
    return 0
def handler(message, context):
    own = socket.create_server(('127.0.0.1', 0))
    return {
        'host': attempt(('127.0.0.1', HOST)), 'gateway': attempt(('127.0.0.1', 5000)),
        'otlp': attempt(('127.0.0.1', 4318)), 'out': attempt(('192.0.2.1', 80)),
        'metadata': attempt(('169.254.169.254', 80)), 'own': attempt(own.getsockname()),
        'interfaces': [name for _, name in socket.if_nameindex()],
    }
";

const REFUSED: i64 = 111;
const UNREACHABLE: i64 = 101;

/// A function that tries to reach things, and a listener of the host that is one of them.
fn reaching(stage: &Stage, network: Network) -> (WorkerSpec, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let mut spec = stage.function("f", &REACH.replace("HOST", &port.to_string()));
    spec.network = network;
    (spec, listener)
}

#[tokio::test]
async fn a_network_of_none_has_a_loopback_of_its_own_and_nothing_else() {
    let stage = Stage::new().await;
    if stage.enforces("network = \"none\"") {
        let (mut spec, _listener) = reaching(&stage, Network::Full);
        let mut open = stage.sandbox.start_worker(&spec).await.expect("a worker");
        assert_eq!(json(&mut open, 1).await.0["host"], 0, "the host's network is there by default");
        spec.network = Network::None;
        let mut closed = stage.sandbox.start_worker(&spec).await.expect("a worker");
        let (seen, _) = json(&mut closed, 1).await;
        for what in ["host", "gateway", "otlp"] {
            assert_eq!(seen[what], REFUSED, "{what}: {seen}");
        }
        for what in ["out", "metadata"] {
            assert_eq!(seen[what], UNREACHABLE, "{what}: {seen}");
        }
        assert_eq!((&seen["own"], &seen["interfaces"]), (&0.into(), &serde_json::json!(["lo"])), "{seen}");
    }
    stage.close().await;
}

#[tokio::test]
async fn an_internal_network_reaches_the_gateway_and_the_receiver_of_spans_and_nothing_else() {
    let stage = Stage::new().await;
    if stage.enforces("network = \"internal\"") {
        let mut inner = stage.sandbox.inner_listeners().expect("not taken");
        let (spec, _listener) = reaching(&stage, Network::Internal);
        let mut worker = stage.sandbox.start_worker(&spec).await.expect("a worker");
        let listener = inner.recv().await.expect("the one of the worker");
        assert_eq!((&listener.function, listener.worker), (&spec.function, worker.id()));
        let (seen, _) = json(&mut worker, 1).await;
        assert_eq!(seen["host"], REFUSED, "{seen}");
        for what in ["out", "metadata"] {
            assert_eq!(seen[what], UNREACHABLE, "{what}: {seen}");
        }
        for what in ["gateway", "otlp", "own"] {
            assert_eq!(seen[what], 0, "{what}: {seen}");
        }
        let gone = listener.worker_gone();
        drop(worker);
        tokio::time::timeout(PATIENCE, gone).await.expect("its end is told");
    }
    assert!(
        stage
            .sandbox
            .inner_listeners()
            .is_none_or(|_| !stage.sandbox.host().enforces("network = \"internal\""))
    );
    stage.close().await;
}

/// A port of this host that somebody listens on.
fn port_of_the_host() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

/// Whether a process with the uid of a worker, but outside any sandbox, can connect.
fn connects_as_a_worker(port: u16) -> bool {
    use std::os::unix::process::CommandExt as _;
    let script = format!("</dev/tcp/127.0.0.1/{port}");
    let mut bash = std::process::Command::new("bash");
    bash.args(["-c", &script]).uid(1_900_059_999).stderr(std::process::Stdio::null());
    bash.status().expect("bash runs").success()
}

#[tokio::test]
async fn a_full_network_is_without_the_guarded_ports_and_metadata_while_the_platform_lives() {
    let (_guarded, port) = port_of_the_host();
    let stage = Stage::with(|config| config.guarded_ports = vec![port]).await;
    if stage.enforces("network = \"full\" without the platform's own ports") {
        let code = REACH.replace("HOST", &port.to_string());
        let mut worker = stage.worker(&code).await;
        let (seen, _) = json(&mut worker, 1).await;
        assert_eq!(seen["host"], REFUSED, "{seen}");
        assert!([101, 113, 13].contains(&seen["metadata"].as_i64().expect("an errno")), "{seen}");
        let (_other, open) = port_of_the_host();
        let mut worker = stage.worker(&REACH.replace("HOST", &open.to_string())).await;
        assert_eq!(json(&mut worker, 1).await.0["host"], 0, "other ports of the host stay");
        assert!(!connects_as_a_worker(port) && connects_as_a_worker(open));
        std::net::TcpStream::connect(("127.0.0.1", port)).expect("others are not kept out");
        // However the launcher ends, its rules go with it.
        let zygote = u32::try_from(stage.sandbox.zygotes()[0].pid).expect("a process id");
        kill(parent_of(zygote));
        eventually("a new launcher's fence", || {
            stage.sandbox.zygotes().iter().any(|z| z.pid != zygote as i32)
        })
        .await;
        assert!(!connects_as_a_worker(port), "it is raised again");
        stage.close().await;
        assert!(connects_as_a_worker(port), "it is gone with the platform");
        return;
    }
    stage.close().await;
}

/// Listens where the platform does, on other addresses, and on a port of its own.
const MIMIC: &str = "import socket
def listen(address, family=socket.AF_INET):
    try:
        listener = socket.create_server(address, family=family)
    except OSError:
        return None
    kept.append(listener)
    return listener.getsockname()[1]
kept = []
def handler(message, context):
    return {
        'v4': listen(('127.0.0.2', PORT)), 'v6': listen(('::1', PORT), socket.AF_INET6),
        'own': listen(('127.0.0.2', 0)),
    }
";

#[tokio::test]
async fn nobody_is_answered_by_a_worker_where_the_platform_serves() {
    let (_served, port) = port_of_the_host();
    let stage = Stage::with(|config| config.served_ports = vec![port]).await;
    if stage.enforces("network = \"full\" without the platform's own ports") {
        let mut worker = stage.worker(&MIMIC.replace("PORT", &port.to_string())).await;
        let (seen, _) = json(&mut worker, 1).await;
        let connects = |address: std::net::SocketAddr| {
            std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
        };
        let own = seen["own"].as_u64().expect("a port") as u16;
        assert!(connects(([127, 0, 0, 2], own).into()), "other ports are as they were");
        assert_eq!(seen["v4"], port, "it may listen, and nobody hears it");
        assert!(!connects(([127, 0, 0, 2], port).into()));
        assert!(!connects((std::net::Ipv6Addr::LOCALHOST, port).into()));
        assert!(connects(([127, 0, 0, 1], port).into()), "the platform is heard");
    }
    stage.close().await;
}

/// Answers one connection after the other with the name of its function.
fn answer_with_its_name(inner: InnerListener) {
    inner.listener.set_nonblocking(false).expect("a listener");
    std::thread::spawn(move || {
        for connection in inner.listener.incoming() {
            let mut connection = connection.expect("a connection");
            let mut asked = [0];
            connection.read_exact(&mut asked).expect("a byte");
            connection.write_all(inner.function.to_string().as_bytes()).expect("taken");
            if asked == *b"!" {
                return;
            }
        }
    });
}

#[tokio::test]
async fn a_connection_from_inside_says_whose_it_is_also_while_the_handler_loads() {
    let stage = Stage::new().await;
    if stage.enforces("network = \"internal\"") {
        let mut inner = stage.sandbox.inner_listeners().expect("not taken");
        let code = "import socket
def ask(what):
    with socket.create_connection(('127.0.0.1', 5000)) as gateway:
        gateway.sendall(what)
        return gateway.makefile().read()
WHO = ask(b'?')
def handler(message, context):
    return [WHO, ask(b'!')]
";
        let serving = tokio::spawn(async move {
            for _ in 0..2 {
                answer_with_its_name(inner.recv().await.expect("a listener"));
            }
        });
        for name in ["one", "two"] {
            let mut spec = stage.function(name, code);
            spec.network = Network::Internal;
            let mut worker = stage.sandbox.start_worker(&spec).await.expect("a worker");
            assert_eq!(json(&mut worker, 1).await.0, serde_json::json!([name, name]));
        }
        serving.await.expect("two listeners");
    }
    stage.close().await;
}

#[tokio::test]
async fn workers_with_networks_of_their_own_stand_ready_while_a_version_wants_them() {
    let stage = Stage::with(|config| config.blanks = 2).await;
    if stage.enforces("network = \"internal\"") {
        for network in [Network::None, Network::Internal] {
            let (spec, _listener) = reaching(&stage, network);
            let kept = stage.sandbox.template(&spec).expect("allowed").expect("a network of its own");
            let end = Instant::now() + PATIENCE;
            loop {
                assert!(Instant::now() < end, "no blank worker was claimed");
                let mut worker = stage.sandbox.start_worker(&spec).await.expect("a worker");
                if worker.was_blank() {
                    let (seen, _) = json(&mut worker, 1).await;
                    let gateway = if network == Network::None { REFUSED } else { 0 };
                    assert_eq!(
                        (&seen["host"], &seen["gateway"]),
                        (&REFUSED.into(), &gateway.into()),
                        "{seen}"
                    );
                    break;
                }
            }
            drop(kept);
            // They are ended with the last version that wants them.
            let zygote = stage.sandbox.zygotes()[0].pid;
            let own = host_network();
            eventually("an end of the blank workers", || {
                networks_below(zygote).iter().all(|network| *network == own)
            })
            .await;
        }
    }
    stage.close().await;
}

fn host_network() -> std::path::PathBuf {
    std::fs::read_link("/proc/self/ns/net").expect("our own network")
}

/// The networks of a zygote's children.
fn networks_below(zygote: i32) -> Vec<std::path::PathBuf> {
    let children = std::fs::read_to_string(format!("/proc/{zygote}/task/{zygote}/children"));
    let children = children.unwrap_or_default();
    // One that has just ended has none any more.
    children
        .split_whitespace()
        .filter_map(|pid| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok())
        .collect()
}
