"""What replicas cost: ``python -m tests.scale.scaling --out docs/results/scale``.

The same crowd without a store, and with one, two and four replicas that share a state in Redis. CPU time of
the proxies' processes is read from /proc and divided by the turns; Redis says itself which commands it
ran and what it keeps. No faults and no wires that look into connections: nothing else is measured with it.
"""

import asyncio
import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cyclopts

from tests.scale.case import books_of, settle
from tests.scale.sessions import Crowd
from tests.scale.world import STORE, Sizes, World, open_world

REPLICAS = (0, 1, 2, 4)
"""0 is one proxy without a store."""
WARM_UP_TURNS = 100
"""Answered before counting begins: imports, connections and caches are not what a turn costs."""
HOUSEKEEPING = frozenset(("info", "dbsize", "hello", "client", "select", "ping", "config", "command"))
"""Commands of connections and of this measurement, not of a turn."""


@dataclass(frozen=True)
class Measured:
    replicas: int
    """0 is one proxy without a store."""
    turns: int
    seconds: float
    proxies_cpu_ms_per_turn: float
    """User and system time of all of them."""
    store_cpu_ms_per_turn: float | None
    store_commands_per_turn: float | None
    """All that Redis counts, those that scripts call inside it included."""
    script_commands_per_turn: float | None
    """Of these, scripts: what replicas send."""
    store_bytes: int | None
    """More than it kept when it was empty."""
    store_bytes_per_session: float | None
    violations: int


@dataclass(frozen=True)
class Meters:
    """Counters at one moment."""

    turns: int
    at_s: float
    proxies_cpu_s: float
    store_cpu_s: float
    calls: Mapping[str, int]
    used_bytes: int


async def measure(replicas: int, sessions: int, turns: int, gap_s: float) -> Measured:
    sizes = Sizes(replicas=max(1, replicas), store=replicas > 0, gateway=False, kv_tokens=400_000)
    async with open_world(sizes) as world:
        crowd = Crowd(world.url, sessions, turns=turns, gap_s=gap_s)
        empty = await _read(world, crowd)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(crowd.run())
            while crowd.answered < WARM_UP_TURNS:  # noqa: ASYNC110 - nobody tells of an answer
                await asyncio.sleep(0.05)
            begun = await _read(world, crowd)
            await running
        ended = await _read(world, crowd)
        await settle(world)
        await world.stop()
        violations = len(books_of(world, crowd).violations)
    return _between(replicas, sessions, empty, begun, ended, violations)


def _between(
    replicas: int, sessions: int, empty: Meters, begun: Meters, ended: Meters, violations: int
) -> Measured:
    turns = ended.turns - begun.turns
    calls = {name: count - begun.calls.get(name, 0) for name, count in ended.calls.items()}
    scripts = sum(count for name, count in calls.items() if name in ("evalsha", "eval", "fcall"))
    total = sum(count for name, count in calls.items() if name not in HOUSEKEEPING)
    stored = ended.used_bytes - empty.used_bytes
    has_store = replicas > 0
    return Measured(
        replicas=replicas,
        turns=turns,
        seconds=ended.at_s - begun.at_s,
        proxies_cpu_ms_per_turn=1000 * (ended.proxies_cpu_s - begun.proxies_cpu_s) / turns,
        store_cpu_ms_per_turn=1000 * (ended.store_cpu_s - begun.store_cpu_s) / turns if has_store else None,
        store_commands_per_turn=total / turns if has_store else None,
        script_commands_per_turn=scripts / turns if has_store else None,
        store_bytes=stored if has_store else None,
        store_bytes_per_session=stored / sessions if has_store else None,
        violations=violations,
    )


async def _read(world: World, crowd: Crowd) -> Meters:
    calls: dict[str, int] = {}
    used_bytes = 0
    if world.store is not None:
        async with world.connect_store() as client:
            stats = await client.info("commandstats")
            calls = {name.removeprefix("cmdstat_"): int(value["calls"]) for name, value in stats.items()}
            used_bytes = (await client.info("memory"))["used_memory"]
    return Meters(
        turns=crowd.answered,
        at_s=time.monotonic(),
        proxies_cpu_s=sum(each.cpu_s for each in world.replicas),
        store_cpu_s=sum(each.cpu_s for each in world.programs if each.name == STORE),
        calls=calls,
        used_bytes=used_bytes,
    )


def as_table(measured: Sequence[Measured]) -> str:
    """Markdown."""
    head = (
        "| replicas | turns | CPU of the proxies, ms/turn | against one | CPU of Redis, ms/turn "
        "| Redis commands/turn | kB in Redis/session |"
    )
    rows = [head, "|---" * 7 + "|"]
    alone = measured[0].proxies_cpu_ms_per_turn
    for each in measured:
        name = "1, no store" if each.replicas == 0 else str(each.replicas)
        cells: list[Any] = [name, each.turns, f"{each.proxies_cpu_ms_per_turn:.2f}"]
        cells.append(f"{each.proxies_cpu_ms_per_turn / alone:.2f}")
        of_store = (each.store_cpu_ms_per_turn, each.store_commands_per_turn)
        cells += ["" if value is None else f"{value:.2f}" for value in of_store]
        per_session = each.store_bytes_per_session
        cells.append("" if per_session is None else f"{per_session / 1000:.1f}")
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows) + "\n"


def main(
    sessions: int = 200,
    turns: int = 8,
    gap_s: float = 2.0,
    replicas: Sequence[int] = REPLICAS,
    out: Path | None = None,
) -> int:
    """``gap_s``: mean pause of a session between its turns."""
    measured = [asyncio.run(measure(count, sessions, turns, gap_s)) for count in replicas]
    print(as_table(measured))  # noqa: T201
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        machine = {"machine": platform.machine(), "python": platform.python_version()}
        found = {**machine, "sessions": sessions, "turns": turns, "gap_s": gap_s}
        rows = [asdict(each) for each in measured]
        (out / "scaling.json").write_text(json.dumps({**found, "measured": rows}, indent=1) + "\n")
        (out / "scaling.md").write_text(as_table(measured))
    return 1 if any(each.violations for each in measured) else 0


if __name__ == "__main__":
    sys.exit(cyclopts.App(default_command=main)(result_action="return_value"))
