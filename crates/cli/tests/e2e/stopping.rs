//! Ends: signals drain and exit 0, a kill leaves nothing running, functions come back.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::platform::{Platform, Unread, program, up};

/// A function that sleeps for as long as its path says.
fn sleeper(dir: &Path) {
    std::fs::write(
        dir.join("function.toml"),
        "name = \"sleeper\"\nevents = [\"http|GET|/sleep/{seconds}\"]\n[scaling]\nmin = 1\n",
    )
    .expect("written");
    std::fs::write(
        dir.join("handler.py"),
        "import time\ndef handler(message, context):\n    time.sleep(float(message['path_params']['seconds']))\n    return 'slept'\n",
    )
    .expect("written");
}

fn with_sleeper() -> (Platform, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    sleeper(dir.path());
    (up().arg(dir.path()).start(), dir)
}

/// Sends a call without waiting for its answer, and returns once it runs.
fn begin_call(platform: &Platform, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(platform.gateway).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let limit = Instant::now() + Duration::from_secs(10);
    let busy = || {
        let workers = platform.api("/workers");
        workers["items"].as_array().expect("a list").iter().any(|worker| worker["state"] == "busy")
    };
    while !busy() {
        assert!(Instant::now() < limit, "the call never ran: {}", platform.api("/workers"));
        std::thread::sleep(Duration::from_millis(10));
    }
    stream
}

fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let _ = stream.read_to_string(&mut text);
    text
}

#[test]
fn every_signal_drains_and_ends_with_zero() {
    for signal in ["TERM", "INT", "HUP"] {
        let dir = tempfile::tempdir().expect("a directory");
        sleeper(dir.path());
        let mut platform = up().with_signals_as_usual().arg(dir.path()).start();
        let call = begin_call(&platform, "/sleep/0.5");
        platform.signal(signal);
        let status = platform.wait();
        assert_eq!(status.code(), Some(0), "{signal}: {}", platform.stderr());
        assert!(answer(call).ends_with("slept"), "{signal}");
    }
}

#[test]
fn a_signal_to_the_whole_group_drains_as_well() {
    let (mut platform, _dir) = with_sleeper();
    let call = begin_call(&platform, "/sleep/0.5");
    platform.signal_group("INT");
    let status = platform.wait();
    assert_eq!(status.code(), Some(0), "{}", platform.stderr());
    assert!(answer(call).ends_with("slept"));
}

#[test]
fn a_signal_that_was_inherited_as_ignored_drains_as_well() {
    let (mut platform, _dir) = {
        let dir = tempfile::tempdir().expect("a directory");
        sleeper(dir.path());
        (up().through_a_shell_that_ignores("INT").arg(dir.path()).start(), dir)
    };
    platform.signal("INT");
    assert_eq!(platform.wait().code(), Some(0), "{}", platform.stderr());
}

#[test]
fn the_drain_has_a_limit() {
    let dir = tempfile::tempdir().expect("a directory");
    sleeper(dir.path());
    let mut platform = up().arg(dir.path()).args(&["--drain-limit", "300ms"]).start();
    let call = begin_call(&platform, "/sleep/30");
    let start = Instant::now();
    platform.signal("TERM");
    let status = platform.wait();
    assert_eq!(status.code(), Some(0), "{}", platform.stderr());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(!answer(call).ends_with("slept"));
}

#[test]
fn a_call_that_finishes_without_its_caller_is_waited_for() {
    let (data, dir) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    sleeper(dir.path());
    let settings = std::fs::read_to_string(dir.path().join("function.toml")).expect("text");
    std::fs::write(dir.path().join("function.toml"), format!("on_disconnect = \"finish\"\n{settings}"))
        .expect("written");
    let mut first = up().data_dir(data.path()).arg(dir.path()).start();
    drop(begin_call(&first, "/sleep/1"));
    first.signal("TERM");
    assert_eq!(first.wait().code(), Some(0), "{}", first.stderr());
    let second = up().data_dir(data.path()).start();
    let calls = second.api("/invocations");
    assert_eq!(calls["items"][0]["outcome"], "ok", "{calls}");
}

