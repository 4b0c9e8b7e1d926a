"""How much of what was kept was found again, and who is not leased any more."""

from hypothesis import given, settings
from hypothesis import strategies as st

from marsproxy.core.lease_worth import LEAST_ENDS, MAX_FAMILIES, PROBE_EVERY, WORTH, LeaseWorth


def taught(*shares: float, session: str = "a", family: str = "f") -> LeaseWorth:
    """A lease of a thousand tokens for each share."""
    worth = LeaseWorth()
    for share in shares:
        worth.resumed(session, family, 1_000, round(1_000 * share))
    return worth


def asked(worth: LeaseWorth, times: int, session: str = "a", family: str = "f") -> list[bool]:
    return [worth.try_lease(session, family) for _ in range(times)]


def test_nothing_seen_is_leased():
    assert asked(LeaseWorth(), 3) == [True, True, True]


def test_who_hits_is_leased_and_who_does_not_is_not():
    assert asked(taught(*[WORTH] * LEAST_ENDS), 3) == [True, True, True]
    assert asked(taught(*[WORTH / 2] * LEAST_ENDS), 3) == [False, False, False]


def test_one_end_is_an_accident():
    assert taught(*[0.0] * (LEAST_ENDS - 1)).try_lease("a", "f")


def test_what_nobody_came_back_for_counts_as_not_hit():
    worth = LeaseWorth()
    for _ in range(LEAST_ENDS):
        worth.unused("a", "f", 1_000)
    assert not worth.try_lease("a", "f")


def test_one_in_so_many_is_a_probe():
    assert asked(taught(0, 0), 2 * PROBE_EVERY) == ([False] * (PROBE_EVERY - 1) + [True]) * 2


def test_a_probe_that_is_hit_brings_it_back():
    assert taught(0, 0, 0, 0, 1).try_lease("a", "f")


def test_old_leases_fade():
    worth = taught(*[1.0] * 20, *[0.0] * 10)
    assert not worth.try_lease("a", "f")


def test_a_session_without_leases_of_its_own_is_like_its_family():
    worth = taught(0, 0)
    assert not worth.try_lease("b", "f")
    assert worth.try_lease("b", "another")


def test_a_session_that_hits_is_leased_in_a_family_that_does_not():
    worth = taught(*[0.0] * 20)
    for _ in range(LEAST_ENDS):
        worth.resumed("b", "f", 1_000, 1_000)
    assert (worth.share_of("a"), worth.share_of("b")) == (0.0, 1.0)
    assert [worth.try_lease("a", "f"), worth.try_lease("b", "f")] == [False, True]


def test_larger_leases_weigh_more():
    worth = LeaseWorth()
    worth.resumed("a", "f", 100, 100)
    worth.resumed("a", "f", 100_000, 0)
    assert not worth.try_lease("a", "f")


def test_a_lease_of_nothing_says_nothing():
    worth = LeaseWorth()
    for _ in range(5):
        worth.resumed("a", "f", 0, 0)
        worth.unused("a", "f", 0)
    assert worth.share_of("a") is None


def test_a_session_that_is_forgotten_begins_anew():
    worth = taught(0, 0)
    worth.forget("a")
    worth.forget("a")
    assert worth.share_of("a") is None


def test_families_are_bounded_the_quietest_goes_first():
    worth = LeaseWorth()
    for _ in range(LEAST_ENDS):
        worth.resumed("a", "oldest", 1_000, 0)
    for number in range(MAX_FAMILIES):
        worth.resumed("a", f"f{number}", 1_000, 0)
    assert worth.try_lease("b", "oldest")


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(-5, 20_000)), max_size=40))
@settings(max_examples=100, deadline=None)
def test_a_share_is_a_share(leases):
    worth = LeaseWorth()
    for leased, hit in leases:
        worth.resumed("a", "f", leased, max(0, hit))
    share = worth.share_of("a")
    assert share is None or 0.0 <= share <= 1.0 + 1e-9
