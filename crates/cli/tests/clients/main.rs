//! The client verbs against a scripted server: what they send, what they print, how they end.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test says what failed by failing"))]

mod explaining;
mod simulating;
mod stub;
mod tenancy;

use insta::assert_snapshot;
use serde_json::json;
use stub::{Stub, answer, command, ok, problem, run};

const FUNCTIONS: &str = r#"{"http|GET|/cats/{id}":[{"event_type":"http|GET|/cats/{id}","function_name":"cats","version":3},{"event_type":"http|GET|/cats/{id}","function_name":"audit","version":1}],"http|POST|/thumbs":[{"event_type":"http|POST|/thumbs","function_name":"thumbs","version":1}]}"#;

#[test]
fn every_verb_has_help_that_reads_well() {
    let overview = run(command().arg("--help"));
    assert_eq!(overview.exit, 0);
    assert_snapshot!("help", overview.stdout);
    let verbs = overview.stdout.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in verbs.take_while(|line| line.starts_with("  ")) {
        let verb = line.split_whitespace().next().unwrap();
        if verb != "help" {
            let help = run(command().args([verb, "--help"]));
            assert_eq!((help.exit, help.stderr.as_str()), (0, ""), "{verb}");
            assert_snapshot!(format!("help-{verb}"), help.stdout);
        }
    }
}

