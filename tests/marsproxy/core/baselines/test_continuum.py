"""Pins and their order, with a fixed time and with the time that is worth most."""

from typing import Any

import pytest

from marsproxy.core.baselines.continuum import RANK_STEP, continuum, continuum_dy
from marsproxy.core.events import BackendUnreachable, SessionEnded
from marsproxy.core.settings import SessionSettings
from tests.marsproxy.core.baselines.books import book, goes
from tests.marsproxy.core.baselines.hint_words import (
    finishes,
    moves,
    pins,
    reclaimed,
    refused_hint,
    releases,
    starts,
)
from tests.marsproxy.core.playbook import (
    Playbook,
    aborts,
    answers,
    arrives,
    calls_tool,
    fails,
    forgotten,
    side_call,
)


def pinned(first_arrival_s: float) -> int:
    """Or started: the rank is the same."""
    return round(first_arrival_s * 1000)


def other(first_arrival_s: float) -> int:
    return RANK_STEP + round(first_arrival_s * 1000)


def one_pause(**changes: Any) -> Playbook:
    """Session a, which came at 1, called its first tool at 10 and is pinned until 12."""
    return (
        book(continuum, **changes)
        .at(1, arrives("a1"), goes("a1", priority=other(1)))
        .at(2, starts("a1"), moves("a1", pinned(1)))
        .at(10, calls_tool("a1"), pins("a", 2.0))
    )


# -- pins ---------------------------------------------------------------------------------------------


def test_a_turn_that_comes_back_in_time_keeps_its_pin_until_it_starts():
    (
        one_pause()
        .at(11, arrives("a2"), pins("a", None), goes("a2", "continuation", priority=pinned(1)))
        .at(60, starts("a2"))
        .at(70, answers("a2"))
    )


def test_a_turn_that_comes_back_late_has_no_pin():
    (
        one_pause()
        .at(12.001, arrives("a2"), goes("a2", "continuation", priority=other(1)))
        .at(20, starts("a2"), moves("a2", pinned(1)))
    )


def test_no_pin_after_an_answer_without_a_tool_call():
    book(continuum).at(1, arrives("a1"), goes("a1")).at(9, answers("a1"))


@pytest.mark.parametrize("ends", [aborts, fails])
def test_no_pin_after_a_turn_that_did_not_finish(ends: Any):
    book(continuum).at(1, arrives("a1"), goes("a1")).at(9, ends("a1"))


def test_a_turn_that_gives_up_before_it_started_takes_its_pin_along():
    (
        one_pause()
        .at(11, arrives("a2"), pins("a", None), goes("a2", "continuation"))
        .at(12, aborts("a2"), releases("a"))
    )


def test_a_pin_begins_when_the_last_of_several_turns_has_ended():
    (
        book(continuum)
        .at(1, arrives("a1"), goes("a1"))
        .at(1, arrives("a2"), goes("a2"))
        .at(5, calls_tool("a1"))
        .at(9, calls_tool("a2"), pins("a", 2.0))
    )


def test_a_side_call_goes_with_its_session_and_leaves_the_pin_alone():
    (
        one_pause()
        .at(10.5, side_call("a2"), goes("a2", "side", priority=pinned(1)))
        .at(11, starts("a2"))
        .at(11, answers("a2", context=100))
        .at(11, arrives("a3"), pins("a", None), goes("a3", "continuation", priority=pinned(1)))
    )


def test_a_session_that_is_over_is_not_pinned():
    one_pause().at(11, SessionEnded("a"), releases("a"), forgotten("a"))
    (
        book(continuum)
        .at(1, arrives("a1"), goes("a1"))
        .at(2, SessionEnded("a"))
        .at(3, calls_tool("a1"), forgotten("a"))
    )


def test_a_session_that_expires_leaves_nothing_behind():
    playbook = one_pause(sessions=SessionSettings(idle_expiry_s=100.0))
    playbook.fires(110, releases("a"), forgotten("a"))
    policy: Any = playbook.policy
    assert (len(policy._pins), len(policy._gaps), len(policy._flights)) == (0, 0, 0)


def test_a_pin_is_worth_nothing_on_a_backend_that_is_gone():
    (
        book(continuum, backends=("one", "two"))
        .at(1, arrives("a1"), goes("a1", backend="one"))
        .at(10, calls_tool("a1"), pins("a", 2.0, "one"))
        .at(10, BackendUnreachable("one"))
        .at(
            11,
            arrives("a2"),
            releases("a", "one"),
            goes("a2", "continuation", backend="two", priority=other(1)),
        )
    )


# -- order --------------------------------------------------------------------------------------------


