//! What a worker cannot see and cannot do.

use crate::stage::{Stage, TRYING, json};

const REACH: &str = "def handler(message, context):
    return {
        'pid': os.getpid(), 'uid': os.getuid(), 'gids': os.getgroups(),
        'processes': [name for name in os.listdir('/proc') if name.isdigit()],
        'root': sorted(os.listdir('/')),
        'descriptors': len(os.listdir('/proc/self/fd')),
        'environment': sorted(os.environ),
        'host': socket.gethostname(),
        'shadow': refused(lambda: open('/etc/shadow')),
        'code': refused(lambda: open('/code/x', 'w')),
        'usr': refused(lambda: open('/usr/x', 'w')),
        'runtime': refused(lambda: open('/runtime/x', 'w')),
        'slash': refused(lambda: os.mkdir('/x')),
        'tmp': refused(lambda: open('/tmp/x', 'w')),
        'kill': refused(lambda: os.kill(2, 9)),
        'setuid': refused(lambda: os.setuid(0)),
        'mknod': refused(lambda: os.mknod('/tmp/null', 0o600 | 0o020000, os.makedev(1, 3))),
        'chroot': refused(lambda: os.chroot('/tmp')),
        'mount': errno_of(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)),
        'unshare': errno_of(libc.unshare(0x10000000)),
        'clone_user': errno_of(libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)) if os.uname().machine == 'x86_64' else 1,
        'ptrace': errno_of(libc.ptrace(0, 0, 0, 0)),
        'keyctl': errno_of(libc.syscall(250, 0, 0)) if os.uname().machine == 'x86_64' else 38,
        'io_uring': errno_of(libc.syscall(425, 1, 0)),
        'bpf': errno_of(libc.syscall(321, 0, 0, 0)) if os.uname().machine == 'x86_64' else 38,
        'nice': refused(lambda: os.setpriority(os.PRIO_PROCESS, 0, -20)),
        'code_dir': os.path.dirname(__file__),
    }
";

#[tokio::test]
async fn a_worker_sees_and_touches_its_own_only() {
    let stage = Stage::new().await;
    if stage.enforces("mount namespace with a read-only root") {
        let mut worker = stage.worker(&format!("{TRYING}{REACH}")).await;
        let (seen, _) = json(&mut worker, 1).await;
        assert_eq!(seen["pid"], 1);
        assert!(seen["uid"].as_u64().is_some_and(|uid| uid >= 1000), "{seen}");
        assert_eq!(seen["processes"], serde_json::json!(["1"]));
        assert_eq!(seen["host"], "worker");
        assert_eq!(seen["code_dir"], "/code");
        assert!(!seen["root"].to_string().contains("home"), "{seen}");
        // Three standard ones, stream, side channel, and the one that lists them.
        assert!(seen["descriptors"].as_u64().is_some_and(|count| count <= 8), "{seen}");
        let environment = seen["environment"].to_string();
        assert!(environment.contains("LEVEL") && !environment.contains("CARGO"), "{environment}");
        for (what, errno) in [
            ("shadow", &[2, 13][..]),
            ("code", &[30, 13]),
            ("usr", &[30, 13]),
            ("runtime", &[30, 13]),
            ("slash", &[30, 13]),
            ("tmp", &[0]),
            ("kill", &[3]),
            ("setuid", &[1, 22]),
            ("mknod", &[1, 38]),
            ("chroot", &[1, 38]),
            ("mount", &[38]),
            ("unshare", &[38]),
            ("clone_user", &[1, 38]),
            ("ptrace", &[1, 38]),
            ("keyctl", &[38]),
            ("io_uring", &[38]),
            ("bpf", &[38]),
            ("nice", &[1, 13]),
        ] {
            let got = seen[what].as_i64().expect("a number");
            assert!(errno.contains(&got), "{what}: errno {got}, one of {errno:?} expected");
        }
        drop(worker);
    }
    stage.close().await;
}

#[tokio::test]
async fn two_workers_share_neither_uid_nor_tmp_nor_random_numbers() {
    let stage = Stage::new().await;
    let code = "import os, random, ssl, uuid
def handler(message, context):
    found = os.listdir('/tmp')
    open('/tmp/mine', 'w').close()
    return [os.getuid(), found, random.random(), str(uuid.uuid4()), ssl.RAND_bytes(16).hex()]
";
    let mut one = stage.worker(code).await;
    let mut two = stage.worker(code).await;
    let (a, _) = json(&mut one, 1).await;
    let (b, _) = json(&mut two, 1).await;
    if stage.enforces("uid per worker") {
        assert_ne!(a[0], b[0]);
    }
    if stage.enforces("mount namespace with a read-only root") {
        assert_eq!((&a[1], &b[1]), (&serde_json::json!([]), &serde_json::json!([])));
    }
    assert_ne!(a[2], b[2]);
    assert_ne!(a[3], b[3]);
    assert_ne!(a[4], b[4]);
    drop((one, two));
    stage.close().await;
}
