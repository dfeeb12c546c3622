//! Quotas: who has used theirs up is told which and when to come again, and nobody else notices.

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::platform::{Platform, call, up};

const ECHO: &str = "def handler(message, context):\n    return {'len': len(message['raw_body'])}\n";
const SLOW: &str = "import time\ndef handler(message, context):\n    time.sleep(1)\n";

fn json_request(request: http::request::Builder, body: &Value) -> Request<Bytes> {
    let request = request.header("content-type", "application/json");
    request.body(Bytes::from(body.to_string())).expect("a request")
}

fn create(platform: &Platform, name: &str, code: &str, settings: &Value) {
    let answer = deploy_of(platform, &function(name, code, settings));
    assert_eq!(answer.status(), 200, "{answer:?}");
}

fn function(name: &str, code: &str, settings: &Value) -> Value {
    let event = format!("http|*|/{name}");
    json!({"function_name": name, "event_type": event, "function_code": code, "settings": settings})
}

fn deploy_of(platform: &Platform, function: &Value) -> Response<Bytes> {
    call(platform.api, json_request(Request::post("/functions"), function))
}

fn give(platform: &Platform, quota: &Value) -> Response<Bytes> {
    call(platform.api, json_request(Request::put("/tenants/default/quota"), quota))
}

/// The part of the quota that a refusal names, and its `Retry-After`.
fn refusal(answer: &Response<Bytes>) -> (String, u64) {
    assert_eq!(answer.status(), 429, "{answer:?}");
    let problem: Value = serde_json::from_slice(answer.body()).expect("a problem");
    assert_eq!((&problem["code"], &problem["blame"]), (&json!("quota_exceeded"), &json!("caller")));
    let after = answer.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
    (problem["limit_hit"].as_str().expect("a limit").to_owned(), after)
}

fn busy(platform: &Platform, function: &str) -> bool {
    let workers = platform.api("/workers");
    let workers = workers["items"].as_array().expect("items");
    workers.iter().any(|worker| worker["function"] == function && worker["state"] == "busy")
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !is_so() {
        assert!(std::time::Instant::now() < limit, "not within 20 s");
        std::thread::yield_now();
    }
}

#[test]
fn a_functions_rate_is_kept() {
    let platform = up().start();
    create(&platform, "rare", ECHO, &json!({"quota": {"rate": "2/h", "burst": 2}}));
    create(&platform, "free", ECHO, &json!({}));
    for _ in 0..2 {
        assert_eq!(platform.get("/rare").status(), 200);
    }
    let (limit, after) = refusal(&platform.get("/rare"));
    assert!(limit == "rate" && (1700..=1800).contains(&after), "{limit} {after}");
    // A body of a call that is not let in is not waited for.
    let large = Request::post("/rare").body(Bytes::from(vec![b'x'; 5 << 20])).expect("a request");
    assert_eq!(refusal(&platform.call(large)).0, "rate");
    let request = json!({"http_verb": "GET", "http_path": "/rare"});
    let triggered = call(platform.api, json_request(Request::post("/functions/trigger"), &request));
    assert_eq!(refusal(&triggered).0, "rate");
    assert_eq!(platform.get("/free").status(), 200);
    let records = platform.api("/invocations?function=rare&outcome=quota_exceeded");
    assert_eq!(records["items"].as_array().expect("items").len(), 2, "{records}");
    assert_eq!(platform.cli(&["invoke", "rare", "-P", "/rare"]).status.code(), Some(8));
}

#[test]
fn calls_at_once_are_bounded_and_make_room_when_they_end() {
    let platform = up().start();
    create(&platform, "slow", SLOW, &json!({"quota": {"concurrency": 1}}));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| platform.get("/slow").status());
        wait_until(|| busy(&platform, "slow"));
        assert_eq!(refusal(&platform.get("/slow")), ("concurrency".to_owned(), 1));
        assert_eq!(first.join().expect("a call"), 204);
    });
    assert_eq!(platform.get("/slow").status(), 204);
}

#[test]
fn a_handler_that_is_late_is_under_way_until_it_has_ended() {
    let platform = up().start();
    let stubborn = "import time\ndef handler(message, context):\n    try:\n        time.sleep(9)\n    finally:\n        time.sleep(9)\n";
    create(&platform, "late", stubborn, &json!({"timeout": "100ms", "quota": {"concurrency": 1}}));
    assert_eq!(platform.get("/late").status(), 504);
    // Its grace is a second, of which this takes a part.
    assert_eq!(refusal(&platform.get("/late")).0, "concurrency");
    wait_until(|| platform.get("/late").status() == 504);
}

