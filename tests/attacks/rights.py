"""Tries to reach other processes, to raise its own limits, and to find what a parent left open.

Must come of it: it is alone in its pid namespace, limits only go down, and it inherited nothing
but its own socket ends and its own environment.
"""

import ctypes
import errno
import os
import resource
import signal
import stat


def handler(message, context):
    host_pid = int(message["query"]["host_pid"])
    return {
        "said": {
            "kill everybody": refused(lambda: os.kill(-1, signal.SIGKILL)),
            "kill the platform": refused(lambda: os.kill(host_pid, signal.SIGKILL)),
            "kill its group": refused(lambda: os.killpg(host_pid, signal.SIGKILL)),
            "open a process of the host": refused(lambda: os.pidfd_open(host_pid)),
            "its environment": refused(lambda: open(f"/proc/{host_pid}/environ", "rb")),
            "its memory": refused(lambda: open(f"/proc/{host_pid}/mem", "rb")),
            "nice": refused(lambda: os.setpriority(os.PRIO_PROCESS, 0, -20)),
            "real time": refused(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))),
            "io real time": io_priority(),
            "more files": refused(lambda: raised(resource.RLIMIT_NOFILE)),
            "larger files": refused(lambda: raised(resource.RLIMIT_FSIZE)),
            "pending signals": refused(lambda: raised(resource.RLIMIT_SIGPENDING)),
            "locked memory": refused(lambda: raised(resource.RLIMIT_MEMLOCK)),
            "lock all memory": lock_memory(),
        },
        "group": [os.getsid(0), os.getpgrp()],
        "oom score": oom_score(),
        "affinity": refused(lambda: os.sched_setaffinity(0, os.sched_getaffinity(0))),
        "descriptors": descriptors(),
        "environment": sorted(os.environ),
        "own environment": open("/proc/self/environ", "rb").read().decode("latin-1"),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "groups": os.getgroups(),
        "no new rights": no_new_rights(),
    }


def refused(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno]
    except ValueError as error:  # what `resource` makes of EPERM
        return "EPERM" if "not allowed to raise" in str(error) else repr(error)
    return "done"


def oom_score():
    """What is left of attempts to be spared when memory runs out: for good, and before most others."""
    for score in ("-1000", "0"):
        try:
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write(score)
        except OSError:
            pass
    with open("/proc/self/oom_score_adj") as file:
        return int(file.read())


def raised(kind):
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (hard + 1, hard + 1))


def io_priority():
    number = {"x86_64": 251}.get(os.uname().machine, 30)
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(number, 1, 0, (1 << 13) | 0)
    return "done" if result == 0 else errno.errorcode[ctypes.get_errno()]


def lock_memory():
    libc = ctypes.CDLL(None, use_errno=True)
    return "done" if libc.mlockall(3) == 0 else errno.errorcode[ctypes.get_errno()]


def descriptors():
    """What each open descriptor is, without the one that lists them."""
    kinds = {}
    for number in range(1024):
        try:
            mode = os.fstat(number).st_mode
        except OSError:
            continue
        names = {stat.S_IFSOCK: "socket", stat.S_IFIFO: "pipe", stat.S_IFCHR: "device"}
        kinds[str(number)] = names.get(stat.S_IFMT(mode), "file")
    return kinds


def no_new_rights():
    with open("/proc/self/status") as status:
        lines = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
    return {key: lines.get(key) for key in ("NoNewPrivs", "Seccomp", "CapEff", "CapBnd", "CapPrm")}
