"""Reads a grid file strictly: what is not known, out of range or named nowhere fails with what is allowed.

A grid runs for hours, so everything that can be wrong in it is found before the first cell.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import msgspec

from loadgen.errors import LoadgenError
from loadgen.sweep.grid import Bar, Grid
from loadgen.sweep.metrics import METRICS

BEST = "best"
"""In a bar's ``over``: whichever policy is best in the cell."""


class GridError(LoadgenError):
    """The grid file does not say what a grid must say."""


def packaged_grids() -> list[str]:
    found = files("loadgen.sim").joinpath("grids").iterdir()
    return sorted(entry.name.removesuffix(".toml") for entry in found if entry.name.endswith(".toml"))


def read_grid(name: str) -> Grid:
    """The packaged grid of that name, or the file."""
    if name in packaged_grids():
        return parse_grid(files("loadgen.sim").joinpath("grids", f"{name}.toml").read_text("utf-8"), name)
    try:
        return parse_grid(Path(name).read_text("utf-8"), name)
    except (OSError, UnicodeDecodeError) as exc:
        allowed = ", ".join(packaged_grids())
        raise GridError(f"grid {name!r} cannot be read; allowed: a TOML file, or one of {allowed}") from exc


def parse_grid(text: str, name: str) -> Grid:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise GridError(f"{name}: no TOML: {exc}") from exc
    table = with_named_policies(table)
    problem = next(unknown_keys(table, Grid, ""), None)
    if problem is not None:
        raise GridError(f"{name}: {problem}")
    try:
        grid = msgspec.convert(table, Grid)
    except msgspec.ValidationError as exc:
        raise GridError(f"{name}: {str(exc).replace('$.', '')}") from exc
    if problem := next(contradictions(grid), None):
        raise GridError(f"{name}: {problem}")
    return grid


def with_named_policies(table: dict[str, Any]) -> dict[str, Any]:
    """A policy may be written as its name alone."""
    run = table.get("run")
    if not isinstance(run, dict) or not isinstance(run.get("policies"), list):
        return table
    entries = [{"name": entry} if isinstance(entry, str) else entry for entry in run["policies"]]
    return {**table, "run": {**run, "policies": entries}}


def unknown_keys(table: Mapping[str, Any], kind: type[msgspec.Struct], where: str) -> Iterator[str]:
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in table.items():
        path = f"{where}{key}"
        if key not in fields:
            yield f"unknown key {path!r}; allowed: {', '.join(fields)}"
        elif nested := struct_in(fields[key]):
            entries = value if isinstance(value, list) else [value]
            for entry in entries:
                if isinstance(entry, Mapping):
                    yield from unknown_keys(entry, nested, f"{path}.")


def struct_in(annotation: Any) -> type[msgspec.Struct] | None:
    """The table that a field, or each entry of it, is read as."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation
    return next(filter(None, map(struct_in, get_args(annotation))), None)


def contradictions(grid: Grid) -> Iterator[str]:
    yield from twice("run.policies", [entry.title for entry in grid.run.policies])
    yield from twice("workloads", [entry.name for entry in grid.workloads])
    if not grid.run.seeds or not grid.run.policies or not grid.workloads:
        yield "run.seeds, run.policies and workloads must each have an entry"
    yield from numbers_out_of_range(grid)
    labels = [entry.title for entry in grid.run.policies]
    names = [entry.name for entry in grid.workloads]
    for entry in grid.run.policies:
        yield from strangers(f"policy {entry.title!r}: workloads", entry.workloads or (), names)
    if grid.own_knees is not None:
        wanted = (*grid.own_knees.of, grid.own_knees.policy)
        yield from strangers("own_knees", wanted, labels)
    for bar in grid.bars:
        yield from bar_contradictions(grid, bar, labels, names)


def numbers_out_of_range(grid: Grid) -> Iterator[str]:
    every_load = [grid.run.loads, *(entry.loads or () for entry in grid.workloads)]
    every_load += [entry.loads or () for entry in grid.run.policies]
    if any(not load > 0 for loads in every_load for load in loads):
        yield "loads are multiples of the knee; allowed: more than 0"
    if grid.run.sessions < 1:
        yield f"run.sessions is {grid.run.sessions}; allowed: 1 or more"
    for entry in grid.workloads:
        where = f"workload {entry.name!r}"
        if entry.kv_tokens < 1:
            yield f"{where}: kv_tokens is {entry.kv_tokens}; allowed: 1 or more"
        if entry.knee_per_s != "find" and not entry.knee_per_s > 0:
            yield f'{where}: knee_per_s is {entry.knee_per_s}; allowed: more than 0, or "find"'
        if any(agents < 1 for agents in entry.agents):
            yield f"{where}: agents; allowed: 1 or more"
        if entry.sessions is not None and entry.sessions < 1:
            yield f"{where}: sessions is {entry.sessions}; allowed: 1 or more"
        if entry.backends < 1:
            yield f"{where}: backends is {entry.backends}; allowed: 1 or more"


def bar_contradictions(grid: Grid, bar: Bar, labels: list[str], names: list[str]) -> Iterator[str]:
    where = f"bar {bar.name!r}"
    yield from strangers(f"{where}: policy", [bar.policy], labels)
    yield from strangers(f"{where}: over", bar.over, [*labels, BEST])
    yield from strangers(f"{where}: workloads", bar.workloads or (), names)
    judged = [metric.key for metric in METRICS if metric.is_lower_better is not None]
    yield from strangers(f"{where}: metric", [bar.metric], judged)
    if bar.own_knee is not None and bar.loads is not None:
        yield f"{where}: loads and own_knee exclude each other"
    if bar.own_knee is not None:
        own = grid.own_knees
        yield from strangers(f"{where}: own_knee over", bar.over, own.of if own else ())


def strangers(where: str, given: Iterable[str], allowed: Iterable[str]) -> Iterator[str]:
    known = list(allowed)
    for each in given:
        if each not in known:
            yield f"{where}: {each!r} is not known; allowed: {', '.join(known) or 'nothing'}"


def twice(where: str, names: list[str]) -> Iterator[str]:
    for name in names:
        if names.count(name) > 1:
            yield f"{where}: {name!r} is there twice; give entries labels of their own"
