"""Does not want to end: swallows what interrupts it, hides in children, stops, spins, locks up.

Must come of it: the deadline ends the worker with everything it started (`timeout`). A process
that is first in its namespace cannot stop itself, so `stop_self` simply answers.
"""

import ctypes
import os
import re
import signal
import threading
import time


def handler(message, context):
    return globals()[message["path_params"]["probe"]]()


def swallow_everything():
    for number in signal.valid_signals():
        try:
            signal.signal(number, lambda *_: None)
        except (OSError, ValueError):
            pass
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass


def block_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        time.sleep(60)


def spin():
    while True:
        pass


def spin_in_c():
    """One bytecode that takes minutes: no signal handler of Python's runs meanwhile."""
    re.match(r"(a+)+$", "a" * 64 + "b")


def spin_on_every_cpu():
    for cpu in sorted(os.sched_getaffinity(0)):
        if os.fork() == 0:
            os.sched_setaffinity(0, {cpu})
            spin()
    spin()


def spin_for_a_while():
    """Measures what it gets of the processors when it wants all of them."""
    begun, children = time.monotonic(), []
    for _ in os.sched_getaffinity(0):
        child = os.fork()
        if child == 0:
            while time.monotonic() - begun < 3:
                pass
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    used = os.times()
    seconds = time.monotonic() - begun
    cpu_seconds = used.children_user + used.children_system
    return {"seconds": seconds, "cpu_seconds": cpu_seconds}


def survivors():
    """Two forks and a session of its own, as a daemon does, each ignoring SIGTERM."""
    for _ in range(5):
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            swallow_everything()
    swallow_everything()


def orphans():
    """As `survivors`, and first refuses to die with the parent."""
    prctl = ctypes.CDLL(None).prctl
    prctl(1, 0, 0, 0, 0)  # PR_SET_PDEATHSIG
    prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    survivors()


def stop_self():
    os.kill(os.getpid(), signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGTSTP)
    return {"stopped": False}


def stopped_child():
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, 0)


def deadlock():
    """A lock in C that is never given back, waited for with the interpreter's own lock held."""
    lock = threading.Lock()
    lock.acquire()
    ctypes.PyDLL(None).pause()
    lock.acquire()


def slow_finally():
    try:
        time.sleep(60)
    finally:
        while True:
            time.sleep(60)
