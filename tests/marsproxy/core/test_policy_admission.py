"""Who may start: the KV budget, the order of those who wait, the fixed cap, the tools' gate."""

from typing import Any

import pytest

from marsproxy.core.commands import Reason
from marsproxy.core.events import BackendUnreachable
from marsproxy.core.evidence import TurnKind
from tests.marsproxy.core.playbook import (
    Playbook,
    aborts,
    answers,
    arrives,
    calls_tool,
    fails,
    goes,
    reading,
    side_call,
    tools,
    waits,
)


def full_playbook(**changes: Any) -> Playbook:
    """Six sessions of 15,000 tokens each: not one more fits."""
    book = Playbook(**changes)
    for name in "abcdef":
        book.at(1, arrives(f"{name}1"), goes(f"{name}1"))
    return book


# -- the budget -----------------------------------------------------------------------------------


def test_a_continuation_of_a_counted_session_goes_at_once_even_when_nothing_else_fits():
    (
        full_playbook()
        .at(2, arrives("g1"), waits("g1"))
        .at(3, calls_tool("a1"))
        .at(4, arrives("a2"), goes("a2", "continuation"))
    )


def test_a_new_session_waits_until_another_gives_its_budget_back():
    (
        full_playbook()
        .at(2, arrives("g1"), waits("g1", Reason.KV_FULL, position=1))
        .at(2, arrives("h1"), waits("h1", Reason.KV_FULL, position=2))
        .at(3, answers("a1"), goes("g1"))
        .at(4, answers("b1"), goes("h1"))
    )


def test_one_large_ending_lets_several_in():
    (
        Playbook()
        .at(1, arrives("a1", tokens=70_000), goes("a1"))
        .at(2, arrives("b1"), goes("b1"))
        .at(3, arrives("c1"), waits("c1"))
        .at(3, arrives("d1"), waits("d1", position=2))
        .at(4, answers("a1", context=70_000), goes("c1"), goes("d1"))
    )


def test_a_new_session_is_charged_with_its_growth_and_not_with_its_context():
    """Seventy contexts of 1,000 tokens would fit; with half of the way to 20,000 it is eight."""
    book = Playbook(growth_beta=0.5)
    for number in range(8):
        book.at(1, arrives(f"{'abcdefgh'[number]}1", tokens=1_000), goes(f"{'abcdefgh'[number]}1"))
    book.at(1, arrives("i1", tokens=1_000), waits("i1"))


def test_the_prior_gives_way_to_what_sessions_of_the_family_come_to():
    """After many sessions that stayed at 2,000, a new one reserves little more than that."""
    book = Playbook(growth_beta=0.5)
    for number in range(30):
        name = f"small-{number}-"
        book.at(number, arrives(f"{name}1", tokens=2_000), goes(f"{name}1"))
        book.at(number, answers(f"{name}1", context=2_000))
    for number in range(26):  # (20,000 x 3 + 2,000 x 30) / 33 = 3,636: (2,000 + 3,636) / 2 is 2,818
        name = f"next-{number}-"
        book.at(40, arrives(f"{name}1", tokens=2_000), goes(f"{name}1"))


def test_families_learn_apart():
    book = Playbook(growth_beta=0.5)
    for number in range(30):
        name = f"small-{number}-"
        book.at(number, arrives(f"{name}1", tokens=2_000, family="small"), goes(f"{name}1"))
        book.at(number, answers(f"{name}1", context=2_000))
    for name in "abcdefgh":
        book.at(40, arrives(f"{name}1", tokens=1_000, family="other"), goes(f"{name}1"))
    book.at(40, arrives("i1", tokens=1_000, family="other"), waits("i1"))


def test_the_reservation_follows_the_context_as_it_grows():
    """Three sessions that have grown to 28,000 leave no room for a fourth."""
    book = Playbook()
    for name in "abc":
        book.at(1, arrives(f"{name}1"), goes(f"{name}1")).at(1, calls_tool(f"{name}1", context=28_000))
    book.at(3, arrives("d1"), waits("d1"))


def test_usage_corrects_the_byte_estimates_of_later_sessions():
    """Real prompts are three times the estimate: a request that looks like 15,000 needs nearly 45,000."""
    book = Playbook()
    for number in range(60):
        name = f"past-{number}-"
        book.at(number, arrives(f"{name}1"), goes(f"{name}1")).at(number, answers(f"{name}1", context=45_000))
    book.at(100, arrives("a1"), goes("a1")).at(100, arrives("b1"), goes("b1")).at(
        100, arrives("c1"), waits("c1")
    )


def test_a_session_larger_than_the_whole_pool_goes_when_nothing_is_counted():
    (
        Playbook()
        .at(1, arrives("a1", tokens=500_000), goes("a1"))
        .at(2, arrives("b1"), waits("b1"))
        .at(3, answers("a1", context=500_000), goes("b1"))
    )


