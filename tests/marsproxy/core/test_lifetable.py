"""Life tables: means that know of those that have not ended yet."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.lifetable import LifeTable, edges, rayleigh

EDGES = edges(500, 1e6)
PRIOR = rayleigh(EDGES, 35_000)
sizes = st.floats(1, 2e6)


def lived(*ends: float) -> LifeTable:
    table = LifeTable(EDGES)
    for end in ends:
        table.grew(0, end)
        table.ended(end)
    return table


def test_the_prior_has_the_mean_that_was_asked_for() -> None:
    assert rayleigh(EDGES, 35_000).mean == pytest.approx(35_000, rel=1e-3)
    assert rayleigh(EDGES, 4_000).mean == pytest.approx(4_000, rel=1e-3)


def test_without_anything_seen_the_prior_stays() -> None:
    assert LifeTable(EDGES).curve(PRIOR, 3).mean == pytest.approx(PRIOR.mean)


def test_the_mean_of_what_has_ended_is_exact_and_the_prior_weighs_what_it_is_said_to() -> None:
    table = lived(10_000, 40_000)
    assert table.curve(PRIOR, 0).mean == pytest.approx(25_000, rel=1e-3)
    assert table.curve(PRIOR, 3).mean == pytest.approx((50_000 + 3 * 35_000) / 5, rel=0.02)


def test_who_has_grown_large_counts_before_the_end() -> None:
    table = lived(10_000, 10_000)
    before = table.curve(PRIOR, 3).mean
    for _ in range(4):
        table.grew(0, 90_000)
    assert table.curve(PRIOR, 3).mean > 1.5 * before


def test_who_has_only_begun_does_not_count() -> None:
    table = lived(10_000, 10_000)
    before = table.curve(PRIOR, 3).mean
    for _ in range(50):
        table.grew(0, 400)
    assert table.curve(PRIOR, 3).mean == before


def test_the_early_mean_of_a_crowd_is_not_the_mean_of_its_first_to_finish() -> None:
    """Two hundred start at once and grow alike; at the twentieth end the largest end is a third of the
    mean."""
    rng, table = Random(1), LifeTable(EDGES)
    ends = sorted(rng.expovariate(1 / 40_000) + 2_000 for _ in range(200))
    for end in ends[:20]:
        table.grew(0, end)
        table.ended(end)
    for _ in ends[20:]:
        table.grew(0, ends[20])
    assert sum(ends[:20]) / 20 < 5_000
    assert 25_000 < table.curve(PRIOR, 3).mean < 60_000


def test_an_end_that_was_none_is_taken_back() -> None:
    table = lived(30_000, 20_000)
    end = table.ended(5_000)
    table.ended(25_000)
    table.resumed(5_000, end)
    table.grew(5_000, 26_000)
    table.ended(26_000)
    assert table.curve(PRIOR, 0).mean > 20_000
    assert table.curve(PRIOR, 0).expected_of(5_000) == pytest.approx(table.curve(PRIOR, 0).mean, rel=0.01)


@given(st.lists(sizes, max_size=40), sizes)
def test_more_is_expected_of_everything_that_has_not_ended(ends: list[float], size: float) -> None:
    """Also of what has outgrown all that came before it."""
    curve = lived(*ends).curve(PRIOR, 0.1)
    assert size < curve.expected_of(size) < 1e7


@given(st.lists(sizes, max_size=40), st.floats(0.1, 10))
def test_a_curve_is_a_distribution(ends: list[float], prior_count: float) -> None:
    curve = lived(*ends).curve(PRIOR, prior_count)
    assert curve.alive[0] == 1
    assert list(curve.alive) == sorted(curve.alive, reverse=True)
    assert all(-1e-9 <= share <= 1 for share in curve.ending)
    assert list(curve.expected) == sorted(curve.expected)


def test_what_goes_as_expected_is_no_surprise() -> None:
    whole = lived(*[10_000, 20_000, 40_000] * 10).curve(PRIOR, 3)
    assert lived(10_000, 20_000, 40_000).surprise(whole) < 1
    assert lived(*[2_000] * 5).surprise(whole) > 5
    assert lived(*[200_000] * 5).surprise(whole) > 5
