"""What a pin is worth, by hand and against trying every candidate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.baselines.retention_value import (
    MAX_GAPS,
    MAX_PROGRAMS,
    REBUILD_SHARE,
    GapDistribution,
    Memoryfulness,
)


def distribution(gaps_s: list[float]) -> GapDistribution:
    """As new as it gets: the last record is one after which it is brought up to date."""
    gaps = GapDistribution()
    for gap_s in gaps_s:
        gaps.add(gap_s)
    gaps._rebuild()
    return gaps


@pytest.mark.parametrize(
    ("benefit_s", "ttl_s"),
    [
        (0.0, 0.0),
        (2.0, 0.0),  # 0.5 x 2 - 1 = 0: no better than nothing
        (3.0, 1.0),  # 0.5 x 3 - 1 = 0.5, 0.75 x 3 - 2 = 0.25, 3 - 10 = -7
        (4.0, 1.0),  # 0.5 x 4 - 1 = 0.75 x 4 - 2 = 1: the shorter
        (5.0, 2.0),  # 1.5, 1.75, -5
        (31.9, 2.0),  # 21.925, 21.9
        (32.1, 10.0),  # 22.075, 22.1
        (-1.0, 0.0),
    ],
)
def test_the_best_of_four_gaps(benefit_s: float, ttl_s: float):
    """Half are back after 1 s, three quarters after 2 s, all after 10 s."""
    assert distribution([10.0, 1.0, 2.0, 1.0]).best_ttl_s(benefit_s) == ttl_s


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(0, 100))
def test_no_candidate_is_worth_more(gaps: list[int], benefit: int):
    def worth(ttl_s: float) -> float:
        return sum(gap <= ttl_s for gap in gaps) / len(gaps) * benefit - ttl_s

    best_s = distribution([float(gap) for gap in gaps]).best_ttl_s(float(benefit))
    assert best_s in {0.0, *gaps}
    assert worth(best_s) == pytest.approx(max(worth(ttl_s) for ttl_s in [0, *gaps]))


def test_the_distribution_is_bounded_and_not_far_behind():
    gaps = distribution([50.0] * MAX_GAPS)
    for _ in range(MAX_GAPS + MAX_GAPS // REBUILD_SHARE):
        gaps.add(1.0)
    assert len(gaps) == MAX_GAPS
    assert gaps.best_ttl_s(2.0) == 1.0


def test_eta_is_one_when_all_sessions_are_as_long():
    memory = Memoryfulness()
    for name in "abc":
        memory.finished(name, 8)
    assert memory.eta == pytest.approx(1.0)


def test_eta_by_hand():
    """Of sessions with 1 and 2 turns the pairs (k, N-k) are (1,0), (1,1), (2,0): their correlation is
    (3 * 1 - 4 * 1) / sqrt((3 * 6 - 16) * (3 * 1 - 1)) = -1/2."""
    memory = Memoryfulness()
    memory.finished("a", 1)
    memory.finished("b", 2)
    assert memory.eta == pytest.approx(0.5)


def test_eta_is_about_zero_when_every_turn_may_be_the_last():
    """Geometric with 1/2: of 128 sessions, 64 have one turn, 32 two, and so on."""
    memory = Memoryfulness()
    lengths = [turns for turns in range(1, 8) for _ in range(2 ** (7 - turns))]
    for index, turns in enumerate(lengths):
        memory.finished(str(index), turns)
    assert abs(memory.eta) < 0.15


def test_eta_is_below_zero_when_who_goes_on_goes_on_for_long():
    """A hundred pairs (1,0), and (1,9) to (10,0): 11,175 / 29,325 by the same formula."""
    memory = Memoryfulness()
    for index in range(100):
        memory.finished(str(index), 1)
    memory.finished("long", 10)
    assert memory.eta == pytest.approx(-11_175 / 29_325)


def test_before_sessions_have_finished_eta_is_one():
    memory = Memoryfulness()
    assert memory.eta == 1.0
    memory.finished("a", 1)
    assert memory.eta == 1.0, "one turn each tells nothing of the rest"


def test_a_session_that_goes_on_counts_once():
    memory, fresh = Memoryfulness(), Memoryfulness()
    memory.finished("b", 3)
    fresh.finished("b", 3)
    for turns in (2, 5, 9):
        memory.finished("a", turns)
    fresh.finished("a", 9)
    assert memory.eta == fresh.eta
    for index in range(2 * MAX_PROGRAMS):
        memory.finished(str(index), 4)
    assert len(memory) == MAX_PROGRAMS
    assert memory.eta == pytest.approx(1.0), "what fell out of the window is forgotten"
