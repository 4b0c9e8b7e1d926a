"""Writes commands that are over into a store that survives the gateway.

A listener. Advice: what cannot be written now is asked of its host by the next gateway; nobody waits for it
here.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

import msgspec

from gateway.exec_record import Exec
from gateway.listeners import ToolRun
from gateway.notes import ended_exec
from gateway.store import Store, StoreUnavailable

log = logging.getLogger(__name__)

_MAX_WAITING = 10_000
"""The oldest go first; their hosts have them still."""
_RETRY_S = 1.0


class Archive:
    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self.dropped = 0
        self._store = store
        self._clock = clock
        self._waiting: deque[Exec] = deque()
        self._has_some = asyncio.Event()

    def queued(self, run: ToolRun) -> None:
        pass

    def started(self, run: ToolRun) -> None:
        pass

    def finished(self, run: ToolRun) -> None:
        if not isinstance(run, Exec):
            return
        if len(self._waiting) >= _MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(run)
        self._has_some.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._has_some.wait()
            if not await self.flush():
                await asyncio.sleep(_RETRY_S)

    async def flush(self) -> bool:
        """Write all that waits; False when the store is not there."""
        while self._waiting:
            record = self._waiting[0]
            try:
                await self._store.put_exec(record.id, msgspec.json.encode(ended_exec(record, self._clock())))
            except StoreUnavailable as error:
                log.warning("the store is not there (%s); %d endings wait", error, len(self._waiting))
                return False
            if self._waiting and self._waiting[0] is record:
                self._waiting.popleft()
        self._has_some.clear()
        return True