#[test]
fn the_version_is_printed() {
    let ran = run(command().arg("--version"));
    assert_eq!((ran.exit, ran.stdout), (0, format!("functionsplatform {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn functions_are_listed_as_a_table_and_unchanged_as_json() {
    let stub = Stub::start([ok("GET /functions", FUNCTIONS)]);
    assert_snapshot!(stub.run(&["list"]), @r"
    exit code 0
    --- stdout
    EVENT TYPE           FUNCTION  VERSION
    http|GET|/cats/{id}  cats      3
    http|GET|/cats/{id}  audit     1
    http|POST|/thumbs    thumbs    1

    --- stderr
    ");
    assert_eq!(stub.run(&["list", "--output", "json"]).stdout, format!("{FUNCTIONS}\n"));
}

#[test]
fn the_filter_matches_event_types_and_names() {
    let stub = Stub::start([ok("GET /functions", FUNCTIONS)]);
    let names = |filter: &str| stub.run(&["list", "--filter", filter]).stdout;
    assert!(names("http|POST|*").contains("thumbs") && !names("http|POST|*").contains("cats"));
    assert!(names("a*t").contains("audit") && !names("a*t").contains("cats  "));
    assert_snapshot!(stub.run(&["list", "--filter", "dogs"]), @r#"
    exit code 0
    --- stdout

    --- stderr
    no function's event type or name matches "dogs"
    "#);
    let filtered: serde_json::Value =
        serde_json::from_str(&stub.run(&["--output=json", "list", "--filter=thumbs"]).stdout).unwrap();
    assert_eq!(filtered.as_object().unwrap().len(), 1);
    let cats = stub.run(&["--output=json", "list", "--filter=audit"]).stdout;
    let entry = r#"{"event_type":"http|GET|/cats/{id}","function_name":"audit","version":1}"#;
    assert_eq!(cats, format!("{{\"http|GET|/cats/{{id}}\":[{entry}]}}\n"), "entries as the API wrote them");
}

#[test]
fn a_function_is_created_from_a_file() {
    let stub = Stub::start([ok(
        "POST /functions",
        r#"{"status":"ok","function_name":"cats","version":2,"event_types":["http|GET|/cats"]}"#,
    )]);
    let dir = tempfile::tempdir().unwrap();
    let code = dir.path().join("handler.py");
    let settings = dir.path().join("settings.toml");
    std::fs::write(&code, "def handler(message, context):\n    return {}\n").unwrap();
    std::fs::write(&settings, "timeout = \"5s\"\n[scaling]\nmax = 2\n").unwrap();
    let (code, settings) = (code.to_str().unwrap(), settings.to_str().unwrap());
    let ran = stub.run(&["create", "--name", "cats", "--http-verb", "get", "-P", "/cats", "-f", code]);
    assert_snapshot!(ran, @r"
    exit code 0
    --- stdout
    cats version 2 answers GET /cats

    --- stderr
    ");
    let body = json!({
        "event_type": "http|GET|/cats",
        "function_code": "def handler(message, context):\n    return {}\n",
        "function_name": "cats",
    });
    assert_eq!(stub.last().json(), body);
    stub.run(&[
        "create",
        "--name=cats",
        "-X",
        "PuT",
        "-P=/cats",
        "--code-file",
        code,
        "--settings",
        settings,
    ]);
    assert_eq!(stub.last().json()["settings"], json!({"timeout": "5s", "scaling": {"max": 2}}));
    assert_eq!(stub.last().json()["event_type"], "http|PUT|/cats");
}

#[test]
fn a_refused_function_is_shown_with_its_line_and_traceback() {
    let stub = Stub::start([problem(
        "POST /functions",
        422,
        r#"{"code":"handler_not_loadable","title":"The handler cannot be loaded","detail":"SyntaxError: invalid syntax","line":3,"field":"function_code","traceback":"  File \"handler.py\", line 3\n    retrun 1","hint":"Fix the code."}"#,
    )]);
    let dir = tempfile::tempdir().unwrap();
    let code = dir.path().join("handler.py");
    std::fs::write(&code, "x").unwrap();
    let ran = stub.run(&["create", "--name=cats", "-P=/cats", "-f", code.to_str().unwrap()]);
    assert_snapshot!(ran, @r#"
    exit code 4
    --- stdout

    --- stderr
    error: The handler cannot be loaded: SyntaxError: invalid syntax (field function_code, line 3)
      File "handler.py", line 3
        retrun 1
    hint: Fix the code.
    "#);
}

#[test]
fn error_statuses_have_the_exit_codes_of_the_table() {
    for (status, exit) in [(401, 5), (403, 5), (404, 3), (409, 4), (413, 4), (422, 4), (429, 8), (500, 1)] {
        let stub = Stub::start([problem("DELETE /functions/cats", status, r#"{"title":"No"}"#)]);
        let ran = stub.run(&["delete", "cats"]);
        assert_eq!((ran.exit, ran.stderr.as_str()), (exit, "error: No\n"), "{status}");
    }
}

#[test]
fn a_platform_that_is_not_there_is_unreachable() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ran = run(command().args(["list", "--platform-uri", &format!("http://{port}")]));
    assert_eq!(ran.exit, 6);
    assert!(
        ran.stderr.starts_with(&format!("error: cannot reach http://{port}: connection refused\n")),
        "{ran}"
    );
}

#[test]
fn a_wrong_command_line_is_told_before_anything_is_sent() {
    let stub = Stub::start([]);
    for wrong in [
        &["frobnicate"][..],
        &["list", "--output", "xml"],
        &["create", "--name", "x"],
        &["trigger", "-P", "no-slash"],
        &["trigger", "-P", "/x", "-H", "no name: x"],
        &["bench", "http://127.0.0.1:1/", "--rate", "0"],
        &["bench", "ftp://127.0.0.1:1/", "--rate", "1"],
        &["list", "--platform-uri", "ftp://x"],
        &[],
    ] {
        let ran = stub.run(wrong);
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{wrong:?}: {ran}");
    }
    assert!(stub.seen().is_empty());
}

#[test]
fn the_flag_wins_over_the_environment_and_the_key_is_sent() {
    let stub = Stub::start([ok("GET /functions", "{}")]);
    let other = Stub::start([]);
    let uri = |stub: &Stub| stub.run(&["list"]).exit;
    assert_eq!((uri(&stub), uri(&other)), (0, 3));
    let listed = stub.run(&["list", "--key", "s3cret"]);
    assert_eq!(listed.stderr, "no functions yet; create one with `functionsplatform deploy DIR`\n");
    assert_eq!(stub.last().headers["authorization"], "Bearer s3cret");
    let mut by_flag = command();
    by_flag.env("FUNCTIONSPLATFORM_URI", "http://127.0.0.1:1").env("FUNCTIONSPLATFORM_OUTPUT", "json");
    let ran = run(by_flag.args(["list", "--platform-uri", &stub.uri()]));
    assert_eq!((ran.exit, ran.stdout.as_str()), (0, "{}\n"));
}

#[test]
fn a_call_is_triggered_with_its_headers_and_body() {
    let stub =
        Stub::start([ok("POST /functions/trigger", r#"{"status":"ok","container_ids":["0192a","0192b"]}"#)]);
    let ran = stub.run(&[
        "trigger",
        "-X",
        "post",
        "-P",
        "/x",
        "-d",
        "{\"a\":1}",
        "-H",
        "X-One: 1",
        "-H",
        "X-Two:2",
        "-H",
        "no header at all",
    ]);
    assert_eq!((ran.exit, ran.stdout.as_str()), (0, "0192a\n0192b\n"));
    let body = json!({
        "http_header": "X-One: 1\nX-Two: 2", "http_body": "{\"a\":1}", "http_path": "/x", "http_verb": "POST",
    });
    assert_eq!(stub.last().json(), body);
}

#[test]
fn logs_come_out_exactly() {
    let stub = Stub::start([
        ok("GET /functions/instances/i1/logs", r#"{"logs":"one\n\ttwo ü without newline"}"#),
        problem(
            "GET /functions/instances/i2/logs",
            404,
            r#"{"title":"Not kept","detail":"i2","reason":"sampled_out"}"#,
        ),
    ]);
    let ran = stub.run(&["logs", "i1"]);
    assert_eq!((ran.exit, ran.stdout.as_str(), ran.stderr.as_str()), (0, "one\n\ttwo ü without newline", ""));
    assert_eq!(stub.run(&["logs", "i2"]).exit, 3);
}

#[test]
fn instances_are_listed_and_looked_up() {
    let id = "01920192019201920192019201920192";
    let entry = format!(
        r#"{{"container_id":"{id}","instance_id":"{id}","function_name":"cats","id":"{id}","function":"cats","version":2,"state":"done","outcome":"ok","status":200,"duration_ms":1.25,"started_at":"2026-01-01T00:00:00Z","reason":null,"phases":{{"route":0.1,"queue":0.0,"start":0.0,"run":1.0,"send":0.15}},"attempts":1}}"#
    );
    let stub = Stub::start([
        ok("GET /functions/instances", &format!("[{entry}]")),
        ok(&format!("GET /functions/instances/{id}"), &entry),
    ]);
    assert_snapshot!("instances", stub.run(&["list-instances"]));
    assert_snapshot!("instance", stub.run(&["lookup-instance", id]));
    assert_eq!(stub.run(&["lookup-instance", id, "--output", "json"]).stdout, format!("{entry}\n"));
}

#[test]
fn a_directory_of_functions_is_deployed_one_by_one() {
    let stub = Stub::start([
        ok("PUT /functions/a", r#"{"status":"ok","version":1}"#),
        problem("PUT /functions/b", 422, r#"{"title":"The manifest is wrong","detail":"unknown key nam"}"#),
        ok("PUT /functions/c", r#"{"status":"ok","version":4}"#),
    ]);
    let parent = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        let dir = parent.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("function.toml"), format!("name = \"{name}\"\n")).unwrap();
        std::fs::write(dir.join("handler.py"), "def handler(m, c): pass\n").unwrap();
    }
    let path = parent.path().to_str().unwrap();
    let ran = stub.run(&["deploy", path]);
    assert_snapshot!(ran.to_string().replace(path, "DIR"), @r"
    exit code 4
    --- stdout
    a version 1 is deployed
    c version 4 is deployed

    --- stderr
    error: DIR/b: The manifest is wrong: unknown key nam
    ");
    let seen = stub.last();
    assert_eq!(
        (seen.line.as_str(), &seen.headers["content-type"]),
        ("PUT /functions/c", &"application/zip".parse().unwrap())
    );
    assert!(seen.body.starts_with(b"PK"));
    assert_eq!(stub.run(&["deploy", "/does/not/exist"]).exit, 1);
}

fn invocable(invoked: stub::Canned) -> Stub {
    Stub::start([
        ok("GET /functions/cats", r#"{"function_name":"cats","event_types":["http|POST|/cats/{id}"]}"#),
        ok("GET /functions/dogs", r#"{"function_name":"dogs","event_types":["http|GET|/dogs"]}"#),
        invoked,
    ])
}

#[test]
fn a_function_is_invoked_by_its_name() {
    let stub = invocable(ok("POST /functions/cats/invoke", r#"{"cat":7}"#));
    let ran = stub.run(&["invoke", "cats", "--path", "/cats/7?full=1", "-d", "{}", "-H", "X-A: b"]);
    assert_eq!((ran.exit, ran.stdout.as_str(), ran.stderr.as_str()), (0, r#"{"cat":7}"#, ""));
    let sent = serde_json::json!({
        "http_verb": "POST", "http_path": "/cats/7?full=1", "http_header": "X-A: b", "http_body": "{}"
    });
    assert_eq!(stub.last().json(), sent);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("body");
    std::fs::write(&file, [0, 159]).expect("written");
    stub.run(&["invoke", "cats", "--path", "/cats/7", "-d", &format!("@{}", file.display())]);
    assert_eq!(stub.last().json()["http_body_base64"], "AJ8=");
    let without_path = stub.run(&["invoke", "cats"]);
    assert_eq!(without_path.exit, 2);
    assert!(without_path.stderr.contains("/cats/{id}"), "{without_path}");
    assert_eq!(stub.run(&["invoke", "nobody"]).exit, 3);
}

#[test]
fn a_failed_invocation_has_an_exit_code_of_its_own() {
    for (status, code, exit) in [
        (500, "function_error", 7),
        (504, "timeout", 7),
        (503, "shed", 8),
        (429, "quota_exceeded", 8),
        (500, "platform_error", 1),
    ] {
        let body = format!(r#"{{"code":"{code}","title":"Title","detail":"detail","hint":"Hint."}}"#);
        let stub = invocable(problem("POST /functions/dogs/invoke", status, &body));
        let ran = stub.run(&["invoke", "dogs"]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (exit, ""), "{code}");
        assert_eq!(ran.stderr, "error: Title: detail\nhint: Hint.\n");
    }
    let own = invocable(answer("POST /functions/dogs/invoke", 503, "text/plain", "closed on Sundays"));
    let ran = own.run(&["invoke", "dogs"]);
    assert_eq!((ran.exit, ran.stdout.as_str()), (7, "closed on Sundays"));
}

#[test]
fn routes_are_explained() {
    let stub = Stub::start([ok("GET /functions", FUNCTIONS)]);
    assert_snapshot!(stub.run(&["explain", "route", "get", "/cats/7"]), @r#"
    exit code 0
    --- stdout
    GET /cats/7 is answered by cats (http|GET|/cats/{id})
    it is the only route for this verb and path
    path_params: id = "7"
    it was created first and answers; audit run as well

    --- stderr
    "#);
    assert_eq!(stub.run(&["explain", "route", "POST", "/cats/7"]).exit, 3);
    assert_eq!(stub.run(&["explain", "route", "GET", "/nothing"]).exit, 3);
}

#[test]
fn codes_are_explained_without_a_platform() {
    let ran = run(command().args(["explain", "code", "shed"]));
    assert_eq!(ran.exit, 0);
    assert!(ran.stdout.starts_with("shed: "), "{ran}");
    let unknown = run(command().args(["explain", "code", "frobnicated"]));
    assert_eq!(unknown.exit, 3);
    let all: Vec<serde_json::Value> =
        serde_json::from_str(&run(command().args(["explain", "code", "--output", "json"])).stdout).unwrap();
    assert!(all.iter().any(|code| code["code"] == "timeout"));
}

#[test]
fn an_objective_is_shown() {
    let stub = Stub::start([
        ok(
            "GET /slo/functions/cats",
            r#"{"function":"cats","slo":{"window_days":30,"availability":99.9,"latency":{"under_ms":250.0,"percent":99.0},"burn":[{"window":"5m","availability":0.5,"latency":null}],"alerts":[]},"budget":[{"objective":"availability","left":[1.0,0.5,0.0]}],"alerts":[]}"#,
        ),
        ok(
            "GET /slo/alerts",
            r#"{"items":[{"id":"x","function":"cats","objective":"availability","severity":"page","state":"firing","long":"1h","short":"5m","began_at":"2026-01-31T12:00:00Z","ended_at":null,"bad":7,"culprit":{"phase":"run","span":"db"},"calls":[{"trace_id":"abc"}]}],"next":null}"#,
        ),
    ]);
    let table = stub.run(&["slo", "show", "cats"]);
    let lines: Vec<_> = table.stdout.lines().map(str::trim_end).collect();
    let expected = [
        "availability         99.9",
        "latency.percent      99.0",
        "latency.under_ms     250.0",
        "window_days          30",
        "budget.availability  █▅▁",
        "",
        "BURN OVER  AVAILABILITY  LATENCY",
        "5m         0.5           -",
        "",
    ];
    assert_eq!((lines.as_slice(), table.stderr.as_str()), (&expected[..], "no alerts\n"));
    let json = stub.run(&["slo", "show", "cats", "--output", "json"]);
    assert!(
        json.stdout.starts_with(r#"{"function":"cats","slo":{"window_days":30,"availability":99.9,"#),
        "{json}"
    );
    assert_eq!(stub.run(&["slo", "show", "dogs"]).exit, 3);
    let alerts = stub.run(&["slo", "alerts"]);
    assert!(
        ["page 1h", "firing", "run: db", "abc"].iter().all(|word| alerts.stdout.contains(word)),
        "{alerts}"
    );
}

#[test]
fn completions_and_pages_are_written() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let ran = run(command().args(["completions", shell]));
        assert!(ran.exit == 0 && ran.stdout.contains("lookup-instance"), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(command().args(["man", dir.path().to_str().unwrap()])).exit, 0);
    for page in ["functionsplatform.1", "functionsplatform-bench.1", "functionsplatform-slo-show.1"] {
        assert!(std::fs::read_to_string(dir.path().join(page)).unwrap().contains(".TH"), "{page}");
    }
    assert!(
        run(command().arg("man")).stdout.contains("EXIT")
            || run(command().arg("man")).stdout.contains("Exit codes")
    );
}

#[test]
fn a_scenario_is_played_the_same_every_time() {
    let ran = run(command().args(["simulate", "step"]));
    assert_eq!(ran.exit, 0, "{ran}");
    assert!(ran.stdout.contains("workers: "), "{ran}");
    assert_eq!(ran.stdout, run(command().args(["simulate", "step"])).stdout);
    let report: serde_json::Value =
        serde_json::from_str(&run(command().args(["simulate", "step", "--output", "json"])).stdout).unwrap();
    assert!(report["total"]["answered"].as_u64().unwrap() > 0);
    let listed = run(command().arg("simulate"));
    assert!(listed.stdout.contains("overload"), "{listed}");
    let dir = tempfile::tempdir().unwrap();
    let wrong = dir.path().join("wrong.toml");
    std::fs::write(&wrong, "nam = \"x\"\n").unwrap();
    assert_eq!(run(command().args(["simulate", wrong.to_str().unwrap()])).exit, 2);
    assert_eq!(run(command().args(["simulate", "no-such-file"])).exit, 1);
}
