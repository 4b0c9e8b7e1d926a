"""Ids that a client sends of its own accord, and which of them name the session.

Owns the names of headers and body members and their order; it must not know prompts. Never used: request
ids and trace ids (new on every request), the connection (agents share one), ``x-parent-session-id`` as the
session (a router that took it merged sub-agents into their parent).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from marsproxy.core.evidence import Level

Headers = Sequence[tuple[bytes, bytes]]
"""As ASGI gives them: lower-case names, latin-1 bytes, order and repetitions kept."""

MAX_ID_BYTES = 256
_ID = re.compile(r"[\x21-\x7e]+")
_NO_VALUE = frozenset({"null", "none", "undefined", "nil"})
"""What a missing variable becomes when a client formats it into a header."""

# Who sends what: x-litellm-session-id OpenHands; x-claude-code-session-id Claude Code, whose sub-agents add
# their agent id; x-session-id and x-session-affinity opencode; session-id and thread-id Codex. The Dynamo
# names are understood by several agent gateways.
_FIRST_HEADERS = (b"x-mars-session", b"x-dynamo-session-id", b"x-session-id", b"x-litellm-session-id")
_CLAUDE_SESSION = b"x-claude-code-session-id"
_CLAUDE_AGENT = b"x-claude-code-agent-id"
_CLAUDE_PARENT = b"x-claude-code-parent-agent-id"
_CODEX_SESSION = b"session-id"
_CODEX_THREAD = b"thread-id"
_CODEX_PARENT = b"x-codex-parent-thread-id"
_AFFINITY = b"x-session-affinity"
_BAGGAGE = b"baggage"
_PARENT_HEADERS = (b"x-mars-parent-session", b"x-dynamo-parent-session-id", b"x-parent-session-id")
_FINAL_HEADERS = (b"x-mars-session-final", b"x-dynamo-session-final")
_RETRY_COUNT = b"x-stainless-retry-count"
_PRIORITY = b"x-vllm-priority"
_AGENT = b"user-agent"

_READ = frozenset(
    {
        *_FIRST_HEADERS,
        _CLAUDE_SESSION,
        _CLAUDE_AGENT,
        _CLAUDE_PARENT,
        _CODEX_SESSION,
        _CODEX_THREAD,
        _CODEX_PARENT,
        _AFFINITY,
        _BAGGAGE,
        *_PARENT_HEADERS,
        *_FINAL_HEADERS,
        _RETRY_COUNT,
        _PRIORITY,
        _AGENT,
    }
)


@dataclass(frozen=True, slots=True)
class SessionIds:
    session: str | None = None
    level: Level | None = None
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    ids: SessionIds
    retry_count: int | None
    is_final: bool
    sets_priority: bool


def read_headers(headers: Headers, extra_session_headers: Iterable[str] = ()) -> HeaderFacts:
    extra = [name.lower().encode("latin-1", "replace") for name in extra_session_headers]
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _READ or name in extra:
            found.setdefault(name, value)
    return HeaderFacts(
        ids=_header_ids(found, extra),
        retry_count=_count(found.get(_RETRY_COUNT)),
        is_final=any(_is_true(found.get(name)) for name in _FINAL_HEADERS),
        sets_priority=_PRIORITY in found,
    )


def valid_id(value: object) -> str | None:
    """The id when it is fit to be one: a printable ASCII string without spaces, 256 bytes at most."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, str):
        return None
    value = value.strip(" \t")
    if len(value) > MAX_ID_BYTES or not _ID.fullmatch(value) or value.lower() in _NO_VALUE:
        return None
    return value


def body_ids(members: Mapping[str, Any]) -> SessionIds:
    """From the decoded members of a body that are named here."""
    client = _dict(members.get("client_metadata"))
    thread, root = valid_id(client.get("thread_id")), valid_id(client.get("session_id"))
    candidates = (
        members.get("session_id"),
        thread,
        root,
        _dict(members.get("metadata")).get("session_id"),
        members.get("litellm_session_id"),
        members.get("program_id"),
        _conversation(members.get("conversation")),
        _dict(members.get("vllm_xargs")).get("session_id"),
    )
    session = next(filter(None, map(valid_id, candidates)), None)
    if session is None:
        return SessionIds()
    is_thread = session == thread and root is not None and root != thread
    return SessionIds(session, Level.BODY, parent=root if is_thread else None)


def first_of(url_session: str | None, header: SessionIds, body: SessionIds) -> SessionIds:
    """The strongest id; a parent counts wherever it was named."""
    url = valid_id(url_session)
    strongest = SessionIds(url, Level.URL) if url else header if header.session else body
    parent = header.parent or body.parent
    return SessionIds(strongest.session, strongest.level, None if parent == strongest.session else parent)


def _header_ids(found: dict[bytes, bytes], extra: list[bytes]) -> SessionIds:
    if not found:
        return SessionIds()
    parent = _first_valid(found, _PARENT_HEADERS)
    if session := _first_valid(found, _FIRST_HEADERS):
        return SessionIds(session, Level.HEADER, parent)
    if session := valid_id(found.get(_CLAUDE_SESSION)):
        return _claude_ids(session, found, parent)
    if _is_codex(found) and (ids := _codex_ids(found, parent)):
        return ids
    session = (
        valid_id(found.get(_AFFINITY)) or _first_valid(found, extra) or _baggage_session(found.get(_BAGGAGE))
    )
    return SessionIds(session, Level.HEADER if session else None, parent)


def _claude_ids(session: str, found: dict[bytes, bytes], parent: str | None) -> SessionIds:
    """The main agent sends no agent id; a sub-agent's history is its own."""
    agent = valid_id(found.get(_CLAUDE_AGENT))
    if agent is None:
        return SessionIds(session, Level.HEADER, parent)
    started_by = valid_id(found.get(_CLAUDE_PARENT))
    above = f"{session}/{started_by}" if started_by else session
    return SessionIds(f"{session}/{agent}", Level.HEADER, parent or above)


def _is_codex(found: dict[bytes, bytes]) -> bool:
    """``session-id`` and ``thread-id`` are common words: only Codex is known to mean this by them."""
    return found.get(_AGENT, b"").lower().startswith(b"codex")


def _codex_ids(found: dict[bytes, bytes], parent: str | None) -> SessionIds | None:
    root, thread = valid_id(found.get(_CODEX_SESSION)), valid_id(found.get(_CODEX_THREAD))
    session = thread or root
    if session is None:
        return None
    above = valid_id(found.get(_CODEX_PARENT)) or (root if root != session else None)
    return SessionIds(session, Level.HEADER, parent or above)


def _first_valid(found: dict[bytes, bytes], names: Iterable[bytes]) -> str | None:
    return next(filter(None, (valid_id(found.get(name)) for name in names)), None)


def _baggage_session(value: bytes | None) -> str | None:
    """``session.id`` of W3C baggage: ``key=value;property, key=value``, values percent-encoded."""
    for member in (value or b"").decode("latin-1").split(","):
        key, _, rest = member.partition("=")
        if key.strip() == "session.id":
            return valid_id(unquote(rest.partition(";")[0].strip()))
    return None


def _conversation(value: object) -> object:
    return value.get("id") if isinstance(value, dict) else value


def _count(value: bytes | None) -> int | None:
    # Nine digits are more retries than any client makes, and cheap to convert.
    return int(value) if value and len(value) <= 9 and value.isdigit() else None


def _is_true(value: bytes | None) -> bool:
    return value is not None and value.strip().lower() in (b"true", b"1", b"yes")


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
