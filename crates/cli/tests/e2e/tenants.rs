//! Tenants and keys: two tenants with functions of the same name and route, each seeing its own and
//! nothing of the other in every listing; keys that expire, are revoked or may do little.

use std::path::Path;

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::networks::has_networks;
use crate::platform::{Platform, Ran, call, program, run, up};

/// Everything that a tenant can list.
const LISTINGS: [&str; 5] = ["/functions", "/functions/instances", "/invocations", "/workers", "/metrics"];

/// For hosts that do not keep tenants apart, such as those without root.
pub(crate) const SHARED: &str = "--allow-weak-isolation-between-tenants";

/// What is asked for with a key, for a tenant.
#[derive(Clone, Copy, Default)]
pub(crate) struct As<'a> {
    pub(crate) key: Option<&'a str>,
    pub(crate) tenant: Option<&'a str>,
}

pub(crate) fn key(text: &str) -> As<'_> {
    As { key: Some(text), ..As::default() }
}

pub(crate) fn send(
    platform: &Platform,
    port: Port,
    verb: &str,
    path: &str,
    who: As<'_>,
    body: Option<Value>,
) -> Response<Bytes> {
    let mut request = Request::builder().method(verb).uri(path);
    if let Some(key) = who.key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    if let Some(tenant) = who.tenant {
        request = request.header("x-tenant", tenant);
    }
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let address = if matches!(port, Port::Api) { platform.api } else { platform.traces };
    call(address, request.body(body).expect("a request"))
}

#[derive(Clone, Copy)]
pub(crate) enum Port {
    Api,
    Traces,
}

pub(crate) fn get(platform: &Platform, path: &str, who: As<'_>) -> Response<Bytes> {
    send(platform, Port::Api, "GET", path, who, None)
}

pub(crate) fn status(answer: &Response<Bytes>) -> u16 {
    answer.status().as_u16()
}

pub(crate) fn text(answer: &Response<Bytes>) -> String {
    String::from_utf8_lossy(answer.body()).into_owned()
}

