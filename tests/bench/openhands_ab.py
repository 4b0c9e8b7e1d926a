"""OpenHands on stock vLLM and on MARS, side by side: real agents, real commands, the emulated real vLLM.

    .venv/bin/python -m tests.bench.openhands_ab --out DIR --agent-python .venv-agents/openhands/bin/python
        --vllm-python .venv-vllm/bin/python [--repeats 3] [--systems stock,mars] [--shell PATH] [...]

Systems: ``stock`` is vLLM as it comes, its agents' terminals on this machine's bash; ``mars`` is vLLM with
the backend patch, the proxy before it, and terminals whose shell is ``gwsh``, with the gateway's leases. The
rest is the same: sessions, arrivals, the model's answers, the commands, which compute on this machine, the
engine's KV cache, and the cores: the engine has the first of them; agents, proxy, gateway and commands share
the others.

The accelerator runs ``--speed`` times faster than its model, and commands take ``--scale-gaps`` of the
workload's time; the tables are in seconds of the clock. Every repeat has a seed of its own, the same for both
systems, and they take turns. Runs that are there already are not repeated, so a comparison can be stopped and
continued. Leaves ``result.json`` in each run's directory, ``results.json`` and ``results.md``.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

import httpx

from loadgen.provenance import commit
from marsproxy.children import READY, Child

START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 30.0
RUN_TIMEOUT_S = 4 * 3600.0
CONTEXT_TOKENS = 131_072
GWSH = Path(sys.executable).with_name("gwsh")
"""As a user of the project has it."""
SYSTEMS = ("stock", "mars")


@dataclass(frozen=True, slots=True)
class Shape:
    """What is the same for both systems."""

    framework: str = "openhands"
    workload: str = "autonomous"
    sessions: int = 24
    agents: int = 24
    """Closed loop: so many at once."""
    max_turns: int = 40
    """As the paper's OpenHands runs (40 iterations)."""
    scale_tokens: float = 1.0
    scale_gaps: float = 1.0
    kv_tokens: int = 200_000
    speed: float = 1.0
    slots: int = 2
    """Of the gateway."""

    def load(self, seed: int) -> list[str]:
        return [
            *("--framework", self.framework, "--workload", self.workload, "--seed", str(seed)),
            *("--sessions", str(self.sessions), "--concurrency", str(self.agents)),
            *("--max-turns", str(self.max_turns), "--max-context-tokens", str(self.kv_tokens // 2)),
            *("--scale-tokens", repr(self.scale_tokens), "--scale-gaps", repr(self.scale_gaps)),
        ]


@dataclass(frozen=True, slots=True)
class Programs:
    vllm: str
    agents: str
    shell: Path


METRICS = {
    "jct_mean_s": "task mean s",
    "jct_p95_s": "task p95 s",
    "makespan_s": "makespan s",
    "turns_per_s": "turns/s",
    "hit_ratio": "hit ratio of continuations",
    "held_mean_s": "held mean s",
    "model_mean_s": "model call mean s",
    "tool_mean_s": "tool gap mean s",
    "preemptions": "preemptions",
}


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """What is started inside stays on these."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def core_parts() -> tuple[set[int], set[int]]:
    """The engine's, and everybody else's."""
    cores = sorted(os.sched_getaffinity(0))
    return ({cores[0]}, set(cores[1:])) if len(cores) > 1 else (set(cores), set(cores))


@asynccontextmanager
async def engine(
    programs: Programs, shape: Shape, script: Path, log: Path, *, patch: bool
) -> AsyncIterator[str]:
    model_dir = script.parent / "model"
    command = [programs.vllm, "-m", "backend_patch.emulator"]
    if not model_dir.exists():
        await succeed(*command, "make-model", str(model_dir))
    flags = ["--port", "0", "--kv-tokens", str(shape.kv_tokens), "--speed", repr(shape.speed)]
    flags += ["--script", str(script), "--log", str(log)]
    flags += ["--patch", "--scheduling-policy", "priority"] if patch else []
    with on_cores(core_parts()[0]):
        process = await asyncio.create_subprocess_exec(
            *command, "serve", str(model_dir), *flags, stdout=asyncio.subprocess.PIPE
        )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT_S):
            line = await process.stdout.readline()
        found = READY.search(line)
        if found is None:
            raise SystemExit(f"the engine did not come up: {line!r}; see {log}")
        yield found[1].decode()
    finally:
        process.terminate()
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()


async def succeed(*command: str, env: dict[str, str] | None = None) -> None:
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **(env or {})})
    try:
        async with asyncio.timeout(RUN_TIMEOUT_S):
            if await process.wait():
                raise SystemExit(f"{' '.join(command[:4])} ... failed with {process.returncode}")
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def run_one(system: str, shape: Shape, programs: Programs, seed: int, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)  # of a run that was stopped
    with tempfile.TemporaryDirectory() as folder:
        script, log = Path(folder) / "script.jsonl", Path(folder) / "engine.log"
        load = [*shape.load(seed), "--python", programs.agents]
        await succeed(sys.executable, "-m", "loadgen", "agents", *load, "--write-script", str(script))
        async with AsyncExitStack() as stack:
            is_mars = system == "mars"
            url = await stack.enter_async_context(engine(programs, shape, script, log, patch=is_mars))
            with on_cores(core_parts()[1]):
                target, env = url, dict[str, str]()
                if is_mars:
                    target, gateway = await mars(stack, shape, url)
                    env["MARS_GATEWAY_URL"] = gateway
                    load += ["--shell", str(programs.shell), "--gateway", gateway]
                load += ["--target", target, "--engine", url, "--out", str(out), "--label", system]
                await succeed(sys.executable, "-m", "loadgen", "agents", *load, "--allow-failures", env=env)
        shutil.copy(log, out / "engine.log")
    (out / "result.json").write_text(json.dumps(measured(out), indent=1), encoding="utf-8")


async def mars(stack: AsyncExitStack, shape: Shape, backend: str) -> tuple[str, str]:
    """URLs of a proxy and of a gateway that tells it of the tools."""

    async def start(*command: str) -> str:
        child = Child(*command)
        stack.push_async_callback(child.stop)
        return await child.start()

    proxy = await start(
        *("marsproxy", "serve", "--port", "0", "--backend", backend, "--log-level", "warning")
    )
    gateway = await start("gateway", "serve", "--port", "0", "--slots", str(shape.slots), "--proxy", proxy)
    async with httpx.AsyncClient() as http:
        (await http.get(f"{gateway}/readyz")).raise_for_status()
    return proxy, gateway


def measured(run: Path) -> dict[str, Any]:
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    turns = [json.loads(line) for line in (run / "turns.jsonl").read_text("utf-8").splitlines()]
    answered = [turn for turn in turns if turn["last_token_s"] is not None]
    gaps = [turn["tool_end_s"] - turn["tool_start_s"] for turn in answered if turn["tool_end_s"] is not None]
    return {
        "sessions": summary["sessions_planned"],
        "completed": summary["completed"],
        "jct_mean_s": summary["jct_s"]["mean"],
        "jct_p95_s": summary["jct_s"]["p95"],
        "makespan_s": summary["makespan_s"],
        "turns_per_s": summary["throughput_turns_per_s"],
        "hit_ratio": summary["continuation_hit_ratio"],
        "held_mean_s": summary["held_s"]["mean"],
        "model_mean_s": mean([turn["last_token_s"] - turn["sent_s"] for turn in answered]),
        "tool_mean_s": mean(gaps),
        "preemptions": summary["preemptions"],
        "retries": summary["retries"],
        "driver_lag_max_s": summary["client"]["loop_lag_max_s"],
        "framework_version": summary["framework_version"],
        "seed": summary["seed"],
    }


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def medians(results: list[dict[str, Any]]) -> dict[str, float | None]:
    known = {key: [each[key] for each in results if each[key] is not None] for key in METRICS}
    return {key: median(values) if values else None for key, values in known.items()}


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown CPU")
    return f"{os.cpu_count()} cores of {model}, {platform.system()} {platform.release()}"


def report(found: dict[str, list[dict[str, Any]]], shape: Shape) -> dict[str, Any]:
    middle = {system: medians(results) for system, results in found.items() if results}
    times = {}
    if set(SYSTEMS) <= middle.keys():
        for key in ("jct_mean_s", "jct_p95_s", "makespan_s"):
            stock, ours = middle["stock"][key], middle["mars"][key]
            times[key] = stock / ours if stock and ours else None
    return {
        "shape": asdict(shape),
        "machine": machine(),
        "commit": commit(),
        "medians": middle,
        "times_sooner": times,
        "runs": found,
    }


def markdown(result: dict[str, Any]) -> str:
    shape = Shape(**result["shape"])
    about = (
        f"{shape.sessions} tasks of `{shape.workload}` for {shape.framework}, {shape.agents} at a time, at "
        f"most {shape.max_turns} turns, tokens times {shape.scale_tokens:g}, commands times "
        f"{shape.scale_gaps:g}; {shape.kv_tokens:,} tokens of KV, accelerator at {shape.speed:g}, "
        f"{shape.slots} slots. {result['machine']}; commit {result['commit']}. Medians over the repeats."
    )
    lines = [
        about,
        "",
        f"| system | repeats | completed | {' | '.join(METRICS.values())} |",
        "|" + "---|" * (3 + len(METRICS)),
    ]
    for system, middle in result["medians"].items():
        runs = result["runs"][system]
        completed = f"{sum(run['completed'] for run in runs)} of {sum(run['sessions'] for run in runs)}"
        figures = " | ".join("–" if middle[key] is None else f"{middle[key]:.3g}" for key in METRICS)
        lines.append(f"| {system} | {len(runs)} | {completed} | {figures} |")
    for key, value in result["times_sooner"].items():
        if value is not None:
            lines += ["", f"{METRICS[key].removesuffix(' s')}: {value:.2f} times sooner."]
    return "\n".join([*lines, ""])


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--systems", default=",".join(SYSTEMS))
    made.add_argument("--vllm-python", default=sys.executable)
    made.add_argument("--agent-python", default=".venv-agents/openhands/bin/python")
    made.add_argument("--shell", type=Path, default=GWSH, help="of the terminals of mars")
    defaults = Shape()
    for name, value in asdict(defaults).items():
        made.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return made.parse_args(arguments)


async def main(options: argparse.Namespace) -> int:
    shape = Shape(**{name: getattr(options, name) for name in asdict(Shape())})
    systems = options.systems.split(",")
    if unknown := set(systems) - set(SYSTEMS):
        raise SystemExit(f"unknown systems: {', '.join(unknown)}; known: {', '.join(SYSTEMS)}")
    programs = Programs(options.vllm_python, options.agent_python, options.shell)
    found: dict[str, list[dict[str, Any]]] = {system: [] for system in SYSTEMS}
    for seed in range(1, options.repeats + 1):
        for system in systems if seed % 2 else reversed(systems):
            run = options.out / system / f"seed-{seed}"
            if not (run / "result.json").exists():
                await run_one(system, shape, programs, seed, run)
                sys.stderr.write(f"{system}, seed {seed}: done\n")
            found[system].append(json.loads((run / "result.json").read_text("utf-8")))
    result = report(found, shape)
    (options.out / "results.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (options.out / "results.md").write_text(markdown(result), encoding="utf-8")
    sys.stdout.write(markdown(result))
    return 0 if all(run["completed"] == run["sessions"] for runs in found.values() for run in runs) else 1


def told(number: int, frame: FrameType | None) -> None:
    """As Ctrl-C: what was started is stopped."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, told)
    sys.exit(asyncio.run(main(parse())))
