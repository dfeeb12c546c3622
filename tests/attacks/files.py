"""Looks for the host's files, and for a place to write that outlives or escapes the worker.

Must come of it: the host's files are not there, everything but /tmp is read-only, /proc shows the
worker alone, there are five harmless devices and no /sys. Locks on shared files are granted (the
kernel has no way to refuse them) and must disturb nobody: the test goes on to start a worker.
"""

import errno
import fcntl
import glob
import os

OUTSIDE = (
    "/etc/shadow",
    "/root/.ssh",
    "/root/.profile",
    "/root/.bashrc",
    "/root/.bash_history",
    "/var/lib",
    "/var/run/docker.sock",
    "/run",
    "/boot",
    "/sys",
    "/sys/fs/cgroup",
    "/sys/kernel/debug",
    "/dev/kvm",
    "/dev/mem",
    "/dev/kmsg",
    "/dev/fuse",
    "/dev/ptmx",
    "/dev/tty",
    "/dev/net/tun",
    "/dev/loop-control",
    "/proc/kcore",
    "/proc/kallsyms",
    "/proc/kmsg",
    "/proc/keys",
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/fs/binfmt_misc",
    "/proc/2",
    "/proc/1/root/etc/shadow",
    "/proc/self/root/../../etc/shadow",
    "/code/../../../etc/shadow",
)
READ_ONLY = ("/", "/usr", "/usr/lib", "/etc", "/code", "/runtime", "/dev", "/var/tmp", "/proc")


def handler(message, context):
    return {
        "outside": {path: refused(lambda path=path: look(path)) for path in OUTSIDE},
        "guessed": refused(lambda: look(message["query"]["path"])),
        "written": {path: refused(lambda path=path: write(path + "/owned")) for path in READ_ONLY},
        "changed": {
            "own code": refused(lambda: write(__file__)),
            "delete own code": refused(lambda: os.unlink(__file__)),
            "rename own code": refused(lambda: os.rename(__file__, "/code/other.py")),
            "mode of own code": refused(lambda: os.chmod(__file__, 0o777)),
            "owner of own code": refused(lambda: os.chown(__file__, os.getuid(), -1)),
            "times of own code": refused(lambda: os.utime(__file__)),
            "attribute of own code": refused(lambda: os.setxattr(__file__, "user.owned", b"1")),
            "hard link out of code": refused(lambda: os.link(__file__, "/tmp/link")),
            "hard link out of usr": refused(lambda: os.link("/usr/bin/env", "/tmp/link")),
            "python": refused(lambda: write(os.path.realpath("/proc/self/exe"))),
            "python through proc": refused(lambda: write("/proc/self/exe")),
            "own limits by oom_score_adj": refused(lambda: write("/proc/self/oom_score_adj", b"-1000")),
            "core pattern": refused(lambda: write("/proc/sys/kernel/core_pattern", b"|/tmp/x")),
            "uid map": refused(lambda: write("/proc/self/uid_map", b"0 0 1")),
        },
        "leads nowhere": {
            "link to the host": refused(lambda: through_a_link("/etc/shadow")),
            "link up": refused(lambda: through_a_link("../../../../etc/shadow")),
            "descriptor of the root": refused(lambda: upwards_from_descriptors()),
        },
        "processes": sorted(name for name in os.listdir("/proc") if name.isdigit()),
        "devices": sorted(os.listdir("/dev")),
        "mounts_of_host": len(glob.glob("/proc/*/mountinfo")),
        "locks": [lock(path) for path in ("/usr/bin/env", "/code", "/runtime", "/etc/passwd", "/")],
    }


def refused(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"


def look(path):
    if os.path.isdir(path):
        os.listdir(path)
    else:
        with open(path, "rb") as file:
            file.read(1)


def write(path, data=b"owned"):
    descriptor = os.open(path, os.O_WRONLY | (0 if os.path.exists(path) else os.O_CREAT))
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def through_a_link(target):
    if os.path.lexists("/tmp/link"):
        os.unlink("/tmp/link")
    os.symlink(target, "/tmp/link")
    look("/tmp/link")


def upwards_from_descriptors():
    """Every directory that is open, and what is above it."""
    for name in os.listdir("/proc/self/fd"):
        if os.path.isdir(f"/proc/self/fd/{name}"):
            look(f"/proc/self/fd/{name}/../../../../../etc/shadow")
    raise FileNotFoundError(errno.ENOENT, "no directory is open")


def lock(path):
    descriptor = os.open(path, os.O_RDONLY)
    held.append(descriptor)
    return refused(lambda: fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB))


held = []