pub(crate) fn document(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

pub(crate) fn done(answer: Response<Bytes>) -> Value {
    assert_eq!(status(&answer), 200, "{answer:?}");
    document(&answer)
}

fn create_tenant(platform: &Platform, name: &str, who: As<'_>) {
    done(send(platform, Port::Api, "POST", "/tenants", who, Some(json!({ "name": name }))));
}

pub(crate) fn create_key(platform: &Platform, name: &str, scopes: &[&str], who: As<'_>) -> String {
    let body = json!({ "name": name, "scopes": scopes });
    let made = done(send(platform, Port::Api, "POST", "/keys", who, Some(body)));
    made["key"].as_str().expect("a key").to_owned()
}

pub(crate) fn deploy(
    platform: &Platform,
    name: &str,
    path: &str,
    says: &str,
    who: As<'_>,
) -> Response<Bytes> {
    let code = format!(
        "def handler(message, context):\n    print('{says}')\n    return {{'says': '{says}', 'path': message['path']}}\n"
    );
    let body =
        json!({ "function_name": name, "event_type": format!("http|GET|{path}"), "function_code": code });
    send(platform, Port::Api, "POST", "/functions", who, Some(body))
}

fn at_gateway(platform: &Platform, host: Option<&str>, path: &str) -> Response<Bytes> {
    let mut request = Request::get(path);
    if let Some(host) = host {
        request = request.header("host", format!("{host}:{}", platform.gateway.port()));
    }
    call(platform.gateway, request.body(Bytes::new()).expect("a request"))
}

fn invocation_of(answer: &Response<Bytes>) -> String {
    answer.headers()["x-serverless-instance-id"].to_str().expect("text").to_owned()
}

fn trace_of(answer: &Response<Bytes>) -> String {
    answer.headers()["traceparent"].to_str().expect("text").split('-').nth(1).expect("an id").to_owned()
}

/// A platform with the tenants acme and globex, each with an admin's key and a function `echo` on
/// `/echo`, which say who they are.
pub(crate) fn two_tenants() -> (Platform, String, String) {
    let platform = up().arg(SHARED).start();
    let keys = ["acme", "globex"].map(|name| {
        create_tenant(&platform, name, As::default());
        let key_text = create_key(&platform, "admin", &["admin"], As { tenant: Some(name), ..As::default() });
        done(deploy(&platform, "echo", "/echo", &format!("i-am-{name}"), key(&key_text)));
        key_text
    });
    let [acme, globex] = keys;
    (platform, acme, globex)
}

#[test]
fn two_tenants_share_names_and_routes_and_see_nothing_of_each_other() {
    let (platform, acme, globex) = two_tenants();
    let by_host = at_gateway(&platform, Some("acme.localhost"), "/echo");
    assert_eq!(document(&by_host), json!({ "says": "i-am-acme", "path": "/echo" }));
    let by_prefix = at_gateway(&platform, None, "/t/globex/echo");
    assert_eq!(document(&by_prefix), json!({ "says": "i-am-globex", "path": "/echo" }));
    assert_eq!(status(&at_gateway(&platform, None, "/echo")), 404, "default has no such route");

    for (own_key, own, other, others_answer) in
        [(&acme, "acme", "globex", &by_prefix), (&globex, "globex", "acme", &by_host)]
    {
        let own_key = key(own_key);
        for listing in LISTINGS {
            let answer = get(&platform, listing, own_key);
            assert_eq!(status(&answer), 200, "{listing}: {answer:?}");
            assert!(!text(&answer).contains(other), "{listing} of {own}: {answer:?}");
            assert!(text(&answer).contains("echo"), "{listing} of {own}: {answer:?}");
        }
        let listed = done(get(&platform, "/invocations", own_key));
        assert_eq!(listed["items"].as_array().expect("items").len(), 1, "{own}: {listed}");
        // By id, what is another's is answered to the letter as what never was.
        let (id, trace) = (invocation_of(others_answer), trace_of(others_answer));
        let never = "0190b2a8-4e5c-7cc1-b4a5-0d2f6a1c9e11";
        for path in ["/invocations/ID", "/functions/instances/ID", "/functions/instances/ID/logs"] {
            let foreign = get(&platform, &path.replace("ID", &id), own_key);
            let unknown = get(&platform, &path.replace("ID", never), own_key);
            assert_eq!(status(&foreign), 404, "{path}: {foreign:?}");
            assert_eq!(text(&foreign).replace(&id, never), text(&unknown));
        }
        let page = get(&platform, &format!("/ui/invocations/{id}"), own_key);
        assert_eq!(status(&page), 404, "{page:?}");
        for path in [format!("/api/traces/{trace}"), format!("/trace/{trace}")] {
            let answer = send(&platform, Port::Traces, "GET", &path, own_key, None);
            assert_eq!(status(&answer), 404, "{path}: {answer:?}");
        }
        for path in ["/api/services", "/api/traces?service=echo", "/", "/search"] {
            let answer = send(&platform, Port::Traces, "GET", path, own_key, None);
            assert_eq!(status(&answer), 200, "{path}: {answer:?}");
            assert!(!text(&answer).contains(&trace) && !text(&answer).contains(other), "{path}: {answer:?}");
        }
        let asked = done(get(&platform, "/query?q=group%20by%20tenant", own_key));
        let seen = asked["items"].as_array().expect("rows").iter();
        assert!(seen.clone().count() > 0 && seen.clone().all(|row| row["group"]["tenant"] == own), "{asked}");
        for path in ["/", "/ui/functions/echo", "/ui/invocations", "/ui/workers", "/ui/query"] {
            let page = get(&platform, path, own_key);
            assert_eq!(status(&page), 200, "{path}");
            assert!(!text(&page).contains(&id) && !text(&page).contains(other), "{path} of {own}");
        }
    }
    let operators = text(&get(&platform, "/metrics", As::default()));
    assert!(operators.contains("tenant=\"acme\"") && operators.contains("tenant=\"globex\""), "{operators}");
    assert_eq!(done(get(&platform, "/functions", As::default())), json!({}));
}

#[test]
fn an_unknown_tenant_has_no_routes_and_only_the_operator_acts_for_others() {
    let (platform, acme, _globex) = two_tenants();
    let unknown = at_gateway(&platform, None, "/t/nowhere/nothing");
    let no_route = at_gateway(&platform, None, "/t/acme/nothing");
    let detail = |answer| document(answer)["detail"].as_str().expect("text").replace("nowhere", "acme");
    assert_eq!((status(&unknown), detail(&unknown)), (404, detail(&no_route)));
    assert_eq!(status(&at_gateway(&platform, Some("nowhere.localhost"), "/echo")), 404);

    for (who, wanted) in [
        (As { key: Some(&acme), tenant: Some("acme") }, 200),
        (As { key: Some(&acme), tenant: Some("globex") }, 404),
        (As { key: Some(&acme), tenant: Some("default") }, 404),
        (As { key: Some(&acme), tenant: Some("nowhere") }, 404),
        (As { key: None, tenant: Some("acme") }, 200),
        (As { key: None, tenant: Some("nowhere") }, 404),
    ] {
        assert_eq!(status(&get(&platform, "/functions", who)), wanted, "{:?}", who.tenant);
    }
    // An admin of a tenant administers it, and neither the platform nor other tenants.
    for path in ["/tenants", "/tenants/globex", "/host"] {
        assert_eq!(status(&get(&platform, path, key(&acme))), 403, "{path}");
    }
    let keys = done(get(&platform, "/keys", key(&acme)));
    assert_eq!(keys["items"].as_array().expect("keys").len(), 1, "{keys}");
    let of_acme = keys["items"][0]["id"].as_str().expect("an id");
    let by_globex = send(&platform, Port::Api, "DELETE", &format!("/keys/{of_acme}"), key(&_globex), None);
    assert_eq!(status(&by_globex), 404, "{by_globex:?}");
}

#[test]
fn a_key_does_what_its_scopes_say_until_it_is_revoked() {
    let platform = up().start();
    done(deploy(&platform, "echo", "/echo", "here", As::default()));
    let [deployer, reader, invoker] =
        ["deploy", "read", "invoke"].map(|scope| create_key(&platform, scope, &[scope], As::default()));
    let invoke = json!({ "http_verb": "GET", "http_path": "/echo", "http_header": "", "http_body": "" });
    let try_all = |text: &str| {
        let who = key(text);
        [
            status(&deploy(&platform, "other", "/other", "here", who)),
            status(&get(&platform, "/functions", who)),
            status(&send(&platform, Port::Api, "POST", "/functions/echo/invoke", who, Some(invoke.clone()))),
            status(&get(&platform, "/keys", who)),
        ]
    };
    assert_eq!(try_all(&deployer), [200, 403, 403, 403]);
    assert_eq!(try_all(&reader), [403, 200, 403, 403]);
    assert_eq!(try_all(&invoker), [403, 403, 200, 403]);
    let refused = document(&get(&platform, "/functions", key(&invoker)));
    assert_eq!(
        (&refused["code"], &refused["scope"], &refused["key"]),
        (&json!("scope_missing"), &json!("read"), &json!("invoke"))
    );

    let id = &reader[4..12];
    done(send(&platform, Port::Api, "DELETE", &format!("/keys/{id}"), As::default(), None));
    let after = get(&platform, "/functions", key(&reader));
    assert_eq!((status(&after), &document(&after)["code"]), (401, &json!("key_invalid")));
    assert!(after.headers()["www-authenticate"].to_str().expect("text").starts_with("Bearer"));
    assert_eq!(status(&get(&platform, "/healthz", key(&reader))), 401, "it is never nobody");
    assert_eq!(try_all(&deployer)[0], 200, "the others are as they were");
}

#[test]
fn a_key_expires() {
    let platform = up().start();
    let body = json!({ "name": "short", "scopes": ["read"], "expires": "1s" });
    let made = done(send(&platform, Port::Api, "POST", "/keys", As::default(), Some(body)));
    let text = made["key"].as_str().expect("a key");
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while status(&get(&platform, "/functions", key(text))) == 200 {
        assert!(std::time::Instant::now() < limit, "it goes on for ever");
    }
    assert_eq!(document(&get(&platform, "/functions", key(text)))["code"], "key_invalid");
    assert_eq!(done(get(&platform, "/keys", As::default()))["items"][0]["state"], "expired");
}

#[test]
fn a_key_is_shown_once_and_is_nowhere_in_the_data_directory() {
    let data = tempfile::tempdir().expect("a directory");
    let mut platform = up().data_dir(data.path()).arg("--require-key").start();
    let made = platform.first_key().expect("up shows the operator's first key");
    let text = create_key(&platform, "ci", &["read"], key(&made));
    assert_eq!(status(&get(&platform, "/functions", key(&text))), 200);
    for listing in ["/keys", "/invocations", "/host", "/metrics"] {
        let answer = get(&platform, listing, key(&made));
        assert_eq!(status(&answer), 200, "{listing}");
        assert!(!has_secret(answer.body(), &text) && !has_secret(answer.body(), &made), "{listing}");
    }
    assert!(platform.stop().success());
    assert!(!platform.stderr().contains(&made[13..]), "it is in no log");
    for secret in [&made, &text] {
        let found = files_with(data.path(), secret);
        assert!(found.is_empty(), "{found:?}");
    }
    // The same keys open the next life of the platform, which makes no other.
    let platform = up().data_dir(data.path()).arg("--require-key").start();
    assert_eq!(platform.first_key(), None);
    assert_eq!(status(&get(&platform, "/functions", key(&text))), 200);
}

fn has_secret(bytes: &[u8], key: &str) -> bool {
    let secret = &key.as_bytes()[13..];
    bytes.windows(secret.len()).any(|window| window == secret)
}

fn files_with(directory: &Path, key: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, key));
        } else if std::fs::read(&path).is_ok_and(|bytes| has_secret(&bytes, key)) {
            found.push(path);
        }
    }
    found
}

