//! A real platform for end-to-end tests: the binary with `up` on free ports and a data
//! directory of its own.
//!
//! Include it with `#[path = "../harness/platform.rs"] mod platform;`. When a [`Platform`] is
//! dropped it is stopped, and the test fails if anything is left: a process, a cgroup, a mount
//! or a file in the run directory.

#![allow(dead_code, clippy::allow_attributes, reason = "each test binary uses a part of the harness")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// A start includes finding Pythons and deploying examples; on a busy two-core machine in a
/// debug build that has been seen to take some seconds.
const START_LIMIT: Duration = Duration::from_secs(60);

/// More than the drain limit, less than anybody's patience.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// After a kill everything is gone within a second by contract; the rest is for a busy machine.
const CLEAN_LIMIT: Duration = Duration::from_secs(5);

/// How a platform is started.
pub(crate) struct Builder {
    command: Command,
    data_dir: Option<PathBuf>,
    stderr: Option<Stdio>,
}

/// A pipe that nobody reads.
pub(crate) struct Unread {
    _reader: std::io::PipeReader,
    writer: std::io::PipeWriter,
}

impl Unread {
    pub(crate) fn new() -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        Self { _reader: reader, writer }
    }

    /// The end that a process writes to.
    pub(crate) fn writer(&self) -> Stdio {
        self.writer.try_clone().expect("a descriptor").into()
    }

    /// Writes until there is no room for a single byte more.
    pub(crate) fn fill(&self) {
        use std::os::fd::AsRawFd as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        // Opened anew, because non-blocking belongs to the opening, which the platform shares.
        let mut options = fs::OpenOptions::new();
        options.write(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
        let path = format!("/proc/self/fd/{}", self.writer.as_raw_fd());
        let mut writer = options.open(path).expect("a pipe can be opened by its descriptor");
        for size in [4096, 1] {
            while std::io::Write::write(&mut writer, &vec![b'.'; size]).is_ok() {}
        }
    }
}

/// A running platform.
pub(crate) struct Platform {
    /// `127.0.0.1:…` of the gateway.
    pub(crate) gateway: SocketAddr,
    /// Of the management API.
    pub(crate) api: SocketAddr,
    /// Of the trace pages.
    pub(crate) traces: SocketAddr,
    pub(crate) otlp: SocketAddr,
    first_key: Option<String>,
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    data_dir: PathBuf,
    ended: Option<ExitStatus>,
    _own_data_dir: Option<tempfile::TempDir>,
}

