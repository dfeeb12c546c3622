"""The template zygote: imports once, forks a worker per order.

Started by the launcher as `python3 -I -S zygote.py` with a SEQPACKET socket to it as
descriptor 0. Speaks JSON messages, one object each, `t` says which:

    launcher -> zygote   config {...}                       once, first
                         fork {serial, uid, own_network, ...}   descriptors: requests, answers,
                                                          side, output, network, cgroups:
                                                         files to join by, last a directory if
                                                         version 2 is among them (`unified`)
    zygote -> launcher   importing {module}                 before each module of the template
                         preload_failed {module, why, traceback}   and the zygote ends
                         ready                              once
                         forked {serial, pid}               descriptor: pidfd
                         failed {serial, step, why}         no worker came of that order
                         exited {pid, status}               a child was reaped
    child -> launcher    entered {serial}                   the sandbox is complete
                         failed {serial, step, why}

It holds the privilege to build sandboxes, so no function's code ever runs here: what it
preloads comes from the operator's layers and the Python's site-packages. It stays
single-threaded, because a fork copies only the forking thread. End of file on the socket ends
it; its death ends its workers (parent-death signal).
"""

import errno
import gc
import importlib
import json
import os
import select
import signal
import socket
import stat
import sys
import time

MESSAGE_LIMIT = 1 << 18
# One fork order carries four descriptors, its network's, and at most one per cgroup hierarchy.
DESCRIPTOR_LIMIT = 16


def main():
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import enter

    enter.die_with_parent()
    control = _control_socket()
    config = json.loads(control.recv(MESSAGE_LIMIT))
    namespaces = _enter_root(enter, config)
    warm, rehearse, serve = _import_runtime()
    *filters, worker_filter = (
        bytes.fromhex(config[key]) for key in ("base_filter", "feigned_filter", "denied_filter", "worker_filter")
    )
    # Before the preloads: what they may do is then what building sandboxes needs, and no more.
    enter.guard_zygote(config["mode"], filters)
    if not _preload(control, config):
        return
    warm()
    if _threads() != 1:
        raise SystemExit("a thread runs in the zygote after its rehearsal; it cannot be forked")
    zygote = Zygote(control, config, enter, rehearse, serve, namespaces, worker_filter)
    # Collected before, never after: a collection in a child would un-share every page.
    gc.collect()
    gc.freeze()
    zygote.send({"t": "ready"})
    zygote.run()


def _control_socket():
    """Moves the socket out of the way of the numbers that children use (0 to 6)."""
    import fcntl

    number = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 64)
    nothing = os.open("/dev/null", os.O_RDWR)
    # Taken for good, so that no descriptor we receive or open gets one of these numbers.
    for reserved in {0, 3, 4, 5, 6} - {nothing}:
        os.dup2(nothing, reserved, inheritable=False)
    return socket.socket(fileno=number)


def _enter_root(enter, config):
    """Into the read-only root; returns the descriptor of our own pid namespace."""
    if config["mode"] == "reduced":
        return None
    pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    enter.build_root(
        config["root_dir"], config["runtime_dir"], config["prefixes"], config["gid"], config["layers"]
    )
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = ["/runtime" if entry == here else entry for entry in sys.path]
    # Directory listings that the import system remembers are of the old root.
    importlib.invalidate_caches()
    return pid_namespace


def _import_runtime():
    from functionsplatform_runtime import rehearsal, worker

    worker.prepare()
    return worker.warm, rehearsal.rehearse_calls, worker.serve


def _preload(control, config):
    """Imports the template's modules; whether that worked. A failure has been told then."""
    modules = config["preload"]
    # The root is read-only; without one, layers are the operator's to compile.
    sys.dont_write_bytecode = True
    # After the standard library, as for any Python, so that nothing there is replaced.
    sys.path.extend(config["path"])
    importlib.invalidate_caches()
    for name in modules:
        _send(control, {"t": "importing", "module": name})
        try:
            importlib.import_module(name)
        except BaseException as error:  # a module of the operator's choice may raise anything
            _send(control, _preload_failed(name, error, config["path"]))
            return False
        threads = _threads()
        if threads > 1:
            more = "1 more thread runs" if threads == 2 else f"{threads - 1} more threads run"
            why = (
                f"{more} after its import, and a process with threads cannot be "
                "forked; remove it from preload, and each worker imports it by itself"
            )
            _send(control, {"t": "preload_failed", "module": name, "why": why, "traceback": ""})
            return False
    # They were for the imports here; what a function does with its threads is its own affair.
    for name in list(os.environ):
        if name.endswith("_NUM_THREADS"):
            del os.environ[name]
    return True


