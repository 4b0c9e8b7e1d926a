"""Looks now and then whether the store may forget what it should keep, and says so.

Owns the last answer and the log line of a change. What a store's weakness is it must not know.
"""

import asyncio
import logging

from gateway.store import Store, StoreUnavailable

log = logging.getLogger(__name__)

_PERIOD_S = 60.0
"""Settings of a server change at any time, and so does which server it is; to ask costs nothing."""


class StoreWatch:
    def __init__(self, store: Store, period_s: float = _PERIOD_S) -> None:
        self.weakness: str | None = None
        """In words for an operator; None where there is none or none is known."""
        self._store = store
        self._period_s = period_s

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._period_s)

    async def look(self) -> None:
        try:
            weakness = await self._store.weakness()
        except StoreUnavailable:
            return  # Whoever needs it says so.
        if weakness is not None and weakness != self.weakness:
            log.error("the store may forget keys, and then commands could run twice: %s", weakness)
        elif weakness is None and self.weakness is not None:
            log.warning("the store keeps what it should again")
        self.weakness = weakness
