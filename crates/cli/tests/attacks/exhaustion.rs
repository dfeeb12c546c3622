//! Taking everything: each kind ends at a limit of the worker's own.

use crate::siege::{Attacker, Siege};

const FILE: &str = "exhaustion.py";

#[test]
fn each_resource_ends_at_a_limit_of_the_workers_own() {
    let siege =
        Siege::of(&[Attacker { file: FILE, settings: "memory = \"256MiB\"\ntasks = 24\ntimeout = \"20s\"" }]);
    let (tasks, tmp) =
        (siege.enforces("task limit"), siege.enforces("mount namespace with a read-only root"));
    // Probe, how it ends, at most so many, whether the host can.
    let expected = [
        ("many_files", "ENOSPC", 4096, tmp),
        ("full_tmp", "ENOSPC", 64, tmp),
        ("large_file", "EFBIG", 0, true),
        ("descriptors", "EMFILE", 1024, true),
        ("pipes", "EMFILE", 512, true),
        ("polls", "EMFILE", 1024, true),
        ("shared_memory", "ENOSPC", 4096, tmp),
        ("threads", "can't start new thread", 24, tasks),
        ("processes", "EAGAIN", 24, tasks),
        ("zombies", "EAGAIN", 24, tasks),
    ];
    let mut wrong = Vec::new();
    for (probe, end, most, _) in expected.iter().filter(|(.., can)| *can) {
        let attack = siege.attack(&format!("exhaustion/{probe}"));
        let seen = &attack.answer;
        println!("{probe}: {} {:?}", attack.outcome(), seen.body);
        let seen: serde_json::Value = serde_json::from_slice(&seen.body).unwrap_or_default();
        if attack.outcome() != "ok"
            || seen["end"] != *end
            || seen["taken"].as_u64().is_none_or(|taken| taken > *most)
        {
            wrong.push(format!("{probe} must end with {end} after at most {most}: {seen} {attack:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    siege.end();
}

#[test]
fn more_memory_than_allowed_is_out_of_memory_however_it_is_taken() {
    let siege = Siege::of(&[Attacker { file: FILE, settings: "memory = \"48MiB\"\ntimeout = \"35s\"" }]);
    if siege.enforces("memory limit") {
        siege.assert_outcomes(&[
            ("exhaustion/memory_heap", "out_of_memory"),
            ("exhaustion/memory_of_a_child", "out_of_memory"),
            ("exhaustion/memory_memfd", "out_of_memory"),
            ("exhaustion/memory_tmp", "out_of_memory"),
            ("exhaustion/memory_shared", "out_of_memory"),
            ("exhaustion/memory_sockets", "out_of_memory"),
            ("exhaustion/memory_semaphores", "out_of_memory"),
        ]);
    }
    siege.assert_nothing_left();
    siege.end();
}

#[test]
fn bombs_and_what_does_not_want_to_end_meet_the_deadline() {
    let short = "timeout = \"2s\"\ntasks = 32";
    let siege = Siege::of(&[
        Attacker { file: FILE, settings: short },
        Attacker { file: "stubborn.py", settings: short },
    ]);
    if siege.enforces("task limit") && siege.enforces("pid, ipc, host name and cgroup namespaces") {
        siege.assert_outcomes(&[("exhaustion/fork_bomb", "timeout"), ("exhaustion/thread_bomb", "timeout")]);
    }
    if siege.enforces("pid, ipc, host name and cgroup namespaces") {
        siege.assert_outcomes(&[
            ("stubborn/swallow_everything", "timeout"),
            ("stubborn/block_signals", "timeout"),
            ("stubborn/survivors", "timeout"),
            ("stubborn/stop_self", "ok"),
            ("stubborn/stopped_child", "timeout"),
            ("stubborn/deadlock", "timeout"),
            ("stubborn/slow_finally", "timeout"),
            ("stubborn/spin", "timeout"),
            ("stubborn/spin_in_c", "timeout"),
            ("stubborn/spin_on_every_cpu", "timeout"),
        ]);
    }
    siege.assert_nothing_left();
    siege.end();
}

#[test]
fn a_killed_platform_takes_those_with_it_who_refuse_to_die() {
    let siege = Siege::of(&[Attacker { file: "stubborn.py", settings: "timeout = \"60s\"" }]);
    if siege.enforces("pid, ipc, host name and cgroup namespaces") {
        let begun = siege.begin("stubborn/orphans");
        // The worker, five daemons and the zygote's others: all of them are there, then none.
        siege.until("the daemons run", || (siege.strays().len() >= 5).then_some(()));
        siege.kill();
        drop(begun);
    } else {
        siege.end();
    }
}
