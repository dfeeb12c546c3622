//! A platform under attack, and what its victim saw.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::platform::{Platform, skip, up};

/// Between two calls of the victim: 200 calls a second are enough to see a pause, and leave the
/// processors to the attackers.
pub(crate) const VICTIM_PAUSE: Duration = Duration::from_millis(5);

/// The victim is called at least so often, also by attacks that are over at once.
const CALLS: usize = 20;

/// No attack may take longer: every deadline in these tests is a few seconds, the rest is for a
/// busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// From the end of an attack until the kernel has taken everything down that it started.
const CLEAN_LIMIT: Duration = Duration::from_secs(10);

/// What the platform may have used at its worst, in KiB: its own 60 MiB in a debug build, answers
/// and bodies up to their limits, and far from what the attackers announce.
const PEAK_LIMIT: u64 = 400 << 10;

/// A hostile function: a file of `tests/attacks/` and its settings as in `function.toml`.
pub(crate) struct Attacker<'a> {
    pub(crate) file: &'a str,
    pub(crate) settings: &'a str,
}

/// What became of a call.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
    /// The body came to its end.
    pub(crate) whole: bool,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// A call with its record: what a user of the API learns of it.
#[derive(Debug)]
pub(crate) struct Attack {
    pub(crate) answer: Answer,
    pub(crate) record: Value,
}

impl Attack {
    /// The outcome by its word.
    pub(crate) fn outcome(&self) -> &str {
        self.record["outcome"].as_str().unwrap_or("none")
    }
}

/// A platform, its attackers and its victim.
pub(crate) struct Siege {
    pub(crate) platform: Platform,
    victim: Option<Victim>,
    functions: tempfile::TempDir,
}

