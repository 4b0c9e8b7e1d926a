"""What a grid file asks for: its tables as frozen structs, with units and defaults.

Knows no files and runs nothing. ``loadgen.sweep.grid_file`` reads these, ``docs/sweep.md`` is their
reference.
"""

from typing import Any, Literal

import msgspec

LOADS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""Multiples of the knee: two where everything fits, the knee, and half as much again."""

LIGHT_LOAD = 0.25
"""The load whose mean JCT stands for an unhurried server."""

STOCK = "fcfs"
"""The policy that the knee is found with and that ratios are taken over: stock vLLM."""


class Table(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A table of the file. A key that is left at its default is not part of a cell's key, so that a later
    version may add one without making old results unknown."""


class ToolHost(Table, frozen=True):
    """The machine that runs the tools; without this table every tool takes its traced time."""

    cores: float
    """Of each host, as the memory."""
    memory_gb: float | None = None
    """None: more than the tools can ask for."""
    discipline: Literal["sharing", "slots"] = "sharing"
    """All running tools share the cores, or each waits for a core of its own."""
    hosts: int = 1


class SourceOptions(Table, frozen=True):
    """Changes to all of a workload, as the options of the same names of ``loadgen run`` and ``simulate``."""

    max_turns: int | None = None
    scale_tokens: float = 1.0
    scale_gaps: float = 1.0
    max_context_tokens: int | None = None
    max_gap_s: float | None = None


class Traced(Table, frozen=True):
    """What to run in place of ``source`` where a trace file is at hand."""

    source: str = "{trace}"
    """A workload as ``--workload`` takes it, selections and all; ``{trace}`` stands for the file."""
    options: SourceOptions | None = None
    """Instead of the options of the workload."""
    kv_tokens: int | None = None
    knee_per_s: float | Literal["find"] | None = None


class WorkloadEntry(Table, frozen=True):
    name: str
    source: str
    """A workload as ``--workload`` takes it: a profile, a mixture (``mix:a=50,b=50``) or a file."""
    kv_tokens: int
    """KV pool of each backend."""
    knee_per_s: float | Literal["find"] = "find"
    """Sessions a second at which stock's mean JCT is twice that of a light load; ``find`` measures it."""
    about: str = ""
    """One line for the reader of the tables."""
    backends: int = 1
    sessions: int | None = None
    """Instead of those of ``[run]``, as the next two."""
    loads: tuple[float, ...] | None = None
    agents: tuple[int, ...] = ()
    """Closed loop: numbers of agents, each a column of its own."""
    options: SourceOptions = SourceOptions()
    tools: ToolHost | None = None
    traced: Traced | None = None


class PolicyEntry(Table, frozen=True):
    name: str
    """As ``marsproxy serve --policy`` knows it, or one that only the simulator has."""
    label: str = ""
    """What the tables call it; by default its name."""
    group: Literal["policy", "bound", "ablation", "sensitivity"] = "policy"
    """What is compared as a peer, what bounds the peers, parts of a policy, and a policy under trouble."""
    settings: dict[str, Any] = msgspec.field(name="set", default_factory=dict)
    """Settings of the policy by dotted name: ``{"admission.kv_target" = 1.0}``."""
    simulator: dict[str, Any] = msgspec.field(default_factory=dict)
    """Settings of the simulator by name: ``{telemetry_delay_s = 5.0}``."""
    workloads: tuple[str, ...] | None = None
    """Only on these; None: on all."""
    loads: tuple[float, ...] | None = None
    """Only at these, and in no closed loop; None: at all."""

    @property
    def title(self) -> str:
        return self.label or self.name


class RunTable(Table, frozen=True):
    seeds: tuple[int, ...]
    policies: tuple[PolicyEntry, ...]
    sessions: int = 200
    """Run length of every cell. A ratio against a policy that collapses grows with it."""
    loads: tuple[float, ...] = LOADS
    """Multiples of the knee."""
    hardware: str = "h100"
    model: str = "qwen3-30b-a3b"


class OwnKnees(Table, frozen=True):
    """Cells at the knee of each of these policies, and at multiples of it, for a fair second comparison."""

    of: tuple[str, ...]
    policy: str = "mars"
    """The one that is compared to them there."""
    multiples: tuple[float, ...] = (1.0, 1.25)


class Bar(Table, frozen=True):
    """Something the figures must show."""

    name: str
    at_least: float
    kind: Literal["ratio", "knee_shift"] = "ratio"
    """Times better than ``over`` in ``metric``, or knee over the knee of ``over``."""
    metric: str = "jct_s.mean"
    policy: str = "mars"
    over: tuple[str, ...] = (STOCK,)
    """Labels, or ``best``: whichever is best in a cell; every one of them has to be beaten."""
    workloads: tuple[str, ...] | None = None
    """None: all."""
    loads: tuple[float, ...] | None = None
    """None: all open loads of the grid."""
    own_knee: tuple[float, ...] | None = None
    """Instead of ``loads``: multiples of the knee of ``over``, from ``[own_knees]``."""
    how: Literal["all", "any"] = "all"
    """At every load, or at one of them on each workload."""
    seeds: Literal["median", "worst", "pooled"] = "median"
    """Of the seeds' ratios the median or the least, or the ratio of the means over all seeds."""


class Grid(Table, frozen=True):
    title: str
    run: RunTable
    workloads: tuple[WorkloadEntry, ...]
    own_knees: OwnKnees | None = None
    bars: tuple[Bar, ...] = ()

    def policy(self, label: str) -> PolicyEntry | None:
        return next((entry for entry in self.run.policies if entry.title == label), None)

    def sessions_of(self, workload: WorkloadEntry) -> int:
        return workload.sessions or self.run.sessions

    def loads_of(self, workload: WorkloadEntry) -> tuple[float, ...]:
        return self.run.loads if workload.loads is None else workload.loads
