"""The one order of records that all replicas apply, as a replica sees it.

``MemoryJournal`` is that of a process by itself: a record is applied in the call that appends it. With a
store (``marsproxy.store``) records go there and come back in the order of all replicas.

What every journal keeps to, and a conformance suite holds: records come in one order, the same for all
members, with times that never go back; each member's own come in the order in which it appended them,
each at most once; a member that was given up gets none of its records applied, and learns of it.
"""

import time
from collections.abc import Callable
from typing import Protocol

from marsproxy.core.shared_state import Happening, MemberJoined, SharedState


class Replica(Protocol):
    """What a journal drives: the dispatcher."""

    @property
    def state(self) -> SharedState:
        """As of the latest record applied."""

    def applied(self, happening: Happening, member: str, now: float) -> None:
        """A record has its place in the order: what happened, the member that told it, and when (seconds on
        the journal's clock)."""

    def adopt(self, state: SharedState, now: float) -> None:
        """Go on from the state that the others have. The turns whose connections are here are not in it, or
        under a member id that is gone: they are told anew."""


class Journal(Protocol):
    @property
    def member(self) -> str:
        """This replica's id. Another one after it was given up and has joined anew."""

    @property
    def leads(self) -> bool:
        """Whether this replica is the one to tell what any of them could: telemetry, timers. Advice: for a
        moment there may be two or none."""

    def now(self) -> float:
        """The time that a record appended now would get, about. Seconds; no two journals share a clock."""

    def append(self, happening: Happening) -> None:
        """Tell it; it is applied here as everywhere, now or soon. Never waits, and loses nothing while the
        process lives: without its store a replica applies by itself."""

    async def settle(self) -> None:
        """Wait until all that was appended has its place in the order: whoever appends after this comes
        after it. Bounded; whoever waits must not rely on it when the store is gone."""


class MemoryJournal:
    """Its one member joins with the first record.

    Args:
        replica: is given every record, at once.
    """

    def __init__(
        self, replica: Replica, *, member: str = "only", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._replica = replica
        self._clock = clock
        self.member = member
        self.leads = True
        self._has_joined = False

    def now(self) -> float:
        return self._clock()

    def append(self, happening: Happening) -> None:
        now = self._clock()
        if not self._has_joined:
            self._has_joined = True
            self._replica.applied(MemberJoined(self.member), self.member, now)
        self._replica.applied(happening, self.member, now)

    async def settle(self) -> None:
        """There is nothing to wait for."""
