"""The way into the sandbox, one kernel step at a time.

Three sequences, each read top-down:

* `build_root`: once per zygote. A read-only root with Python, the system's libraries and our
  runtime; the zygote itself moves into it, so its children are born inside.
* `guard_zygote`: once per zygote, after its imports. What can be dropped before the forks.
* `enter`: in each forked child. Everything that is a worker's own.

Each step is one call with one reason and fails as a `StepError` that names it. Which steps run
depends on `mode`: `root` (real privileges), `user_namespace` (root inside one), `reduced` (no
namespaces). Constants are from the kernel's headers.
"""

import ctypes
import errno
import os
import resource
import struct

import landlock

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME = 1, 4, 15
PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 22, 24, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
SECCOMP_MODE_FILTER = 2
SIGKILL = 9
LAST_CAPABILITY = 63  # the kernel answers EINVAL beyond its own last one
# Not in every libc: numbers of the generic table, equal on x86_64, aarch64 and riscv64.
SYS_CLOSE_RANGE, SYS_MOUNT_SETATTR = 436, 442
SYS_PIVOT_ROOT = {"x86_64": 155}.get(os.uname().machine, 41)
SYS_CAPGET, SYS_CAPSET = {"x86_64": (125, 126)}.get(os.uname().machine, (90, 91))

# What the kernel adds to a worker's badness when the host has no memory left, in thousandths of
# all there is: a worker goes before a service of the host's own, whatever was given to us.
OOM_SCORE = 500

# The same in all workers, and no obstacle to the zygote, so set once: locked memory, a page or two for
# keys; the size of files, far above what /tmp holds and answers may have, for descriptors elsewhere;
# no priority above others', whatever the platform itself was given; pending signals, because POSIX
# timers take one each, and thousands that end at once are one interrupt that nobody's share pays for.
LIMITS = (("MEMLOCK", 64 << 10), ("FSIZE", 1 << 30), ("NICE", 0), ("RTPRIO", 0), ("SIGPENDING", 1024))

# Version 3 header, own process; effective, permitted and inheritable all empty; and room for what is
# left. Made here, because a fork should not have to.
_CAPABILITIES_HEADER, _NO_CAPABILITIES = struct.pack("<II", 0x20080522, 0), bytes(24)
_CAPABILITIES_LEFT = ctypes.create_string_buffer(24)

# The user that a worker sees itself as inside its own user namespace (mode `user_namespace`).
INNER_ID = 1000

# What a worker finds below /etc: enough for name resolution, TLS and the loader.
ETC_FILES = (
    "ld.so.cache", "ld.so.conf", "resolv.conf", "hosts", "nsswitch.conf", "host.conf", "gai.conf",
    "services", "protocols", "localtime", "timezone", "mime.types", "os-release",
)
ETC_DIRS = ("ssl", "pki", "ca-certificates", "alternatives")
DEVICES = ("null", "zero", "full", "random", "urandom")
SYSTEM_DIRS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


class StepError(Exception):
    """A step that the kernel refused."""

    def __init__(self, step, number):
        super().__init__(f"{step}: {os.strerror(number)}")
        self.step = step
        self.errno = number


def _done(step, result):
    if result < 0:
        raise StepError(step, ctypes.get_errno())
    return result


def _mount(step, source, target, kind, flags, data=None):
    encode = lambda text: None if text is None else os.fsencode(text)
    _done(step, libc.mount(encode(source), encode(target), encode(kind), ctypes.c_ulong(flags), encode(data)))


def _prctl(step, option, value, pointer=0):
    _done(step, libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(pointer), 0, 0))


def _restrict_mount(step, target, flags):
    """Adds restrictions to a mount and everything below it; never lifts one."""
    attributes = struct.pack("<QQQQ", flags, 0, 0, 0)
    number = libc.syscall(
        SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(target), AT_RECURSIVE, attributes, ctypes.c_size_t(32)
    )
    _done(step, number)


def _bind(root, source, target=None, read_only=True):
    """Shows a file or directory of the host inside the new root, at the same path."""
    inside = root + (target or source)
    if os.path.isdir(source):
        os.makedirs(inside, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(inside), exist_ok=True)
        open(inside, "a").close()
    _mount(f"bind {source}", source, inside, None, MS_BIND | MS_REC)
    if read_only:
        _restrict_mount(f"make {source} read-only", inside, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)


def _write(step, path, text):
    # Not `open`: a text file has buffers and a codec, and forks write some lines each.
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.write(number, text.encode())
        finally:
            os.close(number)
    except OSError as error:
        raise StepError(step, error.errno or errno.EIO) from None


# --- once per zygote -------------------------------------------------------------------------


