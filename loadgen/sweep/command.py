"""``loadgen sweep``: the grid as a command."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from loadgen.interrupt import EXIT_INTERRUPTED
from loadgen.provenance import commit
from loadgen.sweep.grid_file import read_grid
from loadgen.sweep.results import write_results
from loadgen.sweep.run_info import run_info
from loadgen.sweep.simulated import check_policy_entries, run_recipe
from loadgen.sweep.sweep import SweepOptions, knee_lines, parse_only, run_sweep

EXIT_FAILED_CELLS = 1
"""Also the exit code of a missed bar, where ``--strict`` asks for it."""


def sweep_command(
    grid: str,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    trace: Annotated[Path | None, Parameter(env_var="LOADGEN_TRACE")] = None,
    only: str | None = None,
    workers: int | None = None,
    keep_records: bool = False,
    retry_failed: bool = False,
    find_knee: bool = False,
    strict: bool = False,
) -> int:
    """Simulate a grid of policies, workloads, loads and seeds on all cores; tables and plots of it.

    Parameters
    ----------
    grid
        A grid file, or the name of a packaged one (full, cpu, reduced; comparison and fidelity need vLLM).
    out
        Directory for sweep.jsonl, results.md, results.json and results.html. With the directory of an
        earlier sweep only what is missing runs. Default: a new one below out/.
    trace
        Trace file for the workloads that can be made from one; without it the profiles stand in.
    only
        KEY=VALUE,... with policy, workload, load, agents, seed: run only these cells.
    workers
        Processes. Default: one for each core.
    keep_records
        Keep turns and sessions of every cell too, as run directories that ``loadgen report`` draws.
    retry_failed
        Run cells that failed earlier again.
    find_knee
        Only find the stock knee of the workloads that ask for it.
    strict
        Exit 1 if a bar of the grid is missed.
    """
    parsed = read_grid(grid)
    check_policy_entries(parsed.run.policies)
    out_dir = out or Path("out") / datetime.now(UTC).strftime("sweep-%Y%m%dT%H%M%S")
    console, errors = Console(soft_wrap=True, highlight=False, markup=False), Console(stderr=True)
    options = SweepOptions(
        out_dir, trace, parse_only(only), workers, keep_records, retry_failed, knees_only=find_knee
    )
    try:
        swept = run_sweep(parsed, options, run_recipe, errors, commit())
    except KeyboardInterrupt:
        again = f"loadgen sweep {grid} --out {out_dir}"
        errors.print(f"stopped; what has ended is kept. Go on with: {again}", markup=False, soft_wrap=True)
        return EXIT_INTERRUPTED
    for line in knee_lines(swept.plan):
        console.print(line)
    if find_knee:
        return 0 if swept.is_whole else EXIT_FAILED_CELLS
    info = run_info(command_line(grid, out_dir, trace, only), trace, swept.outcomes.values())
    judgements = write_results(parsed, swept, info, out_dir)
    for judgement in judgements:
        console.print(f"{judgement.verdict}: {judgement.bar.name}")
    for outcome in swept.failed:
        errors.print(f"failed: {outcome.cell.workload} {outcome.cell.policy}: {outcome.error}", markup=False)
    console.print(f"tables and plots: {out_dir / 'results.md'}, {out_dir / 'results.html'}")
    is_missed = strict and any(judgement.verdict == "MISS" for judgement in judgements)
    return 0 if swept.is_whole and not is_missed else EXIT_FAILED_CELLS


def command_line(grid: str, out_dir: Path, trace: Path | None, only: str | None) -> list[str]:
    """What makes the same figures elsewhere. The trace by its name: its place is this machine's."""
    traced = [] if trace is None else ["--trace", trace.name]
    return [grid, "--out", str(out_dir), *traced, *([] if only is None else ["--only", only])]
