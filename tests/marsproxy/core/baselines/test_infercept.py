"""What happens to a session's KV while its tool runs."""

from typing import Any

import pytest

from marsproxy.core.baselines.infercept import InferCept
from marsproxy.core.events import BackendObserved, SessionEnded
from marsproxy.core.settings import SessionSettings
from tests.marsproxy.core.baselines.books import book, goes
from tests.marsproxy.core.baselines.hint_words import (
    finishes,
    pins,
    reclaimed,
    releases,
    starts,
    swaps_out,
)
from tests.marsproxy.core.playbook import POOL_TOKENS, Playbook, aborts, answers, arrives, forgotten

ALONE_S = 2.0
"""A context of 8,000 tokens that takes 4 s to prefill, nobody beside it: half of that."""


def known_speed(**changes: Any) -> Playbook:
    """2,000 tokens a second, as session z taught it."""
    return (
        book(InferCept, **changes)
        .at(0, arrives("z1", 8_000), goes("z1"))
        .at(4, starts("z1"))
        .at(5, finishes("z1", 8_000, tool=None))
    )


def with_host_tier(tokens_per_s: float) -> Playbook:
    """And a tool that takes 10 s, as session y taught it."""
    reading = BackendObserved("gpu", kv_tokens_total=POOL_TOKENS, kv_swap_tokens_per_s=tokens_per_s)
    return (
        known_speed()
        .at(10, arrives("y1", 8_000), goes("y1"))
        .at(11, finishes("y1", 8_000), pins("y", ALONE_S))
        .at(21, arrives("y2", 8_000), goes("y2", "continuation"))
        .at(22, answers("y2", 8_000))
        .at(23, reading)
    )


def test_a_tool_not_seen_yet_is_waited_for_until_discarding_is_cheaper():
    (
        known_speed()
        .at(10, arrives("a1", 8_000), goes("a1"))
        .at(11, finishes("a1", 8_000), pins("a", ALONE_S))
        .at(12, arrives("a2", 8_000), pins("a", None), goes("a2", "continuation"))
    )


def test_others_that_would_stall_make_it_worth_more():
    """4 s x (8,000 / 2 + 6,000) / 8,000."""
    (
        known_speed()
        .at(10, arrives("a1", 8_000), goes("a1"))
        .at(10, arrives("b1", 6_000), goes("b1"))
        .at(11, finishes("a1", 8_000), pins("a", 5.0))
        .at(12, finishes("b1", 6_000, tool=None))
        .at(12, arrives("c1", 8_000), goes("c1"))
        .at(13, finishes("c1", 8_000), pins("c", ALONE_S))
    )


def test_no_more_stalls_than_the_pool_holds():
    """4 s x (8,000 / 2 + 12,000 - 8,000) / 8,000, however many turns queue in the engine."""
    (
        known_speed(pool_tokens=12_000)
        .at(10, arrives("a1", 8_000), goes("a1"))
        .at(10, arrives("b1", 90_000), goes("b1"))
        .at(11, finishes("a1", 8_000), pins("a", 4.0))
    )


def test_a_tool_known_to_take_longer_is_not_waited_for():
    """Gaps of 1 and 5 s: a mean of 3 s, and discarding wastes as much as 2 s of preserving."""
    (
        known_speed()
        .at(10, arrives("a1", 8_000), goes("a1"))
        .at(11, finishes("a1", 8_000), pins("a", ALONE_S))
        .at(12, arrives("a2", 8_000), pins("a", None), goes("a2", "continuation"))
        .at(12, starts("a2"))
        .at(13, finishes("a2", 8_000, cached=8_000), pins("a", ALONE_S))
        .at(18, arrives("a3", 8_000), goes("a3", "continuation"))
        .at(19, finishes("a3", 8_000, cached=8_000))
        .at(20, arrives("b1", 8_000), goes("b1"))
        .at(21, finishes("b1", 8_000, tool="grep"), pins("b", ALONE_S))
    )


