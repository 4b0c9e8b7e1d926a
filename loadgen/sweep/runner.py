"""Runs cells on all cores, in processes of their own, and keeps what each gave as soon as it ends.

A cell that fails is recorded with its error and stops nothing. Ctrl-C ends the workers and keeps what is
recorded. Knows neither the simulator, which comes in as a function, nor the grid.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from loadgen.errors import LoadgenError
from loadgen.sweep.cells import Cell, Recipe
from loadgen.sweep.outcomes import Outcome

IN_FLIGHT_PER_WORKER = 2
"""Cells handed over beyond the one a worker is at: enough that none waits, few enough to stop quickly."""


class Setting(msgspec.Struct, frozen=True):
    """What a worker is told beside a recipe."""

    trace: Path | None = None
    records_dir: Path | None = None
    """Where to leave the turns and sessions of every cell, in a directory named after its key."""
    commit: str | None = None


RunRecipe = Callable[[Recipe, Setting], dict[str, Any]]
"""Simulates and returns the content of ``summary.json``. A function of a module: workers import it."""


class Workers:
    """Processes that stay for the whole sweep: each imports the simulator once."""

    def __init__(self, pool: ProcessPoolExecutor, count: int, run: RunRecipe, setting: Setting) -> None:
        self.count = count
        self._pool, self._run, self._setting = pool, run, setting

    def run_cells(self, cells: Sequence[Cell], ended: Callable[[Outcome], None]) -> None:
        """Calls ``ended`` here, in order of completion."""
        waiting = iter(cells)
        running = {self._submit(cell) for cell in islice(waiting, self.count * IN_FLIGHT_PER_WORKER)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                ended(result_of(future))
            running |= {self._submit(cell) for cell in islice(waiting, len(done))}

    def _submit(self, cell: Cell) -> Future[Outcome]:
        return self._pool.submit(outcome_of, cell, self._run, self._setting)


def result_of(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool as exc:
        raise LoadgenError(
            "a worker process was killed (out of memory?); what is done is kept, go on with fewer --workers"
        ) from exc


@contextmanager
def open_workers(run: RunRecipe, setting: Setting, count: int | None = None) -> Iterator[Workers]:
    """Spawned, by default one for each core: a fork would copy threads' locks, and differs by platform."""
    count = count or available_cores()
    pool = ProcessPoolExecutor(
        count, mp_context=multiprocessing.get_context("spawn"), initializer=die_quietly_on_interrupt
    )
    try:
        yield Workers(pool, count, run, setting)
    except BaseException:
        # A cell may take minutes, and nobody will read what it gives.
        for child in multiprocessing.active_children():
            child.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()


def die_quietly_on_interrupt() -> None:
    """Ctrl-C in a terminal reaches the workers too; the parent is who speaks."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def outcome_of(cell: Cell, run: RunRecipe, setting: Setting) -> Outcome:
    """The root of a worker's task."""
    start_s = time.perf_counter()
    summary, error = None, None
    try:
        summary = run(cell.recipe, setting)
    except Exception as exc:  # noqa: BLE001 - the task's root: recorded, and shown in the tables
        error = f"{type(exc).__name__}: {exc}"
    wall_s = round(time.perf_counter() - start_s, 3)
    return Outcome(cell.key, cell, summary, error, wall_s, setting.commit)


def available_cores() -> int:
    """Those this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