def test_a_return_is_charged_with_the_larger_of_what_is_known_and_what_it_brings():
    """What the decision looked at is what is taken: a second return must not be let in on the rest."""
    book = Playbook()
    for name in "ab":
        book.at(1, arrives(f"{name}1"), goes(f"{name}1")).at(1, answers(f"{name}1"))
    book.at(2, arrives("a2", tokens=60_000), goes("a2", "return"))
    book.at(2, arrives("b2", tokens=60_000), waits("b2"))


def test_a_condensed_session_is_charged_with_its_new_context():
    (
        Playbook()
        .at(1, arrives("a1", tokens=80_000), goes("a1"))
        .at(2, answers("a1", context=80_000))
        .at(3, arrives("b1", tokens=50_000), goes("b1"))
        .at(4, arrives("a2", tokens=20_000, kind=TurnKind.CONDENSED), goes("a2", "return"))
    )


def test_room_made_by_a_smaller_context_is_used():
    (
        Playbook()
        .at(1, arrives("a1", tokens=80_000), goes("a1"))
        .at(2, arrives("b1"), waits("b1"))
        .at(3, calls_tool("a1", context=80_000))
        .at(4, arrives("a2", tokens=10_000, kind=TurnKind.CONDENSED), goes("a2", "continuation"))
        .at(5, calls_tool("a2", context=10_000), goes("b1"))
    )


def test_the_prior_is_no_more_than_a_share_of_the_pool():
    """An eighth of the pool each, so seven fit into nine tenths of it."""
    book = Playbook(growth_beta=1.0, peak_prior_pool_share=0.125)
    for name in "abcdefg":
        book.at(1, arrives(f"{name}1", tokens=100), goes(f"{name}1"))
    book.at(1, arrives("h1", tokens=100), waits("h1"))


def test_a_session_without_a_finished_turn_says_nothing_about_sizes():
    book = Playbook(growth_beta=1.0, idle_gap_s=30.0)
    for number in range(30):
        book.at(50 * number, arrives(f"broken-{number}-1", tokens=100), goes(f"broken-{number}-1"))
        book.at(50 * number, fails(f"broken-{number}-1"))
    for name in "abcd":  # 20,000 each
        book.at(2000, arrives(f"{name}1", tokens=100), goes(f"{name}1"))
    book.at(2000, arrives("e1", tokens=100), waits("e1"))


# -- the order of those who wait ------------------------------------------------------------------


def test_returns_go_before_new_sessions():
    (
        full_playbook()
        .at(2, answers("a1"))
        .at(2, arrives("g1"), goes("g1"))
        .at(3, arrives("h1"), waits("h1", position=1))
        .at(4, arrives("a2"), waits("a2", position=1))
        .at(5, answers("b1"), goes("a2", "return"))
        .at(6, answers("c1"), goes("h1"))
    )


def test_a_session_with_a_history_that_nobody_remembers_is_a_return():
    (
        full_playbook()
        .at(2, arrives("h1"), waits("h1"))
        .at(3, arrives("old9", kind=TurnKind.CONTINUATION), waits("old9", position=1))
        .at(4, answers("b1"), goes("old9", "return"))
    )


def test_a_sub_agent_of_a_counted_parent_goes_before_new_sessions():
    (
        full_playbook()
        .at(2, arrives("h1"), waits("h1"))
        .at(3, arrives("sub1", parent_session_id="a"), waits("sub1", position=1))
        .at(4, arrives("orphan1", parent_session_id="nobody"), waits("orphan1", position=3))
        .at(5, answers("b1"), goes("sub1", "return"))
        .at(6, answers("c1"), goes("h1"))
    )


def test_a_few_small_ones_may_pass_one_that_does_not_fit():
    (
        full_playbook()
        .at(2, arrives("big1", tokens=40_000), waits("big1"))
        .at(2, arrives("g1"), waits("g1", position=2))
        .at(3, answers("a1"), goes("g1"))
    )


def test_only_the_first_few_are_tried():
    """One large head, three large ones behind it, and a small fifth that would fit."""
    book = full_playbook()
    for position, name in enumerate(["p", "q", "r", "s"], start=1):
        book.at(2, arrives(f"{name}1", tokens=40_000), waits(f"{name}1", position=position))
    book.at(2, arrives("g1"), waits("g1", Reason.BEHIND_OTHERS, position=5))
    book.at(3, answers("a1"))