#[test]
fn with_a_required_key_only_health_and_the_login_answer_everybody() {
    let platform = up().arg("--require-key").start();
    let admin = platform.first_key().expect("up shows the operator's first key");
    for open in ["/healthz", "/readyz", "/version", "/login", "/static/app.css"] {
        assert_eq!(status(&get(&platform, open, As::default())), 200, "{open}");
    }
    for closed in LISTINGS.into_iter().chain(["/keys", "/tenants", "/host", "/openapi.json", "/nothing"]) {
        let answer = get(&platform, closed, As::default());
        assert_eq!((status(&answer), &document(&answer)["code"]), (401, &json!("key_missing")), "{closed}");
        assert!(answer.headers().contains_key("www-authenticate"));
    }
    for page in ["/", "/ui/workers", "/docs"] {
        let answer = get(&platform, page, As::default());
        assert_eq!(status(&answer), 303, "{page}");
        assert!(answer.headers()["location"].to_str().expect("text").starts_with("/login"), "{answer:?}");
    }
    assert_eq!(status(&send(&platform, Port::Traces, "GET", "/api/services", As::default(), None)), 401);
    assert_eq!(status(&send(&platform, Port::Traces, "GET", "/", As::default(), None)), 303);
    let writes = deploy(&platform, "echo", "/echo", "here", As::default());
    assert_eq!(status(&writes), 401);
    assert_eq!(status(&deploy(&platform, "echo", "/echo", "here", key(&admin))), 200);
    assert_eq!(status(&at_gateway(&platform, None, "/echo")), 200, "the gateway is for everybody");
    assert_eq!(status(&send(&platform, Port::Traces, "GET", "/api/services", key(&admin), None)), 200);
}

