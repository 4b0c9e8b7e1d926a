"""Four queues: who was served least goes first, and nobody starves."""

from typing import Any

from marsproxy.core.baselines.autellix import MAX_PROMOTIONS, Autellix
from marsproxy.core.events import SessionEnded
from marsproxy.core.evidence import TurnKind
from tests.marsproxy.core.baselines.books import book, goes
from tests.marsproxy.core.baselines.hint_words import finishes, has_generated, moves, starts
from tests.marsproxy.core.playbook import Playbook, aborts, answers, arrives, calls_tool, forgotten, side_call


def served_once(turn_id: str = "a1") -> Playbook:
    """5,000 tokens, of them 1,000 generated; 4 s of prefill and 6 s of decoding, no waiting."""
    return (
        book(Autellix)
        .at(0, arrives(turn_id, 4_000), goes(turn_id, priority=0))
        .at(4, starts(turn_id), moves(turn_id, 1))
        .at(10, finishes(turn_id, 4_000, completion=1_000))
    )


def test_what_a_program_was_served_decides_the_queue_of_its_next_turn():
    """1,000 prompt tokens and 500 generated each time; at the third turn 3,000 have been attained."""
    (
        book(Autellix)
        .at(0, arrives("a1", 1_000), goes("a1", priority=0))
        .at(1, finishes("a1", 1_000, completion=500))
        .at(2, arrives("a2", 2_500), goes("a2", "continuation", priority=0))
        .at(3, finishes("a2", 2_500, cached=1_500, completion=500))
        .at(4, arrives("a3", 4_000), goes("a3", "continuation", priority=1))
        .at(4, arrives("b1", 30_000), goes("b1", priority=0))
    )


def test_cached_tokens_are_no_service():
    (
        book(Autellix)
        .at(0, arrives("a1", 2_000), goes("a1", priority=0))
        .at(1, finishes("a1", 2_000, cached=1_999, completion=1))
        .at(2, arrives("a2", 2_000), goes("a2", "continuation", priority=0))
    )


def test_a_turn_moves_down_as_it_is_served():
    (
        book(Autellix)
        .at(0, arrives("a1", 2_000), goes("a1", priority=0))
        .at(1, starts("a1"))
        .at(2, has_generated("a1", 47))
        .at(3, has_generated("a1", 48), moves("a1", 1))
        .at(4, has_generated("a1", 1_000))
        .at(5, has_generated("a1", 6_192), moves("a1", 2))
        .at(6, has_generated("a1", 40_000), moves("a1", 3))
    )


def test_of_a_continuation_only_what_is_new_is_taken_for_prefill():
    (
        served_once()
        .at(11, arrives("a2", 8_000), goes("a2", "continuation", priority=1))
        .at(12, starts("a2"))
        .at(13, has_generated("a2", 191))
        .at(14, has_generated("a2", 192), moves("a2", 2))
    )


def test_a_condensed_history_is_prefill_all_of_it():
    playbook = served_once().at(
        11, arrives("a2", 3_192, kind=TurnKind.CONDENSED), goes("a2", "continuation", priority=1)
    )
    playbook.at(12, starts("a2"), moves("a2", 2))


def test_a_turn_that_waited_twice_as_long_as_its_program_was_served_goes_first():
    """10 s served: 20 s after it came it is promoted, and runs a whole quantum of the first queue."""
    (
        served_once()
        .at(20, arrives("a2", 6_000), goes("a2", "continuation", priority=1))
        .fires(40, moves("a2", 0))
        .at(41, starts("a2"))
        .at(42, has_generated("a2", 1_047))
        .at(43, has_generated("a2", 1_048), moves("a2", 1))
    )


def test_what_a_program_has_waited_is_remembered():
    """20 s of waiting for 10 s of service, and the little that the second turn was: the third starves
    at once."""
    (
        served_once()
        .at(20, arrives("a2", 5_000), goes("a2", "continuation", priority=1))
        .fires(40, moves("a2", 0))
        .at(50, starts("a2"))
        .at(50, finishes("a2", 5_000, cached=5_000))
        .at(60, arrives("a3", 5_000), goes("a3", "continuation", priority=0))
    )


def test_a_turn_that_started_or_gave_up_is_not_promoted():
    (
        served_once()
        .at(20, arrives("a2", 5_000), goes("a2", "continuation", priority=1))
        .at(21, starts("a2"))
        .at(21, arrives("a3", 5_000), goes("a3", "continuation", priority=1))
        .at(22, aborts("a3"))
        .quiet_until(100)
    )


def test_many_promotions_are_given_in_portions():
    playbook = served_once()
    turns = [f"a{index}" for index in range(2, MAX_PROMOTIONS + 5)]
    for turn_id in turns:
        playbook.at(20, arrives(turn_id, 5_000), goes(turn_id, "continuation", priority=1))
    in_order = sorted(turns)
    playbook.fires(40, *(moves(turn_id, 0) for turn_id in in_order[:MAX_PROMOTIONS]))
    playbook.fires(40, *(moves(turn_id, 0) for turn_id in in_order[MAX_PROMOTIONS:]))


def test_a_turn_that_is_not_streamed_ran_all_the_time():
    """10 s: it starves after 20, as above."""
    (
        book(Autellix)
        .at(0, arrives("a1", 4_000), goes("a1"))
        .at(10, finishes("a1", 4_000, completion=1_000))
        .at(20, arrives("a2", 5_000), goes("a2", "continuation", priority=1))
        .fires(40, moves("a2", 0))
    )


def test_a_sub_agent_is_part_of_its_parents_program():
    (
        served_once()
        .at(11, arrives("s1", 1_000, parent_session_id="a"), goes("s1", priority=1))
        .at(12, starts("s1"))
        .at(13, finishes("s1", 1_000, completion=3_000, tool=None))
        .at(14, arrives("a2", 5_000), goes("a2", "continuation", priority=2))
    )


def test_side_calls_are_served_too():
    (
        book(Autellix)
        .at(0, side_call("a1"), goes("a1", "side", priority=0))
        .at(1, starts("a1"))
        .at(2, has_generated("a1", 2_000), moves("a1", 1))
        .at(3, answers("a1", context=100))
        .at(4, arrives("a2", 100), goes("a2", priority=1))
    )


def test_what_an_aborted_turn_was_served_counts():
    (
        book(Autellix)
        .at(0, arrives("a1", 3_000), goes("a1"))
        .at(1, starts("a1"), moves("a1", 1))
        .at(4, aborts("a1"))
        .at(5, arrives("a2", 3_000), goes("a2", priority=1))
        .at(5, arrives("b1", 3_000), goes("b1"))
        .at(6, aborts("b1"))
        .at(7, arrives("b2", 3_000), goes("b2", priority=0))
    )


def test_nothing_is_left_of_a_session_that_is_forgotten():
    playbook = served_once().at(11, arrives("a2", 5_000), goes("a2", "continuation"))
    playbook.at(12, calls_tool("a2")).at(13, SessionEnded("a"), forgotten("a"))
    policy: Any = playbook.policy
    assert (policy._programs, policy._contexts, policy._calls, policy._starving) == ({}, {}, {}, [])
