"""What commands of ``loadgen`` that play a run do around it: an event loop, a directory, a last word."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from rich.console import Console

from loadgen.interrupt import EXIT_INTERRUPTED
from loadgen.run import RunResult

EXIT_FAILED_SESSIONS = 1
T = TypeVar("T")


def run_async(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def default_out() -> Path:
    return Path("out") / datetime.now(UTC).strftime("%Y%m%dT%H%M%S")


def exit_code(results: list[RunResult], allow_failures: bool) -> int:
    if any(result.is_interrupted for result in results):
        return EXIT_INTERRUPTED
    if any(result.has_failures for result in results) and not allow_failures:
        return EXIT_FAILED_SESSIONS
    return 0


def print_run(result: RunResult) -> None:
    summary = result.summary
    console = Console(highlight=False, soft_wrap=True, markup=False)
    jct, ttft = summary["jct_s"]["mean"], summary["ttft_s"]["mean"]
    state = "interrupted" if result.is_interrupted else "done"
    console.print(
        f"{state}: {summary['completed']} of {summary['sessions']} sessions completed, "
        f"{summary['failed']} failed, {summary['turns']} turns"
    )
    console.print(f"mean JCT {seconds_text(jct)}, mean TTFT {seconds_text(ttft)}")
    client = summary["client"]
    console.print(
        f"driver: {client['cpu_s']:.1f} s of CPU, "
        f"event loop late by at most {client['loop_lag_max_s'] * 1000:.0f} ms"
    )
    console.print(f"records and report: {result.out_dir}")


def seconds_text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f} s"
