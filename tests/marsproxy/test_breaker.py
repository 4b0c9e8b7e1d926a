"""Closed, open, half open; and what does not move it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsproxy.breaker import JITTER, Breaker, BreakerLimits, BreakerState

LIMITS = BreakerLimits(failures=3, open_s=5.0, max_open_s=12.0)


def opened(chance: float = 0.0) -> Breaker:
    breaker = Breaker(LIMITS, lambda: chance)
    for _ in range(LIMITS.failures):
        breaker.sent()
        breaker.failed(100.0)
    assert breaker.state is BreakerState.OPEN
    return breaker


def half_open() -> Breaker:
    breaker = opened()
    breaker.probed(105.0, is_well=True)
    assert breaker.state is BreakerState.HALF_OPEN
    return breaker


def test_failures_must_be_in_a_row() -> None:
    """One success begins the count anew."""
    breaker = Breaker(LIMITS, lambda: 0.0)
    for _ in range(10):
        breaker.failed(1.0)
        breaker.failed(1.0)
        assert breaker.can_take()
        breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED


def test_open_it_takes_nothing_until_somebody_has_looked() -> None:
    """Time alone changes nothing."""
    breaker = opened()
    assert not breaker.can_take()
    assert not breaker.is_probe_due(104.9)
    assert breaker.is_probe_due(105.0)
    assert not breaker.can_take()


def test_a_look_that_finds_it_ill_waits_as_long_again() -> None:
    """Nothing was risked, so the time does not grow."""
    breaker = opened()
    breaker.probed(105.0, is_well=False)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.is_probe_due(109.9)
    assert breaker.is_probe_due(110.0)


def test_half_open_takes_one_at_a_time() -> None:
    """And a client that goes away leaves its place to the next."""
    breaker = half_open()
    assert breaker.can_take()
    breaker.sent()
    assert not breaker.can_take()
    breaker.given_up()
    assert breaker.can_take()
    breaker.sent()
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED


def test_a_failed_trial_opens_it_for_longer() -> None:
    """Twice as long each time, up to the bound, and as at first once it has closed."""
    breaker, now, waits = half_open(), 105.0, []
    for _ in range(3):
        breaker.sent()
        breaker.failed(now)
        waits.append(next(wait for wait in range(100) if breaker.is_probe_due(now + wait)))
        now += waits[-1]
        breaker.probed(now, is_well=True)
    assert waits == [10, 12, 12]
    breaker.succeeded()
    for _ in range(3):
        breaker.failed(now)
    assert breaker.is_probe_due(now + 5)


def test_a_success_from_before_does_not_close_it() -> None:
    """It had been sent when the backend was well."""
    breaker = opened()
    breaker.succeeded()
    assert breaker.state is BreakerState.OPEN


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_chance_only_adds(chance: float) -> None:
    """At most its share."""
    breaker = opened(chance)
    due_s = 100 + 5 * (1 + JITTER * chance)
    assert not breaker.is_probe_due(due_s - 0.001)
    assert breaker.is_probe_due(due_s)


@given(st.lists(st.sampled_from(["sent", "ok", "bad", "gone", "well", "ill"])))
def test_it_can_always_recover(steps: list[str]) -> None:
    """Whatever came before: a look that finds it well and one good answer close it."""
    breaker, now = Breaker(LIMITS, lambda: 0.5), 0.0
    for step in steps:
        now += 1.0
        match step:
            case "sent":
                breaker.sent()
            case "ok":
                breaker.succeeded()
            case "bad":
                breaker.failed(now)
            case "gone":
                breaker.given_up()
            case _:
                breaker.probed(now, is_well=step == "well")
    now += LIMITS.max_open_s * (1 + JITTER)
    assert breaker.state is not BreakerState.OPEN or breaker.is_probe_due(now)
    breaker.probed(now, is_well=True)
    breaker.given_up()
    assert breaker.can_take()
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
