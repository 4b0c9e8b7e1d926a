"""The share of a pool that is promised: when it falls, when it rises, and how often."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.correction import DWELL_S, FALL, HIGH, LOW, RISE, Correction


def started() -> Correction:
    """Its first dwell has begun at 0."""
    correction = Correction()
    correction.update(0.0, is_waited_for=True, filled_share=0.0)
    return correction


def after_a_dwell(correction: Correction, *, is_waited_for: bool = False, filled_share: float = 0.5) -> float:
    correction.update(DWELL_S, is_waited_for=is_waited_for, filled_share=filled_share)
    return correction.factor


def test_nothing_changes_without_a_reason():
    assert after_a_dwell(started()) == 1.0


def test_it_falls_when_counted_sessions_find_their_blocks_gone():
    correction = started()
    correction.returned(expected_tokens=100_000, cached_tokens=97_000)
    assert after_a_dwell(correction) == FALL


def test_it_falls_when_the_engine_preempts():
    correction = started()
    correction.preempted(1)
    assert after_a_dwell(correction, is_waited_for=True) == FALL


def test_it_rises_when_turns_wait_and_there_is_room():
    assert after_a_dwell(started(), is_waited_for=True) == 1 + RISE


@pytest.mark.parametrize("filled_share", [0.9, 1.0])
def test_it_does_not_rise_when_the_pool_is_really_full(filled_share):
    assert after_a_dwell(started(), is_waited_for=True, filled_share=filled_share) == 1.0


@pytest.mark.parametrize(("lost", "factor"), [(2_001, FALL), (2_000, 1.0), (200, 1.0), (199, 1 + RISE)])
def test_between_the_two_limits_on_the_loss_nothing_changes(lost, factor):
    correction = started()
    correction.returned(100_000, 100_000 - lost)
    assert after_a_dwell(correction, is_waited_for=True) == factor


def test_more_in_the_cache_than_expected_makes_up_for_nothing():
    correction = started()
    correction.returned(10_000, 9_000)
    correction.returned(10_000, 900_000)
    assert after_a_dwell(correction) == FALL


def test_a_change_is_seen_before_the_next():
    """Reasons within a dwell count once, however many readings there are."""
    correction = started()
    correction.preempted(5)
    for tenths in range(1, 10 * int(DWELL_S)):
        correction.update(tenths / 10, is_waited_for=True, filled_share=0.0)
    assert correction.factor == 1.0
    assert after_a_dwell(correction) == FALL
    correction.update(2 * DWELL_S - 0.1, is_waited_for=True, filled_share=0.0)
    assert correction.factor == FALL
    correction.update(2 * DWELL_S, is_waited_for=True, filled_share=0.0)
    assert correction.factor == FALL + RISE


def test_what_was_seen_in_one_dwell_does_not_count_in_the_next():
    correction = started()
    correction.returned(1_000, 0)
    assert after_a_dwell(correction) == FALL
    correction.update(2 * DWELL_S, is_waited_for=False, filled_share=0.5)
    assert correction.factor == FALL


@given(
    st.lists(
        st.tuples(
            st.floats(0.1, 100),
            st.integers(0, 100_000),
            st.integers(0, 100_000),
            st.integers(0, 2),
            st.booleans(),
            st.floats(0, 2),
        ),
        max_size=100,
    )
)
def test_it_stays_between_its_bounds_and_moves_once_a_dwell(steps):
    correction, now, changed_s = Correction(), 0.0, None
    for elapsed_s, expected, cached, preempted, is_waited_for, filled_share in steps:
        now += elapsed_s
        before = correction.factor
        correction.returned(expected, cached)
        correction.preempted(preempted)
        correction.update(now, is_waited_for=is_waited_for, filled_share=filled_share)
        assert LOW <= correction.factor <= HIGH
        if correction.factor != before:
            assert changed_s is None or now - changed_s >= DWELL_S
            changed_s = now


@pytest.mark.parametrize("bound", [LOW, HIGH])
def test_it_gets_to_its_bounds_and_no_further(bound):
    correction = Correction()
    for number in range(30):
        correction.preempted(bound == LOW)
        correction.update(number * DWELL_S, is_waited_for=True, filled_share=0.0)
    assert correction.factor == bound