#[test]
fn what_the_drain_cuts_off_is_on_the_record() {
    let (data, dir) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    sleeper(dir.path());
    let mut first = up().data_dir(data.path()).arg(dir.path()).args(&["--drain-limit", "100ms"]).start();
    let _call = begin_call(&first, "/sleep/30");
    first.signal("TERM");
    assert_eq!(first.wait().code(), Some(0), "{}", first.stderr());
    let second = up().data_dir(data.path()).start();
    let calls = second.api("/invocations");
    assert_eq!(calls["items"][0]["path"], "/sleep/30", "{calls}");
}

#[test]
fn a_second_signal_ends_at_once() {
    let (mut platform, _dir) = with_sleeper();
    let _call = begin_call(&platform, "/sleep/30");
    platform.signal("INT");
    let limit = Instant::now() + Duration::from_secs(10);
    while !platform.stderr().contains("again to stop at once") {
        assert!(Instant::now() < limit, "{}", platform.stderr());
        std::thread::sleep(Duration::from_millis(5));
    }
    let start = Instant::now();
    platform.signal("INT");
    let status = platform.wait_after_kill();
    assert_eq!(status.code(), Some(130), "{}", platform.stderr());
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn a_killed_platform_leaves_nothing_running_and_its_functions_come_back() {
    let (data, dir) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    sleeper(dir.path());
    let mut first = up().data_dir(data.path()).arg(dir.path()).start();
    let _call = begin_call(&first, "/sleep/30");
    first.kill();
    let second = up().data_dir(data.path()).start();
    assert_eq!(second.get("/sleep/0").status(), 200);
}

#[test]
fn a_hangup_that_was_inherited_as_ignored_is_ignored() {
    let dir = tempfile::tempdir().expect("a directory");
    sleeper(dir.path());
    let mut platform = up().through_a_shell_that_ignores("HUP").arg(dir.path()).start();
    let call = begin_call(&platform, "/sleep/0.5");
    platform.signal("HUP");
    assert!(answer(call).ends_with("slept"));
    assert_eq!(platform.get("/sleep/0").status(), 200);
    assert_eq!(platform.stop().code(), Some(0), "{}", platform.stderr());
}

/// Once seen as a platform that hung and ignored SIGTERM: the pipe of its stderr was full.
#[test]
fn a_platform_whose_stderr_nobody_reads_answers_and_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    sleeper(dir.path());
    let (builder, stderr) = up().stderr_that_nobody_reads();
    // Everything logs, so that whatever waits for stderr is met.
    let mut platform = builder.arg(dir.path()).args(&["--log", "trace"]).start();
    stderr.fill();
    for _ in 0..20 {
        assert_eq!(platform.get("/sleep/0").status(), 200);
        assert_eq!(platform.api("/healthz")["status"], "ok");
    }
    assert_eq!(platform.stop().code(), Some(0));
}

#[test]
fn a_platform_whose_stdout_nobody_reads_ends() {
    let (dir, data) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    sleeper(dir.path());
    let unread = Unread::new();
    unread.fill();
    let mut command = program();
    command.args(["up", "--gateway-addr=127.0.0.1:0", "--api-addr=127.0.0.1:0", "--traces-addr=127.0.0.1:0"]);
    command.arg("--data-dir").arg(data.path()).arg(dir.path());
    command.stdin(Stdio::null()).stdout(unread.writer()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    drop(command);
    let stderr = BufReader::new(child.stderr.take().expect("piped"));
    let deployed = |line: std::io::Result<String>| line.is_ok_and(|line| line.contains("deployed sleeper"));
    assert!(stderr.lines().any(deployed), "it ended before all was deployed");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is there");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}
