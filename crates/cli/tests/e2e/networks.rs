//! The networks of functions: calls between them from inside, and who is said to have called.

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use crate::platform::{Platform, call, skip, up};

/// Calls `/back`, and tries to reach the management API.
const FRONT: &str = "import json, os, socket, urllib.request
GATEWAY = os.environ.get('FUNCTIONSPLATFORM_GATEWAY')
def attempt(address):
    try:
        socket.create_connection(address, timeout=5).close()
    except OSError as error:
        return error.errno
    return 0
def handler(message, context):
    back = None
    if GATEWAY:
        with urllib.request.urlopen(GATEWAY + '/back', timeout=10) as answer:
            back = json.load(answer)
    return {'gateway': GATEWAY, 'back': back, 'api': attempt(('127.0.0.1', API))}
";

pub(crate) fn create(platform: &Platform, name: &str, code: &str, network: &str) {
    let document = json!({
        "function_name": name,
        "event_type": format!("http|GET|/{name}"),
        "function_code": code.replace("API", &platform.api.port().to_string()),
        "settings": { "network": network },
    });
    let request = Request::post("/functions").header("content-type", "application/json");
    let answer = call(platform.api, request.body(Bytes::from(document.to_string())).expect("a request"));
    assert_eq!(answer.status(), 200, "{answer:?}");
}

pub(crate) fn get(platform: &Platform, path: &str) -> Value {
    let answer = platform.get(path);
    assert_eq!(answer.status(), 200, "{answer:?}");
    serde_json::from_slice(answer.body()).expect("JSON")
}

/// The functions that called `back`, newest first.
fn callers_of_back(platform: &Platform) -> Value {
    let records = platform.api("/invocations?function=back");
    records["items"].as_array().expect("items").iter().map(|item| item["called_by"].clone()).collect()
}

pub(crate) fn has_networks(platform: &Platform) -> bool {
    has(platform, "network = \"internal\"")
}

/// Whether this host enforces it; in CI it does.
fn has(platform: &Platform, mechanism: &str) -> bool {
    let host = platform.api("/host");
    let mechanisms = host["mechanisms"].as_array().expect("a list");
    let found = mechanisms.iter().find(|it| it["mechanism"] == mechanism).expect("listed");
    let has = found["enforced"] == true;
    if !has {
        skip("root", &found.to_string());
    }
    has
}

#[test]
fn a_function_in_an_internal_network_calls_others_under_its_own_name_and_nothing_else() {
    let platform = up().start();
    if !has_networks(&platform) {
        return;
    }
    create(&platform, "back", "def handler(message, context):\n    return ['from back']\n", "none");
    create(&platform, "front", FRONT, "internal");
    let seen = get(&platform, "/front");
    assert_eq!(seen, json!({"gateway": "http://127.0.0.1:5000", "back": ["from back"], "api": 111}));
    assert_eq!(get(&platform, "/back"), json!(["from back"]));
    assert_eq!(callers_of_back(&platform), json!([null, "front"]), "who called from outside is not known");
    let stored = platform.api("/invocations?function=back&limit=1");
    let id = stored["items"][0]["id"].as_str().expect("an id").to_owned();
    assert!(platform.api(&format!("/invocations/{id}"))["called_by"].is_null());
}

#[test]
fn a_function_without_a_network_is_not_told_where_the_gateway_is() {
    let platform = up().start();
    if !has_networks(&platform) {
        return;
    }
    create(&platform, "front", FRONT, "none");
    assert_eq!(get(&platform, "/front"), json!({"gateway": null, "back": null, "api": 111}));
}

#[test]
fn a_function_in_the_hosts_network_reaches_the_gateway_but_not_the_management_api() {
    let platform = up().start();
    if !has(&platform, "network = \"full\" without the platform's own ports") {
        return;
    }
    create(&platform, "back", "def handler(message, context):\n    return ['from back']\n", "full");
    create(&platform, "front", FRONT, "full");
    let gateway = format!("http://{}", platform.gateway);
    assert_eq!(get(&platform, "/front"), json!({"gateway": gateway, "back": ["from back"], "api": 111}));
    assert_eq!(callers_of_back(&platform), json!([null]), "an address is no proof");
}
