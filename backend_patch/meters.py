"""How fast the engine is: step time, prefill and decode tokens per second, smoothed.

Owns the arithmetic; times are arguments. A step lasts from the moment it could begin, which is when it was
scheduled or, if that is later, when the step before it ended (with async scheduling the next one is
scheduled while one still runs).
"""

from collections import deque

SMOOTHING = 0.1
"""Weight of the latest step: half of an old value is gone after seven steps."""
MIN_PREFILL_TOKENS = 64
"""Fewer say more about the step's fixed cost than about prefill (measured on a simulated H100: 24.1e3
tokens/s read this way, 23e3 to 24e3 true)."""
MAX_IN_FLIGHT = 64
"""Steps scheduled and not ended: pipeline stages, a few dozen at most."""


class Meters:
    """Each is None until a step has shown it."""

    def __init__(self) -> None:
        self.steps = 0
        self.step_s: float | None = None
        self.prefill_tokens_per_s: float | None = None
        self.decode_tokens_per_s: float | None = None
        self._in_flight: deque[tuple[float, int, int]] = deque(maxlen=MAX_IN_FLIGHT)
        self._last_end_s = -1.0

    def scheduled(self, prefill_tokens: int, decode_tokens: int, now: float) -> None:
        self._in_flight.append((now, prefill_tokens, decode_tokens))

    def ended(self, now: float) -> None:
        """The earliest step in flight; nothing if none is."""
        if not self._in_flight:
            return
        scheduled_s, prefill_tokens, decode_tokens = self._in_flight.popleft()
        seconds = now - max(scheduled_s, self._last_end_s)
        self._last_end_s = now
        self.steps += 1
        if seconds <= 0:
            return
        self.step_s = _smoothed(self.step_s, seconds)
        if prefill_tokens >= MIN_PREFILL_TOKENS:
            self.prefill_tokens_per_s = _smoothed(self.prefill_tokens_per_s, prefill_tokens / seconds)
        if decode_tokens:
            self.decode_tokens_per_s = _smoothed(self.decode_tokens_per_s, decode_tokens / seconds)


def _smoothed(old: float | None, new: float) -> float:
    return new if old is None else old + SMOOTHING * (new - old)