/// The value of a hidden field of a page.
pub(crate) fn field(page: &str, name: &str) -> String {
    let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\"")).expect(name);
    rest.split('"').next().expect("a value").to_owned()
}

pub(crate) fn post_form(
    platform: &Platform,
    path: &str,
    cookie: Option<&str>,
    form: &str,
) -> Response<Bytes> {
    let mut request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
    if let Some(cookie) = cookie {
        request = request.header("cookie", cookie);
    }
    call(platform.api, request.body(Bytes::from(form.to_owned())).expect("a request"))
}

fn with_cookie(platform: &Platform, port: Port, path: &str, cookie: &str) -> Response<Bytes> {
    let address = if matches!(port, Port::Api) { platform.api } else { platform.traces };
    let request = Request::get(path).header("cookie", cookie);
    call(address, request.body(Bytes::new()).expect("a request"))
}

#[test]
fn a_key_that_is_typed_in_opens_pages_and_traces_until_it_is_revoked() {
    let platform = up().arg("--require-key").start();
    let admin = platform.first_key().expect("up shows the operator's first key");
    let reader = create_key(&platform, "reader", &["read"], key(&admin));
    let login = text(&get(&platform, "/login?next=%2Fui%2Fworkers", As::default()));
    let token = field(&login, "csrf_token");
    let sign_in = |key: &str, token: &str| {
        post_form(&platform, "/login", None, &format!("key={key}&next=%2Fui%2Fworkers&csrf_token={token}"))
    };
    assert_eq!(status(&sign_in(&reader, "wrong")), 403, "a foreign page signs nobody in");
    let wrong = sign_in("fpk_00000000_nothing", &token);
    assert_eq!(status(&wrong), 401);
    assert!(!wrong.headers().contains_key("set-cookie"));

    let signed_in = sign_in(&reader, &token);
    assert_eq!(
        (status(&signed_in), &signed_in.headers()["location"]),
        (303, &"/ui/workers".parse().expect("text"))
    );
    let cookie = signed_in.headers()["set-cookie"].to_str().expect("text");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().expect("a pair");
    assert!(
        !cookie.contains(&reader[4..12]) && !cookie.contains(&reader[13..]),
        "it says nothing of the key"
    );
    let page = with_cookie(&platform, Port::Api, "/ui/workers", cookie);
    assert_eq!(status(&page), 200);
    assert_eq!(status(&with_cookie(&platform, Port::Traces, "/", cookie)), 200);
    assert_eq!(status(&with_cookie(&platform, Port::Api, "/functions", cookie)), 200);
    assert_eq!(status(&with_cookie(&platform, Port::Api, "/keys", cookie)), 403, "it is the key's scopes");

    let out = post_form(
        &platform,
        "/logout",
        Some(cookie),
        &format!("csrf_token={}", field(&text(&page), "csrf_token")),
    );
    assert_eq!(status(&out), 303);
    assert_eq!(status(&with_cookie(&platform, Port::Api, "/functions", cookie)), 401);

    let again = sign_in(&reader, &token);
    let cookie = again.headers()["set-cookie"].to_str().expect("text").split(';').next().expect("a pair");
    assert_eq!(status(&with_cookie(&platform, Port::Api, "/functions", cookie)), 200);
    done(send(&platform, Port::Api, "DELETE", &format!("/keys/{}", &reader[4..12]), key(&admin), None));
    assert_eq!(status(&with_cookie(&platform, Port::Api, "/functions", cookie)), 401);
    let page = with_cookie(&platform, Port::Api, "/", cookie);
    assert_eq!(status(&page), 303);
    assert!(page.headers()["set-cookie"].to_str().expect("text").contains("Max-Age=0"), "{page:?}");
}

