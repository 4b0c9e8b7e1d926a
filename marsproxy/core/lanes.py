"""The waiting turns of each tenant, and the tenants in the order in which they are to be served.

Owns orders only: whose turn it is, and how many come before a turn. What a tag is worth, and when it
changes, is the hold queue's business. Every question is answered from sorted lists: with a key for every
user there may be as many tenants as turns.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from marsproxy.core.commands import Reason
from marsproxy.core.priority import TurnClass

Order = tuple[float, int]
"""A tag or a deadline, and a number between equal ones."""


@dataclass(slots=True)
class HeldTurn:
    turn_id: str
    session_id: str
    turn_class: TurnClass
    arrived_s: float
    deadline_s: float
    """Virtual: the order of the lane. Fixed."""
    tenant: str = ""
    reason: Reason = Reason.BEHIND_OTHERS
    overtaken: int = 0
    number: int = 0
    """Order of arrival, between equal deadlines."""
    usable: frozenset[str] = frozenset()
    """Backends that it may go to. Turns with the same wait for the same."""

    @property
    def key(self) -> Order:
        return self.deadline_s, self.number


@dataclass(slots=True)
class Lane:
    """The waiting turns of one tenant, by deadline."""

    tag: float
    """Service that the tenant has had, over its weight."""
    number: int
    keys: list[Order] = field(default_factory=list)
    turns: list[HeldTurn] = field(default_factory=list)

    @property
    def order(self) -> Order:
        return self.tag, self.number

    def add(self, held: HeldTurn) -> None:
        index = bisect_left(self.keys, held.key)
        self.keys.insert(index, held.key)
        self.turns.insert(index, held)

    def remove(self, held: HeldTurn) -> None:
        index = bisect_left(self.keys, held.key)
        assert self.turns[index] is held
        del self.keys[index], self.turns[index]


class Lanes:
    """The lanes that are not empty, by order."""

    def __init__(self) -> None:
        self._by_tenant: dict[str, Lane] = {}
        self._order: list[tuple[float, int, Lane]] = []
        self._by_length: dict[int, list[Order]] = {}
        """Orders of the lanes that have so many turns; different lengths are few, whatever there is of
        lanes or turns: at most the root of twice the turns."""

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Lane]:
        return (lane for _, _, lane in self._order)

    def get(self, tenant: str) -> Lane | None:
        return self._by_tenant.get(tenant)

    def first(self, most: int) -> list[Lane]:
        return [lane for _, _, lane in self._order[:most]]

    def open(self, tenant: str, tag: float, number: int) -> Lane:
        """A lane for a turn that must be added in the same breath. ``number`` is no other lane's."""
        lane = self._by_tenant[tenant] = Lane(tag, number)
        insort(self._order, (tag, number, lane))
        return lane

    def add(self, lane: Lane, held: HeldTurn) -> None:
        self._unlist(lane)
        lane.add(held)
        self._list(lane)

    def remove(self, lane: Lane, held: HeldTurn) -> None:
        self._unlist(lane)
        lane.remove(held)
        if lane.turns:
            self._list(lane)
        else:
            del self._by_tenant[held.tenant]
            del self._order[bisect_left(self._order, lane.order)]

    def move(self, lane: Lane, tag: float) -> None:
        """Its tenant was served."""
        self._unlist(lane)
        del self._order[bisect_left(self._order, lane.order)]
        lane.tag = tag
        insort(self._order, (*lane.order, lane))
        self._list(lane)

    def ahead_of(self, held: HeldTurn) -> int:
        """Turns that go before it if each of the lanes takes turns with its own."""
        lane = self._by_tenant[held.tenant]
        rounds, order = bisect_left(lane.keys, held.key), lane.order
        ahead = 0
        for length, orders in self._by_length.items():
            if length <= rounds:
                ahead += length * len(orders)
            else:
                ahead += rounds * len(orders) + bisect_left(orders, order)
        return ahead

    def _list(self, lane: Lane) -> None:
        insort(self._by_length.setdefault(len(lane.turns), []), lane.order)

    def _unlist(self, lane: Lane) -> None:
        if not lane.turns:
            return
        orders = self._by_length[len(lane.turns)]
        del orders[bisect_left(orders, lane.order)]
        if not orders:
            del self._by_length[len(lane.turns)]
