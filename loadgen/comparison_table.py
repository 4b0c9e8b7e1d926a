"""Stand-in for the comparison's table, until the full one is merged."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def render_table(comparison: Mapping[str, Any]) -> Table:
    table = Table("target", "JCT mean, s")
    for name, metric in comparison["metrics"]["jct_s.mean"].items():
        table.add_row(name, str(metric["median"]))
    return table
