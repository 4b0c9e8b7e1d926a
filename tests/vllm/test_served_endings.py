"""Which turns leave a lease behind and which do not; two branches of one session have one each."""

import asyncio
import random

import pytest

from backend_patch.protocol import KvOp, KvStatus, TurnClass
from tests.vllm.emulated import BLOCK_TOKENS
from tests.vllm.engine_client import Context, EngineClient
from tests.vllm.scenes import assert_conserved, held_blocks, is_so, until, whole_blocks

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

TOKENS = 4_000
TTL_MS = 120_000


async def test_a_client_that_leaves_leaves_no_lease(engine: EngineClient, chance: random.Random) -> None:
    """Its turn did not end well, so nobody knows whether the session goes on."""
    pinned_before = (await engine.headroom()).pinned_total
    async with asyncio.TaskGroup() as group:
        turn = group.create_task(
            engine.turn(Context("gone", chance), TOKENS, output_tokens=8_000, mars_ttl_ms=TTL_MS)
        )
        await until(lambda: is_so(engine, lambda now: now.running == 1 and now.waiting == 0))
        turn.cancel()
    headroom = await assert_conserved(engine)
    assert headroom.free_blocks == headroom.blocks
    assert headroom.pinned_total == pinned_before


async def test_a_client_that_leaves_while_its_turn_waits(engine: EngineClient, chance: random.Random) -> None:
    """The lease of the turn before is as it was: claimed while the next one waits, and not after."""
    session = Context("patient", chance)
    await engine.turn(session, TOKENS, mars_ttl_ms=TTL_MS, mars_mode="hard")
    leased = (await assert_conserved(engine)).leased_blocks
    async with asyncio.TaskGroup() as group:
        busy = group.create_task(engine.turn(Context("busy", chance), 60_000, output_tokens=500))
        # Once its prompt is in the pool, the other's has no place beside it.
        await until(lambda: is_so(engine, lambda now: held_blocks(now) >= whole_blocks(60_000)))
        turn = group.create_task(engine.turn(session, 40_000))
        await until(lambda: is_so(engine, lambda now: now.claimed_blocks == leased))
        turn.cancel()
        await until(lambda: is_so(engine, lambda now: now.claimed_blocks == 0))
        busy.cancel()
    assert (await assert_conserved(engine)).leased_blocks == leased


async def test_a_refused_turn_leaves_no_session(engine: EngineClient, chance: random.Random) -> None:
    with pytest.raises(AssertionError, match="maximum context length"):
        await engine.turn(Context("too long", chance), 70_000, mars_ttl_ms=TTL_MS)
    assert await engine.sessions() == []


async def test_the_last_turn_leaves_nothing(engine: EngineClient, chance: random.Random) -> None:
    session = Context("last", chance)
    await engine.turn(session, TOKENS, mars_ttl_ms=TTL_MS)
    await engine.turn(session, 10, mars_ttl_ms=TTL_MS, mars_final=1)
    headroom = await assert_conserved(engine)
    assert headroom.free_blocks == headroom.blocks
    assert await engine.sessions() == []


async def test_branches_of_one_session_do_not_collide(engine: EngineClient, chance: random.Random) -> None:
    """A sub-agent under its parent's id: two contexts, at the same time, two leases."""
    parent, child = Context("family", chance), Context("family", chance)
    await asyncio.gather(
        engine.turn(parent, TOKENS, mars_ttl_ms=TTL_MS, mars_branch=""),
        engine.turn(child, 2 * TOKENS, mars_ttl_ms=TTL_MS, mars_branch="child"),
    )
    sizes = [whole_blocks(len(each.tokens) - 1) for each in (parent, child)]
    headroom = await assert_conserved(engine)
    assert (headroom.leases, headroom.leased_blocks) == (2, sum(sizes))
    answer = await engine.kv("family", KvOp.RELEASE, branch="child")
    assert (answer.status, answer.blocks) == (KvStatus.ACCEPTED, sizes[1])
    assert (await assert_conserved(engine)).leased_blocks == sizes[0]
    back = await engine.turn(parent, 10, mars_branch="", mars_class=TurnClass.CONTINUATION.value)
    assert back.cached_tokens == sizes[0] * BLOCK_TOKENS


async def test_a_lease_follows_its_session_from_turn_to_turn(
    engine: EngineClient, chance: random.Random
) -> None:
    """The next turn takes the blocks over; its own lease is longer by what it added."""
    session = Context("growing", chance)
    for turns in range(1, 6):
        turn = await engine.turn(session, 1_000, mars_ttl_ms=TTL_MS)
        headroom = await assert_conserved(engine)
        assert (headroom.leases, headroom.leased_blocks) == (1, whole_blocks(len(session.tokens) - 1))
        assert [state.turns for state in await engine.sessions()] == [turns]
    assert turn.cached_tokens >= 0.95 * (turn.prompt_tokens - 1_000)
