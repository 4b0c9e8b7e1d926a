"""The knee: the largest load at which the mean JCT is less than twice that of an unhurried server.

Past it work queues up faster than it is done. Two forms: of a curve that was measured, and a search that
says which rate to measure next. Pure; the median over the seeds is the caller's.
"""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

import msgspec

from loadgen.sweep.grid import LIGHT_LOAD

KNEE_FACTOR = 2.0
"""Times the light-load JCT. With exponential service M/M/1 is there at half its capacity."""

SEARCH_PRECISION = 1.1
"""The search stops when the knee is known within this factor: the noise of a few seeds is larger."""

MAX_DOUBLINGS = 16


class Knee(msgspec.Struct, frozen=True):
    load: float
    """Where the curve crosses, between two measured loads by a straight line on logarithmic axes."""
    is_bound: bool = False
    """True: nothing measured is past the knee, so it is at ``load`` or above."""


def knee_of(jct_by_load: Mapping[float, float]) -> Knee | None:
    """Of a policy's curve (median mean JCT by load); None if nothing is known at a light load, or if even
    the second load is over. Loads after the first one that is over do not count: luck is not capacity."""
    loads = sorted(jct_by_load)
    if len(loads) < 2 or loads[0] > 2 * LIGHT_LOAD:
        return None
    limit_s = KNEE_FACTOR * jct_by_load[loads[0]]
    for below, above in pairwise(loads):
        if jct_by_load[above] >= limit_s:
            return Knee(crossing((below, jct_by_load[below]), (above, jct_by_load[above]), limit_s))
    return Knee(loads[-1], is_bound=True)


def crossing(below: tuple[float, float], above: tuple[float, float], limit_s: float) -> float:
    (load_0, jct_0), (load_1, jct_1) = below, above
    share = math.log(limit_s / jct_0) / math.log(jct_1 / jct_0)
    return load_0 * math.exp(share * math.log(load_1 / load_0))


class NoKneeError(Exception):
    """The search ended without one; the message says why."""


def search_knee(is_over: Callable[[float], bool], start_per_s: float) -> float:
    """Sessions a second at the knee: the largest rate that is not over.

    ``is_over`` may raise to say that a rate has to be measured first: the search is replayed with what is
    known then. The start only decides how long it takes.
    """
    good = bad = start_per_s
    for _ in range(MAX_DOUBLINGS):
        if is_over(bad):
            break
        good, bad = bad, bad * 2
    else:
        raise NoKneeError(f"the mean JCT has not doubled at {bad:.3g} sessions a second")
    for _ in range(MAX_DOUBLINGS):
        if good < bad and not is_over(good):
            break
        good, bad = good / 2, min(good, bad)
    else:
        raise NoKneeError(f"the mean JCT has doubled already at {good:.3g} sessions a second")
    while bad / good > SEARCH_PRECISION:
        middle = math.sqrt(good * bad)
        good, bad = (good, middle) if is_over(middle) else (middle, bad)
    return good
