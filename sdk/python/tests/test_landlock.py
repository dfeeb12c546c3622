"""What is said to the kernel about landlock, of which only the kernel's log would show the rest."""

from __future__ import annotations

import pytest

import landlock


class Kernel:
    """Takes every call and keeps it."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def syscall(self, *arguments: int) -> int:
        self.calls.append(arguments)
        return 5


@pytest.mark.parametrize(("version", "flags"), [(6, 0), (7, 1 | 4)])
def test_refusals_are_not_logged_neither_ours_nor_those_of_domains_inside(
    version: int, flags: int
) -> None:
    kernel = Kernel()
    prepared = landlock.prepare(version)
    landlock.restrict(prepared, lambda _step, result: result, kernel)
    assert kernel.calls[-1] == (landlock.RESTRICT_SELF, 5, flags)


def test_where_it_is_not_used_nothing_is_prepared() -> None:
    assert landlock.prepare(0) is None
