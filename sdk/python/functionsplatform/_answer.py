"""From what a handler returned to what is sent: status, headers, kind and body.

The rules are those of the documentation: a dict is JSON unless it is a response envelope, text
is text, bytes are bytes, `None` is no body, an iterator is a stream. What JSON cannot hold is an
`InvalidResult` that names the place (`result["a"][2]`), because "Object of type set is not JSON
serializable" helps nobody who returns a large structure.
"""

from __future__ import annotations

import json.encoder
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from math import isfinite
from typing import Any

from functionsplatform._errors import InvalidResult

JSON = "json"
TEXT = "text"
BYTES = "bytes"
NONE = "none"

_ENVELOPE_KEYS = frozenset(
    {"status_code", "statusCode", "headers", "body", "cookies", "isBase64Encoded"}
)
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_EVENT_FIELDS = ("event", "id", "retry", "data")
_EVENT_STARTS = ("data:", "event:", "id:", "retry:", ":")

# No client takes more, and a frame's head has room for it in any encoding.
_MAX_HEADERS = 64 * 1024

# Deeper than any honest answer, shallower than the interpreter's own limit of 1000 frames.
_DEEPEST = 400


class Answer:
    """What goes to the caller. Either `body` is set, or `stream` is (its chunks are raw)."""

    __slots__ = ("body", "headers", "kind", "status", "stream")

    def __init__(
        self,
        kind: str,
        body: bytes,
        status: int | None = None,
        headers: list[tuple[str, str]] | None = None,
        stream: Iterator[Any] | AsyncIterator[Any] | None = None,
    ) -> None:
        """`status` is `None` where the handler set none."""
        self.kind = kind
        self.body = body
        self.status = status
        self.headers = headers
        self.stream = stream


def answer_of(result: Any) -> Answer:
    """The answer for a handler's return value; raises `InvalidResult`."""
    kind = type(result)
    if kind is dict or isinstance(result, dict):
        status = _envelope_status(result)
        if status is not None:
            return _from_envelope(result, status)
        return Answer(JSON, json_bytes(result))
    if kind is str:
        return Answer(TEXT, _utf8(result, "result"))
    if result is None:
        return Answer(NONE, b"")
    return _other(result, "result")


def _other(value: Any, place: str) -> Answer:
    """The answer for a value that is no envelope."""
    if value is None:
        return Answer(NONE, b"")
    if isinstance(value, str):
        return Answer(TEXT, _utf8(value, place))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return Answer(BYTES, bytes(value))
    if isinstance(value, (Iterator, AsyncIterator)):
        return Answer(BYTES, b"", stream=value)
    return Answer(JSON, json_bytes(value, place))


def _utf8(text: str, place: str) -> bytes:
    """The bytes of a text; a "?" in place of what was lost would be a silent lie."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise InvalidResult(
            f"{place} has {half!r} at character {error.start}, half of a surrogate pair, which "
            "UTF-8 cannot hold"
        ) from None


# ---- envelopes ------------------------------------------------------------------------------


def _envelope_status(result: dict[Any, Any]) -> int | None:
    status = result.get("status_code")
    if status is None:
        status = result.get("statusCode")
        if status is None:
            return None
    # `http.HTTPStatus` counts; what is only equal to a whole number (200.0) does not.
    if not isinstance(status, int) or not 200 <= status <= 599:
        return None
    return int(status) if _ENVELOPE_KEYS.issuperset(result) else None


def _from_envelope(envelope: dict[str, Any], status: int) -> Answer:
    body = envelope.get("body")
    if envelope.get("isBase64Encoded") is True and isinstance(body, (str, bytes)):
        try:
            answer = Answer(BYTES, b64decode(body, validate=True))
        except ValueError as error:
            raise InvalidResult(f'result["body"] is not base64: {error}') from None
    else:
        answer = _other(body, 'result["body"]')
    answer.status = status
    answer.headers = [*_headers(envelope.get("headers")), *_cookies(envelope.get("cookies"))]
    size = sum(len(name) + len(value) for name, value in answer.headers)
    if size > _MAX_HEADERS:
        raise InvalidResult(f"the headers are {size} characters, the limit is {_MAX_HEADERS}")
    return answer


def _headers(headers: Any) -> Iterator[tuple[str, str]]:
    if headers is None:
        return
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    try:
        for name, value in pairs:
            for one in value if isinstance(value, (list, tuple)) else (value,):
                yield _header(name, one)
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidResult):
            raise
        raise InvalidResult(
            f'result["headers"] must be a dict or a list of pairs, not {type(headers).__name__}'
        ) from None


def _header(name: Any, value: Any) -> tuple[str, str]:
    place = f'result["headers"][{_quoted(name)}]'
    if not isinstance(name, str) or not name or not _TOKEN.issuperset(name):
        raise InvalidResult(f"{place}: {name!r} is not a header name")
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, (str, int, float)):
        raise InvalidResult(f"{place} must be a string, not {type(value).__name__}")
    text = str(value)
    if any((c < " " and c != "\t") or c == "\x7f" for c in text):
        raise InvalidResult(f"{place} contains a line break or another control character")
    if not text.isascii():
        _utf8(text, place)
    return name, text


def _cookies(cookies: Any) -> Iterator[tuple[str, str]]:
    if cookies is None:
        return
    if isinstance(cookies, Mapping):
        cookies = [f"{name}={value}" for name, value in cookies.items()]
    if not isinstance(cookies, (list, tuple)):
        raise InvalidResult(
            f'result["cookies"] must be a list of strings, not {type(cookies).__name__}'
        )
    for index, cookie in enumerate(cookies):
        if not isinstance(cookie, str):
            raise InvalidResult(
                f'result["cookies"][{index}] must be a string, not {type(cookie).__name__}'
            )
        yield "set-cookie", _header("set-cookie", cookie)[1]


# ---- JSON -----------------------------------------------------------------------------------


def _refuse(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} is not JSON")


def _make_encoder() -> tuple[Callable[[Any, int], Any], dict[int, Any]]:
    """The interpreter's own encoder made once; `json.dumps` makes a new one for each call."""
    markers: dict[int, Any] = {}
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    escape: Any = json.encoder.encode_basestring
    if make is None:
        plain = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_refuse)
        return (lambda value, _indent: (plain.encode(value),)), markers
    return make(markers, _refuse, escape, None, ": ", ", ", False, False, False), markers