def _preload_failed(name, error, path):
    import traceback

    why = f"{type(error).__name__}: {error}"[:500].removesuffix(": ")
    if isinstance(error, MemoryError):
        why += "; if its imports need that much, raise preload_memory in the platform's configuration"
    if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
        places = ", ".join(path) or "no directory"
        why += f"; it is looked up in {places}: install it there, or add a layer to the configuration"
    frame = error.__traceback__
    # Ours and those of the import system say nothing about the module.
    while frame is not None and (
        frame.tb_frame.f_code.co_filename in (__file__, importlib.__file__)
        or frame.tb_frame.f_code.co_filename.startswith("<frozen importlib")
    ):
        frame = frame.tb_next
    lines = "".join(traceback.format_exception(type(error), error, frame)).splitlines()
    return {"t": "preload_failed", "module": name, "why": why, "traceback": "\n".join(lines[-12:])[-4000:]}


def _threads():
    """How many run here. One that has just been joined needs a moment to leave the list."""
    for _ in range(20):
        count = len(os.listdir("/proc/self/task"))
        if count == 1:
            break
        time.sleep(0.005)
    return count


def _send(control, message, descriptors=()):
    socket.send_fds(control, [json.dumps(message).encode()], descriptors)


def _cloner():
    """What forks into groups of version 2. Without it a worker joins its own, which takes it 5-11 ms."""
    from clone import Cloner

    try:
        return Cloner()
    except OSError:
        return None


class Zygote:
    def __init__(self, control, config, enter, rehearse, serve, pid_namespace, worker_filter):
        self.control = control
        self.unified = config["unified"]
        self.cloner = _cloner() if self.unified and not config["preload"] else None
        self.prepared = enter.Prepared(config["mode"], config["own_proc"], config["landlock"], worker_filter)
        self.enter = enter
        self.rehearse = rehearse
        self.serve = serve
        self.pid_namespace = pid_namespace
        self.wake_read, self.wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def send(self, message, descriptors=()):
        _send(self.control, message, descriptors)

    def run(self):
        # The handler does nothing; the byte that it leaves in the pipe wakes the poll.
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self.wake_read, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self.wake_read:
                    self._reap()
                elif not self._take_order():
                    return

    def _reap(self):
        os.read(self.wake_read, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.send({"t": "exited", "pid": pid, "status": status})

    def _take_order(self):
        message, descriptors, flags, _ = socket.recv_fds(self.control, MESSAGE_LIMIT, DESCRIPTOR_LIMIT)
        if not message:
            return False
        order = json.loads(message)
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                # A worker without its cgroups or its network would be in ours.
                raise self.enter.StepError("take the descriptors of an order", errno.EMFILE)
            self._fork(order, descriptors)
        except (OSError, self.enter.StepError) as error:
            step = getattr(error, "step", "fork")
            self.send({"t": "failed", "serial": order["serial"], "step": step, "why": str(error)})
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _fork(self, order, descriptors):
        if self.pid_namespace is not None:
            # Back to our own, or the second unshare would be refused; then the next child is
            # the first process of a new pid namespace. 87 us measured for both.
            self._call("return to the own pid namespace", "setns", self.pid_namespace, self.enter.CLONE_NEWPID)
            self._call("new pid namespace", "unshare", self.enter.CLONE_NEWPID)
        pid = self.cloner.fork(descriptors[-1]) if self.cloner else os.fork()
        if pid == 0:
            self._child(order, descriptors)
        # Ours until reaped, and reaping happens only in this thread: the number is not reused.
        pidfd = os.pidfd_open(pid)
        self.send({"t": "forked", "serial": order["serial"], "pid": pid}, [pidfd])
        os.close(pidfd)

    def _call(self, step, name, *arguments):
        self.enter._done(step, getattr(self.enter.libc, name)(*arguments))

    def _child(self, order, descriptors):
        """Never returns."""
        code = 70
        network_end = 5 if order["own_network"] else 4
        groups = descriptors[network_end:]
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                if self.unified:
                    directory = groups.pop()
                    if not self.cloner:
                        groups.append(os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory))
                self.enter.enter(
                    self.prepared, order, descriptors[:4], self.control.fileno(),
                    descriptors[4:network_end], groups,
                )
            except Exception as error:
                self._tell({"t": "failed", "serial": order["serial"], "step": getattr(error, "step", "enter"), "why": str(error)})
                os._exit(71)
            self._tell({"t": "entered", "serial": order["serial"]})
            self.control.detach()
            os.close(6)
            if order["blank"]:
                # Nobody waits yet: copy now the pages that the first call will write to.
                self.rehearse()
            code = self.serve(3, 4, 5) or 0
        except SystemExit as exit_request:
            code = exit_request.code if isinstance(exit_request.code, int) else 1
        except BaseException:
            import traceback

            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)

    def _tell(self, message):
        """On 6 once `enter` has moved the socket there, else where it was."""
        moved = stat.S_ISSOCK(os.fstat(6).st_mode)
        os.write(6 if moved else self.control.fileno(), json.dumps(message).encode())


main()
