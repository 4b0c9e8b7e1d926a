"""Teaches the predictions what commands and leases took.

A listener. How long one ran that was stopped says nothing; what memory it had reached does.
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
        if run_s is None:
            return
        learn, memory_mb = self._predictions.learn, run.max_rss_mb
        if run.ending in _BY_ITSELF:
            learn(run.signature, now, run_s=run_s, cpu_s=run.cpu_s, memory_mb=memory_mb)
        elif memory_mb is not None:
            learn(run.signature, now, run_s=None, memory_mb=memory_mb)
