"""How long a place is worth keeping follows what its tools do, from the gateway's first word to the last."""

from dataclasses import replace
from typing import Any

import pytest

from marsproxy.core.commands import HoldTurn, Reason
from marsproxy.core.events import LeaseExpired, SessionEnded, ToolPhase
from marsproxy.core.gaps import TOOL_LIMIT_GAPS
from marsproxy.core.histogram import Curve, certain
from tests.marsproxy.core.playbook import (
    IDLE_GAP_S,
    TURN_TOKENS,
    Foretold,
    Playbook,
    arrives,
    calls_tool,
    demotes,
    forgotten,
    goes,
    goes_leased,
    keeps,
    releases,
    tool,
    tools,
    waits,
)

QUEUED, STARTED, FINISHED = ToolPhase.QUEUED, ToolPhase.STARTED, ToolPhase.FINISHED
NEVER = certain(1e6)
A_SECOND_OR_LONG = Curve((0.0, 1.0, 100.0), (0.0, 0.5, 1.0))
"""Half of all runs are over within a second, the others hardly before a hundred."""


def one_place(*, calls: int = 1, takes_hints: bool = False, **foretold: Any) -> Playbook:
    """The pool holds one session of 15,000 tokens, whose prefill takes 1.5 seconds. Each second of it in
    three quarters of the pool costs 0.15, so that ten seconds are as much as it is worth."""
    book = Playbook(pool_tokens=20_000, takes_hints=takes_hints, forecast=Foretold(**foretold))
    book.at(0, arrives("a1"), goes_leased("a1") if takes_hints else goes("a1"))
    return book.at(10, calls_tool("a1", tool_calls=calls))


def of_a(exec_id: str, phase: ToolPhase, **changes: Any) -> Any:
    return tool(exec_id, phase, llm_session="a", **changes)


def held(turn_id: str) -> HoldTurn:
    return waits(turn_id)


# -- a tool that waits ----------------------------------------------------------------------------


def test_a_tool_that_waits_has_not_begun_to_run():
    """Two seconds in the queue and one to run: the place is kept for both."""
    (
        one_place(gap=certain(5.0), run=certain(1.0))
        .at(10, replace(tools(1), queue_wait_s=2.0))
        .at(10, of_a("x", QUEUED))
        .at(11, arrives("b1"), held("b1"))
        .fires(13, goes("b1"))
    )


def test_a_wait_that_costs_more_than_the_place_is_worth_gives_it_away_at_once():
    (
        one_place(gap=certain(5.0), run=certain(1.0))
        .at(10, replace(tools(1), queue_wait_s=20.0))
        .at(10, of_a("x", QUEUED))
        .at(11, arrives("b1"), goes("b1"))
    )


def test_the_wait_is_that_of_the_tools_own_host():
    (
        one_place(gap=certain(5.0), run=certain(1.0))
        .at(10, replace(tools(1), host="full", queue_wait_s=20.0))
        .at(10, replace(tools(1), host="free", queue_wait_s=0.0))
        .at(10, of_a("x", QUEUED, host="free"))
        .at(10.5, arrives("b1"), held("b1"))
        .fires(11, goes("b1"))
    )


# -- a tool that runs -----------------------------------------------------------------------------


def test_a_tool_that_runs_for_longer_than_most_gives_the_place_back_early():
    """After the second in which half of them are over, the rest is not worth waiting for."""
    (
        one_place(gap=certain(5.0), run=A_SECOND_OR_LONG)
        .at(11, of_a("x", STARTED))
        .at(11.5, arrives("b1"), held("b1"))
        .fires(12, goes("b1"))
    )


def test_of_several_tools_the_one_that_may_take_longest_counts():
    (
        one_place(calls=2, gap=certain(9.0), run=certain(4.0))
        .at(10, of_a("x1", STARTED))
        .at(12, of_a("x2", STARTED))
        .at(12, arrives("b1"), held("b1"))
        .at(13, of_a("x1", FINISHED))
        .quiet_until(15.9)
        .fires(16, goes("b1"))
    )


# -- a tool that has ended ------------------------------------------------------------------------


def test_the_end_of_the_last_tool_keeps_the_place_for_the_return_that_is_near():
    (
        one_place(gap=certain(1.0), run=certain(1.0), echo=certain(3.0))
        .at(10, of_a("x", STARTED))
        .at(20, of_a("x", FINISHED))
        .at(21, arrives("b1"), held("b1"))
        .at(22, arrives("a2"), goes("a2", "continuation"))
    )


def test_it_is_kept_for_a_short_time_only():
    (
        one_place(gap=certain(1.0), run=certain(1.0), echo=certain(3.0))
        .at(10, of_a("x", STARTED))
        .at(20, of_a("x", FINISHED))
        .at(21, arrives("b1"), held("b1"))
        .fires(23, goes("b1"))
    )


def test_the_end_of_one_tool_is_no_return_while_another_call_of_the_answer_is_to_come():
    (
        one_place(calls=2, gap=certain(5.0), run=certain(1.0), echo=certain(0.1))
        .at(10, of_a("x1", STARTED))
        .at(20, of_a("x1", FINISHED))
        .at(21, arrives("b1"), held("b1"))
        .fires(25, goes("b1"))
    )