/// What a process has printed and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The binary with a clean environment: PATH only, to find python3. Another build of it than the
/// tests' own where `FUNCTIONSPLATFORM_TESTS_BINARY` names one.
pub(crate) fn program() -> Command {
    let own = || env!("CARGO_BIN_EXE_functionsplatform").into();
    let mut command = Command::new(std::env::var_os("FUNCTIONSPLATFORM_TESTS_BINARY").unwrap_or_else(own));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// `up` on free ports.
pub(crate) fn up() -> Builder {
    up_with_management_at("127.0.0.1:0")
}

/// As [`up`], with API and traces at another address.
pub(crate) fn up_with_management_at(address: &str) -> Builder {
    let mut command = program();
    command.args(["up", "--gateway-addr", "127.0.0.1:0", "--api-addr", address]);
    command.args(["--traces-addr", address, "--otlp-addr", address, "--output", "json"]);
    Builder { command, data_dir: None, stderr: None }
}

/// The directory of the repository's examples.
pub(crate) fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples")
        .canonicalize()
        .expect("the examples are there")
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn run(command: &mut Command) -> Ran {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    Ran {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Says why a test is left out, which in CI is a failure, unless it is for want of the one thing
/// that this run is known to lack: `FUNCTIONSPLATFORM_TESTS_MAY_SKIP` names it.
pub(crate) fn skip(needs: &str, why: &str) {
    println!("skipped: {why}");
    let is_known = std::env::var("FUNCTIONSPLATFORM_TESTS_MAY_SKIP").is_ok_and(|known| known == needs);
    let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!is_ci || is_known, "in CI no test is left out for want of {needs:?}: {why}");
}

impl Builder {
    /// Starts it as a script's `trap '' INT; functionsplatform … &` would. To be called first.
    pub(crate) fn through_a_shell_that_ignores(mut self, signal: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        shell.args(["-c", &format!("trap '' {signal}; exec \"$0\" \"$@\"")]);
        shell.arg(self.command.get_program()).args(self.command.get_args());
        self.command = shell;
        self
    }

    /// Starts it with no signal ignored, whatever the tests were started by: under `nohup` they inherit an
    /// ignored hangup, which the platform respects. To be called first.
    pub(crate) fn with_signals_as_usual(mut self) -> Self {
        let mut env = Command::new("env");
        env.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        env.arg("--default-signal").arg(self.command.get_program()).args(self.command.get_args());
        self.command = env;
        self
    }

    /// Further arguments: directories and flags.
    pub(crate) fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Several of them.
    pub(crate) fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// Its stderr is a pipe that nobody reads; what comes back fills it up.
    pub(crate) fn stderr_that_nobody_reads(mut self) -> (Self, Unread) {
        let unread = Unread::new();
        self.stderr = Some(unread.writer());
        (self, unread)
    }

    /// An environment variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// A data directory that outlives the platform; otherwise it gets one of its own.
    pub(crate) fn data_dir(mut self, dir: &Path) -> Self {
        self.data_dir = Some(dir.to_owned());
        self
    }

    /// Starts it, in a process group of its own, and waits until everything is deployed.
    pub(crate) fn start(mut self) -> Platform {
        let own = self.data_dir.is_none().then(|| tempfile::tempdir().expect("a data directory"));
        let data_dir = self.data_dir.unwrap_or_else(|| own.as_ref().expect("made above").path().to_owned());
        std::os::unix::process::CommandExt::process_group(&mut self.command, 0);
        self.command.arg("--data-dir").arg(&data_dir);
        self.command.stdin(Stdio::null()).stdout(Stdio::piped());
        self.command.stderr(self.stderr.unwrap_or_else(Stdio::piped));
        let mut child = self.command.spawn().expect("the program starts");
        // It holds a copy of what stderr is.
        drop(self.command);
        let (said, first_line) = mpsc::channel();
        let stdout = collect(child.stdout.take().expect("piped"), Some(said));
        let stderr = child.stderr.take().map(|stderr| collect(stderr, None)).unwrap_or_default();
        let line = match first_line.recv_timeout(START_LIMIT) {
            Ok(line) => line,
            Err(why) => {
                if why == RecvTimeoutError::Timeout {
                    child.kill().expect("killed");
                }
                let status = child.wait().expect("waited for");
                panic!("the platform did not start ({status}): {}", text(&stderr));
            }
        };
        let places: Value = serde_json::from_str(&line).expect("up says where things are");
        let address = |name: &str| {
            let url = places[name].as_str().expect(name);
            url.split_once("://").expect("a URL").1.parse().expect("an address")
        };
        Platform {
            gateway: address("gateway"),
            api: address("api"),
            traces: address("traces"),
            otlp: address("otlp"),
            first_key: places["key"].as_str().map(str::to_owned),
            child,
            stdout,
            stderr,
            data_dir,
            ended: None,
            _own_data_dir: own,
        }
    }
}

impl Platform {
    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process id of its launcher.
    pub(crate) fn launcher(&self) -> u32 {
        let is_launcher = |pid: &u32| {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.split('\0').nth(1) == Some("__launcher")
        };
        let below = descendants(self.pid());
        below.into_iter().map(|(pid, _)| pid).find(is_launcher).expect("a platform has a launcher")
    }

    /// Every process below it.
    pub(crate) fn processes(&self) -> Vec<u32> {
        descendants(self.pid()).into_iter().map(|(pid, _)| pid).collect()
    }

    /// Its groups in the hierarchies of cgroups.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        cgroups_in(&self.data_dir)
    }

    /// The operator's first key, if it was made at this start.
    pub(crate) fn first_key(&self) -> Option<String> {
        self.first_key.clone()
    }

    /// What it has said on stderr so far.
    pub(crate) fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Where it keeps its data.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// GET of a path at the gateway.
    pub(crate) fn get(&self, path: &str) -> Response<Bytes> {
        call(self.gateway, Request::get(path).body(Bytes::new()).expect("a request"))
    }

    /// A call at the gateway.
    pub(crate) fn call(&self, request: Request<Bytes>) -> Response<Bytes> {
        call(self.gateway, request)
    }

    /// GET of a path of the management API, as JSON.
    pub(crate) fn api(&self, path: &str) -> Value {
        let response = call(self.api, Request::get(path).body(Bytes::new()).expect("a request"));
        assert!(response.status().is_success(), "{path}: {} {:?}", response.status(), response.body());
        serde_json::from_slice(response.body()).expect("JSON")
    }

    /// Runs a verb of the command line against this platform.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Ran {
        run(program().env("FUNCTIONSPLATFORM_URI", format!("http://{}", self.api)).args(arguments))
    }

    /// Sends a signal to the platform alone.
    pub(crate) fn signal(&self, name: &str) {
        signal(name, &self.pid().to_string());
    }

    /// Sends a signal to its whole process group, as a terminal does.
    pub(crate) fn signal_group(&self, name: &str) {
        signal(name, &format!("-{}", self.pid()));
    }

    /// Waits for its end and checks that nothing is left.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let left = Leftovers::of(self.pid(), &self.data_dir);
        let status = self.wait_only();
        left.check();
        status
    }

    /// As [`wait`](Self::wait) for an end without cleaning up: directories may stay.
    pub(crate) fn wait_after_kill(&mut self) -> ExitStatus {
        let left = Leftovers { files_may_stay: true, ..Leftovers::of(self.pid(), &self.data_dir) };
        let status = self.wait_only();
        left.check();
        status
    }

    /// SIGTERM, then [`wait`](Self::wait).
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let left = Leftovers::of(self.pid(), &self.data_dir);
        self.signal("TERM");
        let status = self.wait_only();
        left.check();
        status
    }

    /// SIGKILL; everything else must end by itself.
    pub(crate) fn kill(&mut self) {
        let left = Leftovers { files_may_stay: true, ..Leftovers::of(self.pid(), &self.data_dir) };
        self.signal("KILL");
        self.wait_only();
        left.check();
    }

    fn wait_only(&mut self) -> ExitStatus {
        let limit = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                self.ended = Some(status);
                return status;
            }
            if Instant::now() > limit {
                self.child.kill().expect("killed");
                self.ended = Some(self.child.wait().expect("our child"));
                panic!("the platform did not stop within {STOP_LIMIT:?}: {}", self.stderr());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if self.ended.is_some() {
            return;
        }
        if std::thread::panicking() {
            // The test has failed already; its message is what counts.
            eprintln!("stderr of the platform: {}", self.stderr());
            let _ = self.child.kill();
            let _ = self.child.wait();
            return;
        }
        let status = self.stop();
        assert!(status.success(), "the platform ended with {status}: {}", self.stderr());
    }
}