#[test]
fn a_function_sees_no_session_and_signs_nobody_in() {
    let platform = up().start();
    let code = "def handler(message, context):\n    return {'status_code': 200, 'headers': {'Set-Cookie': 'functionsplatform_session=mine'}, 'body': message['headers'].get('cookie') or 'none'}\n";
    let body = json!({ "function_name": "thief", "event_type": "http|GET|/thief", "function_code": code });
    done(send(&platform, Port::Api, "POST", "/functions", As::default(), Some(body)));
    let request = Request::get("/thief").header("cookie", "a=1; functionsplatform_session=secret");
    let answer = call(platform.gateway, request.body(Bytes::new()).expect("a request"));
    assert_eq!((status(&answer), text(&answer).as_str()), (200, "a=1"));
    assert!(!answer.headers().contains_key("set-cookie"), "{answer:?}");
}

#[test]
fn a_tenant_goes_with_all_that_was_its_and_a_later_one_sees_nothing_of_it() {
    let (platform, acme, globex) = two_tenants();
    let answer = at_gateway(&platform, Some("acme.localhost"), "/echo");
    assert_eq!(status(&answer), 200);
    done(send(&platform, Port::Api, "DELETE", "/tenants/acme", As::default(), None));
    assert_eq!(status(&at_gateway(&platform, Some("acme.localhost"), "/echo")), 404);
    assert_eq!(status(&get(&platform, "/functions", key(&acme))), 401);
    let for_acme = As { tenant: Some("acme"), ..As::default() };
    assert_eq!(status(&get(&platform, "/invocations", for_acme)), 404);
    assert_eq!(status(&at_gateway(&platform, Some("globex.localhost"), "/echo")), 200);
    assert_eq!(status(&get(&platform, "/functions", key(&globex))), 200);

    create_tenant(&platform, "acme", As::default());
    assert_eq!(status(&get(&platform, "/functions", key(&acme))), 401);
    assert_eq!(done(get(&platform, "/functions", for_acme)), json!({}));
    assert_eq!(done(get(&platform, "/invocations", for_acme))["items"], json!([]));
    let id = invocation_of(&answer);
    assert_eq!(status(&get(&platform, &format!("/invocations/{id}"), for_acme)), 404);
    done(deploy(&platform, "echo", "/echo", "i-am-new", for_acme));
    assert_eq!(document(&at_gateway(&platform, Some("acme.localhost"), "/echo"))["says"], "i-am-new");
    assert_eq!(done(get(&platform, "/invocations", for_acme))["items"].as_array().expect("items").len(), 1);
    let kept = send(&platform, Port::Api, "DELETE", "/tenants/default", As::default(), None);
    assert_eq!(status(&kept), 422);
}

