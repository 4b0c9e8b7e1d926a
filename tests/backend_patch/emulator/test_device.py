"""When steps end, and what is counted as this machine's lateness."""

import pytest

from backend_patch.emulator.device import MAX_LAG_S, Device


def test_steps_queue_behind_each_other() -> None:
    """The second is handed over while the first runs."""
    device = Device(speed=1.0)
    assert device.run(10.0, 0.5, 8, is_continued=False) == 10.5
    assert device.run(10.1, 0.5, 8, is_continued=True) == 11.0
    assert (device.steps, device.tokens, device.busy_s) == (2, 16, 1.0)
    assert device.late_steps == 0


def test_pause_is_not_lateness() -> None:
    device = Device(speed=1.0)
    device.run(0.0, 1.0, 1, is_continued=False)
    assert device.run(5.0, 1.0, 1, is_continued=False) == 6.0
    assert (device.late_steps, device.behind_s) == (0, 0.0)


def test_short_lateness_is_made_up_for() -> None:
    """As if the step had been queued in time."""
    device = Device(speed=1.0)
    device.run(0.0, 1.0, 1, is_continued=False)
    assert device.run(1.0 + MAX_LAG_S / 2, 1.0, 1, is_continued=True) == 2.0
    assert device.late_steps == 1
    assert device.late_s == pytest.approx(MAX_LAG_S / 2)
    assert device.behind_s == 0.0


def test_long_lateness_is_given_up_and_counted() -> None:
    device = Device(speed=1.0)
    device.run(0.0, 1.0, 1, is_continued=False)
    assert device.run(2.0, 1.0, 1, is_continued=True) == pytest.approx(3.0 - MAX_LAG_S)
    assert device.behind_s == pytest.approx(1.0 - MAX_LAG_S)


def test_speed_shortens_the_model_and_not_the_failure() -> None:
    device = Device(speed=10.0)
    assert device.run(0.0, 1.0, 1, is_continued=False, extra_s=2.0) == pytest.approx(2.1)


def test_skipped_time_is_nobodys() -> None:
    """A frozen device that thaws."""
    device = Device(speed=1.0)
    device.run(0.0, 1.0, 1, is_continued=False)
    device.skip_to(9.0)
    assert device.run(9.0, 1.0, 1, is_continued=True) == 10.0
    assert device.late_steps == 0
