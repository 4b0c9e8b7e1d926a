"""Orders of turns, and that nobody waits for more than the bound says."""

from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.turns import PRIORITIES, Turns, Waiting, stride


def test_strides_are_shares() -> None:
    assert stride(5) * 2 == stride(0) == stride(-5) / 2
    assert stride(-99) == stride(-10) == 16 * stride(10) == 16 * stride(99)


def test_one_that_was_let_past_others_gets_no_turn_twice() -> None:
    """Who is served out of order pays for it as in order."""
    turns = Turns()
    for name in ("a1", "a2", "b1", "b2"):
        turns.add(Waiting(name, ("t", name[0])))
    turns.serve("b1")
    assert list(turns.heads()) == ["a1", "b2"]


def test_tables_are_empty_when_nothing_waits() -> None:
    turns = Turns()
    turns.add(Waiting("a", ("t", "s")))
    turns.add(Waiting("b", ("t", "s")))
    assert ("a" in turns, len(turns), turns.tenants, turns.count("t")) == (True, 2, 1, 2)
    turns.serve("a")
    turns.remove("b")
    assert ("a" in turns, len(turns), turns.tenants, turns.count("t")) == (False, 0, 0, 0)
    assert list(turns.heads()) == []


ARRIVALS = st.lists(
    st.tuples(st.sampled_from("tu"), st.sampled_from("abcd"), st.integers(*PRIORITIES)), max_size=60
)


@given(arrivals=ARRIVALS, removed=st.sets(st.integers(0, 59)))
def test_what_is_foreseen_is_what_comes(arrivals: list[tuple[str, str, int]], removed: set[int]) -> None:
    """Also of what gave up or was let past others in between."""
    turns = Turns()
    for number, (tenant, session, priority) in enumerate(arrivals):
        turns.add(Waiting(str(number), (tenant, session), priority))
    for number in sorted(removed & set(range(len(arrivals)))):
        if str(number) in set(turns.heads()) and number % 2:
            turns.serve(str(number))
        else:
            turns.remove(str(number))
    left = [str(number) for number in range(len(arrivals)) if str(number) in turns]
    foreseen = sorted(left, key=turns.rank)
    served = []
    while (head := next(turns.heads(), None)) is not None:
        turns.serve(head)
        served.append(head)
    assert served == foreseen
    assert len(turns) == turns.tenants == 0


@pytest.mark.parametrize("level", ["sessions", "tenants"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_nobody_waits_for_more_turns_of_another_than_the_bound_says(level: str, data: st.DataObject) -> None:
    """Parties that come and go as they like, one of them always there."""
    turns, number = Turns(), 0
    priorities = dict.fromkeys("xyz", 0)
    if level == "sessions":
        priorities = {name: data.draw(st.integers(*PRIORITIES)) for name in "xyz"}

    def add(party: str) -> None:
        nonlocal number
        number += 1
        session = ("t", party) if level == "sessions" else (party, data.draw(st.integers(0, 2)))
        turns.add(Waiting(f"{party}{number}", session, priorities[party]))

    since_x: Counter[str] = Counter()
    waiting = dict.fromkeys("xyz", 0)
    for _ in range(80):
        for party in "yzx":
            if party == "x":
                wanted = 1
            else:
                wanted = data.draw(st.integers(0, 2))
            while waiting[party] < wanted:
                add(party)
                waiting[party] += 1
        head = next(turns.heads())
        turns.serve(head)
        waiting[head[0]] -= 1
        if head[0] == "x":
            since_x.clear()
        else:
            since_x[head[0]] += 1
            bound = stride(priorities["x"]) / stride(priorities[head[0]]) + 1
            assert since_x[head[0]] <= bound


def test_equal_sessions_are_a_ring() -> None:
    turns, ring = Turns(), deque("abcde")
    for number in range(50):
        turns.add(Waiting(str(number), ("t", "abcde"[number % 5])))
    order = []
    while (head := next(turns.heads(), None)) is not None:
        turns.serve(head)
        order.append("abcde"[int(head) % 5])
    assert order == list(ring) * 10
