"""Sorts runs into targets: runs of one target under the same settings are its repeats.

Owns names and order of targets; both come from the summaries, so are text to be escaped.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from loadgen.comparison import COMPARABLE_SETTINGS, figure
from loadgen.run_files import Run


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    index: int
    """Position in the report; decides colour and dash."""
    runs: list[Run]

    @property
    def typical_run(self) -> Run:
        """The run whose mean JCT is the median one: drawn where only one run per target can be."""
        measured = [run for run in self.runs if figure(run.summary, "jct_s.mean") is not None]
        if not measured:
            return self.runs[0]
        measured.sort(key=lambda run: figure(run.summary, "jct_s.mean") or 0.0)
        return measured[(len(measured) - 1) // 2]


def group_by_target(runs: Iterable[Run]) -> list[Target]:
    """Targets in the order of their first run; names are unique."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((_label(run), _settings_key(run.summary)), []).append(run)
    labels = [label for label, _ in groups]
    targets: list[Target] = []
    for index, ((label, _), members) in enumerate(groups.items()):
        name = label if labels.count(label) == 1 else f"{label} ({members[0].path.name})"
        targets.append(Target(_unique(name, targets), index, members))
    return targets


def _label(run: Run) -> str:
    if label := run.summary.get("label"):
        return str(label)
    parts = [run.summary.get("target"), run.summary.get("policy")]
    return " · ".join(str(part) for part in parts if part) or run.path.name


def _settings_key(summary: Mapping[str, Any]) -> str:
    settings = [summary.get(setting) for setting in COMPARABLE_SETTINGS]
    return msgspec.json.encode([*settings, summary.get("flags")]).decode()


def _unique(name: str, targets: list[Target]) -> str:
    taken = sum(target.name == name for target in targets)
    return f"{name} #{len(targets) + 1}" if taken else name
