"""SWE-ReX, on which SWE-agent runs its commands, with requests to the model like SWE-agent's: no id at all,
and marks that move through the history."""

from pathlib import Path

import pytest

from tests.agents.answers import call, mends_with
from tests.agents.environments import Environments
from tests.agents.expectations import assert_done, assert_one_session_each, assert_tools_matched
from tests.agents.tasks import make_tasks
from tests.agents.world import World

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


async def test_eight_whose_runtimes_are_sessions_of_the_gateway(
    world: World, environments: Environments, tmp_path: Path
) -> None:
    """What it asks its shell of itself is no command of an answer."""
    tasks = make_tasks(tmp_path, "swe-rex", 8)
    mends_with(world.model, tasks, "bash", call("submit"))
    agents = world.library(environments, "swe-rex")
    assert (await agents.run(tasks)).failure is None
    assert_done(tasks)
    seen = await world.observed()
    assert_one_session_each(seen, len(tasks), turns=5, known_by="call_id")
    assert_tools_matched(seen, tasks, has_own_commands=True)
