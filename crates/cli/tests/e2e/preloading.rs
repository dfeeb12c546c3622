//! `preload`: what a deploy accepts and refuses, and what its workers find.

use std::os::unix::fs::PermissionsExt as _;

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::platform::{Platform, up};

/// Module names and their code, in a directory that workers may read.
fn layer(modules: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("readable");
    for (name, code) in modules {
        std::fs::write(dir.path().join(format!("{name}.py")), code).expect("written");
    }
    dir
}

fn platform(layer: &TempDir, more: &[&str]) -> Platform {
    up().arg("--layers").arg(layer.path()).args(more).start()
}

/// Status and document of the answer.
fn create(platform: &Platform, name: &str, code: &str, preload: &[&str]) -> (u16, Value) {
    create_for("default", platform, name, code, preload)
}

fn create_for(tenant: &str, platform: &Platform, name: &str, code: &str, preload: &[&str]) -> (u16, Value) {
    let document = json!({
        "function_name": name,
        "event_type": format!("http|GET|/{name}"),
        "function_code": code,
        "settings": { "preload": preload, "scaling": { "idle": "0s" } },
    });
    let request = Request::post("/functions").header("content-type", "application/json");
    let request = request.header("x-tenant", tenant);
    let request = request.body(Bytes::from(document.to_string())).expect("a request");
    let answer = crate::platform::call(platform.api, request);
    (answer.status().as_u16(), serde_json::from_slice(answer.body()).expect("JSON"))
}

fn refused(platform: &Platform, preload: &str) -> Value {
    let (status, problem) = create(platform, "refused", "def handler(m, c): return 1\n", &[preload]);
    assert_eq!((status, &problem["field"]), (422, &json!("preload")), "{problem}");
    assert!(problem["detail"].as_str().expect("a sentence").contains(&format!("{preload:?}")), "{problem}");
    assert!(!platform.api("/functions").to_string().contains("refused"), "nothing is left of it");
    problem
}

fn zygotes(platform: &Platform) -> Vec<Value> {
    let host = platform.api("/host");
    let all = host["zygotes"].as_array().expect("a list").iter();
    all.filter(|zygote| zygote["preload"] != json!([])).cloned().collect()
}

#[test]
fn a_module_is_imported_before_the_workers_are_forked() {
    let layer = layer(&[("side", "import os\nTOKEN = os.urandom(8).hex()\n")]);
    let platform = platform(&layer, &[]);
    let code = "import sys\nthere = 'side' in sys.modules\nimport side, os\nOWN = os.urandom(8).hex()\n\
                def handler(message, context):\n    return [there, side.TOKEN, OWN]\n";
    for name in ["one", "two"] {
        let (status, answer) = create(&platform, name, code, &["side"]);
        assert_eq!(status, 200, "{answer}");
    }
    let call = |name: &str| -> Value {
        let answer = platform.get(name);
        serde_json::from_slice(answer.body()).unwrap_or_else(|_| panic!("{answer:?}"))
    };
    let answers = [call("/one"), call("/one"), call("/two")];
    for answer in &answers {
        assert_eq!((&answer[0], &answer[1]), (&json!(true), &answers[0][1]), "{answers:?}");
    }
    assert!(answers[0][2] != answers[1][2], "each call had a worker of its own: {answers:?}");
    let zygotes_now = zygotes(&platform);
    assert_eq!(zygotes_now.len(), 1, "equal lists share one: {zygotes_now:?}");
    assert!(zygotes_now[0]["memory"].as_u64() > Some(1 << 20), "{zygotes_now:?}");
    for name in ["one", "two"] {
        assert!(platform.cli(&["delete", name]).status.success());
    }
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !zygotes(&platform).is_empty() {
        assert!(std::time::Instant::now() < end, "a zygote that nobody needs goes");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn what_cannot_be_preloaded_is_refused_with_its_reason() {
    let thread = "import threading, time\n\
                  threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n";
    let layer = layer(&[("bad", "def fail():\n    raise OSError('no licence')\nfail()\n"), ("busy", thread)]);
    let platform = platform(&layer, &[]);
    let problem = refused(&platform, "bad");
    assert!(problem["detail"].as_str().expect("a sentence").contains("OSError: no licence"), "{problem}");
    assert!(problem["traceback"].as_str().expect("lines").contains("in fail"), "{problem}");
    let problem = refused(&platform, "no_such_module");
    assert!(problem["detail"].as_str().expect("a sentence").contains("it is looked up in"), "{problem}");
    let problem = refused(&platform, "busy");
    assert!(problem["detail"].as_str().expect("a sentence").contains("1 more thread"), "{problem}");
    // The file of `function_code` is the function's own.
    let problem = refused(&platform, "handler");
    assert!(problem["detail"].as_str().expect("a sentence").contains("own code is never"), "{problem}");
}

#[test]
fn the_operator_may_restrict_what_is_preloaded() {
    let layer = layer(&[("side", "")]);
    let platform = platform(&layer, &["--preload", "side"]);
    let problem = refused(&platform, "decimal");
    assert!(problem["detail"].as_str().expect("a sentence").contains("may not be preloaded"), "{problem}");
    let (status, answer) = create(&platform, "allowed", "def handler(m, c): return 1\n", &["side"]);
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn named_tenants_preload_only_what_the_operator_lists() {
    let layer = layer(&[("side", "")]);
    let code = "def handler(m, c): return 1\n";
    for (policy, status) in [("any", 422), ("side", 200)] {
        let platform = platform(&layer, &["--preload", policy, "--allow-weak-isolation-between-tenants"]);
        assert!(platform.cli(&["tenant", "create", "acme"]).status.success());
        let (answered, answer) = create_for("acme", &platform, "f", code, &["side"]);
        assert_eq!(answered, status, "{policy}: {answer}");
        assert_eq!(create(&platform, "f", code, &["side"]).0, 200, "{policy} is said for the operator");
    }
}

#[test]
fn what_was_preloaded_comes_back_with_the_platform() {
    let layer = layer(&[("side", "NAME = 'side'\n")]);
    let data = tempfile::tempdir().expect("a directory");
    let start = || up().arg("--layers").arg(layer.path()).data_dir(data.path()).start();
    let code = "import sys\nthere = 'side' in sys.modules\ndef handler(m, c):\n    return {'there': there}\n";
    let mut platform = start();
    let (status, answer) = create(&platform, "f", code, &["side"]);
    assert_eq!(status, 200, "{answer}");
    platform.stop();
    let mut platform = start();
    assert_eq!(platform.get("/f").body().as_ref(), b"{\"there\": true}");
    assert_eq!(zygotes(&platform).len(), 1);
    platform.stop();
}
