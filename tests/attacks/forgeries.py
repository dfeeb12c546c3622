"""Talks to the platform over the worker's own descriptors, past the runtime.

3 brings requests, 4 passes descriptors, 5 takes answers. Must come of it: whatever breaks the
protocol ends this worker (`crashed`), at once and without memory being taken for what was only
announced; a slow or silent worker meets the call's deadline; an answer that is well-formed is the
handler's own answer, however it was sent, and is held to the rules for answers.
"""

import ctypes
import json
import os
import signal
import socket
import struct
import sys
import threading
import time

ANSWER, STREAM_HEAD, STREAM_CHUNK, LOADED, LOG = 20, 21, 22, 17, 19
serial = 0


def handler(message, context):
    global serial
    # The number of this call, which the runtime has and does not show.
    serial = sys._getframe(1).f_locals["serial"]
    result = globals()[message["path_params"]["probe"]]()
    if result is None:
        time.sleep(60)
    return result


def frame(kind, of, head=b"{}", body=b"", flags=0, length=None, head_length=None):
    length = 16 + len(head) + len(body) if length is None else length
    head_length = len(head) if head_length is None else head_length
    return struct.pack("<IBBHQI", length, kind, flags, 0, of, head_length) + head + body


def well():
    return {"serial": serial}


def four_gigabytes():
    os.write(5, frame(ANSWER, serial, length=0xFFFFFFFF))


def negative_length():
    os.write(5, frame(ANSWER, serial, length=0x80000000))


def zero_length():
    os.write(5, frame(ANSWER, serial, length=0))


def long_head():
    os.write(5, frame(ANSWER, serial, head_length=0x7FFFFFFF))


def other_call():
    os.write(5, frame(ANSWER, serial + 6))


def call_zero():
    os.write(5, frame(ANSWER, 0))


def out_of_place():
    os.write(5, frame(LOADED, serial))


def unknown_type():
    os.write(5, frame(99, serial, length=1000))


def unknown_flags():
    os.write(5, frame(ANSWER, serial, flags=0xFE))


def noise():
    os.write(5, os.urandom(1 << 16))


def head_is_no_json():
    os.write(5, frame(ANSWER, serial, head=b"\xff\x00nonsense"))


def deep_head():
    os.write(5, frame(ANSWER, serial, head=b"[" * 500_000))


def chunk_without_stream():
    os.write(5, frame(STREAM_CHUNK, serial, body=b"x"))


def memfd_never_came():
    os.write(5, frame(ANSWER, serial, flags=1))


def pass_memfd(memfd):
    with socket.socket(fileno=os.dup(4)) as side:
        socket.send_fds(side, [struct.pack("<Q", serial)], [memfd])
    os.write(5, frame(ANSWER, serial, flags=1))


def memfd_unsealed():
    memfd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.write(memfd, b"x" * 400_000)
    pass_memfd(memfd)


def memfd_is_a_device():
    pass_memfd(os.open("/dev/zero", os.O_RDONLY))


def memfd_is_a_pipe():
    pass_memfd(os.pipe()[0])


def memfd_of_a_terabyte():
    import fcntl
    import resource

    memfd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(memfd, resource.getrlimit(resource.RLIMIT_FSIZE)[0])
    fcntl.fcntl(memfd, 1033, 15)
    pass_memfd(memfd)


def long_hole(size=6 << 20):
    """Sealed, never written: whoever reads it first is charged for it, and the worker keeps it."""
    import fcntl

    memfd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(memfd, size)
    fcntl.fcntl(memfd, 1033, 15)
    return memfd


def memfd_with_a_hole():
    pass_memfd(long_hole())


def memfd_of_a_byte():
    pass_memfd(long_hole(1))


def stream_of_holes():
    os.write(5, frame(STREAM_HEAD, serial))
    with socket.socket(fileno=os.dup(4)) as side:
        for _ in range(200):
            socket.send_fds(side, [struct.pack("<Q", serial)], [long_hole()])
            os.write(5, frame(STREAM_CHUNK, serial, head=b"", flags=1))


def many_descriptors():
    """Descriptors that nobody asked for must not pile up at the platform."""
    with socket.socket(fileno=os.dup(4)) as side:
        side.setblocking(False)
        try:
            while True:
                socket.send_fds(side, [b"x"], [0] * 64)
        except OSError:
            pass
    return {"sent": True}


def parting_gift():
    """Whoever closes a file last takes it down: a lot of memory, left in the side channel."""
    memfd = os.memfd_create("x")
    for _ in range(160):
        os.write(memfd, b"x" * (1 << 20))
    with socket.socket(fileno=os.dup(4)) as side:
        socket.send_fds(side, [b"x"], [memfd])
    os._exit(0)


def lingering_socket():
    """Whoever closes a socket that lingers waits until its peer has read: an hour, here."""
    server = socket.create_server(("127.0.0.1", 0))
    lingering = socket.create_connection(server.getsockname())
    lingering.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    # The same for a kernel that reads the lower half of a register, and a filter that does not.
    libc = ctypes.CDLL(None)
    value = struct.pack("ii", 1, 3600)
    high = ctypes.c_long(1 << 32)
    libc.syscall(54, lingering.fileno(), ctypes.c_long(high.value | 1), ctypes.c_long(high.value | 13), value, 8)
    lingering.setblocking(False)
    try:
        while True:
            lingering.send(b"x" * (1 << 16))
    except BlockingIOError:
        pass
    if os.fork() == 0:
        # It never reads, and outlives the worker by as much as the sandbox lets it.
        time.sleep(600)
    with socket.socket(fileno=os.dup(4)) as side:
        socket.send_fds(side, [b"x"], [lingering.fileno()])
    lingering.close()
    os._exit(0)


