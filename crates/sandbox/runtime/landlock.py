"""Landlock: what a worker may do to files, said once more to the kernel, and by paths.

The mounts hide and protect already; this holds where a mount would have been forgotten, and
without namespaces it is all there is. From the sixth version of its interface on it also closes
what no namespace of a worker in the host's network does: abstract sockets of the host, and
signals. Constants are from linux/landlock.h.
"""

import os
import struct

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # equal on every architecture
PATH_BENEATH = 1
# From the seventh version on each refusal is an audit record: a worker must not fill the host's log,
# neither with ours nor with those of domains that it makes inside (..._LOG_SUBDOMAINS_OFF).
QUIET_SINCE, LOG_SAME_EXEC_OFF, LOG_SUBDOMAINS_OFF = 7, 1, 4

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
# Removing, making, and moving between directories; bits 4 to 13.
CHANGE = 0x3FF0
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
SCOPE_ABSTRACT_SOCKETS, SCOPE_SIGNALS = 1, 2

LOOK = EXECUTE | READ_FILE | READ_DIR
WRITE = READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | IOCTL_DEV


def files(version):
    """The rights over files that a version of the interface knows."""
    known = LOOK | WRITE_FILE | CHANGE
    if version >= 3:
        known |= TRUNCATE
    if version >= 5:
        known |= IOCTL_DEV
    return known


def prepare(version):
    """Once per zygote, in the root that its workers will have: what is the same in all of them.
    `None` where landlock is not used."""
    if not version:
        return None
    known = files(version)
    scope = SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS if version >= 6 else 0
    # Rights over files, over ports (none is regulated here), then scopes; older ones end earlier.
    attributes = struct.pack("<QQQ", known, 0, scope)[: 24 if version >= 6 else 8]
    # Kept open; workers close them with everything else.
    shared = [_rule(LOOK, os.open("/", _PLACE)), _rule(WRITE & known, os.open("/dev", _PLACE))]
    quiet = LOG_SAME_EXEC_OFF | LOG_SUBDOMAINS_OFF if version >= QUIET_SINCE else 0
    return attributes, shared, WRITE & known, known, quiet


def restrict(prepared, done, libc):
    """For this process and all that it starts: everything shown can be read and run, devices and
    its own /proc written, and /tmp is its own. `done` checks each step."""
    attributes, rules, write, everything, flags = prepared
    syscall = libc.syscall
    # Mounts of this worker alone.
    places = os.open("/proc", _PLACE), os.open("/tmp", _PLACE)
    ruleset = done("landlock", syscall(CREATE_RULESET, attributes, len(attributes), 0))
    for rule in (*rules, _rule(write, places[0]), _rule(everything, places[1])):
        done("landlock: add a rule", syscall(ADD_RULE, ruleset, PATH_BENEATH, rule, 0))
    done("landlock", syscall(RESTRICT_SELF, ruleset, flags))
    # The descriptors go with all others, next.


_PLACE = os.O_PATH | os.O_CLOEXEC


def _rule(rights, place):
    return struct.pack("<Qi", rights, place)
