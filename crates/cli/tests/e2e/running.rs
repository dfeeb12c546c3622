//! A platform with the examples: what it prints runs, and the command line works against it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use bytes::Bytes;
use http::Request;

use crate::platform::{examples, program, skip, up};

#[test]
fn the_examples_answer_and_leave_logs() {
    let platform = up().arg(examples()).start();
    let hello = platform.get("/hello");
    assert_eq!(hello.status(), 200, "{hello:?}");
    let id = hello.headers()["x-serverless-instance-id"].to_str().expect("text").to_owned();
    assert!(hello.headers().contains_key("server-timing"));
    assert_eq!(platform.cli(&["logs", &id]).status.code(), Some(0));
    assert_eq!(platform.cli(&["lookup-instance", &id]).status.code(), Some(0));
    let listed = platform.cli(&["list", "--filter", "hello"]);
    assert!(listed.stdout.contains("http|GET|/hello"), "{listed:?}");
    let instances = platform.cli(&["list-instances"]);
    assert!(instances.stdout.contains(&id) && instances.stdout.contains("hello"), "{instances:?}");
    let invoked = platform.cli(&["invoke", "hello"]);
    assert_eq!(invoked.status.code(), Some(0), "{invoked:?}");
    let failed = platform.cli(&["invoke", "flaky", "--path", "/flaky/raise"]);
    assert!(matches!(failed.status.code(), Some(0 | 7)), "{failed:?}");
    let ready =
        crate::platform::call(platform.api, Request::get("/readyz").body(Bytes::new()).expect("a request"));
    assert_eq!(ready.status(), 200);
}

#[test]
fn the_ancestors_handler_and_verbs_work_unchanged() {
    let platform = up().start();
    let dir = tempfile::tempdir().expect("a directory");
    let code = dir.path().join("handler.py");
    std::fs::write(
        &code,
        "def handler(message, context):\n    print(message['verb'])\n    return {'result': message['body']['arg'] * 2}\n",
    )
    .expect("written");
    let code = code.to_str().expect("UTF-8");
    let created =
        platform.cli(&["create", "--name", "twice", "--http-verb", "post", "-P", "/twice", "-f", code]);
    assert_eq!(created.status.code(), Some(0), "{created:?}");
    let request = Request::post("/twice").body(Bytes::from_static(b"{\"arg\": 21}")).expect("a request");
    let answer = platform.call(request);
    assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (200, &b"{\"result\": 42}"[..]));
    let triggered = platform.cli(&["trigger", "-X", "POST", "-P", "/twice", "-d", "{\"arg\": 1}"]);
    let id = triggered.stdout.trim().to_owned();
    assert_eq!((triggered.status.code(), id.lines().count()), (Some(0), 1), "{triggered:?}");
    wait_until(|| platform.cli(&["logs", &id]).stdout == "POST\n");
    std::fs::write(code, "def handler(message, context)\n").expect("written");
    let refused = platform.cli(&["create", "--name", "twice", "-X", "post", "-P", "/twice", "-f", code]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(refused.stderr.contains("line 1"), "{refused:?}");
    assert_eq!(platform.cli(&["delete", "twice"]).status.code(), Some(0));
    assert_eq!(platform.cli(&["delete", "twice"]).status.code(), Some(3));
    assert_eq!(platform.get("/twice").status(), 404);
}

#[test]
fn a_directory_is_deployed_to_a_running_platform() {
    let platform = up().start();
    let hello = examples().join("hello");
    let deployed = platform.cli(&["deploy", hello.to_str().expect("UTF-8")]);
    assert_eq!(deployed.status.code(), Some(0), "{deployed:?}");
    assert_eq!(platform.get("/hello").status(), 200);
    let function = platform.api("/functions/hello");
    assert_eq!(function["function_name"], "hello");
    let objective = platform.cli(&["slo", "show", "hello"]);
    assert!(objective.stdout.contains("99.9"), "{objective:?}");
}

