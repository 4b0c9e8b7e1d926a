"""Leased blocks outlive a pool full of other sessions; freed, recycled and dropped ones go as they should.

Stock vLLM on the same emulated accelerator is the control: the same turns without the patch.
"""

import random

import pytest

from backend_patch.protocol import CAPABILITIES_PATH, Ending, KvOp, KvStatus, LeaseMode
from tests.vllm.emulated import BLOCK_TOKENS, POOL_TOKENS
from tests.vllm.engine_client import Context, EngineClient
from tests.vllm.scenes import (
    FILLER_TOKENS,
    assert_conserved,
    endings,
    held_blocks,
    others_pass,
    whole_blocks,
)

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

SESSION_TOKENS = 20_000
OUTPUT_TOKENS = 16
CONTEXT_TOKENS = SESSION_TOKENS + OUTPUT_TOKENS
TTL_MS = 120_000
SYSTEM_TOKENS, OWN_TOKENS = 3_200, 4_000


async def test_stock_forgets_a_session_behind_others(
    stock_engine: EngineClient, chance: random.Random
) -> None:
    session = Context("returning", chance)
    await stock_engine.turn(session, SESSION_TOKENS, OUTPUT_TOKENS)
    await others_pass(stock_engine, chance)
    assert (await stock_engine.turn(session, 200)).cached_tokens == 0
    assert await stock_engine.status(CAPABILITIES_PATH) == 404


@pytest.mark.parametrize("mode", [LeaseMode.SOFT, LeaseMode.HARD])
async def test_a_leased_session_is_found_again(
    engine: EngineClient, chance: random.Random, mode: LeaseMode
) -> None:
    """Asked for with the request: applied as it ends, before anything else can take a block."""
    session, since = Context("returning", chance), (await engine.headroom()).last_seq
    await engine.turn(session, SESSION_TOKENS, OUTPUT_TOKENS, mars_ttl_ms=TTL_MS, mars_mode=mode.value)
    # The last token was never computed, so it is in no block.
    assert (await assert_conserved(engine)).leased_blocks == whole_blocks(CONTEXT_TOKENS - 1)
    await others_pass(engine, chance)
    back = await engine.turn(session, 200)
    assert back.cached_tokens >= 0.95 * CONTEXT_TOKENS
    assert await endings(engine, since) == {"returning": [Ending.RESUMED]}
    assert (await assert_conserved(engine)).leased_blocks == 0


async def test_a_session_pinned_after_its_turn_is_found_again(
    engine: EngineClient, chance: random.Random
) -> None:
    session = Context("late", chance)
    await engine.turn(session, SESSION_TOKENS, OUTPUT_TOKENS)
    assert (await assert_conserved(engine)).leased_blocks == 0
    answer = await engine.kv("late", KvOp.PIN, ttl_ms=TTL_MS, mode=LeaseMode.HARD)
    assert (answer.status, answer.blocks) == (KvStatus.ACCEPTED, whole_blocks(CONTEXT_TOKENS - 1))
    assert answer.tokens == answer.blocks * BLOCK_TOKENS
    await others_pass(engine, chance)
    assert (await engine.turn(session, 200)).cached_tokens >= 0.95 * CONTEXT_TOKENS


async def test_a_released_session_is_as_good_as_never_leased(
    engine: EngineClient, chance: random.Random
) -> None:
    session = Context("released", chance)
    await engine.turn(session, SESSION_TOKENS, mars_ttl_ms=TTL_MS)
    assert (await engine.kv("released", KvOp.RELEASE)).status is KvStatus.ACCEPTED
    assert (await assert_conserved(engine)).leased_blocks == 0
    await others_pass(engine, chance)
    assert (await engine.turn(session, 200)).cached_tokens == 0


