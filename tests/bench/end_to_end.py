"""Whole systems side by side on the emulated real vLLM, one at a time, over HTTP.

    .venv-vllm/bin/python tests/bench/end_to_end.py SCENARIO --out DIR [--workload FILE] [--systems a,b]
        [--seeds 1,2,3] [--caps 8,12] [--dry-run]

Scenarios: ``closed`` (a fixed number of agents, three times more than the KV cache has room for), ``open``
(1.25 times the load that stock bears), ``gaps`` (the same with tools ten times slower). Systems: ``stock``
(straight at vLLM), ``cap-K`` (the proxy lets in K sessions at once), ``thunderagent``, ``mars`` (stock vLLM
behind it) and ``mars-patch`` (vLLM with the backend patch).

Every system gets the same sessions, arrivals, engine flags and step-time model. The accelerator runs
``SPEED`` times faster than its model, and so do tools and arrivals; the tables are in the model's seconds.
Runs that are there already are not repeated, so a comparison can be stopped and continued. The engine's
own report says for how long it was late: a run that lags shows this machine and not the model. It does not
see the API server, which reads and tokenises a long prompt in this machine's time, not the model's: at SPEED
16 that was 7 of the model's seconds a turn, so keep the speed low where turns come fast.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import msgspec

from backend_patch.emulator.launch import LaunchOptions
from backend_patch.emulator.serve import EmulatedServer
from backend_patch.emulator.tiny_model import write_tiny_model

CONTEXT_TOKENS = 131_072
START_TIMEOUT_S = 60.0
RUN_TIMEOUT_S = 3 * 3600.0


@dataclass(frozen=True)
class Scenario:
    sessions: int
    kv_tokens: int
    speed: float
    agents: int | None = None
    """Closed loop."""
    rate: float | None = None
    """Open loop: sessions per modelled second."""
    gap_factor: float = 1.0
    caps: tuple[int, ...] = ()
    """Tried for ``cap-K``; the best by mean JCT is the one to compare with."""


SCENARIOS = {
    "closed": Scenario(sessions=48, kv_tokens=200_000, speed=8.0, agents=24, caps=(6, 8, 10)),
    "open": Scenario(sessions=100, kv_tokens=400_000, speed=4.0, rate=0.0459, caps=(8, 12, 16)),
    "gaps": Scenario(
        sessions=100, kv_tokens=400_000, speed=4.0, rate=0.0459, gap_factor=10.0, caps=(12, 16, 24)
    ),
}


@dataclass(frozen=True)
class System:
    name: str
    policy: str | None = None
    """None: no proxy."""
    flags: tuple[str, ...] = ()
    patch: bool = False


def system_of(name: str) -> System:
    if name.startswith("cap-"):
        return System(name, "static_cap", ("--admission.static-cap-sessions", name.removeprefix("cap-")))
    known = {
        "stock": System("stock"),
        "thunderagent": System("thunderagent", "thunderagent"),
        "mars": System("mars", "mars"),
        "mars-patch": System("mars-patch", "mars", patch=True),
    }
    if name not in known:
        raise SystemExit(f"unknown system {name!r}; known: {', '.join(known)}, cap-K")
    return known[name]


@contextmanager
def proxy(system: System, backend: str) -> Iterator[str]:
    """The URL to send to: the proxy's, or the backend's own."""
    if system.policy is None:
        yield backend
        return
    command = [sys.executable, "-m", "marsproxy", "serve", "--backend", backend, "--port", "0"]
    command += ["--policy", system.policy, *system.flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("marsproxy ready on "):
            raise RuntimeError(f"the proxy did not come up: {line!r}")
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait(START_TIMEOUT_S)


def load_flags(scenario: Scenario, workload: list[str], seed: int) -> list[str]:
    flags = [
        "--workload",
        *workload,
        "--sessions",
        str(scenario.sessions),
        "--seed",
        str(seed),
        "--bootstrap",
    ]
    flags += ["--scale-gaps", repr(scenario.gap_factor / scenario.speed), "--answers", "calls"]
    flags += ["--max-context-tokens", str(CONTEXT_TOKENS - 1_024)]
    if scenario.agents is not None:
        return [*flags, "--concurrency", str(scenario.agents)]
    assert scenario.rate is not None
    return [*flags, "--rate", repr(scenario.rate * scenario.speed)]


def run(scenario: Scenario, system: System, backend: EmulatedServer, load: list[str], out: Path) -> None:
    httpx.post(f"{backend.url}/reset_prefix_cache", timeout=30.0).raise_for_status()
    late_before_s = late_s(backend)
    with proxy(system, backend.url) as url:
        command = [sys.executable, "-m", "loadgen", "run", "--target", url, *load, "--out", str(out)]
        subprocess.run(command, check=True, timeout=RUN_TIMEOUT_S, stdout=subprocess.DEVNULL)
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    summary["engine_late_s"] = late_s(backend) - late_before_s
    (out / "result.json").write_bytes(msgspec.json.format(msgspec.json.encode(summary)))


def late_s(backend: EmulatedServer) -> float:
    report = backend.report()
    return 0.0 if report is None else report.behind_s


def results(out: Path, scenario: Scenario) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(out.glob("*/seed-*/result.json")):
        found.setdefault(path.parts[-3], []).append(json.loads(path.read_text("utf-8")))
    return found


def table(found: dict[str, list[dict[str, Any]]], speed: float) -> str:
    """Medians over the seeds, in modelled seconds."""
    lines = [
        (
            "| system | seeds | mean JCT, s | p99 JCT, s | TTFT of continuations, s "
            "| hit ratio of continuations | output tokens/s | preemptions | failed "
            "| makespan, s | engine late |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in sorted(found.items(), key=lambda item: jct(item[1])):
        figures = [
            f"{jct(runs) * speed:.0f}",
            f"{median(each['jct_s']['p99'] for each in runs) * speed:.0f}",
            f"{median(each['ttft_continuation_s']['mean'] for each in runs) * speed:.2f}",
            f"{median(each['continuation_hit_ratio'] for each in runs):.3f}",
            f"{median(each['throughput_tokens_per_s'] for each in runs) / speed:.1f}",
            f"{median(each['preemptions'] or 0 for each in runs):.0f}",
            f"{sum(each['failed'] for each in runs)}",
            f"{median(each['makespan_s'] for each in runs) * speed:.0f}",
            f"{median(each['engine_late_s'] / each['makespan_s'] for each in runs):.1%}",
        ]
        lines.append(f"| {name} | {len(runs)} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def jct(runs: list[dict[str, Any]]) -> float:
    return median(each["jct_s"]["mean"] for each in runs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scenario", choices=sorted(SCENARIOS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workload", nargs="+", default=["autonomous"], help="and flags that go with it")
    parser.add_argument("--systems", default="stock,cap,thunderagent,mars,mars-patch")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--caps", help="instead of the scenario's")
    parser.add_argument("--sessions", type=int)
    parser.add_argument("--speed", type=float)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--kv-tokens", type=int)
    options, more = parser.parse_known_args()
    scenario = SCENARIOS[options.scenario]
    changes = {name: getattr(options, name) for name in ("sessions", "speed", "rate", "kv_tokens")}
    scenario = replace(scenario, **{name: value for name, value in changes.items() if value is not None})
    caps = [int(each) for each in options.caps.split(",")] if options.caps else list(scenario.caps)
    names = [
        name
        for each in options.systems.split(",")
        for name in ([f"cap-{cap}" for cap in caps] if each == "cap" else [each])
    ]
    seeds = [int(each) for each in options.seeds.split(",")]
    out = options.out / options.scenario
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # for /reset_prefix_cache
    with tempfile.TemporaryDirectory() as folder:
        model_dir = Path(folder)
        write_tiny_model(model_dir, context_tokens=CONTEXT_TOKENS)
        for seed in seeds:
            for patch in (False, True):
                due = [
                    system
                    for system in map(system_of, names)
                    if system.patch is patch and not (out / system.name / f"seed-{seed}/result.json").exists()
                ]
                with ExitStack() as stack:
                    launch = LaunchOptions(
                        port=0,
                        speed=scenario.speed,
                        kv_tokens=scenario.kv_tokens,
                        patch=patch,
                        stream_interval=8,
                    )
                    backend = stack.enter_context(EmulatedServer(model_dir, launch)) if due else None
                    for system in due:
                        assert backend is not None
                        load = load_flags(scenario, [*options.workload, *more], seed)
                        run(scenario, system, backend, load, out / system.name / f"seed-{seed}")
                        print(f"{system.name}, seed {seed}: done", file=sys.stderr)  # noqa: T201
    text = table(results(out, scenario), scenario.speed)
    (out / "table.md").write_text(text, encoding="utf-8")
    print(text)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
