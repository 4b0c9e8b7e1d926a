"""OpenAI's Agents SDK, by both APIs: response items and tool-call ids say whose turn it is."""

from pathlib import Path

import pytest

from tests.agents.answers import mends_with
from tests.agents.environments import Environments
from tests.agents.expectations import assert_done, assert_one_session_each, assert_tools_matched
from tests.agents.tasks import make_tasks
from tests.agents.world import World

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


@pytest.mark.parametrize("is_streaming", [False, True])
@pytest.mark.parametrize("api", ["chat_completions", "responses"])
async def test_eight_at_once(
    world: World, environments: Environments, tmp_path: Path, api: str, is_streaming: bool
) -> None:
    tasks = make_tasks(tmp_path, f"oai-{api}-{is_streaming}", 8)
    mends_with(world.model, tasks, "bash")
    agents = world.library(environments, "openai-agents", api=api, is_streaming=is_streaming)
    assert (await agents.run(tasks)).failure is None
    assert_done(tasks)
    seen = await world.observed()
    assert_one_session_each(seen, len(tasks), turns=5, known_by="call_id")
    assert_tools_matched(seen, tasks)
