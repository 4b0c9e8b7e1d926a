"""Failures on purpose: slow steps, a crash, a freeze.

Owns what is to go wrong and the file through which a test changes it while the engine runs; the executor
makes it so.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

CONTROL_FILE = "failures.json"
"""In the state folder. The file itself says everything: an empty table ends all failures."""


@dataclass(frozen=True, slots=True)
class Failures:
    slow_step_every: int | None = None
    """Every n-th step is slow. None: none is."""
    slow_step_s: float = 1.0
    """How much longer a slow step takes, in seconds of the clock."""
    crash_after_steps: int | None = None
    """Raise as a device fault would, when so many steps are done."""
    freeze_after_steps: int | None = None
    """Complete no further step, until this is taken back."""

    def __post_init__(self) -> None:
        if self.slow_step_every is not None and self.slow_step_every < 1:
            raise ValueError(f"failures.slow_step_every must be at least 1, not {self.slow_step_every}")
        if self.slow_step_s < 0:
            raise ValueError(f"failures.slow_step_s must not be negative: {self.slow_step_s}")

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Self:
        known = [field.name for field in fields(cls)]
        if odd := sorted(set(table) - set(known)):
            raise ValueError(f"unknown failures: {', '.join(odd)}; known: {', '.join(known)}")
        for name, value in table.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number and not (value is None and name != "slow_step_s"):
                raise ValueError(f"failures.{name} must be a number, not {type(value).__name__}")
        return cls(**table)

    def extra_seconds(self, step: int) -> float:
        """Of the ``step``-th step, counted from 1."""
        is_slow = self.slow_step_every is not None and step % self.slow_step_every == 0
        return self.slow_step_s if is_slow else 0.0

    def is_crash(self, steps_done: int) -> bool:
        return self.crash_after_steps is not None and steps_done >= self.crash_after_steps

    def is_frozen(self, steps_done: int) -> bool:
        return self.freeze_after_steps is not None and steps_done >= self.freeze_after_steps


class FailureSource:
    """The failures that hold now: those of the settings until there is a control file."""

    def __init__(self, initial: Failures, state_dir: Path | None) -> None:
        self._current = initial
        self._path = state_dir / CONTROL_FILE if state_dir else None
        self._read_at: int | None = None

    def current(self) -> Failures:
        if self._path is None:
            return self._current
        try:
            changed_at = self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return self._current
        if changed_at != self._read_at:
            self._read_at = changed_at
            self._current = Failures.from_table(json.loads(self._path.read_bytes()))
        return self._current


def write_failures(state_dir: Path, failures: Failures) -> None:
    """Seen by the engine at its next step."""
    scratch = state_dir / (CONTROL_FILE + ".new")
    scratch.write_text(json.dumps(asdict(failures)), encoding="utf-8")
    os.replace(scratch, state_dir / CONTROL_FILE)  # noqa: PTH105 - the same call, said plainly
