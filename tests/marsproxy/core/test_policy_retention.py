"""What the engine is asked to do with a session's blocks between two turns: leases, and hints to end them."""

from dataclasses import replace
from typing import Any

import pytest

from marsproxy.core.events import (
    BackendUnreachable,
    Event,
    HintAnswered,
    KvReclaimed,
    LeaseExpired,
    LeaseResumed,
    SessionEnded,
    ToolPhase,
    TurnProgressed,
)
from marsproxy.core.gaps import TOOL_LIMIT_GAPS
from marsproxy.core.histogram import certain
from marsproxy.core.lease_worth import PROBE_EVERY
from marsproxy.core.settings import SessionSettings
from tests.marsproxy.core.playbook import (
    ANY,
    IDLE_GAP_S,
    STEADY,
    TURN_TOKENS,
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
    goes_leased,
    keeps,
    reading,
    releases,
    side_call,
    tool,
    waits,
)


def expired(session_id: str, backend: str = "gpu") -> LeaseExpired:
    return LeaseExpired(session_id, backend, TURN_TOKENS)


def resumed(session_id: str, hit: int, backend: str = "gpu") -> LeaseResumed:
    return LeaseResumed(session_id, backend, TURN_TOKENS, hit)


def hinted(**changes: Any) -> Playbook:
    """The engine takes hints, and ``a`` runs on it."""
    return Playbook(takes_hints=True, **changes).at(0, arrives("a1"), goes_leased("a1"))


# -- while the session is counted -----------------------------------------------------------------


def test_a_session_that_waits_for_a_tool_keeps_its_blocks():
    (
        hinted()
        .at(1, calls_tool("a1"))
        .at(2, arrives("a2"), goes_leased("a2", "continuation"))
        .at(3, calls_tool("a2"))
    )


def test_they_are_kept_when_the_last_of_several_turns_has_ended():
    (
        hinted()
        .at(1, arrives("a2"), goes_leased("a2", "continuation"))
        .at(2, calls_tool("a1"))
        .at(3, calls_tool("a2"))
    )


def test_an_agent_that_acts_through_text_keeps_its_blocks_too():
    (
        hinted()
        .at(1, answers("a1"), releases("a"))
        .at(2, arrives("a2"), goes_leased("a2", "continuation"))
        .at(3, answers("a2"))
    )


def test_a_turn_that_failed_keeps_them_for_the_retry():
    (
        hinted()
        .at(1, calls_tool("a1"))
        .at(2, arrives("a2"), goes_leased("a2", "continuation"))
        .at(3, fails("a2"), keeps("a"))
    )


def test_side_calls_change_nothing():
    (
        hinted()
        .at(1, calls_tool("a1"))
        .at(2, side_call("a2"), goes("a2", "side"))
        .at(3, answers("a2", context=100))
        .fires(31, releases("a"))
    )


# -- when it no longer is -------------------------------------------------------------------------


def test_blocks_of_a_gap_that_is_over_are_released():
    hinted(idle_gap_s=30.0).at(1, calls_tool("a1")).fires(31, releases("a"))


def test_blocks_of_a_place_that_is_given_away_are_released_first():
    (
        hinted(pool_tokens=20_000, forecast=Foretold(gap=certain(1e6)))
        .at(1, calls_tool("a1"))
        .at(2, arrives("b1"), releases("a"), goes_leased("b1"))
        .at(3, calls_tool("b1"))
    )


@pytest.mark.parametrize("ending", [aborts("a1"), fails("a1"), answers("a1")])
def test_who_gives_its_budget_back_at_once_keeps_nothing(ending: Event):
    hinted().at(1, ending, releases("a"))


def test_who_hardly_ever_comes_back_after_text_goes_first():
    """Two returns in four rests are supposed at the start; after seven without one it is two in eleven."""
    book = Playbook(takes_hints=True)
    for number in range(8):
        name = f"s{number}-"
        book.at(number, arrives(f"{name}1"), goes_leased(f"{name}1"))
        book.at(number, answers(f"{name}1"), releases(name) if number < 6 else demotes(name))


def test_families_that_do_come_back_are_not_taken_for_those_that_do_not():
    book = Playbook(takes_hints=True)
    for number in range(7):
        name = f"s{number}-"
        book.at(number, arrives(f"{name}1", family="once"), goes_leased(f"{name}1"))
        book.at(number, answers(f"{name}1"), releases(name) if number < 6 else demotes(name))
    book.at(8, arrives("b1", family="again"), goes_leased("b1")).at(9, answers("b1"), releases("b"))


def test_blocks_of_a_session_that_is_over_go_first():
    hinted().at(1, calls_tool("a1")).at(2, SessionEnded("a"), demotes("a"), forgotten("a"))


def test_a_session_that_is_over_when_its_last_turn_ends_keeps_nothing():
    hinted().at(1, SessionEnded("a")).at(2, calls_tool("a1"), demotes("a"), forgotten("a"))


def test_a_side_call_in_flight_does_not_keep_the_blocks_of_a_session_that_is_over():
    (
        hinted()
        .at(1, calls_tool("a1"))
        .at(2, side_call("a2"), goes("a2", "side"))
        .at(3, SessionEnded("a"), demotes("a"))
        .at(4, answers("a2", context=100), forgotten("a"))
    )


def test_a_session_that_is_dropped_for_another_gives_up_its_lease():
    (
        hinted(sessions=SessionSettings(max_sessions=1))
        .at(1, calls_tool("a1"))
        .at(2, arrives("b1"), releases("a"), forgotten("a"), goes_leased("b1"))
    )


