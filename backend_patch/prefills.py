"""Requests that run and have not read all of their prompt: how much they read in a step, and their order.

Owns the set of them, so that a step with none, or few among hundreds that decode, costs accordingly.
"""

from typing import Any, Protocol

from backend_patch.order import PrefillKey, prefill_key
from backend_patch.turns import Turns


class Scheduler(Protocol):
    """Of vLLM's."""

    running: list[Any]

    @property
    def requests(self) -> dict[str, Any]: ...


class Prefills:
    def __init__(self, scheduler: Scheduler, turns: Turns) -> None:
        self._scheduler = scheduler
        self._turns = turns
        self._requests: set[Any] = set()

    def __bool__(self) -> bool:
        return bool(self._requests)

    def discard(self, request: Any) -> None:
        self._requests.discard(request)

    def clear(self) -> None:
        self._requests.clear()

    def count(self, started: list[str], scheduled: dict[str, int]) -> int:
        """Tokens of this step that are prefill; from then on those who have more to read are known."""
        requests = self._scheduler.requests
        self._requests.update([requests[name] for name in started if name in requests])
        tokens = sum([scheduled.get(request.request_id, 0) for request in self._requests])
        self._requests = {request for request in self._requests if request.is_prefill_chunk}
        return tokens

    def sort_running(self) -> None:
        """Decodes first. Those who prefill are at the end already, unless one was let in behind them."""
        running, prefilling = self._scheduler.running, self._requests
        count = len(prefilling)
        tail = running[-count:]
        if prefilling.issuperset(tail):
            if count > 1:
                running[-count:] = sorted(tail, key=self._key)
            return
        late = sorted([each for each in running if each in prefilling], key=self._key)
        running[:] = [each for each in running if each not in prefilling] + late

    def _key(self, request: Any) -> PrefillKey:
        turn = self._turns.get(request.request_id)
        return prefill_key(
            priority=request.priority,
            is_continuation=turn is not None and turn.is_continuation,
            remaining_tokens=request.num_tokens - request.num_computed_tokens,
        )