def build_root(root, runtime_dir, prefixes, gid, layers):
    """Builds the read-only root at `root` and moves this process into it."""
    _done("own mount namespace", libc.unshare(CLONE_NEWNS))
    # Nothing that is mounted from here on may show on the host, nor the other way round.
    _mount("make mounts private", None, "/", None, MS_REC | MS_PRIVATE)
    _mount("mount the root", "root", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=4m")
    _bind(root, "/usr")
    for name in SYSTEM_DIRS:
        _system_dir(root, "/" + name)
    for prefix in prefixes:
        if prefix.startswith("/nix/"):
            prefix = "/nix"  # a package there links to its siblings
        if not (prefix == "/" or prefix == "/usr" or prefix.startswith("/usr/")):
            _bind(root, prefix)
    _bind(root, runtime_dir, "/runtime")
    for source, target in layers:
        _bind(root, source, target)
    _etc(root, gid)
    _dev(root)
    for name in ("/proc", "/tmp", "/code", "/var/tmp"):
        os.makedirs(root + name)
    # The zygote needs it for its own namespaces; each worker covers it with its own.
    _mount("bind /proc", "/proc", root + "/proc", None, MS_BIND | MS_REC)
    os.chdir(root)
    # Old and new root at the same place: no directory for the old one is needed.
    _done("pivot_root", libc.syscall(SYS_PIVOT_ROOT, b".", b"."))
    _done("detach the old root", libc.umount2(b".", MNT_DETACH))
    os.chdir("/")
    _mount("make the root read-only", None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _system_dir(root, path):
    """/bin and its like: a symbolic link where the host has one, else bound."""
    if os.path.islink(path):
        os.symlink(os.readlink(path), root + path)
    elif os.path.isdir(path):
        _bind(root, path)


def _etc(root, gid):
    os.makedirs(root + "/etc")
    for name in ETC_FILES:
        try:
            with open("/etc/" + name, "rb") as source, open(root + "/etc/" + name, "wb") as copy:
                copy.write(source.read(1 << 20))
        except OSError:
            # Not on this host, or not for us: the worker does without, like the host's users.
            if os.path.exists(root + "/etc/" + name):
                os.unlink(root + "/etc/" + name)
    for name in ETC_DIRS:
        if os.path.isdir("/etc/" + name):
            _bind(root, "/etc/" + name)
    # The worker's uid has no name on purpose; `worker` is for tools that want the list at all.
    _write("write /etc/passwd", root + "/etc/passwd", f"root:x:0:0::/:/bin/false\nworker:x:{INNER_ID}:{gid}::/tmp:/bin/sh\n")
    _write("write /etc/group", root + "/etc/group", f"root:x:0:\nworker:x:{gid}:\n")


def _dev(root):
    os.makedirs(root + "/dev")
    for name in DEVICES:
        _bind(root, "/dev/" + name, read_only=False)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, f"{root}/dev/{name}")
    # POSIX semaphores and shared memory land in the worker's own /tmp.
    os.symlink("/tmp", root + "/dev/shm")


def die_with_parent():
    """The kernel ends this process when the one that started it ends."""
    _prctl("parent-death signal", PR_SET_PDEATHSIG, SIGKILL)


def guard_zygote(mode, filters):
    """What can be given up or limited before the forks, so that no fork pays for it."""
    if mode == "root" or (mode == "reduced" and os.geteuid() == 0):
        # Children lose their privileges with the uid; this makes it final for what they exec.
        drop_bounding_set()
    for name, value in LIMITS:
        _limit(name, value)
    # One, not zero: with zero a helper that core_pattern pipes to still gets the memory, as root and
    # outside of every cgroup (core(5)). The filter keeps workers from making it zero.
    _limit("CORE", 1)
    # Not above others' priority, whatever the platform was started with.
    if os.getpriority(os.PRIO_PROCESS, 0) < 0:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    _prctl("no_new_privs", PR_SET_NO_NEW_PRIVS, 1)
    for name, program in zip(("base", "feigned", "denied"), filters):
        if program:
            install_filter(f"seccomp ({name})", prepared_filter(program))


def drop_bounding_set():
    for capability in range(LAST_CAPABILITY):
        if libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            # The kernel's last one was before this. Or there is no right to drop any (a container
            # that has given up CAP_SETPCAP): no_new_privs, of which all processes here are, keeps
            # from them what an exec would bring, whatever this set holds.
            if ctypes.get_errno() in (errno.EINVAL, errno.EPERM):
                return
            raise StepError("drop the capability bounding set", ctypes.get_errno())


def _limit(name, value):
    """Soft and hard, and never above what there is."""
    kind = getattr(resource, "RLIMIT_" + name)
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    try:
        resource.setrlimit(kind, (value, value))
    except OSError as error:
        raise StepError(f"limit {name}", error.errno or errno.EIO) from None


def oom_score():
    """What each worker has to write to its `oom_score_adj`; `None` where it is born with as much. Only
    ever more than ours: less takes a privilege, and would spare workers before the platform."""
    with open("/proc/self/oom_score_adj", "rb") as file:
        return str(OOM_SCORE) if int(file.read()) < OOM_SCORE else None


def prepared_filter(program):
    """A filter as the kernel takes it, and what it points to."""
    if not program:
        return None
    buffer = ctypes.create_string_buffer(program, len(program))
    return struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer)), buffer


def install_filter(step, prepared):
    _done(step, libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, prepared[0], 0, 0))


# --- in each child ---------------------------------------------------------------------------


