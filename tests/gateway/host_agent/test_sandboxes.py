"""Commands in a sandbox: what they see and may write, and that they end as any command does. Where bubblewrap
cannot make one (the agent finds out by trying, and so do these tests), that they do not run at all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.host_agent.isolation import Isolation
from gateway.host_agent.wire import MARKER, Op
from tests.gateway.host_agent.confined import FIRST, IS_ROOT, USERS, Agent, agent_of, open_directory
from tests.gateway.host_agent.host import processes_of

pytestmark = pytest.mark.slow  # real processes throughout

SANDBOX = Isolation(sandbox="bwrap")
BOTH = Isolation(USERS.session_uids, "bwrap")


@pytest.fixture
def directory() -> Iterator[Path]:
    with open_directory() as directory:
        yield directory


@pytest.fixture(params=[SANDBOX, BOTH], ids=["sandbox", "sandbox and users"])
async def agent(request: pytest.FixtureRequest, directory: Path) -> AsyncIterator[Agent]:
    """With a session where there can be one."""
    isolation = request.param if IS_ROOT else SANDBOX
    async with agent_of(directory, isolation) as agent:
        await agent.put("s")
        yield agent


async def has_sandbox(agent: Agent) -> bool:
    """Else its commands are refused for the reason that it tells."""
    holds = await agent.execs.holds(agent.caller.isolation)
    assert (holds["sandbox"] == "bwrap") == (holds["refuses_commands"] is None)
    if holds["refuses_commands"] is not None:
        assert await agent.refused_command() == holds["refuses_commands"]
        assert holds["refuses_commands"].startswith("sandbox: ")
    return bool(holds["sandbox"] == "bwrap")


async def test_only_the_workspace_can_be_written(agent: Agent) -> None:
    if not await has_sandbox(agent):
        return
    places = "/ /etc /usr /var /proc/sys /sys /dev/pts .."
    tried = await agent.run(f"for p in {places}; do touch $p/mars-trial && echo wrote $p; done; touch here")
    assert (tried["returncode"], tried["out"]) == (0, b"")
    workspace = agent.workspaces.path("s")
    assert (workspace / "here").stat().st_uid == (FIRST if agent.caller.isolation == BOTH else os.geteuid())
    assert (
        await agent.out("echo x > /dev/null; head -c 3 /dev/zero | wc -c; cat /proc/self/comm") == "3\ncat\n"
    )


async def test_tmp_is_the_sessions_own(agent: Agent) -> None:
    if not await has_sandbox(agent):
        return
    await agent.put("t")
    await agent.out("echo mine > /tmp/mars-own; echo mine > /var/tmp/mars-own-2; echo x > /dev/shm/x")
    assert await agent.out("cat /tmp/mars-own /tmp/mars-own-2") == "mine\nmine\n"
    assert await agent.out("ls -A /tmp | grep -v confined; ls -A /dev/shm", session="t") == ""
    seen = await agent.run("cat /tmp/mars-own /dev/shm/x", session="t")
    assert (seen["returncode"], seen["out"]) == (1, b"")
    assert "mars-own" not in os.listdir("/tmp")  # noqa: PTH208 - names only


async def test_tmp_is_there_for_the_next_agent(directory: Path) -> None:
    async with agent_of(directory, SANDBOX) as agent:
        await agent.put("s")
        if not await has_sandbox(agent):
            return
        await agent.out("echo mine > /tmp/mine")
    async with agent_of(directory, SANDBOX) as agent:
        assert await agent.out(
            "cat /tmp/mine; pwd; echo $HOME"
        ) == f"mine\n{agent.workspaces.path('s')}\n" + (f"{agent.workspaces.path('s')}\n")
        await agent.remove("s")
    assert list((directory / "sessions").iterdir()) == []


async def test_the_agent_and_other_sessions_cannot_be_seen(agent: Agent) -> None:
    """Nor its socket, nor those of the machine."""
    if not await has_sandbox(agent):
        return
    other = await agent.put("t")
    await agent.out("echo secret > file; chmod 777 . file", session="t")
    seen = await agent.run(f"ls -A {agent.directory}; ls -A {agent.directory}/sessions; cat {other}/file")
    assert seen["out"] == b"sessions\ns\n"
    assert (await agent.run("ls /run/dbus /run/systemd/private /run/docker.sock"))["out"] == b""


async def test_it_ends_as_any_command_does(agent: Agent) -> None:
    if not await has_sandbox(agent):
        return
    for text, returncode in [("exit 7", 7), ("kill -TERM $$", -15), ("kill -9 $$", -9), ("exit 137", 137)]:
        assert (await agent.run(text))["returncode"] == returncode
    with pytest.raises(Exception, match="no such program") as refused:
        await agent.start(argv=["no-such-program-x"], env={"PATH": "/usr/bin:/bin"})
    assert refused.value.fields["exit_code"] == 127  # type: ignore[attr-defined]
    assert (await agent.run("cat", stdin=b"in"))["out"] == b"in"


async def test_signals_and_deadlines_reach_it(agent: Agent) -> None:
    if not await has_sandbox(agent):
        return
    exec_id = await agent.start("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.02; done")
    await agent.printed(exec_id, b"up")
    await agent.ask(Op.STOP, exec=exec_id, grace_s=30)
    ended = await agent.ended(exec_id)
    assert (ended["ended_by"], ended["returncode"]) == ("stop", 3)
    assert await agent.output(exec_id) == b"up\nbye\n"
    late = await agent.run("sleep 300", timeout_s=0.3, kill_grace_s=0)
    assert late["ended_by"] == "timeout"


async def test_nothing_of_it_is_left(agent: Agent) -> None:
    """By the control group, or by the mark; and the leader is the command itself, not a bwrap before it."""
    if not await has_sandbox(agent):
        return
    exec_id = await agent.start(f"setsid sleep 300 & setsid sleep 300 & echo ${MARKER} $PPID; sleep 300")
    said = (await agent.printed(exec_id, b"\n")).split()
    assert said == [exec_id.encode(), str(os.getpid()).encode()]
    assert len(processes_of(exec_id)) >= 3
    await agent.ask(Op.STOP, exec=exec_id, grace_s=0)
    await agent.ended(exec_id)
    assert processes_of(exec_id) == []


async def test_terminal_and_state(agent: Agent) -> None:
    if not await has_sandbox(agent):
        return
    said = await agent.out("stty size; echo t > /dev/tty", tty={"cols": 70, "rows": 20})
    assert said == "20 70\r\nt\r\n"
    await agent.out("mkdir d; cd d; export KEPT=1", state="env_cwd")
    assert await agent.out("basename $PWD; echo $KEPT", state="env_cwd") == "d\n1\n"


async def test_directories_that_only_the_command_sees(agent: Agent) -> None:
    """In the session's own /tmp."""
    if not await has_sandbox(agent):
        return
    await agent.out("mkdir /tmp/mars-deep; cd /tmp/mars-deep", state="env_cwd")
    assert await agent.out("pwd", state="env_cwd") == "/tmp/mars-deep\n"
    assert await agent.out("pwd", cwd="/tmp/mars-deep", allow_outside=True) == "/tmp/mars-deep\n"
    await agent.out("rmdir $PWD", state="env_cwd")
    assert await agent.out("pwd", state="env_cwd") == f"{agent.workspaces.path('s')}\n"
    refused = await agent.refused_command(cwd="/tmp/mars-deep", allow_outside=True)
    assert refused == "its working directory cannot be entered: No such file or directory"