#[test]
fn a_call_from_another_tenant_is_linked_to_and_has_no_parent() {
    let (platform, acme, globex) = two_tenants();
    if !has_networks(&platform) {
        return;
    }
    let code = "import os, urllib.request\ndef handler(message, context):\n    headers = {'traceparent': message['headers']['traceparent']}\n    gateway = os.environ['FUNCTIONSPLATFORM_GATEWAY']\n    request = urllib.request.Request(gateway + message['query']['to'], headers=headers)\n    return urllib.request.urlopen(request, timeout=10).read().decode()\n";
    let body = json!({ "function_name": "front", "event_type": "http|GET|/front", "function_code": code });
    done(send(&platform, Port::Api, "POST", "/functions", key(&acme), Some(body)));
    let settings = done(get(&platform, "/functions/front", key(&acme)))["settings"].clone();
    assert_eq!(settings["network"], "internal", "the default of named tenants");
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let ask = |to: &str| {
        let request = Request::get(format!("/t/acme/front?to={to}"));
        let request = request.header("traceparent", format!("00-{trace}-{span}-01"));
        let answer = call(platform.gateway, request.body(Bytes::new()).expect("a request"));
        assert_eq!(status(&answer), 200, "{answer:?}");
        text(&answer)
    };
    // A directory's default is the same.
    let manifest = "name = \"dir\"\nevents = [\"http|GET|/dir\"]\n";
    let zipped = zip_of(&[("function.toml", manifest), ("handler.py", "def handler(m, c): return 1\n")]);
    let request = Request::put("/functions/dir").header("authorization", format!("Bearer {acme}"));
    let request = request.header("content-type", "application/zip").body(zipped).expect("a request");
    assert_eq!(status(&call(platform.api, request)), 200);
    assert_eq!(done(get(&platform, "/functions/dir", key(&acme)))["settings"]["network"], "internal");
    assert!(ask("/t/globex/echo").contains("i-am-globex"));
    assert!(ask("/echo").contains("i-am-acme"), "without a name it is the caller's own tenant");
    let newest = |who: &str| done(get(&platform, "/invocations?function=echo", key(who)))["items"][0].clone();
    let foreign = newest(&globex);
    assert_eq!(foreign["link"], format!("{trace}-{span}"), "{foreign}");
    assert!(foreign["parent_span_id"].is_null() && foreign["called_by"].is_null(), "{foreign}");
    assert_ne!(foreign["trace_id"], trace);
    let own = newest(&acme);
    assert_eq!(
        (&own["called_by"], &own["trace_id"], &own["parent_span_id"]),
        (&json!("front"), &json!(trace), &json!(span))
    );
    assert!(own["link"].is_null(), "{own}");
}

