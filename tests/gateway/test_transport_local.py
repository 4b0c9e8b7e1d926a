"""The way to a real agent on this machine."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.agent_bundle import AgentBundle, build_agent
from gateway.host import EndedBy
from gateway.link import ConnectError
from gateway.protocol import StreamName
from gateway.transport_local import LocalTransport
from tests.gateway.fake_agent import until
from tests.gateway.local_way import LocalWay, agents, commands
from tests.gateway.orders import order

pytestmark = pytest.mark.slow  # real processes throughout


@pytest.fixture(scope="module")
def bundle() -> AgentBundle:
    return build_agent()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "agent"
    yield directory
    for pid in [*agents(directory), *commands(directory)]:
        os.kill(pid, signal.SIGKILL)


async def test_runs_a_command(directory: Path, bundle: AgentBundle) -> None:
    """From its start to its output."""
    async with LocalWay(directory, bundle, is_private=True) as way:
        started = await way.run("echo out; echo err >&2; exit 3")
        assert not started.existed
        ended = await way.host.wait("ex-1", 20, inline_bytes=100)
        assert (ended.ended_by, ended.returncode) == (EndedBy.ITSELF, 3)
        assert ended.head == {StreamName.STDOUT: b"out\n", StreamName.STDERR: b"err\n"}
        assert (await way.host.start(order("exit 4", "ex-1"))).existed


async def test_free_agent_outlives_us(directory: Path, bundle: AgentBundle) -> None:
    """With what it runs: a gateway that is started again finds its commands."""
    async with LocalWay(directory, bundle) as way:
        await way.run("exec sleep 1000")
        instance = way.instance
    async with LocalWay(directory, bundle) as way:
        assert way.instance == instance
        (running,) = await way.host.list_execs()
        assert (running.exec_id, running.ended_by) == ("ex-1", None)
        await way.host.stop("ex-1", 0)
        assert (await way.host.wait("ex-1", 20)).ended_by is EndedBy.STOP
    assert len(agents(directory)) == 1


async def test_bound_agent_goes_with_us(directory: Path, bundle: AgentBundle) -> None:
    """With what it runs."""
    async with LocalWay(directory, bundle, is_private=True) as way:
        await way.run("exec sleep 1000")
        assert len(agents(directory)) == len(commands(directory)) == 1
    assert agents(directory) == commands(directory) == []


@pytest.mark.slow
async def test_agent_that_was_killed_is_started_again(directory: Path, bundle: AgentBundle) -> None:
    """Of either kind. What ran is known to have ended, and nobody says how."""
    for is_private in (True, False):
        where = directory / str(is_private)
        async with LocalWay(where, bundle, is_private=is_private) as way:
            await way.run("exec sleep 1000")
            instance = way.instance
            (agent,) = agents(where)
            os.kill(agent, signal.SIGKILL)
            ended = await way.host.wait("ex-1", 20)
            assert (ended.ended_by, ended.returncode) == (EndedBy.NOBODY, None)
            assert way.instance != instance
        for pid in agents(where):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
async def test_idle_agent_of_another_build_makes_way(directory: Path, bundle: AgentBundle) -> None:
    """The next gateway brings its own; one that runs a command stays."""
    other = AgentBundle(bundle.data + b"\0", "f" * 64)
    async with LocalWay(directory, bundle) as way:
        old = way.instance
    async with LocalWay(directory, other) as way:
        # The digest that it tells is of its file; ours here is made up, and so it is asked to leave.
        async with asyncio.timeout(30):
            while way.instance == old:  # noqa: ASYNC110 - it answers until it is gone
                await asyncio.sleep(0.02)
        await way.run("exec sleep 1000")
        busy = way.instance
    async with LocalWay(directory, bundle) as way:
        assert way.instance == busy


async def test_directory_with_a_long_path(directory: Path, bundle: AgentBundle) -> None:
    """A socket's own path may have 107 bytes."""
    async with LocalWay(directory / ("x" * 100) / ("y" * 100), bundle, is_private=True) as way:
        assert (await way.host.observe()).cores is not None


def damage(directory: Path, bundle: AgentBundle) -> None:
    directory.mkdir()
    (directory / bundle.file_name).write_bytes(bundle.data[:1000])


def programs(directory: Path) -> list[str]:
    return [path.name for path in directory.glob("*agent-*")]


async def test_damaged_program_is_replaced(directory: Path, bundle: AgentBundle) -> None:
    """A disk that was full leaves such files, and worse hands do."""
    damage(directory, bundle)
    async with LocalWay(directory, bundle, is_private=True) as way:
        assert (await way.host.observe()).cores is not None
    assert programs(directory) == [bundle.file_name]


async def test_agent_that_does_not_start_says_why(directory: Path, bundle: AgentBundle) -> None:
    """In the state of its link, for an administrator."""
    broken = AgentBundle(b"raise SystemExit('no luck')\n", "0" * 64)
    for is_private, expected in ((False, "no luck"), (True, "exit code 1")):
        transport = LocalTransport(directory, broken, is_private=is_private)
        with pytest.raises(ConnectError, match=expected):
            await transport.connect()
        await transport.close()


async def test_directory_that_cannot_be(tmp_path: Path, bundle: AgentBundle) -> None:
    """Is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConnectError, match=r"file.*exists"):
        await LocalTransport(tmp_path / "file", bundle).connect()


def environ_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_our_environment_stays_here(
    directory: Path, bundle: AgentBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has our secrets, and commands may read the agent's."""
    monkeypatch.setenv("MARS_GATEWAY_TOKENS", "acme:secret-of-ours")
    async with LocalWay(directory, bundle):
        (agent,) = agents(directory)
        environ = environ_of(agent)
        assert b"PATH=" in environ
        assert b"secret-of-ours" not in environ


@pytest.fixture
async def connecting(directory: Path, bundle: AgentBundle) -> AsyncIterator[LocalTransport]:
    transport = LocalTransport(directory, bundle, is_private=True)
    yield transport
    await transport.close()


async def test_connect_may_be_cancelled_anywhere(connecting: LocalTransport, directory: Path) -> None:
    """The next attempt works, and there is one agent in the end."""
    for delay_s in (0.0, 0.01, 0.05, 0.1, 0.3):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await (await connecting.connect()).close()
    await (await connecting.connect()).close()
    await until(lambda: len(agents(directory)) == 1)
