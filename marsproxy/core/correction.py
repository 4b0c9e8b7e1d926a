"""Corrects the share of a pool that is promised, by what is seen: are continuations still warm?

Predictions of growth can be wrong either way. When counted sessions come back and find their blocks
gone, or the engine preempts, too much was promised: the factor falls by a twentieth. When turns wait for
memory, nothing was lost and what counted sessions really fill leaves room, too little was: it rises by a
fiftieth. Once a dwell at most, so that a change is seen before the next; between the two limits on the
loss nothing changes.
"""

from dataclasses import dataclass

DWELL_S = 30.0
"""Least time between two changes: some turns of every session on a busy server."""
LOW, HIGH = 0.7, 1.1
"""Bounds of the factor, chosen: promising 0.7 of the pool cost up to 3 % where nothing was wrong, and
promising 1.1 of it half of the gain (lab). What lies beyond is no correction any more."""
FALL, RISE = 0.95, 0.02
"""Chosen, and larger downwards: promising too much costs several times what promising too little does
(lab)."""
LOSS_HIGH, LOSS_LOW = 0.02, 0.002
"""Share of the tokens that counted sessions came back for and that were gone (simulated: to react at 5 %
instead of 2 % cost 15 % on tool-heavy traffic; the lower one is chosen, a tenth of the upper)."""
ROOM = 0.9
"""Share of the pool really filled, below which there is room."""


@dataclass(slots=True)
class Correction:
    """One backend's. A factor on the target, 1 until there is a reason."""

    factor: float = 1.0
    _expected_tokens: int = 0
    _lost_tokens: int = 0
    _preemptions: int = 0
    _changed_s: float | None = None

    def returned(self, expected_tokens: int, cached_tokens: int) -> None:
        """A counted session's turn ran: how much of its context it should have found, and did."""
        self._expected_tokens += expected_tokens
        self._lost_tokens += max(0, expected_tokens - cached_tokens)

    def preempted(self, requests: int) -> None:
        self._preemptions += requests

    def update(self, now: float, *, is_waited_for: bool, filled_share: float) -> None:
        """Called with every reading."""
        if self._changed_s is None:
            self._changed_s = now
        if now - self._changed_s < DWELL_S:
            return
        loss = self._lost_tokens / self._expected_tokens if self._expected_tokens else 0.0
        if loss > LOSS_HIGH or self._preemptions:
            self.factor = max(LOW, self.factor * FALL)
        elif loss < LOSS_LOW and is_waited_for and filled_share < ROOM:
            self.factor = min(HIGH, self.factor + RISE)
        self._changed_s = now
        self._expected_tokens = self._lost_tokens = self._preemptions = 0
