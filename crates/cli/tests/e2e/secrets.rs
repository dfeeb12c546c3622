//! Secrets from the outside: set, deployed, read, rotated, and seen nowhere but in the function.

use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use crate::platform::{self, Platform, Ran, program, up};

const FIRST: &str = "sk_live_Zq7\"first\"";
const SECOND: &str = "sk_live_Zq7-second-Xy9";

/// Answers with the value on `/value`; lets it slip in every way that it can on `/slip`.
const HANDLER: &str = r#"
import base64, json, logging, os, sys, threading
from functionsplatform import secret, SecretMissing
from functionsplatform.sdk import tracing
AT_IMPORT = secret("TOKEN")
def handler(message, context):
    value, what = secret("TOKEN"), message["path_params"]["what"]
    if what == "value":
        return {"value": value, "env": os.environ["API_TOKEN"], "import": AT_IMPORT}
    if what == "other":
        try:
            return secret("OTHER")
        except SecretMissing as error:
            return str(error)
    with tracing.span_from_context(context.tracer, context, name="span " + value) as span:
        tracing.set_attr(span, "attribute", {"inner": [value]})
        tracing.set_attr(span, value, 1)
    print("plain", value)
    print(json.dumps({"key": value}), repr(value))
    print("basic", base64.b64encode(("user:" + value).encode()).decode())
    for letter in value:
        print(letter, end="", flush=True)
        sys.stderr.write("")
    print()
    os.write(1, value[:9].encode()); os.write(1, value[9:].encode() + b"\n")
    logging.warning("logged %s", value)
    print("hex", value.encode().hex())
    if what == "raise":
        raise RuntimeError("refused: " + value)
    if what == "header":
        return {"status_code": 200, "headers": {"bad\n" + value: "x"}, "body": ""}
    return "slipped " + value
"#;

const MANIFEST: &str = "name = \"keeper\"\nevents = [\"http|*|/k/{what}\"]\nsecrets = [\"TOKEN\"]\nenv = { API_TOKEN = { secret = \"TOKEN\" } }\n[scaling]\nmax = 1\n";

fn write(dir: &Path, handler: &str) {
    std::fs::write(dir.join("function.toml"), MANIFEST).expect("written");
    std::fs::write(dir.join("handler.py"), handler).expect("written");
}

