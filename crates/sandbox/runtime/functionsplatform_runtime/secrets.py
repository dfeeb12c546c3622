"""Secrets as they come from the platform: before the handler is loaded, and between calls when a value has changed."""

from __future__ import annotations

from json import loads

from functionsplatform import _secrets


def take(head: bytes, value: bytes) -> None:
    """The content of a SECRET frame."""
    fields = loads(head)
    _secrets.take(fields["n"], None if fields.get("g") else value, fields.get("e", ()))
