"""What was appended here and has no place in the order yet.

Owns the queue, and who waits for its end. It knows neither store nor replica.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from marsproxy.core.events import TurnFirstToken, TurnProgressed
from marsproxy.core.shared_state import Happening

RIDE_S = 0.25
"""How long news of a turn in flight waits for something else to go with: it decides nothing, and alone would
be a third of all that is sent."""
BATCH = 256
"""Happenings in one entry of the log."""
_RIDERS = (TurnFirstToken, TurnProgressed)


class Outbox:
    def __init__(self) -> None:
        self._waiting: deque[Happening] = deque()
        self._sent: list[Happening] = []
        self._taken_in = 0
        """Happenings ever, and of those the ones that have their place."""
        self._placed = 0
        self._settling: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._is_due = asyncio.Event()
        self._ride: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent)

    def put(self, happening: Happening) -> None:
        self._waiting.append(happening)
        self._taken_in += 1
        if not isinstance(happening, _RIDERS):
            self._is_due.set()
        elif self._ride is None and not self._is_due.is_set():
            self._ride = asyncio.get_running_loop().call_later(RIDE_S, self._is_due.set)

    async def batch(self) -> list[Happening]:
        """What goes next, when it is due. It stays here until ``placed``."""
        assert not self._sent, "one batch at a time"
        await self._is_due.wait()
        self._sent = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        if not self._waiting:
            self._rest()
        return self._sent

    def placed(self) -> None:
        """The batch has its place in the order."""
        self._placed += len(self._sent)
        self._sent = []
        self._wake()

    def take_back(self) -> None:
        """The batch was not taken; it goes again, first of all."""
        self._waiting.extendleft(reversed(self._sent))
        self._sent = []
        if self._waiting:
            self._is_due.set()

    def put_first(self, put: Callable[[], None]) -> None:
        """What ``put`` puts goes before all that waits."""
        waiting, self._waiting = self._waiting, deque()
        put()
        self._waiting.extend(waiting)
        if self._waiting:
            self._is_due.set()

    def drain(self) -> Iterable[Happening]:
        """Everything, the batch first: it is placed by whoever takes it."""
        self.take_back()
        while self._waiting:
            yield self._waiting.popleft()
            self._placed += 1
        self._rest()
        self._wake()

    async def settle(self, timeout_s: float) -> bool:
        """Wait until all that is in here now has its place. False if it took too long."""
        if self._placed == self._taken_in:
            return True
        self._is_due.set()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settling.append((self._taken_in, waiter))
        done, _ = await asyncio.wait([waiter], timeout=timeout_s)
        return bool(done)

    def _wake(self) -> None:
        while self._settling and (self._settling[0][0] <= self._placed or self._settling[0][1].done()):
            _, waiter = self._settling.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _rest(self) -> None:
        self._is_due.clear()
        if self._ride is not None:
            self._ride.cancel()
            self._ride = None
