"""Answers that the proxy gives in its own name, in the shape that the client's library understands.

Owns statuses, codes and words of refusals. It must not know why something was decided (a ``Refusal``
comes with its reason) nor send anything. No message repeats what a client sent: bodies, headers and
the credentials in a backend's URL stay out.
"""

import math
from dataclasses import dataclass
from typing import assert_never
from urllib.parse import urlsplit

import msgspec

from marsproxy.core.commands import Reason
from marsproxy.core.evidence import Schema

REASON_HEADER = b"x-mars-reason"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One answer of our own."""

    status: int
    code: str
    """Stable word for programs."""
    message: str
    """Sentence for people."""
    retry_after_s: float | None = None
    closes_connection: bool = False
    """True where the request's body was not read to its end, so that what follows cannot be parsed."""


class Refuse(Exception):
    """One of the proxy's own routes says no."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def rejected(reason: Reason, retry_after_s: float) -> Refusal:
    """The policy said no."""
    match reason:
        case Reason.QUEUE_FULL:
            status, message = 429, "too many turns are waiting for capacity"
        case Reason.HELD_TOO_LONG:
            status, message = 503, "no capacity became free for this turn in the time that one may be held"
        case Reason.TABLE_FULL:
            status, message = 503, "too many sessions are open"
        case Reason.KV_FULL:
            status, message = 503, "the KV cache has no room for this session"
        case Reason.TOOLS_BUSY:
            status, message = 503, "the tool hosts are busy"
        case Reason.TELEMETRY_UNKNOWN:
            status, message = 503, "the load of the backends is unknown, and the fixed limit is reached"
        case Reason.BEHIND_OTHERS:
            status, message = 503, "other turns are first"
        case Reason.BACKEND_LOST:
            status, message = 502, "the backend failed, and no other could take this turn"
        case Reason.NO_BACKEND:
            status, message = 503, "no backend takes new work for this model"
        case Reason.TENANT_TURNS:
            status, message = 429, "as many turns of this key are open as it may have"
        case Reason.TENANT_SESSIONS:
            status, message = 429, "as many sessions of this key are at work as it may have"
        case Reason.TENANT_TOKENS:
            status, message = 429, "this key has used up its tokens for now"
        case _:
            assert_never(reason)
    text = f"{message}; retry after {_whole_seconds(retry_after_s)} s"
    return Refusal(status, reason.value, text, retry_after_s)


def leaving(retry_after_s: float) -> Refusal:
    """This process stops: the turn had not begun, and another one will take it."""
    text = (
        f"this proxy is stopping, and the turn had not begun; retry after {_whole_seconds(retry_after_s)} s"
    )
    return Refusal(503, "stopping", text, retry_after_s, closes_connection=True)


def backend_unreachable(url: str) -> Refusal:
    """No connection, or it broke off before the answer began."""
    return Refusal(502, "backend_unreachable", f"backend {public_name(url)} cannot be reached")


def backend_timeout(url: str) -> Refusal:
    return Refusal(504, "backend_timeout", f"backend {public_name(url)} did not answer in time")


def backend_broke_off(url: str) -> Refusal:
    """The answer began and did not end."""
    return Refusal(502, "backend_broke_off", f"backend {public_name(url)} broke off its answer")


def backend_unavailable(url: str | None, retry_after_s: float) -> Refusal:
    """Known to be down before trying; no URL means that this holds for all of them."""
    which = "no backend" if url is None else f"backend {public_name(url)}"
    state = "is available" if url is None else "is not available"
    return Refusal(503, "backend_unavailable", f"{which} {state}", retry_after_s)


def body_too_large(max_bytes: int) -> Refusal:
    message = f"the request body is larger than {max_bytes} bytes"
    return Refusal(413, "body_too_large", message, closes_connection=True)


def headers_too_large(max_bytes: int) -> Refusal:
    message = f"the request line and headers are larger than {max_bytes} bytes"
    return Refusal(431, "headers_too_large", message, closes_connection=True)


def headers_too_slow(timeout_s: float) -> Refusal:
    message = f"the request's headers did not arrive within {timeout_s:g} s"
    return Refusal(408, "headers_too_slow", message, closes_connection=True)


def body_too_slow(timeout_s: float) -> Refusal:
    message = f"the request's body did not arrive within {timeout_s:g} s"
    return Refusal(408, "body_too_slow", message, closes_connection=True)


def bad_request(code: str, message: str) -> Refusal:
    """The request cannot be understood; ``message`` must not quote it."""
    return Refusal(400, code, message)


def bad_length() -> Refusal:
    message = "the body's length is not what its Content-Length says"
    return Refusal(400, "bad_length", message, closes_connection=True)


def not_http() -> Refusal:
    return Refusal(400, "not_http", "not a valid HTTP/1.1 request", closes_connection=True)


def too_many_connections(max_connections: int) -> Refusal:
    message = f"all {max_connections} connections are in use"
    return Refusal(503, "too_many_connections", message, retry_after_s=1.0, closes_connection=True)


def too_many_watchers(most: int) -> Refusal:
    return Refusal(503, "too_many_watchers", f"{most} live views are open already", retry_after_s=5.0)


def busy(what: str) -> Refusal:
    """One of the proxy's own routes has too much to do."""
    return Refusal(503, "busy", what, retry_after_s=5.0)


