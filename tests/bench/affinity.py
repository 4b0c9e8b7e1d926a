"""What several backends cost in cache hits: three beside one that is three times as large, simulated.

    python -m tests.bench.affinity [--seeds 3] [--sessions 600] [--trace FILE] --out DIR

The large one has three times the pool, the arithmetic, the bandwidth and the places, so that the same
sessions at the same times load both alike. What is left is what a fleet does to a session's cache: prefixes
that are there three times, places that are free on another backend than home, sessions that move.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console

from backend_patch.step_time import HardwareProfile
from loadgen.arrivals import OpenLoop
from loadgen.modifiers import Modifiers
from loadgen.sim.run import simulate
from loadgen.sim.settings import SimulationSettings
from loadgen.source import Workload, open_workload

BACKENDS = 3
ALLOWED_LOSS = 0.03
"""Of the hit ratio, against the large one."""
MAX_CONTEXT_TOKENS = 300_000
"""Where sessions end: no pool of these holds the longest of the traces."""
SCALED = ("peak_flops", "memory_bytes_per_s", "memory_bytes")

app = App(help="Hit ratio of three backends against one three times as large.")


@dataclass(frozen=True, slots=True)
class Traffic:
    name: str
    kv_tokens: int
    """Pool of each of the three."""
    knee: float
    """Sessions per second at which one backend with stock vLLM is at its limit (docs/results/full)."""
    shared_prompt_tokens: int = 0
    source: str | None = None
    """Of a trace file, its sessions that are meant."""


PROFILES = (
    Traffic("tool-heavy", 400_000, 0.0124),
    Traffic("autonomous", 400_000, 0.0367),
    Traffic("interactive", 600_000, 0.00138),
)
TRACED = (
    Traffic("autonomous-trace", 400_000, 0.0367, 300, "thunderagent-sweagent"),
    Traffic("interactive-trace", 600_000, 0.00138, 12_000, "weka-claude-code"),
)


@dataclass(frozen=True, slots=True)
class Pair:
    """One workload at one load, on the fleet and on the large backend."""

    traffic: str
    load: float
    """In knees."""
    seed: int
    fleet: dict[str, Any]
    large: dict[str, Any]

    @property
    def lost(self) -> float:
        """Of the hit ratio, by the fleet."""
        return float(self.large["prefix_hit_ratio"] - self.fleet["prefix_hit_ratio"])


def large_hardware(name: str, times: int, folder: Path) -> str:
    """A file with an accelerator so many times as strong."""
    profile = HardwareProfile.load(name)
    row = {field.name: getattr(profile, field.name) for field in fields(profile) if field.name != "name"}
    row |= {key: row[key] * times for key in SCALED}
    row["description"] = f"{times} of {name} as one"
    path = folder / f"{name}-times-{times}.toml"
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in row.items())
    path.write_text(f"[large]\n{lines}\n")
    return str(path)


def compare(
    workload: Workload, settings: SimulationSettings, folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Summaries of the fleet that ``settings`` names, and of the large one in its place."""
    times = settings.backends
    assert settings.kv_tokens is not None
    large = replace(
        settings,
        backends=1,
        kv_tokens=times * settings.kv_tokens,
        max_batched_tokens=times * settings.max_batched_tokens,
        max_running=times * settings.max_running,
        hardware=large_hardware(settings.hardware, times, folder),
    )
    return simulate(settings, workload).summary, simulate(large, workload).summary


def pair_of(traffic: Traffic, workload: Workload, policy: str, load: float, seed: int, folder: Path) -> Pair:
    rate = BACKENDS * traffic.knee * load
    settings = SimulationSettings(
        policy, OpenLoop(rate), seed=seed, backends=BACKENDS, kv_tokens=traffic.kv_tokens
    )
    return Pair(traffic.name, load, seed, *compare(workload, settings, folder))


def table_of(pairs: Sequence[Pair]) -> str:
    lines = [
        "| workload | load, K | seed | hits, one large | three | lost | continuations |",
        "|---|---|---|---|---|---|---|",
    ]
    for pair in pairs:
        fleet, large = pair.fleet, pair.large
        again = large["continuation_hit_ratio"] - fleet["continuation_hit_ratio"]
        lines.append(
            f"| {pair.traffic} | {pair.load} | {pair.seed} | {large['prefix_hit_ratio']:.3f} "
            f"| {fleet['prefix_hit_ratio']:.3f} | {pair.lost:+.3f} | {again:+.3f} |"
        )
    return "\n".join(lines) + "\n"


@app.default
def main(
    *,
    policy: str = "mars",
    seeds: int = 3,
    sessions: int = 450,
    loads: Annotated[tuple[float, ...], Parameter(consume_multiple=True)] = (0.7, 1.0, 1.25),
    trace: Path | None = None,
    only: str | None = None,
    out: Path,
) -> None:
    """Run all pairs, print each, and write the table."""
    console, pairs = Console(highlight=False, soft_wrap=True), list[Pair]()
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        for traffic in PROFILES if trace is None else TRACED:
            if only not in (None, traffic.name):
                continue
            for seed in range(seeds):
                workload = open_workload(
                    traffic.name if trace is None else str(trace),
                    sessions=sessions,
                    seed=seed,
                    modifiers=Modifiers(max_context_tokens=MAX_CONTEXT_TOKENS),
                    select=None if traffic.source is None else f"src={traffic.source}",
                    bootstrap=trace is not None,
                    shared_prompt_tokens=traffic.shared_prompt_tokens,
                )
                for load in loads:
                    pairs.append(pair_of(traffic, workload, policy, load, seed, Path(folder)))
                    console.print(table_of(pairs[-1:]).splitlines()[-1])
    (out / "affinity.md").write_text(table_of(pairs))


if __name__ == "__main__":
    app()
