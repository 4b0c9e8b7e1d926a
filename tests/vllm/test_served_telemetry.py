"""What the engine says of itself: at once while a step runs, and the same by every way when it is idle."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from statistics import median, quantiles
from typing import Any

import pytest

from backend_patch.emulator.serve import EmulatedServer
from backend_patch.protocol import KvOp
from tests.vllm.emulated import OPTIONS
from tests.vllm.engine_client import Context, EngineClient
from tests.vllm.scenes import assert_conserved, others_pass, running

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

LONG_TOKENS = 50_000
LONG_STEPS = LONG_TOKENS / OPTIONS.max_num_batched_tokens


async def latencies(ask: Callable[[], Awaitable[Any]], until_done: asyncio.Task[Any]) -> list[float]:
    """Seconds, of one question after the other."""
    found = []
    while not until_done.done():
        asked_s = time.perf_counter()
        await ask()
        found.append(time.perf_counter() - asked_s)
        await asyncio.sleep(0.01)
    return found


async def test_headroom_does_not_wait_for_a_step(engine: EngineClient, chance: random.Random) -> None:
    """Beside a long prefill, whose steps take a third of a second and more. A call to the engine waits for
    them, two of them at most; its median is the measure."""
    async with asyncio.TaskGroup() as group:
        long_turn = group.create_task(engine.turn(Context("long", chance), LONG_TOKENS))
        await running(engine, 1)
        asked = group.create_task(latencies(engine.sessions, long_turn))
        read = group.create_task(latencies(engine.headroom, long_turn))
    step_s = long_turn.result().ttft_s / LONG_STEPS
    reads_s, calls_s = read.result(), asked.result()
    assert len(reads_s) > 5 * len(calls_s)
    assert quantiles(reads_s, n=100)[98] < median(calls_s) / 4, (reads_s, calls_s)
    assert median(calls_s) <= 2 * step_s
    # The last steps have the longest context, and take up to twice as long as the average.
    assert max(calls_s) <= 4 * step_s, (calls_s, step_s)


async def test_an_idle_engine_says_the_same_everywhere(engine: EngineClient, chance: random.Random) -> None:
    """The snapshot, the engine's own answer, and vLLM's metrics."""
    before = await engine.headroom()
    queries, hits = [await engine.metric(f"vllm:prefix_cache_{name}_total") for name in ("queries", "hits")]
    session = Context("session", chance)
    await engine.turn(session, 5_000, mars_ttl_ms=120_000)
    await others_pass(engine, chance)
    back = await engine.turn(session, 500, mars_ttl_ms=120_000)
    await engine.kv("session", KvOp.RELEASE)
    await engine.kv("session", KvOp.PIN, ttl_ms=120_000)
    after = await assert_conserved(engine)
    assert (after.running, after.waiting, after.waiting_prefill_tokens) == (0, 0, 0)
    assert (after.pinned_total - before.pinned_total, after.resumed_total - before.resumed_total) == (3, 1)
    [leased] = [state.leased_blocks for state in await engine.sessions() if state.leased_blocks]
    assert after.leased_blocks == leased
    new_queries = await engine.metric("vllm:prefix_cache_queries_total") - queries
    new_hits = await engine.metric("vllm:prefix_cache_hits_total") - hits
    assert after.prefix_queries_total - before.prefix_queries_total == new_queries
    assert after.prefix_hits_total - before.prefix_hits_total == new_hits == back.cached_tokens
    assert after.preemptions_total == await engine.metric("vllm:num_preemptions_total")
    assert after.block_tokens * after.blocks == OPTIONS.kv_tokens


async def test_the_engine_is_asynchronous_with_and_without_the_patch(
    engine: EngineClient, patched: EmulatedServer, stock: EmulatedServer, stock_engine: EngineClient
) -> None:
    """A plain ``Scheduler`` in the place of an ``AsyncScheduler`` would compute the same, only slower."""
    chance = random.Random(0)
    for each in (engine, stock_engine):
        await each.turn(Context("any", chance), 1_000, output_tokens=200)
    for server in (patched, stock):
        report = server.report()
        assert report is not None
        assert report.async_scheduling
        assert report.late_steps < report.steps / 2  # of a synchronous engine all are
    capabilities = await engine.capabilities()
    assert capabilities.async_scheduling
    assert capabilities.passthrough is None
    assert capabilities.hooks
    assert all(hook.fits or hook.is_optional for hook in capabilities.hooks)
