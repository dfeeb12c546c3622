//! `simulate`: what it prints, what it takes from a running platform, and how it ends.

use std::fs;

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::stub::{Ran, Stub, command, ok, problem, run};

/// Leaves the policies nothing to decide, so that a change of theirs changes no snapshot here.
const SMALL: &str = r#"name = "small"
duration = "10s"

[scaling]
min = 4
max = 4

[function]
service = "100ms"
start = "5ms"
error_percent = 10

[[streams]]
name = "callers"
process = "even"
rate = 10
from = "1s"
deadline = "1s"
"#;

fn simulate(arguments: &[&str]) -> Ran {
    run(command().arg("simulate").args(arguments))
}

/// Runs it on this scenario.
fn play(scenario: &str, arguments: &[&str]) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("load.toml"), scenario).unwrap();
    run(command().current_dir(dir.path()).args(["simulate", "load.toml"]).args(arguments))
}

#[test]
fn a_report_is_a_table_and_two_are_side_by_side() {
    assert_snapshot!("simulated", play(SMALL, &[]));
    let compared =
        play(SMALL, &["--compare", "function.service=200ms; function.error_percent=0", "--set", "load=1.5"]);
    assert_snapshot!("simulated_side_by_side", compared);
}

#[test]
fn reports_for_programs_have_every_run() {
    let report =
        |arguments: &[&str]| -> Value { serde_json::from_str(&play(SMALL, arguments).stdout).unwrap() };
    let one = report(&["--output", "json"]);
    assert_eq!((&one["total"]["offered"], &one["scenario"]), (&json!(90), &json!("small")));
    let both = report(&["--output", "json", "--compare", "function.service=50ms; load=2", "--seed", "7"]);
    let runs = both["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    assert_eq!(
        (&runs[1]["name"], &runs[1]["report"]["seed"]),
        (&json!("function.service=50ms; load=2"), &json!(7))
    );
    assert_eq!(runs[1]["report"]["total"]["offered"], 180);
}

#[test]
fn a_report_can_be_drawn_to_stdout_and_beside_the_table() {
    let drawn = play(SMALL, &["--output", "svg"]);
    assert!(
        drawn.exit == 0 && drawn.stdout.starts_with("<svg ") && drawn.stdout.ends_with("</svg>\n"),
        "{drawn}"
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plot.svg");
    let ran = play(SMALL, &["--plot", path.to_str().unwrap()]);
    assert!(ran.stdout.starts_with("small, seed 0"), "{ran}");
    assert_eq!(fs::read_to_string(path).unwrap(), drawn.stdout);
    let other = run(command().args(["doctor", "--output", "svg"]));
    assert!(other.exit == 2 && other.stderr.contains("only simulate"), "{other}");
}

#[test]
fn the_scenarios_of_the_program_are_listed_and_printed() {
    let listed = simulate(&["--list"]);
    assert_eq!(listed.stdout, simulate(&[]).stdout);
    assert!(listed.stdout.contains("priority"), "{listed}");
    let shown = simulate(&["tail", "--show"]);
    assert_eq!(shown.stdout, fp_sim::SCENARIOS.iter().find(|(name, _)| *name == "tail").unwrap().1);
}

#[test]
fn a_wrong_scenario_is_one_sentence_with_its_line() {
    let refused = |from: &str, to: &str| {
        let ran = play(&SMALL.replacen(from, to, 1), &[]);
        assert_eq!(ran.exit, 2, "{ran}");
        ran.stderr.lines().next().unwrap().to_owned()
    };
    assert_eq!(
        refused("rate = 10", "rate = -1"),
        "error: load.toml: streams.0.rate must be above 0 (line 16)"
    );
    assert_eq!(
        refused("\"100ms\"", "\"soon\""),
        "error: load.toml: \"soon\" is not a time; write 250ms or 30s (line 9)"
    );
    assert!(refused("max = 4", "maximum = 4").starts_with("error: load.toml: scaling.maximum is not a key"));
    assert!(refused("duration", "duratoin").ends_with("(line 2)"));
    let ran = play(SMALL, &["--set", "streams.nobody.rate=1"]);
    assert!(ran.exit == 2 && ran.stderr.contains("none is called \"nobody\""), "{ran}");
    let ran = play(SMALL, &["--set", "scaling.max"]);
    assert!(ran.exit == 2 && ran.stderr.contains("key=value"), "{ran}");
    let ran = play(
        &SMALL.replacen("rate = 10", "trace = \"gone.csv\"", 1).replacen("process = \"even\"\n", "", 1),
        &[],
    );
    assert!(
        ran.exit == 1 && ran.stderr.contains("cannot read gone.csv: no such file or directory (line 15)"),
        "{ran}"
    );
}

#[test]
fn files_are_looked_for_beside_the_scenario() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("load.toml"), SMALL.replacen("rate = 10", "trace = \"calls.csv\"", 1)).unwrap();
    fs::write(dir.path().join("calls.csv"), "0,250\n1000,250\n").unwrap();
    let ran = simulate(&[dir.path().join("load.toml").to_str().unwrap(), "--output", "json"]);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&report["total"]["answered"], &report["total"]["latency_ms"]["p50"]),
        (&json!(2), &json!(250.0))
    );
}

