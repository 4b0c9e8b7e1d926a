"""With a tier in host memory: what was demoted comes back later than what was kept, and long before new."""

import random
from statistics import median

import pytest

from backend_patch.protocol import KvOp, KvStatus
from tests.vllm.engine_client import Context, EngineClient
from tests.vllm.scenes import assert_conserved, until

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

TOKENS = 16_000
NEW_TOKENS = 200
REPEATS = 3


async def test_demoted_comes_between_kept_and_new(tiered_engine: EngineClient, chance: random.Random) -> None:
    """Time to the first token; all three are modelled."""
    assert (await tiered_engine.capabilities()).has_host_tier
    warm_s, demoted_s, cold_s = [], [], []
    for number in range(REPEATS):
        session = Context(f"session-{number}", chance)
        cold_s.append((await tiered_engine.turn(session, TOKENS)).ttft_s)
        warm_s.append((await tiered_engine.turn(session, NEW_TOKENS)).ttft_s)
        await demote(tiered_engine, session)
        back = await tiered_engine.turn(session, NEW_TOKENS)
        assert back.cached_tokens >= 0.95 * TOKENS
        demoted_s.append(back.ttft_s)
    assert median(warm_s) < median(demoted_s) < median(cold_s)
    await assert_conserved(tiered_engine)


async def demote(engine: EngineClient, session: Context) -> None:
    """Once its copy in host memory is complete."""

    async def is_done() -> bool:
        answer = await engine.kv(session.session, KvOp.DEMOTE)
        assert answer.status in (KvStatus.ACCEPTED, KvStatus.CLIPPED, KvStatus.REJECTED)
        return answer.status is KvStatus.ACCEPTED

    await until(is_done)


async def test_without_a_host_tier_nothing_is_demoted(engine: EngineClient, chance: random.Random) -> None:
    await engine.turn(Context("session", chance), 1_000)
    answer = await engine.kv("session", KvOp.DEMOTE)
    assert (answer.status, answer.reason) == (KvStatus.REJECTED, "no_host_tier")
