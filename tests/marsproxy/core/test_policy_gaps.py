"""Between turns: how long a session keeps its budget, and who is expected back."""

from typing import Any

import pytest

from marsproxy.core.commands import HoldTurn, Reason
from marsproxy.core.events import Event, SessionEnded, ToolPhase
from marsproxy.core.histogram import Curve, certain
from marsproxy.core.sessions import Phase
from tests.marsproxy.core.playbook import (
    Foretold,
    Playbook,
    aborts,
    answers,
    arrives,
    calls_tool,
    fails,
    forgotten,
    full_playbook,
    goes,
    reading,
    side_call,
    tool,
    waits,
)

STARTED, FINISHED, QUEUED = ToolPhase.STARTED, ToolPhase.FINISHED, ToolPhase.QUEUED
SIGNS = {"command_digest": "pytest", "tool_call_id": "call-1"}


def one_place(**changes: Any) -> Playbook:
    """One session may go, and the next one waits. There is no memory to ask for, so the place stays taken
    until the gap is over, however little it is worth."""
    book = lone_place(**changes)
    return book.at(0, arrives("a1"), goes("a1")).at(1, arrives("b1"), held("b1"))


def lone_place(**changes: Any) -> Playbook:
    return Playbook(pool_tokens=None, fallback_concurrency=1, **changes)


def held(turn_id: str) -> HoldTurn:
    return waits(turn_id, Reason.TELEMETRY_UNKNOWN)


def phase(book: Playbook, session_id: str) -> Phase:
    session = book.policy.sessions.get(session_id)
    assert session is not None
    return session.phase


# -- tool gaps ------------------------------------------------------------------------------------


def test_a_session_in_a_tool_gap_keeps_its_budget_for_idle_gap_s():
    book = one_place(idle_gap_s=30.0).at(10, calls_tool("a1"))
    assert phase(book, "a") is Phase.TOOL_GAP
    book.fires(40, goes("b1"))
    assert phase(book, "a") is Phase.IDLE


def test_a_continuation_ends_the_gap_and_the_next_gap_is_measured_anew():
    (
        one_place(idle_gap_s=30.0)
        .at(10, calls_tool("a1"))
        .at(39, arrives("a2"), goes("a2", "continuation"))
        .quiet_until(100)
        .at(100, calls_tool("a2"))
        .fires(130, goes("b1"))
    )


def test_a_side_call_in_a_gap_does_not_make_the_gap_longer():
    (
        one_place(idle_gap_s=30.0)
        .at(10, calls_tool("a1"))
        .at(20, side_call("a2"), goes("a2", "side"))
        .at(25, answers("a2", context=100))
        .fires(40, goes("b1"))
    )


def test_a_side_call_that_outlasts_the_gap_does_not_keep_the_budget():
    (
        one_place(idle_gap_s=30.0)
        .at(10, calls_tool("a1"))
        .at(20, side_call("a2"), goes("a2", "side"))
        .fires(40, goes("b1"))
        .at(50, answers("a2", context=100))
    )


def test_a_gap_begins_when_the_last_of_several_turns_has_ended():
    (
        one_place(idle_gap_s=30.0)
        .at(5, arrives("a2"), goes("a2", "continuation"))
        .at(10, calls_tool("a1"))
        .quiet_until(49)
        .at(50, calls_tool("a2"))
        .fires(80, goes("b1"))
    )


def test_a_session_that_went_idle_comes_back_as_a_return():
    (
        one_place(idle_gap_s=30.0)
        .at(10, calls_tool("a1"))
        .fires(40, goes("b1"))
        .at(45, calls_tool("b1"))
        .at(50, arrives("a2"), held("a2"))
        .at(60, SessionEnded("b"), forgotten("b"), goes("a2", "return"))
    )


def test_a_session_that_went_idle_and_is_soon_back_goes_at_once():
    """Nothing was computed since, so its blocks should be there."""
    (
        one_place(idle_gap_s=30.0)
        .at(10, calls_tool("a1"))
        .fires(40, goes("b1"))
        .at(50, arrives("a2"), goes("a2", "continuation"))
    )


