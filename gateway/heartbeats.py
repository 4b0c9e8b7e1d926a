"""Commands that are to end with their client: each such client says now and then that it is there.

A client that is killed without a word closes nothing that a gateway behind a proxy would notice, so leaving
is the silence itself. Owns the deadlines. A gateway that restarts has none: the client's next heartbeat
sets one.
"""

import asyncio
from typing import Protocol

from gateway.exec_record import Exec


class Cancels(Protocol):
    def cancel(self, record: Exec, reason: str) -> None: ...


class Heartbeats:
    def __init__(self, execs: Cancels) -> None:
        self._execs = execs
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        """By exec; each goes when it is due, whether or not the command is over by then."""

    def __len__(self) -> int:
        return len(self._deadlines)

    def beat(self, record: Exec, ttl_s: float) -> None:
        """Cancel it unless this is called again within ``ttl_s``."""
        if (before := self._deadlines.pop(record.id, None)) is not None:
            before.cancel()
        if not record.state.is_final:
            loop = asyncio.get_running_loop()
            self._deadlines[record.id] = loop.call_later(ttl_s, self._missed, record, ttl_s)

    def close(self) -> None:
        for deadline in self._deadlines.values():
            deadline.cancel()
        self._deadlines.clear()

    def _missed(self, record: Exec, ttl_s: float) -> None:
        del self._deadlines[record.id]
        self._execs.cancel(record, f"its client has not been heard of for {ttl_s:g} s")
