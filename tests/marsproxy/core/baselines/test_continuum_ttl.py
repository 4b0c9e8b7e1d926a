"""Which distribution a time is taken from, and what a lost pin is taken to cost."""

import pytest

from marsproxy.core.baselines.continuum_ttl import FIXED_TTL_S, MIN_RECORDS, FixedTtl, Served, ValuedTtl
from marsproxy.core.baselines.tool_gaps import MAX_SIGNATURES


def served(ttft_s: float, *, cached: int = 0, unpinned: bool = False) -> Served:
    return Served(10_000, cached, ttft_s, unpinned)


def test_the_fixed_time_is_for_quick_and_unknown_tools():
    rule = FixedTtl()
    rule.gap_ended("quick", 2.0)
    rule.gap_ended("slow", 2.1)
    assert [rule.ttl_s(name, 10_000) for name in ("quick", "slow", "new", None)] == [2.0, 0.0, 2.0, 2.0]


def test_a_tool_has_its_own_times_once_it_has_enough_of_them():
    rule = ValuedTtl()
    rule.turn_served(served(3.0))
    for _ in range(MIN_RECORDS):
        rule.gap_ended("grep", 1.0)
    assert rule.ttl_s("grep", 10_000) == FIXED_TTL_S, "not yet more than a hundred of anything"
    rule.gap_ended(None, 1.0)
    assert rule.ttl_s("grep", 10_000) == 1.0, "all of them: worth 3 s, over after 1"
    for _ in range(MIN_RECORDS):
        rule.gap_ended("pytest", 2.6)
    assert rule.ttl_s("pytest", 10_000) == 1.0, "still all: 3 s x half - 1 s beats 3 s - 2.6 s"
    for _ in range(16):
        rule.gap_ended("pytest", 2.6)
    assert rule.ttl_s("pytest", 10_000) == 2.6
    assert rule.ttl_s(None, 10_000) == 1.0


def test_a_long_context_is_worth_a_longer_pin():
    """0.3 ms a token: 3 s for 10,000 tokens, 12 s for 40,000."""
    rule = ValuedTtl()
    rule.turn_served(served(3.0))
    for _ in range(MIN_RECORDS + 16):
        rule.gap_ended("bash", 5.0)
    assert [rule.ttl_s("bash", tokens) for tokens in (10_000, 16_000, 17_000)] == [0.0, 0.0, 5.0]


def test_queueing_counts_as_far_as_it_is_not_prefill():
    """3 s of prefill and 4 s of waiting, of returns without a pin; others do not matter."""
    rule = ValuedTtl()
    rule.turn_served(served(3.0))
    for _ in range(MIN_RECORDS + 16):
        rule.gap_ended("bash", 5.0)
    rule.turn_served(served(100.0))
    assert rule.ttl_s("bash", 10_000) == 0.0
    rule.turn_served(served(7.0, unpinned=True))
    assert rule.ttl_s("bash", 10_000) == 5.0


def test_queueing_is_worth_nothing_where_the_rest_cannot_be_told():
    """eta of sessions that are short or very long is below zero, and the benefit with it."""
    rule = ValuedTtl()
    rule.turn_served(served(3.0))
    for _ in range(MIN_RECORDS + 16):
        rule.gap_ended("bash", 5.0)
    rule.turn_served(served(7.0, unpinned=True))
    for index in range(100):
        rule.session_rested(str(index), 1)
    rule.session_rested("long", 10)
    assert rule.ttl_s("bash", 10_000) == 0.0


def test_a_cached_return_waited_for_nearly_all_of_its_first_token():
    rule = ValuedTtl()
    rule.turn_served(served(3.0))
    rule.turn_served(served(7.0, cached=10_000, unpinned=True))
    assert rule._delays.mean == pytest.approx(7.0)


def test_tools_are_forgotten_beyond_the_bound():
    rule = ValuedTtl()
    for index in range(2 * MAX_SIGNATURES):
        rule.gap_ended(f"tool{index}", 1.0)
    assert len(rule._by_signature) == MAX_SIGNATURES
