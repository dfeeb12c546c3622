//! Life and death: whoever is killed, the others clear up and go on.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fp_sandbox::{CallError, Ended};

use crate::stage::{
    EXECUTABLE, Stage, call, check_nothing_left, config, eventually, groups_of, is_alive, json, kill,
    parent_of, write_code,
};

const SLEEPER: &str = "import os, time
def handler(message, context):
    if message['raw_body'] == b'sleep':
        print('asleep', flush=True)
        time.sleep(600)
    return os.getpid()
";

#[tokio::test]
async fn a_killed_worker_is_a_crash_for_its_caller_and_nothing_to_others() {
    let stage = Stage::new().await;
    let spec = stage.function("f", SLEEPER);
    let mut victim = stage.sandbox.start_worker(&spec).await.expect("a worker");
    let mut other = stage.sandbox.start_worker(&spec).await.expect("a worker");
    let pid = victim.host_pid();
    let killing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        kill(pid);
    };
    let (ended, ()) = tokio::join!(victim.call(call(1, "sleep")), killing);
    let error = ended.expect_err("it was killed");
    let CallError::Crashed { exit, logs } = &error else { panic!("{error:?}") };
    assert_eq!(exit.ended, Ended::Signal(9));
    assert_eq!(crate::stage::text_of(logs), "asleep\n");
    assert!(error.to_string().contains("SIGKILL"), "{error}");
    json(&mut other, 1).await;
    drop((victim, other));
    stage.close().await;
}

#[tokio::test]
async fn the_ways_to_die_are_told_apart() {
    let stage = Stage::new().await;
    for (code, ended) in [("os._exit(7)", Ended::Code(7)), ("ctypes.string_at(0)", Ended::Signal(11))] {
        let code = format!("import ctypes, os\ndef handler(message, context):\n    {code}\n");
        let mut worker = stage.worker(&code).await;
        let error = crate::stage::call_error(&mut worker).await;
        let CallError::Crashed { exit, .. } = &error else { panic!("{error:?}") };
        assert_eq!(exit.ended, ended);
    }
    stage.close().await;
}

#[tokio::test]
async fn an_idle_worker_that_dies_is_noticed() {
    let stage = Stage::new().await;
    let mut worker = stage.worker(SLEEPER).await;
    assert!(worker.is_reusable());
    kill(worker.host_pid());
    assert_eq!(worker.exited().await.ended, Ended::Signal(9));
    assert!(!worker.is_reusable());
    let error = worker.call(call(1, "")).await.expect_err("it is dead");
    assert!(matches!(error, CallError::NeverStarted { .. }), "{error:?}");
    drop(worker);
    stage.close().await;
}

#[tokio::test]
async fn a_call_that_a_dying_worker_did_not_read_never_started() {
    let stage = Stage::new().await;
    let mut worker = stage.worker(SLEEPER).await;
    stop(worker.host_pid());
    let pid = worker.host_pid();
    let killing = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        kill(pid);
    };
    let (ended, ()) = tokio::join!(worker.call(call(1, "sleep")), killing);
    assert!(matches!(ended, Err(CallError::NeverStarted { .. })), "{ended:?}");
    drop(worker);
    stage.close().await;
}

