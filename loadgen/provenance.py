"""What a summary says of the run that no record does: the load, and the code that ran."""

import subprocess
from pathlib import Path
from typing import Any

from loadgen.arrivals import AsTraced, ClosedLoop, Load, OpenLoop


def describe(load: Load) -> dict[str, Any]:
    match load:
        case OpenLoop(rate_per_s, process):
            return {"arrivals": process.value, "rate": rate_per_s, "concurrency": None}
        case ClosedLoop(agents):
            return {"arrivals": "closed", "rate": None, "concurrency": agents}
        case AsTraced():
            return {"arrivals": "traced", "rate": None, "concurrency": None}


def commit() -> str | None:
    """Of the checkout this package runs from; None where it is installed elsewhere."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
