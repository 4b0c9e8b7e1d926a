"""What is demanded holds, or nothing is run; and without demands all is as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.host_agent.isolation import Isolation
from gateway.host_agent.session_uids import is_mapped
from gateway.host_agent.wire import Fault, Op
from tests.gateway.host_agent.confined import FIRST, IS_ROOT, USERS, agent_of, open_directory

pytestmark = pytest.mark.slow  # real processes throughout


@pytest.fixture
def directory() -> Iterator[Path]:
    with open_directory() as directory:
        yield directory


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def test_without_demands_nothing_is_different(directory: Path) -> None:
    async with agent_of(directory, Isolation()) as agent:
        workspace = await agent.put("s")
        assert (workspace.stat().st_uid, mode_of(directory)) == (os.geteuid(), 0o700)
        assert await agent.out("id -u; grep NoNewPrivs /proc/self/status; ls -a ..") == (
            f"{os.geteuid()}\nNoNewPrivs:\t0\n.\n..\nrecord.json\nworkspace\n"
        )
        assert await agent.execs.holds(Isolation()) == {
            "sandbox": "none",
            "isolates_sessions": False,
            "refuses_commands": None,
        }


async def test_users_are_given_by_root_alone(directory: Path) -> None:
    async with agent_of(directory, USERS) as agent:
        holds = await agent.execs.holds(USERS)
        assert (holds["isolates_sessions"], holds["refuses_commands"] is None) == (IS_ROOT, IS_ROOT)
        if not IS_ROOT:
            assert "as root" in (await agent.refused(Op.SESSION_PUT, session="s", record={})).message
            agent.caller.isolation = Isolation()
            await agent.put("s")
            agent.caller.isolation = USERS
            assert "as root" in await agent.refused_command()


def test_users_that_a_container_does_not_have() -> None:
    whole = "         0          0 4294967295\n"
    rootless = "0 1000 1\n1 100000 65536\n"
    assert is_mapped(200_000, 265_535, whole)
    assert is_mapped(1000, 65_536, rootless)
    assert is_mapped(5, 25, "10 0 20\n0 500 10\n")
    for first, last in ((200_000, 265_535), (65_000, 65_537), (65_537, 65_537)):
        assert not is_mapped(first, last, rootless)


async def test_users_that_could_not_reach_their_workspaces(directory: Path) -> None:
    """The directory above is closed, and is named; nothing is opened up that is not ours."""
    closed = directory / "closed"
    (closed / "agent").mkdir(mode=0o700, parents=True)
    closed.chmod(0o700)
    async with agent_of(closed / "agent", USERS) as agent:
        refused = await agent.refused(Op.SESSION_PUT, session="s", record={})
        why_not = "as root" if not IS_ROOT else f"{closed} is closed to other users"
        assert refused.fault == Fault.FORBIDDEN
        assert why_not in refused.message
        assert why_not in (await agent.execs.holds(USERS))["refuses_commands"]
        assert list((closed / "agent/sessions").iterdir()) == []
    assert mode_of(closed) == 0o700


async def test_a_session_from_before_the_setting_runs_nothing(directory: Path) -> None:
    """What is in its workspace is ours, and cannot be given away safely."""
    async with agent_of(directory, Isolation()) as agent:
        await agent.put("s")
        agent.caller.isolation = USERS
        refused = await agent.refused(Op.SESSION_PUT, session="s", record={})
        assert refused.fault == Fault.FORBIDDEN
        assert ("without a user of its own" if IS_ROOT else "as root") in refused.message or not IS_ROOT
        assert ("end it and make it again" if IS_ROOT else "as root") in await agent.refused_command()


async def test_a_session_keeps_its_user_when_the_setting_goes(directory: Path) -> None:
    async with agent_of(directory, USERS) as agent:
        if not IS_ROOT:
            assert "as root" in (await agent.refused(Op.SESSION_PUT, session="s", record={})).message
            return
        await agent.put("s")
        agent.caller.isolation = Isolation()
        await agent.put("s")
        assert await agent.out("id -u") == f"{FIRST}\n"


async def test_a_refused_command_may_be_asked_for_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It left nothing: when the host can do it, the same id runs."""
    async with agent_of(directory, Isolation(sandbox="bwrap")) as agent:
        await agent.put("s")
        monkeypatch.setenv("PATH", str(directory))
        assert "there is no bwrap" in await agent.refused_command(exec="ex-again")
        assert (await agent.execs.holds(agent.caller.isolation))["sandbox"] == "none"
        agent.caller.isolation = Isolation()
        monkeypatch.undo()
        assert await agent.out("echo hi", exec="ex-again") == "hi\n"
