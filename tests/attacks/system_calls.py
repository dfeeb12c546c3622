"""Asks the kernel for everything that builds, opens or changes what lies outside of a sandbox.

Must come of it: nothing. Each call is refused by the filter (ENOSYS, as a kernel without it would
say, or EPERM), whatever the privileges. The answer says per probe what the kernel said; "done"
means that the wall has a hole. What would end a process instead is tried in a child.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import socket
import struct

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

X86_64 = os.uname().machine == "x86_64"
NEW_TIME, NEW_NS, NEW_CGROUP, NEW_UTS = 0x80, 0x20000, 0x2000000, 0x4000000
NEW_IPC, NEW_USER, NEW_PID, NEW_NET = 0x8000000, 0x10000000, 0x20000000, 0x40000000
NOTHING = ctypes.create_string_buffer(4096)

# name: number on x86_64, number elsewhere (None: there is none), arguments
CALLS = {
    "mount": (165, 40, b"none", b"/tmp", b"tmpfs", 0, None),
    "umount": (166, 39, b"/tmp", 2),
    "pivot_root": (155, 41, b"/tmp", b"/tmp"),
    "chroot": (161, 51, b"/tmp"),
    "fsopen": (430, 430, b"tmpfs", 0),
    "open_tree": (428, 428, -100, b"/", 1),
    "move_mount": (429, 429, 0, b"", -100, b"/tmp", 4),
    "mount_setattr": (442, 442, -100, b"/", 0, NOTHING, 32),
    "setns": (308, 268, 0, 0),
    "unshare_user": (272, 97, NEW_USER),
    "unshare_mounts": (272, 97, NEW_NS),
    "unshare_network": (272, 97, NEW_NET),
    "unshare_time": (272, 97, NEW_TIME),
    "unshare_all": (272, 97, NEW_NS | NEW_CGROUP | NEW_UTS | NEW_IPC | NEW_USER | NEW_PID | NEW_NET),
    "clone_user": (56, 220, NEW_USER | signal.SIGCHLD, 0, 0, 0, 0),
    "clone_mounts": (56, 220, NEW_NS | signal.SIGCHLD, 0, 0, 0, 0),
    "clone_network": (56, 220, NEW_NET | signal.SIGCHLD, 0, 0, 0, 0),
    "clone3": (435, 435, NOTHING, 64),
    "sethostname": (170, 161, b"owned", 5),
    "ptrace": (101, 117, 0, 0, 0, 0),
    "process_vm_readv": (310, 270, 1, NOTHING, 1, NOTHING, 1, 0),
    "process_vm_writev": (311, 271, 1, NOTHING, 1, NOTHING, 1, 0),
    "process_madvise": (440, 440, 0, NOTHING, 1, 4, 0),
    "pidfd_getfd": (438, 438, 0, 0, 0),
    "kcmp": (312, 272, 1, 1, 0, 0, 0),
    "keyctl": (250, 219, 0, -3, 1),
    "add_key": (248, 217, b"user", b"k", b"v", 1, -3),
    "request_key": (249, 218, b"user", b"k", None, -3),
    "bpf": (321, 280, 0, NOTHING, 64),
    "io_uring_setup": (425, 425, 1, NOTHING),
    # Contexts for asynchronous I/O are counted for the whole host: 65536 of them, and nobody has any.
    "io_setup": (206, 0, 65000, ctypes.create_string_buffer(8)),
    "userfaultfd": (323, 282, 1),
    "perf_event_open": (298, 241, NOTHING, 0, -1, -1, 0),
    "open_by_handle_at": (304, 265, -100, NOTHING, 0),
    "name_to_handle_at": (303, 264, -100, b"/", NOTHING, NOTHING, 0),
    # By inode, and the root shows those of the host: what everybody opens, and when.
    "inotify_init": (253, None),
    "inotify_init1": (294, 26, 0),
    "inotify_add_watch": (254, 27, 0, b"/usr/bin", 0x21),
    "fanotify_init": (300, 262, 0, 0),
    "syslog": (103, 116, 3, NOTHING, 4096),
    "personality": (135, 92, 0x0040000),
    "quotactl": (179, 60, 0, None, 0, None),
    "swapon": (167, 224, b"/tmp", 0),
    "acct": (163, 89, b"/tmp/acct"),
    "reboot": (169, 142, 0, 0, 0, None),
    "init_module": (175, 105, None, 0, b""),
    "finit_module": (313, 273, 0, b"", 0),
    "kexec_load": (246, 104, 0, 0, None, 0),
    "settimeofday": (164, 170, NOTHING, None),
    "clock_settime": (227, 112, 0, NOTHING),
    "clock_adjtime": (305, 266, 0, NOTHING),
    "iopl": (172, None, 3),
    "ioperm": (173, None, 0, 1, 1),
    "modify_ldt": (154, None, 1, NOTHING, 16),
    "vhangup": (153, 58),
    "migrate_pages": (256, 238, 0, 1, NOTHING, NOTHING),
    "move_pages": (279, 239, 0, 1, NOTHING, NOTHING, NOTHING, 2),
    "mq_open": (240, 180, b"queue", 0o102, 0o600, None),
    "seccomp": (317, 277, 1, 0, NOTHING),
    "seccomp_prctl": (157, 167, 22, 2, NOTHING),
    "sched_setattr": (314, 274, 0, NOTHING, 0),
    "huge_pages": (29, 194, 0, 1 << 21, 0o4600 | 0o1000),
    "huge_files": (319, 279, b"huge", 4),
    "memfd_secret": (447, 447, 0),
    "lookup_dcookie": (212, 18, 0, NOTHING, 1),
    "nfsservctl": (180, 42, 0, None, None),
    "x32_getpid": (0x40000000 + 39, None),
}


def handler(message, context):
    said = {name: ask(*call) for name, call in CALLS.items()}
    said["mknod"] = refused(lambda: os.mknod("/tmp/null", 0o20600, os.makedev(1, 3)))
    said["setuid"] = refused(lambda: os.setuid(0))
    said["setresgid"] = refused(lambda: os.setresgid(0, 0, 0))
    said["setgroups"] = refused(lambda: os.setgroups([0]))
    said["capabilities"] = effective_capabilities()
    said["vsock"] = refused(lambda: socket.socket(40, socket.SOCK_STREAM))
    said["crypto"] = refused(lambda: socket.socket(38, socket.SOCK_SEQPACKET))
    said["packet"] = refused(lambda: socket.socket(17, socket.SOCK_RAW))
    said["bluetooth"] = refused(lambda: socket.socket(31, socket.SOCK_RAW))
    said["key_socket"] = refused(lambda: socket.socket(15, socket.SOCK_RAW, 2))
    said["tipc"] = refused(lambda: socket.socket(30, socket.SOCK_STREAM))
    # The kernel would look for modules as root, outside of every limit.
    said["stream of udp"] = refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 17))
    said["stream of icmp"] = refused(lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 58))
    said["datagrams of tcp"] = refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 6))
    said["the other's pings"] = refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 58))
    said["new bridge"] = refused(lambda: interface(0x89A0, b"br9"))
    said["vlan"] = refused(lambda: interface(0x8983, NOTHING.raw[:64]))
    # Compiled programs come from a pot that all users of the host share.
    said["filter of a socket"] = refused(lambda: filter_socket(26))
    said["filter of a port"] = refused(lambda: filter_socket(51))
    said["notices of a directory"] = refused(lambda: notices("/usr/bin"))
    said["raw"] = refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
    said["calls_of_i386"] = in_a_child(call_as_i386) if X86_64 else "SIGSYS"
    # A child that got through one of the clones would otherwise go on as a second handler.
    return {"said": said, "pid": os.getpid()}


def ask(x86_64, elsewhere, *arguments):
    number = x86_64 if X86_64 else elsewhere
    if number is None:
        return "ENOSYS"
    result = libc.syscall(ctypes.c_long(number), *(widened(a) for a in arguments))
    if result == 0 and os.getpid() != 1:
        os._exit(0)
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]


def widened(argument):
    return ctypes.c_long(argument) if isinstance(argument, int) else argument


def refused(call):
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"


def interface(request, argument):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, request, argument)


def notices(directory):
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.fcntl(descriptor, fcntl.F_NOTIFY, fcntl.DN_ACCESS | fcntl.DN_MULTISHOT)
    finally:
        os.close(descriptor)


def filter_socket(option):
    accept = ctypes.create_string_buffer((6).to_bytes(2, "little") + bytes(2) + b"\xff\xff\0\0", 8)
    program = struct.pack("@HP", 1, ctypes.addressof(accept))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.SOL_SOCKET, option, program)


def effective_capabilities():
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    return list(sets)


def in_a_child(attempt):
    child = os.fork()
    if child == 0:
        attempt()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "done"


def call_as_i386():
    """`int 0x80`: other numbers for the same kernel, which a filter of numbers alone lets by."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid); int 0x80; ret
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    ctypes.CFUNCTYPE(ctypes.c_int)(address)()
