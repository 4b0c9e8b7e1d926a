"""A framework takes the same steps through the proxy as without it; the model server reads the same words.

What the proxy adds is taken off, and nothing else: it is what docs/http-api.md says.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agents import openhands
from tests.agents.answers import mends_with
from tests.agents.environments import Environments
from tests.agents.expectations import assert_done
from tests.agents.mini_swe_agent import NAME, SUBMIT, MiniSweAgent
from tests.agents.tasks import Task, make_tasks, reset
from tests.agents.transcript import bodies_of, headers_of
from tests.agents.world import World

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

ADDED_HEADERS = {"x-vllm-priority", "x-session-id"}
CHANGED_HEADERS = {"content-length", "accept-encoding", "connection"}
"""The length is another one; a stream whose usage is taken out again must not be compressed."""

Run = Callable[[bool], Awaitable[None]]
"""Once, direct or not."""


def without_additions(body: dict[str, Any], *, asked_usage: bool) -> dict[str, Any]:
    added = {"vllm_xargs"} if asked_usage else {"vllm_xargs", "stream_options"}
    return {name: value for name, value in body.items() if name not in added}


async def assert_same_steps(world: World, tasks: list[Task], run: Run) -> None:
    await run(True)
    assert_done(tasks)
    direct = world.relay.asked[:]
    reset(tasks)
    world.relay.asked.clear()
    await run(False)
    assert_done(tasks)
    proxied = world.relay.asked[:]
    assert len(direct) == len(proxied) > len(tasks)
    for task in tasks:
        straight, through = bodies_of(task, direct), bodies_of(task, proxied)
        assert len(straight) == 5
        for one, other in zip(straight, through, strict=True):
            assert without_additions(other, asked_usage="stream_options" in one) == one
            assert "vllm_xargs" in other
        for names, others in zip(headers_of(task, direct), headers_of(task, proxied), strict=True):
            assert others - CHANGED_HEADERS == (names | ADDED_HEADERS) - CHANGED_HEADERS


async def test_mini_swe_agent(world: World, environments: Environments, tmp_path: Path) -> None:
    tasks = make_tasks(tmp_path, "mini-same", 3)
    mends_with(world.model, tasks, "bash", SUBMIT)
    programs = environments.programs(NAME)

    async def run(is_direct: bool) -> None:
        url = world.relay.url if is_direct else world.proxy_url
        ends = await MiniSweAgent(programs, f"{url}/v1", tmp_path / "homes").run(tasks)
        assert [end.failure for end in ends if end.failure] == []

    await assert_same_steps(world, tasks, run)


@pytest.mark.parametrize("is_streaming", [False, True])
async def test_openhands(
    world: World, environments: Environments, tmp_path: Path, is_streaming: bool
) -> None:
    tasks = make_tasks(tmp_path, f"openhands-same-{is_streaming}", 3)
    openhands.mends(world.model, tasks)

    async def run(is_direct: bool) -> None:
        agents = world.library(environments, openhands.NAME, is_direct=is_direct, is_streaming=is_streaming)
        assert (await agents.run(tasks)).failure is None

    await assert_same_steps(world, tasks, run)


@pytest.mark.parametrize("api", ["chat_completions", "responses"])
async def test_openai_agents(world: World, environments: Environments, tmp_path: Path, api: str) -> None:
    tasks = make_tasks(tmp_path, f"oai-same-{api}", 3)
    mends_with(world.model, tasks, "bash")

    async def run(is_direct: bool) -> None:
        agents = world.library(environments, "openai-agents", is_direct=is_direct, api=api, is_streaming=True)
        assert (await agents.run(tasks)).failure is None

    await assert_same_steps(world, tasks, run)
