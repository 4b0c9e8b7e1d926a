"""The live requests of the engine as turns of sessions: who waits, who is a continuation, who prefills.

Owns one small record for each request from its arrival to the release of its blocks, and sums over those
that wait. It decides nothing.
"""

from dataclasses import dataclass
from itertools import count
from typing import Any

from backend_patch.ending_log import SessionKey
from backend_patch.protocol import TurnClass
from backend_patch.request_meta import RequestMeta
from backend_patch.session_index import SessionRecord


@dataclass(slots=True, eq=False)
class Turn:
    request: Any
    """vLLM's ``Request``."""
    meta: RequestMeta
    record: SessionRecord | None
    """None: of no session."""
    is_continuation: bool
    number: int
    queued_at_s: float
    prompt_tokens: int
    waiting_tokens: int
    """Of its prompt, less what a lease held of its session when it arrived."""
    is_waiting: bool = True
    """Never scheduled yet."""

    @property
    def key(self) -> SessionKey | None:
        return self.record.key if self.record is not None else None


class Turns:
    def __init__(self) -> None:
        self.waiting = 0
        self.waiting_tokens = 0
        self.waiting_prompt_tokens = 0
        """With what leases hold of them."""
        self.waiting_continuations = 0
        self._by_id: dict[str, Turn] = {}
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, request_id: str) -> Turn | None:
        return self._by_id.get(request_id)

    def add(
        self, request: Any, meta: RequestMeta, record: SessionRecord | None, leased_tokens: int, now: float
    ) -> Turn:
        turn = Turn(
            request=request,
            meta=meta,
            record=record,
            is_continuation=_is_continuation(meta, record),
            number=next(self._numbers),
            queued_at_s=now,
            prompt_tokens=request.num_tokens,
            waiting_tokens=max(0, request.num_tokens - leased_tokens),
        )
        self._by_id[request.request_id] = turn
        self._count(turn, 1)
        return turn

    def started(self, turn: Turn) -> None:
        """Scheduled for the first time, or gone without that."""
        if turn.is_waiting:
            turn.is_waiting = False
            self._count(turn, -1)

    def pop(self, request_id: str) -> Turn | None:
        return self._by_id.pop(request_id, None)

    def waiting_of(self, keys: set[SessionKey]) -> set[Any]:
        """Requests of these sessions that wait. Looks at all."""
        return {turn.request for turn in self._by_id.values() if turn.is_waiting and turn.key in keys}

    def clear(self) -> None:
        self._by_id.clear()
        self.waiting = self.waiting_tokens = self.waiting_prompt_tokens = self.waiting_continuations = 0

    def _count(self, turn: Turn, sign: int) -> None:
        self.waiting += sign
        self.waiting_tokens += sign * turn.waiting_tokens
        self.waiting_prompt_tokens += sign * turn.prompt_tokens
        self.waiting_continuations += sign * turn.is_continuation


def _is_continuation(meta: RequestMeta, record: SessionRecord | None) -> bool:
    if meta.turn_class is not None:
        return meta.turn_class is TurnClass.CONTINUATION
    return record is not None and record.turns > 0
