"""What a reader needs beside the figures: where, with what and by which command they were made."""

import os
import platform
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from loadgen.sweep.outcomes import Outcome


class RunInfo(msgspec.Struct, frozen=True):
    command: str
    trace: str | None
    """Name of the trace file, without its place."""
    machine: str
    commits: list[str]
    """Of the results: more than one if the sweep went on after a change of the code."""
    simulated_s: float
    """Seconds of one core that the cells took."""


def run_info(arguments: Sequence[str], trace: Path | None, outcomes: Iterable[Outcome]) -> RunInfo:
    ended = list(outcomes)
    return RunInfo(
        command=shlex.join(["loadgen", "sweep", *arguments]),
        trace=None if trace is None else trace.name,
        machine=machine(),
        commits=sorted({outcome.commit or "unknown" for outcome in ended}),
        simulated_s=sum(outcome.wall_s for outcome in ended),
    )


def machine() -> str:
    return (
        f"{processor()}, {os.cpu_count()} cores, {platform.system()}, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )


def processor() -> str:
    """Linux says it in /proc only."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine() or "unknown processor")
