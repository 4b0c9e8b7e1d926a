"""What keeping a session's KV for a while is worth, as Continuum has it (arXiv 2511.02230, section 4).

For a context whose loss costs ``benefit`` seconds, the time to keep it is the one that maximises::

    P(gap <= ttl) * benefit - ttl            over ttl in {0} and the gaps seen so far

with P their empirical distribution (equation 2). The paper tries every candidate at every decision. But
the points (P, ttl) do not depend on the benefit, and the best one is always a corner of their lower convex
hull: the last corner whose edge rises by less than ``benefit`` per unit of probability. The hull is
rebuilt when an eighth of the records are new, and a decision is a binary search.
"""

from bisect import bisect_left
from collections import OrderedDict
from math import sqrt

from marsproxy.core.baselines.windows import SortedWindow

MAX_GAPS = 512
"""Latest gaps per distribution. The paper keeps all; at 512 a step of P is 0.2 %."""
REBUILD_SHARE = 8
"""The hull may lack this fraction of the records, so that a record costs eight of them on average."""
MAX_PROGRAMS = 200
"""Latest finished sessions that the memoryfulness is about: as many as the paper's preview averages
queueing delays over."""


class GapDistribution:
    """Gaps of one tool, or of all, in seconds."""

    def __init__(self) -> None:
        self._gaps = SortedWindow(MAX_GAPS)
        self._new = 0
        """Records that the hull lacks."""
        self._corner_ttls_s: list[float] = [0.0]
        self._edge_slopes: list[float] = []

    def __len__(self) -> int:
        return len(self._gaps)

    def add(self, gap_s: float) -> None:
        self._gaps.add(gap_s)
        self._new += 1
        if self._new * REBUILD_SHARE >= len(self._gaps):
            self._rebuild()
            self._new = 0

    def best_ttl_s(self, benefit_s: float) -> float:
        """Of two that are worth the same, the shorter."""
        return self._corner_ttls_s[bisect_left(self._edge_slopes, benefit_s)]

    def _rebuild(self) -> None:
        """Lower convex hull of (share of gaps up to t, t), from (0, 0)."""
        corners = [(0.0, 0.0)]
        slopes: list[float] = []
        total = len(self._gaps)
        for rank, gap_s in enumerate(self._gaps.ascending, start=1):
            point = (rank / total, gap_s)
            slope = _slope(corners[-1], point)
            while slopes and slopes[-1] >= slope:
                corners.pop()
                slopes.pop()
                slope = _slope(corners[-1], point)
            corners.append(point)
            slopes.append(slope)
        self._corner_ttls_s = [ttl_s for _, ttl_s in corners]
        self._edge_slopes = slopes


def _slope(start: tuple[float, float], end: tuple[float, float]) -> float:
    return (end[1] - start[1]) / (end[0] - start[0])


class Memoryfulness:
    """How much the turns that a session has had tell of those that are left: eta = -corr(k, N - k).

    k goes from 1 to N over each finished session of N turns. 1 where every session has as many turns, 0
    where their number is geometric; below 0 where the longest run the longest on. All five sums of the
    correlation are polynomials in N, so a session is one addition.
    """

    def __init__(self) -> None:
        self._turns: OrderedDict[str, int] = OrderedDict()
        self._sums = [0, 0, 0, 0, 0, 0]

    def __len__(self) -> int:
        return len(self._turns)

    def finished(self, session_id: str, turns: int) -> None:
        """The session has come to rest after so many turns. If it goes on, its next rest replaces this."""
        self._count(-self._turns.pop(session_id, 0))
        self._turns[session_id] = turns
        self._count(turns)
        if len(self._turns) > MAX_PROGRAMS:
            self._count(-self._turns.popitem(last=False)[1])

    @property
    def eta(self) -> float:
        """1 until sessions have shown otherwise, as the paper assumes before it has records."""
        n, x, y, xx, yy, xy = self._sums
        spread = (n * xx - x * x) * (n * yy - y * y)
        return -(n * xy - x * y) / sqrt(spread) if spread > 0 else 1.0

    def _count(self, turns: int) -> None:
        """Add a session of so many turns; take one away if negative."""
        sign = 1 if turns > 0 else -1
        for index, figure in enumerate(_sums_of(abs(turns))):
            self._sums[index] += sign * figure


def _sums_of(n: int) -> tuple[int, ...]:
    """Count, then the sums of k, N-k, k squared, (N-k) squared and k(N-k) for k from 1 to N."""
    return (
        n,
        n * (n + 1) // 2,
        n * (n - 1) // 2,
        n * (n + 1) * (2 * n + 1) // 6,
        n * (n - 1) * (2 * n - 1) // 6,
        n * (n + 1) * (n - 1) // 6,
    )
