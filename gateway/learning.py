"""Teaches the predictions what commands and leases took.

A listener. Only of those that ended by themselves: how long one ran that was stopped says nothing.
"""

from collections.abc import Callable

from gateway.listeners import ToolRun
from gateway.predictions import Predictions
from gateway.protocol import ExecState, LeaseState

_BY_ITSELF = (ExecState.EXITED.value, LeaseState.RELEASED.value)


class Learning:
    def __init__(self, predictions: Predictions, clock: Callable[[], float]) -> None:
        self._predictions = predictions
        self._clock = clock

    def queued(self, run: ToolRun) -> None:
        pass

    def started(self, run: ToolRun) -> None:
        pass

    def finished(self, run: ToolRun) -> None:
        now = self._clock()
        run_s = run.run_s(now)
        if run.ending in _BY_ITSELF and run_s is not None:
            self._predictions.learn(
                run.signature, now, run_s=run_s, cpu_s=run.cpu_s, memory_mb=run.max_rss_mb
            )
