//! Processes that end themselves.

use serde_json::json;

use crate::siege::{Attacker, Siege};

#[test]
fn whatever_ends_a_worker_costs_its_own_caller_only() {
    let siege = Siege::of(&[Attacker { file: "crashes.py", settings: "timeout = \"5s\"" }]);
    siege.assert_outcomes(&[
        ("crashes/deep_recursion", "function_error"),
        // Newer Pythons notice by themselves.
        ("crashes/no_stack", "crashed|function_error"),
        ("crashes/segmentation_fault", "crashed"),
        ("crashes/abort", "crashed"),
        ("crashes/leave", "crashed"),
        ("crashes/close_everything", "crashed"),
        ("crashes/other_program", "crashed"),
        ("crashes/overwrite_self", "crashed"),
    ]);
    if siege.enforces("pid, ipc, host name and cgroup namespaces") {
        siege.assert_outcomes(&[("crashes/kill_self", "ok")]);
    }
    let well = siege.attack("crashes/well");
    assert_eq!(well.answer.json(), json!({"core": [1, 1]}), "{well:?}");
    siege.assert_nothing_left();
    siege.end();
}
