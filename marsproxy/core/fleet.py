"""The backends: which there are, what each serves, and which of them has most room.

Owns their states and an order of them that is kept as promises change: asking sixty-four backends anew
for each turn that is tried would be most of what a decision costs. Must not know sessions' sizes.

A backend that is gone is kept, outside of the order, for as long as a session is counted on it: until the
turns that were in flight there have ended.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from marsproxy.core.commands import Reason
from marsproxy.core.events import BackendObserved, BackendSpec
from marsproxy.core.headroom import BackendState
from marsproxy.core.shares import Shares

Load = tuple[bool, float, int]
"""Share of the pool that is promised, or is others' to promise, after False. Where that is unknown, the
sessions counted: behind any with room; and True where nobody answers. Then the place in the list of
backends."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a turn asks of the backend that it goes to."""

    model: str | None = None
    """One that it serves; None for no matter which."""
    not_on: frozenset[str] = frozenset()
    """Backends that have failed this very turn, or are others' first."""

    def but_for(self, names: frozenset[str]) -> "Wanted":
        return Wanted(self.model, self.not_on | names) if names else self


def nowhere(wanted: Wanted) -> Reason:
    """Why no backend is left for a turn."""
    return Reason.BACKEND_LOST if wanted.not_on else Reason.NO_BACKEND


class Fleet:
    """
    Args:
        stale_s: age from which a reading is not believed.
    """

    def __init__(self, names: Sequence[str], stale_s: float) -> None:
        self.states: dict[str, BackendState] = {}
        self.shares = Shares()
        self.largest_pool_tokens: int | None = None
        self.pool_sizes = 0
        """How many different ones are known."""
        self._stale_s = stale_s
        self._by_index: list[BackendState] = []
        self._index: dict[str, int] = {}
        self._serving: dict[str, frozenset[str]] = {}
        """Backends by the models that any of them names."""
        self._serving_others: frozenset[str] = frozenset()
        """Those to which a model goes that nobody names."""
        self._loads: list[Load] = []
        self._order: list[Load] = []
        self._changed: dict[str, None] = {}
        self._fresh: OrderedDict[str, BackendState] = OrderedDict()
        """By age of their readings, the oldest first."""
        self._aged_s = -inf
        """When they were last looked through for stale ones."""
        self.change([BackendSpec(name) for name in names])

    # -- which there are --------------------------------------------------------------------------

    def change(self, specs: Sequence[BackendSpec]) -> frozenset[str]:
        """These from now on. The names of those that are gone."""
        before = self.states
        states = {spec.name: _updated(before.get(spec.name), spec) for spec in specs}
        gone = frozenset(name for name in before if name not in states)
        for name in before:
            if name in gone:
                states[name] = before[name]
                before[name].leave()
                self._fresh.pop(name, None)
        before.clear()
        before.update(states)  # the table itself is in others' hands
        self._by_index = [state for state in self.states.values() if not state.has_left]
        self._index = {state.name: index for index, state in enumerate(self._by_index)}
        self._loads = [(False, 0.0, index) for index in range(len(self._by_index))]
        self._order = self._loads.copy()
        self._changed = dict.fromkeys(self._index)
        self._serving = _by_model(specs)
        self._serving_others = frozenset(s.name for s in specs if s.models is None) or frozenset(self._index)
        self._measure_pools()
        return gone

    def drop(self, backend: BackendState) -> None:
        """Nothing is left of one that is gone."""
        assert backend.has_left, "only a backend that is gone is dropped"
        del self.states[backend.name]

    def serving(self, model: str | None) -> frozenset[str]:
        """Where such a turn may go. A model that nobody names may go anywhere: it is the backend's to refuse
        it, in its own words."""
        return self._serving.get(model, self._serving_others) if model is not None else frozenset(self._index)

    def serves(self, name: str, model: str | None) -> bool:
        if model is None:
            return name in self._index
        return name in self._serving.get(model, self._serving_others)

    def may_take(self, backend: BackendState, wanted: Wanted) -> bool:
        """Whether such a turn may go there at all, be there room or not."""
        return backend.name not in wanted.not_on and self.serves(backend.name, wanted.model)

    # -- what happens to them ---------------------------------------------------------------------

    def changed(self, backend: BackendState) -> None:
        """Something was promised or given back."""
        if not backend.has_left:
            self._changed[backend.name] = None

    def observe(self, event: BackendObserved, now: float) -> None:
        """Of one that is there."""
        backend = self.states[event.backend]
        before = backend.kv_tokens_total
        backend.observe(event, now)
        if backend.kv_tokens_total != before:
            self._measure_pools()
        self._fresh[backend.name] = backend
        self._fresh.move_to_end(backend.name)
        self.changed(backend)

    def lost(self, name: str) -> None:
        """It did not answer. Fine if it is not one of these."""
        if name in self._index:
            backend = self.states[name]
            backend.is_reachable = False
            self.changed(backend)

    # -- which of them ----------------------------------------------------------------------------

    def roomiest_first(self, wanted: Wanted, now: float) -> Iterator[BackendState]:
        """Those that take new sessions of the kind, by the share that is promised. One that cannot be reached
        only if none can: what is sent there fails by itself. Nothing may change while this is asked."""
        self._refresh(now)
        has_reachable = False
        for _, _, index in self._order:
            backend = self._by_index[index]
            if backend.is_draining or not self.may_take(backend, wanted):
                continue
            if not backend.is_reachable and (has_reachable or wanted.not_on):
                return
            has_reachable |= backend.is_reachable
            yield backend

    def has_another(self, wanted: Wanted, now: float) -> bool:
        """Whether any takes new sessions of the kind."""
        return next(self.roomiest_first(wanted, now), None) is not None

    def fewest_counted(self, wanted: Wanted) -> BackendState | None:
        """For what takes no budget; rather one that drains than none."""
        usable = [backend for backend in self._by_index if self.may_take(backend, wanted)]
        if wanted.not_on:
            usable = [backend for backend in usable if backend.is_reachable]
        return min(usable, key=lambda b: (not b.is_reachable, b.is_draining, len(b.counted)), default=None)

    def known_pool(self, backend: BackendState, now: float) -> int | None:
        """Its size in tokens; None while telemetry is missing or stale."""
        return backend.known_pool_tokens(now, self._stale_s)

    # -- the order --------------------------------------------------------------------------------

    def _refresh(self, now: float) -> None:
        if now != self._aged_s:
            self._age(now)
        if self._changed:
            for name in self._changed:
                self._place(name, now)
            self._changed.clear()

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
            others = 1 - self.shares.tokens(backend.name)
            return (False, backend.reserved_tokens / pool + others, index)
        return (not backend.is_reachable, float(len(backend.counted)), index)

    def _measure_pools(self) -> None:
        pools = {backend.kv_tokens_total for backend in self._by_index} - {None}
        self.largest_pool_tokens = max((pool for pool in pools if pool is not None), default=None)
        self.pool_sizes = len(pools)


def _updated(state: BackendState | None, spec: BackendSpec) -> BackendState:
    if state is None:
        state = BackendState(spec.name)
    if state.has_left:
        state.has_left, state.is_reachable = False, True
    state.models = None if spec.models is None else frozenset(spec.models)
    state.is_draining = spec.is_draining
    return state


def _by_model(specs: Sequence[BackendSpec]) -> dict[str, frozenset[str]]:
    any_model = {spec.name for spec in specs if spec.models is None}
    names: dict[str, set[str]] = {}
    for spec in specs:
        for model in spec.models or ():
            names.setdefault(model, set(any_model)).add(spec.name)
    return {model: frozenset(serving) for model, serving in names.items()}
