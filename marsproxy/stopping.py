"""How the server goes when it is told to: first it says so, then it finishes, then it cuts.

Theory of operation. A stop has three steps. *Leaving*: ``/readyz`` is 503, so whoever balances load takes
new clients elsewhere; everything is served as before, but every answer says that its connection closes
after it, so clients come back by another way without ever hitting a closed one. *Finishing*: the port is
closed, idle connections are, turns in flight go on, held ones are told to retry (their budget is elsewhere,
and nothing was done for them yet). *Cutting*: whatever is left when the grace is over, or when somebody says
stop a second time.

Owns the steps and their clock. It must not know what is served.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from enum import Enum
from types import FrameType

import uvicorn
from uvicorn.server import HANDLED_SIGNALS

from marsproxy.config import Stop

log = logging.getLogger(__name__)

TICK_S = 0.05
"""Between two looks at what is left; signals come between any two lines, so they only set a flag."""
CUT_S = 2.0
"""For the tasks of cut connections to tell their endings."""


class Step(Enum):
    SERVING = "serving"
    LEAVING = "leaving"
    FINISHING = "finishing"


class StoppingServer(uvicorn.Server):
    """uvicorn that stops in steps.

    Args:
        finish: called once, when the port is closed: tell those who wait for something not begun.
    """

    def __init__(self, config: uvicorn.Config, stop: Stop, finish: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop
        self._finish = finish
        self.step = Step.SERVING
        self.pauses = True
        """Off where others go on to serve the port, so that nobody needs to notice."""

    def is_leaving(self) -> bool:
        return self.step is not Step.SERVING

    def stop(self) -> None:
        """Begin to stop; saying it again changes nothing."""
        self.should_exit = True

    def stop_now(self) -> None:
        """What is in flight is cut."""
        self.should_exit = self.force_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._captured_signals.append(sig)
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn does, but a stop that was asked for by SIGTERM is a good end, not a death by signal
        with the clean-up of our callers skipped. Ctrl-C stays an interruption."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        originals = {number: signal.signal(number, self.handle_exit) for number in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for number, original in originals.items():
                signal.signal(number, original)
        if signal.SIGINT in self._captured_signals:
            signal.raise_signal(signal.SIGINT)

    async def main_loop(self) -> None:
        await super().main_loop()
        self.step = Step.LEAVING
        if self.pauses and self._stop.pause_s:
            log.info("stopping: /readyz is 503 for %g s before the port closes", self._stop.pause_s)
            await self._until(lambda: False, self._stop.pause_s)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.step = Step.FINISHING
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        self._finish()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        log.info("stopping: %d requests in flight have up to %g s", self._in_flight, self._stop.grace_s)
        await self._until(lambda: not (self.server_state.connections or self._in_flight), self._stop.grace_s)
        if self._in_flight:
            log.warning("stopping: %d requests are cut", self._in_flight)
            await self._cut()
        await self.lifespan.shutdown()

    @property
    def _in_flight(self) -> int:
        return len(self.server_state.tasks)

    async def _until(self, is_over: Callable[[], bool], timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + timeout_s
        while not (is_over() or self.force_exit or loop.time() >= end_s):  # noqa: ASYNC110
            await asyncio.sleep(min(TICK_S, timeout_s))

    async def _cut(self) -> None:
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        _, stuck = await asyncio.wait(tasks, timeout=CUT_S)
        if stuck:
            log.error("stopping: %d requests did not end when they were cut", len(stuck))
