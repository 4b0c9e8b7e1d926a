"""Who may start now on one host: a queue in front of its CPU slots and its memory.

Owns the accounting and the order; it must not know processes, clocks or asyncio. Time is an argument,
in seconds on any monotonic clock.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum

from gateway.host import Reading
from gateway.turns import Session, Turns, Waiting

_MILLI = 1000
MIN_CPU = 0.05


@dataclass(frozen=True, slots=True)
class Ask:
    id: str
    """Of an exec or a lease."""
    session: Session
    """Tenant and session: they take turns."""
    family: Hashable | None = None
    cpu: float = 1.0
    memory_mb: float | None = None
    """Asked for, else predicted, else None."""
    expected_s: float | None = None
    """Within which it is over as a rule: ``Prediction.run_p90_s``. Short ones have a lane of their own."""
    priority: int = 0
    queue_timeout_s: float | None = None


class Offer(Enum):
    """Answer to an ask."""

    GRANTED = "granted"
    QUEUED = "queued"
    FULL = "full"
    """Nothing is remembered of it: it need not be ended."""


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    slots: float | None = None
    """None: as many as the host has cores, one until it is known."""
    queue_limit: int = 256


class HostQueue:
    def __init__(self, settings: AdmissionSettings) -> None:
        self._settings = settings
        self._turns = Turns()
        self._asks: dict[str, tuple[Ask, float]] = {}
        self._holding: dict[str, int] = {}
        self._used = 0
        self._capacity = round((settings.slots or 1) * _MILLI)
        self._is_paused = False

    def __repr__(self) -> str:
        return f"<HostQueue [slots: {self.used}/{self.slots} | running: {self.running}, queued: {self.queued}]>"

    @property
    def slots(self) -> float:
        return self._capacity / _MILLI

    @property
    def used(self) -> float:
        return self._used / _MILLI

    @property
    def running(self) -> int:
        return len(self._holding)

    @property
    def queued(self) -> int:
        return len(self._turns)

    @property
    def queue_limit(self) -> int:
        return self._settings.queue_limit

    @property
    def short_running(self) -> int:
        return 0

    @property
    def memory_reserved_mb(self) -> float:
        return 0.0

    @property
    def is_paused(self) -> bool:
        return self._is_paused

    def offer(self, ask: Ask, now: float) -> Offer:
        """Queue it, or grant it if it may start at once."""
        self._asks[ask.id] = (ask, now)
        self._turns.add(Waiting(ask.id, ask.session, ask.priority))
        if ask.id in self._grant():
            return Offer.GRANTED
        if len(self._turns) > self._settings.queue_limit:
            self._turns.remove(ask.id)
            del self._asks[ask.id]
            return Offer.FULL
        return Offer.QUEUED

    def adopt(self, ask: Ask, now: float) -> None:
        """It runs on the host already: a gateway that comes back finds it there."""
        self._holding[ask.id] = round(ask.cpu * _MILLI)
        self._used += self._holding[ask.id]

    def end(self, ask_id: str, now: float) -> list[str]:
        """Forget it, queued or holding; returns the ids that are thereby granted."""
        if ask_id in self._turns:
            self._turns.remove(ask_id)
            del self._asks[ask_id]
        else:
            self._used -= self._holding.pop(ask_id)
        return self._grant()

    def observe(self, reading: Reading | None, now: float) -> list[str]:
        """Take note of what the host measured, None when it did not say; returns the ids that are thereby
        granted."""
        return self.tick(now)

    def tick(self, now: float) -> list[str]:
        """For what only time changes; call it about once a second. Returns the ids that are granted."""
        return self._grant()

    def pause(self) -> None:
        """Start nothing: the host is draining or gone. What runs goes on, what waits waits."""
        self._is_paused = True

    def resume(self, now: float) -> list[str]:
        self._is_paused = False
        return self._grant()

    def position(self, ask_id: str) -> int | None:
        """How many start before it if nothing else comes; None when it is not queued."""
        return self._turns.rank(ask_id) if ask_id in self._turns else None

    def retry_after_s(self, now: float) -> float:
        """When a refused caller may find room."""
        return 1.0

    def wait_s(self, now: float) -> float | None:
        """How long a command waits for its slots, as the latest did; None before the first."""
        return self.oldest_wait_s(now)

    def oldest_wait_s(self, now: float) -> float | None:
        """None when nothing waits."""
        return max((now - since for _, since in self._asks.values()), default=None)

    def _grant(self) -> list[str]:
        granted = []
        while not self._is_paused and (head := next(self._turns.heads(), None)) is not None:
            ask, _ = self._asks[head]
            milli = min(max(round(ask.cpu * _MILLI), round(MIN_CPU * _MILLI)), self._capacity)
            if self._used + milli > self._capacity:
                break
            self._turns.serve(head)
            del self._asks[head]
            self._holding[head] = milli
            self._used += milli
            granted.append(head)
        return granted
