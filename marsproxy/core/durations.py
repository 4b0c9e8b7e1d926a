"""How long something takes, as a distribution: learned online in bounded space, and asked for shares.

Owns the form of a learned distribution of seconds; must not know what is timed.

Why a histogram of our own: kept sketches (DDSketch, t-digest, HDR) answer for everything since the start
or for a window that one rotates by hand; none decays, and the core takes no packages. With buckets whose
edges never change, decay is one growing weight and shrinking one distribution towards another is a
weighted sum.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

BUCKETS_PER_DECADE = 4
LEAST_EXPONENT = -2
MOST_EXPONENT = 4
EDGES_S = tuple(
    10 ** (LEAST_EXPONENT + i / BUCKETS_PER_DECADE)
    for i in range((MOST_EXPONENT - LEAST_EXPONENT) * BUCKETS_PER_DECADE + 1)
)
"""Upper edges of the buckets: 10 ms, below which nothing is decided, to 2.8 h, longer than any row of the
session table lives; each 1.78 times the one before. What is longer counts as that."""

MEMORY = 300
"""Samples after which a sample weighs 1/e: enough that three of them lie beyond the 99th percentile, and
a few sessions' worth of tool calls."""
WEIGHT_LIMIT = 1e12
"""Weights are scaled back beyond this, far from where a float loses small counts."""


@dataclass(frozen=True, slots=True)
class DurationCurve:
    """A distribution function: at ``edges_s[i]`` the share ``over[i]`` is over. Straight in between."""

    edges_s: Sequence[float]
    over: Sequence[float]

    def over_within(self, within_s: float) -> float:
        index = bisect_left(self.edges_s, within_s)
        if index == len(self.edges_s):
            return self.over[-1]
        before_s, before = (self.edges_s[index - 1], self.over[index - 1]) if index else (0.0, 0.0)
        width_s = self.edges_s[index] - before_s
        part = (within_s - before_s) / width_s if width_s > 0 else 1.0
        return before + part * (self.over[index] - before)

    def quantile_s(self, share: float) -> float:
        """Seconds within which ``share`` of all are over."""
        index = min(bisect_left(self.over, share), len(self.over) - 1)
        before_s, before = (self.edges_s[index - 1], self.over[index - 1]) if index else (0.0, 0.0)
        rise = self.over[index] - before
        part = min(1.0, (share - before) / rise) if rise > 0 else 1.0
        return before_s + part * (self.edges_s[index] - before_s)


def certain(duration_s: float) -> DurationCurve:
    """Of something that is known to take exactly that long."""
    return DurationCurve((duration_s, duration_s), (0.0, 1.0))


class DecayedHistogram:
    """Counts by bucket, in which an old sample weighs less than a new one."""

    __slots__ = ("_counts", "_total", "_weight")

    def __init__(self) -> None:
        self._counts = [0.0] * len(EDGES_S)
        self._total = 0.0
        self._weight = 1.0

    def add(self, duration_s: float) -> None:
        """Growing the newest weight is decaying all the others, in constant time."""
        self._weight *= 1 + 1 / MEMORY
        self._counts[min(bisect_left(EDGES_S, duration_s), len(EDGES_S) - 1)] += self._weight
        self._total += self._weight
        if self._weight > WEIGHT_LIMIT:
            self._counts = [count / self._weight for count in self._counts]
            self._total /= self._weight
            self._weight = 1.0

    @property
    def samples(self) -> float:
        """How many it weighs as much as; at most about ``MEMORY``."""
        return self._total / self._weight

    def shrunk_towards(self, prior: Sequence[float], prior_samples: float) -> list[float]:
        """Distribution function at the edges, as if ``prior_samples`` had been drawn from ``prior``."""
        pseudo = prior_samples * self._weight
        total = self._total + pseudo
        counted = accumulate(self._counts)
        return [(mine + pseudo * theirs) / total for mine, theirs in zip(counted, prior, strict=True)]
