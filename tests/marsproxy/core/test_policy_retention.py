"""What the engine is told of a session's blocks between two turns: keep, release, demote."""

from dataclasses import replace
from typing import Any

import pytest

from marsproxy.core.events import Event, HintAnswered, KvReclaimed, SessionEnded, TurnProgressed
from marsproxy.core.histogram import certain
from marsproxy.core.settings import SessionSettings
from tests.marsproxy.core.playbook import (
    STEADY,
    Foretold,
    Playbook,
    aborts,
    answers,
    arrives,
    calls_tool,
    demotes,
    fails,
    forgotten,
    goes,
    keeps,
    reading,
    releases,
    side_call,
    waits,
)


def hinted(**changes: Any) -> Playbook:
    """The engine takes hints, and ``a`` runs on it."""
    return Playbook(takes_hints=True, **changes).at(0, arrives("a1"), goes("a1"))


# -- while the session is counted -----------------------------------------------------------------


def test_a_session_that_waits_for_a_tool_keeps_its_blocks():
    (
        hinted()
        .at(1, calls_tool("a1"), keeps("a"))
        .at(2, arrives("a2"), goes("a2", "continuation"))
        .at(3, calls_tool("a2"), keeps("a"))
    )


def test_they_are_kept_when_the_last_of_several_turns_has_ended():
    (
        hinted()
        .at(1, arrives("a2"), goes("a2", "continuation"))
        .at(2, calls_tool("a1"))
        .at(3, calls_tool("a2"), keeps("a"))
    )


def test_an_agent_that_acts_through_text_keeps_its_blocks_too():
    (
        hinted()
        .at(1, answers("a1"), releases("a"))
        .at(2, arrives("a2"), goes("a2", "continuation"))
        .at(3, answers("a2"), keeps("a"))
    )


def test_a_turn_that_failed_keeps_them_for_the_retry():
    (
        hinted()
        .at(1, calls_tool("a1"), keeps("a"))
        .at(2, arrives("a2"), goes("a2", "continuation"))
        .at(3, fails("a2"), keeps("a"))
    )


def test_side_calls_change_nothing():
    (
        hinted()
        .at(1, calls_tool("a1"), keeps("a"))
        .at(2, side_call("a2"), goes("a2", "side"))
        .at(3, answers("a2", context=100))
        .fires(31, releases("a"))
    )


# -- when it no longer is -------------------------------------------------------------------------


def test_blocks_of_a_gap_that_is_over_are_released():
    hinted(idle_gap_s=30.0).at(1, calls_tool("a1"), keeps("a")).fires(31, releases("a"))


def test_blocks_of_a_place_that_is_given_away_are_released_first():
    (
        hinted(pool_tokens=20_000, forecast=Foretold(gap=certain(1e6)))
        .at(1, calls_tool("a1"), keeps("a"))
        .at(2, arrives("b1"), releases("a"), goes("b1"))
        .at(3, calls_tool("b1"), keeps("b"))
    )


@pytest.mark.parametrize("ending", [aborts("a1"), fails("a1"), answers("a1")])
def test_who_gives_its_budget_back_at_once_keeps_nothing(ending: Event):
    hinted().at(1, ending, releases("a"))


def test_who_hardly_ever_comes_back_after_text_goes_first():
    """Two returns in four rests are supposed at the start; after seven without one it is two in eleven."""
    book = Playbook(takes_hints=True)
    for number in range(8):
        name = f"s{number}-"
        book.at(number, arrives(f"{name}1"), goes(f"{name}1"))
        book.at(number, answers(f"{name}1"), releases(name) if number < 6 else demotes(name))


def test_families_that_do_come_back_are_not_taken_for_those_that_do_not():
    book = Playbook(takes_hints=True)
    for number in range(7):
        name = f"s{number}-"
        book.at(number, arrives(f"{name}1", family="once"), goes(f"{name}1"))
        book.at(number, answers(f"{name}1"), releases(name) if number < 6 else demotes(name))
    book.at(8, arrives("b1", family="again"), goes("b1")).at(9, answers("b1"), releases("b"))


def test_blocks_of_a_session_that_is_over_go_first():
    hinted().at(1, calls_tool("a1"), keeps("a")).at(2, SessionEnded("a"), demotes("a"), forgotten("a"))


def test_a_session_that_is_over_when_its_last_turn_ends_keeps_nothing():
    hinted().at(1, SessionEnded("a")).at(2, calls_tool("a1"), demotes("a"), forgotten("a"))


def test_a_side_call_in_flight_does_not_keep_the_blocks_of_a_session_that_is_over():
    (
        hinted()
        .at(1, calls_tool("a1"), keeps("a"))
        .at(2, side_call("a2"), goes("a2", "side"))
        .at(3, SessionEnded("a"), demotes("a"))
        .at(4, answers("a2", context=100), forgotten("a"))
    )


def test_a_session_that_is_dropped_for_another_gives_up_its_lease():
    (
        hinted(sessions=SessionSettings(max_sessions=1))
        .at(1, calls_tool("a1"), keeps("a"))
        .at(2, arrives("b1"), releases("a"), forgotten("a"), goes("b1"))
    )


def test_a_session_that_expires_in_its_gap_gives_up_its_lease():
    (
        hinted(sessions=SessionSettings(idle_expiry_s=20.0), idle_gap_s=30.0)
        .at(1, calls_tool("a1"), keeps("a"))
        .fires(21, releases("a"), forgotten("a"))
    )


# -- who is told, and who is not ------------------------------------------------------------------


def test_an_engine_that_takes_no_hints_is_told_nothing():
    (
        Playbook()
        .at(0, arrives("a1"), goes("a1"))
        .at(1, calls_tool("a1"))
        .at(2, SessionEnded("a"), forgotten("a"))
    )


def test_an_engine_started_anew_without_the_patch_is_told_nothing_more():
    hinted().at(1, reading(takes_hints=False)).at(2, calls_tool("a1"))


def test_each_backend_is_told_of_its_own_sessions():
    book = Playbook(backends=["one", "two"]).at(0, reading(backend="two", takes_hints=True))
    book.at(1, arrives("a1"), goes("a1", backend="one")).at(1, arrives("b1"), goes("b1", backend="two"))
    book.at(2, calls_tool("a1")).at(2, calls_tool("b1"), keeps("b", backend="two"))


def test_switched_off_nothing_is_advised():
    hinted(parts=replace(STEADY, retention=False)).at(1, calls_tool("a1"))


def test_what_the_engine_says_of_its_blocks_causes_nothing():
    """A lease that was refused, one that it broke, and how far a turn has come."""
    (
        hinted()
        .at(0, TurnProgressed("a1", 100))
        .at(1, calls_tool("a1"), keeps("a"))
        .at(2, HintAnswered("a", "gpu", kept_tokens=0))
        .at(3, KvReclaimed("a", "gpu", tokens=15_000))
        .at(4, arrives("a2"), goes("a2", "continuation"))
    )


def test_the_more_that_may_be_promised_of_an_engine_with_leases():
    """All of the pool, for new sessions cannot take what is kept: 100,000 tokens in place of 90,000."""
    book = Playbook(takes_hints=True)
    for name in "abcde":
        book.at(1, arrives(f"{name}1", tokens=20_000), goes(f"{name}1"))
    book.at(1, arrives("f1", tokens=100), waits("f1"))