def test_a_session_forgotten_in_its_gap_leaves_nothing_behind():
    book = one_place(idle_gap_s=30.0).at(10, calls_tool("a1"))
    book.policy.handle(SessionEnded("a"), 11)
    book.quiet_until(100)
    assert list(book.policy.backends["gpu"].counted) == ["b"]


# -- endings --------------------------------------------------------------------------------------


def test_an_aborted_turn_frees_its_budget_at_once():
    one_place().at(10, aborts("a1"), goes("b1"))


def test_an_aborted_turn_teaches_nothing():
    """Neither its size nor the size that its session had reached says how large sessions get."""
    book = Playbook(growth_beta=1.0, pool_tokens=100_000)
    for number in range(30):
        name = f"cut-{number}-"
        book.at(number, arrives(f"{name}1", tokens=100), goes(f"{name}1"))
        book.at(number, calls_tool(f"{name}1", context=100))
        book.at(number, arrives(f"{name}2", tokens=100), goes(f"{name}2", "continuation"))
        book.at(number, aborts(f"{name}2"))
    for name in "abcd":  # 20,000 each, as nobody knows better
        book.at(50, arrives(f"{name}1", tokens=100), goes(f"{name}1"))
    book.at(50, arrives("e1", tokens=100), waits("e1"))


def test_a_failed_turn_keeps_its_session_counted_for_the_retry():
    (
        one_place(idle_gap_s=30.0)
        .at(10, calls_tool("a1"))
        .at(20, arrives("a2"), goes("a2", "continuation"))
        .at(30, fails("a2"))
        .at(40, arrives("a3"), goes("a3", "continuation"))
        .at(50, fails("a3"))
        .fires(80, goes("b1"))
    )


def test_a_session_whose_first_turn_fails_gives_its_budget_back_at_once():
    """A request for an unknown model must not keep others out."""
    (
        one_place(idle_gap_s=30.0)
        .at(10, fails("a1"), goes("b1"))
        .at(11, arrives("a2"), held("a2"))
        .at(12, fails("b1"), goes("a2"))
        .at(13, fails("a2"))
        .at(14, arrives("b2"), goes("b2"))
    )


def test_a_first_turn_that_fails_beside_others_of_its_session_ends_nothing():
    (
        one_place(idle_gap_s=30.0)
        .at(5, arrives("a2"), goes("a2", "continuation"))
        .at(10, fails("a1"))
        .at(20, calls_tool("a2"))
        .fires(50, goes("b1"))
    )


def test_a_failed_turn_teaches_no_size():
    book = Playbook().at(1, arrives("a1"), goes("a1")).at(2, fails("a1"))
    session = book.policy.sessions.get("a")
    assert session is not None
    assert (session.turns, session.peak_tokens) == (0, 0)


@pytest.mark.parametrize("ending", [aborts("b1"), fails("b1"), calls_tool("b1", context=90_000)])
def test_a_turn_that_ends_while_it_waits_is_neither_counted_nor_learned_from(ending: Event):
    book = one_place().at(2, ending)
    session = book.policy.sessions.get("b")
    assert session is not None
    assert (session.turns, session.peak_tokens, session.is_counted) == (0, 0, False)
    assert session.phase is Phase.IDLE
    assert len(book.policy.held) == 0
    book.at(3, answers("a1"))


def test_an_ending_is_heard_once():
    (
        one_place()
        .at(10, answers("a1"), goes("b1"))
        .at(11, answers("a1"))
        .at(12, aborts("a1"))
        .at(13, aborts("never-arrived1"))
        .at(14, arrives("c1"), held("c1"))
    )


# -- answers without a tool call ------------------------------------------------------------------


def test_a_final_answer_frees_the_budget_at_once():
    one_place().at(10, answers("a1"), goes("b1"))


def test_a_single_question_gives_its_budget_back_with_its_answer():
    """Most requests without tools are not an agent's: nobody waits for them to come back."""
    (
        lone_place(idle_gap_s=30.0)
        .at(0, arrives("a1", has_tools=False), goes("a1"))
        .at(1, arrives("b1", has_tools=False), held("b1"))
        .at(10, answers("a1"), goes("b1"))
    )


