"""Who runs first, and who may break a lease: the scheduler's rules, seen from outside.

Where times are compared it is one modelled time with another, in one run, so this machine's speed is not
in the ratio.
"""

import asyncio
import random
from statistics import median

import pytest

from backend_patch.protocol import Ending, KvOp, LeaseMode
from tests.vllm.engine_client import Context, EngineClient, Turn
from tests.vllm.scenes import (
    assert_conserved,
    endings,
    idle,
    is_so,
    return_behind_a_long_prefill,
    until,
    whole_blocks,
)

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

REPEATS = 3
LONG_TOKENS = 50_000
A_WHILE_STEPS = 50
"""A third of a second of decoding."""
TTL_MS = 120_000


async def test_a_continuation_does_not_wait_for_a_long_prefill(
    engine: EngineClient, stock_engine: EngineClient, chance: random.Random
) -> None:
    """At least twice as soon as in stock vLLM, and the long prefill is not much later for it."""
    back_s: dict[str, list[float]] = {"stock": [], "patched": []}
    long_s: dict[str, list[float]] = {"stock": [], "patched": []}
    for _ in range(REPEATS):
        both = [return_behind_a_long_prefill(each, chance, LONG_TOKENS) for each in (stock_engine, engine)]
        for name, (back, long_turn) in zip(back_s, await asyncio.gather(*both), strict=True):
            assert back.cached_tokens >= 0.95 * 6_000
            back_s[name].append(back.ttft_s)
            long_s[name].append(long_turn.ttft_s)
    assert median(back_s["stock"]) >= 2 * median(back_s["patched"]), (back_s, long_s)
    assert median(long_s["patched"]) <= 1.15 * median(long_s["stock"]), (back_s, long_s)


async def lease_over_half(engine: EngineClient, chance: random.Random, mode: LeaseMode) -> None:
    for number in range(3):
        holder = Context(f"holder-{number}", chance)
        await engine.turn(holder, 15_000, mars_ttl_ms=TTL_MS, mars_mode=mode.value)


async def large_beside_busy(
    engine: EngineClient, chance: random.Random, group: asyncio.TaskGroup
) -> tuple[asyncio.Task[Turn], asyncio.Task[Turn]]:
    """A new session that needs leased blocks arrives, while a small one runs and goes on."""
    busy = group.create_task(engine.turn(Context("busy", chance), 100, output_tokens=4_000))
    await until(lambda: is_so(engine, lambda now: now.running == 1))
    large = group.create_task(engine.turn(Context("large", chance), 60_000))
    return large, busy


async def reclaimed(engine: EngineClient, since: int) -> bool:
    """That, and no other way, is how leases have ended."""
    ways = (await endings(engine, since)).values()
    return {how for ways_of_one in ways for how in ways_of_one} == {Ending.RECLAIMED}


async def test_hard_leases_cannot_deadlock(engine: EngineClient, chance: random.Random) -> None:
    """Over half of the pool is leased and nothing runs: whoever needs the blocks gets them."""
    since = (await engine.headroom()).last_seq
    await lease_over_half(engine, chance, LeaseMode.HARD)
    assert (await assert_conserved(engine)).leased_blocks >= whole_blocks(44_900)
    turn = await engine.turn(Context("large", chance), 60_000)
    assert len(turn.output) == 4
    assert await reclaimed(engine, since)


async def test_a_new_session_waits_for_soft_leases_until_it_is_old(
    engine: EngineClient, chance: random.Random
) -> None:
    """While another request runs."""
    since = (await engine.headroom()).last_seq
    await lease_over_half(engine, chance, LeaseMode.SOFT)
    leased = (await assert_conserved(engine)).leased_blocks
    async with asyncio.TaskGroup() as group:
        large, busy = await large_beside_busy(engine, chance, group)
        await until(lambda: is_so(engine, lambda now: now.waiting == 1))
        first = await engine.headroom()
        await until(lambda: is_so(engine, lambda now: now.step >= first.step + A_WHILE_STEPS))
        later = await engine.headroom()
        assert (later.waiting, later.leased_blocks) == (1, leased)
        await large
        assert not busy.done()
        assert await reclaimed(engine, since)
        busy.cancel()


async def test_a_new_session_does_not_wait_for_open_leases(
    engine: EngineClient, chance: random.Random
) -> None:
    """The same, but for the mode."""
    since = (await engine.headroom()).last_seq
    await lease_over_half(engine, chance, LeaseMode.OPEN)
    async with asyncio.TaskGroup() as group:
        large, busy = await large_beside_busy(engine, chance, group)
        first = await engine.headroom()
        await until(lambda: is_so(engine, lambda now: now.running == 2))
        assert (await engine.headroom()).step < first.step + A_WHILE_STEPS
        await large
        assert not busy.done()
        assert await reclaimed(engine, since)
        busy.cancel()


async def test_a_continuation_breaks_soft_leases_but_not_hard_ones(
    engine: EngineClient, chance: random.Random
) -> None:
    """While another request runs."""
    returning = Context("returning", chance)
    await engine.turn(returning, 1_000)
    since = (await engine.headroom()).last_seq
    await engine.turn(Context("hard", chance), 30_000, mars_ttl_ms=TTL_MS, mars_mode=LeaseMode.HARD.value)
    await engine.turn(Context("soft", chance), 30_000, mars_ttl_ms=TTL_MS, mars_mode=LeaseMode.SOFT.value)
    async with asyncio.TaskGroup() as group:
        busy = group.create_task(engine.turn(Context("busy", chance), 100, output_tokens=4_000))
        await until(lambda: is_so(engine, lambda now: now.running == 1))
        await engine.turn(returning, 40_000)
        assert not busy.done()
        assert set(await endings(engine, since)) == {"soft"}
        busy.cancel()


async def test_leases_end_with_their_time(engine: EngineClient, chance: random.Random) -> None:
    session, since = Context("brief", chance), (await engine.headroom()).last_seq
    await engine.turn(session, 4_000)
    answer = await engine.kv("brief", KvOp.PIN, ttl_ms=500)
    assert answer.expires_in_ms is not None
    assert 0 < answer.expires_in_ms <= 500

    async def is_over() -> bool:
        return (await idle(engine)).leases == 0

    await until(is_over)
    assert await endings(engine, since) == {"brief": [Ending.EXPIRED]}
    headroom = await assert_conserved(engine)
    assert headroom.free_blocks == headroom.blocks
