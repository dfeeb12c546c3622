//! The audit log: who asked for what, when, from where, and how it ended, also where it was refused;
//! each tenant's admin reads what was about the tenant, and nobody finds a secret in it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use crate::platform::{Platform, call, up};
use crate::tenants::{
    As, Port, create_key, deploy, document, done, field, get, key, post_form, send, status, text, two_tenants,
};

fn log(platform: &Platform, query: &str, who: As<'_>) -> Vec<Value> {
    let page = done(get(platform, &format!("/audit{query}"), who));
    page["items"].as_array().expect("items").clone()
}

/// The latest record of a verb and path.
fn of<'a>(log: &'a [Value], method: &str, path: &str) -> &'a Value {
    let found = log.iter().find(|record| record["method"] == method && record["path"] == path);
    found.unwrap_or_else(|| panic!("no {method} {path} in {log:#?}"))
}

#[test]
fn a_call_leaves_who_what_when_from_where_and_how_it_ended() {
    let platform = up().arg("--require-key").start();
    let admin = platform.first_key().expect("up shows the operator's first key");
    let deployer = create_key(&platform, "ci", &["deploy"], key(&admin));
    let answer = deploy(&platform, "echo", "/echo", "here", key(&deployer));
    assert_eq!(status(&answer), 200);
    let log = log(&platform, "", key(&admin));
    let record = of(&log, "POST", "/functions");
    assert_eq!(record["request_id"], answer.headers()["x-request-id"].to_str().expect("text"));
    assert_eq!((&record["kind"], &record["status"]), (&json!("change"), &json!(200)));
    let who = json!({ "means": "bearer", "tenant": "default", "key_id": deployer[4..12], "key_name": "ci" });
    assert_eq!((&record["caller"], &record["tenant"]), (&who, &json!("default")));
    assert_eq!((&record["acted_on"], &record["listener"]), (&json!("function echo"), &json!("api")));
    let peer: SocketAddr = record["peer"].as_str().expect("text").parse().expect("an address");
    assert!(peer.ip().is_loopback() && peer.port() > 0);
    assert!(record["time"].as_str().expect("text").ends_with('Z'), "{record}");
    assert!(record["duration_ms"].as_f64().expect("a number") > 0.0);
    let made = of(&log, "POST", "/keys");
    assert_eq!(made["acted_on"], format!("key {} (ci: deploy)", &deployer[4..12]));
    let own = self::log(&platform, "?kind=read", key(&admin));
    assert_eq!(own[0]["path"], "/audit", "who reads the log is in it");
}

#[test]
fn refusals_are_in_it_with_whoever_they_seem_to_be_from() {
    let platform = up().arg("--require-key").start();
    let admin = platform.first_key().expect("up shows the operator's first key");
    let reader = create_key(&platform, "reader", &["read"], key(&admin));
    assert_eq!(status(&deploy(&platform, "echo", "/echo", "here", key(&reader))), 403);
    assert_eq!(status(&get(&platform, "/functions", As::default())), 401);
    let forged = format!("{}{}", &reader[..13], "A".repeat(43));
    assert_eq!(status(&get(&platform, "/workers", key(&forged))), 401);
    assert_eq!(status(&get(&platform, "/metrics", key("fpk_00000000_x"))), 401);
    assert_eq!(status(&send(&platform, Port::Traces, "GET", "/", As::default(), None)), 303);
    let rebound = Request::get("/host").header("host", "evil.example");
    assert_eq!(status(&call(platform.api, rebound.body(Bytes::new()).expect("a request"))), 421);
    let elsewhere = As { key: Some(&admin), tenant: Some("nowhere") };
    assert_eq!(status(&get(&platform, "/invocations", elsewhere)), 404);
    let log = log(&platform, "?kind=refusal", key(&admin));
    for (method, path, wanted) in [
        ("POST", "/functions", (403, "scope_missing", "bearer")),
        ("GET", "/functions", (401, "key_missing", "nobody")),
        ("GET", "/workers", (401, "key_invalid", "not_in_force")),
        ("GET", "/metrics", (401, "key_invalid", "not_in_force")),
        ("GET", "/host", (421, "forbidden_host", "nobody")),
        ("GET", "/invocations", (404, "tenant_not_found", "bearer")),
    ] {
        let record = of(&log, method, path);
        let (code, means) = (&record["code"], &record["caller"]["means"]);
        let told = (record["status"].as_u64().expect("a number"), code.as_str(), means.as_str());
        assert_eq!(told, (wanted.0, Some(wanted.1), Some(wanted.2)), "{method} {path}");
    }
    assert_eq!(
        of(&log, "GET", "/workers")["caller"]["key_name"],
        "reader",
        "it was tried with this key's id"
    );
    let turned_away = of(&log, "GET", "/");
    assert_eq!((&turned_away["listener"], &turned_away["status"]), (&json!("traces"), &json!(303)));
}

