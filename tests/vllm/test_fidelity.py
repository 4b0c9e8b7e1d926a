"""The simulator's engine against vLLM's own scheduler: the same sessions, the same instants, near figures.

A small version of docs/fidelity.md, whose bars these are: mean JCT within a tenth, hit ratio within 0.03,
preemptions within a tenth, or five.
"""

from dataclasses import replace
from typing import Any

import pytest

from loadgen.arrivals import OpenLoop
from loadgen.modifiers import Modifiers
from loadgen.sim.run import simulate
from loadgen.sim.settings import EngineKind, SimulationSettings
from loadgen.source import open_workload

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default"), pytest.mark.timeout(600)]

SESSIONS = 30
SHORT = Modifiers(max_turns=12)
"""So that it takes seconds; the pool is as much smaller."""
KV_TOKENS = 60_000
BELOW, BEYOND = 0.2, 2.0
"""Sessions a second: where all fit, and where stock thrashes."""


def played(engine: EngineKind, policy: str, rate_per_s: float) -> dict[str, Any]:
    workload = open_workload("autonomous", sessions=SESSIONS, seed=1, modifiers=SHORT)
    settings = SimulationSettings(policy, OpenLoop(rate_per_s), seed=1, kv_tokens=KV_TOKENS)
    return simulate(replace(settings, engine=engine), workload).summary


@pytest.mark.parametrize("rate_per_s", [BELOW, BEYOND])
@pytest.mark.parametrize("policy", ["fcfs", "mars"])
def test_the_model_is_near_the_real_scheduler(policy: str, rate_per_s: float) -> None:
    model, real = (played(engine, policy, rate_per_s) for engine in EngineKind)
    assert model["completed"] == real["completed"] == SESSIONS
    assert model["jct_s"]["mean"] == pytest.approx(real["jct_s"]["mean"], rel=0.10)
    assert model["prefix_hit_ratio"] == pytest.approx(real["prefix_hit_ratio"], abs=0.03)
    assert model["preemptions"] == pytest.approx(real["preemptions"], rel=0.10, abs=5)


def test_stock_thrashes_on_both_and_mars_on_neither() -> None:
    """What the bars above are about: without this they could hold because nothing ever happens."""
    for engine in EngineKind:
        stock, mars = played(engine, "fcfs", BEYOND), played(engine, "mars", BEYOND)
        assert stock["prefix_hit_ratio"] < 0.7 < mars["prefix_hit_ratio"]
        assert mars["jct_s"]["mean"] < stock["jct_s"]["mean"]