/// `/f`, which wants the host's network.
fn deploy_in_full_network(platform: &Platform, who: As<'_>, code: &str) -> Response<Bytes> {
    let body = json!({
        "function_name": "f",
        "event_type": "http|GET|/f",
        "function_code": code,
        "settings": { "network": "full" },
    });
    send(platform, Port::Api, "POST", "/functions", who, Some(body))
}

#[test]
fn permissions_that_are_taken_back_hold_from_the_next_start_on() {
    let (data, file) =
        (tempfile::tempdir().expect("a directory"), tempfile::NamedTempFile::new().expect("a file"));
    let start = |tenants: &str| {
        std::fs::write(
            file.path(),
            format!("[services]\nsql_db = \"postgres://db/x\"\n[tenants]\n{tenants}"),
        )
        .expect("written");
        up().arg(SHARED).data_dir(data.path()).arg("--config").arg(file.path()).start()
    };
    let mut platform = start("services = \"any\"\nfull_network = \"any\"\n");
    if !has_networks(&platform) {
        return;
    }
    create_tenant(&platform, "acme", As::default());
    let code = "import os\ndef handler(message, context):\n    return [sorted(context['services']), os.environ['FUNCTIONSPLATFORM_GATEWAY']]\n";
    let who = As { tenant: Some("acme"), ..As::default() };
    done(deploy_in_full_network(&platform, who, code));
    let outside = format!("http://{}/t/acme", platform.gateway);
    assert_eq!(document(&at_gateway(&platform, None, "/t/acme/f")), json!([["sql_db"], outside]));
    assert!(platform.stop().success());
    let mut platform = start("");
    let inside = "http://127.0.0.1:5000";
    assert_eq!(document(&at_gateway(&platform, None, "/t/acme/f")), json!([[], inside]));
    assert!(platform.stop().success());
}

fn zip_of(files: &[(&str, &str)]) -> Bytes {
    use std::io::Write as _;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).expect("an entry");
        zip.write_all(content.as_bytes()).expect("memory takes it");
    }
    Bytes::from(zip.finish().expect("it can be closed").into_inner())
}

/// A platform with this configuration file.
fn configured(text: &str) -> (Platform, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    (up().arg(SHARED).arg("--config").arg(file.path()).start(), file)
}