#[test]
fn a_tenants_admin_reads_what_was_about_the_tenant_and_the_operator_all() {
    let (platform, acme, globex) = two_tenants();
    let for_acme = As { tenant: Some("acme"), ..As::default() };
    assert_eq!(status(&get(&platform, "/functions/echo", for_acme)), 200);
    let foreign = As { key: Some(&globex), tenant: Some("acme") };
    assert_eq!(status(&get(&platform, "/functions", foreign)), 404);

    let seen = log(&platform, "?limit=1000", key(&acme));
    assert!(seen.iter().all(|record| record["tenant"] == "acme"), "{seen:#?}");
    let operators = of(&seen, "GET", "/functions/echo");
    assert_eq!(operators["caller"], json!({ "means": "operator" }));
    assert!(operators.get("peer").is_none(), "{operators}");
    let own = of(&seen, "POST", "/functions");
    assert_eq!((&own["caller"]["key_name"], &own["acted_on"]), (&json!("admin"), &json!("function echo")));
    assert!(own["peer"].is_string());

    let all = log(&platform, "?limit=1000", As::default());
    let tried = all.iter().find(|record| record["code"] == "tenant_not_found").expect("the refusal");
    assert_eq!((&tried["tenant"], &tried["caller"]["tenant"]), (&json!("globex"), &json!("globex")));
    assert_eq!(of(&all, "GET", "/functions/echo")["caller"]["means"], "loopback");
    let reader = create_key(&platform, "reader", &["read"], key(&acme));
    assert_eq!(status(&get(&platform, "/audit", key(&reader))), 403);

    // A later tenant of the name is another one.
    done(send(&platform, Port::Api, "DELETE", "/tenants/acme", As::default(), None));
    done(send(&platform, Port::Api, "POST", "/tenants", As::default(), Some(json!({ "name": "acme" }))));
    let later = create_key(&platform, "admin", &["admin"], for_acme);
    let seen = log(&platform, "?limit=1000", key(&later));
    let paths: Vec<_> = seen.iter().map(|record| record["path"].as_str().expect("text")).collect();
    assert_eq!(paths, ["/keys"], "the operator made a key for it, and that is all");
}