def test_a_session_that_went_on_after_text_is_expected_to_do_it_again():
    """It acts through plain text: its second answer keeps the budget, until the gap grows long."""
    (
        lone_place(idle_gap_s=30.0)
        .at(0, arrives("a1", has_tools=False), goes("a1"))
        .at(10, answers("a1"))
        .at(15, arrives("a2", has_tools=False), goes("a2", "continuation"))
        .at(16, arrives("b1"), held("b1"))
        .at(20, answers("a2"))
        .fires(50, goes("b1"))
    )


def test_a_family_that_goes_on_after_text_is_learned():
    """After nine steps of one session the next session of the family keeps its budget from the start."""
    book = lone_place(idle_gap_s=30.0)
    for step in range(1, 10):
        decision = "new" if step == 1 else "continuation"
        book.at(10 * step, arrives(f"a{step}"), goes(f"a{step}", decision))
        book.at(10 * step + 5, answers(f"a{step}"))
    (
        book.fires(125)
        .at(130, arrives("b1"), goes("b1"))
        .at(131, arrives("c1"), held("c1"))
        .at(135, answers("b1"))
        .fires(165, goes("c1"))
    )


def test_a_session_that_did_not_go_on_is_not_waited_for_again():
    """It came back late, as people do: its next answer frees the budget at once."""
    (
        lone_place(idle_gap_s=30.0)
        .at(0, arrives("a1"), goes("a1"))
        .at(10, answers("a1"))
        .at(15, arrives("a2"), goes("a2", "continuation"))
        .at(20, answers("a2"))
        .fires(50)
        .at(100, arrives("a3"), goes("a3", "continuation"))
        .at(101, arrives("b1"), held("b1"))
        .at(105, answers("a3"), goes("b1"))
    )


def test_a_side_call_after_the_final_answer_is_no_return():
    """A title asked for after every answer must not look like an agent that goes on."""
    book = lone_place(idle_gap_s=30.0)
    for number in range(20):
        name = f"chat-{number}-"
        book.at(100 * number, arrives(f"{name}1"), goes(f"{name}1"))
        book.at(100 * number + 10, answers(f"{name}1"))
        book.at(100 * number + 11, side_call(f"{name}2"), goes(f"{name}2", "side"))
        book.at(100 * number + 12, answers(f"{name}2", context=100))
    book.at(2100, arrives("a1"), goes("a1")).at(2101, arrives("b1"), held("b1")).at(
        2110, answers("a1"), goes("b1")
    )


def test_a_session_that_is_ended_after_its_answer_did_not_return():
    book = lone_place(idle_gap_s=30.0)
    for number in range(20):
        name = f"run-{number}-"
        book.at(100 * number, arrives(f"{name}1"), goes(f"{name}1"))
        book.at(100 * number + 10, answers(f"{name}1"))
        book.policy.handle(SessionEnded(name), 100 * number + 11)
    book.at(2100, arrives("a1"), goes("a1")).at(2101, arrives("b1"), held("b1")).at(
        2110, answers("a1"), goes("b1")
    )


# -- tools seen at the gateway --------------------------------------------------------------------


def test_a_session_whose_tool_is_running_is_not_idle():
    (
        one_place(idle_gap_s=30.0)
        .at(10, calls_tool("a1"))
        .at(12, tool("x1", STARTED, llm_session="a"))
        .quiet_until(150)
        .at(150, tool("x1", FINISHED, llm_session="a"))
        .fires(180, goes("b1"))
    )


def test_a_tool_that_waits_for_a_slot_counts_as_running():
    (
        one_place(idle_gap_s=30.0)
        .at(10, calls_tool("a1"))
        .at(12, tool("x1", QUEUED, llm_session="a"))
        .quiet_until(100)
        .at(100, tool("x1", STARTED, llm_session="a"))
        .at(120, tool("x1", FINISHED, llm_session="a"))
        .fires(150, goes("b1"))
    )


