//! The walls beyond namespaces: landlock, feigned calls, refused arguments, and the floor.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use fp_sandbox::{Isolation, Sandbox, SandboxConfig};
use serde_json::json;

use crate::stage::{EXECUTABLE, Stage, TRYING, config, json};

#[tokio::test]
async fn abstract_sockets_of_the_host_are_out_of_reach_where_landlock_knows_scopes() {
    let name = format!("functionsplatform-walls-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _listener = UnixListener::bind_addr(&address).expect("an abstract socket of the host");
    let stage = Stage::new().await;
    let code = format!(
        "{TRYING}
def handler(message, context):
    own = socket.socket(socket.AF_UNIX)
    own.bind('\\0own')
    own.listen()
    return {{
        'host': refused(lambda: socket.socket(socket.AF_UNIX).connect('\\0{name}')),
        'own': refused(lambda: socket.socket(socket.AF_UNIX).connect('\\0own')),
        'moved': refused(lambda: (os.makedirs('/tmp/a/b'), open('/tmp/a/b/x', 'w').close(), os.rename('/tmp/a/b/x', '/tmp/x'))),
        'null': refused(lambda: open('/dev/null', 'w').write('x')),
        'run': os.system('/bin/true'),
    }}
"
    );
    let mut worker = stage.worker(&code).await;
    let (seen, _) = json(&mut worker, 1).await;
    let host = stage.sandbox.host();
    let (files, scopes) = ("landlock: files", "landlock: abstract sockets and signals");
    let expected = if host.enforces(scopes) { 1 } else { 0 };
    assert_eq!(seen, json!({"host": expected, "own": 0, "moved": 0, "null": 0, "run": 0}));
    for name in [files, scopes] {
        let mechanism = host.mechanisms.iter().find(|it| it.mechanism == name).expect("listed");
        println!("{name}: {mechanism:?}");
        assert!(mechanism.enforced || mechanism.why_not.as_ref().is_some_and(|why| !why.is_empty()));
        assert!(!mechanism.floor, "older kernels do without");
    }
    drop(worker);
    stage.close().await;
}

#[tokio::test]
async fn calls_that_would_be_felt_by_others_do_nothing_or_are_refused() {
    let stage = Stage::new().await;
    if stage.enforces("seccomp") {
        let code = format!(
            "{TRYING}
def handler(message, context):
    python = os.open('/usr/bin/env', os.O_RDONLY)
    lingering = socket.socket()
    pair = struct.pack('ii', 1, 3600)
    lingering.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pair)
    high = 1 << 32
    libc.syscall(54, lingering.fileno(), ctypes.c_long(high | 1), ctypes.c_long(high | 13), pair, 8)
    return {{
        # Of a descriptor that is not open: whoever looked would say so.
        'feigned': [errno_of(call(-1)) for call in (libc.fsync, libc.fdatasync, libc.syncfs)],
        'advice': errno_of(libc.posix_fadvise(python, 0, 0, 4)),
        'lingers': struct.unpack('ii', lingering.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))[0],
        'mapped': errno_of(libc.msync(0, 4096, 1)),
        'huge': errno_of(libc.syscall(9, 0, ctypes.c_long(2 << 20), 3, 0x40022, -1, 0)),
        'huge_file': refused(lambda: os.memfd_create('x', 4)),
        'core': errno_of(libc.prctl(62, 1, 0, 0, 0)),
        'watches': [errno_of(libc.inotify_init1(0)), errno_of(libc.fcntl(os.open('/usr/bin', os.O_RDONLY), 1026, 1))],
        'families': [refused(lambda: socket.socket(*which)) for which in
            ((2, 1, 132), (2, 1, 262), (2, 6, 33), (2, 5, 0), (2, 3, 255), (16, 3, 12), (16, 3, 4), (38, 5, 0), (40, 1, 0))],
        'needed': [refused(lambda: socket.socket(*which).close()) for which in
            ((1, 1, 0), (1, 5, 0), (2, 1, 0), (2, 2, 0), (2, 1, 6), (10, 1, 6), (10, 2, 17), (2, 0x80801, 0), (16, 3, 0))],
        'priority': [refused(lambda: os.nice(-1)), refused(lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)))],
        'file': refused(lambda: os.fsync(os.open('/tmp/x', os.O_CREAT | os.O_RDWR))),
    }}
