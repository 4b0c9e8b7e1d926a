"""Random small workloads under every policy: nothing is lost or made up, and a run can be repeated."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.arrivals import AsTraced, ClosedLoop, Load, OpenLoop
from loadgen.sim.settings import TokenEstimate
from loadgen.sim.tool_hosts import Discipline, ToolHostShape
from loadgen.workload import Session, ToolCall, Turn
from marsproxy.core.commands import (
    ForwardTurn,
    RejectTurn,
)
from marsproxy.core.policies import POLICIES
from tests.loadgen.sim.playing import Played, play, session, tool

pytestmark = pytest.mark.slow

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
