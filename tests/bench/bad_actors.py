"""What a hostile tenant costs a calm one: ``PYTHONPATH=. python tests/bench/bad_actors.py``.

For each act the calm tenant's turns are timed alone and beside it, turn about; a proxy and an engine of
their own for each. Beside what a turn takes alone stands what it takes beside an honest tenant that has the
same turns under the same limits. The flood is run a second time without limits: what they are for. All of it
is repeated in turn, and the medians of the repetitions are what counts.
"""

import asyncio
import json
import tempfile
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import cyclopts
from rich.console import Console
from rich.table import Table

from tests.integration.bad_actors import ACTS
from tests.integration.calm_tenant import GUEST, Seen, open_world

NO_LIMITS = "weight = 1"


async def measure(act: str, limits: str, turns: int, rounds: int) -> dict[str, Any]:
    alone, beside, answers = Seen(), Seen(), Counter[str]()
    with tempfile.TemporaryDirectory() as directory:
        async with open_world(Path(directory), limits) as world:
            await world.calm(2)  # nothing is warm before the first turns
            for _ in range(rounds):
                _add(alone, await world.calm(turns))
                async with world.beside(act) as got:
                    _add(beside, await world.calm(turns))
                answers.update(got)
    return {
        "act": act + ("" if limits == GUEST else ", without limits"),
        "turns": len(beside.seconds),
        "failed": len([status for status in alone.statuses | beside.statuses if status != 200]),
        "answers": dict(answers),
    } | {
        f"{name}_{label}_s": round(seen.quantile_s(share), 3)
        for name, seen in (("alone", alone), ("beside", beside))
        for label, share in (("p50", 0.5), ("p99", 0.99))
    }


def _add(whole: Seen, part: Seen) -> None:
    whole.seconds += part.seconds
    whole.statuses |= part.statuses


def _move(row: dict[str, Any], label: str) -> float:
    """By how much the turns beside the act took longer than alone, as a share."""
    return float(row[f"beside_{label}_s"] / row[f"alone_{label}_s"] - 1)


def medians(repeats: list[list[dict[str, Any]]]) -> list[dict[str, object]]:
    """One row for each act: the median of what its repetitions moved, and all of those."""
    rows = []
    for each in zip(*repeats, strict=True):
        row: dict[str, object] = {"act": each[0]["act"], "failed": sum(run["failed"] for run in each)}
        for label in ("p50", "p99"):
            moves = [round(_move(run, label), 3) for run in each]
            row |= {f"{label}_moves": median(moves), f"{label}_moves_each": moves}
        rows.append(row)
    return rows


def bench(*, turns: int = 10, rounds: int = 3, repeats: int = 3, out: Path | None = None) -> None:
    """
    Args:
        turns: Of each of the calm sessions in a round.
        rounds: Alone and beside, each.
        repeats: Of everything.
        out: File for the figures as JSON.
    """
    runs = [(act, GUEST) for act in sorted(ACTS)] + [("floods", NO_LIMITS)]
    runs_each = [
        [asyncio.run(measure(act, limits, turns, rounds)) for act, limits in runs] for _ in range(repeats)
    ]
    rows = medians(runs_each)
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    if out is not None:
        out.write_text(json.dumps({"medians": rows, "repeats": runs_each}, indent=1) + "\n")


if __name__ == "__main__":
    cyclopts.run(bench)
