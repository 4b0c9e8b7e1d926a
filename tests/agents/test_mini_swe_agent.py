"""mini-swe-agent sends no session id: tool-call ids and its history say whose turn it is."""

from pathlib import Path

import pytest

from tests.agents.answers import mends_with
from tests.agents.environments import Environments
from tests.agents.expectations import assert_done, assert_one_session_each, assert_tools_matched
from tests.agents.mini_swe_agent import NAME, SUBMIT, MiniSweAgent
from tests.agents.tasks import make_tasks
from tests.agents.world import World

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


async def test_eight_at_once(world: World, environments: Environments, tmp_path: Path) -> None:
    tasks = make_tasks(tmp_path, "mini", 8)
    mends_with(world.model, tasks, "bash", SUBMIT)
    programs = environments.programs(NAME)
    ends = await MiniSweAgent(programs, f"{world.proxy_url}/v1", tmp_path / "homes").run(tasks)
    assert [end.failure for end in ends if end.failure] == []
    assert_done(tasks)
    assert_one_session_each(await world.observed(), len(tasks), turns=5, known_by="call_id")


async def test_eight_whose_containers_are_sessions_of_the_gateway(
    world: World, environments: Environments, tmp_path: Path
) -> None:
    """Its docker commands go to ``gw-docker``; it needs one setting for that."""
    tasks = make_tasks(tmp_path, "mini-docker", 8)
    mends_with(world.model, tasks, "bash", SUBMIT)
    programs = environments.programs(NAME)
    agents = MiniSweAgent(programs, f"{world.proxy_url}/v1", tmp_path / "homes", world.gateway_url)
    assert [end.failure for end in await agents.run(tasks) if end.failure] == []
    assert_done(tasks)
    seen = await world.observed()
    assert_one_session_each(seen, len(tasks), turns=5, known_by="call_id")
    assert_tools_matched(seen, tasks)
