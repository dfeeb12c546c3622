//! What each test stands on: a sandbox in a directory of its own, functions written into it,
//! and the check that nothing is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fp_core::VersionNumber;
use fp_core::record::LogLine;
use fp_core::settings::Handler;
use fp_sandbox::protocol::{CallHead, FailureHead};
use fp_sandbox::{Answer, Call, CallError, Sandbox, SandboxConfig, Worker, WorkerSpec};
use tempfile::TempDir;

/// The executable that becomes the launcher.
pub(crate) const EXECUTABLE: &str = env!("CARGO_BIN_EXE_fp-launcher");

/// Far beyond what anything here takes, for machines that do much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Where limits of calls do not matter.
pub(crate) const ROOMY: usize = 32 << 20;

/// A sandbox with nothing special about it.
pub(crate) fn config(run_dir: &Path) -> SandboxConfig {
    SandboxConfig {
        run_dir: run_dir.to_owned(),
        executable: EXECUTABLE.into(),
        python: None,
        blanks: 0,
        guarded_ports: Vec::new(),
        served_ports: Vec::new(),
        preload: Default::default(),
        isolation: Default::default(),
        worker_memory: None,
    }
}

/// What a handler that tries things begins with: the number of the error, 0 where it went well.
pub(crate) const TRYING: &str = "import ctypes, mmap, os, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def refused(call):
    try:
        call()
    except OSError as error:
        return error.errno
    return 0
def errno_of(result):
    return ctypes.get_errno() if result < 0 else 0
";

pub(crate) struct Stage {
    pub dir: TempDir,
    pub sandbox: Sandbox,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut SandboxConfig)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut config = config(&dir.path().join("run"));
        change(&mut config);
        let sandbox = Sandbox::start(config).await.expect("the sandbox starts");
        Self { dir, sandbox }
    }

    /// A function whose file is `code` and whose callable is `handler`.
    pub(crate) fn function(&self, name: &str, code: &str) -> WorkerSpec {
        let code_dir = self.dir.path().join(name);
        write_code(&code_dir, code);
        spec(name, code_dir)
    }

    pub(crate) async fn worker(&self, code: &str) -> Worker {
        self.sandbox.start_worker(&self.function("f", code)).await.expect("a worker")
    }

    /// Ends the sandbox and checks that nothing of it is left.
    pub(crate) async fn close(self) {
        let run_dir = self.dir.path().join("run");
        let groups = groups_of(&run_dir);
        self.sandbox.shutdown().await;
        check_nothing_left(&run_dir, &groups);
    }

    pub(crate) fn enforces(&self, mechanism: &str) -> bool {
        let enforced = self.sandbox.host().enforces(mechanism);
        if !enforced {
            skip("root", &format!("this host does not enforce the {mechanism}"));
        }
        enforced
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

/// For the uids of workers where no mounts show it to them.
pub(crate) fn make_readable(dir: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("readable");
}

pub(crate) fn write_code(code_dir: &Path, code: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(code_dir).expect("a directory for the code");
    fs::set_permissions(code_dir, fs::Permissions::from_mode(0o755)).expect("readable");
    fs::write(code_dir.join("handler.py"), code).expect("the code is written");
}

fn spec(name: &str, code_dir: PathBuf) -> WorkerSpec {
    WorkerSpec {
        tenant: "default".parse().expect("a name"),
        function: name.parse().expect("a name"),
        version: VersionNumber(1),
        code_dir,
        handler: Handler { file: "handler.py".into(), callable: "handler".into() },
        python: None,
        preload: Vec::new(),
        memory: 256 << 20,
        tasks: 64,
        cpu: 1.0,
        cpu_limit: None,
        network: fp_core::settings::Network::Full,
        env: [("LEVEL".to_owned(), "info".to_owned())].into(),
        path: Vec::new(),
        services: Default::default(),
        message_queue_uri: String::new(),
        log_limit: 1 << 20,
        response_limit: ROOMY as u64,
        concurrency: 1,
        start_limit: PATIENCE,
    }
}

/// The cgroups that the launcher recorded.
pub(crate) fn groups_of(run_dir: &Path) -> Vec<PathBuf> {
    let record = fs::read_to_string(run_dir.join("cgroups")).expect("the launcher records its cgroups");
    record.lines().map(PathBuf::from).collect()
}

pub(crate) fn check_nothing_left(run_dir: &Path, groups: &[PathBuf]) {
    assert!(!run_dir.exists(), "{} is left", run_dir.display());
    for group in groups {
        assert!(!group.exists(), "{} is left", group.display());
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("our mounts");
    assert!(!mounts.contains(&run_dir.display().to_string()), "a mount is left:\n{mounts}");
    let left = processes_with(&run_dir.display().to_string());
    assert!(left.is_empty(), "processes are left: {left:?}");
}

/// Processes whose command line names something (zygotes and workers name the run directory).
fn processes_with(text: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("proc").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let pids = names.filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    let own = std::process::id().to_string();
    let command = |pid: &String| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.filter(|pid| *pid != own).filter(|pid| command(pid).contains(text)).collect()
}

pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie is dead; whoever reaps it does.
    !stat.is_empty() && !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

pub(crate) fn parent_of(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let fields = stat.rsplit(") ").next().expect("a stat line");
    fields.split(' ').nth(1).expect("the parent").parse().expect("a number")
}

/// Until `condition` holds; panics with `what` when patience ends.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn head(remaining: Duration) -> CallHead<'static> {
    CallHead {
        verb: "POST",
        path: "/x",
        query: "a=1",
        headers: &[],
        path_params: &[],
        invocation_id: "00000000-0000-7000-8000-000000000000",
        correlation_id: "c",
        trace_id: "00000000000000000000000000000001",
        span_id: "0000000000000001",
        trace_state: "",
        remaining_ms: u64::try_from(remaining.as_millis()).expect("a short time"),
        trace_flags: 1,
        version: None,
        auth: None,
    }
}

pub(crate) fn call(serial: u64, body: impl Into<Bytes>) -> Call<'static> {
    let body = body.into();
    Call { serial, head: head(PATIENCE), body, secrets: None, log_limit: 1 << 20, response_limit: ROOMY }
}

/// The JSON that the handler returned, and its output.
pub(crate) async fn json(worker: &mut Worker, serial: u64) -> (serde_json::Value, String) {
    match worker.call(call(serial, "")).await.expect("an answer") {
        Answer::Whole(whole) => (serde_json::from_slice(&whole.body).expect("JSON"), text_of(&whole.logs)),
        other => panic!("not a whole answer: {other:?}"),
    }
}

/// What went wrong in the handler.
pub(crate) async fn failure(worker: &mut Worker, call: Call<'_>) -> (Box<FailureHead>, String) {
    match worker.call(call).await.expect("an answer") {
        Answer::Failed { failure, logs } => (failure, text_of(&logs)),
        other => panic!("not a failure: {other:?}"),
    }
}

/// How the call ended without an answer.
pub(crate) async fn call_error(worker: &mut Worker) -> CallError {
    match tokio::time::timeout(PATIENCE, worker.call(call(1, ""))).await.expect("an end") {
        Err(error) => error,
        Ok(answer) => panic!("an answer: {answer:?}"),
    }
}

pub(crate) fn text_of(logs: &[LogLine]) -> String {
    logs.iter().map(|line| &*line.text).collect()
}

/// `kill -9`, of a process that a test started.
pub(crate) fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it can be killed");
}
