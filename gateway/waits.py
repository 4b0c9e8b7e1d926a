"""How long commands wait, and will: moving means of what was measured.

Owns means only; it must not know what waits.
"""

_RUN_WEIGHT = 0.1
"""Of the newest run time in the moving mean; about the last twenty commands count."""
_WAIT_WEIGHT = 0.2
"""The same for waits; about the last ten."""
_HALF_LIFE_S = 10.0
"""After so long without a start half of the mean wait is left: a burst that is over says little about the
next command. The proxy believes a reading for as long (its admission.telemetry_stale_s)."""
_RETRY_AFTER_BOUNDS_S = (1.0, 60.0)


class Waits:
    def __init__(self) -> None:
        self._run_s: float | None = None
        self._wait_s: float | None = None
        self._started_s: float | None = None

    def started(self, wait_s: float, now: float) -> None:
        mean_s = wait_s if self._wait_s is None else self._wait_s
        self._wait_s = mean_s + _WAIT_WEIGHT * (wait_s - mean_s)
        self._started_s = now

    def ended(self, run_s: float) -> None:
        mean_s = run_s if self._run_s is None else self._run_s
        self._run_s = mean_s + _RUN_WEIGHT * (run_s - mean_s)

    def wait_s(self, oldest_s: float | None, now: float) -> float | None:
        """Of the latest, fading; None before the first. Not less than the oldest has waited so far: when
        nothing starts any more, no mean would show it."""
        if self._wait_s is None or self._started_s is None:
            return oldest_s
        faded_s: float = self._wait_s * 0.5 ** ((now - self._started_s) / _HALF_LIFE_S)
        return max(faded_s, oldest_s or 0.0)

    def foreseen_s(self, places: int, running: int, now: float) -> float | None:
        """Until so many more have started, with so many running (Little's law); None before anything ended
        or when nothing runs. Those that run have done so at least since the last of them started."""
        if self._run_s is None or self._started_s is None or not running:
            return None
        return places * max(self._run_s, now - self._started_s) / running

    def retry_after_s(self, running: int, now: float) -> float:
        """When there is room for one more, roughly."""
        low, high = _RETRY_AFTER_BOUNDS_S
        return min(high, max(low, self.foreseen_s(1, running, now) or low))