def test_a_tool_is_joined_to_its_session_by_the_command():
    (
        one_place(idle_gap_s=30.0)
        .at(10, calls_tool("a1", command_digests=("d1", "d2")))
        .at(12, tool("x1", STARTED, command_digest="d2"))
        .quiet_until(100)
        .at(100, tool("x1", FINISHED))
        .fires(130, goes("b1"))
    )


def test_a_command_that_nobody_waits_for_changes_nothing():
    (
        one_place(idle_gap_s=30.0)
        .at(10, calls_tool("a1", command_digests=("d1",)))
        .at(12, tool("x1", STARTED, command_digest="other"))
        .at(13, tool("x2", STARTED, llm_session="stranger"))
        .at(14, tool("x3", STARTED))
        .fires(40, goes("b1"))
    )


def test_equal_commands_of_two_sessions_are_nobodys():
    """Which of them runs it cannot be known, so neither gap is longer for it."""
    (
        Playbook(pool_tokens=None, fallback_concurrency=2, idle_gap_s=30.0)
        .at(0, arrives("a1"), goes("a1"))
        .at(0, arrives("b1"), goes("b1"))
        .at(0, arrives("c1"), held("c1"))
        .at(10, calls_tool("a1", command_digests=("pytest",)))
        .at(11, calls_tool("b1", command_digests=("pytest",)))
        .at(12, tool("x1", STARTED, command_digest="pytest"))
        .fires(40, goes("c1"))
    )


def test_a_tool_is_joined_to_its_session_by_the_id_of_its_call():
    (
        one_place(idle_gap_s=30.0)
        .at(10, calls_tool("a1", tool_call_ids=("call-1",)))
        .at(12, tool("x1", STARTED, tool_call_id="call-1"))
        .quiet_until(100)
        .at(100, tool("x1", FINISHED))
        .fires(130, goes("b1"))
    )


@pytest.mark.parametrize("clue", ["command_digest", "tool_call_id"])
def test_an_id_that_is_no_sessions_does_not_keep_other_signs_from_joining(clue: str):
    """Callers may have names of their own for their agents."""
    (
        one_place(idle_gap_s=30.0)
        .at(10, calls_tool("a1", command_digests=("pytest",), tool_call_ids=("call-1",)))
        .at(12, tool("x1", STARTED, llm_session="theirs", **{clue: SIGNS[clue]}))
        .quiet_until(100)
        .at(100, tool("x1", FINISHED, llm_session="theirs"))
        .fires(130, goes("b1"))
    )


def test_the_id_of_one_session_keeps_a_command_from_joining_another():
    """Its own turn is still under way, so there is no gap that the run could be of."""
    (
        Playbook(pool_tokens=None, fallback_concurrency=2, idle_gap_s=30.0)
        .at(0, arrives("a1"), goes("a1"))
        .at(0, arrives("b1"), goes("b1"))
        .at(0, arrives("c1"), held("c1"))
        .at(10, calls_tool("a1", command_digests=("pytest",)))
        .at(12, tool("x1", STARTED, llm_session="b", command_digest="pytest"))
        .fires(40, goes("c1"))
    )


def test_a_gap_lasts_until_the_last_of_several_tools():
    (
        one_place(idle_gap_s=30.0)
        .at(10, calls_tool("a1"))
        .at(12, tool("x1", STARTED, llm_session="a"))
        .at(13, tool("x2", STARTED, llm_session="a"))
        .at(50, tool("x1", FINISHED, llm_session="a"))
        .quiet_until(99)
        .at(100, tool("x2", FINISHED, llm_session="a"))
        .at(101, tool("x2", FINISHED, llm_session="a"))
        .fires(130, goes("b1"))
    )


def test_a_tool_that_is_never_heard_of_again_holds_the_budget_for_ten_gaps():
    (
        one_place(idle_gap_s=30.0)
        .at(10, calls_tool("a1"))
        .at(12, tool("x1", STARTED, llm_session="a"))
        .fires(312, goes("b1"))
        .at(400, tool("x1", FINISHED, llm_session="a"))
        .quiet_until(500)
    )


