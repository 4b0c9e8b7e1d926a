"""Adding documented members to a request's bytes, and taking the traces of them out of the answer.

Owns every byte that the proxy changes in a body. When a place is not certain, nothing is changed: inside a
JSON string a quote is escaped, so ``"stream_options"`` with its quotes is a member's name or one whole
string value; found twice, or not where the parser saw the member, it is left alone.

Usage is asked for by ``stream_options.include_usage``. A client that says ``false`` or ``null`` there is
treated as one that says nothing: it sees no usage either way. Not asked is a request for several answers,
or with ``continuous_usage_stats`` (on its own it does nothing; together with our member it would put usage
into every event).
"""

import re
from collections.abc import Mapping

import msgspec
from msgspec import Raw

from marsproxy.core.evidence import Schema
from marsproxy.wire import normal
from marsproxy.wire.requests import ParsedRequest
from marsproxy.wire.usage_stripper import UsageStripper

__all__ = ["UsageStripper", "add_xargs", "ask_usage"]

_OPENING = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*\{(?![ \t\r\n]*\})")
_COLON = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_MEMBERS = msgspec.json.Decoder(dict[str, Raw] | None)


def ask_usage(body: bytes, parsed: ParsedRequest) -> bytes | None:
    """The body with usage asked for; None when it is there anyway, cannot be had, or is best left alone."""
    if parsed.asks_usage or parsed.samples != 1 or parsed.schema not in (Schema.CHAT, Schema.COMPLETIONS):
        return None
    members = _members(parsed.stream_options)
    if members is None or members.get("continuous_usage_stats", Raw(b"false")) not in _FALSE:
        return None
    return _put(body, b"stream_options", parsed.stream_options, members | {"include_usage": Raw(b"true")})


def add_xargs(body: bytes, parsed: ParsedRequest, xargs: Mapping[str, str | int | float]) -> bytes | None:
    """The body with members added to ``vllm_xargs``; what the client put there under the same name stays.

    After ``ask_usage`` the same ``parsed`` still fits: neither moves what the other looks for.
    """
    members = _members(parsed.vllm_xargs)
    if members is None:
        return None
    added = {name: Raw(msgspec.json.encode(value)) for name, value in xargs.items()}
    return _put(body, b"vllm_xargs", parsed.vllm_xargs, added | members)


_FALSE = (Raw(b"false"), Raw(b"null"))


def _members(member: bytes | None) -> dict[str, Raw] | None:
    """{} for an absent or null object, None for what is no object."""
    try:
        return _MEMBERS.decode(member or b"null") or {}
    except normal.UNREADABLE:
        return None


def _put(body: bytes, name: bytes, old: bytes | None, members: Mapping[str, Raw]) -> bytes | None:
    key, new, view = b'"' + name + b'"', msgspec.json.encode(members), memoryview(body)
    if old is None:
        opening = _OPENING.match(body)
        if opening is None:
            return None
        return b"".join((view[: opening.end()], key, b":", new, b",", view[opening.end() :]))
    start = body.find(key)
    colon = _COLON.match(body, start + len(key))
    if start < 0 or body.find(key, start + 1) >= 0 or colon is None or not body.startswith(old, colon.end()):
        return None
    return b"".join((view[: colon.end()], new, view[colon.end() + len(old) :]))
