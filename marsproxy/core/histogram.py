"""How large something is, as a distribution: learned online in bounded space, and asked for shares.

Owns the form of a learned distribution; must not know what is measured, nor its unit.

Why a histogram of our own: kept sketches (DDSketch, t-digest, HDR) answer for everything since the start
or for a window that one rotates by hand; none decays, and the core takes no packages. With buckets whose
edges never change, decay is one growing weight and shrinking one distribution towards another is a
weighted sum.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

MEMORY = 300
"""Samples after which a sample weighs 1/e: enough that three of them lie beyond the 99th percentile, and
a few sessions' worth of tool calls."""
WEIGHT_LIMIT = 1e12
"""Weights are scaled back beyond this, far from where a float loses small counts."""


def log_edges(least_exponent: int, most_exponent: int, per_decade: int) -> tuple[float, ...]:
    """Upper edges of buckets, from one power of ten to another."""
    count = (most_exponent - least_exponent) * per_decade
    return tuple(10 ** (least_exponent + i / per_decade) for i in range(count + 1))


@dataclass(frozen=True, slots=True)
class Curve:
    """A distribution function: at ``edges[i]`` a share of ``shares[i]`` is below. Straight in between."""

    edges: Sequence[float]
    shares: Sequence[float]
    waited: Sequence[float] = field(init=False, repr=False, compare=False)
    """Mean of what is smaller than each edge and the edge itself: how long one waits that gives up there."""

    def __post_init__(self) -> None:
        waited, total, last_edge, last = [], 0.0, 0.0, 0.0
        for edge, share in zip(self.edges, self.shares, strict=True):
            total += (edge - last_edge) * (1 - (last + share) / 2)
            waited.append(total)
            last_edge, last = edge, share
        object.__setattr__(self, "waited", waited)

    def share_within(self, value: float) -> float:
        index = bisect_left(self.edges, value)
        if index == len(self.edges):
            return self.shares[-1]
        before, share = self._point(index - 1)
        width = self.edges[index] - before
        part = (value - before) / width if width > 0 else 1.0
        return share + part * (self.shares[index] - share)

    def quantile(self, share: float) -> float:
        """The value below which ``share`` of all are."""
        index = min(bisect_left(self.shares, share), len(self.shares) - 1)
        before, least = self._point(index - 1)
        rise = self.shares[index] - least
        part = min(1.0, (share - least) / rise) if rise > 0 else 1.0
        return before + part * (self.edges[index] - before)

    def _point(self, index: int) -> tuple[float, float]:
        return (self.edges[index], self.shares[index]) if index >= 0 else (0.0, 0.0)


def certain(value: float) -> Curve:
    """Of something that is known exactly."""
    return Curve((value, value), (0.0, 1.0))


class DecayedHistogram:
    """Counts by bucket, in which an old sample weighs less than a new one. What is beyond the last edge
    counts as being at it."""

    __slots__ = ("_counts", "_edges", "_sum", "_total", "_weight")

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = edges
        self._counts = [0.0] * len(edges)
        self._sum = 0.0
        self._total = 0.0
        self._weight = 1.0

    def add(self, value: float) -> None:
        """Growing the newest weight is decaying all the others, in constant time."""
        self._weight *= 1 + 1 / MEMORY
        self._counts[min(bisect_left(self._edges, value), len(self._edges) - 1)] += self._weight
        self._sum += self._weight * value
        self._total += self._weight
        if self._weight > WEIGHT_LIMIT:
            self._counts = [count / self._weight for count in self._counts]
            self._sum /= self._weight
            self._total /= self._weight
            self._weight = 1.0

    @property
    def samples(self) -> float:
        """How many it weighs as much as; at most about ``MEMORY``."""
        return self._total / self._weight

    @property
    def mean(self) -> float:
        """Of at least one sample."""
        return self._sum / self._total

    def mixed(self, prior: Curve, prior_samples: float) -> Curve:
        """As if ``prior_samples`` more had been drawn from ``prior``, whose edges are the same."""
        pseudo = prior_samples * self._weight
        total = self._total + pseudo
        counted = accumulate(self._counts)
        shares = [
            (mine + pseudo * theirs) / total for mine, theirs in zip(counted, prior.shares, strict=True)
        ]
        return Curve(self._edges, shares)
