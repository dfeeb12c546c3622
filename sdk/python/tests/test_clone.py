"""A fork into a control group of version 2, which any such mount will do for."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from clone import NO_GROUP, Cloner


def mount() -> Path | None:
    lines = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    places = [Path(fields[1]) for fields in lines if fields[2] == "cgroup2"]
    return next((place for place in places if os.access(place / "cgroup.procs", os.W_OK)), None)


def new_cloner() -> Cloner:
    try:
        return Cloner()
    except OSError as error:
        pytest.skip(f"root: this host has no such fork: {error}")


def said_by_a_child(fork: Cloner, group: int) -> list[str]:
    """What a child says of itself, whose threads and children must work as after any fork."""
    reader, writer = os.pipe()
    pid = fork.fork(group)
    if pid == 0:
        try:
            thread = threading.Thread(target=str)
            thread.start()
            thread.join()
            ended = subprocess.run(["/bin/true"], check=False).returncode
            grandchild = os.fork()
            if grandchild == 0:
                os._exit(7)
            status = os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1])
            is_own_id = threading.get_native_id() == os.getpid()
            group_line = Path("/proc/self/cgroup").read_text().splitlines()[-1]
            os.write(writer, f"{group_line} {ended} {status} {is_own_id}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    said = os.read(reader, 4096).decode().split()
    os.close(reader)
    return said


def test_a_child_is_born_in_the_group_and_is_a_whole_process() -> None:
    place = mount()
    if place is None:
        pytest.skip("root: no control groups of version 2 can be written here")
    group = place / f"functionsplatform-test-{os.getpid()}"
    group.mkdir()
    directory = os.open(group, os.O_PATH | os.O_DIRECTORY)
    try:
        line, *rest = said_by_a_child(new_cloner(), directory)
        assert line.endswith(group.name)
        assert rest == ["0", "7", "True"]
    finally:
        os.close(directory)
        group.rmdir()


def test_without_a_group_there_is_no_child_and_python_goes_on() -> None:
    cloner = new_cloner()
    with pytest.raises(OSError, match="Bad file descriptor"):
        cloner.fork(NO_GROUP)
    thread = threading.Thread(target=str)
    thread.start()
    thread.join()
