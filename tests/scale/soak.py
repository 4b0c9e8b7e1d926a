"""Everything at once, for long: ``python -m tests.scale.soak --minutes 30 --out out/soak``.

A crowd without end, faults by seed at a given rate, and samples of what all processes hold. Prints the
books and every promise that did not hold; exit code 1 if there is one. ``--out`` gets the figures as JSON
and a page with the plots. The first replica is never killed, so that what it loses has time to show; it is
paused and cut off like the others.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cyclopts

from tests.scale import faults
from tests.scale.case import books_of, settle
from tests.scale.faults import Fault
from tests.scale.log_audit import LogFindings, audit_logs
from tests.scale.samples import Samples, sample_until_cancelled
from tests.scale.sessions import LONG_ATTEMPT_S, Crowd
from tests.scale.soak_page import page
from tests.scale.turn_books import TurnBooks, recovered_s
from tests.scale.world import Sizes, World, open_world

SHORT_EXPIRY = ("--sessions.idle-expiry-s", "60")
"""Sessions that are quiet are forgotten within the run, or tables would grow until its end."""
LASTS_S = (1.0, 6.0)
"""Least and most of a fault's length; shorter ones and longer ones than a replica's lease."""
WITH_STORE = (
    faults.REPLICA_KILLED,
    faults.BACKEND_KILLED,
    faults.STORE_KILLED,
    faults.CUT_FROM_STORE,
    faults.CUT_FROM_BACKEND,
    faults.STORE_SLOW,
    faults.REPLICA_PAUSED,
)
WITHOUT_STORE = (faults.BACKEND_KILLED, faults.CUT_FROM_BACKEND, faults.REPLICA_PAUSED)


@dataclass
class SoakReport:
    minutes: float
    seed: int
    faults: dict[str, int]
    books: TurnBooks
    logs: LogFindings
    recoveries_s: list[float | None]
    series_judged: int
    violations: list[str]
    samples: Samples = field(repr=False)

    def as_json(self) -> dict[str, Any]:
        fields = asdict(self)
        fields["samples"] = [
            {"kind": kind, "program": program, "life": life, "points": points}
            for (kind, program, life), points in self.samples.series.items()
        ]
        return fields


@dataclass
class Strikes:
    """Faults at random, one at a time: what two at once do is what each does."""

    world: World
    kinds: Sequence[Fault]
    per_minute: float
    draw: random.Random
    struck: list[tuple[Fault, float]] = field(default_factory=list)
    """And when, in seconds since 1970."""

    async def run(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while True:
            await asyncio.sleep(self.draw.expovariate(self.per_minute / 60))
            fault, lasts_s = self.draw.choice(self.kinds), self.draw.uniform(*LASTS_S)
            if time.monotonic() + lasts_s > until_s:
                return
            victim = self.draw.randrange(1, 60)
            if fault is faults.REPLICA_KILLED and not victim % len(self.world.replicas):
                victim += 1
            self.struck.append((fault, time.time()))
            await fault.strike(self.world, victim)
            await asyncio.sleep(lasts_s)
            await fault.mend(self.world, victim)


async def soak(
    sizes: Sizes, *, minutes: float, sessions: int, gap_s: float, faults_per_minute: float, seed: int
) -> SoakReport:
    async with open_world(sizes) as world:
        crowd = Crowd(world.url, sessions, turns=None, gap_s=gap_s, seed=seed, patience_s=LONG_ATTEMPT_S)
        kinds = WITHOUT_STORE if world.store is None else WITH_STORE
        strikes = Strikes(world, kinds, faults_per_minute, random.Random(seed))
        samples = Samples()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(crowd.run())
            sampling = tasks.create_task(sample_until_cancelled(world, samples))
            striking = tasks.create_task(strikes.run(minutes * 60))
            await asyncio.sleep(minutes * 60)
            await striking
            crowd.stop()
            await running
            sampling.cancel()
        await settle(world)
        await world.stop()
        books, logs = books_of(world, crowd), audit_logs(world.event_logs())
        errors = [f"{each.name}: {line}" for each in world.programs for line in each.errors()]
    return SoakReport(
        minutes=minutes,
        seed=seed,
        faults=dict(Counter(fault.name for fault, _ in strikes.struck)),
        books=books,
        logs=logs,
        recoveries_s=[recovered_s(crowd.attempts, at_s) for _, at_s in strikes.struck],
        series_judged=samples.judged,
        violations=[*books.violations, *logs.violations, *samples.growing(), *errors],
        samples=samples,
    )


def main(
    minutes: float = 30.0,
    sessions: int = 300,
    gap_s: float = 4.0,
    faults_per_minute: float = 4.0,
    seed: int = 1,
    replicas: int = 3,
    backends: int = 3,
    store: bool = True,
    out: Path | None = None,
) -> int:
    """``gap_s``: mean pause of a session between its turns; sessions / gap_s is about the rate of turns."""
    sizes = Sizes(replicas=replicas, backends=backends, store=store, settings=SHORT_EXPIRY)
    report = asyncio.run(
        soak(
            sizes,
            minutes=minutes,
            sessions=sessions,
            gap_s=gap_s,
            faults_per_minute=faults_per_minute,
            seed=seed,
        )
    )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "soak.json").write_text(json.dumps(report.as_json(), indent=1, default=str) + "\n")
        (out / "soak.html").write_text(page(report.samples, report.faults, report.violations))
    for name, value in {**report.faults, **asdict(report.books), **asdict(report.logs)}.items():
        if name != "violations":
            print(f"{name:28} {value}")  # noqa: T201
    for violation in report.violations:
        print(f"VIOLATION {violation}")  # noqa: T201
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(cyclopts.App(default_command=main)(result_action="return_value"))
