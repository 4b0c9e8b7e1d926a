"""vLLM's scheduler on a virtual clock: EngineCore's loop around it, hits, and that runs repeat."""

import pytest

from backend_patch.virtual_engine import (
    EngineShape,
    EngineTurn,
    TurnUpdate,
    VirtualEngine,
    open_virtual_engine,
)

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

Ended = dict[str, tuple[float, TurnUpdate]]


def second_steps(items: object) -> float:
    return 1.0


def engine(kv_blocks: int = 1000, *, is_async: bool = True, **shape: int) -> VirtualEngine:
    return open_virtual_engine(EngineShape(kv_blocks, is_async=is_async, **shape), second_steps)


def play(one: VirtualEngine, arrivals: list[tuple[float, EngineTurn]]) -> Ended:
    """To the end; when each turn ended, and its last update."""
    pending, ended, now = sorted(arrivals, key=lambda each: each[0]), {}, 0.0
    while pending or one.step_ends_s is not None:
        due = [at_s for at_s in (one.step_ends_s, pending[0][0] if pending else None) if at_s is not None]
        now = max(now, min(due))
        if one.step_ends_s is not None and one.step_ends_s <= now:
            ended |= {update.id: (now, update) for update in one.finish_step() if update.is_over}
        while pending and pending[0][0] <= now:
            one.add(pending.pop(0)[1], now)
        one.start(now)
    assert not one.has_work
    return ended


def test_a_turn_alone_takes_its_steps() -> None:
    """A prompt of two chunks and an answer of three tokens: the last chunk yields the first of them."""
    one = engine(max_batched_tokens=64, max_running=4)
    at_s, update = play(one, [(0.0, EngineTurn("a", "s", 100, 3))])["a"]
    assert at_s == pytest.approx(4.0)
    assert update == TurnUpdate("a", 3, 0, is_over=True)
    assert one.meters().steps == 4
    assert one.meters().used_blocks == 0


@pytest.mark.parametrize(("is_async", "second_ends_s"), [(True, 4.0), (False, 3.0)])
def test_with_two_steps_in_flight_an_arrival_waits_for_one_more(is_async: bool, second_ends_s: float) -> None:
    """It comes during the first step, when the second one is scheduled already, or is not."""
    arrivals = [(0.0, EngineTurn("a", "s", 100, 9)), (0.5, EngineTurn("b", "z", 100, 2))]
    ended = play(engine(is_async=is_async), arrivals)
    assert ended["a"][0] == pytest.approx(9.0)
    assert ended["b"][0] == pytest.approx(second_ends_s)


def test_a_turn_finds_what_its_session_and_its_system_prompt_left() -> None:
    """Full blocks of 16, answers included; not the block of the last prompt token."""
    arrivals = [
        (0.0, EngineTurn("a", "s", 100, 30, "sys", 50)),
        (100.0, EngineTurn("b", "s", 200, 1, "sys", 50)),
        (200.0, EngineTurn("c", "z", 200, 1, "sys", 50)),
    ]
    one = engine()
    ended = play(one, arrivals)
    assert {name: update.cached_tokens for name, (_at_s, update) in ended.items()} == {
        "a": 0,
        "b": 128,  # its 130 tokens but the last, which was never computed
        "c": 48,
    }
    assert (one.meters().prefix_queries, one.meters().prefix_hits) == (500, 176)


@pytest.mark.parametrize("is_async", [True, False])
def test_who_is_preempted_ends_all_the_same(is_async: bool) -> None:
    arrivals = [(0.0, EngineTurn(f"t{i}", f"s{i}", 60, 200)) for i in range(6)]
    one = engine(60, is_async=is_async)
    ended = play(one, arrivals)
    assert {update.generated_tokens for _at_s, update in ended.values()} == {200}
    assert one.meters().preemptions > 0
    assert one.meters().used_blocks == 0


def test_runs_repeat() -> None:
    arrivals = [(i * 1.7, EngineTurn(f"t{i}", f"s{i % 5}", 60 + 90 * (i // 5), 90)) for i in range(25)]
    assert play(engine(120), arrivals) == play(engine(120), arrivals)
