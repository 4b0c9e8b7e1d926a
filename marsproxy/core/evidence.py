"""What a request says about the session it belongs to.

Owns the vocabulary between the wire (which reads bytes) and identity (which decides). It must not
know HTTP, JSON or any framework by name: those live in ``marsproxy.wire``.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum

Digest = bytes
"""16 bytes that stand for one message in normal form (role, flattened text, call ids, names, arguments)."""


class Schema(Enum):
    """The API a request was made with. Histories of different schemas are never matched with each other."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    MESSAGES = "messages"


class Level(IntEnum):
    """Which kind of evidence settled the session, strongest first."""

    URL = 1
    HEADER = 2
    BODY = 3
    CALL_ID = 4
    PREFIX = 5
    NEW = 6


class TurnKind(Enum):
    """How a turn relates to its session."""

    FIRST = "first"
    CONTINUATION = "continuation"
    RETRY = "retry"
    """The same request again: the client gave up on the earlier attempt, or never saw its answer."""
    SIDE = "side"
    """Same session id, another prefix, no tools: a title, a commit message, a condenser at work."""
    CONDENSED = "condensed"
    """The session goes on with a rewritten history; the KV of the old one is superseded."""


@dataclass(frozen=True, slots=True)
class TurnEvidence:
    """All that identity may look at. Text never gets here, only digests and counts."""

    schema: Schema
    tenant: str
    """Fingerprint of the API key; "" for requests without one. Sessions never cross tenants."""
    message_digests: tuple[Digest, ...]
    """One per message in order, system prompt or ``instructions`` included; () if there are none."""
    body_digest: Digest
    """Of the whole body, in place of messages where none were understood; else it may be empty."""
    has_tools: bool
    explicit_id: str | None = None
    explicit_level: Level | None = None
    """URL, HEADER or BODY when ``explicit_id`` is set."""
    parent_id: str | None = None
    """Explicit id of the session that started this one (a sub-agent)."""
    group_id: str | None = None
    """Id that several agents of one task send alike (``prompt_cache_key``). It is no session's id, unless
    it is the ``explicit_id`` of one: then the others were started by that one."""
    family: str | None = None
    """Group hint, e.g. ``prompt_cache_key`` or ``user``. Sub-agents share it with their parent."""
    previous_response_id: str | None = None
    """Of the responses API: the answer that this request continues."""
    echoed_call_ids: tuple[str, ...] = ()
    """Ids of tool calls that the history answers, latest last, only unique-looking ones."""
    retry_count: int | None = None
    """``x-stainless-retry-count`` when the client sent it; 1 and more mean the client says it is a retry."""

    @property
    def is_stated_retry(self) -> bool:
        return self.retry_count is not None and self.retry_count >= 1


@dataclass(frozen=True, slots=True)
class AnswerEvidence:
    """What the backend's answer adds: the next request will carry it back."""

    digest: Digest | None
    """Normal form of the assistant message; None when the answer was not understood."""
    call_ids: tuple[str, ...] = ()
    response_id: str | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    """The session and turn that a request was taken for, and why."""

    session_id: str
    """Ours: unique over tenants, stable, safe to show in a header."""
    kind: TurnKind
    level: Level
    turn: int
    """1 for the first turn; a retry repeats the number of the turn that it repeats; 0 for a side call."""
    matched_messages: int
    """Leading messages that the session is known to have sent or received before."""
    parent_session_id: str | None = None
