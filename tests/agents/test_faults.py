"""A backend that fails one call in twenty, a proxy that is started anew in the middle: no task is lost."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from marsproxy.core.evidence import TurnKind
from tests.agents import openhands
from tests.agents.answers import mends_with
from tests.agents.environments import Environments
from tests.agents.expectations import assert_done, assert_recovered
from tests.agents.mini_swe_agent import NAME, SUBMIT, MiniSweAgent
from tests.agents.model_server import ModelServer
from tests.agents.relay import Fault
from tests.agents.tasks import make_tasks
from tests.agents.world import World, open_world

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

FAIL_EVERY = 20


@pytest.fixture
async def failing(model: ModelServer, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(model, tmp_path, fail_every=FAIL_EVERY) as opened:
        yield opened


def faults(world: World) -> Counter[Fault]:
    return Counter(asked.fault for asked in world.relay.asked if asked.fault is not None)


async def test_mini_swe_agent_outlives_a_failing_backend(
    failing: World, environments: Environments, tmp_path: Path
) -> None:
    """Its retries are retries of its session, though it sends no id."""
    tasks = make_tasks(tmp_path, "mini-faults", 8)
    mends_with(failing.model, tasks, "bash", SUBMIT)
    agents = MiniSweAgent(environments.programs(NAME), f"{failing.proxy_url}/v1", tmp_path / "homes")
    assert [end.failure for end in await agents.run(tasks) if end.failure] == []
    assert_done(tasks)
    assert faults(failing) == Counter(Fault)
    assert_recovered(await failing.observed(), len(tasks), faults=len(Fault))


@pytest.mark.parametrize("is_streaming", [False, True])
async def test_openhands_outlives_a_failing_backend(
    failing: World, environments: Environments, tmp_path: Path, is_streaming: bool
) -> None:
    tasks = make_tasks(tmp_path, f"openhands-faults-{is_streaming}", 8)
    openhands.mends(failing.model, tasks)
    agents = failing.library(environments, openhands.NAME, is_streaming=is_streaming)
    assert (await agents.run(tasks)).failure is None
    assert_done(tasks)
    assert faults(failing) == Counter(Fault)
    assert_recovered(await failing.observed(), len(tasks), faults=len(Fault))


async def restart_in_the_middle(world: World, turns: int) -> None:
    while len(world.relay.asked) < turns:  # noqa: ASYNC110 (the relay has no event for it)
        await asyncio.sleep(0.05)
    await world.stop_proxy()
    await world.start_proxy()


async def test_openhands_outlives_a_restart_of_the_proxy(
    world: World, environments: Environments, tmp_path: Path
) -> None:
    """It names its sessions, so they are the same ones afterwards."""
    tasks = make_tasks(tmp_path, "openhands-restart", 8)
    openhands.mends(world.model, tasks)
    agents = world.library(environments, openhands.NAME, is_streaming=False)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(agents.run(tasks))
        group.create_task(restart_in_the_middle(world, turns=12))
    assert running.result().failure is None
    assert_done(tasks)
    seen = await world.observed()
    assert len(seen.sessions) == len(tasks)
    assert seen.unexpected(TurnKind.FIRST, TurnKind.RETRY) == []


async def test_mini_swe_agent_outlives_a_restart_of_the_proxy(
    world: World, environments: Environments, tmp_path: Path
) -> None:
    """Without an id it is a new session to the new proxy, and one only."""
    tasks = make_tasks(tmp_path, "mini-restart", 8)
    mends_with(world.model, tasks, "bash", SUBMIT)
    agents = MiniSweAgent(environments.programs(NAME), f"{world.proxy_url}/v1", tmp_path / "homes")
    async with asyncio.TaskGroup() as group:
        running = group.create_task(agents.run(tasks))
        group.create_task(restart_in_the_middle(world, turns=12))
    assert [end.failure for end in running.result() if end.failure] == []
    assert_done(tasks)
    seen = await world.observed()
    assert len(tasks) < len(seen.sessions) <= 2 * len(tasks)
    assert seen.unexpected(TurnKind.RETRY) == []
