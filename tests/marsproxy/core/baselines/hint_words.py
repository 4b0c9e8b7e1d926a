"""Words for hints and changes of priority, beside those of the playbook."""

from marsproxy.core.commands import HintKv, KvAction, Reprioritise, YieldsTo
from marsproxy.core.events import (
    Ending,
    HintAnswered,
    KvReclaimed,
    TurnEnded,
    TurnFirstToken,
    TurnProgressed,
)


def pins(session_id: str, ttl_s: float | None, backend: str = "gpu") -> HintKv:
    return HintKv(session_id, backend, KvAction.KEEP, ttl_s, YieldsTo.NOBODY)


def releases(session_id: str, backend: str = "gpu") -> HintKv:
    return HintKv(session_id, backend, KvAction.RELEASE)


def swaps_out(session_id: str, backend: str = "gpu") -> HintKv:
    return HintKv(session_id, backend, KvAction.SWAP_OUT)


def moves(turn_id: str, priority: int) -> Reprioritise:
    return Reprioritise(turn_id, priority)


def starts(turn_id: str) -> TurnFirstToken:
    return TurnFirstToken(turn_id)


def has_generated(turn_id: str, tokens: int) -> TurnProgressed:
    return TurnProgressed(turn_id, tokens)


def reclaimed(session_id: str, backend: str = "gpu") -> KvReclaimed:
    return KvReclaimed(session_id, backend, tokens=1_000)


def refused_hint(session_id: str, backend: str = "gpu") -> HintAnswered:
    return HintAnswered(session_id, backend, kept_tokens=0)


def finishes(
    turn_id: str, prompt: int, *, cached: int = 0, completion: int = 0, tool: str | None = "bash"
) -> TurnEnded:
    """With usage as the engine reports it; ``tool`` of None is an answer in plain text."""
    calls = 0 if tool is None else 1
    return TurnEnded(turn_id, Ending.FINISHED, prompt, cached, completion, calls, tool)
