"""The scheduler on the wall clock: the loop that turns step times into waiting.

Owns the pace and who is told of new tokens. Each step lasts what the roofline says, divided by the
speed factor. Late wake-ups of the event loop are made up for by shorter waits, as a real accelerator
does not wait for its host; beyond ``MAX_LAG_S`` the time is given up and counted in ``behind_s``: then
this machine is too slow for the speed asked, and results show the machine rather than the model.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from loadgen.engine.requests import EngineRequest
from loadgen.engine.scheduler import Scheduler
from loadgen.engine.virtual import StepSeconds

MAX_LAG_S = 0.05
"""Ten decode steps of a large accelerator: hides garbage collection and a large body being parsed."""

Listener = Callable[[EngineRequest], None]
"""Called after each step in which the request generated, and when the engine stops under it."""


class RealTimeEngine:
    def __init__(
        self,
        scheduler: Scheduler,
        step_seconds: StepSeconds,
        *,
        speed: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_finish: Listener = lambda _request: None,
    ) -> None:
        if not speed > 0:
            raise ValueError(f"speed must be above 0, not {speed}")
        self.scheduler = scheduler
        self.behind_s = 0.0
        self._step_seconds = step_seconds
        self._speed = speed
        self._clock = clock
        self._sleep = sleep
        self._on_finish = on_finish
        self._listeners: dict[EngineRequest, Listener] = {}
        self._work = asyncio.Event()
        self._is_stopped = False

    def now(self) -> float:
        return self._clock()

    def submit(self, request: EngineRequest, listener: Listener) -> None:
        request.arrival_s = self._clock()
        self.scheduler.add(request)
        self._listeners[request] = listener
        self._work.set()
        if self._is_stopped:
            self.stop()

    def abort(self, request: EngineRequest) -> None:
        """Free what the request holds, at once; nothing if it is over."""
        self.scheduler.abort(request)
        self._listeners.pop(request, None)

    def stop(self) -> None:
        """Abort everything and tell it, so that nobody waits for an engine that has stopped."""
        self._is_stopped = True
        listeners, self._listeners = self._listeners, {}
        for request, listener in listeners.items():
            self.scheduler.abort(request)
            listener(request)

    async def run(self) -> None:
        """Step for as long as there is work; never returns."""
        ends_s = self._clock()
        while True:
            if not self.scheduler.has_work:
                self._work.clear()
                await self._work.wait()
                ends_s = self._clock()
            batch = self.scheduler.schedule(self._clock())
            ends_s = self._catch_up(ends_s) + self._step_seconds(batch.items()) / self._speed
            await self._sleep(max(0.0, ends_s - self._clock()))
            for request in self.scheduler.complete(batch, self._clock()):
                self._tell(request)

    def _catch_up(self, due_s: float) -> float:
        earliest_s = self._clock() - MAX_LAG_S
        if due_s < earliest_s:
            self.behind_s += earliest_s - due_s
        return max(due_s, earliest_s)

    def _tell(self, request: EngineRequest) -> None:
        listener = self._listeners[request]
        if request.is_over:
            del self._listeners[request]
            self._on_finish(request)
        listener(request)
