"""Far too much at once, with admission and without: ``PYTHONPATH=. python tests/bench/gateway_overload.py``.

Commands that burn a core, commands that fill memory, and short ones that an agent waits for, which share a
bounded amount of memory (a cgroup, so that the machine itself is safe). "With" is through one gateway;
"without" is how agents run commands by themselves: each as soon as it is asked for.
"""

import asyncio
import json
import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import cyclopts
from rich.console import Console
from rich.table import Table

from tests.gateway_live.world import open_world

V1_MEMORY = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")
BURN = "import sys, time\nend = float(sys.argv[1])\nwhile time.process_time() < end: pass"
FILL = "import sys, time\nheld = bytearray(b'x') * (int(sys.argv[1]) * 10**6)\ntime.sleep(1)"
SHORT_EVERY_S = 0.5


@dataclass(frozen=True)
class Load:
    cpu_bound: int = 100
    cpu_s: float = 1.0
    memory_bound: int = 60
    each_mb: int = 300
    short: int = 40
    bound_mb: int = 4000
    """Of memory for the gateway and all commands."""


@dataclass
class Figures:
    admission: str
    short_p50_s: float
    short_p95_s: float
    all_done_s: float
    peak_mb: float
    oom_kills: int
    states: dict[str, int]
    retries: int
    """429 answers; each was sent again after its ``Retry-After``."""


class MemoryBound:
    """A cgroup for this process and all that it starts, v1 or v2."""

    def __init__(self, name: str, bound_mb: int) -> None:
        self._is_v1 = V1_MEMORY.is_dir()
        self.path = (V1_MEMORY if self._is_v1 else V2) / name
        self.path.mkdir()
        self._write("memory.limit_in_bytes" if self._is_v1 else "memory.max", bound_mb * 10**6)

    def _write(self, name: str, value: int) -> None:
        (self.path / name).write_text(str(value))

    def enter(self) -> None:
        self._write("cgroup.procs", os.getpid())

    def leave(self) -> None:
        (self.path.parent / "cgroup.procs").write_text(str(os.getpid()))

    @property
    def peak_mb(self) -> float:
        name = "memory.max_usage_in_bytes" if self._is_v1 else "memory.peak"
        return int((self.path / name).read_text()) / 1e6

    @property
    def oom_kills(self) -> int:
        files = self.path.rglob("memory.oom_control" if self._is_v1 else "memory.events.local")
        return sum(_field(file, "oom_kill") for file in files)

    def remove(self) -> None:
        for directory in sorted(self.path.rglob("*/"), reverse=True):
            directory.rmdir()
        self.path.rmdir()


def _field(file: Path, name: str) -> int:
    fields = dict(line.split() for line in file.read_text().splitlines())
    return int(fields.get(name, 0))


@contextmanager
def memory_bound(bound_mb: int) -> Iterator[MemoryBound]:
    bound = MemoryBound(f"mars-overload-{os.getpid()}", bound_mb)
    bound.enter()
    try:
        yield bound
    finally:
        bound.leave()
        time.sleep(0.5)
        bound.remove()


class Caller:
    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self.retries = 0

    async def run(self, session: str, argv: list[str]) -> tuple[float, str]:
        """Sent again when it was refused for want of room."""
        began_s = time.perf_counter()
        body = {"argv": argv, "queue_timeout_s": 600, "timeout_s": 600}
        async with self._http.put(f"/v1/sessions/{session}", json={}) as response:
            response.raise_for_status()
        while True:
            async with self._http.post(f"/v1/sessions/{session}/execs?wait=60", json=body) as response:
                answer = await response.json()
            if response.status != 429:
                break
            self.retries += 1
            await asyncio.sleep(float(response.headers["Retry-After"]))
        while answer["state"] in ("queued", "starting", "running"):
            async with self._http.get(f"/v1/execs/{answer['id']}?wait=60") as response:
                answer = await response.json()
        return time.perf_counter() - began_s, answer["state"]


Run = Callable[[str, list[str]], Coroutine[None, None, tuple[float, str]]]
"""Of a session and a command: seconds until its answer, and its state."""


