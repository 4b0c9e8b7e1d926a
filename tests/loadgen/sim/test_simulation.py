"""Agents, policy and engines on one clock. Every step of the server takes a second."""

import pytest

from loadgen.arrivals import Arrivals, ClosedLoop, OpenLoop, arrival_times
from loadgen.sim.settings import TokenEstimate
from loadgen.sim.simulation import SimulationStuckError
from loadgen.workload import Turn
from marsproxy.core.commands import (
    ForwardTurn,
    HoldTurn,
    Reason,
    SetTimer,
)
from marsproxy.core.events import (
    BackendObserved,
    SessionEnded,
    TimerFired,
    ToolHostsObserved,
    ToolObserved,
    TurnArrived,
    TurnEnded,
    TurnFirstToken,
    TurnProgressed,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.settings import AdmissionSettings, PolicySettings, SessionSettings
from tests.loadgen.sim.playing import Scripted, go, play, session, tool

# -- turns ------------------------------------------------------------------------------------------


def test_a_turn_takes_a_step_for_each_token_of_its_answer() -> None:
    played = play([session("a", Turn(100, 3), at_s=2.0)])
    turn = played.turns["a", 1]
    assert (turn.due_s, turn.sent_s, turn.first_token_s, turn.last_token_s) == (2.0, 2.0, 3.0, 5.0)
    assert (turn.prompt_tokens, turn.cached_tokens, turn.output_tokens) == (100, 0, 3)
    assert (turn.held_s, turn.decision, turn.status, turn.error) == (0.0, "new", 200, None)
    record = played.sessions["a"]
    assert (record.arrival_s, record.end_s, record.jct_s) == (2.0, 5.0, 3.0)
    assert (record.turns_planned, record.turns_completed, record.is_completed) == (1, 1, True)
    assert played.end_s == 5.0


def test_an_arrival_joins_the_next_step() -> None:
    played = play([session("a", Turn(100, 4)), session("b", Turn(100, 1), at_s=1.5)])
    assert played.turns["b", 1].first_token_s == 3.0
    assert played.turns["a", 1].last_token_s == 4.0


def test_a_continuation_finds_the_whole_blocks_of_what_was_computed() -> None:
    played = play([session("a", Turn(100, 29, tool(2.5)), Turn(10, 1))])
    turn = played.turns["a", 2]
    # 29 tokens by 29.0, the tool until 31.5. Of 129 tokens the last was never computed: 8 blocks of 16.
    assert (turn.is_continuation, turn.sent_s, turn.first_token_s) == (True, 31.5, 32.5)
    assert (turn.prompt_tokens, turn.cached_tokens) == (139, 128)
    record = played.sessions["a"]
    assert (record.prompt_tokens, record.cached_tokens, record.output_tokens) == (239, 128, 30)


def test_a_shared_system_prompt_is_found_by_the_next_session() -> None:
    shared = {"system_tokens": 320, "system_id": "agents"}
    played = play([session("a", Turn(10, 1), **shared), session("b", Turn(10, 1), at_s=5, **shared)])
    assert [played.turns[name, 1].cached_tokens for name in "ab"] == [0, 320]
    assert [event.family for _, event in played.heard(TurnArrived)] == ["agents", "agents"]


def test_a_system_prompt_of_its_own_is_just_a_prompt() -> None:
    sessions = [
        session("a", Turn(10, 1), Turn(10, 1), system_tokens=320),
        session("b", Turn(10, 1), at_s=5, system_tokens=320),
        session("c", Turn(10, 1), at_s=9, system_id="empty"),
    ]
    played = play(sessions)
    assert [turn.cached_tokens for turn in played.turns.values()] == [0, 320, 0, 0]
    assert [event.family for _, event in played.heard(TurnArrived)] == ["", "", "", "empty"]


def test_a_users_pause_is_waited_for_with_nothing_told() -> None:
    played = play([session("a", Turn(10, 1, think_s=100.0), Turn(10, 1))])
    assert played.turns["a", 2].sent_s == 101.0
    ended = [event for _, event in played.heard(TurnEnded)]
    assert [(event.tool_calls, event.tool_signature) for event in ended] == [(0, None), (0, None)]
    assert [now for now, _, _ in played.log if 3.0 < now < 101.0] == []


def test_a_turn_without_tool_or_pause_is_followed_at_once() -> None:
    played = play([session("a", Turn(10, 1), Turn(10, 1, tool(3.0), think_s=4.0), Turn(10, 1))])
    assert [played.turns["a", n].sent_s for n in (1, 2, 3)] == [0.0, 1.0, 9.0]


def test_what_the_policy_hears_of_a_turn() -> None:
    played = play([session("a", Turn(40, 2, tool(1.0)), Turn(10, 2), tenant="t")])
    first, second = (event for _, event in played.heard(TurnArrived))
    assert (first.kind, first.turn, first.tenant) == (TurnKind.FIRST, 1, "t")
    assert (second.kind, second.turn, second.tenant) == (TurnKind.CONTINUATION, 2, "t")
    assert (first.prompt_tokens_estimate, second.prompt_tokens_estimate) == (40, 52)
    assert [now for now, _ in played.heard(TurnFirstToken)] == [1.0, 4.0]
    ended = played.heard(TurnEnded)
    assert [now for now, _ in ended] == [2.0, 5.0]
    assert [(event.prompt_tokens, event.cached_tokens) for _, event in ended] == [(40, 0), (52, 32)]
    assert [event.completion_tokens for _, event in ended] == [2, 2]
    assert [(event.tool_calls, event.tool_signature) for _, event in ended] == [(1, "bash"), (0, None)]
    assert played.heard(SessionEnded) == []
    assert played.heard(ToolObserved) == []
    assert played.heard(ToolHostsObserved) == []


def test_long_answers_are_reported_on_the_way() -> None:
    played = play([session("a", Turn(10, 600)), session("b", Turn(10, 30))])
    reports = [(now, event.completion_tokens) for now, event in played.heard(TurnProgressed)]
    # Once a second, before the step that ends in that instant is counted.
    assert reports == [(257.0, 256), (513.0, 512)]


# -- load -------------------------------------------------------------------------------------------


def test_traced_arrivals_may_be_in_any_order() -> None:
    arrivals = {"c": 9.0, "a": 0.0, "b": 4.0}
    played = play([session(name, Turn(10, 1), at_s=at_s) for name, at_s in arrivals.items()])
    ends = [(name, record.end_s) for name, record in played.sessions.items()]
    assert ends == [("a", 1.0), ("b", 5.0), ("c", 10.0)]


@pytest.mark.parametrize("process", Arrivals)
def test_an_open_loop_arrives_when_the_live_one_does(process: Arrivals) -> None:
    load, sessions = OpenLoop(0.5, process), [session(f"s{i}", Turn(10, 1)) for i in range(12)]
    played = play(sessions, load=load, seed=3)
    expected = arrival_times(load, sessions, 3)
    assert [played.sessions[s.id].arrival_s for s in sessions] == expected


def test_a_closed_loop_starts_the_next_session_when_one_ends() -> None:
    sessions = [session(name, Turn(10, output)) for name, output in {"a": 2, "b": 5, "c": 4, "d": 1}.items()]
    played = play(sessions, load=ClosedLoop(2))
    spans = {name: (record.arrival_s, record.end_s) for name, record in played.sessions.items()}
    assert spans == {"a": (0.0, 2.0), "b": (0.0, 5.0), "c": (2.0, 6.0), "d": (5.0, 6.0)}


def test_more_agents_than_sessions_are_no_fault() -> None:
    assert list(play([session("a", Turn(10, 1))], load=ClosedLoop(5)).sessions) == ["a"]


def test_backends_work_side_by_side() -> None:
    sessions = [session(name, Turn(8000, 3)) for name in "ab"]
    alone, beside = play(sessions, kv_tokens=32_000), play(sessions, kv_tokens=32_000, backends=2)
    # 8,000 tokens each: two do not fit one step of 8,192, and each has its own where there are two engines.
    assert [alone.turns[name, 1].first_token_s for name in "ab"] == [1.0, 2.0]
    assert [beside.turns[name, 1].first_token_s for name in "ab"] == [1.0, 1.0]
    assert sorted(command.backend for _, command in beside.ordered(ForwardTurn)) == ["engine-0", "engine-1"]


# -- refusals ---------------------------------------------------------------------------------------


def test_a_full_table_loses_the_session() -> None:
    tight = PolicySettings(sessions=SessionSettings(max_sessions=1))
    sessions = [session("a", Turn(10, 4)), session("b", Turn(10, 1), Turn(10, 1), at_s=1.0)]
    played = play(sessions, "mars", policy_settings=tight)
    record, turn = played.sessions["b"], played.turns["b", 1]
    assert (record.error, record.end_s, record.turns_completed) == ("table_full", None, 0)
    assert not record.is_completed
    assert (turn.error, turn.held_s, turn.first_token_s, turn.status) == ("table_full", 0.0, None, None)
    assert ("b", 2) not in played.turns
    assert played.sessions["a"].is_completed


def test_a_turn_held_too_long_loses_the_session_and_the_next_begins() -> None:
    impatient = PolicySettings(AdmissionSettings(max_hold_s=3.0))
    sessions = [session("a", Turn(12_000, 20)), session("b", Turn(12_000, 1)), session("c", Turn(10, 1))]
    played = play(sessions, "mars", ClosedLoop(2), policy_settings=impatient)
    assert (played.sessions["b"].error, played.turns["b", 1].held_s) == ("held_too_long", 3.0)
    assert played.sessions["c"].arrival_s == 3.0
    assert played.sessions["a"].is_completed


def test_held_turns_say_how_long() -> None:
    def answer(event, now):
        if isinstance(event, TurnArrived):
            return [HoldTurn(event.turn_id, Reason.KV_FULL, 1), SetTimer(now + 2.5)]
        return [ForwardTurn("t1", "engine-0", 0, "held")] if isinstance(event, TimerFired) else []

    turn = play([session("a", Turn(10, 1), at_s=1.0)], Scripted(answer)).turns["a", 1]
    assert (turn.sent_s, turn.held_s, turn.first_token_s) == (1.0, 2.5, 4.5)
    assert (turn.ttft_s, turn.decision) == (3.5, "held")


# -- timers -----------------------------------------------------------------------------------------


def test_a_later_timer_replaces_an_earlier_one() -> None:
    def answer(event, now):
        if isinstance(event, TurnArrived):
            return [SetTimer(2.25), go(event), SetTimer(7.25)]
        return [SetTimer(now + 1)] if isinstance(event, TimerFired) and now < 8 else []

    played = play([session("a", Turn(10, 10))], Scripted(answer))
    assert [now for now, _ in played.heard(TimerFired)] == [7.25, 8.25]


def holding_for_good(event, now):
    return [HoldTurn(event.turn_id, Reason.KV_FULL, 1)] if isinstance(event, TurnArrived) else []


def test_a_policy_that_holds_for_good_is_found_out() -> None:
    holding = Scripted(holding_for_good)
    with pytest.raises(SimulationStuckError, match="1 sessions are stuck"):
        play([session("a", Turn(10, 1))], holding)
    with pytest.raises(SimulationStuckError):
        play([session("a", Turn(10, 1))], holding, telemetry_delay_s=3.0)


def test_a_policy_that_stops_time_is_found_out() -> None:
    def answer(event, now):
        return [SetTimer(min(now, 3.5))] if isinstance(event, TurnArrived | TimerFired) else []

    with pytest.raises(SimulationStuckError, match=r"timer after timer at 0.000 s"):
        play([session("a", Turn(10, 1))], Scripted(answer))


def test_a_policy_may_change_its_mind_upon_a_reading() -> None:
    readings = []

    def answer(event, now):
        if isinstance(event, TurnArrived):
            return [HoldTurn(event.turn_id, Reason.KV_FULL, 1)]
        if isinstance(event, BackendObserved):
            readings.append(now)
            return [ForwardTurn("t1", "engine-0", 0, "late")] if len(readings) == 100 else []
        return []

    assert play([session("a", Turn(10, 1))], Scripted(answer)).turns["a", 1].held_s == 99.0


# -- what the policy is told of sizes ---------------------------------------------------------------


def test_estimates_from_bytes_are_off_by_a_factor_of_the_session() -> None:
    sessions = [session(f"s{i}", Turn(10_000, 1), Turn(1_999, 1)) for i in range(30)]
    arrivals = play(sessions, token_estimate=TokenEstimate.BYTES, seed=1).heard(TurnArrived)
    factors: dict[str, list[float]] = {}
    for _, event in arrivals:
        real = {1: 10_000, 2: 12_000}[event.turn]
        factors.setdefault(event.session_id, []).append(event.prompt_tokens_estimate / real)
    assert all(first == pytest.approx(second, rel=1e-3) for first, second in factors.values())
    ordered = sorted(first for first, _ in factors.values())
    assert 0.7 < ordered[15] < 0.9
    assert len(set(ordered)) == 30
