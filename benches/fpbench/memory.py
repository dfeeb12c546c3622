"""Memory of processes, from /proc, in bytes, and the time that they have run."""

import os
from pathlib import Path


def resident(pid):
    """What the kernel calls RSS."""
    return field(f"/proc/{pid}/status", "VmRSS")


def field(file, name):
    for line in Path(file).read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(f"{file} has no {name}")


def private_of_tree(pid):
    """Memory that a process and what it started share with nobody else."""
    return sum(
        field(f"/proc/{each}/smaps_rollup", "Private_Clean") + field(f"/proc/{each}/smaps_rollup", "Private_Dirty")
        for each in [pid, *descendants(pid)]
    )


def of_platform(pid):
    """The platform's own RSS, and what its launcher and everything below adds (shared pages split)."""
    below = sum(field(f"/proc/{each}/smaps_rollup", "Pss") for each in descendants(pid))
    return {"resident": resident(pid), "below": below}


def processor_seconds(pid):
    """What the threads of a process that are alive have run, to the nanosecond."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def descendants(pid):
    """All processes below one, as the host numbers them."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                # The name may hold spaces and parentheses: the parent stands two after the last one.
                parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found = [pid]
    for each in found:
        found.extend(child for child, parent in parents.items() if parent == each)
    return found[1:]
