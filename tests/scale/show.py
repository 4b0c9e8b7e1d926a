"""Each fault once, at full size: ``python -m tests.scale.show --out docs/results/scale``.

Three replicas, three backends, three hundred sessions. Prints the table as it grows; exit code 1 if a promise
did not hold. ``--out`` gets the table and, as JSON, everything that was found.
"""

import asyncio
import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cyclopts

from tests.scale import faults
from tests.scale.case import CaseReport, Course, as_json, as_table, run_case
from tests.scale.faults import Fault
from tests.scale.world import Sizes

CASES: Sequence[tuple[str, Fault, Sizes]] = (
    ("nothing", faults.NONE, Sizes()),
    ("replica killed", faults.REPLICA_KILLED, Sizes()),
    ("replica paused", faults.REPLICA_PAUSED, Sizes()),
    ("backend killed", faults.BACKEND_KILLED, Sizes()),
    ("replica cut from backend", faults.CUT_FROM_BACKEND, Sizes()),
    ("gateway killed", faults.GATEWAY_KILLED, Sizes()),
    ("store killed, keeps its data", faults.STORE_KILLED, Sizes()),
    ("store killed, forgets", faults.STORE_KILLED, Sizes(persists=False)),
    ("store half a second away", faults.STORE_SLOW, Sizes()),
    ("replica cut from store", faults.CUT_FROM_STORE, Sizes()),
    ("replica unplugged from store", faults.UNPLUGGED_FROM_STORE, Sizes(namespaces=True)),
)


def main(out: Path | None = None, only: str = "", seed: int = 1, lasts_s: float = 5.0) -> int:
    """``only``: a word in the names of the cases to run."""
    course, reports = Course(seed=seed, lasts_s=lasts_s), list[CaseReport]()
    for name, fault, sizes in CASES:
        if only in name:
            began_s = time.monotonic()
            report = asyncio.run(run_case(sizes, fault, course, name))
            reports.append(report)
            print(as_table([report]).splitlines()[-1], f"{time.monotonic() - began_s:.0f} s", flush=True)  # noqa: T201
            for violation in report.violations:
                print(f"VIOLATION {violation}", flush=True)  # noqa: T201
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "faults.md").write_text(as_table(reports))
        machine = {"machine": platform.machine(), "python": platform.python_version()}
        found = {**machine, "seed": seed, "lasts_s": lasts_s, "cases": as_json(reports)}
        (out / "faults.json").write_text(json.dumps(found, indent=1, default=str) + "\n")
    return 1 if any(each.violations for each in reports) else 0


if __name__ == "__main__":
    sys.exit(cyclopts.App(default_command=main)(result_action="return_value"))
