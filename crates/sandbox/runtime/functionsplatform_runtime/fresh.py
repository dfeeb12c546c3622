"""What must not be shared by workers that were forked from one process.

A fork copies the state of every random generator; two workers that make the same "unique" names
are a fault that shows up months later. The hash seed cannot be changed: the platform rotates
zygotes for it.
"""

from __future__ import annotations

import os
import random
import sys
from typing import Any


def make_unique() -> None:
    """Give this process generators of its own. Run after the fork, when the worker is claimed.

    Once before it, too: what is started there (OpenSSL: 1.2 ms) is only seeded anew afterwards (4 us).
    """
    random.seed()
    modules: dict[str, Any] = sys.modules  # no copy: that would write to every module
    openssl = modules.get("_ssl")
    if openssl is not None:
        # It knows a fork by the process id, which is 1 in a zygote and in each of its workers: the
        # keys of their connections would be the same. Every generator of it takes from this one.
        openssl.RAND_add(os.urandom(32), 32.0)
    uuid = modules.get("uuid")
    if uuid is not None:
        uuid._last_timestamp = None
        uuid._node = None
    tempfile = modules.get("tempfile")
    if tempfile is not None:
        tempfile._name_sequence = None
    numpy_random = modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def settle(code_dir: str, env: dict[str, str]) -> None:
    """The process as an author expects to find it: directory, umask, environment."""
    os.environ.update(env)
    sys.dont_write_bytecode = True  # the code directory is read-only
    os.umask(0o022)
    try:
        os.chdir(code_dir)
    except OSError:
        pass  # the missing file is reported by name when the handler is loaded