async def test_nobody_in_it_has_power(agent: Agent) -> None:
    """What is read-only cannot be mounted again, root or not."""
    if not await has_sandbox(agent):
        return
    said = await agent.out("grep -E 'CapEff|CapPrm|NoNewPrivs' /proc/self/status")
    assert said == "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n"
    agents = f"ls /proc/{os.getpid()}/root/; cat /proc/{os.getpid()}/environ; "
    tried = await agent.run(agents + "mount -o remount,rw /; umount /run; echo 1 > /proc/sys/vm/laptop_mode")
    assert (tried["returncode"], tried["out"]) == (1, b"")
    assert b"laptop_mode: Read-only file system" in tried["err"] or b"laptop_mode: Permission" in tried["err"]
    await agent.run("touch /mars-trial")
    assert "mars-trial" not in os.listdir("/")  # noqa: PTH208 - names only


async def test_a_session_takes_its_sandbox_along(agent: Agent) -> None:
    if not await has_sandbox(agent):
        return
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only
    for name in ("x", "y"):
        await agent.put(name)
        await agent.out("true", session=name)
        assert len(os.listdir("/proc/self/fd")) > before  # noqa: PTH208
        await agent.remove(name)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


BROKEN = {
    "echo 'bwrap: No permissions to create new namespace' >&2; exit 1": "cannot make one here: bwrap",
    "exit 0": "it says nothing",
    'while [ "$1" != sh ]; do shift; done; exec "$@"': "what bwrap makes here is not read-only",
}
"""What a bwrap does -> what is said of it. The last one isolates nothing."""


@pytest.mark.parametrize(("program", "message"), BROKEN.items(), ids=["refuses", "is mute", "does nothing"])
async def test_a_bwrap_that_cannot(
    directory: Path, monkeypatch: pytest.MonkeyPatch, program: str, message: str
) -> None:
    """Nothing runs; nothing but the truth is told."""
    programs = directory / "bin"
    programs.mkdir()
    (programs / "bwrap").write_text(f"#!/bin/sh\n{program}\n")
    (programs / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    async with agent_of(directory / "agent", SANDBOX) as agent:
        await agent.put("s")
        assert not await has_sandbox(agent)
        assert message in (await agent.execs.holds(SANDBOX))["refuses_commands"]
        assert await agent.execs.holds(Isolation()) == {
            "sandbox": "none",
            "isolates_sessions": False,
            "refuses_commands": None,
        }


AS_NOBODY = """
import asyncio, os, sys
from pathlib import Path
from gateway.host_agent.isolation import Isolation
from tests.gateway.host_agent.confined import agent_of

async def main(directory):
    async with agent_of(directory, Isolation(sandbox="bwrap")) as agent:
        await agent.put("s")
        holds = await agent.execs.holds(agent.caller.isolation)
        if holds["refuses_commands"] is not None:
            assert await agent.refused_command() == holds["refuses_commands"]
            return holds["refuses_commands"]
        text = "id -u; touch /var/tmp/x here; touch /etc/x 2>&1; grep CapEff /proc/self/status; sleep 300 &"
        ended = await agent.run(text)
        assert ended["returncode"] == 0, ended
        return ended["out"].decode()

os.chown(sys.argv[1], 65534, 65534)
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
print(asyncio.run(main(Path(sys.argv[1]))))
"""


def test_an_agent_that_is_not_root(directory: Path) -> None:
    """Has user namespaces to enter as well. Some machines let nobody but root make them, and say so."""
    program = AS_NOBODY if IS_ROOT else AS_NOBODY.replace("os.chown(sys.argv[1], 65534, 65534)\n", "")
    done = subprocess.run(
        [sys.executable, "-c", program, str(directory)],
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if not done.stdout.startswith("sandbox: "):
        uid = 65534 if IS_ROOT else os.geteuid()
        message = "touch: cannot touch '/etc/x': Read-only file system"
        assert done.stdout == f"{uid}\n{message}\nCapEff:\t0000000000000000\n\n"
