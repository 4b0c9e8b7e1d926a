"""Learned distributions: what they answer, and how they forget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.histogram import MEMORY, Curve, DecayedHistogram, certain, log_edges

EDGES = log_edges(-2, 4, 4)
FLAT = Curve(EDGES, [(i + 1) / len(EDGES) for i in range(len(EDGES))])


def histogram_of(values: list[float]) -> DecayedHistogram:
    histogram = DecayedHistogram(EDGES)
    for value in values:
        histogram.add(value)
    return histogram


def test_edges_are_evenly_spread_over_decades() -> None:
    assert log_edges(0, 1, 2) == pytest.approx((1.0, 10**0.5, 10.0))


def test_shares_lie_on_straight_lines_between_the_points() -> None:
    curve = Curve((1.0, 3.0), (0.2, 1.0))
    assert curve.share_within(0.5) == pytest.approx(0.1)
    assert curve.share_within(2.0) == pytest.approx(0.6)
    assert curve.share_within(9.0) == 1.0


@given(st.floats(0.01, 1.0))
def test_a_quantile_is_the_inverse_of_a_share(share: float) -> None:
    curve = Curve((1.0, 3.0, 7.0), (0.2, 0.9, 1.0))
    assert curve.share_within(curve.quantile(share)) == pytest.approx(share)


def test_a_certain_value_is_a_step() -> None:
    assert [certain(2.0).share_within(at) for at in (1.0, 1.999, 2.5)] == pytest.approx([0, 0, 1])
    assert certain(2.0).quantile(0.95) == 2.0


def test_quantiles_are_right_to_a_bucket() -> None:
    curve = histogram_of([0.1 * k for k in range(1, 101)]).mixed(FLAT, 0)
    assert curve.quantile(0.5) == pytest.approx(5.0, rel=0.2)
    assert curve.quantile(0.95) == pytest.approx(9.5, rel=0.2)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 100))
def test_a_mixture_is_a_distribution_function(values: list[float], prior_samples: float) -> None:
    shares = histogram_of(values).mixed(FLAT, prior_samples).shares
    assert list(shares) == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def test_as_many_samples_as_the_prior_weighs_meet_it_half_way() -> None:
    curve = histogram_of([0.001] * 5).mixed(FLAT, 5)
    assert curve.shares[0] == pytest.approx((1 + FLAT.shares[0]) / 2, rel=0.02)


def test_new_samples_replace_old_ones() -> None:
    histogram = histogram_of([0.1] * 1_000 + [100.0] * 1_000)
    assert histogram.mixed(FLAT, 0).share_within(1.0) < 0.05
    assert histogram.mean == pytest.approx(100, rel=0.05)


def test_weights_may_grow_for_ever() -> None:
    histogram = histogram_of([1.0] * 20_000)
    assert histogram.samples == pytest.approx(MEMORY, rel=0.01)
    assert histogram.mean == pytest.approx(1.0)
