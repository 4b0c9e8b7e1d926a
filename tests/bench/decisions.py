"""What one decision of the policy costs, and what it keeps of a session: part of ``make bench``.

In microseconds of one core, by kind of event and number of sessions; the collector is out of the way, as
in the proxy, where it is frozen. Memory is what the policy holds after the crowd has gathered, by
``tracemalloc``; the identity index, which belongs to the shell, is not in it.
"""

import gc
import time
import tracemalloc
from collections import defaultdict

from rich.console import Console
from rich.table import Table

from marsproxy.core.commands import Command, ForwardTurn, HoldTurn
from marsproxy.core.events import Event
from tests.bench.crowd import Crowd, Shape

SHAPES = (
    Shape(100),
    Shape(1_000),
    Shape(10_000),
    Shape(10_000, backends=64, tool_hosts=64),
    Shape(10_000, backends=64, tool_hosts=64, tenants=10_000),
    Shape(100_000, backends=64, tool_hosts=64),
)
MEASURED = 60_000
"""Decisions."""
P99_BAR_US, MEMORY_BAR_BYTES = 100.0, 4_000


def kind_of(event: Event, commands: list[Command]) -> str:
    name = type(event).__name__
    if any(isinstance(command, HoldTurn) for command in commands):
        return f"{name}, held"
    admitted = sum(isinstance(command, ForwardTurn) for command in commands)
    if admitted and name != "TurnArrived":
        return f"{name}, admits"
    return name


def decision_costs(crowd: Crowd) -> dict[str, list[float]]:
    """Microseconds, sorted, by kind; "all" are all together."""
    costs: dict[str, list[float]] = defaultdict(list)
    handle, clock = crowd.policy.handle, time.perf_counter_ns

    def timed(event: Event, now: float) -> list[Command]:
        begin = clock()
        commands = handle(event, now)
        costs[kind_of(event, commands)].append((clock() - begin) / 1e3)
        return commands

    crowd.handle = timed
    crowd.play(MEASURED)
    crowd.handle = handle
    costs["all"] = [cost for found in costs.values() for cost in found]
    return {kind: sorted(found) for kind, found in sorted(costs.items())}


def bytes_per_session(shape: Shape) -> float:
    """Of the policy alone: what a crowd of the same size keeps for itself is counted out."""
    tracemalloc.start()
    try:
        crowd = Crowd(shape)
        crowd.gather()
        crowd.play(4 * shape.sessions)
        gc.collect()
        before, rows = tracemalloc.get_traced_memory()[0], len(crowd.policy.sessions)
        forget(crowd)
        gc.collect()
        return (before - tracemalloc.get_traced_memory()[0]) / rows
    finally:
        tracemalloc.stop()


def forget(crowd: Crowd) -> None:
    """Drop the policy, and every way to it."""
    del crowd.policy, crowd.handle


def share(sorted_values: list[float], part: float) -> float:
    return sorted_values[min(len(sorted_values) - 1, int(part * len(sorted_values)))]


def measure(shape: Shape, console: Console) -> None:
    crowd = Crowd(shape)
    crowd.gather()
    crowd.play(max(20_000, 5 * shape.sessions))
    gc.collect()
    gc.freeze()
    gc.disable()
    costs = decision_costs(crowd)
    gc.enable()
    gc.unfreeze()
    shares = ", ".join(f"{part:.0%} {name}" for name, part in crowd.shares().items())
    title = f"{shape.sessions:,} sessions, {shape.backends} backends, {shape.tenants:,} tenants: {shares}"
    table = Table("event", "number", "p50", "p99", "max", title=title, title_justify="left")
    for kind, found in costs.items():
        figures = (f"{figure:.1f}" for figure in (share(found, 0.5), share(found, 0.99), found[-1]))
        table.add_row(kind, str(len(found)), *figures)
    console.print(table)


def main() -> None:
    console = Console(width=110)
    for shape in SHAPES:
        measure(shape, console)
    for shape in SHAPES:
        if shape.sessions <= 10_000:
            console.print(f"{shape}: {bytes_per_session(shape):,.0f} bytes a session", highlight=False)
    console.print(f"bars: p99 of a decision {P99_BAR_US:.0f} us, {MEMORY_BAR_BYTES:,} bytes a session")


if __name__ == "__main__":
    main()