def test_nobody_passes_a_turn_that_was_passed_often_enough():
    book = full_playbook(max_overtakes=2)
    book.at(2, arrives("big1", tokens=40_000), waits("big1"))
    for position, name in enumerate(["g", "h", "i"], start=2):
        book.at(2, arrives(f"{name}1"), waits(f"{name}1", position=position))
    (
        book.at(3, answers("a1"), goes("g1"))
        .at(4, answers("b1"), goes("h1"))
        .at(5, answers("c1"))
        .at(6, answers("d1"))
        .at(7, answers("e1"), goes("big1"))
    )


def test_a_return_that_keeps_arriving_does_not_starve_a_new_session():
    """One place, and always a return waiting for it: after ten minutes the new session is in front."""
    book = Playbook(max_hold_s=10_000.0)
    book.at(1, arrives("a1", tokens=80_000), goes("a1")).at(1, arrives("new1"), waits("new1"))
    for minute in range(1, 10):
        holder, comer = f"r{minute - 1}-" if minute > 1 else "a", f"r{minute}-"
        kind = TurnKind.CONTINUATION
        book.at(60 * minute, arrives(f"{comer}1", tokens=80_000, kind=kind), waits(f"{comer}1"))
        book.at(60 * minute + 1, answers(f"{holder}1", context=80_000), goes(f"{comer}1", "return"))
    book.at(602, arrives("late1", tokens=80_000, kind=TurnKind.CONTINUATION), waits("late1", position=2))
    book.at(603, answers("r9-1", context=80_000), goes("new1"))


def test_two_first_turns_of_one_session_go_together():
    """Best-of-n: when the session is admitted, its other turns are continuations, not further waiters."""
    (
        full_playbook()
        .at(2, arrives("g1"), waits("g1"))
        .at(2, arrives("h1"), waits("h1", position=2))
        .at(2, arrives("g2"), waits("g2", position=3))
        .at(3, answers("a1"), goes("g1"), goes("g2", "continuation"))
    )


def test_a_waiting_turn_that_gives_up_lets_the_next_be_tried():
    book = full_playbook(look_ahead=0)
    book.at(2, answers("a1"))
    book.at(2, arrives("big1", tokens=40_000), waits("big1"))
    book.at(2, arrives("g1"), waits("g1", Reason.BEHIND_OTHERS, position=2))
    book.at(3, aborts("big1"), goes("g1"))


# -- side calls -----------------------------------------------------------------------------------


def test_a_side_call_goes_at_once_and_its_session_is_not_counted():
    book = full_playbook()
    book.at(2, arrives("h1"), waits("h1"))
    book.at(2, side_call("title1"), goes("title1", "side")).at(3, answers("title1", context=100))
    assert not book.policy.sessions.get("title").is_counted  # type: ignore[union-attr]


def test_a_side_call_leaves_size_and_phase_of_its_session_alone():
    book = Playbook().at(1, arrives("a1"), goes("a1")).at(2, calls_tool("a1", context=30_000))
    session = book.policy.sessions.get("a")
    assert session is not None
    before = (session.phase, session.context_tokens, session.peak_tokens, session.turns, session.is_counted)
    book.at(3, side_call("a2"), goes("a2", "side")).at(4, answers("a2", context=500))
    assert before == (
        session.phase,
        session.context_tokens,
        session.peak_tokens,
        session.turns,
        session.is_counted,
    )


# -- telemetry ------------------------------------------------------------------------------------


@pytest.mark.parametrize("blindness", ["never seen", "unreachable", "no pool size", "stale"])
def test_a_fixed_cap_takes_the_place_of_an_unknown_budget(blindness: str):
    book = Playbook(pool_tokens=None, telemetry_stale_s=10.0, idle_gap_s=1000.0)
    if blindness == "unreachable":
        book.at(1, reading()).at(1, BackendUnreachable("gpu"))
    elif blindness == "no pool size":
        book.at(100, reading(None))
    elif blindness == "stale":
        book.at(1, reading())
    (
        book.at(100, arrives("a1"), goes("a1"))
        .at(100, arrives("b1"), goes("b1"))
        .at(100, arrives("c1"), waits("c1", Reason.TELEMETRY_UNKNOWN))
        .at(101, answers("a1"), goes("c1"))
    )


def test_the_cap_is_tried_as_soon_as_the_budget_is_unknown():
    (
        Playbook()
        .at(1, arrives("a1", tokens=90_000), goes("a1"))
        .at(2, arrives("b1"), waits("b1"))
        .at(2, arrives("c1"), waits("c1", position=2))
        .at(3, BackendUnreachable("gpu"), goes("b1"))
    )


