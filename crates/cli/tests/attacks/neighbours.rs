//! What one worker sees of another: nothing.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::siege::{Attacker, Siege};

#[test]
fn two_workers_share_nothing() {
    let siege = Siege::of(&[
        Attacker { file: "neighbour.py", settings: "env = { SECRET_OF_NEIGHBOUR = \"1\" }" },
        Attacker { file: "rights.py", settings: "" },
    ]);
    if siege.enforces("mount namespace with a read-only root") {
        let pid = siege.platform.pid();
        let attacks = siege.attack_all(&[
            "neighbour/all?wait=1",
            "neighbour/all?wait=1",
            "neighbour/all?wait=1",
            &format!("rights/all?host_pid={pid}"),
        ]);
        assert!(attacks.iter().all(|attack| attack.outcome() == "ok"), "{attacks:?}");
        let seen: Vec<Value> = attacks[..3].iter().map(|attack| attack.answer.json()).collect();
        for one in &seen {
            assert_eq!(one["files"], json!([]));
            assert_eq!(one["shared"], -1, "no segment by a known key");
            assert_eq!(one["processes"], json!(["1"]));
            assert_eq!(one["code"], json!(["function.toml", "handler.py"]));
        }
        let drawn = |one: &Value| {
            let numbers = one["numbers"].as_array().expect("a list").iter();
            numbers.chain([&one["name"]]).map(Value::to_string).collect::<Vec<_>>()
        };
        let all: Vec<_> = seen.iter().flat_map(drawn).collect();
        let different: BTreeSet<_> = all.iter().collect();
        assert_eq!((all.len(), different.len()), (15, 15), "{all:?}");
        if siege.enforces("uid per worker") {
            assert!(seen[0]["uid"] != seen[1]["uid"] && seen[1]["uid"] != seen[2]["uid"], "{seen:?}");
        }
        let other = attacks[3].answer.json();
        assert!(!other.to_string().contains("SECRET_OF_NEIGHBOUR"), "{other}");
        assert!(seen[0]["environment"].to_string().contains("SECRET_OF_NEIGHBOUR"), "{seen:?}");
    }
    siege.end();
}
