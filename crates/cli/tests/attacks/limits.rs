//! What the host is said to enforce, and the one limit that is measured in time: a quota of the CPU.

use serde_json::Value;

use crate::siege::{Attacker, Siege};

/// A fifth of one processor.
const QUOTA: f64 = 0.2;

#[test]
fn a_quota_of_the_cpu_holds_also_for_who_spins_on_every_processor() {
    let siege = Siege::of(&[Attacker {
        file: "stubborn.py",
        settings: &format!("cpu_limit = {QUOTA}\ntimeout = \"30s\""),
    }]);
    if siege.enforces("cpu weight and quota") {
        let attack = siege.attack("stubborn/spin_for_a_while");
        assert_eq!(attack.outcome(), "ok", "{attack:?}");
        let seen = attack.answer.json();
        let number = |name: &str| seen[name].as_f64().expect("a number");
        let share = number("cpu_seconds") / number("seconds");
        println!("{share:.2} of a processor where {QUOTA} is the limit: {seen}");
        // Two periods of the quota more, and one each way for when it began.
        assert!(share < QUOTA * 1.5, "{seen}");
    }
    siege.end();
}

/// In CI the guests say which version of cgroups they have; elsewhere there is nothing to compare.
#[test]
fn what_the_host_is_said_to_enforce_is_enforced_by_its_cgroups() {
    let siege = Siege::of(&[]);
    let host = siege.platform.api("/host");
    let mechanisms = host["mechanisms"].as_array().expect("a list");
    let state =
        |name: &str| mechanisms.iter().find(|it| it["mechanism"] == name).cloned().unwrap_or_default();
    let limits = ["memory limit", "task limit", "cpu weight and quota"];
    for mechanism in mechanisms {
        println!("{mechanism}");
        let says = |key: &str| mechanism[key].as_str().is_some_and(|text| !text.is_empty());
        assert!(mechanism["enforced"] == true || (says("why_not") && says("how_to_get_it")), "{mechanism}");
    }
    let gaps = mechanisms.iter().filter(|it| it["floor"] == true && it["enforced"] != true).count();
    assert_eq!(host["meets_floor"], Value::Bool(gaps == 0), "{host}");
    if let Ok(version) = std::env::var("FUNCTIONSPLATFORM_TESTS_CGROUPS") {
        let group = siege.platform.cgroups();
        println!("cgroups {version}: {group:?}");
        assert!(limits.iter().all(|name| state(name)["enforced"] == true), "{host}");
        let expected = if version == "v2" { 1 } else { 3 };
        assert_eq!(group.len(), expected, "one group per hierarchy: {group:?}");
    }
    siege.end();
}
