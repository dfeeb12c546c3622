//! Deploying, looking, deleting, and every way to get it wrong.

use std::io::Write;

use serde_json::{Value, json};

use crate::exchange::{bare, json as send_json, show, with_body};
use crate::platform::{Platform, up};

const CODE: &str = "def handler(message, context):\n    return {'ok': True}\n";

fn post(platform: &Platform, body: Value) -> String {
    show(platform.api, send_json("POST", "/functions", &body))
}

#[test]
fn a_function_is_created_replaced_and_deleted() {
    let platform = up().start();
    let cats =
        |code: &str| json!({"event_type": "http|GET|/cats", "function_name": "cats", "function_code": code});
    let steps = [
        post(&platform, cats(CODE)),
        show(platform.api, bare("GET", "/functions")),
        post(&platform, cats("def handler(message, context):\n    return 2\n")),
        show(platform.api, bare("GET", "/functions/cats")),
        show(platform.api, bare("GET", "/workers")),
        show(platform.api, bare("DELETE", "/functions/cats")),
        show(platform.api, bare("DELETE", "/functions/cats")),
        show(platform.api, bare("GET", "/functions/cats")),
        show(platform.api, bare("GET", "/functions/no%20name")),
        show(platform.api, bare("GET", "/functions")),
    ];
    insta::assert_snapshot!(steps.join("\n"));
}

#[test]
fn a_wrong_deploy_names_the_field_and_the_line() {
    let platform = up().start();
    let deploy = |name: &str, event: &str, code: &str| {
        post(&platform, json!({"event_type": event, "function_name": name, "function_code": code}))
    };
    let malformed =
        |body: &'static str| show(platform.api, with_body("POST", "/functions", "application/json", body));
    let settings = json!({"event_type": "http|GET|/a", "function_name": "a", "function_code": CODE, "settings": {"slo": {"availability": 101}}});
    let unknown =
        json!({"event_type": "http|GET|/a", "function_name": "a", "function_code": CODE, "colour": 1});
    let steps = [
        malformed("{"),
        malformed("[]"),
        malformed("{\"event_type\": 5}"),
        malformed("{\"event_type\": \"http|GET|/a\"}"),
        post(&platform, unknown),
        post(&platform, settings),
        deploy("a b", "http|GET|/a", CODE),
        deploy("trigger", "http|GET|/a", CODE),
        deploy("a", "/a", CODE),
        deploy("a", "cron|* * * * *", CODE),
        deploy("a", "http|GET|/a", "def handler(message, context)\n    return 1\n"),
        deploy("a", "http|GET|/a", "import json\nimport no_such_module\ndef handler(m, c): pass\n"),
        deploy("a", "http|GET|/a", "answer = 42\n"),
        deploy("a", "http|GET|/a/{x}/1", CODE),
        deploy("b", "http|GET|/a/{y}/1", CODE),
    ];
    insta::assert_snapshot!(steps.join("\n"));
}

#[test]
fn an_archive_is_deployed_under_its_own_name_only() {
    let platform = up().start();
    let manifest = "name = \"packed\"\nevents = [\"http|GET|/packed\"]\n";
    let put = |path: &str, content_type: &str, body: Vec<u8>| {
        show(platform.api, with_body("PUT", path, content_type, body))
    };
    let sound = || archive(&[("function.toml", manifest), ("handler.py", CODE)]);
    let misspelt = manifest.replace("events", "event");
    let steps = [
        put("/functions/packed", "application/zip", sound()),
        put("/functions/other", "application/zip", sound()),
        put("/functions/packed", "application/zip", b"no archive".to_vec()),
        put("/functions/packed", "application/zip", archive(&[("handler.py", CODE)])),
        put(
            "/functions/packed",
            "application/zip",
            archive(&[("function.toml", &misspelt), ("handler.py", CODE)]),
        ),
        put("/functions/packed", "application/octet-stream", sound()),
        show(platform.api, bare("GET", "/functions")),
    ];
    insta::assert_snapshot!(steps.join("\n"));
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, text) in files {
        archive.start_file(*name, zip::write::SimpleFileOptions::default()).expect("in memory");
        archive.write_all(text.as_bytes()).expect("in memory");
    }
    archive.finish().expect("in memory").into_inner()
}
