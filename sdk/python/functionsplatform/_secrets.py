"""The secrets that this function may read.

On the platform they are what it sent to this worker, and again when one of them changes. Outside
of it they are what a test gave to `functionsplatform.testing.invoke`, else environment variables
named `FUNCTIONSPLATFORM_SECRET_` and the name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from functionsplatform._errors import SecretMissing

LOCAL_PREFIX = "FUNCTIONSPLATFORM_SECRET_"

# None is a secret that was deleted.
_values: dict[str, bytes | None] = {}
_on_platform = False


def secret(name: str) -> str:
    """The value of a secret as it is now, as text.

    Ask in the handler, not at import: then a new value is seen without a deploy. Raises
    `SecretMissing` for a name that function.toml does not have under `secrets`.
    """
    value = secret_bytes(name)
    text = value.decode("utf-8", "replace")
    # Not by catching a UnicodeDecodeError: that carries the value along.
    if "\ufffd" in text and text.encode() != value:
        raise ValueError(f"secret {name!r} is not UTF-8 text; read it with secret_bytes")
    return text


def secret_bytes(name: str) -> bytes:
    """As `secret`, for values that are not text."""
    value = _values.get(name)
    if value is None and not _on_platform and name not in _values:
        value = os.environb.get(os.fsencode(LOCAL_PREFIX + name))
    if value is None:
        raise SecretMissing(_why_missing(name))
    return value


def _why_missing(name: str) -> str:
    if not _on_platform:
        return (
            f"secret {name!r} has no value here: pass secrets={{{name!r}: ...}} to "
            f"functionsplatform.testing.invoke, or set {LOCAL_PREFIX}{name} in the environment"
        )
    if name in _values:
        return f"secret {name!r} was deleted; set it with `functionsplatform secret set {name}`"
    has = ", ".join(sorted(_values)) or "none"
    return (
        f"secret {name!r} is not among those of this function ({has}); add it to secrets in "
        "function.toml and deploy"
    )


# For the worker.


def close() -> None:
    """From here on only what the platform sends is there."""
    global _on_platform
    _on_platform = True


def take(name: str, value: bytes | None, variables: Iterable[str]) -> None:
    """A secret, its new value, or none; also into the environment where that was asked."""
    _values[name] = value
    for variable in variables:
        if value is None or b"\0" in value:  # which no variable can hold
            os.environ.pop(variable, None)
        else:
            os.environb[os.fsencode(variable)] = value


# For tests.


@contextmanager
def given(values: Mapping[str, str | bytes] | None) -> Iterator[None]:
    """With these values instead of those that are there."""
    if values is None:
        yield
        return
    before = dict(_values)
    _values.clear()
    for name, value in values.items():
        _values[name] = value.encode() if isinstance(value, str) else value
    try:
        yield
    finally:
        _values.clear()
        _values.update(before)
