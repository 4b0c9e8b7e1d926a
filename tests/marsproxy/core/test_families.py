"""Families and their parts: what is chance is not passed on, what is not is learned quickly."""

from random import Random
from statistics import fmean

import pytest

from marsproxy.core.families import MAX_FAMILIES, FamilyTables, Place, prompt_bucket
from marsproxy.core.lifetable import edges, rayleigh

EDGES = edges(1, 32_768)
PRIOR = rayleigh(EDGES, 185)


def live(tables: FamilyTables, place: Place, end: float) -> None:
    for part in tables.parts(place):
        part.table.grew(0, end)
        part.table.ended(end)


def test_before_anything_is_seen_the_prior_holds() -> None:
    assert FamilyTables(EDGES, is_one_kind=False).curve(("family", 9), PRIOR) is PRIOR
    whole = FamilyTables(EDGES, is_one_kind=True)
    assert whole.curve(("family", 9), PRIOR).mean == pytest.approx(PRIOR.mean)


def test_prompt_buckets_are_octaves() -> None:
    assert [prompt_bucket(tokens) for tokens in (0, 511, 512, 1_023, 10**12)] == [0, 9, 10, 10, 23]


def test_sessions_of_one_size_get_one_estimate_whatever_their_first_prompt() -> None:
    tables, rng = FamilyTables(EDGES, is_one_kind=True), Random(2)
    for _ in range(100):
        live(tables, ("family", rng.randint(8, 14)), 300.0)
    means = [tables.curve(("family", bucket), PRIOR).mean for bucket in range(7, 16)]
    assert max(means) < 1.02 * min(means)


def test_sizes_that_do_not_depend_on_the_first_prompt_get_nearly_one_estimate() -> None:
    """Sizes spread as those of coding agents (p90 over p50 is 1.7); the estimates of a hundred moments."""
    tables, rng, spread = FamilyTables(EDGES, is_one_kind=True), Random(3), []
    for number in range(300):
        live(tables, ("family", rng.randint(9, 12)), 200 * rng.lognormvariate(0, 0.42))
        if number >= 30:
            means = [tables.curve(("family", bucket), PRIOR).mean for bucket in range(9, 13)]
            spread.append(max(means) / min(means) - 1)
    assert fmean(spread) < 0.05


def test_two_families_separate_after_five_sessions_each() -> None:
    tables = FamilyTables(EDGES, is_one_kind=True)
    for _ in range(5):
        live(tables, ("short", 9), 60.0)
        live(tables, ("long", 9), 1_800.0)
    short, long = (tables.curve((family, 9), PRIOR).mean for family in ("short", "long"))
    assert long > 2 * short


def test_a_first_prompt_that_tells_is_believed() -> None:
    tables = FamilyTables(EDGES, is_one_kind=True)
    for _ in range(15):
        live(tables, ("family", 9), 60.0)
        live(tables, ("family", 13), 1_800.0)
    assert tables.curve(("family", 9), PRIOR).mean < 400
    assert tables.curve(("family", 13), PRIOR).mean > 1_200


def test_a_family_of_which_nothing_has_ended_is_known_to_be_long() -> None:
    tables = FamilyTables(EDGES, is_one_kind=True)
    for _ in range(10):
        live(tables, ("short", 9), 60.0)
        for part in tables.parts(("long", 9)):
            part.table.grew(0, 1_000.0)
    short, long = (tables.curve((family, 9), PRIOR).mean for family in ("short", "long"))
    assert long > 4 * short


def test_families_that_are_not_of_one_kind_do_not_touch_each_other() -> None:
    tables = FamilyTables(EDGES, is_one_kind=False)
    for _ in range(10):
        live(tables, ("short", 9), 60.0)
    assert tables.curve(("other", 9), PRIOR) is PRIOR


def test_what_is_learned_shows_although_curves_are_kept() -> None:
    tables = FamilyTables(EDGES, is_one_kind=False)
    for _ in range(300):
        live(tables, ("family", 9), 60.0)
        tables.curve(("family", 9), PRIOR)
    for _ in range(100):
        live(tables, ("family", 9), 600.0)
    assert tables.curve(("family", 9), PRIOR).mean == pytest.approx(600, rel=0.1)


def test_families_are_bounded_and_the_quietest_goes_first() -> None:
    tables = FamilyTables(EDGES, is_one_kind=False)
    live(tables, ("first", 9), 60.0)
    for number in range(MAX_FAMILIES):
        live(tables, (f"family-{number}", 9), 60.0)
    assert tables.curve(("first", 9), PRIOR) is PRIOR
    assert tables.curve(("family-0", 9), PRIOR).mean < PRIOR.mean