/// `kill -STOP`: the call is written, and nobody reads it.
fn stop(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("it can be stopped");
    // Until it has stopped, a read that it waits in may still take the call.
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    while !stat().contains(") T ") {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn dropping_a_worker_ends_all_that_it_started() {
    let stage = Stage::new().await;
    let code = "import subprocess
def handler(message, context):
    subprocess.Popen(['setsid', 'sleep', '603'], start_new_session=True)
    return 1
";
    let mut worker = stage.worker(code).await;
    json(&mut worker, 1).await;
    let pid = worker.host_pid();
    eventually("the start of its child", || processes_named("603")).await;
    drop(worker);
    eventually("the end of the worker", || !is_alive(pid)).await;
    eventually("the end of its children", || !processes_named("603")).await;
    stage.close().await;
}

fn processes_named(argument: &str) -> bool {
    let entries = fs::read_dir("/proc").expect("proc").flatten();
    let mut lines = entries.map(|entry| fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default());
    lines.any(|line| line.starts_with("sleep\0") && line.contains(argument))
}

#[tokio::test]
async fn a_killed_launcher_fails_the_calls_in_flight_and_is_replaced() {
    let stage = Stage::with(|config| config.blanks = 1).await;
    let spec = stage.function("f", SLEEPER);
    let mut busy = stage.sandbox.start_worker(&spec).await.expect("a worker");
    let idle = stage.sandbox.start_worker(&spec).await.expect("a worker");
    let pids = [busy.host_pid(), idle.host_pid()];
    let zygote = parent_of(busy.host_pid());
    let launcher = parent_of(zygote);
    let groups = groups_of(&stage.dir.path().join("run"));
    let killing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        kill(launcher);
    };
    let (ended, ()) = tokio::join!(busy.call(call(1, "sleep")), killing);
    assert!(matches!(ended, Err(CallError::Crashed { .. })), "{ended:?}");
    idle.exited().await;
    let mut next = stage.sandbox.start_worker(&spec).await.expect("a worker of the next launcher");
    assert!(json(&mut next, 1).await.0.is_number());
    assert_ne!(next.id(), busy.id());
    eventually("the end of the old processes", || !pids.iter().chain([&zygote]).any(|pid| is_alive(*pid)))
        .await;
    // The old launcher's leaves were swept: only the new one's workers have any.
    for group in groups {
        let old = group.join(busy.id().to_string());
        assert!(!old.exists(), "{} is left", old.display());
    }
    drop((busy, idle, next));
    stage.close().await;
}

#[tokio::test]
async fn a_killed_zygote_is_replaced() {
    let stage = Stage::new().await;
    let spec = stage.function("f", SLEEPER);
    let worker = stage.sandbox.start_worker(&spec).await.expect("a worker");
    kill(parent_of(worker.host_pid()));
    worker.exited().await;
    assert!(!is_alive(worker.host_pid()));
    let next = tokio::time::timeout(crate::stage::PATIENCE, async {
        loop {
            if let Ok(next) = stage.sandbox.start_worker(&spec).await {
                break next;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut next = next.await.expect("a worker of the next zygote");
    assert!(json(&mut next, 1).await.0.is_number());
    drop((worker, next));
    stage.close().await;
}

#[tokio::test]
#[ignore = "forks a thousand workers"]
async fn a_worn_zygote_is_replaced_without_a_pause_and_leaves_with_its_last_worker() {
    for preload in [vec![], vec!["decimal".to_owned()]] {
        is_replaced_when_worn(preload).await;
    }
}

async fn is_replaced_when_worn(preload: Vec<String>) {
    let stage = Stage::new().await;
    let mut spec = stage.function("f", SLEEPER);
    spec.preload = preload;
    let kept = stage.sandbox.template(&spec).expect("it is allowed");
    let mut old = stage.sandbox.start_worker(&spec).await.expect("a worker");
    let zygote = parent_of(old.host_pid());
    let mut slowest = Duration::ZERO;
    for forks in 1.. {
        let begin = Instant::now();
        let worker = stage.sandbox.start_worker(&spec).await.expect("a worker");
        slowest = slowest.max(begin.elapsed());
        if parent_of(worker.host_pid()) != zygote {
            println!("replaced after {forks} forks; the slowest start took {slowest:?}");
            break;
        }
        assert!(forks < 3000, "the zygote is still the same");
    }
    assert!(json(&mut old, 1).await.0.is_number());
    assert!(is_alive(zygote));
    drop(old);
    eventually("the end of the old zygote", || !is_alive(zygote)).await;
    drop(kept);
    stage.close().await;
}

#[tokio::test]
async fn dropping_the_sandbox_ends_everything_without_being_asked() {
    let stage = Stage::with(|config| config.blanks = 1).await;
    let worker = stage.worker(SLEEPER).await;
    let (pid, run_dir) = (worker.host_pid(), stage.dir.path().join("run"));
    let groups = groups_of(&run_dir);
    drop(stage.sandbox);
    eventually("the end of the worker", || !is_alive(pid)).await;
    eventually("the end of the run directory", || !run_dir.exists()).await;
    check_nothing_left(&run_dir, &groups);
    drop(worker);
}

/// A stand-in for the platform in a process of its own, as the given user.
fn platform(dir: &Path, uid: Option<u32>) -> (std::process::Child, serde_json::Value) {
    start_platform(dir, uid, "platform")
}

fn start_platform(dir: &Path, uid: Option<u32>, kind: &str) -> (std::process::Child, serde_json::Value) {
    use std::os::unix::fs::PermissionsExt as _;
    let code = dir.join("code");
    // With a child that tries to stay, under a name that no other test's has.
    let text = "import os, subprocess
def handler(message, context):
    subprocess.Popen(['sleep', 'ARGUMENT'], start_new_session=True)
    return {'uid': os.getuid(), 'pid': os.getpid(), 'root': os.listdir('/')}
";
    write_code(&code, &text.replace("ARGUMENT", &sleep_of(dir)));
    // The build directory may be closed to other users.
    let executable = dir.join("platform");
    fs::copy(EXECUTABLE, &executable).expect("a copy");
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("readable");
    fs::set_permissions(&executable, fs::Permissions::from_mode(0o755)).expect("executable");
    let data = dir.join("data");
    fs::create_dir(&data).expect("a data directory");
    let mut command = Command::new(executable);
    command.arg(kind).arg(data.join("run")).arg(code).stdin(Stdio::piped()).stdout(Stdio::piped());
    if let Some(uid) = uid {
        std::os::unix::fs::chown(&data, Some(uid), Some(uid)).expect("a data directory of its own");
        command.uid(uid).gid(uid);
    }
    let mut child = command.current_dir("/").spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    (child, serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}")))
}

#[tokio::test]
async fn a_killed_platform_leaves_nothing_within_a_second() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut child, report) = platform(dir.path(), None);
    let worker = u32::try_from(report["worker"].as_u64().expect("a pid")).expect("a pid");
    let (zygote, run_dir) = (parent_of(worker), dir.path().join("data/run"));
    let launcher = parent_of(zygote);
    let groups = groups_of(&run_dir);
    child.kill().expect("it can be killed");
    child.wait().expect("it is dead");
    let killed = Instant::now();
    let all = [worker, zygote, launcher];
    eventually("the end of all processes", || !all.iter().any(|pid| is_alive(*pid))).await;
    // A second by itself; a machine that does much else gets more.
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    eventually("the end of the handler's child", || !processes_named(&sleep_of(dir.path()))).await;
    eventually("the end of the run directory", || !run_dir.exists()).await;
    check_nothing_left(&run_dir, &groups);
}

#[tokio::test]
async fn platform_and_launcher_killed_together_are_swept_by_the_next() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut child, report) = platform(dir.path(), None);
    let worker = u32::try_from(report["worker"].as_u64().expect("a pid")).expect("a pid");
    let run_dir = dir.path().join("data/run");
    let launcher = parent_of(parent_of(worker));
    let groups = groups_of(&run_dir);
    kill(launcher);
    child.kill().expect("it can be killed");
    child.wait().expect("it is dead");
    eventually("the end of the worker", || !is_alive(worker)).await;
    fs::remove_dir_all(dir.path().join("code")).expect("removed");
    fs::rename(dir.path().join("data"), dir.path().join("kept")).expect("moved");
    fs::rename(dir.path().join("kept"), dir.path().join("data")).expect("moved back");
    let next = fp_sandbox::Sandbox::start(config(&run_dir)).await.expect("it starts over the leftovers");
    let directories = |dir: &Path| {
        let entries = fs::read_dir(dir).expect("a group").flatten().map(|entry| entry.path());
        entries.filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    for group in &groups {
        let inside = directories(group);
        assert_eq!(inside.len(), 1, "the operator's own tenant's, anew: {inside:?}");
        assert!(directories(&inside[0]).is_empty());
    }
    next.shutdown().await;
    check_nothing_left(&run_dir, &groups);
}

#[tokio::test]
async fn a_worker_whose_descriptors_find_no_room_is_one_failed_start_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut child, report) = start_platform(dir.path(), None, "starved-platform");
    assert!(child.wait().expect("it ends").success(), "{report}");
    let refused = report["refused"].as_str().expect("there was no room");
    assert!(refused.contains("open files") && refused.contains("LimitNOFILE"), "{refused}");
    assert!(!dir.path().join("data/run").exists(), "something is left");
}

