"""Typed operations of a host whose agent a script plays."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.agent_client import AgentHost
from gateway.conversation import KeepAlive
from gateway.host import (
    EndedBy,
    HostFault,
    HostLost,
    ResourceLimits,
    RunOrder,
    StartError,
    StreamCount,
    TerminalSize,
)
from gateway.host_agent.wire import MAX_PAYLOAD_BYTES, Fault, Frame, Op
from gateway.introduction import Introduction
from gateway.link import Link, LinkSettings, LinkState
from gateway.protocol import StreamName
from tests.gateway.fake_agent import FakeAgent, fault, ok, until

RUNNING = {"exec": "e1", "state": "running"}
ENDED = {"exec": "e1", "state": "ended", "ended_by": "itself", "returncode": 3}


@pytest.fixture
async def agent() -> AsyncIterator[FakeAgent]:
    agent = FakeAgent()
    yield agent
    await agent.close()


@pytest.fixture
async def link(agent: FakeAgent) -> AsyncIterator[Link]:
    settings = LinkSettings(first_wait_s=0.01, longest_wait_s=0.02, keep_alive=KeepAlive(silence_s=3600))
    link = Link("h", agent, Introduction("gw"), settings=settings)
    link.open()
    yield link
    await link.close()


@pytest.fixture
def host(link: Link) -> AgentHost:
    return AgentHost(link, lost_after_s=60)


def order(**changes: Any) -> RunOrder:
    fields: dict[str, Any] = {
        "exec_id": "e1",
        "session": "s",
        "argv": ("true",),
        "cwd": ".",
        "env": {"A": "b"},
        "stdin": b"",
        "timeout_s": 9.0,
        "kill_grace_s": 5.0,
        "max_output_bytes": 100,
        "merges_output": False,
    }
    return RunOrder(**{**fields, **changes})


def breaks_first(agent: FakeAgent, op: str, answer: Frame) -> None:
    """The connection breaks when the first request comes; the second is answered."""

    async def answered(_: Frame) -> Frame:
        if agent.ops().count(op) == 1:
            agent.cut()
        return answer

    agent.answers[op] = answered


async def test_start_says_all_that_was_ordered(agent: FakeAgent, host: AgentHost) -> None:
    """In the words of the protocol."""
    agent.on(Op.START, ok(**RUNNING, existed=False))
    started = await host.start(
        order(
            stdin=b"in",
            limits=ResourceLimits(memory_mb=64, pids=10),
            cpu_weight=2.0,
            keeps_state=True,
            keeps_stdin=True,
            tty=TerminalSize(80, 24),
            keeps_children=True,
            merges_output=True,
            record={"k": [1]},
        )
    )
    assert (started.ended_by, started.existed) == (None, False)
    (request,) = [frame for frame in agent.asked if frame.header["op"] == Op.START]
    assert request.payload == b"in"
    assert {**request.header, "id": 0} == {
        "id": 0,
        "op": "exec.start",
        "exec": "e1",
        "session": "s",
        "argv": ["true"],
        "cwd": ".",
        "env": {"A": "b"},
        "timeout_s": 9.0,
        "kill_grace_s": 5.0,
        "output": {"max_bytes": 100, "merge": True},
        "limits": {"memory_mb": 64, "pids": 10, "cpu_weight": 2.0},
        "state": "env_cwd",
        "keep_stdin": True,
        "tty": {"cols": 80, "rows": 24},
        "on_exit": "keep",
        "record": {"k": [1]},
        "boot_id": "b",
    }


async def test_start_that_is_sent_again_names_the_life_of_the_host_that_it_was_sent_to_first(
    agent: FakeAgent, host: AgentHost
) -> None:
    """In another, the host may not know any more that it ran."""

    async def answered(_: Frame) -> Frame:
        if agent.ops().count(Op.START) == 1:
            agent.boot_id = "c"
            agent.cut()
        return fault(Fault.GONE, message="whether it was run is not known")

    agent.answers[Op.START] = answered
    ended = await host.start(order())
    assert (ended.ended_by, ended.reason) == (EndedBy.NOBODY, "whether it was run is not known")
    assert [f.header["boot_id"] for f in agent.asked if f.header["op"] == Op.START] == ["b", "b"]
    assert host.boot_id == "c"
    await host.start(order(boot_id="a"))
    assert agent.asked[-1].header["boot_id"] == "a"


async def test_start_is_sent_again_after_a_break(agent: FakeAgent, host: AgentHost) -> None:
    """The host knows whether the first one came."""
    breaks_first(agent, Op.START, ok(**RUNNING, existed=True))
    assert (await host.start(order())).existed
    assert agent.ops().count(Op.START) == 2


@pytest.mark.parametrize(
    ("code", "exit_code", "expected"),
    [
        (Fault.NOT_STARTED, 127, 127),
        (Fault.NOT_STARTED, "127", None),
        (Fault.NOT_STARTED, 1, None),
        (Fault.BAD_REQUEST, None, None),
        (Fault.NO_SPACE, None, None),
    ],
)
async def test_refused_start_never_happened(
    agent: FakeAgent, host: AgentHost, code: str, exit_code: object, expected: int | None
) -> None:
    """With the exit code of a shell where there is one."""
    agent.on(Op.START, fault(code, exit_code=exit_code))
    with pytest.raises(StartError) as error:
        await host.start(order())
    assert (error.value.reason, error.value.exit_code) == (f"{code}!", expected)


@pytest.mark.parametrize("answer", [fault(Fault.INTERNAL), fault("surprise"), ok(exec="other")])
async def test_after_a_start_that_failed_somehow_we_look(
    agent: FakeAgent, host: AgentHost, answer: Frame
) -> None:
    """It is there, or it was never started, or nobody can say."""
    agent.on(Op.START, answer)
    agent.on(Op.LOOK, ok(**RUNNING), fault(Fault.UNKNOWN_EXEC), fault(Fault.INTERNAL))
    assert (await host.start(order())).exec_id == "e1"
    with pytest.raises(StartError):
        await host.start(order())
    with pytest.raises(HostLost):
        await host.start(order())


async def test_too_much_input_is_refused(agent: FakeAgent, host: AgentHost) -> None:
    """Before anything is sent."""
    with pytest.raises(StartError, match="stdin"):
        await host.start(order(stdin=bytes(MAX_PAYLOAD_BYTES + 1)))
    with pytest.raises(StartError, match="too large"):
        await host.start(order(record={"k": "x" * (5 << 20)}))
    assert Op.START not in agent.ops()


async def test_start_that_was_never_sent_never_happened(agent: FakeAgent, link: Link) -> None:
    """The caller may try elsewhere."""
    await link.until_up()
    agent.refusal = "no route to host"
    agent.cut()
    await until(lambda: link.state is LinkState.DOWN)
    host = AgentHost(link, lost_after_s=0.05)
    with pytest.raises(StartError, match="no route to host"):
        await host.start(order())
    with pytest.raises(HostLost):
        await host.observe()


async def test_host_that_stays_away_is_lost(agent: FakeAgent, link: Link) -> None:
    """Also to who asked before. Of a start that was sent nobody can say anything."""
    host = AgentHost(link, lost_after_s=0.1)

    async def cut(_: Frame) -> Frame:
        agent.refusal = "gone"
        agent.cut()
        return ok()

    agent.answers[Op.START] = cut
    with pytest.raises(HostLost, match="gone"):
        await host.start(order())
    agent.refusal = None
    await link.until_up()
    agent.on(Op.OBSERVE, ok())
    assert (await host.observe()).cores is None


async def test_request_that_breaks_the_connection_each_time_is_given_up(
    agent: FakeAgent, host: AgentHost
) -> None:
    """It would take every other down with it for ever."""

    async def cut(_: Frame) -> Frame:
        agent.cut()
        return ok()

    agent.answers[Op.OBSERVE] = cut
    with pytest.raises(HostLost, match="5 times"):
        await host.observe()
    assert agent.ops().count(Op.OBSERVE) == 5


async def test_wait_goes_on_after_a_break_for_the_rest_of_its_time(agent: FakeAgent, host: AgentHost) -> None:
    """And brings the beginning of both streams."""
    answer = ok(b"outer", **ENDED, stdout=[3, 3], stderr=[20, 2], inline=[3, 2])
    breaks_first(agent, Op.WAIT, answer)
    ended = await host.wait("e1", 30.0, inline_bytes=100)
    assert (ended.ended_by, ended.returncode) == (EndedBy.ITSELF, 3)
    assert (ended.stdout, ended.stderr) == (StreamCount(3, 3), StreamCount(20, 2))
    assert ended.head == {StreamName.STDOUT: b"out", StreamName.STDERR: b"er"}
    first, second = [frame.header for frame in agent.asked if frame.header["op"] == Op.WAIT]
    assert 0 < second["wait_s"] < first["wait_s"] <= 30
    assert first["inline_bytes"] == 100


async def test_command_that_its_host_forgot_was_ended_by_nobody(agent: FakeAgent, host: AgentHost) -> None:
    """Its disk was wiped, or it is another machine of the same name. No exit code is made up."""
    agent.on(Op.WAIT, fault(Fault.UNKNOWN_EXEC))
    ended = await host.wait("e1", 1.0)
    assert (ended.ended_by, ended.returncode) == (EndedBy.NOBODY, None)


async def test_cancelled_wait_has_no_effect(agent: FakeAgent, host: AgentHost) -> None:
    """The agent is told not to answer, and the next wait finds it."""
    agent.is_mute = True
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(host.wait("e1", 30.0))
        await until(lambda: Op.HELLO in agent.ops())
        waiting.cancel()
    agent.is_mute = False
    agent.cut()
    agent.on(Op.WAIT, ok(**ENDED))
    assert (await host.wait("e1", 1.0)).returncode == 3


@pytest.mark.parametrize(
    "nonsense",
    [
        {"exec": "e2"},
        {"state": "asleep"},
        {"ended_by": None},
        {"ended_by": "magic"},
        {"state": "running"},
        {"returncode": "0"},
        {"returncode": 0.0},
        {"returncode": 1 << 70},
        {"run_s": -1},
        {"run_s": float("nan")},
        {"cpu_s": float("inf")},
        {"stdout": [1]},
        {"stdout": [1, -1]},
        {"stdout": "12"},
        {"inline": [1, 1]},
        {"record": []},
        {"reason": 7},
    ],
    ids=str,
)
async def test_status_of_nonsense_is_a_fault(
    agent: FakeAgent, host: AgentHost, nonsense: dict[str, Any]
) -> None:
    """A host may be anything, and no exit code comes of that."""
    agent.on(Op.WAIT, ok(**{**ENDED, **nonsense}))
    with pytest.raises(HostFault) as error:
        await host.wait("e1", 1.0)
    assert error.value.code == Fault.INTERNAL


@pytest.mark.parametrize(
    "answer",
    [Frame({}), Frame({"ok": "true"}), Frame({"ok": False}), Frame({"ok": False, "error": [], "message": 1})],
)
async def test_neither_yes_nor_no_is_a_fault(agent: FakeAgent, host: AgentHost, answer: Frame) -> None:
    """Whatever else it is."""
    agent.on(Op.STOP, answer)
    with pytest.raises(HostFault, match="makes no sense"):
        await host.stop("e1", 1.0)


async def test_read(agent: FakeAgent, host: AgentHost) -> None:
    """No more than a frame holds is asked for, and no host sends us back."""
    agent.on(
        Op.READ,
        ok(b"abc", next_offset=10, is_eof=False, total_bytes=50, kept_bytes=40),
        ok(b"abc", next_offset=6, is_eof=False, total_bytes=50, kept_bytes=40),
    )
    chunk = await host.read("e1", StreamName.STDERR, 7, 1 << 40, 0.0)
    assert (chunk.data, chunk.next_offset, chunk.is_eof) == (b"abc", 10, False)
    assert (chunk.total_bytes, chunk.kept_bytes) == (50, 40)
    assert agent.asked[-1].header["limit"] == MAX_PAYLOAD_BYTES
    with pytest.raises(HostFault, match="next_offset"):
        await host.read("e1", StreamName.STDERR, 7, 100, 0.0)


async def test_input_signal_resize(agent: FakeAgent, host: AgentHost) -> None:
    """Small things to a running command."""
    agent.on(Op.STDIN, ok(next_offset=5))
    agent.on(Op.SIGNAL, ok(was_sent=True))
    agent.on(Op.RESIZE, ok())
    assert await host.write_stdin("e1", b"ab", 3, is_eof=True) == 5
    assert await host.signal("e1", "SIGINT", "tree")
    await host.resize("e1", TerminalSize(10, 20))
    stdin, signal, resize = (frame.header for frame in agent.asked[-3:])
    assert (stdin["offset"], stdin["is_eof"], agent.asked[-3].payload) == (3, True, b"ab")
    assert (signal["signal"], signal["scope"]) == ("SIGINT", "tree")
    assert (resize["cols"], resize["rows"]) == (10, 20)


async def test_what_is_gone_is_stopped_and_forgotten(agent: FakeAgent, host: AgentHost) -> None:
    """Again is the same as once; a real fault is told."""
    for op in (Op.STOP, Op.FORGET):
        agent.on(op, fault(Fault.UNKNOWN_EXEC))
    agent.on(Op.SESSION_REMOVE, fault(Fault.UNKNOWN_SESSION), fault(Fault.FORBIDDEN))
    await host.stop("e1", 1.0)
    await host.forget("e1", 60.0)
    await host.remove_session("s", keeps_workspace=True)
    assert agent.asked[-1].header["keeps_workspace"] is True
    with pytest.raises(HostFault):
        await host.remove_session("s")


async def test_list_goes_through_all_pages(agent: FakeAgent, host: AgentHost) -> None:
    """With the records; a list that goes round in circles is a fault."""
    agent.on(
        Op.LIST,
        ok(execs=[{"exec": "a", "state": "running", "record": {"n": 1}}, {"exec": "b", "state": "running"}]),
        ok(execs=[{"exec": "c", **{k: v for k, v in ENDED.items() if k != "exec"}}]),
        ok(execs=[]),
    )
    execs = await host.list_execs()
    assert [each.exec_id for each in execs] == ["a", "b", "c"]
    assert execs[0].record == {"n": 1}
    assert [frame.header["after"] for frame in agent.asked[-3:]] == ["", "b", "c"]
    agent.on(Op.LIST, ok(execs=[{"exec": "a", "state": "running"}]))
    with pytest.raises(HostFault, match="not in order"):
        await host.list_execs()


async def test_sessions(agent: FakeAgent, host: AgentHost) -> None:
    """Put and listed, page by page."""
    agent.on(Op.SESSION_PUT, ok(workspace="/w/s", is_new=True))
    put = await host.put_session("s", {"a": 1})
    assert (put.workspace, put.is_new, put.record) == ("/w/s", True, {"a": 1})
    agent.on(
        Op.SESSION_LIST,
        ok(sessions=[{"session": "s", "workspace": "/w/s", "record": {"a": 1}}], is_last=False),
        ok(sessions=[{"session": "t", "workspace": "/w/t", "record": {}}], is_last=True),
    )
    assert [each.name for each in await host.list_sessions()] == ["s", "t"]
    assert agent.asked[-1].header["after"] == "s"


async def test_files(agent: FakeAgent, host: AgentHost) -> None:
    """In pieces that offsets place, so that one may come twice."""
    agent.on(Op.FILE_READ, ok(b"data", size=9, mode=0o644, mtime_s=1.5, is_eof=False))
    file = await host.read_file("s", "f", 2, 4)
    assert (file.data, file.size, file.mode, file.mtime_s, file.is_eof) == (b"data", 9, 0o644, 1.5, False)
    breaks_first(agent, Op.FILE_WRITE, ok(next_offset=4))
    assert await host.write_file("s", "f", "u", 2, b"ab", is_last=True, mode=None) == 4
    assert agent.ops().count(Op.FILE_WRITE) == 2
    agent.on(Op.FILE_REMOVE, ok(was_there=True))
    assert await host.remove_file("s", "f")
    with pytest.raises(HostFault) as error:
        await host.write_file("s", "f", "u", 0, bytes(MAX_PAYLOAD_BYTES + 1), is_last=True, mode=None)
    assert error.value.code == Fault.TOO_LARGE


async def test_archives(agent: FakeAgent, host: AgentHost) -> None:
    """Streams of one connection."""
    agent.on(Op.ARCHIVE_OPEN, ok(archive="1"))
    agent.on(Op.ARCHIVE_READ, ok(b"tar", is_eof=True))
    agent.on(Op.ARCHIVE_WRITE, ok(), ok(entries=12))
    agent.on(Op.ARCHIVE_CLOSE, ok())
    handle = await host.open_archive("s", ".", "read")
    assert await host.read_archive(handle) == (b"tar", True)
    assert await host.write_archive(handle, b"tar", is_last=False) == 0
    assert await host.write_archive(handle, b"tar", is_last=True) == 12
    await host.close_archive(handle)
    assert {frame.header["archive"] for frame in agent.asked[-4:]} == {"1"}


async def test_break_ends_an_archive(agent: FakeAgent, host: AgentHost, link: Link) -> None:
    """Its handle may be another's on the next connection; nothing is asked there."""
    agent.on(Op.ARCHIVE_OPEN, ok(archive="1"))
    agent.on(Op.ARCHIVE_WRITE, ok(entries=1))
    handle = await host.open_archive("s", ".", "write")
    agent.cut()
    await until(lambda: link.generation == 2)
    with pytest.raises(HostFault) as error:
        await host.write_archive(handle, b"tar", is_last=True)
    assert error.value.code == Fault.UNKNOWN_ARCHIVE
    await host.close_archive(handle)
    assert Op.ARCHIVE_WRITE not in agent.ops()


async def test_reading(agent: FakeAgent, host: AgentHost) -> None:
    """What is not said is unknown."""
    agent.on(
        Op.OBSERVE,
        ok(cores=4, cpu_busy=0.5, memory_total_mb=16000, execs={"e1": {"cpu_s": 1.5, "rss_mb": None}}),
        ok(cpu_busy=50),
    )
    reading = await host.observe()
    assert (reading.cores, reading.cpu_busy, reading.memory_total_mb) == (4, 0.5, 16000)
    assert (reading.load_1m, reading.execs["e1"].cpu_s, reading.execs["e1"].rss_mb) == (None, 1.5, None)
    with pytest.raises(HostFault, match="cpu_busy"):
        await host.observe()


async def test_state_and_capabilities(agent: FakeAgent, link: Link, host: AgentHost) -> None:
    """As the link has them."""
    await link.until_up()
    assert (host.name, host.state) == ("h", "up")
    assert host.capabilities is not None
    assert host.capabilities.containment == "process_group"
