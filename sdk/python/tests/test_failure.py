"""Exceptions whose authors do not want them looked at: each is described all the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from functionsplatform._failure import failure_of


class Hostile(BaseException):
    """What is thrown at whoever looks."""


def throws(*_: Any, **__: Any) -> Any:
    raise Hostile("do not look")


class Text(str):
    """A text that is none when it is touched."""

    __slots__ = ()
    encode = isascii = __getitem__ = __len__ = __str__ = throws


def with_text() -> BaseException:
    class Silent(Exception):
        __str__ = __repr__ = throws

    return Silent()


def with_odd_text() -> BaseException:
    class Odd(Exception):
        def __str__(self) -> str:
            return Text("odd \ud800")

    return Odd()


def with_class() -> BaseException:
    class Masked(Exception):
        __class__ = property(throws)  # type: ignore[assignment]

    return Masked()


def with_another_class() -> BaseException:
    from functionsplatform._errors import DeadlineExceeded

    class Liar(Exception):
        __class__ = DeadlineExceeded  # type: ignore[assignment]

    return Liar()


def with_traceback() -> BaseException:
    class Rootless(Exception):
        __traceback__ = property(throws)  # type: ignore[assignment]
        __cause__ = __context__ = __suppress_context__ = property(throws)  # type: ignore[assignment]
        __notes__ = property(throws)  # type: ignore[assignment]
        __setattr__ = throws

    return Rootless()


def with_metaclass() -> BaseException:
    class Meta(type):
        __getattribute__ = __instancecheck__ = throws  # type: ignore[assignment]

    class Nameless(Exception, metaclass=Meta):
        pass

    return Nameless()


def with_numbers() -> BaseException:
    error = SyntaxError("odd")
    error.filename = __file__
    error.lineno = object()  # type: ignore[assignment]
    error.text = Text("x")
    return error


def with_notes() -> BaseException:
    error = ValueError("noted")
    error.__notes__ = [
        Text("x"),
        object(),
        type("Note", (), {"__str__": throws, "__repr__": throws})(),
    ]  # type: ignore[attr-defined]
    return error


def with_cause() -> BaseException:
    error = ValueError("effect")
    error.__cause__ = with_text()
    return error


def with_exit() -> BaseException:
    return SystemExit(type("Code", (), {"__repr__": throws, "__str__": throws})())


MAKERS = [
    with_text,
    with_odd_text,
    with_class,
    with_another_class,
    with_traceback,
    with_metaclass,
    with_numbers,
    with_notes,
    with_cause,
    with_exit,
    lambda: Hostile("plain"),
]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_it_is_described_in_plain_words(make: Callable[[], BaseException]) -> None:
    hostile = make()
    try:
        raise hostile
    except BaseException as raised:
        error = raised
    assert error is hostile
    failure = failure_of(error, "/code", __file__)
    assert failure["kind"] == "exception"
    assert all(type(failure[key]) is str for key in ("exception_type", "message", "traceback"))
    assert failure["exception_type"]
    assert "Traceback" in failure["traceback"] or "SyntaxError" in failure["traceback"]
    json.dumps(failure).encode()


def test_a_loader_of_source_text_that_throws_costs_the_text_only() -> None:
    namespace: dict[str, Any] = {
        "__loader__": type("Loader", (), {"get_source": throws})(),
        "__name__": "m",
    }
    code = compile("def handler():\n    return 1 / 0\n", "/code/handler.py", "exec")
    exec(code, namespace)
    try:
        namespace["handler"]()
    except ZeroDivisionError as raised:
        failure = failure_of(raised, "/code", "/code/handler.py")
    assert failure["exception_type"] == "ZeroDivisionError"
    assert failure["message"] == "division by zero"
    assert failure["line"] == 2
    assert '"/code/handler.py", line 2, in handler' in failure["traceback"]
