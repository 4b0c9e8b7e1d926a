"""Runs one recipe by the simulator: the only part of the sweep that knows it.

Names in a grid that belong to others (settings of policies, settings of the simulator) are checked here
against what those have.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

from loadgen.arrivals import ClosedLoop, Load, OpenLoop
from loadgen.errors import LoadgenError
from loadgen.modifiers import Modifiers
from loadgen.run_files import SESSIONS_FILE, SUMMARY_FILE, TURNS_FILE
from loadgen.sim.run import Simulated, simulate
from loadgen.sim.settings import SimulationSettings
from loadgen.sim.tool_hosts import Discipline, ToolHostShape
from loadgen.source import Workload, open_workload
from loadgen.sweep.cells import Recipe
from loadgen.sweep.grid import PolicyEntry, ToolHost
from loadgen.sweep.runner import Setting
from marsproxy.core.policies import POLICIES
from marsproxy.core.settings import ConfigError

MB_PER_GB = 1024

DECIDED_BY_THE_GRID = (
    "policy",
    "load",
    "seed",
    "hardware",
    "model",
    "kv_tokens",
    "backends",
    "tools",
    "policy_settings",
    "label",
)
"""Settings of the simulator that the grid has keys of its own for."""

Section = TypeVar("Section")


def run_recipe(recipe: Recipe, setting: Setting) -> dict[str, Any]:
    simulated = simulate(settings_of(recipe), workload_of(recipe, setting.trace))
    if setting.records_dir is not None:
        write_run(setting.records_dir / recipe.key, simulated)
    return simulated.summary


def check_policy_entries(entries: Iterable[PolicyEntry]) -> None:
    """Before hours of simulation: every name and value of every entry, in one place."""
    for entry in entries:
        if entry.name not in POLICIES:
            raise LoadgenError(f"policy {entry.name!r} is not known; allowed: {', '.join(sorted(POLICIES))}")
        try:
            with_overrides(entry, ClosedLoop(1), 0)
        except (LoadgenError, ConfigError) as exc:
            raise LoadgenError(f"policy {entry.title!r}: {exc}") from exc


def settings_of(recipe: Recipe) -> SimulationSettings:
    entry = PolicyEntry(recipe.policy, settings=recipe.policy_settings, simulator=recipe.simulator)
    return replace(
        with_overrides(entry, load_of(recipe), recipe.seed),
        hardware=recipe.hardware,
        model=recipe.model,
        kv_tokens=recipe.kv_tokens,
        backends=recipe.backends,
        tools=None if recipe.tools is None else shape_of(recipe.tools),
    )


def with_overrides(entry: PolicyEntry, load: Load, seed: int) -> SimulationSettings:
    settings = SimulationSettings(policy=entry.name, load=load, seed=seed)
    own = replaced(settings.policy_settings, entry.settings, "set")
    checked = [field.name for field in fields(settings) if field.name not in DECIDED_BY_THE_GRID]
    for name in entry.simulator:
        if name not in checked:
            raise LoadgenError(f"simulator.{name} is not known; allowed: {', '.join(checked)}")
    return replaced(replace(settings, policy_settings=own), entry.simulator, "simulator")


def replaced(section: Section, changes: Mapping[str, Any], where: str) -> Section:
    """The same tree of dataclasses with the settings of these dotted names changed."""
    assert is_dataclass(section)
    assert not isinstance(section, type)
    for dotted, value in changes.items():
        name, _, rest = dotted.partition(".")
        hints = get_type_hints(type(section))
        if name not in hints:
            raise LoadgenError(f"{where}.{name} is not known; allowed: {', '.join(hints)}")
        old = getattr(section, name)
        if rest:
            new = replaced(nested(old, where, name), {rest: value}, f"{where}.{name}")
        elif isinstance(value, Mapping) and is_dataclass(old):
            new = replaced(old, value, f"{where}.{name}")
        else:
            new = converted(value, hints[name], f"{where}.{name}")
        section = replace(section, **{name: new})
    return section


def nested(value: Any, where: str, name: str) -> Any:
    if not is_dataclass(value):
        raise LoadgenError(f"{where}.{name} is a single setting and has none below it")
    return value


def converted(value: Any, kind: Any, where: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        raise LoadgenError(f"{where}: {exc}") from exc


def load_of(recipe: Recipe) -> Load:
    if recipe.rate_per_s is not None:
        return OpenLoop(recipe.rate_per_s)
    assert recipe.agents is not None, "a recipe has a rate or a number of agents"
    return ClosedLoop(recipe.agents)


def shape_of(host: ToolHost) -> ToolHostShape:
    return ToolHostShape(
        cores=host.cores,
        memory_mb=None if host.memory_gb is None else host.memory_gb * MB_PER_GB,
        discipline=Discipline(host.discipline),
        hosts=host.hosts,
    )


def workload_of(recipe: Recipe, trace: Path | None) -> Workload:
    """The sessions of a file are drawn by seed: the same file in every seed would be the same load."""
    options = recipe.options
    return open_workload(
        recipe.source.replace("{trace}", str(trace)),
        sessions=recipe.sessions,
        seed=recipe.seed,
        modifiers=Modifiers(
            options.max_turns,
            options.scale_tokens,
            options.scale_gaps,
            options.max_context_tokens,
            options.max_gap_s,
        ),
        bootstrap=True,
    )


def write_run(out_dir: Path, simulated: Simulated) -> None:
    """A run directory as ``loadgen report`` reads it."""
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / TURNS_FILE).write_bytes(lines(simulated.turns))
    (out_dir / SESSIONS_FILE).write_bytes(lines(simulated.sessions))
    (out_dir / SUMMARY_FILE).write_bytes(msgspec.json.encode(simulated.summary) + b"\n")


def lines(records: Iterable[Any]) -> bytes:
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)