def close_answers():
    os.close(5)


def close_all_ends():
    for number in (3, 4, 5):
        os.close(number)


def shut_side_channel():
    with socket.socket(fileno=os.dup(4)) as side:
        side.shutdown(socket.SHUT_RDWR)
    return {"shut": True}


def ends_in_a_child():
    """The worker ends, a child keeps copies of its ends open: the platform must not wait on."""
    copies = [os.dup(number) for number in (3, 4, 5)]
    child = os.fork()
    if child == 0:
        os.setsid()
        for copy in copies:
            os.set_blocking(copy, True)
        time.sleep(600)
    os._exit(1)


def answer_by_a_child():
    """A well-formed answer is the function's, whichever of its processes sends it."""
    copy = os.dup(5)
    if os.fork() == 0:
        os.write(copy, frame(ANSWER, serial, head=usage(), body=b'{"by": "a child"}'))
        os._exit(0)


def usage(**more):
    return json.dumps({"u": {"c": 1, "m": 1, "l": 0}, **more}).encode()


def answer_twice():
    """The second waits in the pipe for the next call, which must not take it for its own."""

    def later():
        time.sleep(0.05)
        os.write(5, frame(ANSWER, serial, head=usage(), body=b'{"second": true}'))

    threading.Thread(target=later).start()
    return {"first": True}


def answer_the_next_call():
    """Answers for calls that have not been made."""
    early = b"".join(frame(ANSWER, serial + ahead, head=usage(), body=b'{"early": true}') for ahead in range(1, 50))
    threading.Timer(0.05, os.write, (5, early)).start()
    return {"first": True}


def byte_by_byte():
    answer = frame(ANSWER, serial, head=usage(), body=b"x" * 1000)
    for at in range(len(answer)):
        os.write(5, answer[at : at + 1])
        time.sleep(1)


def does_not_read():
    """Answers, then never reads: the next call fills the pipe and waits for its deadline."""
    os.write(5, frame(ANSWER, serial, head=usage(), body=b'{"first": true}'))
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass


def keeps_descriptors():
    """Answers calls, and leaves where they are the descriptors that came with large bodies."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    os.write(5, frame(ANSWER, serial, head=usage(), body=b'{"first": true}'))
    while True:
        prefix = read_exactly(20)
        length, _, _, _, of, _ = struct.unpack("<IBBHQI", prefix)
        read_exactly(length - 16)
        os.write(5, frame(ANSWER, of, head=usage(), body=b'{"kept": true}'))


def read_exactly(count):
    data = b""
    while len(data) < count:
        more = os.read(3, count - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


def forged(head, body=b"{}"):
    """Answers, and ends before the runtime can."""
    os.write(5, frame(ANSWER, serial, head=json.dumps(head).encode(), body=body))
    os._exit(0)


def status_of_a_million():
    forged({"s": 1_000_000})


def status_switching_protocols():
    forged({"s": 101})


def split_headers():
    forged({"s": 200, "h": [["x-one", "1\r\nset-cookie: stolen=1\r\n\r\n<html>"]]})


def framing_headers():
    headers = [["content-length", "1"], ["transfer-encoding", "chunked"], ["connection", "x"]]
    forged({"s": 200, "h": headers}, b"whole")


def negative_usage():
    forged({"u": {"c": -1, "m": -1, "l": -1}})


def enormous_usage():
    """What overflows in sums, in other units, or in a database's signed numbers."""
    most = (1 << 64) - 1
    forged({"u": {"c": most, "m": most, "l": most}})


def enormous_times():
    most = (1 << 64) - 1
    forged({"sp": [{"n": "x", "i": "0" * 15 + "1", "b": most, "d": most, "e": [[most, "e", []]]}]})


def hostile_spans():
    """Names and identities as no runtime would make them, up to the bound on a frame's head."""
    span = {"n": "\x1b[2J<script>" * 100, "i": "not hexadecimal", "p": "\u0000", "b": 0, "d": 1 << 60}
    forged({"sp": [{**span, "a": [["k" * 1000, [[[[1e308]]]]]]}] * 200})


def log_flood():
    """Log frames past the runtime's own bound."""
    line = frame(LOG, serial, head=b'{"o":"stdout"}', body=b"x" * 8000 + b"\n")
    for _ in range(20_000):
        os.write(5, line)
    return {"flooded": True}


def levels():
    """Log frames of one byte whose level is as long as a head may be."""
    line = frame(LOG, serial, head=json.dumps({"o": "logging", "l": "A" * 1_000_000}).encode(), body=b"x")
    for _ in range(40):
        whole(line)
    return {"sent": 40}


def shortest_lines():
    """A line for each byte of the logs."""
    line = frame(LOG, serial, head=json.dumps({"o": "logging", "l": "A" * 64}).encode(), body=b"x")
    for _ in range(128):
        whole(line * 1024)
    return {"sent": 1 << 17}


def whole(data):
    while data:
        data = data[os.write(5, data) :]
