"""The plots of distributions and of lanes, with their words: title, what to see, description, numbers.

Decides what is drawn for a set of targets; a plot without an ``svg`` had nothing recorded to draw.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from markupsafe import Markup

from loadgen.comparison_table import format_value
from loadgen.percentiles import percentile
from loadgen.records import TurnRecord
from loadgen.report import plots
from loadgen.report.lanes import MAX_SEGMENTS, MAX_SEGMENTS_IN_ALL, Lane, lanes
from loadgen.report.svg import render
from loadgen.report.targets import Target
from loadgen.summary import is_answered

TABLE_PERCENTS = (5, 10, 25, 50, 75, 90, 95, 99, 100)


@dataclass(frozen=True, slots=True)
class Plot:
    """One figure of the page; ``svg`` is None where there was nothing to draw."""

    ident: str
    title: str
    explanation: str
    svg: Markup | None
    rows: list[list[str]] = field(default_factory=list)
    """The numbers behind the plot, a header row first."""


def distributions(targets: Sequence[Target]) -> Iterator[Plot]:
    """Curves of what a session and a turn had to wait."""
    yield _cdf_plot(
        targets,
        "jct",
        "Job completion time",
        "Further left is better: the curve shows which share of the sessions was done within a time.",
        lambda target: [[one.jct_s for one in run.sessions if one.is_completed] for run in target.runs],
        is_log=False,
    )
    for ident, title, explanation, is_continuation in (
        (
            "ttft",
            "Time to first token, all turns",
            "What a user waits for at each turn, time held by a proxy included.",
            None,
        ),
        (
            "ttft-new",
            "Time to first token, new sessions",
            "The first turn computes its whole prompt, and is what a proxy holds back under load.",
            False,
        ),
        (
            "ttft-continuation",
            "Time to first token, continuations",
            "Quick where the KV cache is still warm; a long right tail is prompts computed again.",
            True,
        ),
    ):
        yield _cdf_plot(targets, ident, title, explanation, _ttfts(is_continuation), is_log=True)


def _ttfts(is_continuation: bool | None) -> Callable[[Target], list[list[float | None]]]:
    """TTFTs of each run: of continuations, of first turns, or (None) of both."""

    def of_class(turns: Sequence[TurnRecord]) -> list[float | None]:
        answered = filter(is_answered, turns)
        return [one.ttft_s for one in answered if is_continuation in (None, one.is_continuation)]

    return lambda target: [of_class(run.turns) for run in target.runs]


def _cdf_plot(
    targets: Sequence[Target],
    ident: str,
    title: str,
    explanation: str,
    measured: Callable[[Target], list[list[float | None]]],
    *,
    is_log: bool,
) -> Plot:
    curves = {
        target.index: [[value for value in run if value is not None] for run in measured(target)]
        for target in targets
    }
    if not any(chain.from_iterable(curves.values())):
        return Plot(ident, title, explanation, None)
    rows = _percentile_rows(targets, curves)
    spec = plots.cdf(curves, [target.name for target in targets], _axis_title(ident), is_log=is_log)
    description = f"{explanation} " + " ".join(_row_in_words(rows[0], row) for row in rows[1:])
    return Plot(ident, title, explanation, render(spec, ident, title, description), rows)


def _axis_title(ident: str) -> str:
    return "JCT (seconds)" if ident == "jct" else "TTFT (logarithmic)"


def _percentile_rows(targets: Sequence[Target], curves: plots.Curves) -> list[list[str]]:
    rows = [["target", "count", *(f"p{percent}" for percent in TABLE_PERCENTS)]]
    for target in targets:
        pooled = sorted(chain.from_iterable(curves[target.index]))
        values = [percentile(pooled, percent) if pooled else None for percent in TABLE_PERCENTS]
        rows.append([target.name, str(len(pooled)), *(format_value(value, "s") for value in values)])
    return rows


def _row_in_words(header: list[str], row: list[str]) -> str:
    said = ", ".join(f"{title} {value}" for title, value in zip(header[2:], row[2:], strict=True))
    return f"{row[0]}, {row[1]} values: {said}."


def timelines(targets: Sequence[Target]) -> Iterator[Plot]:
    """A plot of lanes per target, all with the same length of time."""
    budget = min(MAX_SEGMENTS, MAX_SEGMENTS_IN_ALL // max(len(targets), 1))
    drawn = {
        target.index: lanes(target.typical_run.sessions, target.typical_run.turns, budget)
        for target in targets
    }
    end_s = max((lane.ended_s for of_target in drawn.values() for lane in of_target), default=0.0)
    for target in targets:
        yield _timeline(target, drawn[target.index], end_s)


def _timeline(target: Target, drawn: list[Lane], end_s: float) -> Plot:
    ident, title = f"timeline-{target.index}", f"Sessions over time: {target.name}"
    total = len(target.typical_run.sessions)
    shown = (
        f"All {total} sessions" if len(drawn) == total else f"{len(drawn)} of {total} sessions, spread evenly"
    )
    explanation = f"{shown}, one lane each, the first to arrive on top."
    if not any(lane.segments for lane in drawn) or end_s <= 0:
        return Plot(ident, title, explanation, None)
    spent = ", ".join(
        f"{plots.STATE_TITLES[state]} {format_value(sum(lane.seconds(state) for lane in drawn), 's')}"
        for state in plots.STATE_TITLES
    )
    description = f"{explanation} Time in all lanes together: {spent}."
    return Plot(ident, title, explanation, render(plots.timeline(drawn, end_s), ident, title, description))