#[tokio::test]
async fn groups_that_stay_are_on_record_until_they_are_gone() {
    let stage = Stage::new().await;
    let run_dir = stage.dir.path().join("run");
    let Some(group) = groups_of(&run_dir).into_iter().next() else {
        stage.close().await;
        return crate::stage::skip("root", "this host has no cgroups for us");
    };
    // Nothing can be removed that has something in it.
    let (stuck, inner) = (group.join("stuck"), group.join("stuck/leaf/inner"));
    fs::create_dir_all(&inner).expect("a group");
    stage.sandbox.shutdown().await;
    assert!(groups_of(&run_dir).contains(&group), "the record is kept while something is left");
    let next = fp_sandbox::Sandbox::start(config(&run_dir)).await.expect("it starts over the leftovers");
    assert!(stuck.exists());
    fs::remove_dir(&inner).expect("it is empty");
    eventually("the end of what was left", || !stuck.exists()).await;
    next.shutdown().await;
    check_nothing_left(&run_dir, &[group]);
}

#[tokio::test]
async fn a_plain_user_has_workers_too() {
    if !rustix::process::geteuid().is_root() {
        return crate::stage::skip("root", "the other tests run as a plain user already");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (child, report) = platform(dir.path(), Some(65534));
    assert!(report["error"].is_null(), "{report}");
    println!("mode {}, answer {}", report["mode"], report["answer"]);
    if report["mode"] == "user_namespace" {
        assert_eq!(report["answer"]["pid"], 1);
        assert_eq!(report["answer"]["uid"], 1000);
        assert!(!report["answer"]["root"].to_string().contains("home"));
    }
    check_and_end(dir.path(), child, &report);
}

#[tokio::test]
async fn where_namespaces_are_refused_workers_run_with_what_is_left() {
    for uid in [None, Some(65534)] {
        if uid.is_some() && !rustix::process::geteuid().is_root() {
            continue;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (child, report) = start_platform(dir.path(), uid, "confined-platform");
        assert!(report["error"].is_null(), "{report}");
        assert_eq!(report["mode"], "reduced");
        assert_ne!(report["answer"]["uid"], 0, "never root");
        check_and_end(dir.path(), child, &report);
    }
}

/// Seconds for `sleep` that are particular to a directory.
fn sleep_of(dir: &Path) -> String {
    let name = dir.file_name().expect("a name").to_string_lossy().into_owned();
    let number = name.bytes().fold(7u64, |number, byte| (number * 31 + u64::from(byte)) % 100_000_000);
    format!("600.{number:08}")
}

/// Ends the stand-in in order: nothing was kept silent, nothing is left.
fn check_and_end(dir: &Path, mut child: std::process::Child, report: &serde_json::Value) {
    let mechanisms = report["host"]["mechanisms"].as_array().expect("a list");
    let silent = |m: &&serde_json::Value| {
        m["enforced"] == false && (m["why_not"].is_null() || m["how_to_get_it"].is_null())
    };
    assert_eq!(mechanisms.iter().find(silent), None, "whatever is missing says why and what to do");
    let run_dir = dir.join("data/run");
    let groups = groups_of(&run_dir);
    drop(child.stdin.take());
    assert!(child.wait().expect("it ends").success());
    assert!(!processes_named(&sleep_of(dir)), "the handler's child is left");
    check_nothing_left(&run_dir, &groups);
}
