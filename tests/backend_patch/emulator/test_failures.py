"""Failures on purpose: when they happen, and how they are changed while the engine runs."""

from pathlib import Path
from typing import Any

import pytest

from backend_patch.emulator.failures import Failures, FailureSource, write_failures


def test_nothing_fails_unless_told() -> None:
    failures = Failures()
    assert failures.extra_seconds(1) == 0.0
    assert not failures.is_crash(10**9)
    assert not failures.is_frozen(10**9)


def test_every_nth_step_is_slow() -> None:
    failures = Failures(slow_step_every=3, slow_step_s=0.5)
    assert [failures.extra_seconds(step) for step in range(1, 7)] == [0, 0, 0.5, 0, 0, 0.5]


def test_crash_and_freeze_come_after_their_step() -> None:
    failures = Failures(crash_after_steps=2, freeze_after_steps=3)
    assert [failures.is_crash(done) for done in range(4)] == [False, False, True, True]
    assert [failures.is_frozen(done) for done in range(5)] == [False, False, False, True, True]


def test_file_goes_before_settings(tmp_path: Path) -> None:
    """Until then the settings hold; an empty set of failures ends them."""
    source = FailureSource(Failures(crash_after_steps=5), tmp_path)
    assert source.current() == Failures(crash_after_steps=5)
    write_failures(tmp_path, Failures(slow_step_every=2))
    assert source.current() == Failures(slow_step_every=2)
    write_failures(tmp_path, Failures())
    assert source.current() == Failures()


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"slow": 1}, "slow"),
        ({"slow_step_every": "often"}, "slow_step_every"),
        ({"slow_step_every": 0}, "slow_step_every"),
        ({"slow_step_s": -1}, "slow_step_s"),
        ({"slow_step_s": None}, "slow_step_s"),
        ({"crash_after_steps": True}, "crash_after_steps"),
    ],
)
def test_wrong_failures_are_named(table: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Failures.from_table(table)