class Prepared:
    """What is the same in all workers of a zygote, made once, in the root that they will have."""

    def __init__(self, mode, own_proc, landlock_version, worker_filter):
        self.mode = mode
        self.own_proc = own_proc
        self.landlock = landlock.prepare(landlock_version)
        self.worker_filter = prepared_filter(worker_filter)
        self.oom_score = oom_score()


def enter(prepared, order, descriptors, control, network, groups):
    """Makes this forked child a sandboxed worker: requests on 3, side channel on 4,
    answers on 5, the output pipe on 1 and 2, `control` moved to 6 until the zygote's side has
    been told."""
    mode, own_proc, worker_filter = prepared.mode, prepared.own_proc, prepared.worker_filter
    # No signal to a group or a session of the launcher's: neither ends at a namespace.
    os.setsid()
    if prepared.oom_score:
        _write("oom score", "/proc/self/oom_score_adj", prepared.oom_score)
    for group in groups:
        # Of version 1, where a single thread that moves itself avoids the lock that a foreign writer
        # waits for. In one of version 2 it is born, or else waits.
        if os.write(group, b"0") != 1:
            raise StepError("join the cgroups", errno.EIO)
    if mode != "reduced":
        _own_namespaces(network)
        _own_mounts(mode, order, own_proc)
    if prepared.landlock:
        # After the mounts, which it would refuse; no_new_privs is the zygote's already.
        landlock.restrict(prepared.landlock, _done, libc)
    _own_descriptors(descriptors, control)
    _own_limits(order)
    if worker_filter and mode == "root":
        # With the privilege still there: the memory for compiled filters is one pot for the host's
        # users, and whoever has emptied it would keep others' workers from starting.
        install_filter("seccomp (worker)", worker_filter)
    _own_user(mode, order, own_proc)
    _no_capabilities()
    # After the uid: changing it clears both. A worker never outlives its zygote.
    die_with_parent()
    # Else the worker could not read its own /proc files; other workers have other uids.
    _prctl("dumpable", PR_SET_DUMPABLE, 1)
    if worker_filter and mode != "root":
        install_filter("seccomp (worker)", worker_filter)


def _own_namespaces(network):
    for namespace in network:
        # Made ahead by the launcher, which costs fifty times what entering does.
        _done("own network", libc.setns(namespace, CLONE_NEWNET))
    # The pid namespace was made by the zygote before the fork: this process is its first.
    flags = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
    _done("own namespaces", libc.unshare(flags))
    _done("host name", libc.sethostname(b"worker", ctypes.c_size_t(6)))


def _own_mounts(mode, order, own_proc):
    owns = mode == "root" and order["uid"] is not None
    owner = f",uid={order['uid']},gid={order['uid']}" if owns else ""
    options = f"mode=700,size={order['tmp_size']},nr_inodes={order['tmp_files']}{owner}"
    _mount("mount /tmp", "tmp", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, options)
    if own_proc:
        _mount("mount /proc", "proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=2,subset=pid")
    else:
        # The host's processes stay hidden even where a proc of our own is refused.
        _mount("cover /proc", "none", "/proc", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k")


def _own_descriptors(descriptors, control):
    requests, answers, side, output = descriptors
    nothing = os.open("/dev/null", os.O_RDWR)
    # All received numbers are above 6 (the zygote sees to it), so none is overwritten too early.
    for number, source in enumerate((nothing, output, output, requests, side, answers, control)):
        os.dup2(source, number, inheritable=number < 3)
    _done("close descriptors", libc.syscall(SYS_CLOSE_RANGE, 7, ctypes.c_uint(0xFFFFFFFF), 0))


def _own_limits(order):
    for name, value in order["limits"].items():
        _limit(name, value)
    os.umask(0o022)


def _own_user(mode, order, own_proc):
    uid = order["uid"]
    if mode == "user_namespace":
        # A user namespace of its own: no rights over anything outside, and its processes are
        # counted apart (RLIMIT_NPROC).
        _done("own user namespace", libc.unshare(CLONE_NEWUSER))
        if own_proc:
            _write("refuse setgroups", "/proc/self/setgroups", "deny")
            _write("uid map", "/proc/self/uid_map", f"{INNER_ID} 0 1")
            _write("gid map", "/proc/self/gid_map", f"{INNER_ID} 0 1")
        drop_bounding_set()
    elif uid is not None:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        except OSError as error:
            raise StepError(f"become uid {uid}", error.errno or errno.EIO) from None


def _no_capabilities():
    """Said outright: leaving uid 0 drops them, but a service may have been given its own without being
    uid 0, and a host may have no uids to give."""
    if libc.prctl(PR_CAP_AMBIENT, ctypes.c_ulong(PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0) < 0:
        raise StepError("clear the ambient capabilities", ctypes.get_errno())
    _done("drop capabilities", libc.syscall(SYS_CAPSET, _CAPABILITIES_HEADER, _NO_CAPABILITIES))
    _done("read the capabilities", libc.syscall(SYS_CAPGET, _CAPABILITIES_HEADER, _CAPABILITIES_LEFT))
    if any(_CAPABILITIES_LEFT.raw):
        raise StepError("drop capabilities", errno.EPERM)
