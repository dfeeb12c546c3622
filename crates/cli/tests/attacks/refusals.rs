//! What a worker asks for and does not get: the kernel's privileged half, other people's files
//! and processes, other machines.

use std::collections::BTreeSet;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use serde_json::{Value, json};

use crate::siege::{Attacker, Siege};

/// What the filter says: as a kernel without the call, or as to anybody without rights.
const REFUSED: [&str; 2] = ["ENOSYS", "EPERM"];

fn besieged(file: &str, settings: &str) -> Siege {
    Siege::of(&[Attacker { file, settings }])
}

/// CAP_SYS_RESOURCE, which also not every root has.
fn may_fix_scores() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("of this process");
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("listed");
    u64::from_str_radix(held.trim(), 16).expect("a number") & (1 << 24) != 0
}

/// Every value of an object is one of `allowed`; else their names and values.
fn others(said: &Value, allowed: &[&str]) -> Vec<String> {
    let said = said.as_object().unwrap_or_else(|| panic!("an object: {said}"));
    let is_allowed = |value: &Value| value.as_str().is_some_and(|value| allowed.contains(&value));
    said.iter()
        .filter(|(_, value)| !is_allowed(value))
        .map(|(name, value)| format!("{name}: {value}"))
        .collect()
}

#[test]
fn the_kernel_refuses_every_call_that_leads_out() {
    let siege = besieged("system_calls.py", "");
    let attack = siege.attack("system-calls/all");
    assert_eq!(attack.outcome(), "ok", "{attack:?}");
    let mut answer = attack.answer.json();
    assert_eq!(answer["pid"], 1);
    let said = answer["said"].as_object_mut().expect("an object");
    assert!(said.len() > 60, "{} probes", said.len());
    assert_eq!(said.remove("capabilities"), Some(json!([0, 0, 0, 0, 0, 0])));
    assert_eq!(said.remove("calls_of_i386"), Some(json!("SIGSYS")));
    // Calls that are allowed, because giving up rights is; gaining them is refused by the kernel:
    // for lack of the capability, or because the id does not exist in the user namespace.
    for name in ["setuid", "setresgid", "setgroups"] {
        let errno = said.remove(name).expect(name);
        assert!(errno == "EPERM" || errno == "EINVAL", "{name}: {errno}");
    }
    assert_eq!(others(&json!(said), &REFUSED), Vec::<String>::new());
    siege.assert_nothing_left();
    siege.end();
}

