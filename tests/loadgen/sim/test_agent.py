"""A session on its way through its turns."""

from random import Random

import pytest

from loadgen.records import TurnRecord
from loadgen.sim.agent import Agent, tokens_off
from loadgen.sim.settings import TokenEstimate
from loadgen.workload import Session, Turn


def test_the_context_is_the_last_prompt_and_its_answer() -> None:
    agent = Agent(Session("a", [Turn(10, 5), Turn(7, 1)], system_tokens=100, tenant="t"), 3.0)
    assert (agent.context_tokens, agent.record.arrival_s, agent.record.tenant) == (100, 3.0, "t")
    agent.next_turn = 1
    agent.count(TurnRecord("a", 1, False, 3.0, 3.0, prompt_tokens=110, cached_tokens=96, output_tokens=5))
    assert (agent.context_tokens, agent.is_done) == (115, False)
    record = agent.record
    assert (record.turns_completed, record.prompt_tokens, record.cached_tokens, record.output_tokens) == (
        1,
        110,
        96,
        5,
    )
    agent.next_turn = 2
    assert agent.is_done


def test_estimates_are_exact_unless_they_come_from_bytes() -> None:
    assert tokens_off(TokenEstimate.EXACT, Random(1)) == 1.0
    drawn = sorted(tokens_off(TokenEstimate.BYTES, Random(seed)) for seed in range(400))
    assert drawn[200] == pytest.approx(0.8, rel=0.05)
    # A sigma of 0.2: two thirds within a fifth of the median.
    assert drawn[336] / drawn[64] == pytest.approx(1.49, rel=0.1)