/// One exchange with a server, on a connection of its own.
pub(crate) fn call(address: SocketAddr, mut request: Request<Bytes>) -> Response<Bytes> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let host = address.to_string().parse().expect("an address is a header value");
    request.headers_mut().entry(http::header::HOST).or_insert(host);
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
        let io = TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(io).await.expect("it speaks HTTP");
        tokio::spawn(connection);
        let response = sender.send_request(request.map(Full::new)).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Response::from_parts(head, body)
    })
}

/// Everything that belongs to a running platform and must not outlive it.
struct Leftovers {
    /// Process id and start time, so that a reused id is not taken for an old process.
    processes: Vec<(u32, String)>,
    cgroups: Vec<PathBuf>,
    data_dir: PathBuf,
    files_may_stay: bool,
}

impl Leftovers {
    fn of(pid: u32, data_dir: &Path) -> Self {
        Self {
            processes: descendants(pid),
            cgroups: cgroups_in(data_dir),
            data_dir: data_dir.to_owned(),
            files_may_stay: false,
        }
    }

    fn check(&self) {
        let limit = Instant::now() + CLEAN_LIMIT;
        let mut found = self.found();
        while !found.is_empty() && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(10));
            found = self.found();
        }
        assert!(found.is_empty(), "the platform left something behind: {found:#?}");
    }

    fn found(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (pid, started) in &self.processes {
            if stat(*pid).is_some_and(|stat| stat.started == *started && stat.state != "Z") {
                let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                found.push(format!("process {pid}: {}", command.replace('\0', " ")));
            }
        }
        // A killed platform's directories are swept at the next start.
        if !self.files_may_stay {
            found.extend(
                self.cgroups.iter().filter(|dir| dir.exists()).map(|dir| format!("cgroup {}", dir.display())),
            );
            let run_dir = fs::read_dir(self.data_dir.join("run")).into_iter().flatten().flatten();
            found.extend(run_dir.map(|entry| format!("file {}", entry.path().display())));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let ours = self.data_dir.display().to_string();
        found.extend(mounts.lines().filter(|line| line.contains(&ours)).map(|line| format!("mount {line}")));
        found
    }
}