#[test]
fn workers_share_their_tenants_memory() {
    let platform = up().start();
    assert_eq!(give(&platform, &json!({"memory": "100MiB"})).status(), 200);
    create(&platform, "slow", SLOW, &json!({"memory": "64MiB"}));
    create(&platform, "quick", ECHO, &json!({"memory": "64MiB"}));
    // The idle worker of the other makes room, whichever was first.
    for path in ["/quick", "/slow", "/quick"] {
        assert!(platform.get(path).status().is_success(), "{path}");
    }
    std::thread::scope(|scope| {
        let first = scope.spawn(|| platform.get("/slow").status());
        wait_until(|| busy(&platform, "slow"));
        assert_eq!(refusal(&platform.get("/quick")).0, "memory");
        // The handler of a deploy is loaded in a worker, which needs room as well.
        let deploy = function("third", ECHO, &json!({"memory": "64MiB"}));
        assert_eq!(refusal(&deploy_of(&platform, &deploy)).0, "memory");
        assert_eq!(first.join().expect("a call"), 204);
    });
    wait_until(|| platform.get("/quick").status() == 200);
    let quota = platform.api("/tenants/default/quota");
    assert_eq!((&quota["quota"], &quota["used"]["memory"]), (&json!({"memory": "100MiB"}), &json!("64MiB")));
}

#[test]
fn code_and_backlog_have_their_quotas_and_nonsense_is_refused() {
    let platform = up().start();
    create(&platform, "slow", SLOW, &json!({"scaling": {"max": 1}}));
    assert_eq!(give(&platform, &json!({"code": "1KiB", "backlog": 2})).status(), 200);
    let sized =
        |name: &str, bytes| function(name, &format!("{ECHO}#{name}{}", "x".repeat(bytes)), &json!({}));
    assert_eq!(refusal(&deploy_of(&platform, &sized("big", 1500))).0, "code");
    // One of them fits, however many come at once.
    let taken = std::thread::scope(|scope| {
        let deploys = ["a", "b", "c", "d"].map(|name| {
            let (platform, function) = (&platform, sized(name, 500));
            scope.spawn(move || deploy_of(platform, &function).status())
        });
        deploys
            .map(|deploy| deploy.join().expect("a deploy"))
            .iter()
            .filter(|status| status.is_success())
            .count()
    });
    assert_eq!(taken, 1);
    let request = json!({"http_verb": "GET", "http_path": "/slow"});
    let trigger = || call(platform.api, json_request(Request::post("/functions/trigger"), &request));
    assert_eq!((trigger().status().as_u16(), trigger().status().as_u16()), (200, 200));
    assert_eq!(refusal(&trigger()).0, "backlog");
    for wrong in [json!({"rate": "often"}), json!({"calls": 5}), json!({"burst": 5}), json!([])] {
        assert_eq!(give(&platform, &wrong).status(), 422, "{wrong}");
    }
    let nobodys = call(platform.api, json_request(Request::put("/tenants/nobody/quota"), &json!({})));
    assert_eq!(nobodys.status(), 404);
    // The accepted calls run, and make room.
    wait_until(|| platform.api("/tenants/default/quota")["used"]["backlog"] == 0);
    assert_eq!(trigger().status(), 200);
}

#[test]
fn kept_history_is_bounded_by_a_quota() {
    let platform = up().start();
    create(&platform, "echo", ECHO, &json!({}));
    let quota = json!({ "history": "64KiB", "history_rate": "1/s" });
    let given: Value = serde_json::from_slice(give(&platform, &quota).body()).expect("JSON");
    assert_eq!(given["quota"], quota);
    for _ in 0..200 {
        assert_eq!(platform.get("/echo").status(), 200);
    }
    let view = platform.api("/tenants/default/quota");
    let used = view["used"]["history"].as_str().expect("a size");
    let (digits, unit) = used.split_at(used.find(|c: char| !c.is_ascii_digit()).expect("a unit"));
    let bytes = digits.parse::<u64>().expect("a number") * if unit == "KiB" { 1024 } else { 1 };
    assert!((1..=64 << 10).contains(&bytes), "{used}");
    let shown = platform.cli(&["quota", "show", "default"]);
    assert!(shown.status.success() && shown.stdout.contains("64KiB"), "{shown:?}");
    // The latest is there as ever, and the whole quota can be taken away.
    let latest = platform.api("/invocations?limit=1");
    assert_eq!(latest["items"][0]["function"], "echo");
    let cleared = platform.cli(&["quota", "set", "default", "--clear", "--output", "json"]);
    let cleared: Value = serde_json::from_str(&cleared.stdout).expect("JSON");
    assert_eq!(cleared["quota"], json!({}));
    let wrong = give(&platform, &json!({ "history": "1B" }));
    assert_eq!(wrong.status(), 422, "{wrong:?}");
}
