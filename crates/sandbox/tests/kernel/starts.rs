//! Starting workers: blank ones, other Pythons, handlers that do not load.

use std::time::Duration;

use fp_sandbox::protocol::FailureKind;
use fp_sandbox::{Sandbox, SandboxConfig, SandboxError, StartError};

use crate::stage::{EXECUTABLE, Stage, eventually, json, parent_of};

const ONE: &str = "def handler(message, context):\n    return 1\n";

#[tokio::test]
async fn a_blank_worker_is_claimed_and_replaced() {
    let stage = Stage::with(|config| config.blanks = 1).await;
    let spec = stage.function("f", ONE);
    let mut workers = Vec::new();
    let end = std::time::Instant::now() + crate::stage::PATIENCE;
    // The pool fills in the background: sooner or later a start finds one, and another one.
    while workers.iter().filter(|worker: &&fp_sandbox::Worker| worker.was_blank()).count() < 2 {
        assert!(std::time::Instant::now() < end, "no blank worker was claimed");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut worker = stage.sandbox.start_worker(&spec).await.expect("a worker");
        assert_eq!(json(&mut worker, 1).await.0, 1);
        workers.push(worker);
        workers.drain(..workers.len().saturating_sub(8));
    }
    drop(workers);
    stage.close().await;
}

#[tokio::test]
async fn every_python_of_the_host_runs_functions() {
    let stage = Stage::new().await;
    let code =
        "import sys\ndef handler(message, context):\n    return '.'.join(map(str, sys.version_info[:3]))\n";
    for python in stage.sandbox.host().pythons {
        let version = python.version_text();
        let mut spec = stage.function("f", code);
        spec.python = Some(version.clone());
        let mut worker = stage.sandbox.start_worker(&spec).await.expect("a worker");
        let answer = worker.call(crate::stage::call(1, "")).await.expect("an answer");
        let fp_sandbox::Answer::Whole(whole) = answer else { panic!("{answer:?}") };
        assert_eq!(whole.body, version);
    }
    stage.close().await;
}

#[tokio::test]
async fn a_python_that_is_not_here_is_named_with_those_that_are() {
    let stage = Stage::new().await;
    let mut spec = stage.function("f", ONE);
    spec.python = Some("3.99".into());
    let error = stage.sandbox.start_worker(&spec).await.expect_err("there is none");
    assert!(matches!(error, StartError::Python(_)), "{error:?}");
    assert!(error.to_string().starts_with("Python 3.99 is not on this host, which has 3."), "{error}");
    stage.close().await;
}

#[tokio::test]
async fn a_handler_that_does_not_load_says_why() {
    let stage = Stage::new().await;
    for (code, kind, line, output) in [
        ("def handler(message, context)\n    return 1\n", FailureKind::BadHandler, Some(1), ""),
        ("def other(): pass\n", FailureKind::BadHandler, None, ""),
        ("print('so far')\nimport no_such_module\n", FailureKind::Exception, Some(2), "so far\n"),
    ] {
        let error =
            stage.sandbox.start_worker(&stage.function("f", code)).await.expect_err("it does not load");
        let StartError::LoadFailed { failure, .. } = error else { panic!("{error:?}") };
        assert_eq!((failure.kind, failure.line), (kind, line), "{failure:?}");
        assert_eq!(failure.output, output);
    }
    stage.close().await;
}

#[tokio::test]
async fn a_module_that_hangs_or_dies_while_loading_is_told_apart() {
    let stage = Stage::new().await;
    let mut spec = stage.function("f", "import time\ntime.sleep(600)\n");
    spec.start_limit = Duration::from_secs(2);
    let error = stage.sandbox.start_worker(&spec).await.expect_err("it hangs");
    assert!(matches!(error, StartError::TimedOut { .. }), "{error:?}");
    let spec = stage.function("g", "import os\nos.write(2, b'last words')\nos._exit(3)\n");
    let error = stage.sandbox.start_worker(&spec).await.expect_err("it dies");
    assert!(error.to_string().contains("exited with code 3"), "{error}");
    let StartError::Crashed { output, .. } = error else { panic!("{error:?}") };
    assert!(output.contains("last words"), "{output:?}");
    stage.close().await;
}

#[tokio::test]
async fn what_cannot_be_started_says_so() {
    let stage = Stage::new().await;
    let mut spec = stage.function("f", ONE);
    spec.code_dir = stage.dir.path().join("not-there");
    let error = stage.sandbox.start_worker(&spec).await.expect_err("no code");
    assert!(matches!(error, StartError::Host(_) | StartError::LoadFailed { .. }), "{error:?}");
    stage.close().await;
}

#[tokio::test]
async fn a_start_that_nobody_waits_for_leaves_nothing() {
    let stage = Stage::new().await;
    let spec = stage.function("f", ONE);
    for _ in 0..10 {
        // Given up at a random moment of the start.
        let wait = Duration::from_millis(1 + u64::from(std::process::id() % 5));
        drop(tokio::time::timeout(wait, stage.sandbox.start_worker(&spec)).await);
    }
    let mut worker = stage.sandbox.start_worker(&spec).await.expect("a worker");
    assert_eq!(json(&mut worker, 1).await.0, 1);
    let zygote = parent_of(worker.host_pid());
    drop(worker);
    eventually("an idle zygote without children", || children_of(zygote).is_empty()).await;
    stage.close().await;
}

fn children_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default()
}

#[tokio::test]
async fn a_sandbox_that_cannot_start_says_why() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = |python: Option<&str>, executable: &str| SandboxConfig {
        executable: executable.into(),
        python: python.map(Into::into),
        ..crate::stage::config(&dir.path().join("run"))
    };
    let error = Sandbox::start(config(Some("/bin/cat"), EXECUTABLE)).await.expect_err("no Python");
    assert!(matches!(error, SandboxError::Python(_)), "{error:?}");
    let error = Sandbox::start(config(None, "/no/such/file")).await.expect_err("no launcher");
    assert!(error.to_string().contains("/no/such/file"), "{error}");
    let error = Sandbox::start(config(None, "/bin/true")).await.expect_err("no launcher");
    assert!(
        error.to_string().contains("the launcher ended at once") || error.to_string().contains("telling"),
        "{error}"
    );
}