"
        );
        let mut worker = stage.worker(&code).await;
        let (seen, _) = json(&mut worker, 1).await;
        assert_eq!(seen["feigned"], json!([0, 0, 0]));
        assert_eq!((&seen["advice"], &seen["lingers"]), (&json!(0), &json!(0)));
        assert_eq!(seen["families"], json!([38, 38, 38, 38, 38, 38, 38, 38, 38]));
        assert_eq!(seen["needed"], json!([0, 0, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(seen["priority"], json!([1, 1]));
        assert_eq!(seen["file"], 0);
        assert_eq!(seen["watches"], json!([38, 1]), "they would tell what others open");
        if cfg!(target_arch = "x86_64") {
            assert_eq!(seen["mapped"], 12, "ENOMEM, because the question is answered");
            assert_eq!((&seen["huge"], &seen["huge_file"], &seen["core"]), (&json!(1), &json!(1), &json!(1)));
        }
        drop(worker);
    }
    stage.close().await;
}

#[tokio::test]
async fn strict_isolation_starts_above_the_floor_only_and_names_what_is_missing() {
    let stage = Stage::new().await;
    let floor = stage.sandbox.host().meets_the_floor();
    assert_eq!(stage.sandbox.host().meets_floor, floor.is_ok());
    stage.close().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let strict = SandboxConfig { isolation: Isolation::Strict, ..config(&dir.path().join("run")) };
    match (Sandbox::start(strict).await, floor) {
        (Ok(sandbox), Ok(())) => sandbox.shutdown().await,
        (Err(error), Err(below)) => {
            let text = error.to_string();
            for mechanism in &below.missing {
                assert!(text.contains(&mechanism.mechanism), "{text}");
                assert!(text.contains(mechanism.how_to_get_it.as_deref().expect("a remedy")), "{text}");
            }
        }
        (started, floor) => panic!("{started:?} with {floor:?}"),
    }
    assert!(!dir.path().join("run").exists(), "a sandbox that does not start leaves nothing");
}

/// Root without the right to packet filters, as in a container with some capabilities added: what is
/// missing is named for what it is, and the rest goes on.
#[test]
fn without_the_right_to_set_up_networks_the_fence_and_own_networks_are_said_to_be_missing() {
    let setpriv = std::process::Command::new("setpriv").arg("--version").output();
    if !rustix::process::geteuid().is_root() || setpriv.is_err() {
        return crate::stage::skip("root", "only root has capabilities to give up, by setpriv");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    crate::stage::write_code(&dir.path().join("code"), "def handler(message, context):\n    return {}\n");
    let mut command = std::process::Command::new("setpriv");
    command.args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin", EXECUTABLE, "platform"]);
    command.arg(dir.path().join("run")).arg(dir.path().join("code"));
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut stdout, &mut line).expect("a line");
    drop(child.stdin.take());
    assert!(child.wait().expect("it ends").success(), "{line}");
    let report: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(report["mode"], "root", "{report}");
    let mechanism = |name: &str| {
        let all = report["host"]["mechanisms"].as_array().expect("a list");
        all.iter().find(|it| it["mechanism"] == name).cloned().expect("listed")
    };
    let says = |name: &str, key: &str, what: &str| {
        let found = mechanism(name);
        assert_eq!(found["enforced"], false, "{found}");
        assert!(found[key].as_str().is_some_and(|text| text.contains(what)), "{found}");
    };
    says("network = \"full\" without the platform's own ports", "why_not", "no CAP_NET_ADMIN");
    for name in ["network = \"none\"", "network = \"internal\""] {
        says(name, "why_not", "cannot be made and set up");
        says(name, "how_to_get_it", "CAP_NET_ADMIN");
    }
    assert_eq!(mechanism("uid per worker")["enforced"], true);
    assert_eq!(report["host"]["meets_floor"], false);
}

/// As the pods of most clusters are: with a score that cannot be lowered, and root without the right to
/// take rights away. In the second round without namespaces as well, where nothing may outlive a worker.
#[test]
fn in_a_container_with_few_rights_workers_start_and_are_no_better_off_than_the_platform() {
    let setpriv = std::process::Command::new("setpriv").arg("--version").output();
    if !rustix::process::geteuid().is_root() || setpriv.is_err() {
        return crate::stage::skip("root", "only root has capabilities to give up, by setpriv");
    }
    let code = format!(
        "{TRYING}
def handler(message, context):
    return {{
        'score': int(open('/proc/self/oom_score_adj').read()),
        'shared memory': errno_of(libc.shmget(0, ctypes.c_size_t(4096), 0o1600)),
    }}
"
    );
    for (kind, mode, shared_memory) in [("platform", "root", 0), ("confined-platform", "reduced", 38)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        crate::stage::make_readable(dir.path());
        crate::stage::write_code(&dir.path().join("code"), &code);
        let mut command = std::process::Command::new("sh");
        let script = "echo 800 >/proc/self/oom_score_adj && exec setpriv --bounding-set -sys_resource,-setpcap \
            --inh-caps -sys_resource,-setpcap \"$@\"";
        command.args(["-c", script, "sh", EXECUTABLE, kind]);
        command.arg(dir.path().join("run")).arg(dir.path().join("code"));
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut line = String::new();
        let mut stdout = std::io::BufReader::new(child.stdout.take().expect("piped"));
        std::io::BufRead::read_line(&mut stdout, &mut line).expect("a line");
        drop(child.stdin.take());
        assert!(child.wait().expect("it ends").success(), "{line}");
        let report: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(report["mode"], mode, "{report}");
        assert_eq!(report["answer"], json!({"score": 800, "shared memory": shared_memory}));
    }
}

#[tokio::test]
async fn an_exception_that_cannot_be_looked_at_is_still_the_functions() {
    let stage = Stage::new().await;
    let code = "class Hostile(BaseException):
    pass
def throws(*a, **k):
    raise Hostile
class Meta(type):
    __getattribute__ = __instancecheck__ = throws
class Worst(BaseException, metaclass=Meta):
    __str__ = __repr__ = __setattr__ = throws
    __class__ = __traceback__ = __cause__ = __context__ = __notes__ = args = errno = property(throws)
class Number(OSError):
    errno = args = property(throws)
def handler(message, context):
    if message['query']['a'] == '1' and not hasattr(handler, 'again'):
        handler.again = True
        raise Worst
    raise Number(5, 'x')
";
    let mut worker = stage.worker(code).await;
    let (failure, _) = crate::stage::failure(&mut worker, crate::stage::call(1, "")).await;
    assert_eq!(failure.exception_type, "Worst");
    assert!(failure.traceback.contains("in handler"), "{}", failure.traceback);
    let (failure, _) = crate::stage::failure(&mut worker, crate::stage::call(2, "")).await;
    assert_eq!(failure.exception_type, "Number");
    assert!(worker.is_reusable());
    drop(worker);
    stage.close().await;
}
