"""Learned distributions of seconds: what they answer, and how they forget."""

import pytest

from marsproxy.core.durations import EDGES_S, DecayedHistogram, DurationCurve, certain

NO_PRIOR = [0.0] * len(EDGES_S)


def curve_of(
    durations_s: list[float], prior: list[float] = NO_PRIOR, prior_samples: float = 0.0
) -> DurationCurve:
    histogram = DecayedHistogram()
    for duration_s in durations_s:
        histogram.add(duration_s)
    return DurationCurve(EDGES_S, histogram.shrunk_towards(prior, prior_samples))


def test_shares_lie_on_straight_lines_between_the_points():
    curve = DurationCurve((1.0, 3.0), (0.2, 1.0))
    assert curve.over_within(0.5) == pytest.approx(0.1)
    assert curve.over_within(2.0) == pytest.approx(0.6)
    assert curve.over_within(9.0) == 1.0


def test_a_quantile_is_the_inverse_of_a_share():
    curve = DurationCurve((1.0, 3.0), (0.2, 1.0))
    assert curve.quantile_s(0.6) == pytest.approx(2.0)
    assert curve.over_within(curve.quantile_s(0.95)) == pytest.approx(0.95)


def test_a_certain_duration_is_a_step():
    assert [certain(2.0).over_within(at_s) for at_s in (1.0, 1.999, 2.5)] == pytest.approx([0, 0, 1])


def test_quantiles_are_right_to_a_bucket():
    curve = curve_of([0.1 * k for k in range(1, 101)])
    assert curve.quantile_s(0.5) == pytest.approx(5.0, rel=0.3)
    assert curve.quantile_s(0.95) == pytest.approx(9.5, rel=0.3)


def test_new_samples_replace_old_ones():
    curve = curve_of([0.1] * 1_000 + [100.0] * 1_000)
    assert curve.over_within(1.0) < 0.05


def test_weights_may_grow_for_ever():
    histogram = DecayedHistogram()
    for _ in range(20_000):
        histogram.add(1.0)
    assert 200 < histogram.samples < 400
