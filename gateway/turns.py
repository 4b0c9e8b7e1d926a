"""Whose turn it is: tenants take turns, and within a tenant its sessions do, by weight.

Owns an order of what waits; it must not know what is waited for, nor clocks.

Theory of operation. Self-clocked fair queueing, twice. A party that comes to wait is tagged with the tag of
the party that was served last plus its own *stride*; the smallest tag is next, the earlier arrival where two
are equal. A party that was served and has more to do comes to wait again, behind its own new tag. So equal
strides are a ring, half a stride is twice the turns, and nothing need be remembered of a party that has
nothing waiting: by the time it is back, the clock stands where it was served.

Bound. With tag T a party waits only for tags below T, and every turn that others take moves the clock up by
at least one of their strides. So it waits for at most its own stride over theirs, plus one, of turns of each
other party: 17 at the extremes of ``PRIORITIES``, one at equal priority. A tenant's sessions, however many,
wait within the tenant's own turns.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

Session = tuple[Hashable, Hashable]
"""Tenant, and the session's name within it."""

PRIORITIES = (-10, 10)
_STRIDE = 1 << 10
_PRIORITY_OF_TWICE = 5
"""Of two sessions whose priorities are so far apart one has twice the turns: a factor of four from 0 to
either end, enough to notice, and no session stands still."""


def stride(priority: int) -> int:
    """An integer, as sums of floats would drift."""
    low, high = PRIORITIES
    return round(_STRIDE * float(2.0 ** (-min(high, max(low, priority)) / _PRIORITY_OF_TWICE)))


@dataclass(frozen=True, slots=True)
class Waiting:
    id: str
    session: Session
    priority: int = 0


class _Order:
    """Parties by tag."""

    __slots__ = ("_clock", "_entries", "_number", "_tags")

    def __init__(self) -> None:
        self._clock = 0
        self._number = 0
        self._tags: dict[Hashable, tuple[int, int]] = {}
        self._entries: list[tuple[int, int, Hashable]] = []

    def __iter__(self) -> Iterator[Hashable]:
        return (party for _, _, party in self._entries)

    def enter(self, party: Hashable, party_stride: int) -> None:
        tag = (self._clock + party_stride, self._number)
        self._number += 1
        self._tags[party] = tag
        insort(self._entries, (*tag, party))

    def leave(self, party: Hashable) -> None:
        del self._entries[bisect_left(self._entries, self._tags.pop(party), key=lambda entry: entry[:2])]

    def serve(self, party: Hashable) -> None:
        """Its turn is over: it leaves. One that was let past others does not turn the clock back later."""
        self._clock = max(self._clock, self._tags[party][0])
        self.leave(party)

    def foresee(self, lines: Mapping[Hashable, Sequence[tuple[int, str]]]) -> list[str]:
        """What is served in which order if nothing else comes, of lines of strides and ids."""
        entries, clock, number = self._entries.copy(), self._clock, self._number
        served = dict.fromkeys(lines, 0)
        order = []
        while entries:
            tag, _, party = heappop(entries)
            line, place = lines[party], served[party]
            order.append(line[place][1])
            clock, served[party] = max(clock, tag), place + 1
            if place + 1 < len(line):
                heappush(entries, (clock + line[place + 1][0], number, party))
                number += 1
        return order


@dataclass(slots=True)
class _Tenant:
    order: _Order = field(default_factory=_Order)
    queues: dict[Hashable, deque[Waiting]] = field(default_factory=dict)
    count: int = 0

    def foresee(self) -> list[str]:
        lines = {
            session: [(stride(waiting.priority), waiting.id) for waiting in queue]
            for session, queue in self.queues.items()
        }
        return self.order.foresee(lines)


class Turns:
    """What waits, by tenant and session."""

    def __init__(self) -> None:
        self._order = _Order()
        self._tenants: dict[Hashable, _Tenant] = {}
        self._waiting: dict[str, Waiting] = {}
        self._ranks: dict[str, int] | None = None
        """Computed when asked for, until something changes."""

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, waiting_id: object) -> bool:
        return waiting_id in self._waiting

    @property
    def tenants(self) -> int:
        return len(self._tenants)

    def count(self, tenant: Hashable) -> int:
        return self._tenants[tenant].count if tenant in self._tenants else 0

    def add(self, waiting: Waiting) -> None:
        name, session = waiting.session
        if (tenant := self._tenants.get(name)) is None:
            tenant = self._tenants[name] = _Tenant()
            self._order.enter(name, _STRIDE)
        if session not in tenant.queues:
            tenant.queues[session] = deque()
            tenant.order.enter(session, stride(waiting.priority))
        tenant.queues[session].append(waiting)
        tenant.count += 1
        self._waiting[waiting.id] = waiting
        self._ranks = None

    def heads(self) -> Iterator[str]:
        """The oldest of each session, first that whose turn it is. Behind it, those of the same tenant,
        then those of the next tenant."""
        for name in self._order:
            tenant = self._tenants[name]
            yield from (tenant.queues[session][0].id for session in tenant.order)

    def serve(self, waiting_id: str) -> None:
        """It goes, and its session and tenant have had their turn."""
        waiting = self._take(waiting_id)
        name, session = waiting.session
        tenant = self._tenants[name]
        tenant.order.serve(session)
        self._order.serve(name)
        self._reenter_session(tenant, session)
        if tenant.count:
            self._order.enter(name, _STRIDE)
        else:
            del self._tenants[name]

    def remove(self, waiting_id: str) -> None:
        """It gave up; the others keep their places."""
        name, session = self._take(waiting_id).session
        tenant = self._tenants[name]
        if not tenant.queues[session]:
            tenant.order.leave(session)
            del tenant.queues[session]
        if not tenant.count:
            self._order.leave(name)
            del self._tenants[name]

    def rank(self, waiting_id: str) -> int:
        """How many go before it if nothing else comes and everything fits."""
        if self._ranks is None:
            lines = {name: [(_STRIDE, w) for w in tenant.foresee()] for name, tenant in self._tenants.items()}
            self._ranks = {w: rank for rank, w in enumerate(self._order.foresee(lines))}
        return self._ranks[waiting_id]

    def _take(self, waiting_id: str) -> Waiting:
        waiting = self._waiting.pop(waiting_id)
        tenant = self._tenants[waiting.session[0]]
        tenant.queues[waiting.session[1]].remove(waiting)
        tenant.count -= 1
        self._ranks = None
        return waiting

    def _reenter_session(self, tenant: _Tenant, session: Hashable) -> None:
        if queue := tenant.queues[session]:
            tenant.order.enter(session, stride(queue[0].priority))
        else:
            del tenant.queues[session]
