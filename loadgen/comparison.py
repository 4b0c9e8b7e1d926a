"""Stand-in for the comparison, until the full one is merged."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec


def compare_runs(groups: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    found = {
        name: [
            msgspec.json.decode((path / "summary.json").read_bytes())["jct_s"]["mean"] for path in run_dirs
        ]
        for name, run_dirs in groups.items()
    }
    metrics = {
        name: {"values": values, "median": median([v for v in values if v is not None] or [0.0])}
        for name, values in found.items()
    }
    return {
        "baseline": next(iter(groups)),
        "repeats": {name: len(dirs) for name, dirs in groups.items()},
        "metrics": {"jct_s.mean": metrics},
        "caveats": [],
    }