_encode, _markers = _make_encoder()
_join = "".join


def json_bytes(value: Any, place: str = "result") -> bytes:
    """JSON in UTF-8 as `json.dumps` writes it; `InvalidResult` names what it cannot hold."""
    try:
        text = _join(_encode(value, 0))
    except BaseException as error:
        _markers.clear()  # the encoder leaves what it was in when it failed
        if not isinstance(error, (TypeError, ValueError, RecursionError)):
            raise
        raise InvalidResult(_why_not_json(value, place, error)) from None
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: only the escaped form can hold it
        return json.dumps(value).encode()


def _why_not_json(value: Any, place: str, error: BaseException) -> str:
    try:
        found = _first_fault(value, place, [])
    except RecursionError:
        found = f"{place} is nested too deeply"
    return found if found is not None else f"{place} cannot be written as JSON: {error}"


def _first_fault(value: Any, place: str, inside: list[int]) -> str | None:
    """The first place in `value` that JSON cannot hold, as a sentence."""
    if value is None or isinstance(value, (str, bool, int)):
        return None
    if isinstance(value, float):
        return None if isfinite(value) else f"{place} is {value!r}, which JSON cannot hold"
    if isinstance(value, dict):
        items: Iterator[tuple[Any, Any]] = iter(value.items())
    elif isinstance(value, (list, tuple)):
        items = iter(enumerate(value))
    else:
        name = type(value).__name__
        return f"{place} is of type {name}, which JSON cannot hold; convert it first"
    if id(value) in inside:
        return f"{place} contains itself, which JSON cannot hold"
    if len(inside) > _DEEPEST:
        return f"{place[:200]}… is nested more than {_DEEPEST} levels deep"
    inside.append(id(value))
    for key, item in items:
        if isinstance(key, float) and not isfinite(key):
            return f"{place} has the key {key!r}, which JSON cannot hold"
        if not (key is None or isinstance(key, (str, int, float))):
            return f"{place} has a key of type {type(key).__name__}; JSON keys are strings"
        fault = _first_fault(item, f"{place}[{_quoted(key)}]", inside)
        if fault is not None:
            return fault
    inside.pop()
    return None


def _quoted(key: Any) -> str:
    return json.dumps(key, ensure_ascii=False) if isinstance(key, str) else repr(key)


# ---- streams --------------------------------------------------------------------------------


class Chunks:
    """Turns what a stream yields into bytes, and settles the answer's kind with the first.

    Text and bytes go out as they are, anything else as one line of JSON. Where the handler set
    `text/event-stream`, dicts and texts become events: a dict with a `data` key and no others
    than `event`, `id`, `retry` is an event, any other its data; a text that is an event already
    stays as it is.
    """

    __slots__ = ("_count", "events")

    def __init__(self, headers: list[tuple[str, str]] | None) -> None:
        """`headers` are those of the envelope."""
        kind = content_type(headers)
        self.events = kind is not None and kind.lower().startswith("text/event-stream")
        self._count = 0

    def first(self, answer: Answer, chunk: Any) -> bytes:
        """The first chunk's bytes; sets the kind of the answer, and its type if it is JSON."""
        if isinstance(chunk, str):
            answer.kind = TEXT
        elif isinstance(chunk, (bytes, bytearray, memoryview)):
            answer.kind = BYTES
        else:
            answer.kind = JSON
            if content_type(answer.headers) is None:
                answer.headers = [*(answer.headers or ()), ("content-type", "application/x-ndjson")]
        return self.next(chunk)

    def next(self, chunk: Any) -> bytes:
        """The bytes of a chunk."""
        place = f"chunk[{self._count}]"
        self._count += 1
        if isinstance(chunk, (bytes, bytearray, memoryview)):
            return bytes(chunk)
        if self.events:
            return _event(chunk, place)
        if isinstance(chunk, str):
            return _utf8(chunk, place)
        return json_bytes(chunk, place) + b"\n"


def content_type(headers: list[tuple[str, str]] | None) -> str | None:
    """The content type among the headers of an answer."""
    for name, value in headers or ():
        if name.lower() == "content-type":
            return value
    return None


def _event(chunk: Any, place: str) -> bytes:
    if isinstance(chunk, str):
        if chunk.startswith(_EVENT_STARTS) and chunk.endswith("\n\n"):
            return _utf8(chunk, place)
        chunk = {"data": chunk}
    elif not (isinstance(chunk, dict) and "data" in chunk and set(_EVENT_FIELDS).issuperset(chunk)):
        chunk = {"data": json_bytes(chunk, place).decode()}
    lines: list[str] = []
    for field in _EVENT_FIELDS:
        if field in chunk:
            value = chunk[field]
            text = value if isinstance(value, str) else json_bytes(value, place).decode()
            lines.extend(f"{field}: {line}" for line in text.splitlines() or [""])
    return _utf8("\n".join(lines) + "\n\n", place)
