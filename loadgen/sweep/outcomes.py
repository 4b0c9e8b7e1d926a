"""What became of the cells: one JSON line each, appended as they end, so a sweep that stops can go on.

A line that a killed sweep left half-written is left out and its cell runs again. A later line of the same
cell replaces an earlier one. Knows nothing of grids.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from loadgen.errors import LoadgenError
from loadgen.sweep.cells import Cell

OUTCOMES_FILE = "sweep.jsonl"


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    key: str
    cell: Cell
    summary: dict[str, Any] | None = None
    """None: it failed, and ``error`` says how."""
    error: str | None = None
    wall_s: float = 0.0
    """Seconds that the simulation took on its core."""
    commit: str | None = None


class OutcomeFile:
    """Reads what is there, then appends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outcomes: dict[str, Outcome] = {}

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.outcomes = read_outcomes(self.path)
            self._file = self.path.open("ab")
            self._end_torn_line()
        except OSError as exc:
            raise LoadgenError(f"{self.path} cannot be written: {exc.strerror}") from exc
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, outcome: Outcome) -> None:
        self.outcomes[outcome.key] = outcome
        self._file.write(msgspec.json.encode(outcome) + b"\n")
        self._file.flush()

    def forget_failures(self) -> None:
        """So that they count as not run yet."""
        self.outcomes = {key: outcome for key, outcome in self.outcomes.items() if outcome.error is None}

    def _end_torn_line(self) -> None:
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            self._file.write(b"\n")
            self._file.flush()


def read_outcomes(path: Path) -> dict[str, Outcome]:
    if not path.exists():
        return {}
    decoder = msgspec.json.Decoder(Outcome)
    found: dict[str, Outcome] = {}
    with path.open("rb") as lines:
        for line in lines:
            try:
                outcome = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            found[outcome.key] = outcome
    return found


def write_in_order(path: Path, outcomes: Mapping[str, Outcome], order: Iterable[str]) -> None:
    """The same lines in the order of the grid, those of other grids last: the same sweep, the same file."""
    in_grid = [key for key in dict.fromkeys(order) if key in outcomes]
    others = sorted(outcomes.keys() - set(in_grid))
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(b"".join(msgspec.json.encode(outcomes[key]) + b"\n" for key in [*in_grid, *others]))
    partial.replace(path)