async def through_gateway(url: str, load: Load) -> tuple[list[float], Counter[str], int]:
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as http:
        caller = Caller(http)
        for _ in range(3):  # Everybody's kind has been seen before: nothing is predicted from nothing.
            for argv in (_burn(load), _fill(load), ["ls"]):
                await caller.run("first", argv)
        return *await overload(caller.run, load), caller.retries


async def by_itself(session: str, argv: list[str]) -> tuple[float, str]:
    began_s = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.DEVNULL)
    code = await process.wait()
    return time.perf_counter() - began_s, "oom_killed" if code == -signal.SIGKILL else "exited"


async def overload(run: Run, load: Load) -> tuple[list[float], Counter[str]]:
    """Durations of the short ones, states of all."""
    async with asyncio.TaskGroup() as tasks:
        heavy = [
            tasks.create_task(run(f"agent-{number % 40}", argv)) for number, argv in enumerate(_heavy(load))
        ]
        short = []
        for number in range(load.short):
            short.append(tasks.create_task(run(f"short-{number % 10}", ["ls"])))
            await asyncio.sleep(SHORT_EVERY_S)
    states = Counter(task.result()[1] for task in (*heavy, *short))
    return [task.result()[0] for task in short], states


def _heavy(load: Load) -> list[list[str]]:
    """Both kinds mixed, always in the same order."""
    total = load.cpu_bound + load.memory_bound
    return [
        _fill(load) if number * load.memory_bound // total != (number + 1) * load.memory_bound // total
        else _burn(load)
        for number in range(total)
    ]  # fmt: skip


def _burn(load: Load) -> list[str]:
    return ["python3", "-c", BURN, str(load.cpu_s)]


def _fill(load: Load) -> list[str]:
    return ["python3", "-c", FILL, str(load.each_mb)]


def with_admission(load: Load) -> Figures:
    slots = len(os.sched_getaffinity(0))
    with (
        memory_bound(load.bound_mb) as bound,
        open_world("local", "--queue-limit", "1000", slots=slots) as world,
    ):
        began_s = time.perf_counter()
        durations, states, retries = asyncio.run(through_gateway(world.gateway.url, load))
        return _figures("with", durations, states, time.perf_counter() - began_s, bound, retries)


def without_admission(load: Load) -> Figures:
    with memory_bound(load.bound_mb) as bound:
        began_s = time.perf_counter()
        durations, states = asyncio.run(overload(by_itself, load))
        return _figures("without", durations, states, time.perf_counter() - began_s, bound, 0)


def _figures(
    admission: str,
    durations: list[float],
    states: Counter[str],
    all_done_s: float,
    bound: MemoryBound,
    retries: int,
) -> Figures:
    return Figures(
        admission=admission,
        short_p50_s=statistics.median(durations),
        short_p95_s=statistics.quantiles(durations, n=20)[18],
        all_done_s=all_done_s,
        peak_mb=bound.peak_mb,
        oom_kills=max(bound.oom_kills, states["oom_killed"]),
        states=dict(states),
        retries=retries,
    )


def middle(runs: list[Figures]) -> dict[str, float]:
    """Medians over the repeats."""
    names = [name for name, value in asdict(runs[0]).items() if isinstance(value, (int, float))]
    return {name: statistics.median(getattr(run, name) for run in runs) for name in names}


def main(*, repeats: int = 3, out: Path | None = None) -> None:
    """``out``: a JSON file for the figures of every repeat."""
    load = Load()
    found: dict[str, list[Figures]] = {"with": [], "without": []}
    for number in range(repeats):  # They take turns to be the first, so that a drift hits both alike.
        measures = [with_admission, without_admission]
        for measure in measures if number % 2 == 0 else reversed(measures):
            figures = measure(load)
            found[figures.admission].append(figures)
    medians = {name: middle(runs) for name, runs in found.items()}
    table = Table("median", *medians, title=f"{repeats} repeats of {load}")
    for name in medians["with"]:
        table.add_row(name, *(f"{each[name]:.2f}" for each in medians.values()))
    Console().print(table)
    if out is not None:
        runs = {name: [asdict(each) for each in runs] for name, runs in found.items()}
        out.write_text(json.dumps({"load": asdict(load), "runs": runs, "medians": medians}, indent=1))


if __name__ == "__main__":
    cyclopts.App(default_command=main)()
