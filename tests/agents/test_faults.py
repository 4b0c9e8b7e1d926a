"""A backend that fails one call in twenty, a proxy that is started anew in the middle: no task is lost."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from marsproxy.core.evidence import TurnKind
from tests.agents import codex, opencode, openhands
from tests.agents.answers import mends_with
from tests.agents.codex import Codex
from tests.agents.environments import Environments
from tests.agents.expectations import assert_done, assert_recovered
from tests.agents.mini_swe_agent import NAME, SUBMIT, MiniSweAgent
from tests.agents.model_server import ModelServer
from tests.agents.opencode import OpenCode
from tests.agents.programs import Ended
from tests.agents.relay import Fault
from tests.agents.tasks import Task, make_tasks
from tests.agents.world import World, open_world

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

FAIL_EVERY = 20
MAX_RETRIES = 8
"""OpenAI's client, which two of them use, gives up after two, a second and a half later, unless told so."""
ASIDE = {"opencode": (TurnKind.SIDE, TurnKind.FIRST)}
"""Kinds of turns beside those of the work: a title, which may come before it."""


@pytest.fixture
async def failing(model: ModelServer, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(model, tmp_path, fail_every=FAIL_EVERY) as opened:
        yield opened


def faults(world: World) -> Counter[Fault]:
    return Counter(asked.fault for asked in world.relay.asked if asked.fault is not None)


@dataclass(frozen=True)
class Case:
    """A framework, and what its agents are told."""

    mends: Callable[[World, Sequence[Task]], None]
    run: Callable[[World, Environments, Sequence[Task]], Awaitable[list[Ended]]]
    has_ids: bool
    """It names its sessions, so a new proxy knows them; else they are new ones there."""
    agents: int = 8
    fail_every: int = FAIL_EVERY


def library(name: str, **settings: Any) -> Callable[..., Awaitable[list[Ended]]]:
    async def run(world: World, environments: Environments, tasks: Sequence[Task]) -> list[Ended]:
        return [await world.library(environments, name, **settings).run(tasks)]

    return run


def program(kind: type[MiniSweAgent | Codex | OpenCode], name: str) -> Callable[..., Awaitable[list[Ended]]]:
    async def run(world: World, environments: Environments, tasks: Sequence[Task]) -> list[Ended]:
        agents = kind(environments.programs(name), f"{world.proxy_url}/v1", world.folder / "homes")
        return await agents.run(tasks)

    return run


def opencode_mends(world: World, tasks: Sequence[Task]) -> None:
    world.model.will_say({"tools": False}, [{"text": "Prices"}])
    mends_with(world.model, tasks, "bash", description="The next step")


def with_bash(world: World, tasks: Sequence[Task]) -> None:
    mends_with(world.model, tasks, "bash")


def with_submit(world: World, tasks: Sequence[Task]) -> None:
    mends_with(world.model, tasks, "bash", SUBMIT)


def codex_mends(world: World, tasks: Sequence[Task]) -> None:
    mends_with(world.model, tasks, "exec_command", argument="cmd")


def openhands_mends(world: World, tasks: Sequence[Task]) -> None:
    openhands.mends(world.model, tasks)


LASTING: dict[str, Any] = {"is_streaming": False, "max_retries": MAX_RETRIES}
CASES = {
    "mini-swe-agent": Case(with_submit, program(MiniSweAgent, NAME), has_ids=False),
    "openhands": Case(openhands_mends, library(openhands.NAME, is_streaming=False), has_ids=True),
    "openai-agents": Case(with_bash, library("openai-agents", api="responses", **LASTING), has_ids=False),
    "langgraph": Case(with_bash, library("langgraph", **LASTING), has_ids=False),
    "codex": Case(codex_mends, program(Codex, codex.NAME), has_ids=True),
    # Each of its processes takes several seconds of a core to start.
    "opencode": Case(
        opencode_mends, program(OpenCode, opencode.NAME), has_ids=True, agents=4, fail_every=FAIL_EVERY // 2
    ),
}
STREAMING = Case(openhands_mends, library(openhands.NAME, is_streaming=True), has_ids=True)


@pytest.mark.parametrize("name", [*CASES, "openhands, streaming"])
async def test_a_failing_backend_costs_a_retry_and_no_session(
    failing: World, environments: Environments, tmp_path: Path, name: str
) -> None:
    """The retries are retries of their session, also of those that send no id."""
    case = CASES.get(name, STREAMING)
    failing.relay.fail_every = case.fail_every
    tasks = make_tasks(tmp_path, f"{name.replace(', ', '-')}-faults", case.agents)
    case.mends(failing, tasks)
    assert [end.failure for end in await case.run(failing, environments, tasks) if end.failure] == []
    assert_done(tasks)
    assert faults(failing) == Counter(Fault)
    assert_recovered(await failing.observed(), len(tasks), faults=len(Fault), allowed=ASIDE.get(name, ()))


async def restart_in_the_middle(world: World, turns: int) -> None:
    while len(world.relay.asked) < turns:  # noqa: ASYNC110 (the relay has no event for it)
        await asyncio.sleep(0.05)
    await world.stop_proxy()
    await world.start_proxy()


@pytest.mark.parametrize("name", CASES)
async def test_a_restart_of_the_proxy_loses_no_task(
    world: World, environments: Environments, tmp_path: Path, name: str
) -> None:
    """Without an id it is a new session to the new proxy, and one only."""
    case = CASES[name]
    tasks = make_tasks(tmp_path, f"{name}-restart", case.agents)
    case.mends(world, tasks)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(case.run(world, environments, tasks))
        group.create_task(restart_in_the_middle(world, turns=12))
    assert [end.failure for end in running.result() if end.failure] == []
    assert_done(tasks)
    seen = await world.observed()
    allowed = (TurnKind.RETRY, *ASIDE.get(name, ()))
    if case.has_ids:
        assert len(seen.sessions) == len(tasks)
        assert seen.unexpected(TurnKind.FIRST, *allowed) == []
    else:
        assert len(tasks) < len(seen.sessions) <= 2 * len(tasks)
        assert seen.unexpected(*allowed) == []
