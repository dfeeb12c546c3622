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
    """Give this process generators of its own. Run after the fork, when the worker is claimed."""
    random.seed()
    modules: dict[str, Any] = sys.modules  # no copy: that would write to every module
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