/// The processes below `pid`, without itself.
fn descendants(pid: u32) -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let all: Vec<_> = entries.filter_map(|entry| stat(entry.file_name().to_str()?.parse().ok()?)).collect();
    let mut below: BTreeSet<u32> = BTreeSet::from([pid]);
    let mut size = 0;
    while size < below.len() {
        size = below.len();
        below.extend(
            all.iter().filter(|stat| below.contains(&stat.parent)).map(|stat| stat.pid).collect::<Vec<_>>(),
        );
    }
    all.into_iter()
        .filter(|stat| stat.pid != pid && below.contains(&stat.pid))
        .map(|s| (s.pid, s.started))
        .collect()
}

struct Stat {
    pid: u32,
    state: String,
    parent: u32,
    started: String,
}

/// `/proc/PID/stat`: the fields after the name, which may hold anything.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<_> = text[text.rfind(')')? + 2..].split(' ').collect();
    Some(Stat {
        pid,
        state: (*fields.first()?).to_owned(),
        parent: fields.get(1)?.parse().ok()?,
        started: (*fields.get(19)?).to_owned(),
    })
}

/// The launcher records its groups in the run directory.
fn cgroups_in(data_dir: &Path) -> Vec<PathBuf> {
    let record = fs::read_to_string(data_dir.join("run/cgroups")).unwrap_or_default();
    record.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// Keeps what a stream says; sends its first line on.
fn collect(
    stream: impl Read + Send + 'static,
    mut first: Option<mpsc::Sender<String>>,
) -> Arc<Mutex<String>> {
    let kept = Arc::new(Mutex::new(String::new()));
    let keeper = Arc::clone(&kept);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some(first) = first.take() {
                let _ = first.send(line.clone());
            }
            let mut kept = keeper.lock().expect("nobody panics with it");
            kept.push_str(&line);
            kept.push('\n');
        }
    });
    kept
}

fn text(kept: &Arc<Mutex<String>>) -> String {
    kept.lock().expect("nobody panics with it").clone()
}

fn signal(name: &str, target: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), "--", target]).status().expect("kill runs");
    assert!(sent.success(), "kill -{name} {target}");
}
