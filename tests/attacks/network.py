"""With `network = "none"`: looks for any way to another machine, process or the platform.

Must come of it: its own loopback works and nothing else exists, whichever family is asked.
"""

import errno
import os
import socket


def handler(message, context):
    ports = [int(port) for port in message["query"]["ports"].split(",")]
    own = socket.create_server(("127.0.0.1", 0))
    return {
        "own": tcp(own.getsockname()),
        "platform": [tcp(("127.0.0.1", port)) for port in ports],
        "platform over IPv6": [tcp(("::1", port), socket.AF_INET6) for port in ports],
        "platform at 0.0.0.0": tcp(("0.0.0.0", ports[0])),
        "metadata": tcp(("169.254.169.254", 80)),
        "metadata by datagram": datagram(("169.254.169.254", 53)),
        "world": tcp(("192.0.2.1", 443)),
        "world over IPv6": tcp(("2001:db8::1", 443), socket.AF_INET6),
        "link-local": tcp(("fe80::1", 80, 0, 0), socket.AF_INET6),
        "abstract": local("\0" + message["query"]["abstract"]),
        "docker": local("/var/run/docker.sock"),
        "journal": local("/run/systemd/journal/socket"),
        "devices": [name for _, name in socket.if_nameindex()],
        "new device": new_device(),
        "names": sorted(os.listdir("/proc/net")) if os.path.isdir("/proc/net") else [],
    }


def tcp(address, family=socket.AF_INET):
    return attempt(lambda: socket.socket(family, socket.SOCK_STREAM), address)


def datagram(address):
    return attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), address)


def local(path):
    return attempt(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), path)


def attempt(make, address):
    try:
        with make() as one:
            one.settimeout(2)
            one.connect(address)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "connected"


def new_device():
    """Asks by netlink for a dummy device, which needs a right over the namespace."""
    # nlmsghdr (RTM_NEWLINK, REQUEST|ACK|CREATE|EXCL), ifinfomsg, IFLA_LINKINFO{IFLA_INFO_KIND dummy}
    info = bytes.fromhex("1200 1280 0a00 0100".replace(" ", "")) + b"dummy\0\0\0"
    info = len(info).to_bytes(2, "little") + info[2:]
    body = bytes(16) + info
    header = (16 + len(body)).to_bytes(4, "little") + (16).to_bytes(2, "little")
    header += (0x605).to_bytes(2, "little") + (1).to_bytes(4, "little") + bytes(4)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as one:
            one.settimeout(2)
            one.send(header + body)
            answer = one.recv(4096)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    code = -int.from_bytes(answer[16:20], "little", signed=True)
    return errno.errorcode.get(code, "done")
