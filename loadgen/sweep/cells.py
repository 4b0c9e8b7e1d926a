"""One simulation of the grid, and its key.

The key is a digest of the recipe, which is everything that decides the result and nothing else: a label, or
what a rate is called in multiples of the knee, may change without making a result unknown.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import xxhash

from loadgen.sweep.grid import Grid, PolicyEntry, SourceOptions, ToolHost, WorkloadEntry

RATE_DIGITS = 4
"""Significant digits of a rate: more would make keys depend on the last bit of a division."""


class Recipe(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that the simulator is told."""

    source: str
    """``{trace}`` stands for the trace file, whose place does not matter to the result."""
    sessions: int
    seed: int
    hardware: str
    model: str
    kv_tokens: int
    policy: str
    rate_per_s: float | None = None
    """Open loop; or else ``agents``."""
    agents: int | None = None
    backends: int = 1
    options: SourceOptions = SourceOptions()
    tools: ToolHost | None = None
    policy_settings: dict[str, Any] = msgspec.field(default_factory=dict)
    simulator: dict[str, Any] = msgspec.field(default_factory=dict)
    trace_digest: str | None = None
    """Of the trace file's bytes, where the workload is made from it."""

    @property
    def key(self) -> str:
        return xxhash.xxh3_128_hexdigest(msgspec.json.encode(departures(self), order="sorted"))


def departures(struct: msgspec.Struct) -> dict[str, Any]:
    """What is not at its default. ``omit_defaults`` goes by identity, so its output is another one after a
    trip through a file or to a worker."""
    defaults = {one.name: one.default for one in msgspec.structs.fields(struct)}
    values = {name: getattr(struct, name) for name in defaults}
    return {
        name: departures(value) if isinstance(value, msgspec.Struct) else value
        for name, value in values.items()
        if value != defaults[name] and value != {}
    }


class Cell(msgspec.Struct, frozen=True, omit_defaults=True):
    """A recipe under the names of the grid."""

    workload: str
    policy: str
    """Its label."""
    seed: int
    recipe: Recipe
    load: float | None = None
    """Multiple of the knee; None in a closed loop and in the search for the knee."""

    @property
    def key(self) -> str:
        return self.recipe.key


class Source(msgspec.Struct, frozen=True):
    """What a workload of the grid is really made from: a trace, or the profile in its place."""

    source: str
    kv_tokens: int
    knee_per_s: float | str
    options: SourceOptions
    trace_digest: str | None = None
    is_stand_in: bool = False
    """The grid names a trace that is not at hand."""


def source_of(workload: WorkloadEntry, trace_digest: str | None) -> Source:
    """``trace_digest`` is None where there is no trace file."""
    traced = workload.traced
    if traced is None or trace_digest is None:
        plain = Source(workload.source, workload.kv_tokens, workload.knee_per_s, workload.options)
        return msgspec.structs.replace(plain, is_stand_in=traced is not None)
    return Source(
        source=traced.source,
        kv_tokens=traced.kv_tokens or workload.kv_tokens,
        knee_per_s=traced.knee_per_s or workload.knee_per_s,
        options=traced.options or workload.options,
        trace_digest=trace_digest,
    )


class CellMaker:
    """Makes the cells of one workload; keeps what they have in common."""

    def __init__(self, grid: Grid, workload: WorkloadEntry, source: Source) -> None:
        self.grid, self.workload, self.source = grid, workload, source

    def cells(
        self,
        policy: PolicyEntry,
        *,
        rate_per_s: float | None = None,
        agents: int | None = None,
        load: float | None = None,
    ) -> list[Cell]:
        """One for every seed."""
        return [
            Cell(self.workload.name, policy.title, seed, self._recipe(policy, seed, rate_per_s, agents), load)
            for seed in self.grid.run.seeds
        ]

    def at_load(self, policy: PolicyEntry, load: float, knee_per_s: float) -> list[Cell]:
        return self.cells(policy, rate_per_s=load * knee_per_s, load=load)

    def _recipe(self, policy: PolicyEntry, seed: int, rate_per_s: float | None, agents: int | None) -> Recipe:
        run, workload, source = self.grid.run, self.workload, self.source
        return Recipe(
            source=source.source,
            sessions=self.grid.sessions_of(workload),
            seed=seed,
            hardware=run.hardware,
            model=run.model,
            kv_tokens=source.kv_tokens,
            policy=policy.name,
            rate_per_s=None if rate_per_s is None else rounded(rate_per_s),
            agents=agents,
            backends=workload.backends,
            options=source.options,
            tools=workload.tools,
            policy_settings=policy.settings,
            simulator=policy.simulator,
            trace_digest=source.trace_digest,
        )

    def grid_cells(self, knee_per_s: float | None) -> Iterator[Cell]:
        """Policy by policy; without a knee only the closed loops."""
        for policy in self.grid.run.policies:
            if policy.workloads is not None and self.workload.name not in policy.workloads:
                continue
            for load in self.grid.loads_of(self.workload) if knee_per_s is not None else ():
                if policy.loads is None or load in policy.loads:
                    yield from self.at_load(policy, load, knee_per_s or 0.0)
            for agents in self.workload.agents if policy.loads is None else ():
                yield from self.cells(policy, agents=agents)


def rounded(rate_per_s: float) -> float:
    return float(f"{rate_per_s:.{RATE_DIGITS}g}")


def select_cells(cells: list[Cell], only: Mapping[str, list[str]]) -> list[Cell]:
    """Cells that agree with every filter: ``policy``, ``workload``, ``load``, ``agents``, ``seed``."""
    return [cell for cell in cells if all(_fits(cell, key, values) for key, values in only.items())]


FILTERS = ("policy", "workload", "load", "agents", "seed")


def _fits(cell: Cell, key: str, values: list[str]) -> bool:
    value = cell.recipe.agents if key == "agents" else getattr(cell, key)
    if isinstance(value, float):
        return any(value == float(each) for each in values)
    return str(value) in values
