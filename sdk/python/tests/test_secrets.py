"""Secrets: what a worker gets, and what a test gives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from functionsplatform import SecretMissing, _secrets, secret, secret_bytes
from functionsplatform.testing import invoke


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = dict(_secrets._values), _secrets._on_platform
    yield
    _secrets._values.clear()
    _secrets._values.update(before[0])
    _secrets._on_platform = before[1]


def _handler(message: Any, context: Any) -> Any:
    return {"key": secret("KEY")}


def test_a_test_gives_them_for_one_call() -> None:
    assert invoke(_handler, secrets={"KEY": "ké"}).json == {"key": "ké"}
    assert invoke(_handler, secrets={"KEY": b"bytes"}).json == {"key": "bytes"}
    with pytest.raises(SecretMissing, match="FUNCTIONSPLATFORM_SECRET_KEY"):
        invoke(_handler, secrets={"OTHER": "x"})
    with pytest.raises(SecretMissing):
        secret("KEY")


def test_outside_of_a_platform_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNCTIONSPLATFORM_SECRET_KEY", "from env")
    assert secret("KEY") == "from env"
    assert invoke(_handler, secrets={"KEY": "given"}).json == {"key": "given"}


def test_on_a_platform_only_what_it_sends_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNCTIONSPLATFORM_SECRET_OTHER", "no")
    monkeypatch.setenv("VARIABLE", "before")
    _secrets.take("KEY", b"first", ["VARIABLE"])
    _secrets.close()
    assert (secret("KEY"), os.environ["VARIABLE"]) == ("first", "first")
    _secrets.take("KEY", b"second\xff", ["VARIABLE"])
    assert secret_bytes("KEY") == b"second\xff"
    with pytest.raises(ValueError, match="secret_bytes") as raised:
        secret("KEY")
    assert raised.value.__context__ is None  # it would carry the value along
    with pytest.raises(SecretMissing, match=r"\(KEY\).*function\.toml"):
        secret("OTHER")
    _secrets.take("KEY", None, ["VARIABLE"])
    assert "VARIABLE" not in os.environ
    with pytest.raises(SecretMissing, match="was deleted"):
        secret("KEY")