def not_found(what: str) -> Refusal:
    """For the proxy's own routes; ``what`` names the kind of thing, never the id that was asked for."""
    return Refusal(404, "not_found", f"no such {what}")


def method_not_allowed(allowed: str) -> Refusal:
    return Refusal(405, "method_not_allowed", f"this path takes another method; allowed: {allowed}")


def unauthorized(what: str) -> Refusal:
    return Refusal(401, "unauthorized", what)


def forbidden(what: str) -> Refusal:
    return Refusal(403, "forbidden", what)


def invalid_api_key(what: str) -> Refusal:
    """Nobody's key, at a door that asks for one. The body is not waited for."""
    return Refusal(401, "invalid_api_key", what, closes_connection=True)


def not_for_tenants(what: str) -> Refusal:
    return Refusal(403, "not_allowed", what)


def as_answer(refusal: Refusal, schema: Schema | None = None) -> Answer:
    """The whole HTTP answer. ``None`` is a path that no schema belongs to."""
    body = msgspec.json.encode(_error_body(refusal, schema))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (REASON_HEADER, refusal.code.encode()),
    ]
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", str(_whole_seconds(refusal.retry_after_s)).encode()))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))  # RFC 9110, section 15.5.2
    if refusal.closes_connection:
        headers.append((b"connection", b"close"))
    return Answer(refusal.status, headers, body)


def as_event(refusal: Refusal, schema: Schema) -> bytes:
    """One SSE event for a stream that hold comments have opened: its status is already 200."""
    data = _error_body(refusal, schema)
    match schema:
        case Schema.CHAT | Schema.COMPLETIONS:
            return b"data: " + msgspec.json.encode(data) + b"\n\n"
        case Schema.MESSAGES:
            return b"event: error\ndata: " + msgspec.json.encode(data) + b"\n\n"
        case Schema.RESPONSES:
            # The API's own event is flat. The official Python client raises only for a nested "error",
            # and would otherwise end the stream as if it were complete: so the event has both.
            flat = {"type": "error", "code": refusal.code, "message": refusal.message, "param": None}
            return (
                b"event: error\ndata: " + msgspec.json.encode(flat | {"sequence_number": 0} | data) + b"\n\n"
            )
        case _:
            assert_never(schema)


def backend_error_event(status: int, body: bytes, schema: Schema) -> bytes:
    """A backend's whole error answer, for a stream that hold comments have opened."""
    try:
        compact = msgspec.json.format(body, indent=-1)
    except msgspec.MsgspecError:
        return as_event(
            Refusal(status, "backend_error", f"the backend answered with status {status}"), schema
        )
    name = b"" if schema in (Schema.CHAT, Schema.COMPLETIONS) else b"event: error\n"
    return name + b"data: " + compact + b"\n\n"


def public_name(url: str) -> str:
    """Scheme, host and port of a backend: no credentials, no path, no query."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + (f":{parts.port}" if parts.port else "")


def _error_body(refusal: Refusal, schema: Schema | None) -> dict[str, object]:
    if schema is Schema.MESSAGES:
        kind = _anthropic_type(refusal.status)
        return {"type": "error", "error": {"type": kind, "message": refusal.message}}
    kind = _openai_type(refusal.status)
    return {"error": {"message": refusal.message, "type": kind, "param": None, "code": refusal.code}}


def _openai_type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def _anthropic_type(status: int) -> str:
    """Words of the Messages API's error table."""
    words = {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        503: "overloaded_error",
        504: "timeout_error",
    }
    return words.get(status, "invalid_request_error" if status < 500 else "api_error")


def _whole_seconds(retry_after_s: float) -> int:
    """Retry-After has no fractions (RFC 9110), and 0 would ask for a storm."""
    return max(1, math.ceil(retry_after_s))
