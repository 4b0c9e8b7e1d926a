"""Pause and resume on the tick, at 5, 10, 15... seconds. A program costs its context and 100 tokens."""

import pytest

from marsproxy.core.baselines.thunderagent import ThunderAgent, ThunderAgentAsPublished
from marsproxy.core.commands import Reason
from marsproxy.core.events import BackendUnreachable, SessionEnded, TurnProgressed
from marsproxy.core.evidence import TurnKind
from tests.marsproxy.core.baselines.books import book, goes
from tests.marsproxy.core.playbook import (
    Playbook,
    aborts,
    answers,
    arrives,
    calls_tool,
    fails,
    forgotten,
    reading,
    refused,
    side_call,
    waits,
)

K = 1_000


def two_programs(make: type[ThunderAgent] = ThunderAgent, **changes: object) -> Playbook:
    """``a`` and ``b`` have had a turn each and are running tools, in a pool of 60,000."""
    return (
        book(make, pool_tokens=60 * K, **changes)
        .at(0, arrives("a1", tokens=20 * K), goes("a1"))
        .at(0, arrives("b1", tokens=30 * K), goes("b1"))
        .at(1, calls_tool("a1", 20 * K))
        .at(1, calls_tool("b1", 30 * K))
    )


# -- admission ------------------------------------------------------------------------------------


def test_a_new_program_goes_at_once_if_it_fits():
    """20,100 + 30,100 + 9,800 is the whole of 60,000."""
    two_programs().at(2, arrives("c1", tokens=9_700), goes("c1"))


def test_a_new_program_that_does_not_fit_waits_for_a_tick_that_finds_room():
    (
        two_programs()
        .at(2, arrives("c1", tokens=9_701), waits("c1"))
        .quiet_until(20)
        .at(21, answers("b1"))
        .at(21, arrives("a2", tokens=20 * K), goes("a2", "continuation"))
        .at(22, answers("a2", 20 * K))
        .fires(25, goes("c1"))
    )


def test_a_new_program_that_would_fit_waits_behind_others():
    (
        two_programs()
        .at(2, arrives("c1", tokens=10 * K), waits("c1"))
        .at(2, arrives("d1", tokens=1 * K), waits("d1", Reason.BEHIND_OTHERS, position=2))
        .fires(5, goes("d1"))
    )


def test_a_side_call_is_no_program():
    two_programs().at(2, side_call("c1"), goes("c1", "side")).at(3, aborts("c1"))


def test_without_a_known_pool_nobody_waits():
    book(ThunderAgent, pool_tokens=None).at(0, arrives("a1", tokens=10**9), goes("a1")).at(
        0, arrives("b1", tokens=10**9), goes("b1")
    )


def test_a_program_larger_than_the_pool_runs_alone():
    (
        book(ThunderAgent, pool_tokens=10 * K)
        .at(0, arrives("a1", tokens=20 * K), goes("a1"))
        .at(1, calls_tool("a1", 20 * K))
        .quiet_until(60)
        .at(61, arrives("a2", tokens=21 * K), goes("a2", "continuation"))
    )


# -- pausing --------------------------------------------------------------------------------------


def test_the_tick_pauses_acting_programs_smallest_first_until_the_rest_fits():
    """``b`` grows by 15,000 and is 5,200 over: ``a`` is paused, and comes back when there is room."""
    (
        two_programs()
        .at(2, arrives("b2", tokens=45 * K), goes("b2", "continuation"))
        .at(6, arrives("a2", tokens=20 * K), waits("a2"))
        .at(7, calls_tool("b2", 45 * K))
        .quiet_until(12)
        .at(13, SessionEnded("b"), forgotten("b"))
        .fires(15, goes("a2", "continuation"))
    )


def test_a_paused_program_whose_turn_comes_later_may_be_resumed_before_it():
    (
        two_programs()
        .at(2, arrives("b2", tokens=45 * K), goes("b2", "continuation"))
        .at(7, answers("b2"))
        .quiet_until(10)
        .at(11, arrives("a2", tokens=20 * K), goes("a2", "continuation"))
    )


def test_reasoning_programs_are_marked_and_pause_when_their_response_ends():
    """Both reason and are 5,200 over: marking the smaller one is enough."""
    both_reason_and_grow(ThunderAgent).at(6, calls_tool("b2", 40 * K)).at(
        6, arrives("b3", tokens=40 * K), goes("b3", "continuation")
    )


def test_as_published_every_reasoning_program_is_marked():
    both_reason_and_grow(ThunderAgentAsPublished).at(6, calls_tool("b2", 40 * K)).at(
        6, arrives("b3", tokens=40 * K), waits("b3", position=2)
    )


def both_reason_and_grow(make: type[ThunderAgent]) -> Playbook:
    """The tick at 5 finds 65,200 tokens in a pool of 60,000, and ``a`` is paused when it is done."""
    return (
        two_programs(make=make)
        .at(2, arrives("a2", tokens=25 * K), goes("a2", "continuation"))
        .at(2, arrives("b2", tokens=40 * K), goes("b2", "continuation"))
        .at(6, calls_tool("a2", 25 * K))
        .at(6, arrives("a3", tokens=25 * K), waits("a3"))
    )


def test_what_is_generated_so_far_counts():
    (
        book(ThunderAgent, pool_tokens=60 * K)
        .at(0, arrives("a1", tokens=30 * K), goes("a1"))
        .at(1, TurnProgressed("a1", 20 * K))
        .at(2, arrives("b1", tokens=10 * K), waits("b1"))
    )


# -- the order of resuming ------------------------------------------------------------------------


