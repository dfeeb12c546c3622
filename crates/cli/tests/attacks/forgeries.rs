//! Workers that talk to the platform over the runtime's descriptors, against its protocol.

use bytes::Bytes;
use http::Request;

use crate::siege::{Attacker, Siege, exchange};

fn besieged() -> Siege {
    // One worker, so that a second call meets what the first has left.
    let settings = "timeout = \"3s\"\n[scaling]\nmax = 1";
    Siege::of(&[Attacker { file: "forgeries.py", settings }])
}

#[test]
fn whatever_breaks_the_protocol_ends_its_worker() {
    let siege = besieged();
    let probes = [
        "four_gigabytes",
        "negative_length",
        "zero_length",
        "long_head",
        "other_call",
        "call_zero",
        "out_of_place",
        "unknown_type",
        "unknown_flags",
        "noise",
        "head_is_no_json",
        "deep_head",
        "chunk_without_stream",
        "memfd_never_came",
        "memfd_unsealed",
        "memfd_is_a_device",
        "memfd_is_a_pipe",
        "memfd_of_a_terabyte",
        "memfd_with_a_hole",
        "memfd_of_a_byte",
        "stream_of_holes",
        "close_answers",
        "close_all_ends",
        "ends_in_a_child",
    ];
    for probe in probes {
        siege.assert_outcomes(&[(&format!("forgeries/{probe}"), "crashed")]);
    }
    assert_eq!(siege.attack("forgeries/well").outcome(), "ok");
    siege.assert_nothing_left();
    siege.end();
}

#[test]
fn what_a_worker_leaves_in_its_side_channel_holds_nobody_up() {
    let siege = besieged();
    siege.attack("forgeries/well");
    for probe in ["parting_gift", "lingering_socket"] {
        let seen = siege
            .longest_latency_during(|| siege.assert_outcomes(&[(&format!("forgeries/{probe}"), "crashed")]));
        println!("{probe}: the victim's longest call took {seen:?}");
    }
    siege.assert_nothing_left();
    siege.end();
}

#[test]
fn nobody_gets_an_answer_that_was_meant_for_another_call() {
    let siege = besieged();
    for probe in ["answer_twice", "answer_the_next_call"] {
        let first = siege.attack(&format!("forgeries/{probe}"));
        assert_eq!(first.answer.body.as_ref(), b"{\"first\": true}", "{first:?}");
        // The forged answer is in the pipe after 50 ms; these calls come before and after that.
        for _ in 0..4 {
            std::thread::sleep(std::time::Duration::from_millis(40));
            let next = siege.attack("forgeries/well");
            println!("after {probe}: {} {:?}", next.outcome(), next.answer.body);
            let body = String::from_utf8_lossy(&next.answer.body).into_owned();
            assert!(!body.contains("second"), "{next:?}");
        }
    }
    let by_child = siege.attack("forgeries/answer_by_a_child");
    assert_eq!(by_child.answer.body.as_ref(), b"{\"by\": \"a child\"}", "{by_child:?}");
    siege.end();
}

#[test]
fn slow_and_silent_workers_meet_the_deadline_of_the_call() {
    let siege = besieged();
    siege.assert_outcomes(&[("forgeries/byte_by_byte", "timeout")]);
    let first = siege.attack("forgeries/does_not_read");
    assert_eq!(first.outcome(), "ok", "{first:?}");
    // 200 KB travel in the pipe, 6 MB by descriptor: neither is taken.
    for size in [200_000, 6_000_000] {
        let unread = siege.attack_with("forgeries/well", Bytes::from(vec![b'x'; size]));
        println!("{size} bytes unread: {}", unread.outcome());
        assert!(matches!(unread.outcome(), "timeout" | "ok"), "{unread:?}");
    }
    assert_eq!(siege.attack("forgeries/well").outcome(), "ok");
    siege.assert_outcomes(&[("forgeries/shut_side_channel", "ok")]);
    assert_eq!(siege.attack("forgeries/many_descriptors").outcome(), "ok");
    let after = siege.attack_with("forgeries/well", Bytes::from(vec![b'x'; 6_000_000]));
    println!("6 MB after the side channel was misused: {}", after.outcome());
    let kept = siege.attack("forgeries/keeps_descriptors");
    assert_eq!(kept.outcome(), "ok", "{kept:?}");
    // The channel for descriptors fills up in the end; the call that finds it full fails and the
    // next one has a new worker.
    let full = (0..400).find_map(|_| {
        let call = siege.attack_with("forgeries/well", Bytes::from(vec![b'x'; 300_000]));
        (call.answer.body.as_ref() != b"{\"kept\": true}").then_some(call)
    });
    let full = full.expect("no channel holds 400 descriptors");
    assert_eq!(full.outcome(), "crashed", "{:?}", full.record);
    assert_eq!(siege.attack("forgeries/well").outcome(), "ok");
    let flood = siege.attack("forgeries/log_flood");
    assert_eq!(flood.outcome(), "ok", "{:?}", flood.record);
    assert_eq!(flood.record["limit_hit"], "logs", "{:?}", flood.record);
    siege.assert_nothing_left();
    siege.end();
}

#[test]
fn logs_cost_the_platform_what_their_limit_says_and_not_what_comes_with_them() {
    let siege = Siege::of(&[Attacker { file: "forgeries.py", settings: "timeout = \"35s\"" }]);
    siege.assert_outcomes(&[("forgeries/well", "ok"), ("forgeries/well", "ok")]);
    let before = siege.peak();
    siege.assert_outcomes(&[("forgeries/levels", "ok"), ("forgeries/shortest_lines", "ok")]);
    // 40 MB came with 40 bytes of text, and a line for each of 128 KiB would take a hundred times as much.
    let taken = siege.peak() - before;
    println!("the platform took {taken} KiB more than before");
    assert!(taken < 24 << 10, "{taken} KiB");
    siege.assert_nothing_left();
    siege.end();
}

#[test]
fn a_forged_answer_is_held_to_the_rules_for_answers() {
    let siege = besieged();
    let expected = [
        ("status_of_a_million", "crashed"),
        ("status_switching_protocols", "crashed"),
        ("split_headers", "function_error"),
        ("framing_headers", "ok|function_error"),
        ("negative_usage", "crashed"),
        ("enormous_usage", "crashed"),
        ("enormous_times", "crashed"),
        ("hostile_spans", "ok|crashed"),
    ];
    for (probe, outcome) in expected {
        let attack = siege.attack(&format!("forgeries/{probe}"));
        println!("{probe}: {} {}", attack.outcome(), attack.record["error"]);
        assert!(outcome.split('|').any(|one| one == attack.outcome()), "{probe}: {attack:?}");
        assert!((200..600).contains(&attack.answer.status.as_u16()), "{attack:?}");
        assert!(!attack.answer.headers.contains_key("set-cookie"), "{attack:?}");
        assert!(attack.outcome() != "ok" || attack.answer.whole, "{attack:?}");
        assert!(
            probe != "framing_headers" || attack.answer.status != 200 || attack.answer.body == "whole",
            "{attack:?}"
        );
        // What was said of the call can be shown: as a trace and in the list of calls.
        let trace = attack.record["trace_id"].as_str().expect("a trace");
        siege.platform.api("/invocations?function=forgeries");
        let seen = Request::get(format!("/api/traces/{trace}")).body(Bytes::new()).expect("a request");
        assert_eq!(exchange(siege.platform.traces, seen, None).status, 200, "{probe}");
    }
    assert_eq!(siege.attack("forgeries/well").outcome(), "ok");
    siege.assert_nothing_left();
    siege.end();
}
