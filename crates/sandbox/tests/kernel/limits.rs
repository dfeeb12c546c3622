//! Limits: memory, tasks, files, descriptors. What hits one takes nobody else with it.

use fp_sandbox::{CallError, LimitHit, StartError};

use crate::stage::{Stage, call_error, failure, json};

#[tokio::test]
async fn more_memory_than_allowed_is_out_of_memory_with_the_limit() {
    let stage = Stage::new().await;
    if stage.enforces("memory limit") {
        let mut spec = stage.function(
            "f",
            "def handler(message, context):\n    print('filling')\n    return len(bytearray(b'x') * 500_000_000)\n",
        );
        spec.memory = 64 << 20;
        let mut worker = stage.sandbox.start_worker(&spec).await.expect("a worker");
        let error = call_error(&mut worker).await;
        assert_eq!(error.limit_hit(), Some(LimitHit::Memory));
        assert!(error.to_string().contains("64 MiB"), "{error}");
        let CallError::OutOfMemory { logs, limit } = error else { panic!("{error:?}") };
        assert_eq!(limit, 64 << 20);
        assert_eq!(crate::stage::text_of(&logs), "filling\n");
        // Nobody else notices.
        let mut other = stage.worker("def handler(message, context):\n    return 1\n").await;
        assert_eq!(json(&mut other, 1).await.0, 1);
    }
    stage.close().await;
}

#[tokio::test]
async fn a_module_that_fills_the_memory_while_loading_is_said_to() {
    let stage = Stage::new().await;
    if stage.enforces("memory limit") {
        let mut spec =
            stage.function("f", "hoard = bytearray(b'x') * 500_000_000\ndef handler(m, c): pass\n");
        spec.memory = 64 << 20;
        let error = stage.sandbox.start_worker(&spec).await.expect_err("too much");
        assert!(matches!(error, StartError::OutOfMemory { limit, .. } if limit == 64 << 20), "{error:?}");
    }
    stage.close().await;
}

#[tokio::test]
async fn a_fork_bomb_stops_at_the_task_limit_and_ends_with_the_worker() {
    let stage = Stage::new().await;
    if stage.enforces("task limit") {
        let code = "import os, time
def handler(message, context):
    made = 0
    try:
        while made < 1000:
            if os.fork() == 0:
                time.sleep(600)
                os._exit(0)
            made += 1
    except OSError as error:
        return {'made': made, 'error': error.errno}
    return {'made': made}
";
        let mut spec = stage.function("f", code);
        spec.tasks = 16;
        let mut worker = stage.sandbox.start_worker(&spec).await.expect("a worker");
        let (answer, _) = json(&mut worker, 1).await;
        assert_eq!(answer["error"], 11, "EAGAIN: {answer}");
        assert!(answer["made"].as_u64().is_some_and(|made| (10..16).contains(&made)), "{answer}");
        kill(&worker);
        let exit = worker.exited().await;
        assert_eq!(exit.limit_hit, Some(LimitHit::Tasks));
        drop(worker);
    }
    stage.close().await;
}

#[tokio::test]
async fn tmp_descriptors_and_file_sizes_are_bounded() {
    let stage = Stage::new().await;
    if stage.enforces("mount namespace with a read-only root") {
        let code = "import os, resource
def fill(path):
    written = 0
    try:
        with open(path, 'wb', buffering=0) as file:
            while written < 1 << 30:
                written += file.write(b'x' * (1 << 20))
    except OSError as error:
        return [error.errno, written >> 20]
def handler(message, context):
    full = fill('/tmp/x')
    os.unlink('/tmp/x')
    opened = []
    try:
        while len(opened) < 5000:
            opened.append(os.dup(0))
    except OSError as error:
        descriptors = error.errno
    for fd in opened:
        os.close(fd)
    return {'tmp': full, 'descriptors': descriptors, 'core': resource.getrlimit(resource.RLIMIT_CORE)}
";
        let mut worker = stage.worker(code).await;
        let (answer, _) = json(&mut worker, 1).await;
        assert_eq!(answer["tmp"], serde_json::json!([28, 64]), "ENOSPC after 64 MiB");
        assert_eq!(answer["descriptors"], 24, "EMFILE");
        assert_eq!(answer["core"], serde_json::json!([1, 1]));
        drop(worker);
    }
    stage.close().await;
}

#[tokio::test]
async fn a_flood_of_output_is_drained_and_dropped() {
    let stage = Stage::new().await;
    let code = "import subprocess
def handler(message, context):
    subprocess.run(['sh', '-c', 'head -c 50000000 /dev/zero'], check=True)
    raise ValueError('after the flood')
";
    let mut worker = stage.worker(code).await;
    let (failure, logs) = failure(&mut worker, crate::stage::call(1, "")).await;
    assert_eq!(failure.message, "after the flood");
    assert!(logs.len() <= (1 << 20) + 200, "{} bytes", logs.len());
    assert!(logs.ends_with("raise limits.logs]\n"));
    drop(worker);
    stage.close().await;
}

fn kill(worker: &fp_sandbox::Worker) {
    crate::stage::kill(worker.host_pid());
}

#[tokio::test]
async fn where_cgroups_are_refused_resource_limits_stand_in() {
    let stage = Stage::new().await;
    let host = stage.sandbox.host();
    if host.enforces("memory limit") || host.enforces("task limit") {
        crate::stage::skip("plain user", "this host has cgroups for both");
    } else {
        let code = "import os, time
def handler(message, context):
    made = 0
    try:
        while made < 1000:
            if os.fork() == 0:
                time.sleep(600)
                os._exit(0)
            made += 1
    except OSError as error:
        made = [made, error.errno]
    try:
        bytearray(b'x') * 500_000_000
    except MemoryError:
        return [made, 'refused']
    return [made, 'allowed']
";
        let mut spec = stage.function("f", code);
        (spec.tasks, spec.memory) = (16, 128 << 20);
        let mut worker = stage.sandbox.start_worker(&spec).await.expect("a worker");
        let (answer, _) = json(&mut worker, 1).await;
        assert_eq!(answer, serde_json::json!([[15, 11], "refused"]));
        drop(worker);
    }
    stage.close().await;
}
