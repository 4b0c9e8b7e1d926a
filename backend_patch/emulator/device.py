"""The accelerator as a queue in time: when each step that is handed to it ends.

Owns when the device is busy and whether this machine kept up with it. Steps follow one another without a
gap while their requests go on, as they do on an accelerator whose next step is queued before the last one
ends. Where the host handed a step over too late for that, the device does as if it had been in time, up to
``MAX_LAG_S``: what is slow here is this machine, not the engine that it stands for. Beyond that the time
is given up and counted in ``behind_s``: results then show the machine rather than the model.

Times are seconds on the caller's clock. This module reads no clock and waits for nothing.
"""

import msgspec

MAX_LAG_S = 0.05
"""Ten decode steps of a large accelerator: hides garbage collection and a large body being parsed."""


class DeviceReport(msgspec.Struct, frozen=True):
    """What the device did since it started, for the log and for whoever measures."""

    steps: int
    tokens: int
    """Prompt and generated."""
    busy_s: float
    """Seconds of the clock; modelled seconds are ``speed`` times as many."""
    late_steps: int
    """Handed over when the step before had ended already. With synchronous scheduling: all of them."""
    late_s: float
    """By how much, together."""
    behind_s: float
    """Of these, seconds that were given up. 0.0: the results show the model alone."""
    loaded_tokens: int = 0
    """From the host tier."""
    stored_tokens: int = 0
    engine_cpu_s: float = 0.0
    """CPU time of the engine's process, its start included."""
    executor_cpu_s: float = 0.0
    """Of that, spent in the emulation."""
    async_scheduling: bool = False
    num_gpu_blocks: int = 0
    """With vLLM's null block."""


class Device:
    def __init__(self, *, speed: float, max_lag_s: float = MAX_LAG_S) -> None:
        self.busy_until_s = 0.0
        self.steps = 0
        self.tokens = 0
        self.busy_s = 0.0
        self.late_steps = 0
        self.late_s = 0.0
        self.behind_s = 0.0
        self._speed = speed
        self._max_lag_s = max_lag_s

    def run(
        self, now: float, step_s: float, tokens: int, *, is_continued: bool, extra_s: float = 0.0
    ) -> float:
        """When a step that is handed over now will end.

        Args:
            step_s: what the model says.
            is_continued: it goes on with requests of the step before, so there was no pause between them.
            extra_s: more, in seconds of the clock.
        """
        duration_s = step_s / self._speed + extra_s
        self.busy_until_s = self._start(now, is_continued) + duration_s
        self.steps += 1
        self.tokens += tokens
        self.busy_s += duration_s
        return self.busy_until_s

    def skip_to(self, now: float) -> None:
        """The device did nothing until now, and that is nobody's lateness."""
        self.busy_until_s = max(self.busy_until_s, now)

    def _start(self, now: float, is_continued: bool) -> float:
        lag_s = now - self.busy_until_s
        if lag_s <= 0.0 or not is_continued:
            return max(now, self.busy_until_s)
        self.late_steps += 1
        self.late_s += lag_s
        if lag_s <= self._max_lag_s:
            return self.busy_until_s
        self.behind_s += lag_s - self._max_lag_s
        return now - self._max_lag_s
