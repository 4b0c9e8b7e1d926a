"""The backends, and which of them has most room.

Owns their states and an order of them that is kept as promises change: asking sixty-four backends anew
for each turn that is tried would be most of what a decision costs. Must not know sessions' sizes.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Sequence
from math import inf

from marsproxy.core.events import BackendObserved
from marsproxy.core.headroom import BackendState

Load = tuple[bool, float, int]
"""Share of the pool that is promised, after False. Where that is unknown, the sessions counted: behind any
with room; and True where nobody answers. Then the place in the list of backends."""


class Fleet:
    """
    Args:
        stale_s: age from which a reading is not believed.
    """

    def __init__(self, names: Sequence[str], stale_s: float) -> None:
        self.states = {name: BackendState(name) for name in names}
        self.largest_pool_tokens: int | None = None
        self._stale_s = stale_s
        self._by_index = list(self.states.values())
        self._index = {name: index for index, name in enumerate(self.states)}
        self._loads: list[Load] = [(False, 0.0, index) for index in range(len(self._by_index))]
        self._order = self._loads.copy()
        self._changed: dict[str, None] = {}
        self._fresh: OrderedDict[str, BackendState] = OrderedDict()
        """By age of their readings, the oldest first."""
        self._aged_s = -inf
        """When they were last looked through for stale ones."""

    def changed(self, backend: BackendState) -> None:
        """Something was promised or given back."""
        self._changed[backend.name] = None

    def observe(self, event: BackendObserved, now: float) -> None:
        backend = self.states[event.backend]
        before = backend.kv_tokens_total
        backend.observe(event, now)
        if backend.kv_tokens_total != before:
            pools = (each.kv_tokens_total for each in self._by_index)
            self.largest_pool_tokens = max((pool for pool in pools if pool is not None), default=None)
        self._fresh[backend.name] = backend
        self._fresh.move_to_end(backend.name)
        self.changed(backend)

    def lost(self, name: str) -> None:
        """It did not answer."""
        backend = self.states[name]
        backend.is_reachable = False
        self.changed(backend)

    def roomiest(self, now: float) -> BackendState:
        if now != self._aged_s:
            self._age(now)
        if self._changed:
            for name in self._changed:
                self._place(name, now)
            self._changed.clear()
        return self._by_index[self._order[0][2]]

    def known_pool(self, backend: BackendState, now: float) -> int | None:
        """Its size in tokens; None while telemetry is missing or stale."""
        return backend.known_pool_tokens(now, self._stale_s)

    def _age(self, now: float) -> None:
        """Time alone makes a reading stale."""
        self._aged_s = now
        while self._fresh:
            name, backend = next(iter(self._fresh.items()))
            if backend.is_fresh(now, self._stale_s):
                return
            del self._fresh[name]
            self.changed(backend)

    def _place(self, name: str, now: float) -> None:
        index = self._index[name]
        load = self._load(self._by_index[index], index, now)
        if load != self._loads[index]:
            del self._order[bisect_left(self._order, self._loads[index])]
            insort(self._order, load)
            self._loads[index] = load

    def _load(self, backend: BackendState, index: int, now: float) -> Load:
        pool = self.known_pool(backend, now)
        if pool is not None:
            return (False, backend.reserved_tokens / pool, index)
        return (not backend.is_reachable, float(len(backend.counted)), index)
