"""``GET /mars/v1/sessions/{id}/why``: one session's story, as words and as numbers."""

from dataclasses import asdict, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from marsproxy.core.sessions import SessionState
from marsproxy.live.story import Entry, SessionLog, State
from marsproxy.live.words import kind_of, seconds, sentence, tokens

LEFT_OUT = frozenset(("session_id", "tenant", "family", "command_digests", "tool_call_ids", "principal"))
"""Of events and commands: names of others' making, and what only serves to find things again."""

DOING = {
    State.HELD: "waits in the proxy",
    State.GENERATING: "has a turn in flight",
    State.TOOL: "is between two turns, and its place is kept",
    State.EVICTED: "is between two turns, and has lost its place",
    State.IDLE: "is at rest",
    State.OVER: "is over",
}


def why(session_id: str, log: SessionLog, session: SessionState | None, now: float, wall: float) -> Any:
    """
    Args:
        now: on the clock that the story's times are on.
        wall: the same moment in seconds since 1970.
    """
    offset_s = wall - now
    return {
        "session": session_id,
        "state": log.state.value,
        "for_s": round(max(0.0, now - log.since_s), 3),
        "summary": summary(log, session, now),
        "is_known": session is not None,
        "story": [told(entry, now, offset_s) for entry in sorted(log.entries, key=lambda each: each.at_s)],
    }


def summary(log: SessionLog, session: SessionState | None, now: float) -> str:
    said = f"The session {DOING[log.state]}, for {seconds(max(0.0, now - log.since_s))} now."
    if session is None:
        return f"{said} The proxy has no row for it any more."
    backend = "no backend yet" if session.backend is None else session.backend
    context = tokens(session.context_tokens) if session.context_tokens else "not known yet"
    return f"{said} Turns that finished: {session.turns}. Context: {context}; backend: {backend}."


def told(entry: Entry, now: float, offset_s: float) -> dict[str, Any]:
    return {
        "at": datetime.fromtimestamp(entry.at_s + offset_s, UTC).isoformat(timespec="milliseconds"),
        "ago_s": round(max(0.0, now - entry.at_s), 3),
        "kind": kind_of(entry),
        "words": sentence(entry),
        "details": _plain(entry.what),
        "numbers": {} if entry.numbers is None else _known(asdict(entry.numbers)),
    }


def _plain(what: object) -> dict[str, Any]:
    """An event or a command without what is nobody's business."""
    named = {each.name: getattr(what, each.name) for each in fields(what) if each.name not in LEFT_OUT}  # type: ignore[arg-type]
    return _known(
        {name: asdict(v) if is_dataclass(v) and not isinstance(v, type) else v for name, v in named.items()}
    )


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _value(value) for name, value in values.items() if value is not None}


def _value(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return _known(value)
    return round(value, 4) if isinstance(value, float) else value
