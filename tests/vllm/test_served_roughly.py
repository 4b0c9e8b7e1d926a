"""A rough hour in a minute: forty sessions at random on two API servers, then an error in the patch itself.

The last test ends the patch's work on this server, so it stays the last.
"""

import asyncio
import random

import pytest

from backend_patch.emulator.serve import EmulatedServer
from backend_patch.protocol import KvOp, KvStatus
from tests.vllm.crowd import act_at_random
from tests.vllm.engine_client import Context, EngineClient
from tests.vllm.faulty_scheduler import FAULT, REJECTED
from tests.vllm.scenes import assert_all_free_in_the_end, assert_conserved, idle

MEMBERS = 40

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


def log_of(server: EmulatedServer) -> str:
    return server.log_path.read_text(errors="replace")


async def test_nothing_breaks_and_nothing_leaks(
    rough: EmulatedServer, rough_engine: EngineClient, pytestconfig: pytest.Config
) -> None:
    seconds = float(pytestconfig.getoption("--fuzz-seconds", default=60.0))
    tally = await act_at_random(rough_engine, MEMBERS, seconds, seed=1)
    assert tally.sent == tally.answered + tally.left
    assert tally.short == 0
    assert tally.answered > MEMBERS
    await assert_all_free_in_the_end(rough_engine)
    assert "Traceback" not in log_of(rough)
    headroom = await rough_engine.headroom()
    assert headroom.passthrough is None
    # It was rough: each of these has happened.
    seen = headroom.pinned_total, headroom.resumed_total, headroom.expired_total, headroom.reclaimed_total
    assert all(seen), headroom
    assert headroom.evicted_total
    assert headroom.preemptions_total


async def test_a_turn_that_vllm_ends_leaves_no_lease(
    rough_engine: EngineClient, chance: random.Random
) -> None:
    """With an error: nobody knows whether its session goes on."""
    pinned_before = (await rough_engine.headroom()).pinned_total
    with pytest.raises(AssertionError, match="error"):
        await rough_engine.turn(Context(REJECTED, chance), 4_000, mars_ttl_ms=120_000)
    headroom = await assert_conserved(rough_engine)
    assert (headroom.leases, headroom.pinned_total) == (0, pinned_before)
    await assert_all_free_in_the_end(rough_engine)


async def test_after_an_error_in_the_patch_vllm_goes_on_alone(
    rough: EmulatedServer, rough_engine: EngineClient, chance: random.Random
) -> None:
    """In the middle of a step, with leases, and with others' requests waiting and running."""
    await rough_engine.turn(Context("leased", chance), 4_000, mars_ttl_ms=120_000)
    assert (await assert_conserved(rough_engine)).leases == 1
    async with asyncio.TaskGroup() as group:
        others = [
            group.create_task(rough_engine.turn(Context(f"other-{number}", chance), 6_000, output_tokens=50))
            for number in range(12)
        ]
        faulty = group.create_task(rough_engine.turn(Context(FAULT, chance), 1_000, mars_ttl_ms=120_000))
    assert [len(each.result().output) for each in [*others, faulty]] == [50] * 12 + [4]
    headroom = await idle(rough_engine)
    assert headroom.passthrough == "step_scheduled: InjectedError"
    assert (headroom.leases, headroom.free_blocks) == (0, headroom.blocks)
    assert (await rough_engine.capabilities()).passthrough == headroom.passthrough
    answer = await rough_engine.kv("leased", KvOp.PIN, ttl_ms=1_000)
    assert (answer.status, answer.reason) == (KvStatus.REJECTED, "passthrough")
    later = await rough_engine.turn(Context("later", chance), 4_000, mars_ttl_ms=120_000)
    assert len(later.output) == 4
    assert (await idle(rough_engine)).free_blocks == headroom.blocks
    assert log_of(rough).count("InjectedError") >= 1
