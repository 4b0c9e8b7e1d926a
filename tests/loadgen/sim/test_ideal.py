"""The yardstick of goodput: what a session takes that is alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_patch.step_time import HardwareProfile, ModelProfile, StepTime
from loadgen.arrivals import AsTraced
from loadgen.sim.ideal import ideal_session_s, ideal_turns_s, ideal_work_s, whole_blocks
from loadgen.sim.settings import SimulationSettings
from loadgen.sim.simulation import Simulation
from loadgen.workload import Session, Turn
from marsproxy.core.policies import policy_kind
from tests.loadgen.sim.playing import play, second_steps, session, tool

TALK = session(
    "a", Turn(20_000, 3, tool(2.5)), Turn(10, 4, think_s=30.0), Turn(5, 1, tool(9.0)), system_tokens=100
)


def test_a_session_takes_its_steps_tools_and_pauses() -> None:
    # 20,100 tokens are three chunks of 8,192; each answer's first token comes with the last of them.
    assert ideal_turns_s(TALK, second_steps()) == [5.0, 4.0, 1.0]
    # What would follow the last turn is not waited for; users' pauses are no work.
    assert ideal_session_s(TALK, second_steps()) == 10.0 + 2.5 + 30.0
    assert ideal_work_s(TALK, second_steps()) == 10.0 + 2.5


def test_smaller_steps_take_longer() -> None:
    assert ideal_session_s(TALK, second_steps(), chunk_tokens=2_048) == 42.5 + 7.0


def test_the_last_token_is_never_cached() -> None:
    assert [whole_blocks(tokens) for tokens in (1, 16, 17, 32, 33)] == [0, 0, 16, 16, 32]


def test_alone_it_takes_that_long() -> None:
    assert play([TALK], kv_tokens=32_000).sessions["a"].jct_s == ideal_session_s(TALK, second_steps())


@given(
    st.lists(st.tuples(st.integers(1, 20_000), st.integers(1, 400)), min_size=1, max_size=5),
    st.sampled_from([0, 300, 4_096]),
    st.sampled_from(["fcfs", "mars"]),
)
@settings(max_examples=40, deadline=None)
def test_alone_on_real_hardware_too(turns: list[tuple[int, int]], system_tokens: int, policy: str) -> None:
    step_time = StepTime(HardwareProfile.load("h100"), ModelProfile.load("qwen3-30b-a3b"))
    alone = Session(
        "a", [Turn(*turn, tool(0.5)) for turn in turns], arrival_s=1.0, system_tokens=system_tokens
    )
    chosen = SimulationSettings(policy, AsTraced(), kv_tokens=160_000)
    made = policy_kind(policy).make(chosen.policy_settings, chosen.backend_names)
    simulation = Simulation(chosen, [alone], made, step_time, 160_000)
    simulation.run()
    ideal_s = ideal_session_s(alone, step_time)
    # A step is 3 to 200 ms; what is left is the mid-point that stands for the contexts of a decode.
    assert simulation.records[0].jct_s == pytest.approx(ideal_s, rel=1e-6)
