"""The journal of a worker: the order that the parent keeps.

Owns the worker's end of the socket. Without the parent there is no order and no way to serve on: the worker
ends (``worker``).
"""

import asyncio
import time
from collections.abc import Callable

from marsproxy import state_pickle
from marsproxy.core.shared_state import Happening
from marsproxy.journal import Replica
from marsproxy.workers.frames import Frame, Kind
from marsproxy.workers.record_order import member_name

SETTLE_TIMEOUT_S = 1.0
"""A round trip takes a fraction of a millisecond. The parent does nothing long; a starved machine may."""


class WorkerJournal:
    """
    Args:
        replica: is driven.
        send: of the socket to the parent.
    """

    def __init__(self, replica: Replica, send: Callable[[Frame], None]) -> None:
        self._replica = replica
        self._send = send
        self._number = 0
        self._last_s = 0.0
        self._told = 0
        self._seen = 0
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._joined: asyncio.Future[None] | None = None

    @property
    def member(self) -> str:
        return member_name(self._number)

    @property
    def leads(self) -> bool:
        return next(iter(self._replica.state.members), None) == self.member

    def now(self) -> float:
        return max(self._last_s, time.monotonic())

    def append(self, happening: Happening) -> None:
        self._told += 1
        self._send(Frame(Kind.APPEND, payload=state_pickle.write(happening)))

    async def settle(self) -> None:
        if self._seen >= self._told:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((self._told, done))
        await asyncio.wait((done,), timeout=SETTLE_TIMEOUT_S)

    async def join(self) -> None:
        """Become a member, with the state of the others. Comes back when that is so."""
        self._joined = asyncio.get_running_loop().create_future()
        self._send(Frame(Kind.JOIN))
        await self._joined

    def take(self, frame: Frame) -> None:
        """What the parent said, if it is the journal's."""
        match frame.kind:
            case Kind.RECORD:
                self._record(frame)
            case Kind.FOUND:
                self._become(frame.number)
            case Kind.ADOPT:
                self._last_s = max(self._last_s, frame.at_s)
                self._number = frame.number
                self._replica.adopt(state_pickle.read_state(frame.payload), self._last_s)
                self._become(frame.number)
            case Kind.ASK_STATE:
                state = state_pickle.write(self._replica.state)
                self._send(Frame(Kind.STATE, frame.number, self._last_s, state))
            case _:
                raise AssertionError(f"no frame for a journal: {frame.kind.name}")

    def _become(self, number: int) -> None:
        self._number = number
        if self._joined is not None and not self._joined.done():
            self._joined.set_result(None)

    def _record(self, frame: Frame) -> None:
        self._last_s = max(self._last_s, frame.at_s)
        is_ours = frame.number == self._number
        self._replica.applied(state_pickle.read(frame.payload), member_name(frame.number), frame.at_s)
        if is_ours:
            self._seen += 1
            self._wake()

    def _wake(self) -> None:
        if not self._waiters:
            return
        waiting = []
        for place, done in self._waiters:
            if place > self._seen:
                waiting.append((place, done))
            elif not done.done():
                done.set_result(None)
        self._waiters = waiting
