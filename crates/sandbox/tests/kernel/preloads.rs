//! Preloads: modules that a zygote imports once for all of its workers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use fp_sandbox::{PreloadFault, PreloadPolicy, StartError, Template, WorkerSpec, ZygoteReport, ZygoteState};
use tempfile::TempDir;

use crate::stage::{Stage, eventually, json, kill, parent_of};

/// Its token differs between processes that import it and is equal in those forked from one.
const SIDE: &str = "import os\nTOKEN = os.urandom(8).hex()\n";

const HANDLER: &str = "import sys
there = 'side' in sys.modules
def handler(message, context):
    import side
    import side.late
    return [there, side.TOKEN, side.late.NAME, side.__file__]
";

/// A layer with a package `side` whose code is given, and a submodule that nobody imports early.
fn layer(code: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("readable");
    fs::create_dir(dir.path().join("side")).expect("a package");
    fs::write(dir.path().join("side/__init__.py"), code).expect("written");
    fs::write(dir.path().join("side/late.py"), "NAME = __name__\n").expect("written");
    dir
}

async fn stage(layer: &TempDir) -> Stage {
    Stage::with(|config| config.preload.layers = vec![layer.path().to_owned()]).await
}

fn preloading(stage: &Stage, name: &str, code: &str, modules: &[&str]) -> WorkerSpec {
    let mut spec = stage.function(name, code);
    spec.preload = modules.iter().map(|module| (*module).to_owned()).collect();
    spec
}

fn template(stage: &Stage, spec: &WorkerSpec) -> Template {
    stage.sandbox.template(spec).expect("a template").expect("the function preloads")
}

fn zygotes_with(stage: &Stage, module: &str) -> Vec<ZygoteReport> {
    let mut zygotes = stage.sandbox.zygotes();
    zygotes.retain(|zygote| zygote.preload.iter().any(|preloaded| preloaded == module));
    zygotes
}

async fn fault(layer_code: &str, module: &str) -> PreloadFault {
    let layer = layer(layer_code);
    let stage = stage(&layer).await;
    let spec = preloading(&stage, "f", HANDLER, &[module]);
    let template = template(&stage, &spec);
    let error = stage.sandbox.prepare(&template).await.expect_err("it cannot be preloaded");
    let StartError::Preload(fault) = error else { panic!("{error:?}") };
    // A start that comes in between hears the same.
    let error = stage.sandbox.start_worker(&spec).await.expect_err("no zygote");
    assert!(matches!(error, StartError::Preload(_)), "{error:?}");
    drop(template);
    stage.close().await;
    assert_eq!(fault.module, module);
    fault
}

#[tokio::test]
async fn a_module_is_imported_once_for_all_workers_of_equal_lists() {
    let layer = layer(SIDE);
    let stage = stage(&layer).await;
    let one = preloading(&stage, "one", HANDLER, &["side", "decimal"]);
    let two = preloading(&stage, "two", HANDLER, &["decimal", "side", "side"]);
    let kept = template(&stage, &one);
    stage.sandbox.prepare(&kept).await.expect("it imports");
    let mut workers = Vec::new();
    let mut answers = Vec::new();
    for spec in [&one, &one, &two] {
        let mut worker = stage.sandbox.start_worker(spec).await.expect("a worker");
        answers.push(json(&mut worker, 1).await.0);
        workers.push(worker);
    }
    assert_eq!(answers[0][0], true, "imported before the handler's module: {answers:?}");
    assert_eq!(answers[0][2], "side.late", "what is imported late is found");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "imported once: {answers:?}");
    assert_eq!(parent_of(workers[0].host_pid()), parent_of(workers[2].host_pid()));
    let found = zygotes_with(&stage, "side");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].state, &found[0].preload[..]),
        (ZygoteState::Ready, &["decimal".into(), "side".into()][..])
    );
    assert!(found[0].memory > 1 << 20 && found[0].memory_limit.is_some() && found[0].start_ms.is_some());
    drop(workers);
    stage.close().await;
}

