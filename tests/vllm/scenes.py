"""What several tests do to an engine, stock or patched, and what must hold in between.

Owns no expectations but one: blocks are conserved.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

from backend_patch.protocol import Ending, KvOp, KvRequest, RankHeadroom
from tests.vllm.emulated import BLOCK_TOKENS, POOL_TOKENS
from tests.vllm.engine_client import Context, EngineClient, Turn

FILLER_TOKENS = 8_000
FILLERS_FOR_THE_POOL = POOL_TOKENS // FILLER_TOKENS + 1
HANG_S = 60.0


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again, until it is so."""
    async with asyncio.timeout(HANG_S):
        while not await condition():  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(0.02)


async def is_so(engine: EngineClient, what: Callable[[RankHeadroom], bool]) -> bool:
    return what(await engine.headroom())


async def others_pass(
    engine: EngineClient, chance: random.Random, sessions: int = FILLERS_FOR_THE_POOL
) -> None:
    """New sessions, all at once; unless fewer are asked for, more than the pool has room for."""
    fillers = [Context(f"filler-{chance.random()}", chance) for _ in range(sessions)]
    await asyncio.gather(*(engine.turn(each, FILLER_TOKENS, output_tokens=2) for each in fillers))


async def running(engine: EngineClient, requests: int) -> None:
    """Wait until vLLM says that so many requests run; stock vLLM says so too."""

    async def is_so() -> bool:
        return await engine.metric("vllm:num_requests_running") == requests

    await until(is_so)


async def return_behind_a_long_prefill(
    engine: EngineClient, chance: random.Random, long_tokens: int
) -> tuple[Turn, Turn]:
    """A session's next turn arrives while a new session's long prompt is computed: both answers."""
    session = Context(f"returning-{chance.random()}", chance)
    other = Context(f"long-{chance.random()}", chance)
    await engine.turn(session, 6_000, mars_ttl_ms=60_000)
    async with asyncio.timeout(HANG_S), asyncio.TaskGroup() as group:
        long_turn = group.create_task(engine.turn(other, long_tokens))
        await running(engine, 1)
        back = await engine.turn(session, 200)
    return back, long_turn.result()


async def idle(engine: EngineClient) -> RankHeadroom:
    """The headroom once no request is left; expired leases are gone from it."""

    async def is_idle() -> bool:
        headroom = await engine.headroom()
        return headroom.running == 0 and headroom.waiting == 0

    await until(is_idle)
    await engine.sessions()  # between two steps: applies what time has ended
    return await engine.headroom()


async def endings(engine: EngineClient, since: int) -> dict[str, list[Ending]]:
    """How leases ended after that number, in order, by session."""
    found: dict[str, list[Ending]] = {}
    for each in (await engine.headroom_since(since)).endings:
        found.setdefault(each.session, []).append(each.how)
    return found


async def assert_conserved(engine: EngineClient) -> RankHeadroom:
    """Between requests every block is free or leased, and the leases are those of the sessions."""
    headroom = await idle(engine)
    assert headroom.free_blocks + headroom.leased_blocks == headroom.blocks
    leased = [state.leased_blocks for state in await engine.sessions() if state.leased_blocks]
    assert headroom.leases == len(leased)
    # Sessions may share some.
    assert max(leased, default=0) <= headroom.leased_blocks <= sum(leased)
    return headroom


async def end_all_sessions(engine: EngineClient) -> None:
    names = {state.session for state in await engine.sessions()}
    await engine.batch([KvRequest(op=KvOp.END, session=name) for name in names])


async def assert_all_free_in_the_end(engine: EngineClient) -> None:
    await assert_conserved(engine)
    await end_all_sessions(engine)
    headroom = await assert_conserved(engine)
    assert headroom.leases == 0
    assert headroom.free_blocks == headroom.blocks
    assert await engine.sessions() == []


def held_blocks(headroom: RankHeadroom) -> int:
    """In requests' hands."""
    return headroom.blocks - headroom.free_blocks - headroom.leased_blocks


def whole_blocks(tokens: int) -> int:
    return tokens // BLOCK_TOKENS
