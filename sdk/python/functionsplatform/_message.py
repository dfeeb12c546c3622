"""The `message` that a handler gets, built from the head and the body of a call.

Every call pays for this module, so it does no work that a handler might not need: a missing
query string is not parsed, and the head's dictionaries are used as they came off the wire.
It knows nothing of frames: `functionsplatform.testing` builds the same head by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from json import JSONDecoder, loads
from typing import Any
from urllib.parse import parse_qsl

from functionsplatform._errors import BadRequest

# The interpreter's own scanner: `loads` spends as long around it as in it on a small text.
_scan: Any = JSONDecoder().scan_once  # type: ignore[attr-defined]

_FORM = "application/x-www-form-urlencoded"

# Types outside of text/* that people read as text.
_TEXT_TYPES = frozenset(
    {
        "application/xml",
        "application/javascript",
        "application/ecmascript",
        "application/yaml",
        "application/x-yaml",
        "application/toml",
        "application/graphql",
        "application/sql",
        "application/x-ndjson",
        "application/jsonl",
    }
)


class Headers(dict[str, Any]):
    """HTTP headers: a `dict` with lower-case keys that finds them in any case.

    >>> Headers({"content-type": "text/plain"})["Content-Type"]
    'text/plain'

    The constructor trusts that keys are in lower case (on the wire they are);
    `Headers.of` takes any.
    """

    __slots__ = ()

    @classmethod
    def of(cls, headers: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Headers:
        """Headers from a mapping or pairs in any case; duplicates are joined by `, `."""
        result = cls()
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        for name, value in pairs:
            result[name] = f"{result[name]}, {value}" if name in result else value
        return result

    def __getitem__(self, name: str) -> Any:
        return dict.__getitem__(self, name.lower())

    def __setitem__(self, name: str, value: Any) -> None:
        dict.__setitem__(self, name.lower(), value)

    def __delitem__(self, name: str) -> None:
        dict.__delitem__(self, name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and dict.__contains__(self, name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a header, or `default`."""
        return dict.get(self, name.lower(), default)

    def pop(self, name: str, *default: Any) -> Any:
        """Remove a header and return its value."""
        return dict.pop(self, name.lower(), *default)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """The value of a header, which is set to `default` first if it is missing."""
        return dict.setdefault(self, name.lower(), default)

    def update(self, *others: Any, **more: Any) -> None:
        """Set several headers."""
        for name, value in dict(*others, **more).items():
            self[name] = value

    def copy(self) -> Headers:
        """A copy that is as case-insensitive as this one."""
        return Headers(self)


def message_of(head: dict[str, Any], raw_body: bytes) -> dict[str, Any]:
    """The handler's `message`.

    `head` has the short keys of a call's head (`v`, `p`, `q`, `h`, `pp`). Raises `BadRequest`
    where a body with a JSON content type is no JSON.
    """
    headers = Headers(head["h"])
    query: dict[str, str] = {}
    query_all: dict[str, list[str]] = {}
    text = head.get("q")
    if text:
        for name, value in parse_qsl(text, keep_blank_values=True):
            query[name] = value
            query_all.setdefault(name, []).append(value)
    return {
        "headers": headers,
        "body": body_of(raw_body, dict.get(headers, "content-type")) if raw_body else None,
        "raw_body": raw_body,
        "path": head["p"],
        "verb": head["v"],
        "message_type": "http",
        "query": query,
        "query_all": query_all,
        "path_params": head.get("pp") or {},
    }


def body_of(raw: bytes, content_type: str | None) -> Any:
    """The body as its content type says: parsed JSON, a form's dict, text, or bytes."""
    if content_type is None:
        return _guessed(raw, form=False)
    if content_type == "application/json":
        return _json(raw)
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    if not kind:
        return _guessed(raw, form=False)
    if kind == "application/json" or kind.endswith("+json"):
        return _json(raw)
    if kind == _FORM:
        return _guessed(raw, form=True)
    if kind.startswith("text/") or kind.endswith("+xml") or kind in _TEXT_TYPES:
        return _text(raw, _charset(parameters))
    return raw


def parsed(raw: bytes) -> Any:
    """What `json.loads` says, in half of the time where the text is plain and whole."""
    try:
        text = raw.decode()
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except (ValueError, StopIteration):
        pass
    return loads(raw)


def _json(raw: bytes) -> Any:
    try:
        return parsed(raw)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from None


def _guessed(raw: bytes, *, form: bool) -> Any:
    """A body without a telling type: curl sends JSON as a form, or with no type at all."""
    text = _text(raw, "utf-8")
    if isinstance(text, bytes):
        return text
    if text.lstrip()[:1] in ("{", "["):
        try:
            return loads(text)
        except (ValueError, RecursionError):
            pass
    return dict(parse_qsl(text, keep_blank_values=True)) if form else text


def _text(raw: bytes, charset: str) -> str | bytes:
    try:
        return raw.decode(charset)
    except (ValueError, LookupError):  # some codecs raise a bare UnicodeError
        return raw


def _charset(parameters: str) -> str:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"') or "utf-8"
    return "utf-8"
