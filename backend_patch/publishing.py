"""Where the engine's state goes after a step, and how often.

Owns the interval. Who reads it, and how, is the publisher's.
"""

from typing import Protocol

MIN_INTERVAL_S = 0.05
"""Of a busy engine: some steps. Readers come at 5 Hz."""


class Publisher(Protocol):
    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class NoPublisher:
    """For an engine without shared memory, and for tests."""

    def write(self, data: bytes) -> None:
        del data

    def close(self) -> None: ...


class Interval:
    """Says when the next one is due."""

    def __init__(self, min_interval_s: float = MIN_INTERVAL_S) -> None:
        self._min_interval_s = min_interval_s
        self._last_s: float | None = None

    def is_due(self, now: float) -> bool:
        """Also after a clock that was set back."""
        return self._last_s is None or not 0 <= now - self._last_s < self._min_interval_s

    def done(self, now: float) -> None:
        self._last_s = now
