"""Agents, policy, engines and tools on one clock. Every step of the server takes a second."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.arrivals import Arrivals, AsTraced, ClosedLoop, Load, OpenLoop, arrival_times
from loadgen.sim.settings import TokenEstimate
from loadgen.sim.simulation import SimulationStuckError
from loadgen.sim.tool_hosts import Discipline, ToolHostShape
from loadgen.workload import Session, ToolCall, Turn
from marsproxy.core.commands import (
    ForwardTurn,
    HintKv,
    HoldTurn,
    KvAction,
    Reason,
    RejectTurn,
    Reprioritise,
    SetTimer,
    YieldsTo,
)
from marsproxy.core.events import (
    BackendObserved,
    HintAnswered,
    KvReclaimed,
    SessionEnded,
    TimerFired,
    ToolHostsObserved,
    ToolObserved,
    ToolPhase,
    TurnArrived,
    TurnEnded,
    TurnFirstToken,
    TurnProgressed,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.policies import POLICIES
from marsproxy.core.settings import AdmissionSettings, PolicySettings, SessionSettings
from tests.loadgen.sim.playing import Played, Scripted, go, play, session, tool

KEPT_TOKENS = 1_000 // 16 * 16

# -- turns ----------------------------------------------------------------------------------------


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
    assert (first.kind, first.turn, first.tenant, first.prompt_tokens_estimate) == (
        TurnKind.FIRST,
        1,
        "t",
        40,
    )
    assert (second.kind, second.turn, second.prompt_tokens_estimate) == (TurnKind.CONTINUATION, 2, 52)
    assert [now for now, _ in played.heard(TurnFirstToken)] == [1.0, 4.0]
    ended = played.heard(TurnEnded)
    assert [now for now, _ in ended] == [2.0, 5.0]
    assert (ended[0][1].completion_tokens, ended[0][1].tool_calls, ended[0][1].tool_signature) == (
        2,
        1,
        "bash",
    )
    assert (ended[1][1].prompt_tokens, ended[1][1].cached_tokens, ended[1][1].tool_calls) == (52, 32, 0)
    assert played.heard(SessionEnded) == []
    assert played.heard(ToolObserved) == []
    assert played.heard(ToolHostsObserved) == []


def test_long_answers_are_reported_on_the_way() -> None:
    played = play([session("a", Turn(10, 600)), session("b", Turn(10, 30))])
    reports = [(now, event.completion_tokens) for now, event in played.heard(TurnProgressed)]
    # Once a second, before the step that ends in that instant is counted.
    assert reports == [(257.0, 256), (513.0, 512)]


# -- load -----------------------------------------------------------------------------------------


def test_traced_arrivals_may_be_in_any_order() -> None:
    played = play(
        [session(name, Turn(10, 1), at_s=at_s) for name, at_s in {"c": 9.0, "a": 0.0, "b": 4.0}.items()]
    )
    assert list(played.sessions) == ["a", "b", "c"]
    assert {name: record.end_s for name, record in played.sessions.items()} == {"a": 1.0, "b": 5.0, "c": 10.0}


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
    alone, beside = play(sessions), play(sessions, backends=2)
    # 8,000 tokens each: two do not fit one step of 8,192, and each has its own where there are two engines.
    assert [alone.turns[name, 1].first_token_s for name in "ab"] == [1.0, 2.0]
    assert [beside.turns[name, 1].first_token_s for name in "ab"] == [1.0, 1.0]
    assert sorted(command.backend for _, command in beside.ordered(ForwardTurn)) == ["engine-0", "engine-1"]


# -- tools ----------------------------------------------------------------------------------------

TWO_TOOLS = [session(name, Turn(10, 1, tool(4.0)), Turn(10, 1)) for name in "ab"]


def test_tools_wait_for_a_slot() -> None:
    played = play(TWO_TOOLS, tools=ToolHostShape(1.0))
    first, second = played.turns["a", 1], played.turns["b", 1]
    assert (first.tool, first.tool_queue_s, first.tool_run_s) == ("bash", 0.0, 4.0)
    assert (second.tool_start_s, second.tool_queue_s, second.tool_run_s, second.tool_end_s) == (
        1.0,
        4.0,
        4.0,
        9.0,
    )
    reports = [
        (now, event.exec_id, event.phase.value, event.queue_s, event.run_s)
        for now, event in played.heard(ToolObserved)
    ]
    assert reports == [
        (1.0, "a/1", "queued", None, None),
        (1.0, "a/1", "started", 0.0, None),
        (1.0, "b/1", "queued", None, None),
        (5.0, "a/1", "finished", 0.0, 4.0),
        (5.0, "b/1", "started", 4.0, None),
        (9.0, "b/1", "finished", 4.0, 4.0),
    ]
    observed = played.heard(ToolObserved)[-1][1]
    assert (observed.llm_session, observed.tool_signature, observed.memory_peak_mb) == ("b", "bash", 0.0)
    assert [played.turns[name, 2].sent_s for name in "ab"] == [5.0, 9.0]


def test_tools_share_a_core() -> None:
    played = play(TWO_TOOLS, tools=ToolHostShape(1.0, discipline=Discipline.SHARING))
    assert [(turn.tool_queue_s, turn.tool_run_s) for turn in (played.turns[name, 1] for name in "ab")] == [
        (0.0, 8.0)
    ] * 2


def test_tools_that_are_on_no_host_are_not_reported() -> None:
    asks = [session("a", Turn(10, 1, tool(4.0, cores=0.0)), Turn(10, 1, tool(1.0)), Turn(10, 1))]
    played = play(asks, tools=ToolHostShape(1.0))
    assert {event.exec_id for _, event in played.heard(ToolObserved)} == {"a/2"}
    assert (played.turns["a", 1].tool, played.turns["a", 1].tool_run_s) == ("bash", 4.0)
    assert all(event.cores == 1.0 for _, event in played.heard(ToolHostsObserved))


def test_a_tool_after_the_last_turn_is_nobodys_wait() -> None:
    played = play([session("a", Turn(10, 1, tool(50.0)))], tools=ToolHostShape(1.0))
    assert played.end_s == 1.0
    assert played.turns["a", 1].tool is None


def test_a_tool_that_takes_no_time_ends_in_its_instant() -> None:
    played = play([session("a", Turn(10, 1, tool(0.0)), Turn(10, 1))], tools=ToolHostShape(1.0))
    assert [event.phase for _, event in played.heard(ToolObserved)] == list(ToolPhase)
    assert played.turns["a", 2].sent_s == 1.0


# -- refusals -------------------------------------------------------------------------------------


def test_a_full_table_loses_the_session() -> None:
    tight = PolicySettings(sessions=SessionSettings(max_sessions=1))
    sessions = [session("a", Turn(10, 4)), session("b", Turn(10, 1), Turn(10, 1), at_s=1.0)]
    played = play(sessions, "mars", policy_settings=tight)
    record, turn = played.sessions["b"], played.turns["b", 1]
    assert (record.error, record.end_s, record.turns_completed, record.is_completed) == (
        "table_full",
        None,
        0,
        False,
    )
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
    assert (turn.sent_s, turn.held_s, turn.first_token_s, turn.ttft_s, turn.decision) == (
        1.0,
        2.5,
        4.5,
        3.5,
        "held",
    )


# -- timers ---------------------------------------------------------------------------------------


def test_a_later_timer_replaces_an_earlier_one() -> None:
    def answer(event, now):
        if isinstance(event, TurnArrived):
            return [SetTimer(2.25), go(event), SetTimer(7.25)]
        return [SetTimer(now + 1)] if isinstance(event, TimerFired) and now < 8 else []

    played = play([session("a", Turn(10, 10))], Scripted(answer))
    assert [now for now, _ in played.heard(TimerFired)] == [7.25, 8.25]


def test_a_policy_that_holds_for_good_is_found_out() -> None:
    holding = Scripted(
        lambda event, now: (
            [HoldTurn(event.turn_id, Reason.KV_FULL, 1)] if isinstance(event, TurnArrived) else []
        )
    )
    with pytest.raises(SimulationStuckError, match="1 sessions are stuck"):
        play([session("a", Turn(10, 1))], holding)
    with pytest.raises(SimulationStuckError):
        play([session("a", Turn(10, 1))], holding, telemetry_delay_s=3.0)


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


# -- hints ----------------------------------------------------------------------------------------


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
    assert (free.turns["a", 2].cached_tokens, free.turns["b", 1].first_token_s) == (0, 6.0)
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
    assert (reading.takes_hints, reading.kv_leased_tokens, reading.kv_swap_tokens_per_s) == (
        False,
        None,
        None,
    )


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
        if isinstance(event, TurnArrived):
            return [
                go(event, priority=5),
                *([Reprioritise(event.turn_id, 1)] if event.session_id == "c" else []),
            ]
        return []

    sessions = [session("a", Turn(1_000, 4)), *(session(n, Turn(1_000, 1), at_s=1.5) for n in "bc")]
    played = play(sessions, Scripted(answer), kv_tokens=1_600, engine_of="priority", takes_hints=takes_hints)
    assert min("bc", key=lambda name: played.turns[name, 1].first_token_s or 0) == first


# -- what the policy is told of sizes -------------------------------------------------------------


def test_estimates_from_bytes_are_off_by_a_factor_of_the_session() -> None:
    sessions = [session(f"s{i}", Turn(10_000, 1), Turn(1_999, 1)) for i in range(30)]
    arrivals = play(sessions, token_estimate=TokenEstimate.BYTES, seed=1).heard(TurnArrived)
    factors: dict[str, list[float]] = {}
    for _, event in arrivals:
        factors.setdefault(event.session_id, []).append(
            event.prompt_tokens_estimate / (10_000 if event.turn == 1 else 12_000)
        )
    assert all(first == pytest.approx(second, rel=1e-3) for first, second in factors.values())
    ordered = sorted(first for first, _ in factors.values())
    assert 0.7 < ordered[15] < 0.9
    assert len(set(ordered)) == 30


# -- properties -----------------------------------------------------------------------------------

tools = st.none() | st.builds(
    ToolCall, st.sampled_from(["bash", "edit"]), st.sampled_from([0.0, 0.5, 3.0, 40.0]),
    st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 100.0, 900.0]),
)  # fmt: skip
turns = st.builds(
    Turn, st.integers(1, 900), st.integers(1, 12), tools, st.sampled_from([None, None, 2.0, 150.0])
)


@st.composite
def workloads(draw: st.DrawFn) -> list[Session]:
    count = draw(st.integers(1, 7))
    return [
        Session(
            f"s{i}",
            draw(st.lists(turns, min_size=1, max_size=4)),
            arrival_s=draw(st.sampled_from([0.0, 0.5, 3.0, 20.0])),
            **draw(st.sampled_from([{}, {"system_tokens": 200, "system_id": "shared"}])),
        )
        for i in range(count)
    ]


loads = st.sampled_from([AsTraced(), ClosedLoop(1), ClosedLoop(3), OpenLoop(0.3)])
hosts = st.sampled_from(
    [None, ToolHostShape(1.0, 1000.0), ToolHostShape(2.0, 500.0, Discipline.SHARING, hosts=2)]
)


@pytest.mark.parametrize("policy", sorted(POLICIES))
@given(sessions=workloads(), load=loads, shape=hosts, backends=st.integers(1, 2))
@settings(max_examples=12, deadline=None)
def test_nothing_is_lost_or_made_up(
    policy: str, sessions: list[Session], load: Load, shape: ToolHostShape | None, backends: int
) -> None:
    played = play(
        sessions, policy, load, kv_tokens=5_600, tools=shape, backends=backends, host_kv_tokens=2_000
    )
    assert set(played.sessions) == {session.id for session in sessions}
    for planned in sessions:
        check_session(planned, played)
    verdicts = played.ordered(ForwardTurn)
    assert len(verdicts) == len(played.turns) == len({command.turn_id for _, command in verdicts})
    assert played.ordered(RejectTurn) == []
    assert played.simulation is not None
    for server in played.simulation.servers.values():
        assert server.store.used_blocks == 0
        totals = server.engine.scheduler.totals
        assert totals.aborted == 0
    answered = sum(s.engine.scheduler.totals.generation_tokens for s in played.simulation.servers.values())
    assert answered == sum(turn.output_tokens or 0 for turn in played.turns.values())
    times = [now for now, _, _ in played.log]
    assert times == sorted(times)


def check_session(planned: Session, played: Played) -> None:
    record = played.sessions[planned.id]
    done = [played.turns[planned.id, number] for number in range(1, len(planned.turns) + 1)]
    assert record.is_completed
    assert record.turns_completed == record.turns_planned == len(planned.turns)
    assert record.output_tokens == sum(turn.output_tokens for turn in planned.turns)
    context, free_s = planned.system_tokens, record.arrival_s
    for turn, after in zip(planned.turns, done, strict=True):
        context += turn.new_tokens
        assert (after.prompt_tokens, after.output_tokens) == (context, turn.output_tokens)
        context += turn.output_tokens
        assert 0 <= (after.cached_tokens or 0) < context
        assert after.sent_s >= free_s
        assert after.first_token_s is not None
        assert after.last_token_s is not None
        assert after.sent_s + (after.held_s or 0) < after.first_token_s <= after.last_token_s
        free_s = after.last_token_s + (turn.think_s or 0) + (turn.tool.duration_s if turn.tool else 0)
        free_s -= 1e-6  # sums of floats
    assert record.end_s == done[-1].last_token_s


@pytest.mark.parametrize("policy", ["mars", "thunderagent", "infercept"])
def test_the_same_seed_gives_the_same_bytes(policy: str) -> None:
    def bytes_of(seed: int) -> bytes:
        sessions = [
            session(f"s{i}", *(Turn(200 + 37 * i, 5, tool(1.0 + i, memory_mb=300.0)) for _ in range(4)))
            for i in range(8)
        ]
        played = play(
            sessions, policy, OpenLoop(0.2), kv_tokens=4_800, seed=seed,
            tools=ToolHostShape(2.0, 800.0), token_estimate=TokenEstimate.BYTES,
        )  # fmt: skip
        log = [[now, repr(event), repr(commands)] for now, event, commands in played.log]
        return msgspec.json.encode([list(played.turns.values()), list(played.sessions.values()), log])

    assert bytes_of(1) == bytes_of(1)
    assert bytes_of(1) != bytes_of(2)
