"""What is due when, in virtual time."""

import heapq
from collections.abc import Callable
from itertools import count


class Agenda:
    """Calls in order of their time; those of the same instant in the order in which they were added."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, at_s: float, call: Callable[[float], None]) -> None:
        """``call`` gets the time at which it is called: ``at_s``, or now if that is past."""
        heapq.heappush(self._entries, (at_s, next(self._numbers), call))

    @property
    def next_s(self) -> float | None:
        return self._entries[0][0] if self._entries else None

    def call_due(self, now: float) -> None:
        """Everything due by ``now``, what is added meanwhile included."""
        entries = self._entries
        while entries and entries[0][0] <= now:
            heapq.heappop(entries)[2](now)
