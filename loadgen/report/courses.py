"""The plots over time: rates and gauges, one run per target, all to the same right edge.

``COURSES`` is the list of what is drawn, in order, with its words.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from loadgen.comparison_table import format_value
from loadgen.records import GaugeSample
from loadgen.report import plots
from loadgen.report.figures import Plot
from loadgen.report.series import Series, gauge_series, sessions_in_progress, throughput
from loadgen.report.svg import render
from loadgen.report.targets import Target
from loadgen.run_files import Run


@dataclass(frozen=True, slots=True)
class Course:
    """Something to draw over the time of a run."""

    ident: str
    title: str
    y_title: str
    explanation: str
    read: Callable[[Run], Series]
    is_ratio: bool = False
    is_step: bool = False
    is_optional: bool = False
    """Leave it out, without a word, where nothing was recorded."""


def _gauge(value: Callable[[GaugeSample], float | None]) -> Callable[[Run], Series]:
    return lambda run: gauge_series(run.gauges, value)


COURSES = (
    Course(
        "throughput",
        "Throughput",
        "turns per second",
        "Turns answered per second; higher is better, and a shorter line ended sooner.",
        lambda run: throughput(run.turns),
        is_step=True,
    ),
    Course(
        "progress",
        "Sessions in progress",
        "sessions",
        "Sessions that have arrived and are not done; a line that keeps climbing is a backlog.",
        lambda run: sessions_in_progress(run.sessions),
        is_step=True,
    ),
    Course(
        "kv",
        "KV cache use",
        "share of the pool",
        "A pool that stays full has to evict what sessions will need again.",
        _gauge(lambda sample: sample.kv_used_ratio),
        is_ratio=True,
    ),
    Course(
        "held",
        "Held sessions",
        "sessions",
        "Sessions the proxy keeps back until the server has room; without a proxy there are none.",
        _gauge(lambda sample: sample.held_sessions),
    ),
    Course(
        "running",
        "Running requests",
        "requests",
        "Requests in the server's batch; more is better use, until KV cache runs out.",
        _gauge(lambda sample: sample.running),
    ),
    Course(
        "waiting",
        "Waiting requests",
        "requests",
        "Requests queued inside the server, out of reach of any admission.",
        _gauge(lambda sample: sample.waiting),
    ),
    Course(
        "tools-running",
        "Running tools",
        "commands",
        "Tool commands at work on the tool hosts.",
        _gauge(lambda sample: sample.tools_running),
        is_optional=True,
    ),
    Course(
        "tools-queued",
        "Queued tools",
        "commands",
        "Tool commands that wait for a slot; a standing queue means the tool hosts are the bottleneck.",
        _gauge(lambda sample: sample.tools_queued),
        is_optional=True,
    ),
)


def courses(targets: Sequence[Target]) -> Iterator[Plot]:
    """What happened over time, one run per target."""
    end_s = max((_end_s(target.typical_run) for target in targets), default=0.0)
    for course in COURSES:
        series = {target.index: course.read(target.typical_run) for target in targets}
        drawn = {index: points for index, points in series.items() if points}
        if drawn and end_s > 0:
            yield _course_plot(targets, course, drawn, end_s)
        elif not course.is_optional:
            yield Plot(course.ident, course.title, course.explanation, None)


def _end_s(run: Run) -> float:
    """The last moment that any record of the run knows of."""
    known = [session.end_s for session in run.sessions] + [turn.last_token_s for turn in run.turns]
    known += [sample.at_s for sample in run.gauges]
    return max((at_s for at_s in known if at_s is not None), default=0.0)


def _course_plot(targets: Sequence[Target], course: Course, drawn: dict[int, Series], end_s: float) -> Plot:
    unit = "ratio" if course.is_ratio else "number"
    header = ["target", "least", "mean", "most"]
    rows = [header, *(_range_row(t, drawn[t.index], unit) for t in targets if t.index in drawn)]
    said = " ".join(f"{name}: {least} to {most}, mean {mean}." for name, least, mean, most in rows[1:])
    spec = plots.over_time(drawn, course.y_title, end_s, is_ratio=course.is_ratio, is_step=course.is_step)
    svg = render(spec, course.ident, course.title, f"{course.explanation} {said}")
    return Plot(course.ident, course.title, course.explanation, svg, rows)


def _range_row(target: Target, series: Series, unit: str) -> list[str]:
    values = [value for _, value in series]
    least, mean, most = min(values), sum(values) / len(values), max(values)
    return [target.name, *(_plain(value, unit) for value in (least, mean, most))]


def _plain(value: float, unit: str) -> str:
    return format_value(value, "ratio") if unit == "ratio" else f"{value:,.3g}"
