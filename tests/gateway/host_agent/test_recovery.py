"""An agent that comes after one that died."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.host_agent.operations import Refused
from gateway.host_agent.recovery import boot_id
from gateway.host_agent.wire import Fault, Op
from tests.gateway.host_agent.host import open_host, processes_of

pytestmark = pytest.mark.slow  # real processes throughout

ROOT = Path(__file__).parents[3]

both = pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "no-cgroups"])


@both
async def test_what_was_over_stays_answerable_and_is_not_run_again(tmp_path: Path, cgroups: bool) -> None:
    async with open_host(tmp_path, cgroups=cgroups) as host:
        before = await host.run("echo once >> log; echo out; exit 3", exec="ex-1", record={"a": 1})
        with pytest.raises(Refused):
            await host.start(argv=["no-such-program-x"], exec="ex-2")
        await host.run(exec="ex-3")
        await host.ask(Op.FORGET, exec="ex-3")
    async with open_host(tmp_path, cgroups=cgroups) as host:
        after = await host.start_frame("echo once >> log", exec="ex-1")
        assert after.header["existed"]
        assert (await host.ended("ex-1"))["returncode"] == 3
        assert after.header["stdout"] == before["stdout"]
        assert await host.output("ex-1") == b"out\n"
        assert (await host.ask(Op.LIST, after="", limit=10)).header["execs"][0]["record"] == {"a": 1}
        for exec_id, fault in {"ex-2": Fault.NOT_STARTED, "ex-3": Fault.GONE}.items():
            with pytest.raises(Refused) as refused:
                await host.start(exec=exec_id)
            assert refused.value.fault == fault
        assert refused.value.fields == {}
    assert (tmp_path / "workspaces/s/log").read_text() == "once\n"


@both
async def test_what_ran_is_ended_by_nobody_and_nothing_of_it_is_left(tmp_path: Path, cgroups: bool) -> None:
    async with open_host(tmp_path, cgroups=cgroups, end_running=False) as host:
        exec_id = await host.start(
            "echo up; setsid sleep 300 & sleep 300 & wait; echo never", record={"a": 1}
        )
        left = await at_least(3, exec_id)
    with reaping(left):
        async with open_host(tmp_path, cgroups=cgroups) as host:
            ended = await host.ended(exec_id)
            assert (ended["ended_by"], ended["returncode"]) == ("nobody", None)
            assert "died" in ended["reason"]
            assert await host.output(exec_id) == b"up\n"
            assert ended["stdout"] == (3, 3)
            assert processes_of(exec_id) == []
            assert (await host.start_frame(exec=exec_id)).header["existed"]
    async with open_host(tmp_path, cgroups=cgroups) as host:
        assert await host.ended(exec_id) == ended


@both
async def test_what_was_left_in_the_background_goes(tmp_path: Path, cgroups: bool) -> None:
    async with open_host(tmp_path, cgroups=cgroups, end_running=False) as host:
        ended = await host.run("sleep 300 & true", on_exit="keep")
        left = processes_of(ended["exec"])
    assert len(left) == 1
    with reaping(left):
        async with open_host(tmp_path, cgroups=cgroups) as host:
            assert (await host.ended(ended["exec"]))["returncode"] == 0
            assert processes_of(ended["exec"]) == []


async def test_a_process_that_got_the_number_is_not_harmed(tmp_path: Path) -> None:
    """As if the leader had ended and a stranger's group had its number now."""
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as stranger:  # noqa: ASYNC220
        directory = tmp_path / "execs/ex-1"
        directory.mkdir(parents=True)
        started = {"pid": stranger.pid, "start_ticks": 1, "boot_id": boot_id(), "started_unix_s": 5.0}
        (directory / "started").write_text(json.dumps(started))
        async with open_host(tmp_path) as host:
            ended = await host.ended("ex-1")
            assert (ended["ended_by"], ended["started_unix_s"]) == ("nobody", 5.0)
            assert stranger.poll() is None
        stranger.kill()


