//! What an outside audit found, so that it stays mended: wrong input is refused where it comes
//! in, in words that fit, and is nobody else's fault.

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::edge::raw;
use crate::platform::{Platform, call, up};

const ECHO: &str = "def handler(message, context):\n    return {'len': len(message['raw_body'])}\n";

fn post(path: &str, body: &Value) -> Request<Bytes> {
    let request = Request::post(path).header("content-type", "application/json");
    request.body(Bytes::from(body.to_string())).expect("a request")
}

fn create(platform: &Platform, name: &str, event: &str, code: &str, settings: &Value) -> Response<Bytes> {
    let body =
        json!({"function_name": name, "event_type": event, "function_code": code, "settings": settings});
    call(platform.api, post("/functions", &body))
}

fn problem(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap_or_else(|_| panic!("no JSON: {response:?}"))
}

fn outcomes(platform: &Platform, function: &str) -> Vec<String> {
    let records = platform.api(&format!("/invocations?function={function}"));
    let items = records["items"].as_array().expect("items");
    items.iter().map(|item| item["outcome"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_callers_mistake_is_refused_alike_at_every_way_in() {
    let platform = up().start();
    let made = create(&platform, "small", "http|POST|/small", ECHO, &json!({"limits": {"body": "64KiB"}}));
    assert_eq!(made.status(), 200, "{made:?}");
    let digits = format!("1{}", "0".repeat(5000));
    let sent = |ty: &str, body: &str| {
        let request = Request::post("/small").header("content-type", ty);
        platform.call(request.body(Bytes::from(body.to_owned())).expect("a request"))
    };
    for (content_type, body) in
        [("application/json", digits.as_str()), ("x/y+json", "{"), ("Application/JSON;a=b", "[")]
    {
        let answer = sent(content_type, body);
        assert_eq!((answer.status().as_u16(), &problem(&answer)["code"]), (400, &json!("invalid_body")));
    }
    assert_eq!(sent("text/plain; charset=idna", &format!("xn--{}", "a".repeat(99))).status(), 200);
    let refusals = [
        (json!({"http_header": "Content-Type: application/json", "http_body": "{bad"}), 400, "invalid_body"),
        (json!({"http_header": "Content-Type: application/json", "http_body": digits}), 400, "invalid_body"),
        (json!({"http_body": "x".repeat(70_000)}), 413, "too_large"),
        (json!({"http_header": "X-Request-Timeout: bogus", "http_body": "x"}), 400, "invalid_deadline"),
    ];
    for route in ["/functions/trigger", "/functions/small/invoke"] {
        for (request, status, code) in &refusals {
            let mut request = request.clone();
            request["http_verb"] = "post".into();
            request["http_path"] = "/small".into();
            let answer = call(platform.api, post(route, &request));
            assert_eq!(
                (answer.status().as_u16(), &problem(&answer)["code"]),
                (*status, &json!(code)),
                "{route}"
            );
            assert!(*status != 413 || problem(&answer)["limit_bytes"] == 65536, "{answer:?}");
        }
    }
    assert_eq!(outcomes(&platform, "small"), ["too_large", "ok"]);
}

#[test]
fn who_answers_no_event_is_called_by_name() {
    let platform = up().start();
    let source = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(source.path().join(name), text).expect("written");
    write("function.toml", "name = \"inner\"\nhandler = \"main.py:handler\"\n");
    write("main.py", "def handler(message, context):\n    return message['verb'] + message['path']\n");
    let deployed = platform.cli(&["deploy", source.path().to_str().expect("text")]);
    assert!(deployed.status.success(), "{deployed:?}");
    for (arguments, said) in [
        (&["invoke", "inner"][..], "GET/"),
        (&["invoke", "inner", "-d", "x"], "POST/"),
        (&["invoke", "inner", "-X", "PUT", "-P", "/any/where"], "PUT/any/where"),
    ] {
        let ran = platform.cli(arguments);
        assert_eq!((ran.status.code(), ran.stdout.trim()), (Some(0), said), "{ran:?}");
    }
    let unreachable = platform.get("/any/where");
    assert_eq!(unreachable.status(), 404);
}

#[test]
fn invoke_runs_the_named_function_and_no_other() {
    let platform = up().start();
    let one = "def handler(message, context):\n    return {'who': 1}\n";
    let two = "def handler(message, context):\n    raise ValueError(message['headers']['host'])\n";
    assert_eq!(create(&platform, "one", "http|GET|/shared/{id}", one, &json!({})).status(), 200);
    assert_eq!(create(&platform, "two", "http|GET|/shared/{id}", two, &json!({})).status(), 200);
    let first = platform.cli(&["invoke", "one", "-P", "/shared/7"]);
    assert_eq!((first.status.code(), first.stdout.trim()), (Some(0), "{\"who\": 1}"), "{first:?}");
    let second = platform.cli(&["invoke", "two", "-P", "/shared/7"]);
    assert_eq!(second.status.code(), Some(7), "{second:?}");
    assert!(second.stderr.contains("ValueError") && second.stdout.is_empty(), "{second:?}");
    assert_eq!(platform.cli(&["invoke", "two", "-P", "/elsewhere"]).status.code(), Some(4));
    assert_eq!((outcomes(&platform, "one").len(), outcomes(&platform, "two").len()), (1, 1));
    let request = json!({"http_verb": "GET", "http_path": "/shared/7"});
    let answer = call(platform.api, post("/functions/one/invoke", &request));
    assert!(answer.headers().contains_key("x-serverless-instance-id"), "{answer:?}");
    assert_eq!(answer.body().as_ref(), b"{\"who\": 1}");
}

#[test]
fn what_is_refused_or_deleted_leaves_no_code() {
    let platform = up().start();
    let stored = || {
        let entries = std::fs::read_dir(platform.data_dir().join("code")).expect("the code store");
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let manifest = "name = \"zipped\"\nevents = [\"http|GET|/zipped\"]\n";
    let long = "n".repeat(300);
    for entries in [vec![long.as_str()], vec!["a", "a/b"], vec!["handler.py", "a/./b"]] {
        let files = entries.iter().map(|name| (*name, "x")).chain([("function.toml", manifest)]);
        let request = Request::put("/functions/zipped").header("content-type", "application/zip");
        let answer = call(platform.api, request.body(archive(files)).expect("a request"));
        let said = problem(&answer);
        assert_eq!((answer.status().as_u16(), &said["blame"]), (422, &json!("caller")), "{said}");
        assert!(said["detail"].as_str().expect("text").contains(entries.last().expect("one")), "{said}");
    }
    for (settings, field) in [(json!({"path": ["nope"]}), "path"), (json!({"secrets": ["KEY"]}), "secrets")] {
        let answer = create(&platform, "bad", "http|GET|/bad", ECHO, &settings);
        assert_eq!((answer.status().as_u16(), &problem(&answer)["field"]), (422, &json!(field)));
    }
    assert_eq!(create(&platform, "bad", "http|GET|/bad", "def handler(", &json!({})).status(), 422);
    wait_until(|| stored().is_empty());
    for code in [ECHO, "def handler(message, context):\n    return 2\n"] {
        assert_eq!(create(&platform, "good", "http|GET|/good", code, &json!({})).status(), 200);
    }
    assert_eq!(create(&platform, "twin", "http|GET|/twin", ECHO, &json!({})).status(), 200);
    wait_until(|| stored().len() == 2);
    assert_eq!(platform.cli(&["delete", "good"]).status.code(), Some(0));
    wait_until(|| stored().len() == 1);
    assert_eq!(platform.get("/twin").status(), 200);
}

#[test]
fn accepted_calls_of_a_deleted_function_say_why_they_never_ran() {
    let platform = up().start();
    let slow = "import time\ndef handler(message, context):\n    time.sleep(1)\n";
    let one_at_once = json!({"scaling": {"max": 1}});
    assert_eq!(create(&platform, "slow", "http|POST|/slow", slow, &one_at_once).status(), 200);
    let request = json!({"http_verb": "POST", "http_path": "/slow"});
    for _ in 0..3 {
        assert_eq!(call(platform.api, post("/functions/trigger", &request)).status(), 200);
    }
    wait_until(|| {
        let workers = platform.api("/workers");
        workers["items"].as_array().expect("items").iter().any(|worker| worker["state"] == "busy")
    });
    assert_eq!(platform.cli(&["delete", "slow"]).status.code(), Some(0));
    wait_until(|| outcomes(&platform, "slow") == ["shed", "shed", "ok"]);
    let records = platform.api("/invocations?function=slow&outcome=shed");
    for item in records["items"].as_array().expect("items") {
        assert!(item["error"].as_str().expect("a reason").contains("was deleted"), "{item}");
    }
}

const GREEDY: &str = "\
import os, time
kept = []
def handler(message, context):
    what = message['path_params']['what']
    if what == 'memory':
        return len(bytearray(1 << 60))
    while what == 'tasks':
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    while what == 'files':
        kept.append(open('/dev/null'))
    return os.getpid()
";

const CHAIN: &str = "\
import os, urllib.request
def handler(message, context):
    if message['query'].get('deep'):
        return 1
    with context.tracer.start_as_current_span('outside'):
        url = os.environ['FUNCTIONSPLATFORM_GATEWAY'] + '/chain?deep=1'
        request = urllib.request.Request(url, headers={'traceparent': context.recorder.traceparent()})
        return urllib.request.urlopen(request).read().decode()
";

#[test]
fn records_say_which_limit_was_hit_and_when_work_was_done() {
    let platform = up().start();
    let made = create(&platform, "greedy", "http|GET|/greedy/{what}", GREEDY, &json!({"tasks": 16}));
    assert_eq!(made.status(), 200, "{made:?}");
    for what in ["memory", "tasks", "files"] {
        let answer = platform.get(&format!("/greedy/{what}"));
        let said = problem(&answer);
        if what == "tasks" && answer.status() == 504 {
            println!("skipped: nothing bounds tasks here");
            continue;
        }
        assert_eq!((&said["code"], &said["limit_hit"]), (&json!("function_error"), &json!(what)), "{said}");
        let record =
            platform.api(&format!("/invocations/{}", said["invocation_id"].as_str().expect("an id")));
        assert_eq!(record["limit_hit"], what, "{record}");
        assert_eq!(platform.get("/greedy/nothing").status(), 200, "after {what} the function goes on");
    }

    assert_eq!(create(&platform, "chain", "http|GET|/chain", CHAIN, &json!({})).status(), 200);
    assert_eq!(platform.get("/chain").status(), 200, "two workers are warm from here on");
    let answer = platform.get("/chain");
    assert_eq!(answer.status(), 200, "{answer:?}");
    let trace = &answer.headers()["traceparent"].to_str().expect("text")[3..35];
    let request = Request::get(format!("/api/traces/{trace}")).body(Bytes::new()).expect("a request");
    let found = problem(&call(platform.traces, request));
    let spans = found["data"][0]["spans"].as_array().expect("spans");
    let of = |wanted: &dyn Fn(&Value) -> bool| {
        let span = spans.iter().find(|span| wanted(span)).unwrap_or_else(|| panic!("{found:#}"));
        let start = span["startTime"].as_u64().expect("microseconds");
        (start, start + span["duration"].as_u64().expect("microseconds"))
    };
    let outside = of(&|span| span["operationName"] == "outside");
    let id = &spans.iter().find(|span| span["operationName"] == "outside").expect("found above")["spanID"];
    let inside = of(&|span| span["references"][0]["spanID"] == *id);
    // Both ends round to microseconds.
    assert!(outside.0 <= inside.0 + 2 && inside.1 <= outside.1 + 2, "{outside:?} {inside:?}");
}

#[test]
fn the_gateway_speaks_for_itself_and_a_cut_off_call_was_an_attempt() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut platform = up().data_dir(dir.path()).start();
    let sleep = "import socket, time\ndef handler(message, context):\n    socket.create_connection(('127.0.0.1', int(message['query']['tell']))).close()\n    time.sleep(60)\n";
    assert_eq!(create(&platform, "sleep", "http|POST|/sleep", sleep, &json!({})).status(), 200);
    assert_eq!(create(&platform, "quick", "http|GET|/quick", ECHO, &json!({})).status(), 200);
    let said = |request: &str, status: &str| {
        let answer = raw(&platform, request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str::<Value>(body).unwrap_or_else(|_| panic!("{answer}"))
    };
    let close = "Connection: close\r\n";
    for (request, status, code) in [
        (format!("GET /quick HTTP/1.1\r\n{close}\r\n"), "400", "bad_request"),
        (format!("GET /quick HTTP/1.1\r\nHost: a\r\nHost: b\r\n{close}\r\n"), "400", "bad_request"),
        (
            format!(
                "POST /sleep HTTP/1.1\r\nHost: a\r\n{close}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
            ),
            "501",
            "bad_request",
        ),
        (format!("POST /quick HTTP/1.1\r\nHost: a\r\n{close}\r\n"), "405", "method_not_allowed"),
    ] {
        let problem = said(&request, status);
        assert_eq!((&problem["code"], &problem["component"]), (&json!(code), &json!("gateway")), "{problem}");
        assert!(!problem["hint"].as_str().expect("text").contains("openapi"), "{problem}");
    }
    let late = said(&format!("GET /quick HTTP/1.1\r\nHost: a\r\n{close}X-Request-Timeout: 0\r\n\r\n"), "504");
    assert_eq!((&late["code"], &late["blame"]), (&json!("deadline_exceeded"), &json!("caller")), "{late}");
    assert!(late["detail"].as_str().expect("text").starts_with("the caller gave no time"), "{late}");

    // Not "running" but the handler's own word: a call that never began would be run again.
    let begun = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let path = format!("/sleep?tell={}", begun.local_addr().expect("bound").port());
    let trigger = post("/functions/trigger", &json!({"http_verb": "POST", "http_path": path}));
    let answer = call(platform.api, trigger);
    let record = format!("/invocations/{}", problem(&answer)["container_ids"][0].as_str().expect("an id"));
    begun.accept().expect("the handler has begun");
    platform.kill();
    let platform = up().data_dir(dir.path()).start();
    // Its record is made when its turn comes, which may be after the first question.
    let ask = || call(platform.api, Request::get(&record).body(Bytes::new()).expect("a request"));
    wait_until(|| ask().status() == 200 && platform.api(&record)["outcome"] == "platform_error");
    let record = platform.api(&record);
    assert_eq!((&record["attempts"], &record["blame"]), (&json!(1), &json!("platform")), "{record}");
    // It was accepted and begun at once; the platform was down for most of what follows.
    let phase = |name: &str| record["phases"][name].as_f64().expect("milliseconds");
    assert!(phase("run") > 0.0 && phase("run") > phase("queue"), "{record}");
}

#[test]
fn every_function_of_an_event_type_keeps_its_own_limit_of_bodies() {
    let platform = up().start();
    for (name, limit) in [("roomy", "1MiB"), ("narrow", "1KiB")] {
        let made = create(&platform, name, "http|POST|/both", ECHO, &json!({"limits": {"body": limit}}));
        assert_eq!(made.status(), 200, "{made:?}");
    }
    let post = |bytes| {
        platform.call(Request::post("/both").body(Bytes::from(vec![b'x'; bytes])).expect("a request"))
    };
    assert_eq!(
        (post(1 << 10).status(), post(2 << 10).status()),
        (200.try_into().expect("a status"), 200.try_into().expect("a status"))
    );
    wait_until(|| {
        outcomes(&platform, "narrow").len() == 2 && !outcomes(&platform, "narrow").contains(&String::new())
    });
    assert_eq!(outcomes(&platform, "narrow"), ["too_large", "ok"]);
    assert_eq!(outcomes(&platform, "roomy"), ["ok", "ok"]);
}

#[test]
fn an_accepted_call_runs_also_when_its_caller_left_while_it_was_written() {
    use std::io::Write as _;
    let platform = up().start();
    assert_eq!(create(&platform, "one", "http|GET|/one", ECHO, &json!({})).status(), 200);
    // While another holds the file's lock, what is to be written waits.
    let database = rusqlite::Connection::open(platform.data_dir().join("registry.db")).expect("it opens");
    database.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
    let body = json!({"http_verb": "GET", "http_path": "/one"}).to_string();
    let mut stream = std::net::TcpStream::connect(platform.api).expect("it listens");
    let head = format!(
        "POST /functions/trigger HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n",
        platform.api
    );
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("sent");
    wait_until(|| platform.api("/tenants/default/quota")["used"]["backlog"] == 1);
    drop(stream);
    // A call whose caller leaves is in the log from then on.
    wait_until(|| {
        let page = platform.api("/audit");
        let items = page["items"].as_array().expect("items");
        items.iter().any(|item| item["path"] == "/functions/trigger")
    });
    database.execute_batch("ROLLBACK").expect("it is held");
    // Writes are in the order of their asking: what this one finds written is all there will be.
    assert_eq!(create(&platform, "two", "http|GET|/two", ECHO, &json!({})).status(), 200);
    // It was accepted and has run; or, where this took so long that the platform gave up, it never was.
    let left = || -> u64 {
        database.query_row("SELECT count(*) FROM async_calls", [], |row| row.get(0)).expect("a count")
    };
    wait_until(|| platform.api("/tenants/default/quota")["used"]["backlog"] == 0 && left() == 0);
    match outcomes(&platform, "one").as_slice() {
        [] => eprintln!("skipped: the host was too slow to hold the write"),
        ended => assert_eq!(ended, ["ok"]),
    }
}

#[test]
fn an_accepted_call_never_runs_on_a_later_function_of_its_name() {
    let platform = up().start();
    let slow = "import time\ndef handler(message, context):\n    time.sleep(2)\n";
    let one_worker = json!({"scaling": {"max": 1}});
    assert_eq!(create(&platform, "one", "http|GET|/one", slow, &one_worker).status(), 200);
    let trigger = || {
        let answer =
            call(platform.api, post("/functions/trigger", &json!({"http_verb": "GET", "http_path": "/one"})));
        problem(&answer)["container_ids"][0].as_str().expect("an id").to_owned()
    };
    let (first, second) = (trigger(), trigger());
    let record = |id: &str| platform.api(&format!("/invocations/{id}"));
    wait_until(|| record(&first)["state"] == "running");
    let gone = Request::delete("/functions/one").body(Bytes::new()).expect("a request");
    assert_eq!(call(platform.api, gone).status(), 200);
    assert_eq!(create(&platform, "one", "http|GET|/one", ECHO, &json!({})).status(), 200);
    wait_until(|| [&first, &second].iter().all(|id| record(id)["state"] == "done"));
    let ended = [record(&first), record(&second)];
    assert_eq!((&ended[0]["outcome"], &ended[0]["version"]), (&json!("ok"), &json!(1)), "{}", ended[0]);
    assert_eq!((&ended[1]["outcome"], &ended[1]["version"]), (&json!("shed"), &json!(1)), "{}", ended[1]);
}

fn archive<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Bytes {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).expect("an entry");
        zip.write_all(content.as_bytes()).expect("memory takes it");
    }
    Bytes::from(zip.finish().expect("it can be closed").into_inner())
}

/// Asks again until it is so; the test fails after ten seconds.
fn wait_until(mut is_so: impl FnMut() -> bool) {
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !is_so() {
        assert!(std::time::Instant::now() < limit, "it never was so");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
