"""When what was promised was wrong: the valve pauses the youngest, the correction promises less or more."""

from typing import Any

import pytest

from marsproxy.core.evidence import TurnKind
from marsproxy.core.settings import Parts
from tests.marsproxy.core.playbook import (
    Playbook,
    answers,
    arrives,
    calls_tool,
    full_playbook,
    goes,
    goes_leased,
    reading,
    releases,
    side_call,
    waits,
)

VALVE = Parts(correction=False)
CORRECTION = Parts(valve=False)


# -- the valve ------------------------------------------------------------------------------------


def overfull_playbook(**changes: Any) -> Playbook:
    """Six sessions were let in, and then the first grew to 22,000: 97 % of the pool is really used."""
    book = full_playbook(parts=VALVE, idle_gap_s=1000.0, **changes)
    for name in "bcdef":
        book.at(2, calls_tool(f"{name}1"))
    return book.at(3, calls_tool("a1", context=22_000))


def test_the_youngest_pauses_when_the_pool_is_nearly_full():
    """Its next turn waits like a return, until there is room."""
    (
        overfull_playbook()
        .at(4, arrives("f2"), waits("f2"))
        .at(5, arrives("e2"), goes("e2", "continuation"))
        .at(6, answers("e2"), goes("f2", "return"))
    )


def test_nobody_but_the_youngest_pauses():
    book = overfull_playbook()
    for name in "abcde":
        book.at(4, arrives(f"{name}2", tokens=100), goes(f"{name}2", "continuation"))


def test_another_turn_of_a_paused_session_waits_with_it():
    """Its blocks are still there, but it is not to go past its own pause, and to be charged twice."""
    book = overfull_playbook()
    book.at(4, arrives("f2"), waits("f2")).at(4, arrives("f3"), waits("f3", position=2))
    book.at(5, arrives("b2"), goes("b2", "continuation"))
    book.at(6, answers("b2"), goes("f2", "return"), goes("f3", "continuation"))
    assert book.policy.reserved_tokens(6) == pytest.approx({"gpu": 22_000 + 4 * 15_000}, rel=0.01)


def test_below_the_valve_nobody_pauses():
    """95,000 tokens are just not more than 95 % of the pool."""
    book = full_playbook(parts=VALVE, idle_gap_s=1000.0).at(2, calls_tool("a1", context=20_000))
    book.at(3, calls_tool("f1")).at(4, arrives("f2"), goes("f2", "continuation"))


def test_while_it_is_too_full_the_next_youngest_pauses_and_its_place_is_of_use_to_who_waits():
    (
        overfull_playbook()
        .at(4, arrives("f2"), waits("f2"))
        .at(5, arrives("e2"), goes("e2", "continuation"))
        .at(6, calls_tool("e2", context=30_000))
        .at(7, arrives("e3"), goes("f2", "return"), waits("e3"))
        .at(8, arrives("d2"), goes("d2", "continuation"))
    )


def test_the_only_session_does_not_pause_whatever_it_fills():
    book = Playbook(parts=VALVE).at(1, arrives("a1"), goes("a1"))
    for turn in range(2, 5):
        book.at(turn, calls_tool(f"a{turn - 1}", context=99_000))
        book.at(turn, arrives(f"a{turn}"), goes(f"a{turn}", "continuation"))


def test_a_session_with_a_turn_in_flight_does_not_pause():
    """Its blocks are in use; a second turn of it adds little."""
    book = full_playbook(parts=VALVE).at(2, calls_tool("a1", context=22_000))
    book.at(3, arrives("f2"), goes("f2", "continuation"))


def test_a_side_call_does_not_pause():
    overfull_playbook().at(4, side_call("f2"), goes("f2", "side"))


