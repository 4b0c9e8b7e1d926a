"""Codex names its threads itself, and asks by the responses API in streams."""

from pathlib import Path

import pytest

from tests.agents.answers import mends_with
from tests.agents.codex import NAME, Codex
from tests.agents.environments import Environments
from tests.agents.expectations import assert_done, assert_one_session_each
from tests.agents.tasks import make_tasks
from tests.agents.world import World

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


async def test_eight_at_once(world: World, environments: Environments, tmp_path: Path) -> None:
    tasks = make_tasks(tmp_path, "codex", 8)
    mends_with(world.model, tasks, "exec_command", argument="cmd")
    ends = await Codex(environments.programs(NAME), f"{world.proxy_url}/v1", tmp_path / "homes").run(tasks)
    assert [end.failure for end in ends if end.failure] == []
    assert_done(tasks)
    assert_one_session_each(await world.observed(), len(tasks), turns=5, known_by="header")
