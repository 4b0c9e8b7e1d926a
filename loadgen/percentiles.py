"""The one definition of mean, percentile and distribution curve behind every figure we print.

Percentiles are measured values, never interpolated: the smallest value with at least ``percent`` per
cent of all values at or below it (Hyndman and Fan 1996, definition 1). So a percentile in a table lies
on the step curve drawn beside it. Knows neither records nor units.
"""

from collections.abc import Iterable, Sequence

import msgspec

PERCENTS = (50, 95, 99)


class Distribution(msgspec.Struct, frozen=True):
    """What a set of measurements is summarised to; every field but ``count`` is None if there are none."""

    count: int
    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


def percentile(ascending: Sequence[float], percent: int) -> float:
    """The value at ``percent`` (1 to 100) of values that are sorted already."""
    assert ascending, "a percentile of nothing"
    assert 0 < percent <= 100, percent
    rank = -(-len(ascending) * percent // 100)  # whole numbers, so that rounding cannot move the rank
    return ascending[rank - 1]


def distribution(measured: Iterable[float | None]) -> Distribution:
    """Summary of the values that are known; unknown ones are left out, not taken for zero."""
    ascending = sorted(value for value in measured if value is not None)
    if not ascending:
        return Distribution(count=0)
    p50, p95, p99 = (percentile(ascending, percent) for percent in PERCENTS)
    mean = min(max(sum(ascending) / len(ascending), ascending[0]), ascending[-1])
    return Distribution(len(ascending), mean, p50, p95, p99, ascending[-1])


def cumulative_shares(measured: Iterable[float], max_points: int) -> list[tuple[float, float]]:
    """Points (value, share of values at or below it), ascending; thinned evenly in share beyond the limit.

    The smallest and the largest value are always kept. Among equal values the last one speaks.
    """
    assert max_points >= 2, max_points
    ascending = sorted(measured)
    count = len(ascending)
    if count <= max_points:
        ranks = list(range(count))
    else:
        ranks = [round(step * (count - 1) / (max_points - 1)) for step in range(max_points)]
    shares = {ascending[rank]: (rank + 1) / count for rank in ranks}
    return list(shares.items())
