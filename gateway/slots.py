"""Who may start now: a queue in front of a number of CPU slots.

Owns the accounting and the order; it must not know processes, clocks or asyncio. Time is an argument,
in seconds on any monotonic clock.

Theory of operation. An exec is *offered* once and *ended* once. Between, it is queued or holds its
slots. Sessions take turns: the ring holds each session with something queued, and the session at its
head starts its oldest exec, then goes to the back. When that exec does not fit, nothing overtakes it:
a wide command waits for the slots to drain instead of starving behind narrow ones. Slots are taken
when granted, so whoever is told to start already holds them.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum

_MILLI = 1000
"""Slots are counted in thousandths, as integers: sums of floats would drift."""

MIN_CPU = 0.05
"""Least charge of one exec, so that a flood of sleepers is bounded at 20 per slot."""

_RUN_TIME_WEIGHT = 0.2
"""Of the newest run time in the moving mean; about the last ten commands count."""
_WAIT_WEIGHT = 0.2
"""The same for waits."""
_WAIT_HALF_LIFE_S = 10.0
"""After so long without a start half of the mean wait is left: a burst that is over says little about the
next command. The proxy believes a reading for as long (its admission.telemetry_stale_s)."""
_RETRY_AFTER_BOUNDS_S = (1.0, 60.0)


class Offer(Enum):
    """Answer to an offered exec."""

    GRANTED = "granted"
    QUEUED = "queued"
    FULL = "full"
    """Nothing is remembered of it: it need not be ended."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    exec_id: str
    session: Hashable
    milli_cpu: int
    since_s: float


@dataclass(frozen=True, slots=True)
class _Holding:
    milli_cpu: int
    since_s: float


class SlotQueue:
    def __init__(self, slots: float, queue_limit: int) -> None:
        assert slots >= MIN_CPU
        assert queue_limit >= 0
        self._capacity_milli = round(slots * _MILLI)
        self._used_milli = 0
        self._queue_limit = queue_limit
        self._ring: deque[Hashable] = deque()
        self._queues: dict[Hashable, deque[_Waiting]] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._holding: dict[str, _Holding] = {}
        self._mean_run_s: float | None = None
        self._mean_wait_s: float | None = None
        self._last_start_s = 0.0

    def __repr__(self) -> str:
        return (
            f"<SlotQueue [slots: {self.used}/{self.slots} | running: {self.running}, queued: {self.queued}]>"
        )

    @property
    def slots(self) -> float:
        return self._capacity_milli / _MILLI

    @property
    def used(self) -> float:
        return self._used_milli / _MILLI

    @property
    def running(self) -> int:
        return len(self._holding)

    @property
    def queued(self) -> int:
        return len(self._waiting)

    @property
    def queue_limit(self) -> int:
        return self._queue_limit

    def offer(self, exec_id: str, session: Hashable, cpu: float, now: float) -> Offer:
        assert exec_id not in self._waiting
        assert exec_id not in self._holding
        waiting = _Waiting(exec_id, session, max(round(cpu * _MILLI), round(MIN_CPU * _MILLI)), now)
        assert waiting.milli_cpu <= self._capacity_milli, "the caller refuses what can never fit"
        if not self._waiting and self._fits(waiting):
            self._hold(waiting, now)
            return Offer.GRANTED
        if len(self._waiting) >= self._queue_limit:
            return Offer.FULL
        self._enqueue(waiting)
        return Offer.QUEUED

    def end(self, exec_id: str, now: float) -> list[str]:
        """Forget an exec, queued or holding; returns the ids that are thereby granted."""
        if (waiting := self._waiting.pop(exec_id, None)) is not None:
            self._dequeue(waiting)
        else:
            self._release(self._holding.pop(exec_id), now)
        return self._grant_from_queue(now)

    def position(self, exec_id: str) -> int | None:
        """How many execs start before this one if nothing else comes; None when it is not queued."""
        waiting = self._waiting.get(exec_id)
        if waiting is None:
            return None
        rank = self._queues[waiting.session].index(waiting)
        place = self._ring.index(waiting.session)
        return sum(
            min(len(self._queues[session]), rank + (1 if index < place else 0))
            for index, session in enumerate(self._ring)
        )

    def retry_after_s(self) -> float:
        """When a refused caller may find room: the time in which one queued exec starts, roughly."""
        low, high = _RETRY_AFTER_BOUNDS_S
        if self._mean_run_s is None or not self._holding:
            return low
        return min(high, max(low, self._mean_run_s / len(self._holding)))

    def wait_s(self, now: float) -> float | None:
        """How long a command waits for its slots, as the latest did; None before the first.

        Not less than the oldest has waited so far: when nothing starts any more, no mean would show it.
        """
        oldest = next(iter(self._waiting.values()), None)
        oldest_s = None if oldest is None else now - oldest.since_s
        if self._mean_wait_s is None:
            return oldest_s
        mean_s: float = self._mean_wait_s * 0.5 ** ((now - self._last_start_s) / _WAIT_HALF_LIFE_S)
        return max(mean_s, oldest_s or 0.0)

    def _fits(self, waiting: _Waiting) -> bool:
        return self._used_milli + waiting.milli_cpu <= self._capacity_milli

    def _hold(self, waiting: _Waiting, now: float) -> None:
        self._used_milli += waiting.milli_cpu
        self._holding[waiting.exec_id] = _Holding(waiting.milli_cpu, now)
        wait_s = now - waiting.since_s
        mean = wait_s if self._mean_wait_s is None else self._mean_wait_s
        self._mean_wait_s = mean + _WAIT_WEIGHT * (wait_s - mean)
        self._last_start_s = now

    def _release(self, holding: _Holding, now: float) -> None:
        self._used_milli -= holding.milli_cpu
        run_s = now - holding.since_s
        mean = run_s if self._mean_run_s is None else self._mean_run_s
        self._mean_run_s = mean + _RUN_TIME_WEIGHT * (run_s - mean)

    def _enqueue(self, waiting: _Waiting) -> None:
        self._waiting[waiting.exec_id] = waiting
        if waiting.session not in self._queues:
            self._queues[waiting.session] = deque()
            self._ring.append(waiting.session)
        self._queues[waiting.session].append(waiting)

    def _dequeue(self, waiting: _Waiting) -> None:
        queue = self._queues[waiting.session]
        queue.remove(waiting)
        if not queue:
            del self._queues[waiting.session]
            self._ring.remove(waiting.session)

    def _grant_from_queue(self, now: float) -> list[str]:
        granted = []
        while self._ring and self._fits(head := self._queues[self._ring[0]][0]):
            del self._waiting[head.exec_id]
            self._dequeue(head)
            if self._ring and self._ring[0] == head.session:
                self._ring.rotate(-1)
            self._hold(head, now)
            granted.append(head.exec_id)
        return granted
