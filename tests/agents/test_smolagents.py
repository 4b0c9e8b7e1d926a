"""smolagents sends calls and results back as plain text: the history says whose turn it is."""

from pathlib import Path

import pytest

from tests.agents.answers import call, mends_with
from tests.agents.environments import Environments
from tests.agents.expectations import assert_done, assert_one_session_each, assert_tools_matched
from tests.agents.tasks import make_tasks
from tests.agents.world import World

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


@pytest.mark.parametrize("is_streaming", [False, True])
async def test_eight_that_call_tools(
    world: World, environments: Environments, tmp_path: Path, is_streaming: bool
) -> None:
    tasks = make_tasks(tmp_path, f"smol-{is_streaming}", 8)
    mends_with(world.model, tasks, "bash", call("final_answer", answer="Mended."))
    agents = world.library(environments, "smolagents", agent="tool_calling", is_streaming=is_streaming)
    assert (await agents.run(tasks)).failure is None
    assert_done(tasks)
    seen = await world.observed()
    assert_one_session_each(seen, len(tasks), turns=5, known_by="prefix")
    assert_tools_matched(seen, tasks)


async def test_eight_that_write_code(world: World, environments: Environments, tmp_path: Path) -> None:
    """Their commands are in programs, where the proxy does not look for them."""
    tasks = make_tasks(tmp_path, "smol-code", 8)
    for task in tasks:
        steps = [f"print(bash({command!r}))" for command in task.commands]
        programs = [*steps, "final_answer('Mended.')"]
        answers = [{"text": f"Next.\n<code>\n{program}\n</code>"} for program in programs]
        world.model.will_say({"user": task.marker}, answers)
    agents = world.library(environments, "smolagents", agent="code", is_streaming=False)
    assert (await agents.run(tasks)).failure is None
    assert_done(tasks)
    seen = await world.observed()
    assert_one_session_each(seen, len(tasks), turns=5, known_by="prefix")
    assert len(seen.runs) == 4 * len(tasks)
