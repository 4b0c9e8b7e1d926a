"""The agent as a process: one per directory, started by who needs it, ended by what should end it."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.host_agent import wire
from gateway.host_agent.connect import NoAgent
from gateway.host_agent.connect import connected as connect_to
from gateway.host_agent.program import EXIT_TAKEN
from gateway.host_agent.unix_socket import try_connect
from gateway.host_agent.wire import Op
from tests.gateway.host_agent.asking import Peer, connected

pytestmark = pytest.mark.slow  # real processes throughout

ProcessesOf = Callable[[str], list[int]]
AGENT = [sys.executable, "-m", "gateway.host_agent"]


def environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd())}


def start(*arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([*AGENT, *arguments], env=environment(), **options)


async def until_it_answers(directory: Path) -> None:
    while (agent := try_connect(directory)) is None:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.01)
    agent.close()


@contextlib.asynccontextmanager
async def agent_of(directory: Path, *flags: str, **options: Any) -> AsyncIterator["subprocess.Popen[bytes]"]:
    process = start("serve", str(directory), *flags, **options)
    try:
        await until_it_answers(directory)
        yield process
    finally:
        process.kill()
        process.wait()


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def ended(process: "subprocess.Popen[bytes]") -> int:
    return await asyncio.to_thread(process.wait, 30)


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Path]:
    """A directory whose agents, which nobody's child, are ended after the test."""
    directory = tmp_path / "agent"
    yield directory
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir("/proc"):
            if entry.name.isdigit() and str(directory).encode() in command_line(int(entry.name)):
                os.kill(int(entry.name), signal.SIGKILL)


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def agents_of(directory: Path) -> list[int]:
    words = [b"serve", str(directory).encode()]
    pids = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    return [pid for pid in pids if command_line(pid).split(b"\0")[3:5] == words]


async def run_echo(peer: Peer) -> bytes:
    """A command from its session to its output."""
    workspace = (await peer.ask(Op.SESSION_PUT, session="s", record={})).header["workspace"]
    order = {
        "exec": "e1",
        "session": "s",
        "argv": ["echo", "hi"],
        "cwd": ".",
        "env": {},
        "timeout_s": 30,
        "kill_grace_s": 1,
        "output": {"max_bytes": 1000, "merge": False},
        "record": {},
    }
    started = (await peer.ask(Op.START, **order)).header
    assert started["ok"], started
    assert os.access(workspace, os.W_OK)
    over = (await peer.ask(Op.WAIT, exec="e1", wait_s=30, inline_bytes=0)).header
    assert (over["state"], over["ended_by"], over["returncode"]) == ("ended", "itself", 0)
    return (await peer.ask(Op.READ, exec="e1", stream="stdout", offset=0, limit=100, wait_s=0)).payload


async def test_a_command_from_hello_to_output(agents: Path) -> None:
    async with agent_of(agents), connected(agents) as peer:
        hello = (await peer.hello()).header
        assert (hello["version"], hello["agent"], len(hello["instance"])) == (wire.VERSION, None, 16)
        assert "containment" in hello["capabilities"]
        assert isinstance(hello["capabilities"]["has_pressure"], bool)
        assert await run_echo(peer) == b"hi\n"
        assert [mode_of(agents), mode_of(agents / "agent.sock")] == [0o700, 0o600]


async def test_every_operation_is_there(agents: Path) -> None:
    """A name that nobody serves would be refused as unknown."""
    names = {value for name, value in vars(Op).items() if name.isupper()} - {Op.HELLO, Op.CANCEL, Op.RETIRE}
    async with agent_of(agents), connected(agents) as peer:
        await peer.hello()
        for name in names:
            assert (await peer.ask(name)).header.get("error") != "unknown_op", name


async def test_one_agent_per_directory(agents: Path) -> None:
    async with agent_of(agents):
        assert await ended(start("serve", str(agents))) == EXIT_TAKEN
        async with connected(agents) as peer:
            assert (await peer.hello()).header["ok"] is True


async def test_an_agent_that_was_killed_is_followed_by_another(agents: Path) -> None:
    """Its socket lies there, and its sessions."""
    async with agent_of(agents) as first, connected(agents) as peer:
        await peer.hello()
        await peer.ask(Op.SESSION_PUT, session="s", record={"kept": 1})
        first.kill()
        await ended(first)
        assert try_connect(agents) is None
        assert (agents / "agent.sock").exists()
    async with agent_of(agents), connected(agents) as peer:
        await peer.hello()
        sessions = (await peer.ask(Op.SESSION_LIST)).header["sessions"]
        assert [(each["session"], each["record"]) for each in sessions] == [("s", {"kept": 1})]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_and_its_commands(
    agents: Path, number: signal.Signals, processes_of: ProcessesOf
) -> None:
    async with agent_of(agents) as process, connected(agents) as peer:
        await start_sleep(peer)
        assert processes_of("MARS_EXEC_ID=sleeper") != []
        process.send_signal(number)
        assert await ended(process) == 0
        assert processes_of("MARS_EXEC_ID=sleeper") == []
        assert await peer.is_over()
        assert not (agents / "agent.sock").exists()


async def start_sleep(peer: Peer) -> None:
    await peer.hello()
    await peer.ask(Op.SESSION_PUT, session="s", record={})
    output = {"max_bytes": 1000, "merge": False}
    order = {"exec": "sleeper", "session": "s", "argv": ["sleep", "600"], "cwd": ".", "env": {}, "record": {}}
    answer = await peer.ask(Op.START, **order, timeout_s=600, kill_grace_s=1, output=output)
    assert answer.header["ok"], answer.header


async def test_hanging_up_means_nothing(agents: Path) -> None:
    async with agent_of(agents) as process, connected(agents) as peer:
        process.send_signal(signal.SIGHUP)
        assert (await peer.hello()).header["ok"] is True


