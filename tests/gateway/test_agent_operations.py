"""Every operation that a gateway asks of a host, asked of a real agent."""

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.agent_bundle import build_agent
from gateway.agent_client import AgentHost
from gateway.host import EndedBy, HostFault, ResourceLimits, RunOrder, StartError, TerminalSize
from gateway.host_agent.wire import Fault
from gateway.protocol import StreamName
from tests.gateway.local_way import LocalWay
from tests.gateway.orders import order

pytestmark = pytest.mark.slow  # real processes throughout

S = StreamName


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[AgentHost]:
    async with LocalWay(tmp_path / "agent", build_agent(), is_private=True) as way:
        await way.host.put_session("s", {"owner": "acme"})
        yield way.host


async def printed(host: AgentHost, exec_id: str) -> bytes:
    ended = await host.wait(exec_id, 20, inline_bytes=1000)
    assert ended.ended_by is EndedBy.ITSELF
    assert ended.head is not None
    return ended.head[S.STDOUT]


async def test_capabilities_are_understood(host: AgentHost) -> None:
    """Every one of them: none of the fields is missing or of another type."""
    assert host.capabilities is not None


async def test_input_at_once_and_piece_by_piece(host: AgentHost) -> None:
    """A piece that comes again is not written again."""
    await host.start(order("cat", "ex-1", stdin=b"at once"))
    assert await printed(host, "ex-1") == b"at once"
    await host.start(order("cat", "ex-2", stdin=b"one ", keeps_stdin=True))
    assert await host.write_stdin("ex-2", b"two ", 4, is_eof=False) == 8
    assert await host.write_stdin("ex-2", b"two ", 4, is_eof=False) == 8
    assert await host.write_stdin("ex-2", b"three", 8, is_eof=True) == 13
    assert await printed(host, "ex-2") == b"one two three"


async def test_output_is_read_while_it_comes(host: AgentHost) -> None:
    """To its end and not beyond."""
    await host.start(order("echo one; read x; echo two", "ex-1", keeps_stdin=True))
    first = await host.read("ex-1", S.STDOUT, 0, 100, 20)
    assert (first.data, first.next_offset, first.is_eof) == (b"one\n", 4, False)
    async with asyncio.TaskGroup() as tasks:
        rest = tasks.create_task(host.read("ex-1", S.STDOUT, 4, 100, 20))
        await host.write_stdin("ex-1", b"\n", 0, is_eof=True)
    assert rest.result().data == b"two\n"
    await host.wait("ex-1", 20)
    last = await host.read("ex-1", S.STDOUT, 8, 100, 0)
    assert (last.data, last.is_eof, last.total_bytes, last.kept_bytes) == (b"", True, 8, 8)


async def test_signal_and_stop(host: AgentHost) -> None:
    """Both are told as what they were."""
    await host.start(order("exec sleep 1000", "ex-1"))
    assert await host.signal("ex-1", "SIGTERM", "group")
    ended = await host.wait("ex-1", 20)
    assert (ended.ended_by, ended.returncode) == (EndedBy.ITSELF, -15)
    assert not await host.signal("ex-1", "SIGTERM", "group")
    await host.start(order("exec sleep 1000", "ex-2"))
    await host.stop("ex-2", 0)
    await host.stop("ex-2", 0)
    assert (await host.wait("ex-2", 20)).ended_by is EndedBy.STOP


async def test_terminal(host: AgentHost) -> None:
    """Of the size that was ordered, then of another."""
    await host.start(
        order("stty size; read x; stty size", "ex-1", tty=TerminalSize(80, 24), keeps_stdin=True)
    )
    assert b"24 80" in (await host.read("ex-1", S.STDOUT, 0, 100, 20)).data
    await host.resize("ex-1", TerminalSize(100, 30))
    await host.write_stdin("ex-1", b"\n", 0, is_eof=False)
    assert b"30 100" in await printed(host, "ex-1")


async def test_what_cannot_be_started(host: AgentHost) -> None:
    """Never was, with the exit code of a shell."""
    with pytest.raises(StartError) as error:
        await host.start(order("true", "ex-1", cwd="/nowhere"))
    assert error.value.exit_code is None
    with pytest.raises(StartError) as error:
        await host.start(replace(order("", "ex-2"), argv=("no-such-program",)))
    assert error.value.exit_code == 127
    with pytest.raises(StartError):
        await host.start(order("true", "ex-3", session="none"))


