"""The numbers of one backend as a decision had them, at the price of a look-up.

What may be promised moves slowly, but asking a policy for it asks about all backends; so it is asked once
in a while. What is promised is a sum that the backend's state has at hand.
"""

from collections.abc import Mapping
from math import inf

from marsproxy.core.events import BackendObserved
from marsproxy.core.scheduling import SchedulingPolicy
from marsproxy.live.story import Numbers

BUDGETS_KEPT_S = 1.0
"""Budgets change with readings and corrections, by some per cent in half a minute."""


class Sums:
    def __init__(self) -> None:
        self._budgets: dict[str, float] = {}
        self._asked_s = -inf

    def roomiest(self, policy: SchedulingPolicy, now: float) -> str | None:
        """The backend that has most left to promise: where a session that has none would have gone."""
        self._refresh(policy, now)
        left = {
            name: budget - policy.backends[name].reserved_tokens
            for name, budget in self._budgets.items()
            if name in policy.backends
        }
        return max(left, key=left.__getitem__, default=None)

    def _refresh(self, policy: SchedulingPolicy, now: float) -> None:
        if not 0 <= now - self._asked_s <= BUDGETS_KEPT_S:
            self._budgets, self._asked_s = policy.budget_tokens(now), now

    def of(
        self,
        policy: SchedulingPolicy,
        backend: str | None,
        readings: Mapping[str, BackendObserved],
        now: float,
        needed_tokens: float | None = None,
        waited_s: float | None = None,
    ) -> Numbers:
        state = None if backend is None else policy.backends.get(backend)
        if backend is None or state is None:
            return Numbers(needed_tokens=needed_tokens, waited_s=waited_s)
        self._refresh(policy, now)
        budget, reading = self._budgets.get(backend), readings.get(backend)
        return Numbers(
            backend,
            state.kv_tokens_total,
            budget,
            None if budget is None else max(0.0, state.reserved_tokens),
            None if reading is None else reading.kv_leased_tokens,
            needed_tokens,
            waited_s,
        )
