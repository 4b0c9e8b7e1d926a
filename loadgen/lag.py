"""How late the driver's own event loop is: what a reader must know to trust its TTFT."""

import asyncio
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable

TICK_S = 0.01
"""Shorter than any TTFT worth reporting; a hundred wake-ups a second cost about 0.5 % of a core."""
KEPT_PEAKS = 4096


class LagMeter:
    """Peaks of the loop's lag, kept so that "largest since t" is one bisection.

    The kept samples fall in lag and rise in time: a later, larger sample makes an earlier one
    uninteresting to every question, because questions end now.
    """

    def __init__(self) -> None:
        self._at: list[float] = []
        self._lag: list[float] = []
        self.largest_s = 0.0
        self.samples = 0
        self._ticked_at = 0.0
        self._recent: deque[float] = deque(maxlen=100_000)

    def add(self, at: float, lag_s: float) -> None:
        while self._lag and self._lag[-1] <= lag_s:
            self._lag.pop()
            self._at.pop()
        if len(self._lag) == KEPT_PEAKS:
            del self._lag[:1], self._at[:1]
        self._at.append(at)
        self._ticked_at = at
        self._lag.append(lag_s)
        self.largest_s = max(self.largest_s, lag_s)
        self.samples += 1
        self._recent.append(lag_s)

    def largest_since(self, at: float, now: float) -> float:
        """The tick that is overdue at ``now`` counts: the caller may run before it after a long stall."""
        i = bisect_left(self._at, at)
        peak = self._lag[i] if i < len(self._lag) else 0.0
        overdue = now - max(self._ticked_at, at) - TICK_S if self.samples else 0.0
        return max(peak, overdue)

    def quantile_s(self, share: float) -> float | None:
        """Of the last 100,000 ticks, about 17 minutes."""
        if not self._recent:
            return None
        ordered = sorted(self._recent)
        return ordered[min(len(ordered) - 1, math.floor(share * len(ordered)))]

    async def watch(self, clock: Callable[[], float]) -> None:
        while True:
            before = clock()
            await asyncio.sleep(TICK_S)
            now = clock()
            self.add(now, max(0.0, now - before - TICK_S))
