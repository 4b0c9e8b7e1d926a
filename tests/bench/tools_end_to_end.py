"""What the CPU budget is worth with real commands: agents through the proxy, their tools through the gateway.

    python tests/bench/tools_end_to_end.py --out DIR [--repeats 3] [--sessions 16] [--rate 0.5] [--slots 2]
        [--systems with,without]

Everything is real but the accelerator: the embedded engine answers in its model's time over HTTP, the proxy
decides, and tools are commands that compute for their traced time on this machine, in the gateway's slots.
Systems: ``with`` the CPU budget; ``without`` it (the proxy is told of the tools all the same, so that its
leases follow them, and its limits for the hosts are out of reach); ``stock``, straight at the engine.

Each repeat has a seed of its own, the same for every system, and systems take turns, so that a drift of the
machine hits all alike. Engine, proxy, gateway and load generator share the cores with the tools: the
seconds are this machine's, and only what stands side by side compares. Runs that are there already are not
repeated. Leaves ``result.json`` in each run's directory, ``results.json`` and ``results.md``.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from marsproxy.children import Child

RUN_TIMEOUT_S = 3_600.0
KV_TOKENS = 400_000
"""Room for every session of a run: what waits here waits for tools."""
NO_CPU_BUDGET = (
    *("--admission.tools-per-core", "1000"),
    *("--admission.tool-wait-limit-s", "1000000"),
    *("--admission.tool-memory-target", "1"),
    *("--admission.tool-pressure-limit", "1"),
)
SYSTEMS: dict[str, tuple[str, ...] | None] = {"with": (), "without": NO_CPU_BUDGET, "stock": None}
"""Flags of the proxy; None is no proxy."""


@dataclass(frozen=True, slots=True)
class Shape:
    sessions: int
    rate: float
    """Sessions a second: faster than the tools' cores can serve them, so that there is something to do."""
    slots: int
    workload: str
    max_turns: int
    scale_gaps: float
    scale_tokens: float

    def load(self, seed: int) -> list[str]:
        return [
            *("--workload", self.workload, "--sessions", str(self.sessions), "--seed", str(seed)),
            *("--rate", repr(self.rate), "--max-turns", str(self.max_turns)),
            *("--scale-gaps", repr(self.scale_gaps), "--scale-tokens", repr(self.scale_tokens)),
            *("--max-context-tokens", str(KV_TOKENS // 4), "--answers", "calls"),
        ]


@dataclass(frozen=True, slots=True)
class Row:
    """Of one system: medians over the repeats, seconds but for the first two."""

    repeats: int
    failed: int
    """Sessions, over all repeats."""
    jct_mean_s: float
    jct_p95_s: float
    makespan_s: float
    tool_queue_mean_s: float
    tool_queue_p95_s: float
    held_mean_s: float
    """From a turn's arrival to its way to the engine."""


METRICS = {
    "jct_mean_s": "JCT mean s",
    "jct_p95_s": "JCT p95 s",
    "makespan_s": "makespan s",
    "tool_queue_mean_s": "tool wait mean s",
    "tool_queue_p95_s": "tool wait p95 s",
    "held_mean_s": "held mean s",
}


async def run_one(system: str, shape: Shape, seed: int, out: Path) -> None:
    async with AsyncExitStack() as stack:

        async def start(module: str, *arguments: str) -> str:
            child = Child(module, *arguments)
            stack.push_async_callback(child.stop)
            return await child.start()

        engine = await start(
            *("loadgen", "engine", "--port", "0", "--kv-tokens", str(KV_TOKENS)),
            *("--scheduling-policy", "priority", "--stream-interval", "8"),
        )
        target, flags, report_to = engine, SYSTEMS[system], list[str]()
        if flags is not None:
            target = await start(
                *("marsproxy", "serve", "--port", "0", "--backend", engine, "--log-level", "warning"), *flags
            )
            report_to = ["--proxy", target]
        gateway = await start("gateway", "serve", "--port", "0", "--slots", str(shape.slots), *report_to)
        loadgen = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "loadgen", "run", "--target", target, "--engine", engine),
            *("--tools", "gateway", "--gateway", gateway, "--out", str(out), "--allow-failures"),
            *shape.load(seed),
        )
        async with asyncio.timeout(RUN_TIMEOUT_S):
            if await loadgen.wait():
                raise SystemExit(f"{system}, seed {seed}: the load generator failed")
    result = measured(out)
    (out / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")


def measured(run: Path) -> dict[str, float]:
    turns, sessions = list(lines(run / "turns.jsonl")), list(lines(run / "sessions.jsonl"))
    jcts = [each["end_s"] - each["arrival_s"] for each in sessions if each["end_s"] is not None]
    waits = [turn["tool_queue_s"] for turn in turns if turn["tool_queue_s"] is not None]
    held = [turn["held_s"] for turn in turns if turn["held_s"] is not None]
    if not jcts or not waits:
        raise SystemExit(f"{run}: no session was completed, or no tool ran through the gateway")
    return {
        "failed": len(sessions) - len(jcts),
        "jct_mean_s": mean(jcts),
        "jct_p95_s": quantile(jcts, 0.95),
        "makespan_s": max(each["end_s"] for each in sessions if each["end_s"] is not None),
        "tool_queue_mean_s": mean(waits),
        "tool_queue_p95_s": quantile(waits, 0.95),
        "held_mean_s": mean(held) if held else 0.0,
    }


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def row_of(results: list[dict[str, float]]) -> Row:
    medians = {name: median(result[name] for result in results) for name in METRICS}
    return Row(repeats=len(results), failed=int(sum(result["failed"] for result in results)), **medians)


def markdown(rows: dict[str, Row], shape: Shape) -> str:
    about = (
        f"{shape.sessions} sessions of `{shape.workload}` (at most {shape.max_turns} turns, tools times "
        f"{shape.scale_gaps:g}, tokens times {shape.scale_tokens:g}) at {shape.rate:g} a second; "
        f"{shape.slots} slots, {os.cpu_count()} cores that engine, proxy and load generator share. "
        "Medians over the repeats."
    )
    table = [f"| system | repeats | failed | {' | '.join(METRICS.values())} |"]
    table.append("|" + "---|" * (3 + len(METRICS)))
    for name, row in rows.items():
        figures = " | ".join(f"{getattr(row, metric):.1f}" for metric in METRICS)
        table.append(f"| {name} | {row.repeats} | {row.failed} | {figures} |")
    return "\n".join([about, "", *table, ""])


async def main(arguments: argparse.Namespace) -> None:
    shape = Shape(
        arguments.sessions,
        arguments.rate,
        arguments.slots,
        arguments.workload,
        arguments.max_turns,
        arguments.scale_gaps,
        arguments.scale_tokens,
    )
    systems, results = arguments.systems.split(","), dict[str, list[dict[str, float]]]()
    if unknown := set(systems) - SYSTEMS.keys():
        raise SystemExit(f"unknown systems: {', '.join(unknown)}; known: {', '.join(SYSTEMS)}")
    for seed in range(1, arguments.repeats + 1):
        for system in systems if seed % 2 else reversed(systems):
            run = arguments.out / system / f"seed-{seed}"
            if not (run / "result.json").exists():
                await run_one(system, shape, seed, run)
            results.setdefault(system, []).append(json.loads((run / "result.json").read_text("utf-8")))
    rows = {system: row_of(results[system]) for system in systems}
    report = {"shape": asdict(shape), "runs": results, "medians": {k: asdict(row) for k, row in rows.items()}}
    (arguments.out / "results.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (arguments.out / "results.md").write_text(markdown(rows, shape), encoding="utf-8")
    sys.stdout.write(markdown(rows, shape))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--sessions", type=int, default=16)
    made.add_argument("--rate", type=float, default=0.5)
    made.add_argument("--slots", type=int, default=2)
    made.add_argument("--systems", default="with,without")
    made.add_argument("--workload", default="tool-heavy")
    made.add_argument("--max-turns", type=int, default=12)
    made.add_argument("--scale-gaps", type=float, default=0.3)
    made.add_argument("--scale-tokens", type=float, default=0.25)
    return made


if __name__ == "__main__":
    asyncio.run(main(parser().parse_args()))
