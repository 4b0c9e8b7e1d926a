"""One-dimensional distributions given by a quantile table, a range or a constant; sampled by seed."""

import math
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

from loadgen.errors import FieldError


@dataclass(frozen=True, slots=True)
class Distribution:
    """Inverse of a distribution function: ``(share, value)`` points, shares rising from 0 to 1.

    Between two points of a table the value is interpolated on a log scale where both are positive:
    lengths and durations of agents spread over decades, and a straight line would fatten every tail.
    """

    points: tuple[tuple[float, float], ...]
    is_linear: bool = False

    def at(self, share: float) -> float:
        low_share, low = self.points[0]
        for high_share, high in self.points[1:]:
            if share <= high_share:
                part = (share - low_share) / (high_share - low_share)
                if low > 0 and not self.is_linear:
                    return low * math.exp(part * math.log(high / low))
                return low + part * (high - low)
            low_share, low = high_share, high
        return low

    def sample(self, rng: Random) -> float:
        return self.at(rng.random())

    def sample_int(self, rng: Random) -> int:
        return max(1, round(self.sample(rng)))


def parse_distribution(field: str, table: Any) -> Distribution:
    """``{quantiles = [[percent, value], ...]}``, ``{uniform = [least, most]}`` or ``{constant = x}``."""
    is_linear = "uniform" in table
    match table:
        case {"quantiles": [_, _, *_] as rows}:
            points = tuple((percent / 100, float(value)) for percent, value in rows)
        case {"uniform": [least, most]}:
            points = ((0.0, float(least)), (1.0, float(most)))
        case {"constant": value}:
            points = ((0.0, float(value)), (1.0, float(value)))
        case _:
            raise FieldError(field, "is no distribution; allowed keys: quantiles, uniform, constant")
    check_points(field, points)
    return Distribution(points, is_linear)


def check_points(field: str, points: tuple[tuple[float, float], ...]) -> None:
    shares = [share for share, _ in points]
    values = [value for _, value in points]
    if shares[0] != 0 or shares[-1] != 1 or any(a >= b for a, b in pairwise(shares)):
        raise FieldError(field, "has percents that do not rise from 0 to 100")
    if values[0] < 0 or any(a > b for a, b in pairwise(values)):
        raise FieldError(field, "has values that are negative or fall; allowed: rising values >= 0")