fn set(platform: &Platform, name: &str, value: &str) -> Ran {
    let mut command = program();
    command.env("FUNCTIONSPLATFORM_URI", format!("http://{}", platform.api));
    command.args(["secret", "set", name]).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut input = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut input, value.as_bytes()).expect("taken");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    Ran {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn value(platform: &Platform) -> Value {
    let answer = platform.get("/k/value");
    assert_eq!(answer.status(), 200, "{answer:?}");
    serde_json::from_slice(answer.body()).expect("JSON")
}

/// Whether a text holds a value, as it is or escaped.
fn holds(text: &str) -> bool {
    text.contains("Zq7") || text.contains(&"Zq7".bytes().map(|b| format!("{b:02x}")).collect::<String>())
}

#[test]
fn a_secret_is_set_read_rotated_and_deleted() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), HANDLER);
    let source = dir.path().to_str().expect("UTF-8");
    let platform = up().start();
    let refused = platform.cli(&["deploy", source]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(refused.stderr.contains("functionsplatform secret set TOKEN"), "{refused:?}");

    let ran = set(&platform, "TOKEN", &format!("{FIRST}\n"));
    assert_eq!((ran.status.code(), holds(&ran.stdout)), (Some(0), false), "{ran:?}");
    assert_eq!(platform.cli(&["deploy", source]).status.code(), Some(0));
    assert_eq!(value(&platform), json!({"value": FIRST, "env": FIRST, "import": FIRST}));

    let ran = set(&platform, "TOKEN", SECOND);
    assert!(ran.stdout.contains("keeper"), "{ran:?}");
    let seen = json!({"value": SECOND, "env": SECOND, "import": FIRST});
    assert_eq!(value(&platform), seen, "by the worker that has the old one in a variable");
    assert_eq!(platform.api("/functions/keeper")["version"], 1);
    let other = platform.get("/k/other");
    let told = String::from_utf8_lossy(other.body()).into_owned();
    assert!(told.contains("\"OTHER\"") || told.contains("'OTHER'"), "{told}");
    assert!(told.contains("function.toml") && told.contains("TOKEN"), "{told}");

    let listed = platform.cli(&["secret", "list"]);
    assert!(listed.stdout.contains("TOKEN") && listed.stdout.contains("keeper"), "{listed:?}");
    let refused = platform.cli(&["secret", "delete", "TOKEN"]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(refused.stderr.contains("keeper"), "{refused:?}");
    assert_eq!(platform.cli(&["secret", "delete", "TOKEN", "--force"]).status.code(), Some(0));
    assert_eq!(platform.cli(&["secret", "delete", "TOKEN"]).status.code(), Some(3));
    let answer = platform.get("/k/value");
    assert_eq!(answer.status(), 500, "{answer:?}");
    let told = String::from_utf8_lossy(answer.body()).into_owned();
    assert!(told.contains("SecretMissing") && told.contains("secret set TOKEN"), "{told}");
}

#[test]
fn a_shared_worker_sees_a_new_value_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let handler = "from functionsplatform import secret\nasync def handler(message, context):\n    return secret('TOKEN')\n";
    write(dir.path(), handler);
    let manifest = format!("concurrency = 4\n{MANIFEST}");
    std::fs::write(dir.path().join("function.toml"), manifest).expect("written");
    let platform = up().start();
    for text in [FIRST, SECOND] {
        set(&platform, "TOKEN", text);
        assert_eq!(platform.cli(&["deploy", dir.path().to_str().expect("UTF-8")]).status.code(), Some(0));
        assert_eq!(platform.get("/k/x").body(), text);
    }
    set(&platform, "TOKEN", FIRST);
    assert_eq!(platform.get("/k/x").body(), FIRST);
}

#[test]
fn nothing_that_is_kept_or_told_holds_a_value() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = tempfile::tempdir().expect("a directory");
    write(dir.path(), HANDLER);
    let source = dir.path().to_str().expect("UTF-8");
    let mut platform = up().data_dir(data.path()).start();
    set(&platform, "TOKEN", FIRST);
    set(&platform, "TOKEN", SECOND);
    assert_eq!(platform.cli(&["deploy", source]).status.code(), Some(0));
    let slipped = platform.get("/k/slip");
    assert_eq!(slipped.body(), format!("slipped {SECOND}").as_bytes(), "the answer is the handler's own");
    let raised = platform.get("/k/raise");
    assert_eq!(raised.status(), 500);
    let problem = String::from_utf8_lossy(raised.body()).into_owned();
    assert!(problem.contains("refused: ***") && !holds(&problem), "{problem}");
    let bad = platform.get("/k/header");
    assert!(!holds(&String::from_utf8_lossy(bad.body())), "{bad:?}");
    platform.get(&format!("/k/{SECOND}"));
    let named = Request::get("/k/slip").header("x-correlation-id", SECOND);
    let named = platform.call(named.body(Bytes::new()).expect("a request"));
    assert_eq!(named.headers()["x-correlation-id"], SECOND, "the caller's own word, given back");
    let trigger = json!({"http_header": "", "http_body": "", "http_path": "/k/slip", "http_verb": "GET"});
    let request = Request::post("/functions/trigger").header("content-type", "application/json");
    let accepted = platform::call(platform.api, request.body(trigger.to_string().into()).expect("a request"));
    let accepted: Value = serde_json::from_slice(accepted.body()).expect("JSON");
    let background = accepted["container_ids"][0].as_str().expect("an id").to_owned();
    let id = |answer: &http::Response<Bytes>| {
        answer.headers()["x-serverless-instance-id"].to_str().expect("text").to_owned()
    };
    let logs = platform.cli(&["logs", &id(&slipped)]).stdout;
    for line in ["plain ***\n", "{\"key\": \"***\"} '***'\n", "logged ***", "hex ***\n"] {
        assert!(logs.contains(line), "{line:?} is not in {logs}");
    }
    // Beside these the one in Base64, the letters, and what went past Python, which may come
    // anywhere and touch another.
    assert!(logs.matches("***").count() >= 7, "{logs}");
    assert!(!holds(&logs), "{logs}");
    while platform.api(&format!("/invocations/{background}"))["state"] != "done" {
        std::thread::yield_now();
    }

    // A module that raises with it while it is loaded.
    write(dir.path(), "from functionsplatform import secret\nraise ValueError(secret('TOKEN'))\n");
    let refused = platform.cli(&["deploy", source]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(refused.stderr.contains("ValueError: ***") && !holds(&refused.stderr), "{refused:?}");

    let trace = platform.api(&format!("/invocations/{}", id(&slipped)))["trace_id"].clone();
    let trace = trace.as_str().expect("an id");
    let mut paths = [
        "/functions",
        "/functions/keeper",
        "/secrets",
        "/invocations",
        "/functions/instances",
        "/metrics",
        "/workers",
    ]
    .map(str::to_owned)
    .to_vec();
    for one in [&id(&slipped), &id(&raised), &id(&bad), &background] {
        paths.extend([format!("/invocations/{one}"), format!("/functions/instances/{one}/logs")]);
    }
    for path in &paths {
        check(platform.api, path, "application/json");
    }
    let pages = ["/", "/functions/keeper", "/invocations", "/errors"].map(str::to_owned);
    for path in
        pages.iter().chain([&format!("/invocations/{}", id(&raised)), &format!("/invocations/{background}")])
    {
        check(platform.api, path, "text/html");
    }
    check(platform.traces, &format!("/api/traces/{trace}"), "application/json");
    check(platform.traces, &format!("/trace/{trace}"), "text/html");
    assert!(platform.stop().success());
    assert!(!holds(&platform.stderr()), "{}", platform.stderr());
    let mut files = 0;
    check_files(data.path(), &mut files);
    assert!(files >= 3, "the registry, its key and history");
}