def in_bash(command: str, exec_id: str, **changes: Any) -> RunOrder:
    return replace(order("", exec_id, **changes), argv=("bash", "-c", command))


async def test_settings_of_a_command(host: AgentHost) -> None:
    """State that is kept, limits, output in one stream."""
    limits = ResourceLimits(fsize_mb=1)
    await host.start(in_bash("export A=kept; ulimit -f", "ex-1", keeps_state=True, limits=limits))
    assert (await printed(host, "ex-1")).strip() not in (b"", b"unlimited")
    await host.start(in_bash("echo $A; echo err >&2", "ex-2", keeps_state=True, merges_output=True))
    assert await printed(host, "ex-2") == b"kept\nerr\n"


async def test_list_and_forget(host: AgentHost) -> None:
    """With the record of each, to go on by."""
    for n in range(3):
        await host.start(order("true", f"ex-{n}", record={"n": n}))
        await host.wait(f"ex-{n}", 20)
    assert [(each.exec_id, each.record) for each in await host.list_execs()] == [
        (f"ex-{n}", {"n": n}) for n in range(3)
    ]
    await host.forget("ex-1", 60.0)
    await host.forget("ex-1", 60.0)
    with pytest.raises(HostFault):
        await host.read("ex-1", S.STDOUT, 0, 10, 0)
    again = await host.start(order("true", "ex-1"))
    assert (again.existed, again.ended_by, again.returncode) == (True, EndedBy.NOBODY, None)
    assert (await host.wait("ex-1", 20)).ended_by is EndedBy.NOBODY


async def test_sessions(host: AgentHost) -> None:
    """Are there until they are removed; what runs in one ends with it."""
    (session,) = await host.list_sessions()
    assert (session.name, session.record) == ("s", {"owner": "acme"})
    assert not (await host.put_session("s", {"owner": "acme"})).is_new
    await host.start(order("exec sleep 1000", "ex-1"))
    await host.remove_session("s")
    await host.remove_session("s")
    assert (await host.wait("ex-1", 20)).ended_by is EndedBy.STOP
    assert await host.list_sessions() == []


async def test_workspace_that_is_kept(host: AgentHost) -> None:
    """For the next session of its name."""
    await host.write_file("s", "f", "u", 0, b"kept", is_last=True, mode=None)
    await host.remove_session("s", keeps_workspace=True)
    await host.put_session("s", {})
    assert (await host.read_file("s", "f", 0, 10)).data == b"kept"


async def test_files(host: AgentHost) -> None:
    """Written whole, read in parts, removed once."""
    assert await host.write_file("s", "d/f", "u", 0, b"abc", is_last=False, mode=0o750) == 3
    assert await host.write_file("s", "d/f", "u", 3, b"def", is_last=True, mode=0o750) == 6
    file = await host.read_file("s", "d/f", 2, 3)
    assert (file.data, file.size, file.mode, file.is_eof) == (b"cde", 6, 0o750, False)
    assert await host.remove_file("s", "d")
    assert not await host.remove_file("s", "d")
    for path, code in (("d/f", Fault.NOT_FOUND), ("../f", Fault.OUTSIDE)):
        with pytest.raises(HostFault) as error:
            await host.read_file("s", path, 0, 1)
        assert error.value.code == code


async def test_archives(host: AgentHost) -> None:
    """In, and out again."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        entry = tarfile.TarInfo("f")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"abc"))
    handle = await host.open_archive("s", "in", "write")
    assert await host.write_archive(handle, packed.getvalue(), is_last=True) == 1
    await host.close_archive(handle)
    assert (await host.read_file("s", "in/f", 0, 10)).data == b"abc"
    handle, out, is_eof = await host.open_archive("s", "in", "read"), b"", False
    while not is_eof:
        data, is_eof = await host.read_archive(handle)
        out += data
    await host.close_archive(handle)
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        assert [name for name in tar.getnames() if name.endswith("f")] != []


async def test_reading(host: AgentHost) -> None:
    """Of the host, and of what runs."""
    await host.start(order("exec sleep 1000", "ex-1"))
    reading = await host.observe()
    assert reading.cores is not None
    assert reading.memory_total_mb is not None
    assert list(reading.execs) == ["ex-1"]