/// OpenSSL knows a fork by the process id, and that is 1 in a zygote as in each of its workers.
#[tokio::test]
async fn a_module_that_starts_openssl_leaves_no_two_workers_with_the_same_keys() {
    let layer = layer("import ssl\nCONTEXT = ssl.create_default_context()\nssl.RAND_bytes(1)\n");
    let stage = stage(&layer).await;
    let code = "import side, ssl\ndef handler(message, context):\n    return [ssl.RAND_bytes(16).hex()]\n";
    let spec = preloading(&stage, "f", code, &["side"]);
    let kept = template(&stage, &spec);
    stage.sandbox.prepare(&kept).await.expect("it imports");
    let mut one = stage.sandbox.start_worker(&spec).await.expect("a worker");
    let mut two = stage.sandbox.start_worker(&spec).await.expect("a worker");
    assert_ne!(json(&mut one, 1).await.0, json(&mut two, 1).await.0);
    drop((one, two, kept));
    stage.close().await;
}

#[tokio::test]
async fn functions_that_preload_nothing_see_no_layer() {
    let layer = layer(SIDE);
    let stage = stage(&layer).await;
    let code = "def handler(message, context):\n    try:\n        import side\n    except ImportError as error:\n        return [str(error)]\n";
    let mut worker = stage.worker(code).await;
    assert_eq!(json(&mut worker, 1).await.0[0], "No module named 'side'");
    assert!(stage.sandbox.template(&stage.function("f", code)).expect("no need").is_none());
    drop(worker);
    stage.close().await;
}

#[tokio::test]
async fn a_module_that_raises_is_named_with_its_traceback() {
    let fault = fault("def bad():\n    return 1 / 0\nbad()\n", "side").await;
    assert!(fault.why.starts_with("ZeroDivisionError: "), "{fault:?}");
    assert!(fault.traceback.contains("return 1 / 0"), "{fault:?}");
    assert!(!fault.traceback.contains("zygote.py") && !fault.traceback.contains("frozen"), "{fault:?}");
}

#[tokio::test]
async fn a_module_that_is_not_there_is_named_with_the_places() {
    let fault = fault(SIDE, "no_such_module_at_all").await;
    assert!(fault.why.contains("No module named 'no_such_module_at_all'"), "{fault:?}");
    assert!(fault.why.contains("it is looked up in /layers/0"), "{fault:?}");
}

#[tokio::test]
async fn a_module_that_starts_threads_is_refused() {
    let code =
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n";
    let fault = fault(code, "side").await;
    assert!(fault.why.contains("1 more thread runs after its import"), "{fault:?}");
    // One that has ended is no obstacle.
    let layer = layer("import threading\nt = threading.Thread(target=int)\nt.start()\nt.join()\nTOKEN = 1\n");
    let stage = stage(&layer).await;
    let kept = template(&stage, &preloading(&stage, "f", HANDLER, &["side"]));
    stage.sandbox.prepare(&kept).await.expect("it imports");
    stage.close().await;
}

#[tokio::test]
async fn a_module_that_ends_the_process_is_named() {
    let fault = fault("import os, sys\nprint('last words', flush=True)\nos._exit(3)\n", "side").await;
    assert!(fault.why.contains("exited with code 3") && fault.why.contains("last words"), "{fault:?}");
}

#[tokio::test]
async fn a_memory_bomb_at_import_ends_the_zygote_alone() {
    let layer = layer("held = []\nwhile True:\n    held.append(b'x' * (1 << 20))\n");
    let stage = Stage::with(|config| {
        config.preload.layers = vec![layer.path().to_owned()];
        config.preload.memory = 64 << 20;
    })
    .await;
    let spec = preloading(&stage, "f", HANDLER, &["side"]);
    let kept = template(&stage, &spec);
    let error = stage.sandbox.prepare(&kept).await.expect_err("too large");
    let StartError::Preload(fault) = error else { panic!("{error:?}") };
    // By the cgroup, or where there is none by the limit on data, which Python sees itself.
    assert!(fault.why.contains("more than 64 MiB") || fault.why.contains("MemoryError"), "{fault:?}");
    let mut worker = stage.worker("def handler(message, context):\n    return 1\n").await;
    assert_eq!(json(&mut worker, 1).await.0, 1, "others are none the worse");
    drop((worker, kept));
    stage.close().await;
}

#[tokio::test]
async fn the_operator_decides_what_may_be_preloaded() {
    let stage =
        Stage::with(|config| config.preload.allowed = PreloadPolicy::Only(vec!["decimal".into()])).await;
    let spec = preloading(&stage, "f", HANDLER, &["decimal", "json"]);
    let error = stage.sandbox.start_worker(&spec).await.expect_err("not listed");
    assert!(error.to_string().contains("\"json\" cannot be preloaded: it is not listed"), "{error}");
    stage.close().await;
}

