"""The same seeded workload against several targets, in turns, several times.

Repeat r uses seed + r on every target, so each pair of runs differs in the target alone; the order of
the targets rotates from repeat to repeat, so none of them always meets a warm machine.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
from rich.console import Console

from loadgen.client import open_http_client
from loadgen.comparison import compare_runs
from loadgen.errors import LoadgenError
from loadgen.recorder import REPORT_FILE
from loadgen.report import write_report
from loadgen.run import RunResult, RunSettings, run_load
from loadgen.source import Workload
from loadgen.target import base_url

COMPARISON_FILE = "comparison.json"
RESET_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class NamedTarget:
    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Comparison:
    result: dict[str, Any]
    runs: list[RunResult] = field(default_factory=list)
    is_interrupted: bool = False


def parse_targets(texts: list[str]) -> list[NamedTarget]:
    """``name=URL``, or a URL whose name is then its host and port."""
    targets = [parse_target(text) for text in texts]
    if len(targets) < 2:
        raise LoadgenError("compare needs two targets or more: NAME=URL NAME=URL ...")
    names = [target.name for target in targets]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise LoadgenError(f"target name {twice[0]!r} is there twice; give names as NAME=URL")
    return targets


def parse_target(text: str) -> NamedTarget:
    name, equals, url = text.partition("=")
    if not equals or name.startswith(("http://", "https://")):
        return NamedTarget(base_url(text).partition("//")[2].replace("/", "_"), base_url(text))
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise LoadgenError(f"target name {name!r}: allowed are letters, digits, '-', '_' and '.'")
    return NamedTarget(name, base_url(url))


def rounds(targets: list[NamedTarget], repeats: int) -> Iterator[tuple[int, NamedTarget]]:
    """Every target once a repeat; who comes first rotates."""
    for repeat in range(repeats):
        first = repeat % len(targets)
        for target in targets[first:] + targets[:first]:
            yield repeat, target


async def compare_targets(
    targets: list[NamedTarget],
    settings: RunSettings,
    workload_of: Callable[[int], Workload],
    repeats: int,
    console: Console,
) -> Comparison:
    """Runs everything and writes ``comparison.json``. ``workload_of`` takes the seed of a repeat."""
    if repeats < 1:
        raise LoadgenError(f"--repeats is {repeats}; allowed: 1 or more, 3 for medians that mean something")
    groups: dict[str, list[Path]] = {target.name: [] for target in targets}
    runs: list[RunResult] = []
    for repeat, target in rounds(targets, repeats):
        seed = settings.seed + repeat
        out_dir = settings.out_dir / target.name / f"r{repeat + 1}"
        one = replace(settings, target=target.url, label=target.name, seed=seed, out_dir=out_dir)
        if settings.engine is not None:
            await reset_prefix_cache(settings.engine)
        runs.append(await run_load(one, workload_of(seed), console))
        if runs[-1].is_interrupted:
            break
        groups[target.name].append(out_dir)
    return conclude(groups, runs, settings.out_dir)


async def reset_prefix_cache(engine: str) -> None:
    """So that no run finds the KV blocks of the one before it."""
    url = f"{base_url(engine)}/reset_prefix_cache"
    try:
        async with open_http_client() as http:
            response = await http.post(url, timeout=RESET_TIMEOUT_S)
    except (httpx.HTTPError, OSError, TimeoutError) as exc:
        raise LoadgenError(f"--engine: {url} does not answer ({type(exc).__name__})") from exc
    if response.status_code == 404:
        raise LoadgenError(f"--engine: {url} is not there; start vLLM with VLLM_SERVER_DEV_MODE=1")
    if response.status_code >= 400:
        raise LoadgenError(f"--engine: {url} answers HTTP {response.status_code}")


def conclude(groups: dict[str, list[Path]], runs: list[RunResult], out_dir: Path) -> Comparison:
    """Of the targets that have a whole run; after Ctrl-C that may be less than all."""
    measured = {name: run_dirs for name, run_dirs in groups.items() if run_dirs}
    is_interrupted = any(run.is_interrupted for run in runs)
    if not measured:
        return Comparison({}, runs, is_interrupted)
    result = compare_runs(measured)
    text = msgspec.json.format(msgspec.json.encode(result), indent=2)
    (out_dir / COMPARISON_FILE).write_bytes(text + b"\n")
    write_report([path for run_dirs in measured.values() for path in run_dirs], out_dir / REPORT_FILE)
    return Comparison(result, runs, is_interrupted)
