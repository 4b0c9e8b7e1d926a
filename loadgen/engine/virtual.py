"""The scheduler on a virtual clock: the simulator's engine.

The caller owns time and the other events; the engine says when its step ends. The protocol:

    engine.add(request, now)            whenever something arrives
    engine.start(now, until=next_event) after all events of ``now`` are in; a no-op while a step runs
    engine.step_ends_s                  when to call ``finish_step``; None while idle
    engine.finish_step()                who generated, and then ``start`` again

A run of decode steps that nothing can interrupt is taken as one: the batch is the same in each of
them and step times are linear in the contexts, so their sum is the step count times the time at the
mid-point (exact while one side of the roofline dominates, as memory does when decoding). No such run
starts a step at or after ``until``, so an arrival waits for one step only, as it would one by one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Protocol

from loadgen.engine.requests import EngineRequest
from loadgen.engine.scheduler import Batch, Scheduler


class StepSeconds(Protocol):
    """Seconds of a step over ``(context_before, new_tokens)`` items; contexts may be mid-points."""

    def __call__(self, items: Iterable[tuple[float, int]], /) -> float: ...


@dataclass(slots=True)
class _Running:
    batch: Batch
    ends_s: float


class VirtualEngine:
    def __init__(
        self, scheduler: Scheduler, step_seconds: StepSeconds, *, merge_decodes: bool = True
    ) -> None:
        self.scheduler = scheduler
        self._step_seconds = step_seconds
        self._merge_decodes = merge_decodes
        self._running: _Running | None = None

    @property
    def step_ends_s(self) -> float | None:
        return self._running.ends_s if self._running else None

    def add(self, request: EngineRequest, now: float) -> None:
        request.arrival_s = now
        self.scheduler.add(request)

    def abort(self, request: EngineRequest) -> None:
        self.scheduler.abort(request)

    def start(self, now: float, until: float = inf) -> None:
        """Begin a step at ``now`` if none runs and there is work; merge decode steps up to ``until``."""
        if self._running is not None or not self.scheduler.has_work:
            return
        steps = self.scheduler.mergeable_decode_steps() if self._merge_decodes else 0
        if steps > 1:
            steps = self._steps_before(now, until, steps)
        if steps > 1:
            batch = self.scheduler.schedule_decodes(steps)
            self._running = _Running(batch, now + self._decodes_s(steps))
        else:
            batch = self.scheduler.schedule(now)
            self._running = _Running(batch, now + self._step_seconds(batch.items()))

    def finish_step(self) -> list[EngineRequest]:
        """End the step in flight and return those that generated, finished ones included."""
        assert self._running is not None, "no step in flight"
        running, self._running = self._running, None
        return self.scheduler.complete(running.batch, running.ends_s)

    def run(
        self,
        arrivals: Iterable[tuple[float, EngineRequest]],
        on_finish: Callable[[EngineRequest, float], Iterable[tuple[float, EngineRequest]]],
    ) -> float:
        """Run to the end of all work; ``on_finish`` may return later arrivals. Returns the end time."""
        pending = sorted(arrivals, key=lambda arrival: arrival[0])
        now = 0.0
        while pending or self._running or self.scheduler.has_work:
            if self._running is None and not self.scheduler.has_work:
                now = max(now, pending[0][0])
            while pending and pending[0][0] <= now:
                self.add(pending.pop(0)[1], now)
            self.start(now, until=pending[0][0] if pending else inf)
            assert self._running is not None
            now = self._running.ends_s
            later = [
                arrival
                for request in self.finish_step()
                if request.is_over
                for arrival in on_finish(request, now)
            ]
            if later:
                pending = sorted(pending + later, key=lambda arrival: arrival[0])
        return now

    def _steps_before(self, now: float, until: float, limit: int) -> int:
        """How many of ``limit`` decode steps start before ``until``; at least 1."""
        if now + self._decodes_s(limit - 1) < until:
            return limit
        low, high = 1, limit - 1  # `low` steps start in time, `high + 1` do not
        while low < high:
            middle = (low + high + 1) // 2
            if now + self._decodes_s(middle - 1) < until:
                low = middle
            else:
                high = middle - 1
        return low

    def _decodes_s(self, steps: int) -> float:
        """Seconds of that many steps of the requests that run, one token each."""
        if steps < 1:
            return 0.0
        shift = (steps - 1) / 2
        return steps * self._step_seconds(
            [(request.computed_tokens + shift, 1) for request in self.scheduler.running]
        )
