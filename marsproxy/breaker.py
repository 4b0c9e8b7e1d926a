"""A circuit breaker for one backend, of one replica: what its requests met, and whether to send more.

Theory of operation
-------------------

*Closed*, requests go. A run of failures without one success between them opens it. *Open*, none should go
for a while; a random part of it keeps replicas from knocking all at once. After that somebody looks whether
the backend is well (``is_probe_due``, ``probed``), and if it is, the breaker is *half open*: one request at a
time goes. Its success closes the breaker; its failure opens it again, for twice as long up to a bound.

A failure is a backend that cannot be reached, breaks off or falls silent, or an answer of 500 and above.
Anything else is a success, 4xx too. A request whose client went away is neither.

Advice: who has nowhere else to go may go all the same. Time comes as an argument; no clock in here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

OPEN_GROWTH = 2.0
"""Of the time that it stays open, each time that a trial fails: the usual doubling."""
JITTER = 0.2
"""Of that time, at most, added by chance: twenty replicas that saw one backend die look at it over a fifth of
the time instead of at once. Chosen."""


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    failures: int
    """In a row, that open it."""
    open_s: float
    max_open_s: float


class Breaker:
    """
    Args:
        chance: a number from 0 to 1, each time another.
    """

    def __init__(self, limits: BreakerLimits, chance: Callable[[], float]) -> None:
        self._limits = limits
        self._chance = chance
        self.state = BreakerState.CLOSED
        self.failures = 0
        """In a row."""
        self._open_s = limits.open_s
        self._probe_at_s = 0.0
        self._has_trial = False

    def can_take(self) -> bool:
        """Whether a request should go there now."""
        match self.state:
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return False
            case BreakerState.HALF_OPEN:
                return not self._has_trial

    def sent(self) -> None:
        """A request goes; one of the three below follows."""
        self._has_trial = True

    def succeeded(self) -> None:
        self.failures = 0
        if self.state is not BreakerState.OPEN:  # else it was sent before that happened, and proves nothing
            self._close()

    def failed(self, now: float) -> None:
        self.failures += 1
        self._has_trial = False
        if self.state is BreakerState.HALF_OPEN:
            self._open_s = min(self._open_s * OPEN_GROWTH, self._limits.max_open_s)
            self._open(now)
        elif self.state is BreakerState.CLOSED and self.failures >= self._limits.failures:
            self._open(now)

    def given_up(self) -> None:
        """The client went before anything was known."""
        self._has_trial = False

    def is_probe_due(self, now: float) -> bool:
        return self.state is BreakerState.OPEN and now >= self._probe_at_s

    def probed(self, now: float, *, is_well: bool) -> None:
        """Somebody has looked."""
        if self.state is not BreakerState.OPEN:
            return
        if is_well:
            self.state, self._has_trial = BreakerState.HALF_OPEN, False
        else:
            self._open(now)

    def _close(self) -> None:
        self.state, self._has_trial = BreakerState.CLOSED, False
        self._open_s = self._limits.open_s

    def _open(self, now: float) -> None:
        self.state = BreakerState.OPEN
        self._probe_at_s = now + self._open_s * (1 + JITTER * self._chance())
