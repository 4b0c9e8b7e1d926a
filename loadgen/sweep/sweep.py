"""A sweep from the grid to the files: plans, runs, plans again until nothing is missing, writes it down."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import xxhash
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining

from loadgen.errors import LoadgenError
from loadgen.sweep.cells import FILTERS, Cell, select_cells
from loadgen.sweep.grid import Grid
from loadgen.sweep.outcomes import OUTCOMES_FILE, Outcome, OutcomeFile, write_in_order
from loadgen.sweep.plan import Plan, make_plan, pending
from loadgen.sweep.runner import RunRecipe, Setting, Workers, open_workers

MAX_BATCHES = 64
"""A search takes about ten; more means that the plan never ends."""


@dataclass(frozen=True, slots=True)
class SweepOptions:
    out_dir: Path
    trace: Path | None = None
    only: Mapping[str, list[str]] = field(default_factory=dict)
    workers: int | None = None
    keep_records: bool = False
    retry_failed: bool = False
    knees_only: bool = False


@dataclass(frozen=True, slots=True)
class Swept:
    plan: Plan
    outcomes: dict[str, Outcome]

    @property
    def failed(self) -> list[Outcome]:
        keys = {cell.key for cell in [*self.plan.cells, *self.plan.search]}
        return [one for key, one in self.outcomes.items() if one.error is not None and key in keys]

    @property
    def is_whole(self) -> bool:
        """Nothing failed, and nothing was given up for what failed before."""
        return not self.failed and not self.plan.notes


def run_sweep(
    grid: Grid, options: SweepOptions, run: RunRecipe, console: Console, commit: str | None
) -> Swept:
    """Runs what is missing. After Ctrl-C what has ended is on disk, and the interrupt goes on."""
    digest = trace_digest(options.trace)
    count = options.workers
    setting = Setting(options.trace, options.out_dir / "cells" if options.keep_records else None, commit)
    with OutcomeFile(options.out_dir / OUTCOMES_FILE) as file, open_workers(run, setting, count) as workers:
        if options.retry_failed:
            file.forget_failures()
        for batch in range(MAX_BATCHES):
            plan = make_plan(grid, file.outcomes, digest, knees_only=options.knees_only)
            missing = select_cells(pending(plan, file.outcomes), {} if plan.search else options.only)
            if not missing:
                break
            run_batch(missing, workers, file, console, batch + 1)
        else:
            raise AssertionError("a plan that never ends")
        outcomes = dict(file.outcomes)
    write_in_order(options.out_dir / OUTCOMES_FILE, outcomes, [cell.key for cell in plan.cells])
    return Swept(plan, outcomes)


def run_batch(
    cells: Sequence[Cell], workers: Workers, file: OutcomeFile, console: Console, batch: int
) -> None:
    failures: Counter[str] = Counter()
    with progress_bar(console) as bar:
        task = bar.add_task(f"batch {batch}", total=len(cells), state="")

        def ended(outcome: Outcome) -> None:
            file.add(outcome)
            failures.update([outcome.key] if outcome.error else [])
            state = f"{outcome.cell.workload} {outcome.cell.policy}"
            bar.update(task, advance=1, state=state + (f", {len(failures)} failed" if failures else ""))

        workers.run_cells(cells, ended)
    if not console.is_terminal:
        console.print(f"batch {batch}: {len(cells)} cells, {len(failures)} failed", highlight=False)


def progress_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        Remaining(),
        TextColumn("{task.fields[state]}", markup=False),
        console=console,
        refresh_per_second=4,
        transient=True,
        disable=not console.is_terminal,
    )


def trace_digest(trace: Path | None) -> str | None:
    if trace is None:
        return None
    try:
        return xxhash.xxh3_128_hexdigest(trace.read_bytes())
    except OSError as exc:
        raise LoadgenError(f"--trace {str(trace)!r} cannot be read: {exc.strerror}") from exc


def parse_only(text: str | None) -> dict[str, list[str]]:
    """``policy=mars,policy=fcfs,workload=mix``: values of one key add up, keys narrow each other."""
    only: dict[str, list[str]] = {}
    for part in filter(None, (text or "").split(",")):
        key, _, value = part.partition("=")
        if key not in FILTERS or not value:
            raise LoadgenError(f"--only {part!r}; allowed: KEY=VALUE,... with {', '.join(FILTERS)}")
        if key == "load":
            require_number(part, value)
        only.setdefault(key, []).append(value)
    return only


def require_number(part: str, value: str) -> None:
    try:
        float(value)
    except ValueError as exc:
        raise LoadgenError(f"--only {part!r}: a load is a number, a multiple of the knee") from exc


def knee_lines(plan: Plan) -> list[str]:
    """For the terminal: where stock's knees are."""
    found = [f"{name}: {rate:.4g} sessions a second" for name, rate in plan.knees.items()]
    return [*found, *plan.notes]


def encode(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
