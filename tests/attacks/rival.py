"""A tenant that wants twenty times its share of everything: processors, workers, memory, answers.

None of it is forbidden; each call ends in order or at a limit of its own. What is tried is whether
others notice.
"""

import time

HOARD = []


def spin():
    """Computes for a second."""
    end = time.monotonic() + 1
    while time.monotonic() < end:
        sum(range(1000))


def slow():
    """Holds a worker for a second."""
    time.sleep(1)


def hoard():
    """Takes memory and keeps it, until there is no more."""
    HOARD.append(bytearray(b"x") * (32 << 20))


def nothing():
    """Is refused at the door, most of the time."""


def handler(message, context):
    globals()[message["path_params"]["probe"]]()
    return {"rival": "well"}