def test_a_context_worth_keeping_beside_others_is_kept_for_a_slow_tool():
    """The same tool of 3 s, but 5 s break even."""
    (
        known_speed()
        .at(10, arrives("a1", 8_000), goes("a1"))
        .at(11, finishes("a1", 8_000), pins("a", ALONE_S))
        .at(14, arrives("a2", 8_000), goes("a2", "continuation"))
        .at(14, arrives("b1", 6_000), goes("b1"))
        .at(15, finishes("a2", 8_000, cached=8_000), pins("a", 5.0))
    )


def test_who_resumes_keeps_its_place():
    (
        book(InferCept)
        .at(1, arrives("a1"), goes("a1", priority=1_000))
        .at(2, arrives("b1"), goes("b1", priority=2_000))
        .at(3, answers("a1"))
        .at(500.5, arrives("a2"), goes("a2", "continuation", priority=1_000))
        .at(501.0004, arrives("c1"), goes("c1", priority=501_000))
    )


def test_no_interception_without_a_tool_call():
    (
        known_speed()
        .at(10, arrives("a1", 8_000), goes("a1"))
        .at(11, aborts("a1"))
        .at(12, arrives("a2", 8_000), goes("a2"))
        .at(13, answers("a2", 8_000))
    )


def test_a_pin_ends_with_what_it_was_for():
    (
        known_speed(sessions=SessionSettings(idle_expiry_s=1_000.0))
        .at(10, arrives("a1", 8_000), goes("a1"))
        .at(11, finishes("a1", 8_000), pins("a", ALONE_S))
        .at(12, arrives("a2", 8_000), pins("a", None), goes("a2", "continuation"))
        .at(13, aborts("a2"), releases("a"))
        .at(14, arrives("a3", 8_000), goes("a3", "continuation"))
        .at(15, finishes("a3", 8_000), pins("a", ALONE_S))
        .at(16, SessionEnded("a"), releases("a"), forgotten("a"))
    )


def test_a_pin_that_the_engine_broke_is_not_kept_on():
    (
        known_speed()
        .at(10, arrives("a1", 8_000), goes("a1"))
        .at(11, finishes("a1", 8_000), pins("a", ALONE_S))
        .at(12, reclaimed("a"), releases("a"))
        .at(12, arrives("a2", 8_000), goes("a2", "continuation"))
    )


# -- swap ---------------------------------------------------------------------------------------------


def test_what_fits_the_link_is_swapped_out():
    """8,000 tokens out and in at 2,000 a second take 8 s of the 10; the link is free again at 39."""
    (
        with_host_tier(2_000)
        .at(30, arrives("a1", 8_000), goes("a1"))
        .at(30, arrives("b1", 8_000), goes("b1"))
        .at(30, arrives("c1", 8_000), goes("c1"))
        .at(31, finishes("a1", 8_000), swaps_out("a"))
        .at(38, finishes("b1", 8_000))
        .at(39, finishes("c1", 8_000), swaps_out("c"))
        .at(41, arrives("a2", 8_000), goes("a2", "continuation"))
    )


@pytest.mark.parametrize("tokens_per_s", [0.0, 1_599.0])
def test_what_does_not_fit_the_link_is_discarded(tokens_per_s: float):
    with_host_tier(tokens_per_s).at(30, arrives("a1", 8_000), goes("a1")).at(31, finishes("a1", 8_000))


def test_a_tool_not_seen_yet_may_be_back_before_the_swap_is_over():
    (
        with_host_tier(1e9)
        .at(30, arrives("a1", 8_000), goes("a1"))
        .at(31, finishes("a1", 8_000, tool="grep"), pins("a", ALONE_S))
    )


def test_nothing_is_left_of_a_session_that_is_forgotten():
    playbook = known_speed().at(10, arrives("a1"), goes("a1")).at(11, finishes("a1", 8_000), pins("a", 2.0))
    policy: Any = playbook.policy
    playbook.at(12, SessionEnded("a"), releases("a"), forgotten("a"))
    assert (len(policy._pins), len(policy._gaps), policy._charges, policy._first_token_s) == (0, 0, {}, {})
    assert policy._running_tokens == {"gpu": 0}