@pytest.mark.parametrize("op", [KvOp.EVICT, KvOp.RECYCLE])
async def test_what_others_share_is_kept(engine: EngineClient, chance: random.Random, op: KvOp) -> None:
    """Two sessions with one system prompt; one of them is given up while the pool is not short."""
    system = Context("", chance).more(SYSTEM_TOKENS)
    gone, other = Context("gone", chance, list(system)), Context("other", chance, list(system))
    for each in (gone, other):
        await engine.turn(each, OWN_TOKENS, mars_ttl_ms=TTL_MS)
    own_tokens = len(gone.tokens)
    answer = await engine.kv("gone", op)
    assert answer.status is KvStatus.ACCEPTED
    assert answer.blocks == whole_blocks(own_tokens - 1) - whole_blocks(SYSTEM_TOKENS)
    assert (await assert_conserved(engine)).leased_blocks == whole_blocks(len(other.tokens) - 1)
    cached = (await engine.turn(gone, 10)).cached_tokens
    assert cached == (SYSTEM_TOKENS if op is KvOp.EVICT else whole_blocks(own_tokens - 1) * BLOCK_TOKENS)
    assert (await engine.turn(other, 10)).cached_tokens >= SYSTEM_TOKENS + 0.95 * OWN_TOKENS


async def two_sessions_in_a_full_pool(engine: EngineClient, chance: random.Random) -> list[Context]:
    """An older and a younger one; the rest of the pool is of others before them."""
    await others_pass(engine, chance)
    two = [Context("older", chance), Context("younger", chance)]
    for each in two:
        await engine.turn(each, SESSION_TOKENS)
    return two


OTHERS_THAT_TAKE_ONE = (POOL_TOKENS - SESSION_TOKENS) // FILLER_TOKENS
"""So many new sessions reuse the rest of that pool and most of one session, but none of the other."""


async def test_stock_reuses_the_older_first(stock_engine: EngineClient, chance: random.Random) -> None:
    older, younger = await two_sessions_in_a_full_pool(stock_engine, chance)
    await others_pass(stock_engine, chance, OTHERS_THAT_TAKE_ONE)
    assert (await stock_engine.turn(younger, 10)).cached_tokens >= 0.95 * SESSION_TOKENS
    assert (await stock_engine.turn(older, 10)).cached_tokens < 0.5 * SESSION_TOKENS


async def test_recycled_blocks_are_reused_first(engine: EngineClient, chance: random.Random) -> None:
    older, younger = await two_sessions_in_a_full_pool(engine, chance)
    assert (await engine.kv("younger", KvOp.RECYCLE)).status is KvStatus.ACCEPTED
    await others_pass(engine, chance, OTHERS_THAT_TAKE_ONE)
    assert (await engine.turn(older, 10)).cached_tokens >= 0.95 * SESSION_TOKENS
    assert (await engine.turn(younger, 10)).cached_tokens < 0.5 * SESSION_TOKENS


async def test_an_ended_session_is_forgotten(engine: EngineClient, chance: random.Random) -> None:
    session = Context("ended", chance)
    await engine.turn(session, OWN_TOKENS, mars_ttl_ms=TTL_MS)
    [state] = await engine.sessions()
    assert state.session == "ended"
    assert (state.turns, state.tokens, state.live) == (1, len(session.tokens), 0)
    assert (await engine.kv("ended", KvOp.END)).status is KvStatus.ACCEPTED
    assert await engine.sessions() == []
    assert (await engine.kv("ended", KvOp.PIN)).status is KvStatus.MISSING
    assert (await assert_conserved(engine)).leased_blocks == 0


async def test_the_cache_can_be_reset_under_leases(engine: EngineClient, chance: random.Random) -> None:
    session = Context("reset", chance)
    await engine.turn(session, OWN_TOKENS, mars_ttl_ms=TTL_MS, mars_mode=LeaseMode.HARD.value)
    assert await engine.reset_prefix_cache()
    headroom = await assert_conserved(engine)
    assert headroom.free_blocks == headroom.blocks
    assert (await engine.turn(session, 10)).cached_tokens == 0


async def test_blocks_are_conserved_while_a_request_runs(engine: EngineClient, chance: random.Random) -> None:
    """Beside a lease; the request's blocks can be told from its length."""
    leased, busy = Context("leased", chance), Context("busy", chance)
    await engine.turn(leased, OWN_TOKENS, mars_ttl_ms=TTL_MS)
    seen = await engine.headroom_during(engine.turn(busy, OWN_TOKENS, output_tokens=400))
    decoding = [each for each in seen if each.running == 1 and each.decode_tokens_per_s]
    assert len(decoding) > 10
    for each in decoding:
        assert each.leased_blocks == whole_blocks(len(leased.tokens) - 1)
        # Room for the tokens that asynchronous scheduling is ahead is all that may come on top.
        assert whole_blocks(OWN_TOKENS) <= held_blocks(each) <= whole_blocks(OWN_TOKENS + 400) + 2