#[test]
fn the_hosts_files_are_not_there_and_nothing_can_be_written() {
    let siege = besieged("files.py", "");
    if siege.enforces("mount namespace with a read-only root") {
        // A name of another function's code that the attacker has guessed, or was told.
        let code = siege.platform.data_dir().join("code");
        let attack = siege.attack(&format!("files/all?path={}", code.display()));
        assert_eq!(attack.outcome(), "ok", "{attack:?}");
        let seen = attack.answer.json();
        assert_eq!(others(&seen["outside"], &["ENOENT", "EACCES", "EPERM", "ENXIO"]), Vec::<String>::new());
        assert_eq!(seen["guessed"], "ENOENT");
        assert_eq!(others(&seen["written"], &["EROFS", "EACCES", "ENOENT"]), Vec::<String>::new());
        let errors = ["EROFS", "EACCES", "EPERM", "EXDEV", "ETXTBSY", "ENOENT"];
        assert_eq!(others(&seen["changed"], &errors), Vec::<String>::new());
        assert_eq!(others(&seen["leads nowhere"], &["ENOENT", "EACCES"]), Vec::<String>::new());
        assert_eq!(seen["processes"], json!(["1"]));
        let devices: BTreeSet<_> =
            seen["devices"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        let harmless =
            ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"];
        assert_eq!(devices, BTreeSet::from(harmless));
        // Its locks are held in a worker that lives on; a new worker starts all the same.
        let also = siege.attack_all(&["files/all?path=/x", "files/all?path=/x", "files/all?path=/x"]);
        assert!(also.iter().all(|attack| attack.outcome() == "ok"), "{also:?}");
    }
    siege.end();
}

#[test]
fn a_worker_is_alone_and_its_limits_only_go_down() {
    let siege = Siege::of(&[Attacker { file: "rights.py", settings: "env = { MINE = \"1\" }" }]);
    if siege.enforces("pid, ipc, host name and cgroup namespaces") {
        let attack = siege.attack(&format!("rights/all?host_pid={}", siege.platform.pid()));
        assert_eq!(attack.outcome(), "ok", "{attack:?}");
        let seen = attack.answer.json();
        let errors = ["ESRCH", "EPERM", "EACCES", "ENOENT", "ENOMEM", "EINVAL"];
        assert_eq!(others(&seen["said"], &errors), Vec::<String>::new());
        let ends = json!({"0": "device", "1": "pipe", "2": "pipe", "3": "pipe", "4": "socket", "5": "pipe"});
        assert_eq!(seen["descriptors"], ends);
        let environment: Vec<_> =
            seen["environment"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        assert!(environment.contains(&"MINE"), "{environment:?}");
        let known =
            ["FUNCTIONSPLATFORM_GATEWAY", "HOME", "LANG", "LOGNAME", "MINE", "PATH", "TMPDIR", "USER"];
        // Where the platform takes spans, what an OpenTelemetry SDK needs to send them.
        let telemetry = [
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "OTEL_LOGS_EXPORTER",
            "OTEL_METRICS_EXPORTER",
            "OTEL_SERVICE_NAME",
        ];
        let is_known = |name: &str| known.contains(&name) || telemetry.contains(&name);
        let foreign: Vec<_> = environment.iter().filter(|name| !is_known(name)).collect();
        assert!(foreign.is_empty(), "{foreign:?}");
        assert!(!seen["own environment"].to_string().contains("CARGO"), "{seen}");
        assert!(seen["uid"].as_u64().is_some_and(|uid| uid >= 1000), "{seen}");
        // A session of its own: signals to a group or a session stay inside.
        assert_eq!(seen["group"], json!([1, 1]));
        // The kernel lets a process take back what no privilege has fixed, to what the platform has.
        let score = seen["oom score"].as_i64().expect("a number");
        let ours = std::fs::read_to_string("/proc/self/oom_score_adj").expect("ours");
        let ours: i64 = ours.trim().parse().expect("a number");
        let least = if may_fix_scores() { ours.max(500) } else { ours };
        assert!(score >= least, "{score}, where {least} is the least");
        let nothing = "0000000000000000";
        assert_eq!(
            seen["no new rights"],
            json!({"NoNewPrivs": "1", "Seccomp": "2", "CapEff": nothing, "CapBnd": nothing, "CapPrm": nothing})
        );
    }
    siege.end();
}

#[test]
fn without_a_network_there_is_only_ones_own_loopback() {
    let siege = besieged("network.py", "network = \"none\"");
    if siege.enforces("network = \"none\"") {
        let name = format!("functionsplatform-attack-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let _listener = UnixListener::bind_addr(&address).expect("an abstract socket of the host");
        let ports = [siege.platform.gateway.port(), siege.platform.api.port(), siege.platform.traces.port()];
        let ports = ports.map(|port| port.to_string()).join(",");
        let attack = siege.attack(&format!("network/all?ports={ports}&abstract={name}"));
        assert_eq!(attack.outcome(), "ok", "{attack:?}");
        let mut seen = attack.answer.json();
        let seen = seen.as_object_mut().expect("an object");
        assert_eq!(seen.remove("own"), Some(json!("connected")));
        assert_eq!(seen.remove("devices"), Some(json!(["lo"])));
        assert_eq!(seen.remove("names"), Some(json!([])));
        assert_eq!(seen.remove("platform"), Some(json!(["ECONNREFUSED", "ECONNREFUSED", "ECONNREFUSED"])));
        let over_ipv6 = seen.remove("platform over IPv6").expect("probed");
        assert!(over_ipv6.as_array().expect("a list").iter().all(|said| said != "connected"), "{over_ipv6}");
        let errors = ["ECONNREFUSED", "ENETUNREACH", "ENOENT", "EPERM", "EADDRNOTAVAIL", "EINVAL", "ENODEV"];
        assert_eq!(others(&json!(seen), &errors), Vec::<String>::new());
    }
    siege.end();
}