#[test]
fn no_secret_is_in_it_and_health_is_not() {
    let platform = up().arg("--require-key").start();
    let admin = platform.first_key().expect("up shows the operator's first key");
    let other = create_key(&platform, "other", &["read"], key(&admin));
    let secret = json!({ "value": "correct-horse-battery" });
    done(send(&platform, Port::Api, "PUT", "/secrets/STRIPE_KEY", key(&admin), Some(secret)));
    // A whole key where its id belongs, and as a parameter.
    let pasted = send(&platform, Port::Api, "DELETE", &format!("/keys/{other}"), key(&admin), None);
    assert_eq!(status(&pasted), 404);
    assert_eq!(status(&get(&platform, &format!("/functions?key={other}"), key(&admin))), 422);
    let token = field(&text(&get(&platform, "/login", As::default())), "csrf_token");
    let signed_in = post_form(&platform, "/login", None, &format!("key={other}&csrf_token={token}"));
    assert_eq!(status(&signed_in), 303);
    for quiet in ["/healthz", "/readyz", "/version", "/static/app.css"] {
        assert_eq!(status(&get(&platform, quiet, As::default())), 200, "{quiet}");
    }
    assert_eq!(status(&get(&platform, "/metrics", key(&admin))), 200);
    let answer = get(&platform, "/audit?limit=1000", key(&admin));
    let (log, words) = (document(&answer)["items"].as_array().expect("items").clone(), text(&answer));
    for hidden in ["correct-horse", &admin[13..], &other[13..], "csrf", "healthz", "static", "metrics"] {
        assert!(!words.contains(hidden), "{hidden}: {words}");
    }
    assert_eq!(of(&log, "PUT", "/secrets/STRIPE_KEY")["acted_on"], "secret STRIPE_KEY");
    let login = of(&log, "POST", "/login");
    assert_eq!((&login["kind"], &login["caller"]["means"]), (&json!("read"), &json!("session")));
    assert_eq!(login["caller"]["key_name"], "other");
}

#[test]
fn it_is_there_after_a_restart_and_a_kill() {
    let data = tempfile::tempdir().expect("a directory");
    let mut platform = up().data_dir(data.path()).start();
    assert_eq!(status(&deploy(&platform, "echo", "/echo", "here", As::default())), 200);
    done(send(&platform, Port::Api, "DELETE", "/functions/echo", As::default(), None));
    assert!(platform.stop().success());
    let mut platform = up().data_dir(data.path()).start();
    let changes = log(&platform, "?kind=change", As::default());
    let told: Vec<_> = changes.iter().map(|record| (&record["method"], &record["acted_on"])).collect();
    let thing = json!("function echo");
    assert_eq!(told, [(&json!("DELETE"), &thing), (&json!("POST"), &thing)]);
    // All that was listed was written before.
    assert_eq!(log(&platform, "", As::default()).len(), 3, "and one reading");
    platform.kill();
    let platform = up().data_dir(data.path()).start();
    let all = log(&platform, "?limit=2", As::default());
    assert_eq!(all[0]["path"], "/audit");
    let numbers: Vec<_> = all.iter().map(|record| record["seq"].as_u64().expect("a number")).collect();
    assert_eq!(numbers[0], numbers[1] + 1, "numbers go on");
}

#[test]
fn who_leaves_before_the_answer_is_in_it_all_the_same() {
    let platform = up().start();
    let code = "import time\ntime.sleep(3)\ndef handler(message, context):\n    return 1\n";
    let body = json!({ "function_name": "slow", "event_type": "http|GET|/slow", "function_code": code });
    let body = body.to_string();
    let mut stream = TcpStream::connect(platform.api).expect("it listens");
    let length = body.len();
    let head = format!(
        "POST /functions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n",
        platform.api
    );
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(body.as_bytes()).expect("sent");
    stream.set_nonblocking(true).expect("a socket");
    assert!(stream.read(&mut [0]).is_err(), "there is no answer yet");
    drop(stream);
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let left = log(&platform, "?kind=change", As::default());
        if let Some(record) = left.first() {
            assert_eq!((&record["status"], &record["path"]), (&json!(499), &json!("/functions")));
            return;
        }
        assert!(std::time::Instant::now() < limit, "it is not noted");
    }
}

#[test]
fn the_command_line_shows_it() {
    let platform = up().start();
    assert_eq!(status(&deploy(&platform, "echo", "/echo", "here", As::default())), 200);
    let ran = platform.cli(&["audit", "--since", "1h", "--kind", "change"]);
    assert!(ran.status.success(), "{ran:?}");
    for word in ["nobody, on loopback", "POST /functions", "function echo", "127.0.0.1:"] {
        assert!(ran.stdout.contains(word), "{word}: {ran:?}");
    }
    let none = platform.cli(&["audit", "--since", "soon"]);
    assert_eq!(none.status.code(), Some(4), "{none:?}");
}
