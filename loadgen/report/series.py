"""Turns records into series over time, short enough to draw whatever the length of the run."""

from collections.abc import Callable, Sequence
from itertools import accumulate

from loadgen.records import GaugeSample, SessionRecord, TurnRecord
from loadgen.summary import is_answered

Series = list[tuple[float, float]]

MAX_GAUGE_POINTS = 240
"""A plot is about 500 px wide: one point per two pixels."""

THROUGHPUT_BINS = 60


def throughput(turns: Sequence[TurnRecord], bins: int = THROUGHPUT_BINS) -> Series:
    """Turns answered per second in equal intervals of the run, at the start of each interval."""
    ends = [turn.last_token_s for turn in turns if is_answered(turn) and turn.last_token_s is not None]
    last = max(ends, default=0.0)
    if last <= 0:
        return []
    width_s = last / bins
    counts = [0] * bins
    for end_s in ends:
        counts[min(max(int(end_s / width_s), 0), bins - 1)] += 1
    rates = [(index * width_s, count / width_s) for index, count in enumerate(counts)]
    return [*rates, (last, rates[-1][1])]


def sessions_in_progress(sessions: Sequence[SessionRecord]) -> Series:
    """Sessions that have arrived and not ended, after each change.

    One without an end is left out: when it left is not recorded.
    """
    ended = [session for session in sessions if session.end_s is not None]
    changes = sorted(
        [(session.arrival_s, 1) for session in ended]
        + [(session.end_s, -1) for session in ended if session.end_s is not None]
    )
    counts = accumulate(change for _, change in changes)
    return _thinned([(at_s, float(count)) for (at_s, _), count in zip(changes, counts, strict=True)])


def _thinned(points: Series) -> Series:
    """Every n-th point and the last."""
    stride = -(-len(points) // MAX_GAUGE_POINTS)
    return points if stride <= 1 else [*points[:-1:stride], points[-1]]


def gauge_series(gauges: Sequence[GaugeSample], value: Callable[[GaugeSample], float | None]) -> Series:
    """Known samples of one gauge in order of time; beyond the limit, means of equal runs of samples."""
    known = [(sample.at_s, float(read)) for sample in gauges if (read := value(sample)) is not None]
    known.sort()
    stride = -(-len(known) // MAX_GAUGE_POINTS)
    if stride <= 1:
        return known
    return [_mean_point(known[start : start + stride]) for start in range(0, len(known), stride)]


def _mean_point(points: Series) -> tuple[float, float]:
    return sum(at_s for at_s, _ in points) / len(points), sum(value for _, value in points) / len(points)
