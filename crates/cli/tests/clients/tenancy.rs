//! Verbs about what tenants may do and did: `quota` and `audit`.

use insta::assert_snapshot;
use serde_json::json;

use crate::stub::{Stub, ok};

const VIEW: &str = r#"{"tenant":"acme","quota":{"rate":"100/s","memory":"2GiB"},"used":{"concurrency":1,"backlog":0,"memory":"256MiB","code":"12KiB","history":"3MiB"}}"#;

#[test]
fn a_quota_is_shown_beside_what_is_used() {
    let stub = Stub::start([ok("GET /tenants/acme/quota", VIEW)]);
    assert_snapshot!(stub.run(&["quota", "show", "acme"]), @r"
    exit code 0
    --- stdout
    QUOTA         LIMIT  USED
    rate          100/s  -
    burst         none   -
    concurrency   none   1
    backlog       none   0
    memory        2GiB   256MiB
    code          none   12KiB
    history       none   3MiB
    history_rate  none   -

    --- stderr
    ");
    assert_eq!(stub.run(&["quota", "show", "acme", "--output", "json"]).stdout, format!("{VIEW}\n"));
    assert_eq!(stub.run(&["quota", "show", "globex"]).exit, 3);
}

#[test]
fn a_part_of_a_quota_is_set_and_the_rest_stays() {
    let stub = Stub::start([ok("GET /tenants/acme/quota", VIEW), ok("PUT /tenants/acme/quota", VIEW)]);
    let ran = stub.run(&["quota", "set", "acme", "--concurrency", "50", "--memory", "none"]);
    assert_eq!(ran.exit, 0, "{ran}");
    assert_eq!(stub.last().json(), json!({ "rate": "100/s", "concurrency": 50 }));
    stub.run(&["quota", "set", "acme", "--clear", "--code", "500MiB"]);
    assert_eq!(stub.last().json(), json!({ "code": "500MiB" }));
    let asked = stub.seen().len();
    assert_eq!(stub.run(&["quota", "set", "acme"]).exit, 2);
    assert_eq!(stub.run(&["quota", "set", "acme", "--backlog", "many"]).exit, 2);
    assert!(stub.seen().iter().skip(asked).all(|seen| seen.line.starts_with("GET")));
}

#[test]
fn the_audit_log_is_shown_as_a_table() {
    let page = json!({ "items": [
        { "seq": 9, "time": "2026-11-23T10:00:03Z", "kind": "refusal", "tenant": "acme", "method": "POST",
          "path": "/functions", "status": 403, "code": "scope_missing", "peer": "10.0.0.7:50312",
          "caller": { "means": "bearer", "tenant": "acme", "key_id": "k3j9x0ab", "key_name": "ci" }, "lost_before": 2 },
        { "seq": 6, "time": "2026-11-23T10:00:02Z", "kind": "change", "tenant": "default", "method": "DELETE",
          "path": "/functions/cats", "acted_on": "function cats", "status": 200, "peer": "127.0.0.1:4",
          "caller": { "means": "loopback", "tenant": "default" } },
        { "seq": 5, "time": "2026-11-23T10:00:01Z", "kind": "refusal", "tenant": "default", "method": "GET",
          "path": "/", "status": 401, "code": "key_invalid", "peer": "127.0.0.1:3",
          "caller": { "means": "not_in_force", "key_id": "00000000" } },
    ], "next": "5" });
    let asked = "GET /audit?limit=3&since=1h&kind=refusal&cursor=12";
    let stub = Stub::start([ok("GET /audit?limit=50", &page.to_string()), ok(asked, &page.to_string())]);
    assert_snapshot!(stub.run(&["audit"]));
    let ran =
        stub.run(&["audit", "--since=1h", "--kind=refusal", "--limit=3", "--cursor=12", "--output=json"]);
    assert_eq!(ran.stdout, format!("{page}\n"));
    assert_eq!(stub.run(&["audit", "--kind", "write"]).exit, 2);
}