#[test]
fn data_services_are_the_operators_and_of_the_tenants_that_it_names() {
    let (platform, _file) = configured(
        "[services]\nsql_db = \"postgresql://operator:secret@db/app\"\nmessage_queue = \"amqp://u:p@mq\"\n[tenants]\nservices = [\"acme\"]\n",
    );
    let code = "def handler(message, context):\n    return [sorted(context['services']), context['message_queue_uri']]\n";
    let told = |tenant| {
        let who = As { tenant: Some(tenant), ..As::default() };
        let body = json!({ "function_name": "told", "event_type": "http|GET|/told", "function_code": code });
        done(send(&platform, Port::Api, "POST", "/functions", who, Some(body)));
        document(&at_gateway(&platform, None, &format!("/t/{tenant}/told")))
    };
    create_tenant(&platform, "acme", As::default());
    create_tenant(&platform, "globex", As::default());
    assert_eq!(told("globex"), json!([[], ""]));
    for trusted in ["acme", "default"] {
        assert_eq!(told(trusted), json!([["message_queue", "sql_db"], "mq"]), "{trusted}");
    }
}

#[test]
fn a_named_tenant_is_in_the_hosts_network_only_where_the_operator_says_so() {
    let (platform, _file) = configured("[tenants]\nfull_network = [\"acme\"]\n");
    let deploy = |tenant: Option<&str>| {
        let who = As { tenant, ..As::default() };
        deploy_in_full_network(&platform, who, "def handler(message, context):\n    return 1\n")
    };
    create_tenant(&platform, "acme", As::default());
    create_tenant(&platform, "globex", As::default());
    done(deploy(Some("acme")));
    done(deploy(None));
    let refused = deploy(Some("globex"));
    let problem = document(&refused);
    assert_eq!((status(&refused), &problem["field"]), (422, &json!("network")), "{problem}");
    assert!(
        problem["detail"].as_str().expect("text").contains("does not allow the tenant globex"),
        "{problem}"
    );
}

fn cli(platform: &Platform, key: &str, arguments: &[&str]) -> Ran {
    let mut command = program();
    command
        .env("FUNCTIONSPLATFORM_URI", format!("http://{}", platform.api))
        .env("FUNCTIONSPLATFORM_KEY", key);
    run(command.args(arguments))
}

#[test]
fn the_command_line_administers_tenants_and_keys() {
    let platform = up().args(&["--require-key", SHARED]).start();
    let admin = platform.first_key().expect("up shows the operator's first key");
    let nobody = platform.cli(&["list"]);
    assert_eq!(nobody.status.code(), Some(5), "{nobody:?}");
    let made = cli(&platform, &admin, &["tenant", "create", "acme"]);
    assert!(made.status.success(), "{made:?}");
    assert_eq!(cli(&platform, &admin, &["tenant", "create", "acme"]).status.code(), Some(4));
    let ran = cli(&platform, &admin, &["--tenant", "acme", "key", "create", "ci", "--scopes", "read,deploy"]);
    assert!(ran.status.success(), "{ran:?}");
    let text = ran.stdout.trim();
    assert!(text.starts_with("fpk_") && text.len() == 56, "the key alone: {ran:?}");
    assert!(cli(&platform, text, &["list"]).status.success());
    assert_eq!(cli(&platform, text, &["key", "list"]).status.code(), Some(5));
    assert_eq!(cli(&platform, text, &["list", "--tenant", "default"]).status.code(), Some(3));
    let listed = cli(&platform, &admin, &["key", "list", "--tenant", "acme"]);
    assert!(listed.stdout.contains(&text[4..12]) && !listed.stdout.contains(&text[13..]), "{listed:?}");
    let revoked = cli(&platform, &admin, &["key", "revoke", &text[4..12], "--tenant", "acme"]);
    assert!(revoked.status.success(), "{revoked:?}");
    assert_eq!(cli(&platform, text, &["list"]).status.code(), Some(5));
    let gone = cli(&platform, &admin, &["tenant", "delete", "acme"]);
    assert!(gone.status.success(), "{gone:?}");
    assert_eq!(cli(&platform, &admin, &["tenant", "delete", "acme"]).status.code(), Some(3));
}