#[test]
fn the_printed_lines_run_as_printed() {
    if Command::new("curl").arg("--version").output().is_err() {
        return skip("curl", "there is no curl here");
    }
    let raising = tempfile::tempdir().expect("a directory");
    let write = |file: &str, text: &str| std::fs::write(raising.path().join(file), text).expect("written");
    write("function.toml", "name = \"raising\"\nevents = [\"http|GET|/raising\"]\n");
    write("handler.py", "def handler(message, context):\n    raise ValueError\n");
    // Nobody vouches for the second, so that it is none to try.
    for (dir, calls) in [(examples(), 2), (raising.path().to_owned(), 0)] {
        let lines = printed_lines_succeed(&dir);
        let functions = lines.iter().filter(|line| line.contains("/hello") || line.contains("/async"));
        assert_eq!(functions.count(), calls, "{lines:#?}");
    }
}

/// The lines to try that `up` prints for a directory, all of which answer 2xx.
fn printed_lines_succeed(dir: &std::path::Path) -> Vec<String> {
    let data = tempfile::tempdir().expect("a directory");
    let mut child = program()
        .arg("up")
        .arg(dir)
        .args(["--gateway-addr", ":0", "--api-addr", ":0", "--traces-addr", ":0", "--data-dir"])
        .arg(data.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let lines: Vec<_> =
        out.lines().map_while(Result::ok).take_while(|line| !line.starts_with("stop with")).collect();
    let curls: Vec<_> = lines.iter().filter(|line| line.starts_with("curl ")).cloned().collect();
    let statuses: Vec<_> = curls.iter().map(|line| status_of(line)).collect();
    Command::new("kill").arg(child.id().to_string()).status().expect("kill runs");
    let ended = child.wait().expect("our child");
    assert_eq!(curls.len(), 3, "{lines:#?}");
    assert!(statuses.iter().all(|status| status.starts_with('2')), "{curls:#?} {statuses:?}");
    assert!(ended.success(), "{ended}");
    curls
}

fn status_of(line: &str) -> String {
    let command = format!("{line} -s -o /dev/null -m 20 -w '%{{http_code}}'");
    let output = Command::new("sh").args(["-c", &command]).output().expect("sh runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asks again until it is so; the test fails after ten seconds.
fn wait_until(mut is_so: impl FnMut() -> bool) {
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !is_so() {
        assert!(std::time::Instant::now() < limit, "it never was so");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_refused_function_is_named_and_its_later_deploy_makes_the_platform_ready() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |function: &str, file: &str, text: &str| {
        std::fs::create_dir_all(dir.path().join(function)).expect("a directory");
        std::fs::write(dir.path().join(function).join(file), text).expect("written");
    };
    let sound = "def handler(message, context):\n    return 1\n";
    write("well", "function.toml", "name = \"well\"\nevents = [\"http|GET|/well\"]\n");
    write("well", "handler.py", sound);
    write("broken", "function.toml", "name = \"named\"\nevents = [\"http|GET|/named\"]\n");
    write("broken", "handler.py", "import no_such_module\n");
    write("unreadable", "function.toml", "name = ");
    let platform = up().arg(dir.path()).start();
    let ready = || {
        let request = Request::get("/readyz").body(Bytes::new()).expect("a request");
        let answer = crate::platform::call(platform.api, request);
        let body: serde_json::Value = serde_json::from_slice(answer.body()).expect("JSON");
        (answer.status().as_u16(), body)
    };
    let (status, body) = ready();
    let names: Vec<_> = body["refused"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["function"].as_str())
        .collect();
    assert_eq!((status, names), (503, vec!["named", "unreadable"]));
    assert!(body["refused"][0]["detail"].as_str().expect("text").contains("no_such_module"), "{body}");
    wait_until(|| platform.stderr().contains("2 of 3 functions refused: named, unreadable"));
    assert_eq!(platform.get("/well").status(), 200);
    write("broken", "handler.py", sound);
    let deploy = |function: &str| {
        let path = dir.path().join(function);
        let ran = platform.cli(&["deploy", path.to_str().expect("UTF-8")]);
        assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    };
    deploy("broken");
    assert_eq!(ready().1["detail"], "not deployed, because refused: unreadable");
    write("unreadable", "function.toml", "name = \"unreadable\"\nevents = [\"http|GET|/unreadable\"]\n");
    write("unreadable", "handler.py", sound);
    deploy("unreadable");
    assert_eq!(ready().0, 200);
}
