"""How far things of a kind get before they end, learned also from those that have not ended yet.

Theory of operation
-------------------

The mean of what has ended is too low while few have: the first to finish are the short ones. A life
table asks another question, bucket by bucket: of those that left this bucket, how many left it by ending
in it, and how many by growing out of it? The answer needs no end to be seen of those that grew, so a
session still running counts for every bucket that it has behind it. (The estimator is Kaplan and
Meier's, JASA 1958, in its grouped form; a session whose growth is first seen half way counts from there.)

Chained from the last bucket to the first, the answers give the mean over all, and for something that has
come a certain way the mean over those that came as far. Where everything has ended, the mean over all is
exactly the mean of the ends. A prior is a fraction of a cohort that went through the table before, so it
weighs less in each bucket the more have been there.

Knows sizes only; whether they are tokens or seconds is the user's business.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from math import erf, exp, pi, sqrt
from operator import mul, sub

MEMORY = 30
"""Ends after which an end weighs 1/e (simulated runs: 30 follows drift without jumping about)."""
GROWTH = 1 / (1 - 1 / MEMORY)
"""By which an end weighs more than the one before it."""
WEIGHT_LIMIT = 1e12
"""Weights are scaled back beyond this, far from where a float loses small counts."""
NOTHING = 1e-6
"""A share or count below this says nothing: what is left of a prior far beyond its tail, or of rounding."""
RATIO = 2**0.25
"""From one edge to the next. Who is still in a bucket says nothing about it yet, so buckets that are too wide
lose what a crowd that grows in step has to tell (half an octave: 8 points more bias at the tenth end)."""


def edges(least: float, most: float) -> tuple[float, ...]:
    """Where buckets begin: 0, ``least`` and on by ``RATIO`` up to ``most``; the last one has no end."""
    found = [0.0, least]
    while found[-1] < most:
        found.append(found[-1] * RATIO)
    return tuple(found)


def next_edge(edges: Sequence[float], size: float) -> float:
    """Where the bucket after that of ``size`` begins; of the last bucket, where it begins itself."""
    return edges[min(bisect_right(edges, size), len(edges) - 1)]


@dataclass(frozen=True, slots=True, eq=False)
class LifeCurve:
    """A distribution of final sizes. Two are the same only if they are one object."""

    edges: Sequence[float]
    alive: Sequence[float]
    """Share that gets to the beginning of each bucket."""
    ending: Sequence[float]
    """Of those, the share that ends in it; 1 in the last."""
    end_mean: Sequence[float]
    """Mean size of those that end in it."""
    expected: Sequence[float]
    """Mean final size of those that get to its beginning."""

    @property
    def mean(self) -> float:
        return self.expected[0]

    def expected_of(self, size: float) -> float:
        """Mean final size of those that have come to ``size``; always more than it."""
        bucket = bisect_right(self.edges, size) - 1
        is_last = bucket == len(self.edges) - 1
        upper = size * RATIO if is_last else self.edges[bucket + 1]
        # Who has come beyond the usual end within the bucket ends half way to where it ends.
        end = self.end_mean[bucket]
        end = end if end > size else (size + upper) / 2
        return end if is_last else end + (1 - self.ending[bucket]) * (self.expected[bucket + 1] - end)


def life_curve(edges: Sequence[float], ending: Sequence[float], end_mean: Sequence[float]) -> LifeCurve:
    expected = [end_mean[-1]]
    for ends, mean in zip(ending[-2::-1], end_mean[-2::-1], strict=True):
        expected.append(ends * mean + (1 - ends) * expected[-1])
    return LifeCurve(edges, alive_of(ending), ending, end_mean, expected[::-1])


def alive_of(ending: Sequence[float]) -> Sequence[float]:
    """Of all, the share that gets to the beginning of each bucket."""
    return list(accumulate(map(sub, repeat(1.0), ending[:-1]), mul, initial=1.0))


def rayleigh(edges: Sequence[float], mean: float) -> LifeCurve:
    """A prior of that mean. Its 90th percentile is 1.8 and its 99th 2.6 times its median, as the final
    contexts of coding agents are (SWE-agent 1.7 and 2.9, Claude Code on SWE-rebench 1.5 and 1.9)."""
    alive = [exp(-pi / 4 * (edge / mean) ** 2) for edge in edges]
    lived = [mean * erf(sqrt(pi) / 2 * edge / mean) for edge in edges]
    ending, end_mean = [], []
    for i, edge in enumerate(edges[:-1]):
        ends = alive[i] - alive[i + 1]
        both = edge * alive[i] - edges[i + 1] * alive[i + 1] + lived[i + 1] - lived[i]
        is_reached = ends > NOTHING
        ending.append(ends / alive[i] if is_reached else 0.5)
        end_mean.append(both / ends if is_reached else (edge + edges[i + 1]) / 2)
    return life_curve(edges, [*ending, 1.0], [*end_mean, edges[-1] * RATIO])


class LifeTable:
    """Counts by bucket: who ended in it, at which size, and who grew out of it. Older ones weigh less.

    An end makes all before it lighter; so that it need not touch them, each new one is heavier instead, and
    what is read is divided by the weight of the newest.
    """

    __slots__ = ("_edges", "_ended", "_ended_size", "_grown", "_reached", "_weight", "ends", "steps")

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = edges
        self._grown = [0.0] * len(edges)
        self._ended = [0.0] * len(edges)
        self._ended_size = [0.0] * len(edges)
        self._weight = 1.0
        self._reached = 0
        """Buckets up to the highest that anything came to; beyond it all counts are 0."""
        self.ends = 0
        """Ends told so far."""
        self.steps = 0
        """Buckets grown out of, told so far."""

    def grew(self, before: float, after: float) -> None:
        """Something has come from one size to another."""
        first, last = bisect_right(self._edges, before) - 1, bisect_right(self._edges, after) - 1
        if last > first:
            grown, weight = self._grown, self._weight
            for bucket in range(first, last):
                grown[bucket] += weight
            self.steps += last - first
            self._reached = max(self._reached, last)

    def ended(self, size: float) -> int:
        """Something has come to its end. The number is for ``resumed``."""
        self._weight *= GROWTH
        if self._weight > WEIGHT_LIMIT:
            self._scale_back()
        self._add_end(size, self._weight)
        self.ends += 1
        return self.ends

    def resumed(self, size: float, end: int) -> None:
        """That was not the end: what it had come to weigh by now is taken back."""
        self._add_end(size, -self._weight * GROWTH ** (end - self.ends))

    def _add_end(self, size: float, weight: float) -> None:
        bucket = bisect_right(self._edges, size) - 1
        self._ended[bucket] = max(0.0, self._ended[bucket] + weight)
        self._ended_size[bucket] = max(0.0, self._ended_size[bucket] + weight * size)
        self._reached = max(self._reached, bucket + 1)

    def _scale_back(self) -> None:
        for counts in (self._grown, self._ended, self._ended_size):
            counts[:] = [count / self._weight for count in counts]
        self._weight = 1.0

    @property
    def members(self) -> float:
        """How many it has seen begin and get anywhere, less those forgotten."""
        return (self._grown[0] + self._ended[0]) / self._weight

    @property
    def steps_kept(self) -> float:
        """Of the steps, those that still count. Linear in the number of buckets."""
        return sum(self._grown) / self._weight

    def surprise(self, prior: LifeCurve) -> float:
        """How far the ends seen are from those that the prior lets expect, as a squared normal deviate.

        The log-rank test against one known curve: about 1 on average if the prior is the truth.
        """
        reached = self._reached
        off, variance = 0.0, 0.0
        for grown, ended, share in zip(
            self._grown[:reached], self._ended[:reached], prior.ending[:reached], strict=True
        ):
            if left := grown + ended:
                expected = left * share
                off += ended - expected
                variance += expected - expected * share
        return off * off / (variance * self._weight) if variance > NOTHING * self._weight else 0.0

    def curve(self, prior: LifeCurve, prior_count: float) -> LifeCurve:
        """What was seen, and ``prior_count`` more that went as the prior has it."""
        weight, nothing, reached = prior_count * self._weight, NOTHING * self._weight, self._reached
        backwards = slice(reached - 1, None, -1) if reached else slice(0)
        expected_after = prior.expected[reached] if reached < len(self._edges) else 0.0
        ending, end_mean, expected = [], [], []
        for grown, ended, ended_size, alive, share, mean in zip(
            *(counts[backwards] for counts in (self._grown, self._ended, self._ended_size)),
            *(known[backwards] for known in (prior.alive, prior.ending, prior.end_mean)),
            strict=True,
        ):
            came = weight * alive
            ends = ended + came * share
            left = ended + grown + came
            if ends > nothing:
                mean = (ended_size + came * share * mean) / ends
            if left > nothing:
                share = ends / left
            expected_after = share * mean + (1 - share) * expected_after
            ending.append(share)
            end_mean.append(mean)
            expected.append(expected_after)
        # Beyond what was reached, all is as the prior has it.
        ending = [*reversed(ending), *prior.ending[reached:]]
        end_mean = [*reversed(end_mean), *prior.end_mean[reached:]]
        expected = [*reversed(expected), *prior.expected[reached:]]
        return LifeCurve(self._edges, alive_of(ending), ending, end_mean, expected)
