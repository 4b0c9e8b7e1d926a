"""When keeping pays, by hand-computed examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.histogram import Curve, certain
from marsproxy.core.retention import DEMOTE, PrefillRate, best_keep


def test_memory_that_costs_nothing_is_kept_to_the_end() -> None:
    keep = best_keep(Curve((1.0, 10.0), (0.5, 1.0)), saved_s=2.0, tokens=1_000, price=0.0)
    assert (keep.ttl_s, keep.value_s) == (10.0, 2.0)


def test_a_long_tail_is_not_waited_for() -> None:
    # Half return within a second: 0.5 * 2 - 0.001 * 1000 * (1 * 0.75) = 0.25, at ten seconds
    # 2 - (0.75 + 9 * 0.25) = -1.
    keep = best_keep(Curve((1.0, 10.0), (0.5, 1.0)), saved_s=2.0, tokens=1_000, price=0.001)
    assert keep.ttl_s == 1.0
    assert keep.value_s == pytest.approx(0.25)


def test_what_never_pays_is_demoted() -> None:
    assert best_keep(certain(10.0), saved_s=2.0, tokens=1_000, price=0.001) == DEMOTE


def test_what_saves_nothing_is_demoted() -> None:
    assert best_keep(certain(1.0), saved_s=0.0, tokens=1_000, price=0.0) == DEMOTE


def test_nothing_is_kept_longer_than_allowed() -> None:
    curve = Curve((1.0, 10.0), (0.5, 1.0))
    assert best_keep(curve, saved_s=2.0, tokens=1_000, price=0.0, longest_s=5.0).ttl_s == 1.0


@given(
    st.lists(st.tuples(st.floats(0.01, 100), st.floats(0, 1)), min_size=1, max_size=12),
    st.floats(0, 100),
    st.floats(0, 0.1),
)
def test_no_other_time_is_worth_more(points: list[tuple[float, float]], saved_s: float, price: float) -> None:
    """Against the formula, at each point of the curve."""
    edges, shares = sorted(at for at, _ in points), sorted(share for _, share in points)
    keep = best_keep(Curve(edges, shares), saved_s, tokens=100, price=price)
    held_s, before_s, before, values = 0.0, 0.0, 0.0, [0.0]
    for at_s, share in zip(edges, shares, strict=True):
        held_s += (at_s - before_s) * ((1 - before) + (1 - share)) / 2
        values.append(share * saved_s - price * 100 * held_s)
        before_s, before = at_s, share
    assert keep.value_s == pytest.approx(max(values), abs=1e-9)


def test_the_rate_is_that_of_turns_that_nothing_was_in_the_way_of() -> None:
    """One of five turns finds an idle engine of 20,000 tokens a second; the others queue."""
    rate = PrefillRate(5_000)
    for number in range(500):
        rate.learn(10_000, 0.5 if number % 5 == 0 else 0.5 + 0.1 * (number % 7 + 1))
    assert rate.tokens_per_s == pytest.approx(20_000, rel=0.2)
    assert rate.seconds(40_000) == pytest.approx(2, rel=0.2)


def test_one_turn_that_was_counted_wrong_moves_the_rate_little() -> None:
    rate = PrefillRate(20_000)
    rate.learn(1_000_000, 0.001)
    assert rate.tokens_per_s < 22_000


def test_short_prefills_say_nothing_about_the_rate() -> None:
    rate = PrefillRate(20_000)
    rate.learn(100, 0.5)
    rate.learn(10_000, 0.0)
    assert rate.tokens_per_s == 20_000