def test_when_telemetry_comes_back_the_budget_counts_again():
    (
        Playbook(pool_tokens=None)
        .at(1, arrives("a1"), goes("a1"))
        .at(1, arrives("b1"), goes("b1"))
        .at(1, arrives("c1"), waits("c1", Reason.TELEMETRY_UNKNOWN))
        .at(1, arrives("d1", tokens=90_000), waits("d1", Reason.TELEMETRY_UNKNOWN, position=2))
        .at(2, reading(), goes("c1"))
        .at(3, arrives("e1"), goes("e1"))
    )


def test_a_return_leaves_a_backend_that_cannot_be_reached():
    (
        Playbook(backends=["one", "two"])
        .at(1, arrives("a1"), goes("a1", backend="one"))
        .at(2, answers("a1"))
        .at(3, BackendUnreachable("one"))
        .at(4, arrives("a2"), goes("a2", "return", backend="two"))
    )


def test_sessions_spread_over_backends_and_stay_there():
    (
        Playbook(backends=["one", "two"])
        .at(1, arrives("a1"), goes("a1", backend="one"))
        .at(1, arrives("b1"), goes("b1", backend="two"))
        .at(2, answers("b1"))
        .at(2, calls_tool("a1"))
        .at(3, arrives("a2"), goes("a2", "continuation", backend="one"))
        .at(4, arrives("b2"), goes("b2", "return", backend="two"))
    )


def test_each_backend_has_its_own_budget():
    book = Playbook(backends=["one", "two"])
    for name, backend in zip("abcdefghijkl", ["one", "two"] * 6, strict=True):
        book.at(1, arrives(f"{name}1"), goes(f"{name}1", backend=backend))
    book.at(2, arrives("m1"), waits("m1")).at(3, answers("b1"), goes("m1", backend="two"))


def test_a_larger_pool_takes_more_sessions():
    book = Playbook(backends=["small", "large"], pool_tokens=None)
    book.at(0, reading(40_000, "small")).at(0, reading(400_000, "large"))
    backends = ["small", *["large"] * 10, "small"]
    for name, backend in zip("abcdefghijkl", backends, strict=True):
        book.at(1, arrives(f"{name}1"), goes(f"{name}1", backend=backend))


def test_a_backend_of_which_nothing_is_known_comes_after_one_with_room():
    book = Playbook(backends=["dark", "seen"], pool_tokens=None).at(0, reading(backend="seen"))
    for name, backend in zip("abc", ["dark", "seen", "seen"], strict=True):
        book.at(1, arrives(f"{name}1"), goes(f"{name}1", backend=backend))


def test_a_side_call_follows_its_session_or_goes_where_the_fewest_are():
    (
        Playbook(backends=["one", "two"])
        .at(1, arrives("a1"), goes("a1", backend="one"))
        .at(2, side_call("title1"), goes("title1", "side", backend="two"))
        .at(3, side_call("a2"), goes("a2", "side", backend="one"))
        .at(4, BackendUnreachable("two"))
        .at(5, side_call("title2"), goes("title2", "side", backend="one"))
    )


# -- tools ----------------------------------------------------------------------------------------


def test_busy_tool_hosts_keep_new_sessions_out_but_not_returns():
    (
        Playbook(tools_per_core=2.5)
        .at(1, arrives("a1"), goes("a1"))
        .at(1, arrives("b1"), goes("b1"))
        .at(1, answers("b1"))
        .at(2, tools(10, cores=4.0))
        .at(3, arrives("c1"), waits("c1", Reason.TOOLS_BUSY))
        .at(3, arrives("b2"), goes("b2", "return"))
        .at(4, tools(9, cores=4.0), goes("c1"))
    )


@pytest.mark.parametrize("unknown", [tools(None), tools(100, cores=None)])
def test_tool_hosts_of_which_nothing_is_known_are_not_busy(unknown: object):
    (
        Playbook()
        .at(1, arrives("a1"), goes("a1"))
        .at(2, unknown)  # type: ignore[arg-type]
        .at(3, arrives("b1"), goes("b1"))
    )


def test_an_old_word_of_the_tool_hosts_counts_for_nothing():
    (
        Playbook(telemetry_stale_s=10.0, idle_gap_s=100.0)
        .at(1, arrives("a1"), goes("a1"))
        .at(2, tools(100))
        .at(13, reading())
        .at(13, arrives("b1"), goes("b1"))
    )


def test_busy_tool_hosts_never_keep_out_the_only_session():
    Playbook().at(1, tools(100)).at(2, arrives("a1"), goes("a1")).at(
        2, arrives("b1"), waits("b1", Reason.TOOLS_BUSY)
    )


def test_the_tools_are_everybodys_so_an_empty_backend_does_not_open_the_gate():
    (
        Playbook(backends=["one", "two"])
        .at(1, arrives("a1"), goes("a1", backend="one"))
        .at(2, tools(100))
        .at(3, arrives("b1"), waits("b1", Reason.TOOLS_BUSY))
    )
