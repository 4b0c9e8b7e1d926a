"""The knee of a curve, and the search for it."""

import pytest

from loadgen.sweep.knee import SEARCH_PRECISION, Knee, NoKneeError, knee_of, search_knee


def test_the_knee_is_where_the_curve_crosses_twice_its_light_value() -> None:
    knee = knee_of({0.25: 100.0, 0.5: 100.0, 1.0: 100.0, 2.0: 400.0})
    assert knee is not None
    assert knee.load == pytest.approx(2**0.5)  # halfway from 100 to 400, on logarithmic axes
    assert not knee.is_bound


def test_a_curve_that_never_crosses_has_its_knee_at_the_last_load_or_above() -> None:
    assert knee_of({0.25: 100.0, 1.5: 199.0}) == Knee(1.5, is_bound=True)


def test_a_point_at_exactly_twice_is_the_knee() -> None:
    knee = knee_of({0.25: 100.0, 1.0: 200.0, 1.5: 900.0})
    assert knee == Knee(1.0)


def test_luck_beyond_the_first_crossing_does_not_count() -> None:
    knee = knee_of({0.25: 100.0, 0.5: 400.0, 1.0: 150.0})
    assert knee is not None
    assert knee.load < 0.5


@pytest.mark.parametrize("curve", [{}, {0.25: 100.0}, {1.0: 100.0, 1.5: 500.0}])
def test_without_a_light_load_there_is_no_knee(curve: dict[float, float]) -> None:
    assert knee_of(curve) is None


@pytest.mark.parametrize("true_knee", [0.0013, 0.04, 0.05, 0.7, 30.0])
@pytest.mark.parametrize("start", [0.001, 0.05, 5.0])
def test_the_search_finds_the_knee_from_anywhere(true_knee: float, start: float) -> None:
    found = search_knee(lambda rate: rate >= true_knee, start)
    assert found < true_knee <= found * SEARCH_PRECISION


@pytest.mark.parametrize("is_over", [True, False])
def test_a_search_without_an_end_says_so(is_over: bool) -> None:
    with pytest.raises(NoKneeError, match="doubled"):
        search_knee(lambda rate: is_over, 1.0)