def test_a_paused_session_gives_up_its_lease():
    (
        Playbook(takes_hints=True, parts=VALVE)
        .at(1, arrives("a1", tokens=60_000), goes_leased("a1"))
        .at(1, arrives("b1", tokens=40_000), goes_leased("b1"))
        .at(2, calls_tool("b1", context=40_000))
        .at(3, calls_tool("a1", context=61_000))
        .at(4, arrives("b2"), releases("b"), waits("b2"))
        .at(5, arrives("a2"), goes_leased("a2", "continuation"))
        .at(6, answers("a2", context=61_000), releases("a"), goes_leased("b2", "return"))
    )


@pytest.mark.parametrize("parts", [Parts(valve=False), Parts(gpu_budget=False)])
def test_switched_off_it_pauses_nobody(parts: Parts):
    book = full_playbook(parts=parts, idle_gap_s=1000.0).at(2, calls_tool("a1", context=50_000))
    book.at(3, calls_tool("f1")).at(4, arrives("f2"), goes("f2", "continuation"))


# -- the correction -------------------------------------------------------------------------------


def five_of_six(**changes: Any) -> Playbook:
    """75,000 tokens are promised: a sixth session fits into 0.9 of the pool, and not into 0.95 of that."""
    book = Playbook(parts=CORRECTION, idle_gap_s=1000.0, **changes)
    for name in "abcde":
        book.at(1, arrives(f"{name}1"), goes(f"{name}1")).at(1, calls_tool(f"{name}1"))
    return book


def test_less_is_promised_when_counted_sessions_find_their_blocks_gone():
    (
        five_of_six()
        .at(2, arrives("a2"), goes("a2", "continuation"))
        .at(3, calls_tool("a2", cached_tokens=14_000))
        .at(30, reading())
        .at(31, arrives("f1"), waits("f1"))
    )


def test_blocks_that_were_there_change_nothing():
    (
        five_of_six()
        .at(2, arrives("a2"), goes("a2", "continuation"))
        .at(3, calls_tool("a2", cached_tokens=14_976))
        .at(30, reading())
        .at(31, arrives("f1"), goes("f1"))
    )


def test_a_rewritten_history_is_no_loss():
    (
        five_of_six()
        .at(2, arrives("a2", kind=TurnKind.CONDENSED), goes("a2", "continuation"))
        .at(3, calls_tool("a2", cached_tokens=1_000))
        .at(30, reading())
        .at(31, arrives("f1"), goes("f1"))
    )


def test_less_is_promised_when_the_engine_preempts():
    (
        five_of_six()
        .at(2, reading(preemptions_total=7))
        .at(30, reading(preemptions_total=8))
        .at(31, arrives("f1"), waits("f1"))
    )


def test_more_is_promised_when_turns_wait_and_there_is_room():
    """91,000 tokens are more than 0.9 of the pool, and less than 0.92."""
    (
        Playbook(parts=CORRECTION)
        .at(1, arrives("a1", tokens=76_000), goes("a1"))
        .at(2, arrives("b1"), waits("b1"))
        .at(15, reading())
        .at(30, reading(), goes("b1"))
    )


def test_no_more_is_promised_while_nobody_waits():
    (
        Playbook(parts=CORRECTION)
        .at(1, arrives("a1", tokens=76_000), goes("a1"))
        .at(30, reading())
        .at(31, arrives("b1"), waits("b1"))
    )


def test_a_change_is_seen_before_the_next():
    """Two reasons within half a minute are one; the next fall takes its own half minute."""
    book = five_of_six().at(2, reading(preemptions_total=0))
    for second in range(10, 60, 10):
        book.at(second, reading(preemptions_total=second))
    assert book.policy._budgets.corrections["gpu"].factor == 0.95
    book.at(60, reading(preemptions_total=60))
    assert book.policy._budgets.corrections["gpu"].factor == 0.95**2


def test_each_backend_is_corrected_for_itself():
    book = Playbook(backends=["one", "two"], parts=CORRECTION)
    for second, total in [(1, 0), (30, 9)]:
        book.at(second, reading(backend="one", preemptions_total=total)).at(second, reading(backend="two"))
    factors = {name: each.factor for name, each in book.policy._budgets.corrections.items()}
    assert factors == {"one": 0.95, "two": 1.0}
