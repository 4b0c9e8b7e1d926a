"""OpenHands names its conversations itself; its sub-agents and its condenser are told apart."""

from pathlib import Path

import pytest

from marsproxy.core.evidence import TurnKind
from tests.agents import openhands
from tests.agents.answers import mends_with
from tests.agents.environments import Environments
from tests.agents.expectations import assert_done, assert_one_session_each, assert_tools_matched
from tests.agents.programs import shim
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
    assert_one_session_each(await world.observed(), len(tasks), turns=5, known_by="header")


async def test_sub_agents_are_children(world: World, environments: Environments, tmp_path: Path) -> None:
    tasks = make_tasks(tmp_path, "openhands-sub", 4)
    openhands.delegates(world.model, tasks)
    agents = world.library(environments, openhands.NAME, is_streaming=False, has_sub_agents=True)
    assert (await agents.run(tasks)).failure is None
    assert_done(tasks)
    seen = await world.observed()
    assert seen.unexpected() == []
    assert seen.unfinished() == []
    assert [len(session.turns) for session in seen.roots] == [4] * len(tasks)
    assert [len(session.turns) for session in seen.children] == [3] * len(tasks)
    assert {session.parent for session in seen.children} == {session.id for session in seen.roots}


async def test_condensed_histories_stay_with_their_sessions(
    world: World, environments: Environments, tmp_path: Path
) -> None:
    """The condenser's own call is a side call; what comes after it goes on with the session."""
    tasks = make_tasks(tmp_path, "openhands-long", 4)
    turns = openhands.mends_at_length(world.model, tasks)
    agents = world.library(environments, openhands.NAME, is_streaming=False, condense_after=10)
    assert (await agents.run(tasks)).failure is None
    assert_done(tasks)
    seen = await world.observed()
    assert len(seen.sessions) == len(tasks)
    assert seen.unexpected(TurnKind.SIDE, TurnKind.CONDENSED) == []
    assert seen.unfinished() == []
    for session in seen.sessions.values():
        sides = session.kinds.count(TurnKind.SIDE)
        assert sides == session.kinds.count(TurnKind.CONDENSED) > 0
        assert len(session.turns) == turns + sides


async def test_eight_whose_terminals_are_ours(
    world: World, environments: Environments, tmp_path: Path
) -> None:
    """What it types to set a terminal up, and to leave it, is no command of an answer."""
    tasks = make_tasks(tmp_path, "openhands-gwsh", 8)
    mends_with(world.model, tasks, "terminal", openhands.FINISH)
    terminal = {"shell_path": shim("gwsh")}
    agents = world.library(environments, openhands.NAME, is_streaming=False, terminal=terminal)
    assert (await agents.run(tasks)).failure is None
    assert_done(tasks)
    seen = await world.observed()
    assert_one_session_each(seen, len(tasks), turns=5, known_by="header")
    assert_tools_matched(seen, tasks, has_own_commands=True)
