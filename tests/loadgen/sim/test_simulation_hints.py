"""What engines are advised, what they answer, and what comes of it."""

from dataclasses import replace

import pytest

from loadgen.workload import Turn
from marsproxy.core.commands import (
    HintKv,
    KvAction,
    KvLease,
    Reprioritise,
    SetTimer,
    YieldsTo,
)
from marsproxy.core.events import (
    BackendObserved,
    HintAnswered,
    KvReclaimed,
    LeaseExpired,
    LeaseResumed,
    TimerFired,
    TurnArrived,
    TurnEnded,
    TurnFirstToken,
)
from tests.loadgen.sim.playing import Played, Scripted, go, play, session, tool

KEPT_TOKENS = 1_000 // 16 * 16
"""Of the context that is waited with: 1,001 tokens, of which the last is not computed."""


def hinting(*hints: HintKv):
    """Gives its hints at the end of the first turn of session a."""

    def answer(event, now):
        return list(hints) if isinstance(event, TurnEnded) and event.turn_id == "t1" else None

    return Scripted(answer)


def keep(ttl_s: float | None = 100.0, yields_to: YieldsTo = YieldsTo.NOBODY) -> HintKv:
    return HintKv("a", "engine-0", KvAction.KEEP, ttl_s, yields_to)


PAUSED = session("a", Turn(1_000, 1, tool(20.0)), Turn(10, 1))


def squeezed(policy, **settings) -> Played:
    """While a's tool runs, b computes a prompt that leaves no room for idle blocks."""
    return play([PAUSED, session("b", Turn(1_590, 1), at_s=5.0)], policy, kv_tokens=1_600, **settings)


def test_without_a_hint_idle_blocks_are_taken() -> None:
    assert squeezed("fcfs").turns["a", 2].cached_tokens == 0


def test_a_lease_is_kept_until_it_ends_or_nothing_else_runs() -> None:
    sessions = [
        PAUSED,
        session("long", Turn(100, 12), at_s=4.0),
        session("b", Turn(1_400, 1), at_s=5.0),
    ]  # fmt: skip
    kept, free = (play(sessions, policy, kv_tokens=1_600) for policy in (hinting(keep()), "fcfs"))
    # Of 100 blocks long has 7 and b 88; 5 are left of a.
    assert (free.turns["a", 2].cached_tokens, free.turns["b", 1].first_token_s) == (80, 6.0)
    # b waits for the long answer (12 steps from 4.0); then nothing runs and the lease gives way.
    assert kept.turns["b", 1].first_token_s == 17.0


def test_a_hint_is_answered_and_leases_are_read() -> None:
    played = play([PAUSED, session("b", Turn(10, 3), at_s=5.0)], hinting(keep()))
    assert played.heard(HintAnswered) == [(1.0, HintAnswered("a", "engine-0", KEPT_TOKENS))]
    leased = {now: event.kv_leased_tokens for now, event in played.heard(BackendObserved)}
    assert (leased[0.0], leased[5.0], leased[22.0]) == (0, KEPT_TOKENS, 0)
    assert played.turns["a", 2].cached_tokens == KEPT_TOKENS


def test_leases_that_others_took_are_told() -> None:
    played = squeezed(hinting(keep()))
    [(now, event)] = played.heard(KvReclaimed)
    assert (now, event.session_id, event.backend) == (6.0, "a", "engine-0")
    assert event.tokens == KEPT_TOKENS


def asking(lease: KvLease | None):
    """Every turn asks for this."""

    def answer(event, now):
        return [replace(go(event), lease=lease)] if isinstance(event, TurnArrived) else None

    return Scripted(answer)


def test_a_lease_that_came_with_a_turn_lasts_until_the_next_one_is_scheduled() -> None:
    played = play([PAUSED], asking(KvLease(100.0, YieldsTo.RETURNING)))
    resumed = LeaseResumed("a", "engine-0", leased_tokens=KEPT_TOKENS, hit_tokens=KEPT_TOKENS)
    assert played.heard(LeaseResumed) == [(22.0, resumed)]
    assert played.turns["a", 2].cached_tokens == KEPT_TOKENS


def test_one_that_runs_out_is_told_with_the_next_step_or_reading() -> None:
    sessions = [PAUSED, session("b", Turn(10, 10), at_s=5.0)]
    played = play(sessions, asking(KvLease(6.5, YieldsTo.RETURNING)))
    [(now, event)] = [each for each in played.heard(LeaseExpired) if each[1].session_id == "a"]
    assert (now, event.tokens) == (9.0, KEPT_TOKENS)


