"""Who may start: the KV budget, the fixed cap where it is unknown, warm returns, side calls."""

import pytest

from marsproxy.core.commands import Reason
from marsproxy.core.events import BackendUnreachable
from marsproxy.core.evidence import TurnKind
from tests.marsproxy.core.playbook import (
    ANY,
    Playbook,
    answers,
    arrives,
    calls_tool,
    fails,
    full_playbook,
    goes,
    reading,
    side_call,
    tools,
    waits,
)


def flooded(book: Playbook, now: float) -> Playbook:
    """Another session has filled the pool and is done: of what was idle before, nothing is left."""
    book.at(now, arrives("flood1", tokens=90_000), goes("flood1"))
    return book.at(now, answers("flood1", context=90_000))


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
    book = Playbook(warm_share=1.0)
    for name in "ab":
        book.at(1, arrives(f"{name}1"), goes(f"{name}1")).at(1, answers(f"{name}1"))
    flooded(book, 2)
    book.at(3, arrives("a2", tokens=60_000), goes("a2", "return"))
    book.at(3, arrives("b2", tokens=60_000), waits("b2"))


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
        .at(4, arrives("a2", tokens=10_000, kind=TurnKind.CONDENSED), goes("a2", "continuation"), goes("b1"))
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


def test_old_readings_are_no_reason_to_wait_longer():
    """Open, not shut: with the last word ten seconds old the fixed cap lets in who the budget kept out."""
    (
        Playbook(telemetry_stale_s=10.0, idle_gap_s=1000.0)
        .at(1, arrives("a1", tokens=90_000), goes("a1"))
        .at(2, arrives("b1"), waits("b1"))
        .at(10, calls_tool("a1", context=90_000))
        .at(11, tools(0), goes("b1"))
        .at(12, arrives("c1"), waits("c1", Reason.TELEMETRY_UNKNOWN))
    )


def test_where_nothing_is_counted_somebody_may_go_whatever_is_known():
    """Neither a pool too small, nor a cap, nor readings that stay away keep the only session waiting."""
    for pool_tokens in (None, 100):
        book = Playbook(pool_tokens=pool_tokens, fallback_concurrency=1).at(1, tools(100))
        book.at(2, arrives("a1", tokens=1_000_000), goes("a1"))
        book.at(3, arrives("b1"), waits("b1", ANY))
        book.at(4, answers("a1"), goes("b1"))


# -- returns --------------------------------------------------------------------------------------


def test_a_return_whose_blocks_should_still_be_there_goes_at_once_even_when_nothing_else_fits():
    (
        full_playbook()
        .at(2, answers("a1"))
        .at(2, arrives("g1"), goes("g1"))
        .at(3, arrives("h1"), waits("h1"))
        .at(4, arrives("a2"), goes("a2", "continuation"))
    )


@pytest.mark.parametrize(
    ("computed", "decision"), [(10_000 + 7_500, "continuation"), (10_000 + 7_501, "return")]
)
def test_idle_blocks_last_until_the_rest_of_the_pool_and_half_of_them_were_computed_anew(computed, decision):
    """75,000 tokens are counted, so what is computed goes first into the 10,000 that are free, then takes
    the 15,000 of the session that has been idle for longest."""
    book = full_playbook().at(2, answers("a1"))
    book.at(3, calls_tool("b1", context=computed))
    if decision == "continuation":
        book.at(4, arrives("a2"), goes("a2", "continuation"))
    else:
        book.at(4, arrives("a2"), waits("a2"))


def test_cached_tokens_push_nothing_out():
    book = full_playbook().at(2, answers("a1"))
    book.at(3, calls_tool("b1", cached_tokens=14_000))
    book.at(4, arrives("a2"), goes("a2", "continuation"))


def test_a_rewritten_history_is_cold():
    book = full_playbook().at(2, answers("a1")).at(2, arrives("g1"), goes("g1"))
    book.at(3, arrives("a2", kind=TurnKind.CONDENSED), waits("a2"))


# -- what a family shares -------------------------------------------------------------------------


def test_what_a_family_shares_is_charged_once():
    """Of 15,000 tokens 10,000 are everybody's, so sixteen sessions fit where there were six."""
    book = Playbook().at(0, arrives("a1"), goes("a1")).at(0, answers("a1"))
    book.at(1, arrives("b1"), goes("b1")).at(1, answers("b1", cached_tokens=10_000))
    for name in "cdefghijklmnopqr":
        book.at(2, arrives(f"{name}1"), goes(f"{name}1"))
    book.at(2, arrives("s1"), waits("s1"))
    assert book.policy.reserved_tokens(2) == {"gpu": 10_000 + 16 * 5_000}


def test_what_one_family_shares_says_nothing_of_another():
    book = Playbook().at(0, arrives("a1"), goes("a1")).at(0, answers("a1", cached_tokens=10_000))
    for name in "cdefgh":
        book.at(2, arrives(f"{name}1", family="other"), goes(f"{name}1"))
    book.at(2, arrives("i1", family="other"), waits("i1"))


def test_what_is_shared_stays_charged_while_one_of_the_family_is_counted():
    book = Playbook().at(0, arrives("a1"), goes("a1")).at(0, answers("a1", cached_tokens=10_000))
    book.at(1, arrives("b1"), goes("b1")).at(1, arrives("c1"), goes("c1"))
    assert book.policy.reserved_tokens(1) == {"gpu": 20_000}
    book.at(2, answers("b1", cached_tokens=10_000))
    assert book.policy.reserved_tokens(2) == {"gpu": 15_000}
    book.at(3, answers("c1", cached_tokens=10_000))
    assert book.policy.reserved_tokens(3) == {"gpu": 0}


@pytest.mark.parametrize(
    ("kind", "decision"),
    [(TurnKind.CONTINUATION, "return"), (TurnKind.CONDENSED, "return"), (TurnKind.RETRY, "new")],
)
def test_what_a_session_finds_of_its_own_is_not_shared(kind, decision):
    """The proxy was started anew, or the turn is tried again: its own history is still in the cache."""
    book = Playbook().at(0, arrives("old9", kind=kind), goes("old9", decision))
    book.at(0, answers("old9", cached_tokens=14_000))
    for name in "bcdefg":
        book.at(1, arrives(f"{name}1"), goes(f"{name}1"))
    book.at(1, arrives("h1"), waits("h1"))
