"""Who waits for something to change, each with a time limit of its own.

Owns the waiting; what changed and whether it is enough is the callers' to look at.
"""

from __future__ import annotations

import asyncio


class Waiters:
    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, timeout_s: float | None) -> None:
        """Return at the next ``wake``, else after the timeout. May be cancelled."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await asyncio.wait({waiter}, timeout=timeout_s)
        finally:
            self._waiting.discard(waiter)

    def wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
