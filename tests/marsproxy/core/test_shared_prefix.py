"""What a family shares, and that what is charged for it is given back."""

from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.shared_prefix import MAX_FAMILIES, WINDOW, SharedPrefixes


def taught(*hits: int, family: str = "family") -> SharedPrefixes:
    shared = SharedPrefixes()
    for tokens in hits:
        shared.learn(family, tokens)
    return shared


def test_of_an_unknown_family_nothing_is_shared():
    assert taught().tokens("family") == 0


def test_the_smallest_hit_is_shared_by_all():
    """Two runs of one task have more in common than their family."""
    assert taught(9_000, 13_000, 9_500).tokens("family") == 9_000


def test_a_first_turn_that_found_nothing_says_only_that_it_was_gone():
    assert taught(0, 9_000, 0).tokens("family") == 9_000
    assert taught(0).tokens("family") == 0


def test_old_hits_are_forgotten():
    """The tools of the family have changed: after as many new ones as are looked back on it is known."""
    assert taught(1_000, *[9_000] * (WINDOW - 1)).tokens("family") == 1_000
    assert taught(1_000, *[9_000] * WINDOW).tokens("family") == 9_000


def test_families_are_apart():
    shared = taught(9_000)
    shared.learn("other", 500)
    assert (shared.tokens("family"), shared.tokens("other")) == (9_000, 500)


def test_families_are_bounded_and_the_quietest_goes_first():
    shared = taught(9_000, family="first")
    for number in range(MAX_FAMILIES):
        shared.learn(f"family-{number}", 100)
    assert shared.tokens("first") == 0
    assert shared.tokens(f"family-{MAX_FAMILIES - 1}") == 100


def test_what_is_charged_stays_as_it_was_fixed():
    shared = taught(9_000)
    assert shared.of("family", "one") == 9_000
    assert shared.fix("family", "one") == 9_000
    shared.learn("family", 4_000)
    assert (shared.of("family", "one"), shared.of("family", "two")) == (9_000, 4_000)
    assert shared.unfix("family", "one") == 9_000
    assert shared.of("family", "one") == 4_000


@given(
    st.lists(
        st.tuples(st.sampled_from("fg"), st.sampled_from(["one", "two"]), st.integers(0, 20_000)), max_size=60
    )
)
def test_every_charge_is_given_back_in_full(steps):
    """Each step teaches a hit, and opens or closes a family on a backend."""
    shared, charged = SharedPrefixes(), {}
    for family, backend, hit in steps:
        if (family, backend) in charged:
            assert shared.of(family, backend) == charged[family, backend]
            assert shared.unfix(family, backend) == charged.pop((family, backend))
        else:
            charged[family, backend] = shared.fix(family, backend)
        shared.learn(family, hit)
    for (family, backend), tokens in charged.items():
        assert shared.unfix(family, backend) == tokens
    assert shared._fixed == {}
