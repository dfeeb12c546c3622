//! What the API says of calls: invocations, instances, logs, background calls, metrics.

use serde_json::{Value, json};

use crate::exchange::{bare, json as send_json, show};
use crate::platform::{Platform, call, up};

const CODE: &str = "\
def handler(message, context):
    print('called with', message['body'])
    if message['query'].get('fail'):
        raise ValueError('as asked')
    return {'got': message['body']}
";

fn deploy(platform: &Platform) {
    let body = json!({"event_type": "http|POST|/echo", "function_name": "echo", "function_code": CODE, "settings": {"slo": {"availability": 99}}});
    let answer = call(platform.api, send_json("POST", "/functions", &body));
    assert_eq!(answer.status(), 200, "{answer:?}");
}

fn call_echo(platform: &Platform, query: &str) -> String {
    let answer = platform.call(send_json("POST", &format!("/echo{query}"), &json!(5)));
    answer.headers()["x-serverless-instance-id"].to_str().expect("text").to_owned()
}

#[test]
fn a_call_is_known_by_its_id_as_soon_as_it_is_answered() {
    let platform = up().start();
    deploy(&platform);
    let good = call_echo(&platform, "");
    let bad = call_echo(&platform, "?fail=1");
    let shown = |path: String| {
        show(platform.api, bare("GET", &path)).split_once('\n').expect("two lines").1.to_owned()
    };
    let steps = [
        shown(format!("/invocations/{good}")),
        shown(format!("/invocations/{bad}")),
        shown(format!("/functions/instances/{bad}")),
        shown(format!("/functions/instances/{good}/logs")),
    ];
    insta::assert_snapshot!(steps.join("\n"));
}

#[test]
fn lists_are_filtered_and_paged() {
    let platform = up().start();
    deploy(&platform);
    let mut ids: Vec<_> =
        ["", "?fail=1", "", "", "?fail=1"].map(|query| call_echo(&platform, query)).to_vec();
    ids.reverse();
    let listed = |query: &str| {
        let page = platform.api(&format!("/invocations{query}"));
        let ids = page["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|item| item["id"].clone())
            .collect::<Vec<_>>();
        (ids, page["next"].as_str().map(str::to_owned))
    };
    let (first, next) = listed("?limit=2");
    let (second, next) = listed(&format!("?limit=2&cursor={}", next.expect("there is more")));
    let (third, end) = listed(&format!("?limit=2&cursor={}", next.expect("there is more")));
    assert_eq!([first, second, third].concat(), ids);
    assert_eq!(end, None);
    assert_eq!(listed("?outcome=function_error").0, [ids[0].as_str(), ids[3].as_str()]);
    assert_eq!(listed("?function=echo&since=1h").0.len(), 5);
    assert_eq!(listed("?function=other").0.len(), 0);
    assert_eq!(listed("?since=2999-01-01T00:00:00Z").0.len(), 0);
    let instances = platform.api("/functions/instances?limit=1");
    assert_eq!(
        (instances[0]["container_id"].as_str(), instances[1].is_null()),
        (Some(ids[0].as_str()), true)
    );
}

#[test]
fn wrong_questions_name_their_parameter() {
    let platform = up().start();
    let unknown = "0190b2a8-4e5c-7cc1-b4a5-0d2f6a1c9e11";
    let paths = [
        "/invocations?limit=0".to_owned(),
        "/invocations?limit=ten".to_owned(),
        "/invocations?since=yesterday".to_owned(),
        "/invocations?outcome=good".to_owned(),
        "/invocations?cursor=x".to_owned(),
        "/invocations?function=a%20b".to_owned(),
        "/invocations?functoin=a".to_owned(),
        "/invocations?limit=1&limit=2".to_owned(),
        format!("/invocations/{unknown}"),
        "/invocations/5".to_owned(),
        "/invocations/%ff".to_owned(),
        format!("/functions/instances/{unknown}/logs"),
    ];
    let steps = paths.map(|path| show(platform.api, bare("GET", &path)));
    insta::assert_snapshot!(steps.join("\n"));
}

#[test]
fn a_background_call_leaves_its_result() {
    let platform = up().start();
    deploy(&platform);
    let trigger = |path: &str, verb: &str, body: Value| {
        let body = json!({"http_path": path, "http_verb": verb, "http_header": "Content-Type: application/json\nnonsense", "http_body": body});
        send_json("POST", "/functions/trigger", &body)
    };
    let answer = call(platform.api, trigger("/echo", "post", json!("{\"body\": {\"n\": 1}}")));
    let accepted: Value = serde_json::from_slice(answer.body()).expect("JSON");
    assert_eq!((answer.status().as_u16(), &accepted["status"]), (200, &json!("ok")));
    let id = accepted["container_ids"][0].as_str().expect("an id").to_owned();
    let record = ended(&platform, &id);
    assert_eq!((&record["trigger"], &record["status"]), (&json!("async"), &json!(200)));
    assert_eq!(record["result"], "{\"got\": {\"n\": 1}}");
    assert_eq!(platform.api(&format!("/functions/instances/{id}/logs"))["logs"], "called with {'n': 1}\n");
    let steps = [
        show(platform.api, trigger("/nowhere", "POST", json!(""))),
        show(platform.api, trigger("/echo", "GET", json!(""))),
        show(platform.api, trigger("echo", "GET", json!(""))),
        show(platform.api, trigger("/echo", "G T", json!(""))),
        show(platform.api, send_json("POST", "/functions/trigger", &json!({"http_verb": "GET"}))),
    ];
    insta::assert_snapshot!(steps.join("\n"));
}

/// The record of a call once it has ended.
fn ended(platform: &Platform, id: &str) -> Value {
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let record = platform.api(&format!("/invocations/{id}"));
        if record["state"] == "done" {
            return record;
        }
        assert!(std::time::Instant::now() < limit, "it has not ended: {record}");
        std::thread::yield_now();
    }
}

#[test]
fn metrics_count_calls_by_function_and_outcome() {
    let platform = up().start();
    deploy(&platform);
    call_echo(&platform, "");
    call_echo(&platform, "?fail=1");
    let answer = call(platform.api, bare("GET", "/metrics"));
    assert!(
        answer.headers()["content-type"].to_str().expect("text").starts_with("application/openmetrics-text")
    );
    let text = std::str::from_utf8(answer.body()).expect("UTF-8");
    for line in [
        "functionsplatform_calls_total{tenant=\"default\",function=\"echo\",outcome=\"ok\"} 1",
        "functionsplatform_calls_total{tenant=\"default\",function=\"echo\",outcome=\"function_error\"} 1",
        "functionsplatform_call_duration_seconds_count{tenant=\"default\",function=\"echo\"} 2",
        "functionsplatform_call_duration_seconds_bucket{le=\"+Inf\",tenant=\"default\",function=\"echo\"} 2",
        "functionsplatform_history_dropped_total 0",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn the_platform_says_what_it_is() {
    let platform = up().start();
    let steps = ["/healthz", "/readyz", "/version"].map(|path| show(platform.api, bare("GET", path)));
    insta::assert_snapshot!(steps.join("\n"));
    assert!(platform.api("/host")["mechanisms"].is_array());
    let committed = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json"));
    let committed: Value = serde_json::from_slice(&committed.expect("it is there")).expect("JSON");
    assert_eq!(platform.api("/openapi.json"), committed);
    let page = call(platform.api, bare("GET", "/docs/"));
    assert!(page.status().is_success() && String::from_utf8_lossy(page.body()).contains("swagger-ui"));
}
