"""The engine's answers to what is asked of it between two steps.

Owns the decoding and encoding; JSON texts both ways, since the engine's own transport limits its types.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from backend_patch.protocol import (
    MAX_BATCH,
    Capabilities,
    HeadroomQuery,
    KvAnswer,
    KvRequest,
    RankHeadroom,
    Rpc,
    SessionsQuery,
    SessionState,
)


class Answers(Protocol):
    """Of ``hooks.Hooks``."""

    def apply(self, batch: list[KvRequest]) -> list[KvAnswer]: ...

    def states(self, query: SessionsQuery) -> list[SessionState]: ...

    def headroom(self, after: int) -> RankHeadroom: ...

    def publish(self) -> None: ...


def answer(engine: Answers, capabilities: Callable[[], Capabilities], op: str, body: str) -> str:
    """
    Raises:
        ValueError: the operation or its body is not understood; the caller gets the sentence.
    """
    text = body or "{}"
    match op:
        case Rpc.KV:
            result: object = _apply(engine, text)
        case Rpc.SESSIONS:
            result = engine.states(msgspec.json.decode(text, type=SessionsQuery))
            engine.publish()  # what time has ended
        case Rpc.HEADROOM:
            result = engine.headroom(msgspec.json.decode(text, type=HeadroomQuery).after)
        case Rpc.CAPABILITIES:
            result = capabilities()
        case _:
            raise ValueError(f"operation {op!r} is not known; allowed: {', '.join(Rpc)}")
    return msgspec.json.encode(result).decode()


def _apply(engine: Answers, text: str) -> list[KvAnswer]:
    batch = msgspec.json.decode(text, type=list[KvRequest])
    if len(batch) > MAX_BATCH:
        raise ValueError(f"a batch of {len(batch)} operations; at most {MAX_BATCH} are allowed")
    answers = engine.apply(batch)
    engine.publish()
    return answers