impl Siege {
    /// Starts a platform with these attackers; the victim is called from here on.
    pub(crate) fn of(attackers: &[Attacker<'_>]) -> Self {
        let functions = tempfile::tempdir().expect("a directory");
        deploy(functions.path(), "victim.py", "", &["http|GET|/victim"]);
        for attacker in attackers {
            let event = format!("http|*|/{}/{{probe}}", name_of(attacker.file));
            deploy(functions.path(), attacker.file, attacker.settings, &[&event]);
        }
        let platform = up().arg(functions.path()).start();
        let victim = Some(Victim::of(platform.gateway));
        Self { platform, victim, functions }
    }

    /// Whether the host enforces a mechanism, by the name that `doctor` prints; else says so.
    pub(crate) fn enforces(&self, mechanism: &str) -> bool {
        let host = self.platform.api("/host");
        let entries = host["mechanisms"].as_array().expect("a list");
        let entry = entries.iter().find(|entry| entry["mechanism"] == mechanism);
        let enforced = entry.is_some_and(|entry| entry["enforced"] == true);
        if !enforced {
            skip("root", &format!("this host does not enforce {mechanism}: {entry:?}"));
        }
        enforced
    }

    /// Calls an attacker: `file/probe?query`.
    pub(crate) fn attack(&self, target: &str) -> Attack {
        self.attack_with(target, Bytes::new())
    }

    /// The same with a body. An attacker whom the breaker keeps out does what anybody can: it deploys
    /// its function again and goes on.
    pub(crate) fn attack_with(&self, target: &str, body: Bytes) -> Attack {
        loop {
            let request = Request::post(format!("/{target}")).body(body.clone()).expect("a request");
            let answer = exchange(self.platform.gateway, request, None);
            if is_kept_out(&answer) {
                self.deploy_again(target);
                continue;
            }
            let record = self.record_of(&answer);
            return Attack { answer, record };
        }
    }

    fn deploy_again(&self, target: &str) {
        let name = target.split('/').next().unwrap_or_default();
        let directory = self.functions.path().join(name);
        let deployed = self.platform.cli(&["deploy", directory.to_str().expect("UTF-8")]);
        assert!(deployed.status.success(), "{deployed:?}");
    }

    /// The call's record; the API has it before the answer is complete.
    pub(crate) fn record_of(&self, answer: &Answer) -> Value {
        let Some(id) = answer.headers.get("x-serverless-instance-id") else { return Value::Null };
        let path = format!("/invocations/{}", id.to_str().expect("text"));
        self.until("the call is over", || {
            let record = self.platform.api(&path);
            (record["outcome"].is_string()).then_some(record)
        })
    }

    /// Runs many attacks at once and returns them in their order.
    pub(crate) fn attack_all(&self, targets: &[&str]) -> Vec<Attack> {
        std::thread::scope(|scope| {
            let calls: Vec<_> = targets.iter().map(|target| scope.spawn(|| self.attack(target))).collect();
            calls.into_iter().map(|call| call.join().expect("an answer")).collect()
        })
    }

    /// Asserts outcomes by name: `(target, outcome)` each, all at once; `a|b` is either. A worker that was ended is
    /// gone, and the same function answers again.
    pub(crate) fn assert_outcomes(&self, expected: &[(&str, &str)]) {
        let targets: Vec<_> = expected.iter().map(|(target, _)| *target).collect();
        let attacks = self.attack_all(&targets);
        let mut wrong = Vec::new();
        for ((target, outcome), attack) in expected.iter().zip(&attacks) {
            println!("{target}: {} {}", attack.outcome(), attack.record["limit_hit"]);
            if !outcome.split('|').any(|one| one == attack.outcome()) {
                wrong.push(format!("{target} ended as {}, not {outcome}: {attack:?}", attack.outcome()));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        for attack in attacks.iter().filter(|attack| attack.outcome() != "ok") {
            self.assert_gone(attack);
        }
    }

    /// The worker of an attack that ended it takes no more calls and runs no more code.
    fn assert_gone(&self, attack: &Attack) {
        // A handler's own error leaves the worker in service.
        if attack.outcome() == "function_error" || attack.outcome() == "too_large" {
            return;
        }
        let worker = &attack.record["worker"];
        assert!(worker.is_string(), "{attack:?}");
        self.until("the attacker's worker is gone", || {
            let workers = self.platform.api("/workers");
            let workers = workers["items"].as_array().expect("a list");
            workers.iter().all(|other| other["id"] != *worker).then_some(())
        });
    }

    /// Asks again until there is something; fails by its name.
    pub(crate) fn until<T>(&self, what: &str, ask: impl FnMut() -> Option<T>) -> T {
        self.within(CLEAN_LIMIT, what, ask)
    }

    /// The same for what lasts as long as an attack may.
    pub(crate) fn until_the_end<T>(&self, what: &str, ask: impl FnMut() -> Option<T>) -> T {
        self.within(PATIENCE, what, ask)
    }

    fn within<T>(&self, limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + limit;
        loop {
            if let Some(found) = ask() {
                return found;
            }
            assert!(Instant::now() < end, "not within {limit:?}: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The victim's latencies since the last time this was asked.
    pub(crate) fn take_latencies(&self) -> Vec<Duration> {
        let victim = self.victim.as_ref().expect("the siege goes on");
        let mut seen = victim.seen.lock().expect("nobody panics with it");
        std::mem::take(&mut seen.latencies)
    }

    /// The most memory that the platform has used so far, in KiB.
    pub(crate) fn peak(&self) -> u64 {
        peak_memory(self.platform.pid())
    }

    /// The victim's longest call while something is done.
    pub(crate) fn longest_latency_during(&self, what: impl FnOnce()) -> Duration {
        self.take_latencies();
        what();
        self.take_latencies().into_iter().max().unwrap_or_default()
    }

    /// The attack is over: the victim has lost nothing and nothing of the attackers is left.
    /// The harness checks, when the platform stops, that nothing of itself is.
    pub(crate) fn end(mut self) {
        let victim = self.victim.take().expect("a siege ends once");
        let answers_again = exchange(
            self.platform.gateway,
            Request::get("/victim").body(Bytes::new()).expect("a request"),
            None,
        );
        assert_eq!(answers_again.status, 200, "{answers_again:?}");
        self.until("the victim is called again and again", || {
            let seen = victim.seen.lock().expect("nobody panics with it");
            (seen.latencies.len() >= CALLS || !seen.failures.is_empty()).then_some(())
        });
        let seen = victim.stop();
        let (p50, p99) = (percentile(&seen.latencies, 50), percentile(&seen.latencies, 99));
        println!("victim: {} calls, p50 {p50:?}, p99 {p99:?}", seen.latencies.len());
        assert!(
            seen.failures.is_empty(),
            "the victim lost {} calls: {:?}",
            seen.failures.len(),
            seen.failures[0]
        );
        let peak = self.peak();
        println!("platform: peak {} MiB", peak >> 10);
        assert!(peak < PEAK_LIMIT, "the platform used {peak} KiB");
        // Stopping shows the rest: processes, cgroups, mounts, files.
        assert!(self.platform.stop().success(), "{}", self.platform.stderr());
    }

    /// Sends an attack whose answer nobody waits for; it lasts as long as the connection.
    pub(crate) fn begin(&self, target: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.platform.gateway).expect("it listens");
        write!(stream, "GET /{target} HTTP/1.1\r\nHost: {}\r\n\r\n", self.platform.gateway).expect("sent");
        stream
    }

    /// Kills the platform in the middle of an attack; the harness checks what is left.
    pub(crate) fn kill(mut self) {
        let victim = self.victim.take().expect("a siege ends once");
        let seen = victim.stop();
        assert!(seen.failures.is_empty(), "{:?}", seen.failures);
        self.platform.kill();
    }

    /// What runs in workers besides themselves.
    pub(crate) fn strays(&self) -> Vec<String> {
        company(&self.platform.processes())
    }

    /// Asserts that workers have no company: whatever attackers started is gone with them.
    pub(crate) fn assert_nothing_left(&self) {
        let mut strays = self.strays();
        let limit = Instant::now() + CLEAN_LIMIT;
        while !strays.is_empty() {
            assert!(Instant::now() < limit, "left by an attack: {strays:#?}");
            std::thread::sleep(Duration::from_millis(20));
            strays = self.strays();
        }
    }
}

/// Processes in pid namespaces below ours that are not the first there: a worker is its first.
fn company(pids: &[u32]) -> Vec<String> {
    let mut found = Vec::new();
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let inner: Vec<_> = line("NSpid:").split_whitespace().collect();
        let dead = line("State:").trim_start().starts_with('Z');
        if inner.len() > 2 && inner.last() != Some(&"1") && !dead {
            found.push(format!("{pid}: {} {inner:?}", line("Name:").trim()));
        }
    }
    found
}

fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel says it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The directory of the attackers.
fn attackers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/attacks")
}

fn name_of(file: &str) -> String {
    file.trim_end_matches(".py").replace('_', "-")
}

/// Writes a function directory for a file of `tests/attacks/`.
/// Refused before its handler ran, because nearly all of its function's latest calls ended hard.
fn is_kept_out(answer: &Answer) -> bool {
    let problem = || serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
    answer.status == StatusCode::SERVICE_UNAVAILABLE && problem()["reason"] == "breaker_open"
}

fn deploy(root: &Path, file: &str, settings: &str, events: &[&str]) {
    let name = name_of(file);
    let dir = root.join(&name);
    fs::create_dir(&dir).expect("made");
    fs::copy(attackers().join(file), dir.join("handler.py")).expect("copied");
    let manifest = format!("name = {name:?}\nevents = {events:?}\n{settings}\n");
    fs::write(dir.join("function.toml"), manifest).expect("written");
}

/// One exchange, on a connection of its own, that may end in the middle. With `most` it leaves
/// after so many bytes of the body.
pub(crate) fn exchange(address: SocketAddr, mut request: Request<Bytes>, most: Option<usize>) -> Answer {
    let host = address.to_string().parse().expect("an address is a header value");
    request.headers_mut().entry(http::header::HOST).or_insert(host);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let talk = async {
        let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
        let io = TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(io).await.expect("it speaks HTTP");
        tokio::spawn(connection);
        let response = sender.send_request(request.map(Full::new)).await.expect("the head of an answer");
        let (head, mut incoming) = response.into_parts();
        let (mut body, mut whole) = (BytesMut::new(), true);
        while let Some(frame) = incoming.frame().await {
            let Ok(frame) = frame else {
                whole = false;
                break;
            };
            body.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
            if most.is_some_and(|most| body.len() >= most) {
                whole = false;
                break;
            }
        }
        Answer { status: head.status, headers: head.headers, body: body.freeze(), whole }
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, talk).await.expect("it ends in time") })
}

/// Somebody who has nothing to do with it.
struct Victim {
    stop: Arc<AtomicBool>,
    seen: Arc<std::sync::Mutex<Seen>>,
    caller: JoinHandle<()>,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    latencies: Vec<Duration>,
    failures: Vec<String>,
}

impl Victim {
    fn of(gateway: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::<std::sync::Mutex<Seen>>::default();
        let caller = {
            let (stop, seen) = (stop.clone(), seen.clone());
            std::thread::spawn(move || call_until_stopped(gateway, &stop, &seen))
        };
        Self { stop, seen, caller }
    }

    fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.caller.join().expect("the victim's caller returns");
        std::mem::take(&mut *self.seen.lock().expect("nobody panics with it"))
    }
}

fn call_until_stopped(gateway: SocketAddr, stop: &AtomicBool, seen: &std::sync::Mutex<Seen>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(gateway).await.expect("it listens");
        stream.set_nodelay(true).expect("set");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("it speaks HTTP");
        tokio::spawn(connection);
        while !stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let failure = call_once(&mut sender, gateway).await.err();
            note(seen, begun.elapsed(), failure);
            if sender.is_closed() {
                return;
            }
            tokio::time::sleep(VICTIM_PAUSE).await;
        }
    });
}

fn note(seen: &std::sync::Mutex<Seen>, latency: Duration, failure: Option<String>) {
    let mut seen = seen.lock().expect("nobody panics with it");
    seen.latencies.push(latency);
    seen.failures.extend(failure);
}

async fn call_once(
    sender: &mut hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    gateway: SocketAddr,
) -> Result<(), String> {
    let request = Request::get("/victim").header("host", gateway.to_string()).body(Full::default());
    let response = sender.send_request(request.expect("a request")).await.map_err(|e| e.to_string())?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
    let well = status == 200 && body.as_ref() == b"{\"victim\": \"well\"}";
    well.then_some(()).ok_or_else(|| format!("{status} {body:?}"))
}

/// Of unsorted latencies.
pub(crate) fn percentile(latencies: &[Duration], percent: usize) -> Duration {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}
