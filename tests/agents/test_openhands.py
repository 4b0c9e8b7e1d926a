"""OpenHands names its conversations itself; its sub-agents and its condenser are told apart."""

from pathlib import Path

import pytest

from tests.agents import openhands
from tests.agents.environments import Environments
from tests.agents.expectations import assert_done, assert_one_session_each
from tests.agents.tasks import make_tasks
from tests.agents.world import World

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


@pytest.mark.parametrize("is_streaming", [False, True])
async def test_eight_at_once(
    world: World, environments: Environments, tmp_path: Path, is_streaming: bool
) -> None:
    tasks = make_tasks(tmp_path, "openhands", 8)
    openhands.mends(world.model, tasks)
    agents = world.library(environments, openhands.NAME, is_streaming=is_streaming)
    assert (await agents.run(tasks)).failure is None
    assert_done(tasks)
    assert_one_session_each(await world.observed(), len(tasks), turns=5)