def test_a_stock_engine_passes_it_over() -> None:
    played = squeezed(asking(KvLease(100.0, YieldsTo.NOBODY)), takes_hints=False)
    assert (played.heard(LeaseResumed), played.turns["a", 2].cached_tokens) == ([], 0)


def test_a_hint_about_nothing_is_answered_with_nothing_kept() -> None:
    played = play([PAUSED], hinting(HintKv("ghost", "engine-0", KvAction.KEEP, 10.0)))
    assert played.heard(HintAnswered) == [(1.0, HintAnswered("ghost", "engine-0", 0))]


def test_a_lease_that_begins_with_the_end_of_a_turn_has_no_size_yet() -> None:
    def answer(event, now):
        return [keep()] if isinstance(event, TurnFirstToken) and event.turn_id == "t1" else None

    played = play([session("a", Turn(100, 3))], Scripted(answer))
    assert played.heard(HintAnswered) == [(1.0, HintAnswered("a", "engine-0", None))]


def test_blocks_are_released_and_demoted_without_an_answer() -> None:
    for action in (KvAction.RELEASE, KvAction.DEMOTE):
        played = play([PAUSED], hinting(keep(), HintKv("a", "engine-0", action)))
        assert len(played.heard(HintAnswered)) == 1
        assert played.simulation is not None
        assert played.simulation.servers["engine-0"].store.leased_tokens == 0


def test_blocks_are_swapped_out_where_there_is_room() -> None:
    swap = hinting(HintKv("a", "engine-0", KvAction.SWAP_OUT))
    played = squeezed(swap, host_kv_tokens=4_000)
    assert played.heard(HintAnswered) == [(1.0, HintAnswered("a", "engine-0", KEPT_TOKENS))]
    assert played.turns["a", 2].cached_tokens == KEPT_TOKENS
    speed = played.heard(BackendObserved)[0][1].kv_swap_tokens_per_s
    # 25e9 bytes a second; qwen3-30b-a3b has 2 * 48 layers * 4 heads * 128 * 2 bytes of KV a token.
    assert speed == pytest.approx(25e9 / 98_304)
    without = squeezed(hinting(HintKv("a", "engine-0", KvAction.SWAP_OUT)))
    assert without.heard(HintAnswered) == [(1.0, HintAnswered("a", "engine-0", 0))]
    assert without.heard(BackendObserved)[0][1].kv_swap_tokens_per_s is None


def test_a_stock_engine_takes_no_hints_and_answers_none() -> None:
    played = squeezed(hinting(keep()), takes_hints=False, host_kv_tokens=4_000)
    assert played.heard(HintAnswered) == []
    assert played.turns["a", 2].cached_tokens == 0
    reading = played.heard(BackendObserved)[0][1]
    assert not reading.takes_hints
    assert (reading.kv_leased_tokens, reading.kv_swap_tokens_per_s) == (None, None)


def test_an_answer_never_comes_between_two_orders() -> None:
    """The timer of the answer to a hint is later than the one that was ordered with the hint."""

    def answer(event, now):
        if isinstance(event, TurnEnded) and event.turn_id == "t1":
            return [keep(), SetTimer(9.0)]
        return [SetTimer(5.5)] if isinstance(event, HintAnswered) else None

    played = play([PAUSED], Scripted(answer))
    assert [now for now, _ in played.heard(TimerFired)] == [5.5]


@pytest.mark.parametrize(("takes_hints", "first"), [(True, "c"), (False, "b")])
def test_a_turn_that_waits_in_the_engine_is_reprioritised(takes_hints: bool, first: str) -> None:
    def answer(event, now):
        if not isinstance(event, TurnArrived):
            return []
        hurry = [Reprioritise(event.turn_id, 1)] if event.session_id == "c" else []
        return [go(event, priority=5), *hurry]

    sessions = [session("a", Turn(1_000, 4)), *(session(n, Turn(1_000, 1), at_s=1.5) for n in "bc")]
    played = play(sessions, Scripted(answer), kv_tokens=1_600, engine_of="priority", takes_hints=takes_hints)
    assert min("bc", key=lambda name: played.turns[name, 1].first_token_s or 0) == first
