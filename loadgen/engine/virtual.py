"""The scheduler on a virtual clock: the simulator's engine.

The caller owns time and the other events; the engine says when its step ends. The protocol:

    engine.add(request, now)     whenever something arrives, also while a step runs; ``abort`` the same
    engine.start(now)            after all events of ``now`` are in; a no-op while a step runs
    engine.step_ends_s           when to call ``finish_step``; None while idle. May move to an earlier
                                 time, never before ``now``, when something arrives
    engine.finish_step()         who generated, and then ``start`` again

Hints (``keep`` and the like, over a chain store) are given as arrivals are. ``advance(now)`` brings the
counters of requests up to ``now``, for who wants to read them in between.

A run of equal decode steps is taken as one: step times are linear in the contexts, so their sum is the
step count times the time at the mid-point (exact while one side of the roofline dominates, as memory
does when decoding). What comes in between cuts the run at the end of the step in progress, so it waits
for one step only and everything is as if the steps had been taken one by one; the caller need not know
what comes next, and several engines can run side by side.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Protocol

from loadgen.engine.chains import ChainStore
from loadgen.engine.requests import EngineRequest
from loadgen.engine.scheduler import Batch, Scheduler
from marsproxy.core.commands import YieldsTo


class StepSeconds(Protocol):
    """Seconds of a step over ``(context_before, new_tokens)`` items; contexts may be mid-points."""

    def __call__(self, items: Iterable[tuple[float, int]], /) -> float: ...


class DecodeSeconds(Protocol):
    """Seconds of a step of one new token for each of so many requests; the sum of their contexts before."""

    def __call__(self, requests: int, context_tokens: float, /) -> float: ...


@dataclass(frozen=True, slots=True)
class _DecodeRun:
    """Decode steps in a row that nothing has interrupted yet; the scheduler hears of them at the end."""

    begin_s: float
    steps: int
    requests: int
    context_tokens: int

    def seconds(self, steps: int, decode_seconds: DecodeSeconds) -> float:
        """Of the first so many steps."""
        if not steps:
            return 0.0
        middle = self.context_tokens + self.requests * (steps - 1) / 2
        return steps * decode_seconds(self.requests, middle)

    def steps_before(self, now: float, decode_seconds: DecodeSeconds) -> int:
        """How many begin before ``now``; at least 1."""
        low, high = 1, self.steps  # `low` steps begin in time, `high + 1` do not
        while low < high:
            middle = (low + high + 1) // 2
            if self.begin_s + self.seconds(middle - 1, decode_seconds) < now:
                low = middle
            else:
                high = middle - 1
        return low


class VirtualEngine:
    def __init__(
        self,
        scheduler: Scheduler,
        step_seconds: StepSeconds,
        decode_seconds: DecodeSeconds | None = None,
        host_copy_seconds: Callable[[int], float] | None = None,
        *,
        merge_decodes: bool = True,
    ) -> None:
        """``decode_seconds`` is a faster way to say the same of a decode step; it is derived if not given.
        ``host_copy_seconds`` of that many tokens is added to a step that needs KV from the host's memory."""
        self.scheduler = scheduler
        self.step_ends_s: float | None = None
        self._step_seconds = step_seconds
        self._decode_seconds = decode_seconds or _decode_seconds_of(step_seconds)
        self._host_copy_seconds = host_copy_seconds
        self._merge_decodes = merge_decodes
        self._batch: Batch | None = None
        self._run: _DecodeRun | None = None

    def add(self, request: EngineRequest, now: float) -> None:
        request.arrival_s = now
        self.scheduler.add(request)
        if self._run is not None and not self._is_behind_others(now):
            self._interrupt(now)

    def abort(self, request: EngineRequest, now: float) -> None:
        self._interrupt(now)
        self.scheduler.abort(request)

    def reprioritise(self, request: EngineRequest, priority: int, now: float) -> None:
        self._interrupt(now)
        self.scheduler.reprioritise(request, priority)

    def keep(self, chain: str, ttl_s: float | None, yields_to: YieldsTo, now: float) -> int:
        """See ``ChainStore``, for this and the next four."""
        self._interrupt(now)
        return self._chains.keep(chain, ttl_s, yields_to, now)

    def release(self, chain: str, now: float) -> None:
        self._interrupt(now)
        self._chains.release(chain)

    def demote(self, chain: str, now: float) -> None:
        self._interrupt(now)
        self._chains.demote(chain)

    def swap_out(self, chain: str, now: float) -> int:
        self._interrupt(now)
        return self._chains.swap_out(chain)

    def resident_tokens(self, chain: str, now: float) -> int:
        self.advance(now)
        return self._chains.resident_tokens(chain)

    def start(self, now: float) -> None:
        """Begin a step at ``now`` if none runs and there is work."""
        if self.step_ends_s is not None or not self.scheduler.has_work:
            return
        self.scheduler.pool.expire(now)
        steps = self.scheduler.mergeable_decode_steps(now) if self._merge_decodes else 0
        if steps > 1:
            self._start_run(now, steps)
        else:
            self._start_step(now)

    def finish_step(self) -> list[EngineRequest]:
        """End the step in flight and return those that generated, finished ones included."""
        now, batch, run = self.step_ends_s, self._batch, self._run
        assert now is not None, "no step in flight"
        self.step_ends_s = self._batch = self._run = None
        if run is not None:
            batch = self.scheduler.schedule_decodes(run.steps)
        assert batch is not None
        return self.scheduler.complete(batch, now)

    def run(
        self,
        arrivals: Iterable[tuple[float, EngineRequest]],
        on_finish: Callable[[EngineRequest, float], Iterable[tuple[float, EngineRequest]]],
    ) -> float:
        """Run to the end of all work; ``on_finish`` may return later arrivals. Returns the end time."""
        order = count()
        pending = [(at_s, next(order), request) for at_s, request in arrivals]
        heapify(pending)
        now = 0.0
        while pending or self.step_ends_s is not None:
            if self.step_ends_s is not None and (not pending or self.step_ends_s <= pending[0][0]):
                now = self.step_ends_s
                for request in self.finish_step():
                    if request.is_over:
                        for at_s, later in on_finish(request, now):
                            heappush(pending, (at_s, next(order), later))
            else:
                now = max(now, pending[0][0])
            while pending and pending[0][0] <= now:
                self.add(heappop(pending)[2], now)
            self.start(now)
        return now

    def advance(self, now: float) -> None:
        """Count the steps of a run that are over at ``now``."""
        run = self._run
        if run is None:
            return
        over = run.steps_before(now, self._decode_seconds) - 1
        if over:
            over_s = run.begin_s + run.seconds(over, self._decode_seconds)
            self.scheduler.complete(self.scheduler.schedule_decodes(over), over_s)
            context_tokens = run.context_tokens + over * run.requests
            self._run = _DecodeRun(over_s, run.steps - over, run.requests, context_tokens)
        self.scheduler.grow_decodes(1)  # the step in progress has its blocks

    def _is_behind_others(self, now: float) -> bool:
        """Behind a head that does not fit nothing changes for those that run, unless time changes it."""
        assert self.step_ends_s is not None
        change_s = self.scheduler.next_change_s(now)
        is_later = change_s is None or change_s >= self.step_ends_s
        return is_later and self.scheduler.is_queue_stuck(now)

    @property
    def _chains(self) -> ChainStore:
        store = self.scheduler.pool
        assert isinstance(store, ChainStore), "hints need a chain store"
        return store

    def _start_step(self, now: float) -> None:
        batch = self._batch = self.scheduler.schedule(now)
        seconds = self._step_seconds(batch.items())
        if batch.loaded_tokens and self._host_copy_seconds is not None:
            seconds += self._host_copy_seconds(batch.loaded_tokens)
        self.step_ends_s = now + seconds

    def _start_run(self, now: float, steps: int) -> None:
        running = self.scheduler.running
        context_tokens = sum([request.computed_tokens for request in running])
        run = _DecodeRun(now, steps, len(running), context_tokens)
        change_s = self.scheduler.next_change_s(now)
        if change_s is not None:  # what it changes, the step after it must be scheduled with
            run = replace(run, steps=run.steps_before(change_s, self._decode_seconds))
        self._run = run
        self.step_ends_s = now + run.seconds(run.steps, self._decode_seconds)

    def _interrupt(self, now: float) -> None:
        """Leave of a run of decodes the step in progress; the steps before it are over."""
        self.advance(now)
        run, self._run = self._run, None
        if run is not None:
            self._batch = self.scheduler.schedule_decodes(1)
            self.step_ends_s = run.begin_s + run.seconds(1, self._decode_seconds)


def _decode_seconds_of(step_seconds: StepSeconds) -> DecodeSeconds:
    """A step costs the same however its contexts are spread."""

    def decode_seconds(requests: int, context_tokens: float) -> float:
        return step_seconds([(context_tokens / requests, 1)] * requests)

    return decode_seconds
