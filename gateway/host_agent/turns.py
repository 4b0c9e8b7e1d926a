"""Letting others go first in the middle of long work on the agent's one thread."""

from __future__ import annotations

import asyncio
import time

STEP_S = 0.005
"""What one long work may add to everybody else's wait: half of what a local command may wait in all."""


class Turns:
    def __init__(self, step_s: float = STEP_S) -> None:
        self._step_s = step_s
        self._since_s = time.monotonic()

    async def give(self) -> None:
        """To be awaited between small pieces of work; lets others go when ours has taken a step's time."""
        if time.monotonic() - self._since_s >= self._step_s:
            await asyncio.sleep(0)
            self._since_s = time.monotonic()
