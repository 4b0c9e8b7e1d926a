"""Two proxies behind a balancer are restarted one after the other, under load: no turn is lost."""

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.integration import faulty_backend as faulty
from tests.integration.faulty_backend import Exchange
from tests.integration.proxy_process import proxy_process
from tests.integration.stubborn_clients import Tally, balanced, play_turns

pytestmark = pytest.mark.slow

AGENTS, TURNS = 8, 40
PAUSE = ("--stop.pause-s", "1")
"""Ten probes of the balancer."""


async def slowly(exchange: Exchange) -> None:
    await asyncio.sleep(0.1)
    await faulty.answers_well(exchange)


async def test_no_turn_is_lost(tmp_path: Path) -> None:
    """Nobody sees a broken answer; since each proxy announces its going, hardly anybody tries twice."""
    async with faulty.faulty_backend(slowly) as backend, AsyncExitStack() as stack:
        start = ("--backend", backend.url, "--port", "0", *PAUSE)
        old = [await stack.enter_async_context(proxy_process(*start, log=tmp_path / f"{n}")) for n in (1, 2)]
        url, balancer = await stack.enter_async_context(balanced(*(proxy.url for proxy in old)))
        tally = Tally()
        async with asyncio.TaskGroup() as tasks:
            for number in range(AGENTS):
                tasks.create_task(play_turns(url, f"agent-{number}", TURNS, tally))
            for number, leaving in enumerate(old):
                leaving.signal(signal.SIGTERM)
                assert await leaving.ended() == 0
                new = await stack.enter_async_context(proxy_process(*start, log=tmp_path / f"new-{number}"))
                balancer.targets[number] = new.url
                await asyncio.sleep(0.5)
        assert tally.lost == []
        assert tally.broken_answers == 0
        assert tally.finished == AGENTS * TURNS
        assert tally.attempts <= 1.05 * tally.finished