def test_those_who_went_on_come_before_new_ones_and_small_ones_before_large_ones():
    (
        two_programs()
        .at(2, arrives("b2", tokens=55 * K), goes("b2", "continuation"))
        .at(3, arrives("c1", tokens=8 * K), waits("c1"))
        .at(3, arrives("d1", tokens=6 * K), waits("d1", Reason.BEHIND_OTHERS, position=2))
        .at(6, arrives("a2", tokens=20 * K), waits("a2", position=3))
        .at(7, answers("b2"))
        .fires(10, goes("a2", "continuation"), goes("d1"), goes("c1"))
    )


def test_a_program_that_was_released_and_goes_on_does_not_wait_behind_new_ones():
    (
        two_programs()
        .at(2, arrives("c1", tokens=10 * K), waits("c1"))
        .at(2, arrives("d1", tokens=5 * K, kind=TurnKind.CONTINUATION), goes("d1", "continuation"))
    )


def test_a_program_paused_for_half_an_hour_is_resumed_by_force():
    (
        two_programs(max_hold_s=10_000.0)
        .at(2, arrives("b2", tokens=55 * K), goes("b2", "continuation"))
        .at(6, arrives("a2", tokens=20 * K), waits("a2"))
        .fires(1_805, goes("a2", "continuation"))
    )


# -- endings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [answers("b2"), aborts("b2")])
def test_an_answer_without_a_tool_call_or_a_client_that_left_releases_the_program(ending):
    (
        two_programs()
        .at(2, arrives("b2", tokens=30 * K), goes("b2", "continuation"))
        .at(3, ending)
        .at(4, arrives("c1", tokens=39 * K), goes("c1"))
    )


def test_a_failed_turn_leaves_the_program_acting():
    (
        two_programs()
        .at(2, arrives("b2", tokens=30 * K), goes("b2", "continuation"))
        .at(3, fails("b2"))
        .at(4, arrives("c1", tokens=39 * K), waits("c1"))
    )


def test_a_queued_program_whose_client_left_is_no_ghost():
    (
        two_programs()
        .at(2, arrives("c1", tokens=10 * K), waits("c1"))
        .at(3, aborts("c1"))
        .at(4, arrives("d1", tokens=1 * K), goes("d1"))
    )


def test_a_turn_held_too_long_is_refused_and_its_program_stays_paused():
    (
        two_programs(max_hold_s=100.0)
        .at(2, arrives("b2", tokens=55 * K), goes("b2", "continuation"))
        .at(6, arrives("a2", tokens=20 * K), waits("a2"))
        .fires(106, refused("a2", Reason.HELD_TOO_LONG))
        .at(107, arrives("a3", tokens=20 * K), waits("a3"))
    )


def test_no_room_to_wait_is_no_reason_to_remember():
    (
        two_programs(max_held_turns=0)
        .at(2, arrives("c1", tokens=10 * K), refused("c1", Reason.QUEUE_FULL))
        .at(3, arrives("d1", tokens=1 * K), goes("d1"))
    )


def test_an_idle_policy_asks_for_no_ticks():
    """Only the forgetting of ``a`` and ``b``, an hour later, is arranged."""
    assert two_programs().timer_s == 3_601


def test_a_tick_without_news_is_not_followed_by_another():
    """A program waits and nothing happens: the next timer is the one that refuses its turn."""
    assert two_programs().at(2, arrives("c1", tokens=10 * K), waits("c1")).quiet_until(6).timer_s == 572


# -- several backends -----------------------------------------------------------------------------


def test_a_new_program_goes_to_the_backend_with_the_most_room():
    (
        book(ThunderAgent, backends=("one", "two"), pool_tokens=60 * K)
        .at(0, arrives("a1", tokens=20 * K), goes("a1", backend="one"))
        .at(0, arrives("b1", tokens=10 * K), goes("b1", backend="two"))
        .at(0, arrives("c1", tokens=10 * K), goes("c1", backend="two"))
    )


def test_a_program_whose_backend_is_gone_is_admitted_elsewhere():
    (
        book(ThunderAgent, backends=("one", "two"), pool_tokens=60 * K)
        .at(0, arrives("a1", tokens=20 * K), goes("a1", backend="one"))
        .at(1, calls_tool("a1", 20 * K))
        .at(2, BackendUnreachable("one"))
        .at(3, arrives("a2", tokens=20 * K), goes("a2", "continuation", backend="two"))
        .at(4, calls_tool("a2", 20 * K))
        .at(5, reading(60 * K, "one"))
        .at(6, arrives("a3", tokens=20 * K), goes("a3", "continuation", backend="two"))
    )


def test_a_program_is_resumed_at_home_if_it_fits_there():
    resumed_on(ThunderAgent, "one")


def test_as_published_it_is_resumed_where_it_fits_best():
    resumed_on(ThunderAgentAsPublished, "two")


def resumed_on(make: type[ThunderAgent], backend: str) -> None:
    """``a`` was paused on "one", which is empty by now; 30,100 tokens are used on "two"."""
    (
        book(make, backends=("one", "two"), pool_tokens=60 * K)
        .at(0, arrives("a1", tokens=20 * K), goes("a1", backend="one"))
        .at(0, arrives("b1", tokens=30 * K), goes("b1", backend="two"))
        .at(0, arrives("c1", tokens=35 * K), goes("c1", backend="one"))
        .at(1, calls_tool("a1", 20 * K))
        .at(2, TurnProgressed("c1", 10 * K))
        .at(6, arrives("a2", tokens=20 * K), waits("a2"))
        .at(7, answers("c1"))
        .fires(10, goes("a2", "continuation", backend=backend))
    )