def test_a_tool_of_an_earlier_gap_says_nothing_about_the_next_one():
    """A server left running in the background would otherwise count its session for ever."""
    (
        one_place(idle_gap_s=30.0)
        .at(10, calls_tool("a1"))
        .at(12, tool("x1", STARTED, llm_session="a"))
        .at(20, arrives("a2"), goes("a2", "continuation"))
        .at(30, calls_tool("a2"))
        .fires(60, goes("b1"))
        .at(70, tool("x1", FINISHED, llm_session="a"))
    )


def test_a_running_tool_does_not_count_a_session_again():
    (
        one_place(idle_gap_s=30.0)
        .at(10, calls_tool("a1"))
        .fires(40, goes("b1"))
        .at(45, calls_tool("b1"))
        .at(50, tool("x1", STARTED, llm_session="a"))
        .at(51, arrives("a2"), held("a2"))
        .at(52, reading(None))
        .at(60, tool("x1", FINISHED, llm_session="a"))
    )


# -- places worth less than their memory ----------------------------------------------------------


def one_place_in_memory(gap: Curve) -> Playbook:
    """The pool holds one session of 15,000 tokens, whose prefill takes 1.5 seconds. Each second of it in
    three quarters of the pool costs 0.15."""
    book = Playbook(pool_tokens=20_000, forecast=Foretold(gap=gap))
    return book.at(0, arrives("a1"), goes("a1")).at(10, calls_tool("a1"))


def test_a_place_is_kept_while_it_is_worth_more_than_its_memory():
    """Half of all tools are back within a second, the others hardly before a hundred."""
    gap = Curve((0.0, 1.0, 100.0), (0.0, 0.5, 1.0))
    one_place_in_memory(gap).at(10.5, arrives("b1"), waits("b1")).fires(11, goes("b1"))


def test_a_place_that_is_never_worth_its_memory_goes_to_the_first_who_asks():
    one_place_in_memory(certain(20.0)).at(10.5, arrives("b1"), goes("b1"))


def test_a_place_that_nobody_asks_for_stays():
    """It is overdue from the start, and all the same it is there when its session comes back."""
    (
        one_place_in_memory(certain(20.0))
        .quiet_until(20)
        .at(20, arrives("a2"), goes("a2", "continuation"))
        .at(21, arrives("b1"), waits("b1"))
    )


def test_places_are_asked_for_in_the_order_in_which_they_fell_overdue_and_no_more_than_needed():
    book = full_playbook(forecast=Foretold(gap=certain(1e6)))
    for second, name in enumerate("cab"):
        book.at(2 + second, calls_tool(f"{name}1"))
    (
        book.at(5, arrives("g1", tokens=25_000), goes("g1"))
        .at(6, arrives("b2"), goes("b2", "continuation"))
        .at(7, arrives("c2"), goes("c2", "continuation"))
    )
    assert [phase(book, name) for name in "abc"] == [Phase.IDLE, Phase.GENERATING, Phase.GENERATING]


def test_a_tool_that_runs_does_not_keep_an_overdue_place_but_one_that_ends_does():
    """The end of the tool announces the return."""
    running = one_place_in_memory(certain(20.0)).at(11, tool("x1", STARTED, llm_session="a"))
    running.at(12, arrives("b1"), goes("b1"))
    gap = Curve((0.0, 1.0, 100.0), (0.0, 0.5, 1.0))
    ended = one_place_in_memory(gap).at(11, tool("x1", STARTED, llm_session="a"))
    ended.at(20, tool("x1", FINISHED)).at(20.5, arrives("b1"), waits("b1")).fires(21, goes("b1"))


def test_a_place_given_up_at_the_last_moment_is_given_once():
    """The gap ends by itself at the very time at which it falls overdue."""
    gap = Curve((0.0, 30.0), (1.0, 1.0))
    book = one_place_in_memory(gap).at(11, arrives("b1"), waits("b1"))
    book.fires(40, goes("b1")).at(41, arrives("c1"), waits("c1"))