async def test_a_number_from_before_a_reboot_means_nothing(tmp_path: Path) -> None:
    async with open_host(tmp_path, cgroups=False, end_running=False) as host:
        exec_id = await host.start("exec env -u MARS_EXEC_ID bash -c 'echo unmarked; sleep 300'")
        await host.printed(exec_id, b"unmarked")
        started_file = tmp_path / "execs" / exec_id / "started"
        started = json.loads(started_file.read_text())
    started_file.write_text(json.dumps({**started, "boot_id": "another"}))
    with reaping([started["pid"]]):
        async with open_host(tmp_path, cgroups=False) as host:
            assert "host was restarted" in (await host.ended(exec_id))["reason"]
            os.kill(started["pid"], signal.SIGKILL)  # It is there.


async def test_half_of_anything_is_no_answer(tmp_path: Path) -> None:
    """What a power cut left: a directory without an order, and an end that is cut off."""
    (tmp_path / "execs/ex-1").mkdir(parents=True)
    (tmp_path / "execs/ex-2").mkdir()
    (tmp_path / "execs/ex-2/exit").write_bytes(b'{"ended_by": "its')
    (tmp_path / "execs/.going-ex-3").mkdir()
    async with open_host(tmp_path) as host:
        for exec_id in ("ex-1", "ex-2"):
            assert (await host.ended(exec_id))["ended_by"] == "nobody"
            assert (await host.start_frame(exec=exec_id)).header["existed"]
    assert sorted(path.name for path in (tmp_path / "execs").iterdir()) == ["ex-1", "ex-2"]


AGENT = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.gateway.host_agent.host import open_host
async def main():
    async with open_host(Path(sys.argv[1])) as host:
        exec_id = await host.start("setsid bash -c 'while :; do echo x >> ticks; sleep 0.05; done' & "
            "while :; do echo x >> ticks; sleep 0.05; done", exec="ex-1", timeout_s=300)
        print(exec_id, flush=True)
        await asyncio.sleep(300)
asyncio.run(main())
"""


async def test_an_agent_that_is_killed_in_mid_command(tmp_path: Path) -> None:
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AGENT, str(tmp_path), str(ROOT), stdout=subprocess.PIPE
    )
    assert agent.stdout is not None
    assert await asyncio.wait_for(agent.stdout.readline(), 60) == b"ex-1\n"
    agent.kill()
    await agent.wait()
    await at_least(2, "ex-1")
    async with open_host(tmp_path) as host:
        assert (await host.ended("ex-1"))["ended_by"] == "nobody"
        ticks = tmp_path / "workspaces/s/ticks"
        size = ticks.stat().st_size
        await asyncio.sleep(0.3)
        assert ticks.stat().st_size == size
        assert processes_of("ex-1") == []


async def at_least(count: int, exec_id: str) -> list[int]:
    while len(pids := processes_of(exec_id)) < count:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)
    return pids


@contextlib.contextmanager
def reaping(pids: list[int]) -> Iterator[None]:
    """Of an agent that ended without its children: here they are still ours."""
    yield
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


async def test_another_gateways_command_of_the_same_id_is_let_be(tmp_path: Path) -> None:
    """Ids come from the keys of callers, who may say the same one to two gateways."""
    mine, others = tmp_path / "mine", tmp_path / "others"
    for each in (mine, others):
        each.mkdir()
    async with open_host(mine, cgroups=False, end_running=False) as host:
        await host.start("sleep 300", exec="ex-1")
        left = set(await at_least(1, "ex-1"))
    with reaping(list(left)):
        async with open_host(others, cgroups=False) as other:
            await other.start("sleep 300", exec="ex-1")
            theirs = set(await at_least(2, "ex-1")) - left
            async with open_host(mine, cgroups=False) as host:
                assert (await host.ended("ex-1"))["ended_by"] == "nobody"
                assert set(processes_of("ex-1")) == theirs
                assert (await other.ask(Op.LOOK, exec="ex-1")).header["state"] == "running"