def test_how_soon_sessions_come_back_after_their_tools_is_learned():
    book = Playbook()
    for number in range(50):
        book.at(number, arrives(f"a{number}"), goes(f"a{number}", "continuation" if number else "new"))
        book.at(number + 0.1, calls_tool(f"a{number}"))
        book.at(number + 0.2, of_a(f"x{number}", STARTED))
        book.at(number + 0.3, of_a(f"x{number}", FINISHED, run_s=0.1))
    forecast, session = book.policy._forecast, book.policy.sessions.get("a")
    assert session is not None
    assert isinstance(forecast, Foretold)
    learned = super(Foretold, forecast)
    assert learned.echo_curve(session).quantile(0.5) == pytest.approx(0.7, rel=0.3)
    assert learned.run_curve(session, None).quantile(0.5) == pytest.approx(0.1, rel=0.3)


# -- leases ---------------------------------------------------------------------------------------


def expired() -> LeaseExpired:
    return LeaseExpired("a", "gpu", TURN_TOKENS)


def test_a_place_that_is_overdue_is_not_leased_again_until_its_tool_has_ended():
    """Nobody asks for it, so it stays; but its blocks are no dearer than others'."""
    (
        one_place(takes_hints=True, gap=certain(1.0), run=certain(1.0))
        .at(10, of_a("x", STARTED))
        .quiet_until(39)
        .at(40, expired())
        .at(50, of_a("x", FINISHED), keeps("a"))
        .at(51, arrives("a2"), goes_leased("a2", "continuation"))
    )


def test_a_place_that_was_given_away_is_taken_again_when_its_tool_has_ended_and_its_blocks_are_there():
    """They would be taken at the return all the same; until then nobody else may have them."""
    (
        one_place(takes_hints=True, gap=certain(1.0), run=certain(1.0))
        .at(10, of_a("x", STARTED))
        .at(20, arrives("b1"), releases("a"), goes_leased("b1"))
        .at(30, of_a("x", FINISHED), keeps("a"))
        .at(31, arrives("a2"), goes_leased("a2", "continuation"))
    )


def test_a_place_whose_blocks_are_gone_is_not_taken_again():
    """Nothing can be kept, and whoever waits for the place was first."""
    (
        one_place(takes_hints=True, gap=certain(1.0), run=certain(1.0))
        .at(10, of_a("x", STARTED))
        .at(20, arrives("b1"), releases("a"), goes_leased("b1"))
        .at(25, calls_tool("b1", context=19_000, completion_tokens=19_000))
        .at(26, arrives("b2", tokens=19_500), goes_leased("b2", "continuation"))
        .at(30, of_a("x", FINISHED))
        .at(31, arrives("a2"), waits("a2"))
    )


def test_a_place_that_was_taken_again_in_vain_is_given_up_like_any_other():
    (
        one_place(takes_hints=True, gap=certain(1.0), run=certain(1.0), echo=certain(2.0))
        .at(10, of_a("x", STARTED))
        .at(20, arrives("b1"), releases("a"), goes_leased("b1"))
        .at(30, of_a("x", FINISHED), keeps("a"))
        .at(31, SessionEnded("b"))
        .at(31, arrives("c1"), waits("c1"))
        .fires(32, releases("a"))
    )


def test_a_session_that_is_over_takes_nothing_again():
    (
        one_place(takes_hints=True, gap=certain(1.0), run=certain(1.0))
        .at(10, of_a("x", STARTED))
        .at(20, arrives("b1"), releases("a"), goes_leased("b1"))
        .at(25, SessionEnded("a"), demotes("a"), forgotten("a"))
        .at(30, of_a("x", FINISHED))
    )


# -- a gateway that is gone -----------------------------------------------------------------------


def test_when_the_gateway_falls_silent_the_gap_is_over_like_any_quiet_one():
    (
        one_place(gap=NEVER, run=NEVER)
        .at(10, of_a("x", STARTED))
        .at(12, tools(1))
        .fires(12 + IDLE_GAP_S)
        .at(50, of_a("x", FINISHED))
    )


def test_while_the_gateway_is_heard_of_it_is_not():
    book = one_place(gap=NEVER, run=NEVER).at(10, of_a("x", STARTED))
    for second in range(11, 310, 10):
        book.at(second, tools(1))
    book.fires(10 + TOOL_LIMIT_GAPS * IDLE_GAP_S)


def test_a_tool_that_was_last_seen_waiting_falls_back_to_what_was_predicted():
    """Its start is never told: what was foreseen when it began to wait still holds."""
    (
        one_place(gap=certain(5.0), run=certain(1.0))
        .at(10, replace(tools(1), queue_wait_s=2.0))
        .at(10, of_a("x", QUEUED))
        .quiet_until(100)
        .at(100, arrives("b1"), goes("b1"))
    )


def test_where_nothing_is_known_of_memory_places_are_kept_for_as_long_as_ever():
    book = Playbook(pool_tokens=None, fallback_concurrency=1)
    (
        book.at(0, arrives("a1"), goes("a1"))
        .at(1, arrives("b1"), waits("b1", Reason.TELEMETRY_UNKNOWN))
        .at(10, calls_tool("a1"))
        .at(10, of_a("x", QUEUED))
        .at(11, of_a("x", STARTED))
        .quiet_until(100)
        .at(100, of_a("x", FINISHED))
        .fires(100 + IDLE_GAP_S, goes("b1"))
    )
