"""Who waits, and who may go next. Knows deadlines and tenants; knows nothing of turns already running.

Theory of operation. Every tenant with waiting turns has a lane, in order of virtual deadline: a time
that is fixed when the turn begins to wait, so that waiting alone moves it to the front. Between lanes
the order is that of service received, by weight: a lane's tag is the service that its tenant has had
so far (start-time fair queueing, Goyal, Vin and Cheng, SIGCOMM 1996), and a tenant that comes back from
having nothing to wait for begins at the tag of the last that was served, neither with credit saved up
nor in debt. With one tenant, as without API keys, all of this is one sorted list.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile

from marsproxy.core.lanes import HeldTurn, Lanes

MAX_SERVED_TENANTS = 10_000
"""Tenants whose service is remembered while they have nothing waiting."""


def footprint(context_tokens: float, expected_peak: float, beta: float) -> float:
    """Tokens to reserve for a session: its context and part of the growth still to come.

    ``footprint = context + beta * max(0, peak - context)``. The context alone would admit until the
    pool collapses: sessions start at a few per cent of what they grow to.
    """
    return context_tokens + beta * max(0.0, expected_peak - context_tokens)


@dataclass(frozen=True, slots=True)
class Window:
    """Turns to try, in order."""

    turns: list[HeldTurn]
    barred: frozenset[str]
    """Backends that are somebody else's first."""


class HoldQueue:
    """The turns that wait.

    Args:
        weights: share of each tenant against the others, above 0; 1 for those not named.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = weights or {}
        self._by_turn: OrderedDict[str, HeldTurn] = OrderedDict()
        """In order of arrival."""
        self._lanes = Lanes()
        self._served: OrderedDict[str, float] = OrderedDict()
        """Tags of tenants that have nothing waiting, the longest quiet first."""
        self._tag_now = 0.0
        """Tag of the lane that was served last."""
        self._arrivals = 0
        self._by_usable: dict[frozenset[str], int] = {}
        """How many wait for each set of backends."""

    def reweigh(self, weights: Mapping[str, float]) -> None:
        """Shares of all that is given from now on."""
        self._weights = weights

    def __len__(self) -> int:
        return len(self._by_turn)

    def __iter__(self) -> Iterator[HeldTurn]:
        """Lane by lane, in the order in which the lanes would be served now."""
        for lane in self._lanes:
            yield from lane.turns

    def __contains__(self, turn_id: object) -> bool:
        return turn_id in self._by_turn

    def add(self, held: HeldTurn) -> None:
        self._arrivals += 1
        held.number = self._arrivals
        latest = next(reversed(self._by_turn.values()), None)
        self._by_turn[held.turn_id] = held
        self._by_usable[held.usable] = self._by_usable.get(held.usable, 0) + 1
        if latest is not None and held.arrived_s < latest.arrived_s:  # it had gone, and is back
            self._by_turn = OrderedDict(sorted(self._by_turn.items(), key=lambda item: item[1].arrived_s))
        if (lane := self._lanes.get(held.tenant)) is None:
            tag = max(self._served.pop(held.tenant, 0.0), self._tag_now)
            lane = self._lanes.open(held.tenant, tag, held.number)
        self._lanes.add(lane, held)

    def remove(self, turn_id: str) -> HeldTurn | None:
        if (held := self._by_turn.pop(turn_id, None)) is None:
            return None
        self._by_usable[held.usable] -= 1
        if not self._by_usable[held.usable]:
            del self._by_usable[held.usable]
        lane = self._lanes.get(held.tenant)
        assert lane is not None, "a turn that waits is in its tenant's lane"
        self._lanes.remove(lane, held)
        if not lane.turns:
            self._remember(held.tenant, lane.tag)
        return held

    def serve(self, tenant: str, amount: float) -> None:
        """The tenant was given so much of what everybody waits for."""
        share = amount / self._weights.get(tenant, 1.0)
        if (lane := self._lanes.get(tenant)) is not None:
            self._tag_now = max(self._tag_now, lane.tag)
            self._lanes.move(lane, lane.tag + share)
        else:
            self._remember(tenant, max(self._served.get(tenant, 0.0), self._tag_now) + share)

    def position(self, held: HeldTurn) -> int:
        """1 is next. Turns of other tenants count as if each of their lanes took turns with this one."""
        return self._lanes.ahead_of(held) + 1

    def windows(self, look_ahead: int, max_overtakes: int) -> list[Window]:
        """The turns to try: the head, and a few behind it unless it was passed too often. For each set of
        backends that turns wait for on its own: a model that has no room is in nobody's way whose model has.
        But where the head of a set was passed too often, no other set may go to its backends."""
        if not self.is_split:
            turns = [self._first(look_ahead)] if self._by_turn else []
        else:
            turns = self._first_of_each(look_ahead)
        windows: list[Window] = []
        barred: frozenset[str] = frozenset()
        for window in turns:
            head = window[0]
            if head.usable and head.usable <= barred:
                continue
            is_last = head.overtaken >= max_overtakes
            windows.append(Window(window[:1] if is_last else window, barred))
            if is_last:
                barred |= head.usable
        return windows

    @property
    def is_split(self) -> bool:
        """Whether some wait for other backends than others."""
        return len(self._by_usable) > 1

    def _first(self, look_ahead: int) -> list[HeldTurn]:
        window: list[HeldTurn] = []
        room = 1 + look_ahead
        for lane in self._lanes.first(room):
            window += lane.turns[: max(1, room)]
            room -= len(lane.turns)
        return window

    def _first_of_each(self, look_ahead: int) -> list[list[HeldTurn]]:
        """By the order of their heads."""
        windows: dict[frozenset[str], list[HeldTurn]] = {}
        for held in self:
            window = windows.setdefault(held.usable, [])
            if len(window) <= look_ahead:
                window.append(held)
        return list(windows.values())

    def regroup(self, usable: Callable[[str], frozenset[str]]) -> None:
        """The backends are others now. ``usable`` says for a turn which it may go to."""
        self._by_usable.clear()
        for held in self._by_turn.values():
            held.usable = usable(held.turn_id)
            self._by_usable[held.usable] = self._by_usable.get(held.usable, 0) + 1

    def overtake(self, passer: HeldTurn, passed: list[HeldTurn]) -> None:
        """``passer`` is going although ``passed`` were before it."""
        for held in passed:
            if held is not passer:
                held.overtaken += 1

    def held_too_long(self, max_hold_s: float, now: float) -> list[HeldTurn]:
        """Summed as for the timer that asks: a difference could be off by a rounding, and never be due."""
        return list(takewhile(lambda held: held.arrived_s + max_hold_s <= now, self._by_turn.values()))

    def longest_waiting_s(self) -> float | None:
        """When the turn that has waited longest arrived."""
        first = next(iter(self._by_turn.values()), None)
        return None if first is None else first.arrived_s

    def _remember(self, tenant: str, tag: float) -> None:
        if tag <= self._tag_now:
            self._served.pop(tenant, None)
            return
        self._served[tenant] = tag
        self._served.move_to_end(tenant)
        if len(self._served) > MAX_SERVED_TENANTS:
            self._served.popitem(last=False)
