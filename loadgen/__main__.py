"""The ``loadgen`` command: reads the options, runs, prints, exits."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from loadgen.command_run import default_out, exit_code, print_run, run_async
from loadgen.compare import Comparison, compare_targets, parse_targets
from loadgen.comparison_table import render_table
from loadgen.errors import LoadgenError
from loadgen.interrupt import EXIT_INTERRUPTED
from loadgen.options import ClientOptions, LoadOptions, WorkloadOptions, settings_of
from loadgen.run import run_load

EXIT_BAD_INPUT = 2

Out = Annotated[Path | None, Parameter(name=["--out", "-o"])]


def run(
    *,
    target: Annotated[str, Parameter(name=["--target", "-t"])],
    workload: WorkloadOptions,
    load: LoadOptions | None = None,
    client: ClientOptions | None = None,
    out: Out = None,
    allow_failures: bool = False,
) -> int:
    """Replay a workload live against an OpenAI-compatible server.

    Parameters
    ----------
    target
        URL of the server, with or without /v1.
    out
        Directory for turns.jsonl, sessions.jsonl, gauges.jsonl, summary.json and report.html.
        Default: a new one below out/.
    allow_failures
        Exit 0 even if sessions failed.
    """
    opened = workload.open(workload.seed)
    settings = settings_of(
        target, out or default_out(), opened, workload.seed, load or LoadOptions(), client or ClientOptions()
    )
    result = run_async(run_load(settings, opened, Console(stderr=True)))
    print_run(result)
    return exit_code([result], allow_failures)


def compare(
    *targets: str,
    target: Annotated[list[str] | None, Parameter(name=["--target", "-t"])] = None,
    workload: WorkloadOptions,
    load: LoadOptions | None = None,
    client: ClientOptions | None = None,
    repeats: int = 3,
    out: Out = None,
    allow_failures: bool = False,
) -> int:
    """Run the same seeded workload against several targets, alternating, and compare.

    Parameters
    ----------
    targets
        NAME=URL or URL of each server; the first is the baseline.
    target
        The same as an option.
    repeats
        Runs of each target; repeat r uses seed + r on all of them.
    out
        Directory for one run directory per target and repeat, comparison.json and report.html.
        Default: a new one below out/.
    allow_failures
        Exit 0 even if sessions failed.
    """
    named = parse_targets([*targets, *(target or [])])
    out_dir = out or default_out()
    first = workload.open(workload.seed)
    settings = settings_of(
        named[0].url, out_dir, first, workload.seed, load or LoadOptions(), client or ClientOptions()
    )
    comparison = run_async(compare_targets(named, settings, workload.open, repeats, Console(stderr=True)))
    print_comparison(comparison, out_dir)
    return exit_code(comparison.runs, allow_failures)


def print_comparison(comparison: Comparison, out_dir: Path) -> None:
    console = Console()
    if comparison.result:
        console.print(render_table(comparison.result))
    console.print(f"records and report: {out_dir}", markup=False, highlight=False, soft_wrap=True)


def build_app() -> App:
    app = App(name="loadgen", help="Replay agent workloads against OpenAI-compatible servers, and compare.")
    app.command(run)
    app.command(compare)
    # By name: drawing and the engine load libraries that a live run does not need. So the list of
    # commands cannot know their first lines, and has its own.
    app.command(
        "loadgen.importers.command:import_command",
        name="import",
        help="Turn transcripts of agents (Claude Code, Codex, OpenHands, ...) into a workload file.",
    )
    app.command(
        "loadgen.report:report_command",
        name="report",
        help="Draw runs as one self-contained HTML file, with the comparison as JSON beside it.",
    )
    app.command(
        "loadgen.agents.command:agents_command",
        name="agents",
        help="Run real agents of a framework, with a scripted model and real commands.",
    )
    app.command(
        "loadgen.sim.command:simulate_command",
        name="simulate",
        help="Play a workload in virtual time: the proxy's policy, a model of engine and tool hosts.",
    )
    app.command(
        "loadgen.sweep.command:sweep_command",
        name="sweep",
        help="Simulate a grid of policies, workloads, loads and seeds on all cores; tables and plots of it.",
    )
    app.command(
        "loadgen.calibration.command:calibrate",
        name="calibrate",
        help="Fit engine and tool parameters from a proxy's event log, and print them as TOML.",
    )
    app.command(
        "loadgen.engine.cli:engine_app",
        name="engine",
        help="Serve the embedded engine: a model of vLLM's scheduler behind vLLM's HTTP face, no GPU needed.",
    )
    return app


def run_command(arguments: list[str]) -> int:
    """The command line without the program's name; returns the exit code."""
    try:
        code = build_app()(arguments, result_action="return_value")
    except LoadgenError as exc:
        Console(stderr=True).print(f"loadgen: {exc}", markup=False, highlight=False, soft_wrap=True)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else 0


def main() -> None:
    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