def test_a_session_that_expires_in_its_gap_gives_up_its_lease():
    (
        hinted(sessions=SessionSettings(idle_expiry_s=20.0), idle_gap_s=30.0)
        .at(1, calls_tool("a1"))
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
    book.at(1, arrives("a1"), goes("a1", backend="one"))
    book.at(1, arrives("b1"), goes_leased("b1", backend="two"))
    book.at(2, calls_tool("a1")).at(2, calls_tool("b1"))


def test_switched_off_nothing_is_asked_for_and_nothing_advised():
    (
        Playbook(takes_hints=True, parts=replace(STEADY, retention=False))
        .at(0, arrives("a1"), goes("a1"))
        .at(1, answers("a1"))
    )


def test_an_engine_that_takes_hints_only_since_the_turn_began_is_told_at_its_end():
    (
        Playbook()
        .at(0, arrives("a1"), goes("a1"))
        .at(1, reading(takes_hints=True))
        .at(2, calls_tool("a1"), keeps("a"))
    )


def test_a_session_moves_only_when_nothing_of_it_is_under_way_so_its_leases_are_in_one_place():
    book = Playbook(backends=["one", "two"], takes_hints=True)
    (
        book.at(1, arrives("a1"), goes_leased("a1", backend="one"))
        .at(2, BackendUnreachable("one"))
        .at(3, arrives("a2"), goes_leased("a2", "continuation", backend="one"))
        .at(4, calls_tool("a1"))
        .at(5, calls_tool("a2"))
        .at(6, arrives("a3"), releases("a", "one"), goes_leased("a3", "return", backend="two"))
    )


# -- a lease that ran out -------------------------------------------------------------------------


def test_a_gap_with_a_tool_at_work_outlasts_its_lease_which_is_renewed():
    (
        hinted()
        .at(1, calls_tool("a1"))
        .at(5, tool("x", ToolPhase.STARTED, llm_session="a"))
        .at(31, expired("a"), keeps("a", 5 + TOOL_LIMIT_GAPS * IDLE_GAP_S - 31))
        .at(100, tool("x", ToolPhase.FINISHED, llm_session="a"))
        .fires(130, releases("a"))
    )


def test_a_quiet_gap_ends_with_its_lease():
    hinted().at(1, calls_tool("a1")).fires(31, releases("a")).at(31, expired("a"))


def test_word_of_an_old_lease_renews_nothing_while_the_next_turn_is_here():
    (
        hinted()
        .at(1, calls_tool("a1"))
        .at(2, arrives("a2"), goes_leased("a2", "continuation"))
        .at(3, expired("a"))
    )


def test_word_of_strangers_is_nothing():
    hinted().at(1, expired("nobody")).at(2, resumed("nobody", hit=0))


# -- whose leases are of no use -------------------------------------------------------------------


def rewriting(turns: int) -> Playbook:
    """What was kept of ``a`` was never found again. Its next turn is number ``turns + 1``, at 100 s."""
    book = hinted()
    for number in range(1, turns):
        book.at(number, calls_tool(f"a{number}")).at(number, resumed("a", hit=100))
        book.at(number, arrives(f"a{number + 1}"), ANY)
    return book.at(100, calls_tool(f"a{turns}"))


def test_who_finds_next_to_nothing_is_not_leased_any_more():
    rewriting(3).at(100, arrives("a4"), goes("a4", "continuation")).at(101, calls_tool("a4"))


def test_nor_are_others_of_its_family_whose_leases_have_not_been_seen():
    (
        rewriting(3)
        .at(100, arrives("b1"), goes("b1"))
        .at(100, arrives("c1", family="another"), goes_leased("c1"))
    )


def test_once_is_an_accident():
    rewriting(2).at(100, arrives("a3"), goes_leased("a3", "continuation"))


def test_a_lease_is_tried_now_and_then_and_one_that_is_hit_brings_them_back():
    book = rewriting(3)
    for number in range(4, 2 + PROBE_EVERY):
        book.at(100, arrives(f"a{number}"), goes(f"a{number}", "continuation"))
        book.at(100, calls_tool(f"a{number}"))
    probe = 2 + PROBE_EVERY
    book.at(101, arrives(f"a{probe}"), goes_leased(f"a{probe}", "continuation"))
    book.at(102, calls_tool(f"a{probe}")).at(103, resumed("a", hit=TURN_TOKENS))
    book.at(103, arrives(f"a{probe + 1}"), goes_leased(f"a{probe + 1}", "continuation"))


def test_a_session_is_forgotten_with_what_its_leases_were_worth():
    (
        rewriting(3)
        .at(101, SessionEnded("a"), demotes("a"), forgotten("a"))
        .at(102, arrives("c1", family="another"), goes_leased("c1"))
        .at(103, arrives("a1", family="another"), goes_leased("a1"))
    )


def test_what_the_engine_says_of_its_blocks_causes_nothing():
    """A lease that was refused, one that it broke, and how far a turn has come."""
    (
        hinted()
        .at(0, TurnProgressed("a1", 100))
        .at(1, calls_tool("a1"))
        .at(2, HintAnswered("a", "gpu", kept_tokens=0))
        .at(3, KvReclaimed("a", "gpu", tokens=15_000))
        .at(4, arrives("a2"), goes_leased("a2", "continuation"))
    )


def test_the_more_that_may_be_promised_of_an_engine_with_leases():
    """All of the pool, for new sessions cannot take what is kept: 100,000 tokens in place of 90,000."""
    book = Playbook(takes_hints=True)
    for name in "abcde":
        book.at(1, arrives(f"{name}1", tokens=20_000), goes_leased(f"{name}1"))
    book.at(1, arrives("f1", tokens=100), waits("f1"))
