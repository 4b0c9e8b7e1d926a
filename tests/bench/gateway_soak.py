"""Hours of work in which everything breaks: ``PYTHONPATH=. python tests/bench/gateway_soak.py --minutes 10``.

Prints what was done and broken, and every promise that did not hold; exit code 1 if there is one.
"""

import json
import sys
from pathlib import Path

import cyclopts

from tests.gateway_live.redis_process import running_redis
from tests.gateway_live.soak import Soak
from tests.gateway_live.world import open_world


def main(minutes: float = 10.0, hosts: int = 3, seed: int = 1, out: Path | None = None) -> int:
    """``out``: a JSON file for the figures."""
    with running_redis() as url, open_world("ssh", "--store", url, workers=hosts) as world:
        soak = Soak(world, seed)
        soak.run(minutes * 60)
        books = {"minutes": minutes, "hosts": hosts, "seed": seed, **soak.audit()}
        log = world.gateway.log.read_text()
    if "Traceback" in log:
        books["violations"].append(f"log: {log[log.index('Traceback') :][:2000]}")
    if out is not None:
        out.write_text(json.dumps(books, indent=1) + "\n")
    for name, value in books.items():
        if name != "violations":
            print(f"{name:18} {value}")  # noqa: T201
    for violation in books["violations"]:
        print(f"VIOLATION {violation}")  # noqa: T201
    print("every promise held" if not books["violations"] else f"{len(books['violations'])} violations")  # noqa: T201
    return 1 if books["violations"] else 0


if __name__ == "__main__":
    app = cyclopts.App(default_command=main)
    sys.exit(app(result_action="return_value"))