async def test_until_eof(agents: Path, processes_of: ProcessesOf) -> None:
    """A gateway that dies, however it dies, takes a private agent with it."""
    async with agent_of(agents, "--until-eof", stdin=subprocess.PIPE) as process, connected(agents) as peer:
        await start_sleep(peer)
        assert process.stdin is not None
        process.stdin.close()
        assert await ended(process) == 0
        assert processes_of("MARS_EXEC_ID=sleeper") == []


async def test_idle_exit(agents: Path) -> None:
    """Not while somebody is connected, nor while a command runs."""
    async with agent_of(agents, "--idle-exit-s", "0.2") as process:
        async with connected(agents) as peer:
            await start_sleep(peer)
        await asyncio.sleep(0.6)
        assert process.poll() is None
        async with connected(agents) as peer:
            await peer.hello()
            await peer.ask(Op.STOP, exec="sleeper", grace_s=1)
            await peer.ask(Op.WAIT, exec="sleeper", wait_s=30)
            await asyncio.sleep(0.6)
            assert process.poll() is None
        assert await ended(process) == 0


async def test_retire(agents: Path) -> None:
    """It stays for a command that runs, unless that is to end too; its answer arrives."""
    async with agent_of(agents) as process, connected(agents) as peer:
        await start_sleep(peer)
        assert (await peer.ask(Op.RETIRE, end_running=False)).header["did_retire"] is False
        assert (await peer.ask(Op.RETIRE, end_running=True)).header["did_retire"] is True
        assert await peer.is_over()
        assert await ended(process) == 0


async def test_the_log_says_when_and_not_what(agents: Path) -> None:
    async with agent_of(agents) as process:
        async with connected(agents) as peer:
            await peer.hello()
            await run_echo(peer)
        process.terminate()
        await ended(process)
    text = (agents / "agent.log").read_text()
    assert " serves, pid " in text
    assert "echo" not in text


async def test_connect_starts_an_agent_and_copies(agents: Path) -> None:
    """As at the far end of an SSH channel. The agent stays, of a session of its own, when we have gone."""
    answers, process = await through_connect(
        agents, [(Op.HELLO, {"versions": [wire.VERSION]}), (Op.OBSERVE, {})]
    )
    assert [answer.header["ok"] for answer in answers] == [True, True]
    assert await ended(process) == 0
    (agent,) = agents_of(agents)
    assert os.getsid(agent) == agent
    again, process = await through_connect(agents, [(Op.HELLO, {"versions": [wire.VERSION]})])
    assert again[0].header["instance"] == answers[0].header["instance"]
    await ended(process)


async def through_connect(
    directory: Path, requests: list[tuple[str, dict[str, Any]]]
) -> tuple[list[wire.Frame], "subprocess.Popen[bytes]"]:
    """Sends all, ends its side, and reads to the end."""
    process = start("connect", str(directory), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    frames = [wire.encode({"id": n, "op": op, **fields}) for n, (op, fields) in enumerate(requests)]
    data, _ = await asyncio.to_thread(process.communicate, b"".join(frames), 60)
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    answers = []
    while not reader.at_eof():
        sizes = wire.lengths(await reader.readexactly(wire.LENGTHS_BYTES))
        answers.append(wire.decode(*[await reader.readexactly(size) for size in sizes]))
    return answers, process


async def test_nothing_is_lost_through_connect(agents: Path) -> None:
    """16 MB each way, and the last of it after our side has ended."""
    data = os.urandom(1 << 20)
    process = start("connect", str(agents), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    put = {"op": Op.SESSION_PUT, "session": "s", "record": {}}
    frames = [
        wire.encode({"id": 0, "op": Op.HELLO, "versions": [wire.VERSION]}),
        wire.encode({"id": 1, **put}),
    ]
    for n in range(16):
        fields = {"path": f"f{n}", "upload": str(n), "offset": 0, "is_last": True}
        frames.append(wire.encode({"id": f"w{n}", "op": Op.FILE_WRITE, "session": "s", **fields}, data))
        fields = {"path": f"f{n}", "offset": 0, "limit": 1 << 20}
        frames.append(wire.encode({"id": f"r{n}", "op": Op.FILE_READ, "session": "s", **fields}))
    out, _ = await asyncio.to_thread(process.communicate, b"".join(frames), 60)
    assert out.count(data) == 16
    assert process.returncode == 0


async def test_many_connect_at_once(agents: Path) -> None:
    """All of them to one agent; the others that were started find its lock and end."""
    hello = [(Op.HELLO, {"versions": [wire.VERSION]})]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(through_connect(agents, hello)) for _ in range(5)]
    assert len({task.result()[0][0].header["instance"] for task in tasks}) == 1
    while len(agents_of(agents)) > 1:  # noqa: ASYNC110 - other processes
        await asyncio.sleep(0.01)
    assert len(agents_of(agents)) == 1


async def test_connect_ends_with_its_agent(agents: Path) -> None:
    async with agent_of(agents) as agent:
        process = start("connect", str(agents), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdin.write(wire.encode({"id": 0, "op": Op.HELLO, "versions": [wire.VERSION]}))  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        assert await asyncio.to_thread(process.stdout.read, 8)  # type: ignore[union-attr]
        agent.kill()
        assert await ended(process) == 0
        process.communicate()


def test_connect_says_why_there_is_no_agent(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [*AGENT, "connect", str(tmp_path / "file" / "x")], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "no agent in" in done.stderr
    assert "Not a directory" in done.stderr


def test_an_agent_that_cannot_start_is_told(tmp_path: Path) -> None:
    (tmp_path / "sessions").touch()
    with pytest.raises(NoAgent, match="ended with exit code 1"):
        connect_to(tmp_path)