#[tokio::test]
async fn a_template_lives_while_it_is_wanted_and_no_longer() {
    let layer = layer(SIDE);
    let stage = stage(&layer).await;
    let spec = preloading(&stage, "f", HANDLER, &["side"]);
    let (one, two) = (template(&stage, &spec), template(&stage, &spec));
    stage.sandbox.prepare(&one).await.expect("it imports");
    let mut worker = stage.sandbox.start_worker(&spec).await.expect("a worker");
    let zygote = parent_of(worker.host_pid());
    drop(one);
    assert!(zygotes_with(&stage, "side").iter().any(|z| z.pid.cast_unsigned() == zygote));
    drop(two);
    let retired = || zygotes_with(&stage, "side").iter().any(|z| z.state == ZygoteState::Retired);
    eventually("the zygote is retired", retired).await;
    assert_eq!(json(&mut worker, 1).await.0[0], true, "it stays with its worker");
    drop(worker);
    eventually("its end", || zygotes_with(&stage, "side").is_empty()).await;
    stage.close().await;
}

#[tokio::test]
async fn a_killed_zygote_is_started_anew_with_its_modules() {
    let layer = layer(SIDE);
    let stage = stage(&layer).await;
    let spec = preloading(&stage, "f", HANDLER, &["side"]);
    let kept = template(&stage, &spec);
    stage.sandbox.prepare(&kept).await.expect("it imports");
    let first = zygotes_with(&stage, "side");
    kill(first[0].pid.cast_unsigned());
    let another = |zygotes: Vec<ZygoteReport>| {
        zygotes.iter().any(|z| z.pid != first[0].pid && z.state == ZygoteState::Ready)
    };
    eventually("another zygote", || another(zygotes_with(&stage, "side"))).await;
    // The same when its launcher goes.
    let second = zygotes_with(&stage, "side");
    kill(parent_of(second[0].pid.cast_unsigned()));
    let again = |zygotes: Vec<ZygoteReport>| {
        zygotes.iter().any(|z| z.pid != second[0].pid && z.state == ZygoteState::Ready)
    };
    eventually("a zygote of the next launcher", || again(zygotes_with(&stage, "side"))).await;
    let mut worker = stage.sandbox.start_worker(&spec).await.expect("a worker");
    assert_eq!(json(&mut worker, 1).await.0[0], true);
    drop((worker, kept));
    stage.close().await;
}

#[tokio::test]
async fn blank_workers_of_a_template_stand_ready() {
    let layer = layer(SIDE);
    let stage = Stage::with(|config| {
        config.preload.layers = vec![layer.path().to_owned()];
        config.blanks = 1;
    })
    .await;
    let spec = preloading(&stage, "f", HANDLER, &["side"]);
    let kept = template(&stage, &spec);
    stage.sandbox.prepare(&kept).await.expect("it imports");
    let end = std::time::Instant::now() + crate::stage::PATIENCE;
    loop {
        assert!(std::time::Instant::now() < end, "no blank worker was claimed");
        let mut worker = stage.sandbox.start_worker(&spec).await.expect("a worker");
        assert_eq!(json(&mut worker, 1).await.0[0], true);
        if worker.was_blank() {
            break;
        }
    }
    drop(kept);
    stage.close().await;
}

#[tokio::test]
async fn a_layer_that_workers_cannot_read_is_said_to_be() {
    let layer = layer(SIDE);
    fs::set_permissions(layer.path(), fs::Permissions::from_mode(0o700)).expect("closed");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = |layer: &std::path::Path| fp_sandbox::SandboxConfig {
        preload: fp_sandbox::PreloadConfig { layers: vec![layer.to_owned()], ..Default::default() },
        ..crate::stage::config(&dir.path().join("run"))
    };
    let error = fp_sandbox::Sandbox::start(config(&layer.path().join("none"))).await.expect_err("none");
    assert!(error.to_string().contains("/none"), "{error}");
    if rustix::process::geteuid().is_root() {
        let error = fp_sandbox::Sandbox::start(config(layer.path())).await.expect_err("closed");
        assert!(error.to_string().contains("is closed to the workers' uids; chmod o+rx"), "{error}");
    } else {
        println!("skipped: this user is the only uid of its workers");
    }
}
