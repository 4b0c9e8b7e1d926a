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
REPEATS = 3
P99_BAR_US, MEMORY_BAR_BYTES = 100.0, 4_000


def kind_of(event: Event, commands: list[Command]) -> str:
    name = type(event).__name__
    if any(isinstance(command, HoldTurn) for command in commands):
        return f"{name}, held"
    admitted = sum(isinstance(command, ForwardTurn) for command in commands)
    if admitted and name != "TurnArrived":
        return f"{name}, admits"
    return name


def play(crowd: Crowd) -> tuple[list[str], list[float]]:
    """Kind and microseconds of each decision, in order."""
    kinds: list[str] = []
    costs: list[float] = []
    handle, clock = crowd.policy.handle, time.perf_counter_ns

    def timed(event: Event, now: float) -> list[Command]:
        begin = clock()
        commands = handle(event, now)
        costs.append((clock() - begin) / 1e3)
        kinds.append(kind_of(event, commands))
        return commands

    crowd.handle = timed
    crowd.play(MEASURED)
    return kinds, costs


def decision_costs(shape: Shape) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Microseconds, sorted, by kind ("all" are all together), and the crowd's shares at the end.

    The same crowd makes the same decisions, so each is measured several times, and its fastest counts:
    the others had company on the core.
    """
    fastest: list[float] = []
    for _ in range(REPEATS):
        crowd = Crowd(shape)
        crowd.gather()
        crowd.play(max(20_000, 5 * shape.sessions))
        gc.collect()
        gc.freeze()
        gc.disable()
        kinds, costs = play(crowd)
        gc.enable()
        gc.unfreeze()
        fastest = [min(pair) for pair in zip(fastest, costs, strict=True)] if fastest else costs
    by_kind = defaultdict(list, {"all": sorted(fastest)})
    for kind, cost in zip(kinds, fastest, strict=True):
        by_kind[kind].append(cost)
    return {kind: sorted(found) for kind, found in sorted(by_kind.items())}, crowd.shares()


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
    costs, found_shares = decision_costs(shape)
    shares = ", ".join(f"{part:.0%} {name}" for name, part in found_shares.items())
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