def test_pinned_sessions_go_first_then_those_that_came_first():
    """a came before b, b before c; only b and c are back within their pins."""
    (
        book(continuum)
        .at(1, arrives("a1"), goes("a1", priority=other(1)))
        .at(2, arrives("b1"), goes("b1", priority=other(2)))
        .at(3, arrives("c1"), goes("c1", priority=other(3)))
        .at(10, calls_tool("a1"), pins("a", 2.0))
        .at(12, calls_tool("b1"), pins("b", 2.0))
        .at(12, calls_tool("c1"), pins("c", 2.0))
        .at(13, arrives("a2"), goes("a2", "continuation", priority=other(1)))
        .at(13, arrives("c2"), pins("c", None), goes("c2", "continuation", priority=pinned(3)))
        .at(13, arrives("b2"), pins("b", None), goes("b2", "continuation", priority=pinned(2)))
    )
    assert pinned(2) < pinned(3) < pinned(1e9) < other(1) < other(2)


def test_a_turn_that_has_started_is_not_put_behind_those_that_wait():
    book(continuum).at(1, arrives("a1"), goes("a1", priority=other(1))).at(
        2, starts("a1"), moves("a1", pinned(1))
    ).at(3, starts("a1"))


def test_who_lost_the_pin_in_the_gap_comes_back_among_the_others():
    (
        one_pause()
        .at(10.5, reclaimed("a"), releases("a"))
        .at(11, arrives("a2"), goes("a2", "continuation", priority=other(1)))
    )
    (
        one_pause()
        .at(10.5, refused_hint("a"))
        .at(11, arrives("a2"), goes("a2", "continuation", priority=other(1)))
    )


def test_who_loses_the_pin_while_waiting_falls_back_among_the_others():
    (
        one_pause()
        .at(11, arrives("a2"), pins("a", None), goes("a2", "continuation", priority=pinned(1)))
        .at(12, reclaimed("a"), releases("a"), moves("a2", other(1)))
        .at(13, reclaimed("a"))
        .at(14, starts("a2"), moves("a2", pinned(1)))
        .at(15, refused_hint("a"))
    )


def test_news_of_a_session_that_is_not_known_is_no_news():
    book(continuum).at(1, reclaimed("x")).at(1, refused_hint("x")).at(1, starts("x1"))


# -- the fixed time -----------------------------------------------------------------------------------


def test_tools_that_take_longer_than_the_pin_on_average_are_not_pinned():
    """Gaps of 1 and 3 s make a mean of 2.0, which is still worth it; one of 5 s makes it 3.0."""
    (
        book(continuum)
        .at(0, arrives("a1"), goes("a1"))
        .at(1, calls_tool("a1"), pins("a", 2.0))
        .at(2, arrives("a2"), pins("a", None), goes("a2", "continuation"))
        .at(3, calls_tool("a2"), pins("a", 2.0))
        .at(6, arrives("a3"), goes("a3", "continuation"))
        .at(7, calls_tool("a3"), pins("a", 2.0))
        .at(12, arrives("a4"), goes("a4", "continuation"))
        .at(13, calls_tool("a4"))
        .at(13, arrives("b1"), goes("b1"))
        .at(14, calls_tool("b1", tool_signature="grep"), pins("b", 2.0))
        .at(15, arrives("c1"), goes("c1"))
        .at(16, calls_tool("c1", tool_signature=None), pins("c", 2.0))
    )


def test_a_user_who_thinks_is_no_slow_tool():
    (
        book(continuum)
        .at(0, arrives("a1"), goes("a1"))
        .at(1, answers("a1"))
        .at(900, arrives("a2"), goes("a2", "continuation"))
        .at(901, calls_tool("a2"), pins("a", 2.0))
    )


# -- the time that is worth most ----------------------------------------------------------------------


def test_the_cost_model_waits_for_a_hundred_records():
    """The 101st gap makes it trust them: with gaps of 4 s and a reload of 1 s there is nothing to win."""
    playbook = book(continuum_dy)
    now = 0.0
    for index in range(101):
        turn_id = f"s{index + 1}"
        if index:
            playbook.at(now, arrives(turn_id), goes(turn_id, "continuation"))
        else:
            playbook.at(now, arrives(turn_id), goes(turn_id))
        playbook.at(now + 1, calls_tool(turn_id), pins("s", 2.0))
        now += 5
    playbook.at(now, arrives("s102"), goes("s102", "continuation")).at(now + 1, calls_tool("s102"))


def test_a_reload_that_costs_more_than_the_gap_is_worth_a_pin():
    """Gaps of 4 s. A prefill of 10,000 tokens takes 3 s, and returns without a pin waited 5 s besides:
    3 + 5 x 1 > 4 for eta = 1, so all of the gap is worth it."""
    playbook = book(continuum_dy)
    now = 0.0
    for index in range(101):
        turn_id = f"s{index + 1}"
        decision = "continuation" if index else "new"
        playbook.at(now, arrives(turn_id, 10_000), goes(turn_id, decision))
        ttft_s = 8.0 if index else 3.0
        playbook.at(now + ttft_s, starts(turn_id), moves(turn_id, pinned(0)))
        playbook.at(now + 9, finishes(turn_id, 10_000), pins("s", 2.0))
        now += 13
    playbook.at(now, arrives("s102", 10_000), goes("s102", "continuation"))
    playbook.at(now + 8, starts("s102"), moves("s102", pinned(0)))
    playbook.at(now + 9, finishes("s102", 10_000), pins("s", 4.0))
