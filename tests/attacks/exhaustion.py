"""Takes as much as there is of everything that is counted, one kind per call.

Must come of it: each kind ends at a limit of the worker's own, with an ordinary error; what was
taken goes with the call or the worker. `memory_*` go over the memory limit: the kernel ends the
worker, and the caller is told so. The `*_bomb`s never stop by themselves: their deadline does it.
"""

import ctypes
import errno
import os
import select
import signal
import socket
import threading
import time

MIB = b"x" * (1 << 20)
libc = ctypes.CDLL(None, use_errno=True)


def handler(message, context):
    return globals()[message["path_params"]["probe"]]()


def count(take, most):
    """How often it went well, and how it ended."""
    taken = 0
    try:
        while taken < most:
            take()
            taken += 1
    except OSError as error:
        return {"taken": taken, "end": errno.errorcode[error.errno]}
    except RuntimeError as error:  # what `threading` makes of EAGAIN
        return {"taken": taken, "end": str(error)}
    return {"taken": taken, "end": "none"}


# Files and memory behind them.


def many_files():
    os.makedirs("/tmp/many", exist_ok=True)
    names = iter(range(1_000_000))
    seen = count(lambda: os.close(os.open(f"/tmp/many/{next(names)}", os.O_CREAT | os.O_WRONLY)), 1_000_000)
    clear("/tmp/many")
    return seen


def full_tmp():
    with open("/tmp/full", "wb", buffering=0) as file:
        seen = count(lambda: whole(file.write(MIB)), 1_000)
    os.unlink("/tmp/full")
    return seen


def large_file():
    """Far beyond what the file's size may be, without writing it."""
    with open("/tmp/sparse", "wb") as file:
        seen = count(lambda: file.truncate(1 << 40), 1)
    os.unlink("/tmp/sparse")
    return seen


def whole(written):
    if written != len(MIB):
        raise OSError(errno.ENOSPC, "a part only")


def clear(directory):
    for name in os.listdir(directory):
        os.unlink(f"{directory}/{name}")
    os.rmdir(directory)


# Descriptors and what hangs on them.


def descriptors():
    held = []
    seen = count(lambda: held.append(os.open("/dev/null", os.O_RDONLY)), 1_000_000)
    for number in held:
        os.close(number)
    return seen


def pipes():
    held = []
    seen = count(lambda: held.extend(os.pipe()), 1_000_000)
    for number in held:
        os.close(number)
    return seen


def polls():
    held = []
    seen = count(lambda: held.append(select.epoll()), 1_000_000)
    for one in held:
        one.close()
    return seen


# Things of System V.


def shared_memory():
    """Segments outlive their process, not their namespace; filled ones are charged to the worker."""
    libc.shmat.restype = ctypes.c_void_p

    def take():
        number = libc.shmget(0, ctypes.c_size_t(1 << 20), 0o1600)
        if number < 0:
            raise OSError(ctypes.get_errno(), "shmget")

    return count(take, 10_000)


# Processes and threads.


def threads():
    stop = threading.Event()
    threading.stack_size(64 << 10)
    seen = count(lambda: threading.Thread(target=stop.wait, daemon=True).start(), 10_000)
    stop.set()
    return seen


def processes():
    children = []
    seen = count(lambda: children.append(sleeper()), 10_000)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return seen


def zombies():
    """Children that have ended and are never waited for hold their places."""
    return count(lambda: os.fork() or os._exit(0), 10_000)


def sleeper():
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    return child


def fork_bomb():
    while True:
        try:
            os.fork()
        except OSError:
            pass


def thread_bomb():
    threading.stack_size(64 << 10)

    def grow():
        while True:
            try:
                threading.Thread(target=grow, daemon=True).start()
            except RuntimeError:
                time.sleep(0.001)

    grow()


# More memory than is allowed.


def memory_heap():
    held = []
    while True:
        held.append(MIB * 8)


def memory_of_a_child():
    """Not the worker itself but a child fills the memory; the whole group ends with it."""
    child = os.fork()
    if child == 0:
        memory_heap()
    os.waitpid(child, 0)
    memory_heap()


def memory_memfd():
    held = []
    while True:
        number = os.memfd_create("hoard")
        held.append(number)
        for _ in range(32):
            os.write(number, MIB)


def memory_tmp():
    """A full /tmp is charged to the worker: with less memory than /tmp has room it ends here."""
    with open("/tmp/full", "wb", buffering=0) as file:
        while True:
            file.write(MIB)


def memory_shared():
    libc.shmat.restype = ctypes.c_void_p
    while True:
        number = libc.shmget(0, ctypes.c_size_t(32 << 20), 0o1600)
        address = libc.shmat(number, None, 0)
        ctypes.memset(address, 1, 32 << 20)


def memory_sockets():
    """Kernel memory in socket buffers that nobody reads."""
    held = []
    while True:
        pair = socket.socketpair()
        held.append(pair)
        pair[0].setblocking(False)
        pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
        try:
            while True:
                pair[0].send(MIB[: 1 << 16])
        except BlockingIOError:
            pass


def memory_semaphores():
    """Kernel memory behind semaphores, up to the namespace's limit of them."""
    while libc.semget(0, 200, 0o1600) >= 0:
        pass
    memory_heap()
