"""Looks for what another worker left or shares: files, secrets in the environment, processes,
identities, random numbers, shared memory.

Must come of it: two workers of one function share neither files nor numbers, and one function
sees nothing of another's settings. The call waits for the other, so that both live at once.
"""

import ctypes
import os
import random
import secrets
import tempfile
import time
import uuid

libc = ctypes.CDLL(None, use_errno=True)


def handler(message, context):
    found = {
        "files": sorted(os.listdir("/tmp")),
        "shared": libc.shmget(0x5EC, ctypes.c_size_t(4096), 0o666),
        "processes": [name for name in os.listdir("/proc") if name.isdigit()],
        "environment": dict(os.environ),
        "uid": os.getuid(),
        "numbers": [random.random(), secrets.token_hex(8), str(uuid.uuid4()), str(uuid.uuid1())],
        "name": next(tempfile._get_candidate_names()),
        "code": sorted(os.listdir("/code")),
    }
    with open("/tmp/left", "w") as file:
        file.write("a secret of mine")
    libc.shmget(0x5EC, ctypes.c_size_t(4096), 0o1666)
    time.sleep(float(message["query"].get("wait", 0)))
    return found