fn check(address: std::net::SocketAddr, path: &str, accept: &str) {
    let request = Request::get(path).header("accept", accept).body(Bytes::new()).expect("a request");
    let answer = platform::call(address, request);
    let text = String::from_utf8_lossy(answer.body());
    assert!(!holds(&text), "{path} tells it: {text}");
}

fn check_files(dir: &Path, files: &mut usize) {
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            check_files(&path, files);
        } else if path.is_file() {
            *files += 1;
            let bytes = std::fs::read(&path).expect("a file");
            // The code has none of it.
            for text in [FIRST, SECOND, "Zq7"] {
                let found = bytes.windows(text.len()).any(|part| part == text.as_bytes());
                assert!(!found, "{text} is in {}", path.display());
            }
        }
    }
}

#[test]
fn another_key_file_a_wide_one_or_none_is_refused_and_nothing_is_lost() {
    let data = tempfile::tempdir().expect("a directory");
    let mut platform = up().data_dir(data.path()).start();
    set(&platform, "TOKEN", FIRST);
    platform.stop();
    let key = data.path().join("secrets.key");
    let refused = |says: &str| {
        let mut command = program();
        command.args(["up", "--gateway-addr=:0", "--api-addr=:0", "--traces-addr=:0", "--data-dir"]);
        let ran = platform::run(command.arg(data.path()));
        assert!(!ran.status.success() && ran.stderr.contains(says), "{says}: {ran:?}");
    };
    let chmod = |mode: &str| {
        assert!(Command::new("chmod").arg(mode).arg(&key).status().expect("it runs").success());
    };
    chmod("644");
    refused("chmod 600");
    chmod("600");
    let aside = data.path().join("aside");
    std::fs::rename(&key, &aside).expect("renamed");
    refused("is not there");
    let elsewhere = tempfile::tempdir().expect("a directory");
    let mut other = up().data_dir(elsewhere.path()).start();
    set(&other, "TOKEN", SECOND);
    other.stop();
    std::fs::copy(elsewhere.path().join("secrets.key"), &key).expect("copied");
    refused("is not the one");
    std::fs::rename(&aside, &key).expect("renamed");
    let back = up().data_dir(data.path()).start();
    assert_eq!(back.api("/secrets")["items"][0]["name"], "TOKEN");
}
