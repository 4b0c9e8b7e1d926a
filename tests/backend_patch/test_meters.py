"""Speeds of the engine from the times of its steps."""

import pytest

from backend_patch.meters import MAX_IN_FLIGHT, Meters


def test_unknown_until_seen() -> None:
    """None is not zero."""
    meters = Meters()
    meters.ended(1.0)
    assert (meters.step_s, meters.prefill_tokens_per_s, meters.decode_tokens_per_s) == (None, None, None)


def test_one_step_at_a_time() -> None:
    """From being scheduled to its end; the pause between two is not part of either."""
    meters = Meters()
    meters.scheduled(1000, 10, now=0.0)
    meters.ended(0.1)
    meters.scheduled(0, 10, now=60.0)
    meters.ended(60.1)
    assert meters.step_s == pytest.approx(0.1)
    assert meters.prefill_tokens_per_s == pytest.approx(10_000)
    assert meters.decode_tokens_per_s == pytest.approx(100)


def test_overlapping_steps() -> None:
    """The next one is scheduled while one runs, and begins when that ends."""
    meters = Meters()
    meters.scheduled(0, 8, now=0.0)
    for step in range(1, 20):
        meters.scheduled(0, 8, now=step * 0.1 - 0.09)
        meters.ended(step * 0.1)
    assert meters.step_s == pytest.approx(0.1)
    assert meters.steps == 19


def test_smoothed() -> None:
    """A tenth of the way to each new value."""
    meters = Meters()
    for begin, seconds in ((0.0, 0.1), (1.0, 0.2)):
        meters.scheduled(0, 1, begin)
        meters.ended(begin + seconds)
    assert meters.step_s == pytest.approx(0.11)


def test_few_prefill_tokens_say_nothing() -> None:
    """Nor does a step without time, as on a virtual clock that stands."""
    meters = Meters()
    meters.scheduled(10, 5, now=0.0)
    meters.ended(0.1)
    meters.scheduled(1000, 5, now=0.1)
    meters.ended(0.1)
    assert meters.prefill_tokens_per_s is None


def test_steps_that_never_end_are_bounded() -> None:
    """An engine that drops its outputs."""
    meters = Meters()
    for step in range(1000):
        meters.scheduled(0, 1, float(step))
    assert len(meters._in_flight) == MAX_IN_FLIGHT
