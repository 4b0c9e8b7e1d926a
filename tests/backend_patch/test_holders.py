"""Counting who holds what, against a plain counter."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from backend_patch.holders import Holders

GROUPS = st.lists(st.sets(st.integers(0, 6)), max_size=8)


@given(GROUPS)
def test_counts(groups: list[set[int]]) -> None:
    """While holders come and while they go."""
    holders: Holders[int] = Holders()
    counts: Counter[int] = Counter()
    for sign, things in [*((1, group) for group in groups), *((-1, group) for group in groups)]:
        (holders.add if sign > 0 else holders.remove)(list(things))
        counts.update(dict.fromkeys(things, sign))
        held = {thing: count for thing, count in counts.items() if count}
        assert len(holders) == len(held)
        assert all(holders.of(thing) == count for thing, count in held.items())
        assert [thing in holders for thing in range(7)] == [thing in held for thing in range(7)]
    assert not holders._several
