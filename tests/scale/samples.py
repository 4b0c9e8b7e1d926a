"""What a world's processes hold, looked at now and then, and whether it stays the same.

Owns sampling and the judgement of a series. Warm-up is the first third: caches, pools and tables fill.
Growth is the difference of two medians, of the second and of the last third of a series, so that neither
one peak nor a slow beginning decides; what is allowed is said for each kind with its reason.
"""

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from tests.scale.programs import Program
from tests.scale.world import World

INTERVAL_S = 2.0
TIMEOUT_S = 5.0
LEAST_SAMPLES = 12
"""In a series that is judged: four in each third."""

Point = tuple[float, float]
"""Seconds since the start of the run, value."""


@dataclass(frozen=True)
class Allowed:
    """How much a series may grow and still be called flat."""

    share: float
    plus: float

    def of(self, level: float) -> float:
        return self.share * level + self.plus


ALLOWED: Mapping[str, Allowed] = {
    # Arenas of an interpreter come and go in megabytes, and tables fill while new sessions come: 10 MB
    # were seen in one run of three minutes, and none in one of four.
    "resident, MB": Allowed(0.05, 12.0),
    # Open connections: what a crowd has at a time swings by a few dozen.
    "open files": Allowed(0.25, 20.0),
    # A few for each open request.
    "tasks": Allowed(0.25, 40.0),
    # A stream, members, a checkpoint.
    "store keys": Allowed(0.0, 5.0),
    # The stream grows until it is trimmed behind the next checkpoint.
    "store memory, MB": Allowed(0.25, 8.0),
}


@dataclass
class Samples:
    """Series by kind and program. A program that is started again begins a new one."""

    began_s: float = field(default_factory=time.monotonic)
    series: dict[tuple[str, str, int], list[Point]] = field(default_factory=dict)
    """By kind, program, and which of its lives."""

    def add(self, kind: str, program: str, value: float | None, life: int = 1) -> None:
        if value is not None:
            at_s = time.monotonic() - self.began_s
            self.series.setdefault((kind, program, life), []).append((at_s, value))

    def of_kind(self, kind: str) -> dict[str, list[Point]]:
        """All of a program's lives in one line."""
        found: dict[str, list[Point]] = {}
        for (each, program, _), points in sorted(self.series.items()):
            if each == kind:
                found.setdefault(program, []).extend(points)
        return found

    def growing(self) -> list[str]:
        """Series that are not flat, in words."""
        found = []
        for (kind, program, _), points in sorted(self.series.items()):
            grown = growth([value for _, value in points])
            if grown is not None and grown.by > ALLOWED[kind].of(grown.level):
                found.append(
                    f"{kind} of {program} grew from {grown.level:.1f} by {grown.by:.1f}, "
                    f"more than {ALLOWED[kind].of(grown.level):.1f}"
                )
        return found

    @property
    def judged(self) -> int:
        return sum(growth([value for _, value in points]) is not None for points in self.series.values())


@dataclass(frozen=True)
class Growth:
    level: float
    """After the warm-up."""
    by: float


def growth(values: Sequence[float]) -> Growth | None:
    """None for a series that is too short to say."""
    if len(values) < LEAST_SAMPLES:
        return None
    third = len(values) // 3
    level = statistics.median(values[third : 2 * third])
    return Growth(level, statistics.median(values[2 * third :]) - level)


async def sample_until_cancelled(world: World, samples: Samples) -> None:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        while True:
            for program in world.programs:
                _look_at(program, samples)
            async with asyncio.TaskGroup() as asking:
                for replica in world.replicas:
                    asking.create_task(_ask_tasks(http, replica, samples))
            await _look_at_store(world, samples)
            await asyncio.sleep(INTERVAL_S)


def _look_at(program: Program, samples: Samples) -> None:
    resident = program.resident_bytes()
    samples.add("resident, MB", program.name, None if resident is None else resident / 1e6, program.starts)
    samples.add("open files", program.name, program.open_files(), program.starts)


async def _ask_tasks(http: aiohttp.ClientSession, replica: Program, samples: Samples) -> None:
    """One that is dead or paused has nothing to say."""
    life = replica.starts
    try:
        async with http.get(f"{replica.url}/metrics") as answer:
            page = await answer.text()
    except (aiohttp.ClientError, TimeoutError, OSError):
        return
    for line in page.splitlines():
        if line.startswith("mars_tasks "):
            samples.add("tasks", replica.name, float(line.split()[1]), life)


async def _look_at_store(world: World, samples: Samples) -> None:
    store = world.store
    if store is None or not store.is_running:
        return
    try:
        async with asyncio.timeout(TIMEOUT_S), world.connect_store() as client:
            keys, memory = await client.dbsize(), await client.info("memory")
    except (OSError, TimeoutError, ConnectionError):
        return
    samples.add("store keys", store.name, keys)
    samples.add("store memory, MB", store.name, memory["used_memory"] / 1e6, store.starts)
