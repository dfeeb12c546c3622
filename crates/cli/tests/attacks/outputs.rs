//! Too much, endless or dishonest output and answers.

use bytes::Bytes;
use http::Request;

use crate::siege::{Attacker, Siege, exchange};

#[test]
fn floods_are_bounded_and_bad_answers_are_the_functions_error() {
    let siege = Siege::of(&[Attacker { file: "outputs.py", settings: "timeout = \"5s\"" }]);
    siege.assert_outcomes(&[
        ("outputs/strange_bytes", "ok"),
        ("outputs/not_a_number", "function_error"),
        ("outputs/nested", "function_error"),
        ("outputs/circular", "function_error"),
        ("outputs/long_number", "function_error"),
        ("outputs/large", "too_large"),
        ("outputs/large_json", "too_large"),
        ("outputs/no_answer_at_all", "function_error"),
        ("outputs/hostile_headers", "function_error"),
        ("outputs/many_headers", "function_error"),
        ("outputs/hostile_error", "function_error"),
        ("outputs/lying_error", "function_error|crashed"),
        ("outputs/hostile_text", "ok"),
        ("outputs/endless_flood", "timeout"),
    ]);
    // Last: its worker serves on without the descriptors that the others write to.
    siege.assert_outcomes(&[("outputs/closed_streams", "ok")]);
    siege.assert_nothing_left();
    siege.end();
}

#[test]
fn gigabytes_of_output_are_counted_and_dropped() {
    let siege = Siege::of(&[Attacker { file: "outputs.py", settings: "timeout = \"30s\"" }]);
    for probe in ["flood", "flood_of_prints"] {
        let flood = siege.attack(&format!("outputs/{probe}"));
        assert_eq!(flood.outcome(), "ok", "{:?}", flood.record);
        assert_eq!(flood.record["limit_hit"], "logs", "{:?}", flood.record);
        let id = flood.answer.headers["x-serverless-instance-id"].to_str().expect("text").to_owned();
        let logs = siege.platform.api(&format!("/functions/instances/{id}/logs"));
        let logs = logs["logs"].as_str().expect("text");
        assert!(logs.len() < (1 << 20) + 4096, "{} bytes", logs.len());
        assert!(logs.contains("raise limits.logs]"), "{}", &logs[logs.len().saturating_sub(200)..]);
    }
    siege.end();
}

#[test]
fn endless_streams_end_at_their_limits_or_with_their_caller() {
    let settings = "timeout = \"5s\"\nstream_idle = \"1s\"\nstream_total = \"3s\"";
    let siege = Siege::of(&[Attacker { file: "outputs.py", settings }]);
    let targets = ["endless_stream", "slow_stream", "silent_stream", "broken_stream", "stream_of_nonsense"]
        .map(|probe| format!("outputs/{probe}"));
    let targets: Vec<_> = targets.iter().map(String::as_str).collect();
    for (target, attack) in targets.iter().zip(siege.attack_all(&targets)) {
        println!("{target}: {} after {} bytes", attack.outcome(), attack.answer.body.len());
        let expected = match *target {
            "outputs/broken_stream" | "outputs/stream_of_nonsense" => "function_error",
            _ => "timeout",
        };
        assert_eq!(attack.outcome(), expected, "{target}: {:?}", attack.record);
        assert!(!attack.answer.whole, "{target}: the caller was told that this was all");
    }
    // A caller who has seen enough leaves.
    let request = Request::get("/outputs/endless_stream").body(Bytes::new()).expect("a request");
    let left = exchange(siege.platform.gateway, request, Some(1 << 20));
    assert_eq!(siege.record_of(&left)["outcome"], "cancelled");
    siege.assert_nothing_left();
    siege.end();
}

#[test]
fn a_stream_of_nothing_to_a_caller_who_does_not_read_stays_bounded() {
    let settings = "timeout = \"20s\"\nconcurrency = 8";
    let siege = Siege::of(&[Attacker { file: "shared.py", settings }]);
    let unread = siege.begin("shared/stream_of_nothing");
    let call = siege.until_the_end("the call is over", || {
        let calls = siege.platform.api("/invocations?function=shared");
        let calls = calls["items"].as_array().expect("a list");
        calls.iter().find(|call| call["outcome"].is_string()).cloned()
    });
    println!("shared/stream_of_nothing: {}", call["outcome"]);
    assert_ne!(call["outcome"], "ok", "{call}");
    drop(unread);
    assert_eq!(siege.attack("shared/well").outcome(), "ok");
    siege.assert_nothing_left();
    siege.end();
}
