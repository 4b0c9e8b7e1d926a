"""One engine, as the simulation drives it. Every step takes a second."""

from typing import Any

import pytest

from loadgen.arrivals import AsTraced
from loadgen.records import TurnRecord
from loadgen.sim.backend import PROGRESS_TOKENS, SimTurn
from loadgen.sim.server import Server
from loadgen.sim.settings import SimulationSettings
from loadgen.workload import Turn
from marsproxy.core.commands import ForwardTurn
from marsproxy.core.events import BackendObserved
from tests.loadgen.sim.playing import second_steps


def server(kv_tokens: int = 1_600, **settings: Any) -> Server:
    return Server("engine-0", SimulationSettings("fcfs", AsTraced(), **settings), second_steps(), kv_tokens)


def sim_turn(name: str, prompt: int, output: int) -> SimTurn:
    record = TurnRecord(name, 1, False, 0.0, 0.0)
    return SimTurn(f"t-{name}", name, None, 0, prompt, Turn(prompt, output), record)


def begin(engine: Server, turn: SimTurn, now: float = 0.0) -> None:
    engine.forward(turn, ForwardTurn(turn.id, engine.name, 0, "new"), now)
    engine.start(now)


def test_a_pool_is_whole_blocks() -> None:
    assert server(kv_tokens=1_615).kv_tokens == 1_600


def test_first_and_last_tokens_are_told_apart() -> None:
    engine, long, short = server(), sim_turn("long", 100, 3), sim_turn("short", 50, 1)
    begin(engine, long)
    assert engine.step_ends_s == 1.0
    assert engine.finish_step() == ([long], [])
    begin(engine, short, 1.0)
    assert engine.finish_step() == ([short], [short])
    engine.start(2.0)
    assert engine.finish_step() == ([], [long])
    assert not engine.has_work
    assert (long.server, short.server) == (engine, engine)


def test_a_reading_is_of_now_and_not_of_the_last_event() -> None:
    engine = server()
    begin(engine, sim_turn("a", 160, 400))
    engine.finish_step()
    engine.start(1.0)
    assert engine.step_ends_s == 400.0
    # 160 prompt tokens and 81 generated ones are in 16 blocks; the step in progress has its block.
    assert engine.reading(81.5) == BackendObserved(
        "engine-0", kv_tokens_total=1_600, kv_used_ratio=0.16, running=1, waiting=0, preemptions_total=0,
        prefix_queries_total=160, prefix_hits_total=0, takes_hints=True, kv_leased_tokens=0,
    )  # fmt: skip
    assert engine.step_ends_s == 400.0


def test_an_engine_with_a_host_tier_says_how_fast_it_is() -> None:
    assert server().reading(0.0).kv_swap_tokens_per_s is None
    assert server(host_kv_tokens=15).reading(0.0).kv_swap_tokens_per_s is None
    # 25e9 bytes a second, 98,304 bytes a token.
    assert server(host_kv_tokens=16).reading(0.0).kv_swap_tokens_per_s == pytest.approx(254_313, rel=1e-4)
    assert server(host_kv_tokens=16, takes_hints=False).reading(0.0).kv_swap_tokens_per_s is None


def test_progress_is_told_once_for_each_so_many_tokens() -> None:
    engine = server()
    begin(engine, sim_turn("a", 16, 1_000))
    engine.finish_step()
    engine.start(1.0)
    told = {
        now: [event.completion_tokens for event in engine.progress(now)]
        for now in (100.5, 300.5, 301.5, 556.5)
    }
    assert told == {100.5: [], 300.5: [300], 301.5: [], 556.5: [556]}
    assert PROGRESS_TOKENS == 256