/// A call `at` milliseconds after the first.
fn recorded(at: u32, changes: &Value) -> Value {
    let mut call = json!({
        "id": format!("call-{at}"), "function": "thumbs", "state": "done",
        "started_at": format!("2026-11-23T10:00:{:02}.{:03}Z", at / 1000, at % 1000),
        "outcome": "ok", "criticality": "default", "cold": false, "attempts": 1, "weight": 1,
        "phases": { "route": 0.1, "queue": 0.1, "start": 0.0, "run": 20.5, "send": 0.1 },
    });
    call.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    call
}

fn platform() -> Stub {
    let function = json!({ "function_name": "thumbs", "version": 3, "settings": {
        "timeout": "5s", "memory": "256MiB", "concurrency": 1, "criticality": "default",
        "scaling": { "min": 0, "max": 4, "idle": "auto" }, "latency": { "hedge": "auto" },
    }});
    let cold = json!({ "cold": true, "phases": { "route": 0.1, "queue": 0.0, "start": 40.0, "run": 90.0, "send": 0.1 } });
    let nothing = json!({});
    let running = json!({ "state": "running", "outcome": null, "phases": null, "cold": null, "attempts": null, "weight": null });
    let refused = json!({ "outcome": "quota_exceeded", "attempts": 0, "phases": { "route": 0.1, "queue": 0.0, "start": 0.0, "run": 0.0, "send": 0.1 } });
    // The newest first, in two pages; the last two stand for more than themselves.
    let newest = [
        recorded(3_900, &running),
        recorded(3_000, &json!({ "weight": 3 })),
        recorded(2_000, &json!({ "weight": 2, "criticality": "sheddable" })),
    ];
    let oldest = [recorded(1_000, &refused), recorded(500, &nothing), recorded(0, &cold)];
    let first = "GET /invocations?function=thumbs&since=1h&limit=1000";
    Stub::start([
        ok("GET /functions/thumbs", &function.to_string()),
        ok(first, &json!({ "items": newest, "next": "n:1" }).to_string()),
        ok(&format!("{first}&cursor=n%3A1"), &json!({ "items": oldest, "next": null }).to_string()),
        ok("GET /functions/quiet", &function.to_string()),
        ok("GET /invocations?function=quiet&since=1h&limit=1000", r#"{"items":[],"next":null}"#),
        problem("GET /functions/nobody", 404, r#"{"title":"No such function","code":"not_found"}"#),
    ])
}

#[test]
fn a_recorded_function_is_a_scenario() {
    let platform = platform();
    let shown = platform.run(&["simulate", "--from", "thumbs", "--show"]);
    assert_snapshot!("simulated_from_history", shown);
    let ran = platform.run(&["simulate", "--from", "thumbs", "--output", "json"]);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["total"]["offered"], 7, "each record stands for its weight: {ran}");
    assert_eq!(report["total"]["answered"], 7, "{ran}");
    let names: Vec<_> = report["streams"].as_array().unwrap().iter().map(|stream| &stream["name"]).collect();
    assert_eq!(names, ["default", "sheddable"]);
}

#[test]
fn a_recorded_scenario_can_be_kept_and_played_without_the_platform() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("monday.toml");
    let path = path.to_str().unwrap();
    let platform = platform();
    let first = platform.run(&["simulate", "--from", "thumbs", "--save", path]);
    assert_eq!(first.exit, 0, "{first}");
    let again = simulate(&[path]);
    assert_eq!(again.stdout, first.stdout);
    let mut files: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let expected =
        ["monday.default.csv", "monday.runs.csv", "monday.sheddable.csv", "monday.starts.csv", "monday.toml"];
    assert_eq!(files, expected);
    let arrivals = fs::read_to_string(dir.path().join("monday.default.csv")).unwrap();
    assert_eq!(
        arrivals,
        "arrival_ms,service_ms\n0.000,\n500.000,20.5\n3000.000,20.5\n3000.000,\n3000.000,\n"
    );
}

#[test]
fn a_function_without_calls_and_one_that_is_not_there_are_told_apart() {
    let platform = platform();
    let quiet = platform.run(&["simulate", "--from", "quiet"]);
    assert!(quiet.exit == 3 && quiet.stderr.contains("no call of quiet since 1h"), "{quiet}");
    let nobody = platform.run(&["simulate", "--from", "nobody"]);
    assert!(nobody.exit == 3 && nobody.stderr.contains("No such function"), "{nobody}");
    assert_eq!(simulate(&["--from", "thumbs", "--platform-uri", "127.0.0.1:1"]).exit, 6);
    assert_eq!(simulate(&["tail", "--from", "thumbs"]).exit, 2);
    assert_eq!(simulate(&["tail", "--since", "2h"]).exit, 2);
}
