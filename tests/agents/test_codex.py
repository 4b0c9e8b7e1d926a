"""Codex names its threads itself, and asks by the responses API in streams."""

from pathlib import Path

import pytest

from tests.agents.answers import mends_with
from tests.agents.codex import NAME, Codex
from tests.agents.environments import Environments
from tests.agents.expectations import assert_done, assert_one_session_each, assert_tools_matched
from tests.agents.tasks import make_tasks
from tests.agents.world import World

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


async def test_eight_whose_processes_are_the_gateways(
    world: World, environments: Environments, tmp_path: Path
) -> None:
    """By its own slot for an executor, which says of each process which call it belongs to."""
    tasks = make_tasks(tmp_path, "codex-gateway", 8)
    mends_with(world.model, tasks, "exec_command", argument="cmd")
    programs, homes = environments.programs(NAME), tmp_path / "homes"
    ends = await Codex(programs, f"{world.proxy_url}/v1", homes, world.gateway_url).run(tasks)
    assert [end.failure for end in ends if end.failure] == []
    assert_done(tasks)
    seen = await world.observed()
    assert_one_session_each(seen, len(tasks), turns=5, known_by="header")
    assert_tools_matched(seen, tasks, has_own_commands=True)
