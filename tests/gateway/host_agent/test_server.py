"""The socket: who may ask, what is answered when, and what becomes of peers that misbehave."""

import asyncio
import contextlib
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.host_agent import wire
from gateway.host_agent.isolation import Isolation
from gateway.host_agent.operations import Caller, Refused
from gateway.host_agent.server import Bounds, Server
from gateway.host_agent.unix_socket import may_ask, uid_of
from gateway.host_agent.wire import Fault, Frame, Op
from tests.gateway.host_agent.asking import Peer, connected


class Parts:
    """Operations that a test can hold and release."""

    def __init__(self) -> None:
        self.echoed = 0
        self.running = 0
        self.most = 0
        self.started = 0
        self.cancelled = 0
        self.ended_callers = 0
        self.release = asyncio.Event()
        self.can_retire = True

    async def echo(self, request: Frame, caller: Caller) -> Frame:
        self.echoed += 1
        return Frame({"said": request.header.get("say")}, request.payload)

    async def hold(self, request: Frame, caller: Caller) -> Frame:
        caller.at_end("one", self._end)
        self.started += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return Frame({})

    async def refuse(self, request: Frame, caller: Caller) -> Frame:
        raise Refused(Fault.NOT_FOUND, "there is none", next_offset=3)

    async def fail(self, request: Frame, caller: Caller) -> Frame:
        raise ZeroDivisionError("secret contents")

    async def big(self, request: Frame, caller: Caller) -> Frame:
        self.started += 1
        return Frame({}, bytes(wire.MAX_PAYLOAD_BYTES))

    async def retire(self, end_running: bool) -> bool:
        return self.can_retire or end_running

    def _end(self) -> None:
        self.ended_callers += 1


async def hello(isolation: Isolation) -> dict[str, object]:
    """Says what it was told, if anything."""
    told = {"told": isolation.on_wire()} if isolation.is_any else {}
    return {"agent": "d", "instance": "i", **told}


@contextlib.asynccontextmanager
async def serving(directory: Path, parts: Parts, bounds: Bounds | None = None) -> AsyncIterator[Server]:
    operations = {name: getattr(parts, name) for name in ("echo", "hold", "refuse", "fail", "big")}
    server = Server(operations, hello, parts.retire, asyncio.Event(), bounds)
    await server.listen(directory)
    try:
        yield server
    finally:
        await server.close()


@pytest.fixture
async def parts() -> Parts:
    return Parts()


@pytest.fixture
async def peer(tmp_path: Path, parts: Parts) -> AsyncIterator[Peer]:
    async with serving(tmp_path, parts), connected(tmp_path) as peer:
        await peer.hello()
        yield peer


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - what we wait for is on the other side of a socket
        await asyncio.sleep(0.001)


async def test_hello(tmp_path: Path, parts: Parts) -> None:
    async with serving(tmp_path, parts), connected(tmp_path) as peer:
        answer = await peer.ask(Op.HELLO, gateway="g", versions=[wire.VERSION, 99])
        expected = {"id": 1, "ok": True, "version": wire.VERSION, "agent": "d", "instance": "i"}
        assert answer.header == expected


@pytest.mark.parametrize("versions", [[], [99], None, 1])
async def test_no_common_version(tmp_path: Path, parts: Parts, versions: object) -> None:
    async with serving(tmp_path, parts), connected(tmp_path) as peer:
        answer = await peer.ask(Op.HELLO, gateway="g", versions=versions)
        assert (answer.header["error"], answer.header["versions"]) == (
            Fault.NO_COMMON_VERSION,
            [wire.VERSION],
        )
        assert await peer.is_over()


@pytest.mark.parametrize(
    "demands",
    [
        {"session_uids": [200_000, 265_535], "sandbox": "none"},
        {"session_uids": None, "sandbox": "bwrap"},
        {"session_uids": [2_000, 2_000], "sandbox": "bwrap"},
    ],
)
async def test_what_is_demanded_counts_for_the_connection(
    tmp_path: Path, parts: Parts, demands: dict[str, object]
) -> None:
    async with serving(tmp_path, parts), connected(tmp_path) as peer, connected(tmp_path) as other:
        answer = await peer.ask(Op.HELLO, gateway="g", versions=[wire.VERSION], isolation=demands)
        assert answer.header["told"] == demands
        assert "told" not in (await other.hello()).header


@pytest.mark.parametrize(
    ("demands", "field"),
    [
        (7, "isolation"),
        ({"sandbox": "jail"}, "sandbox"),
        ({"session_uids": "200000-265535"}, "session_uids"),
        ({"session_uids": [0, 5]}, "session_uids"),
        ({"session_uids": [3000, 2000]}, "session_uids"),
        ({"session_uids": [2000, 2**31]}, "session_uids"),
        ({"session_uids": [2000, True]}, "session_uids"),
    ],
)
async def test_demands_that_make_no_sense_end_it(
    tmp_path: Path, parts: Parts, demands: object, field: str
) -> None:
    """Rather than be taken for none."""
    async with serving(tmp_path, parts), connected(tmp_path) as peer:
        answer = await peer.ask(Op.HELLO, gateway="g", versions=[wire.VERSION], isolation=demands)
        assert (answer.header["error"], answer.header["field"]) == (Fault.BAD_REQUEST, field)
        assert await peer.is_over()


async def test_hello_comes_first(tmp_path: Path, parts: Parts) -> None:
    async with serving(tmp_path, parts), connected(tmp_path) as peer:
        answer = await peer.ask("echo")
        assert (answer.header["ok"], answer.header["error"]) == (False, Fault.BAD_REQUEST)
        assert await peer.is_over()


async def test_the_socket_is_ours_alone(tmp_path: Path, parts: Parts) -> None:
    """One that was left behind is replaced; a directory's long name does not matter."""
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    (directory / "agent.sock").touch()
    async with serving(directory, parts):
        mode = (directory / "agent.sock").lstat().st_mode
        assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)


def test_who_may_ask() -> None:
    """The same user and root, whatever the mode of the socket lets in."""
    me = os.geteuid()
    assert [may_ask(uid) for uid in (me, 0, me + 1, 65534)] == [True, True, False, False]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert uid_of(ours) == me


async def test_answers_come_in_any_order(peer: Peer, parts: Parts) -> None:
    held = peer.send("hold")
    answer = await peer.ask("echo", b"payload", say="hi")
    assert (answer.header["said"], answer.payload) == ("hi", b"payload")
    parts.release.set()
    assert (await peer.receive()).header == {"id": held, "ok": True}


async def test_refusals(peer: Peer) -> None:
    answer = (await peer.ask("refuse")).header
    assert answer == {
        "id": 2,
        "ok": False,
        "error": Fault.NOT_FOUND,
        "message": "there is none",
        "next_offset": 3,
    }
    for op in ("nothing", "", None, 3, [], "hello"):
        assert (await peer.ask(op)).header["error"] == Fault.UNKNOWN_OP  # type: ignore[arg-type]


async def test_an_operation_that_fails_fails_alone(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    """One line says where, and nothing of what was in it."""
    answer = (await peer.ask("fail")).header
    assert answer["error"] == Fault.INTERNAL
    assert "ZeroDivisionError in test_server.py:" in answer["message"]
    assert (await peer.ask("echo")).header["ok"] is True
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert "fail failed: ZeroDivisionError in test_server.py:" in errors[0]
    assert "secret" not in caplog.text + answer["message"]


async def test_cancel(peer: Peer, parts: Parts) -> None:
    """Neither it nor what it cancels is answered; for an unknown request it means nothing."""
    held = peer.send("hold")
    await until(lambda: parts.running)
    for request in (held, held, 999, None, []):
        peer.send(Op.CANCEL, request=request)
    assert (await peer.ask("echo")).header["ok"] is True
    await until(lambda: parts.cancelled)
    assert parts.cancelled == 1


async def test_what_is_in_flight_ends_with_its_connection(tmp_path: Path, parts: Parts) -> None:
    bounds = Bounds(linger_s=0.01)
    async with serving(tmp_path, parts, bounds) as server, connected(tmp_path) as other:
        await other.hello()
        async with connected(tmp_path) as peer:
            await peer.hello()
            for _ in range(3):
                peer.send("hold")
            await until(lambda: parts.running == 3)
        await until(lambda: server.connections == 1)
        assert (parts.cancelled, parts.ended_callers) == (3, 1)
        assert (await other.ask("echo")).header["ok"] is True


async def test_a_peer_that_has_sent_its_last_gets_its_answers(tmp_path: Path, parts: Parts) -> None:
    async with serving(tmp_path, parts), connected(tmp_path) as peer:
        peer.send(Op.HELLO, gateway="g", versions=[wire.VERSION])
        for _ in range(3):
            peer.send("hold")
        peer.writer.write_eof()
        await peer.receive()
        await until(lambda: parts.running == 3)
        parts.release.set()
        assert sorted([(await peer.receive()).header["id"] for _ in range(3)]) == [2, 3, 4]
        assert await peer.is_over()


async def test_requests_in_flight_have_a_bound(tmp_path: Path, parts: Parts) -> None:
    async with serving(tmp_path, parts, Bounds(in_flight=5)), connected(tmp_path) as peer:
        await peer.hello()
        for _ in range(12):
            peer.send("hold")
        await until(lambda: parts.running == 5)
        for _ in range(20):
            await asyncio.sleep(0)
        assert parts.started == 5
        parts.release.set()
        assert sorted([(await peer.receive()).header["id"] for _ in range(12)]) == list(range(2, 14))
        assert parts.most == 5


async def test_a_peer_that_does_not_read(tmp_path: Path, parts: Parts) -> None:
    """It is asked no more of, slows nobody, and is dropped in the end."""
    bounds = Bounds(unsent_bytes=4 << 20, stall_s=0.5)
    async with serving(tmp_path, parts, bounds) as server, connected(tmp_path) as other:
        await other.hello()
        async with connected(tmp_path) as peer:
            await peer.hello()
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(200):
                peer.send("big")
            while server.connections == 2:
                assert (await other.ask("echo")).header["ok"] is True
            assert parts.started < 20


async def test_frames_that_are_none(tmp_path: Path, parts: Parts) -> None:
    """End their connection and no other."""
    huge = struct.pack(">II", wire.MAX_HEADER_BYTES + 1, 0)
    no_json = struct.pack(">II", 3, 0) + b"{{{"
    no_object = struct.pack(">II", 2, 0) + b"[]"
    no_id = wire.encode({"op": "echo"})
    list_id = wire.encode({"op": "echo", "id": []})
    half = wire.encode({"op": "echo", "id": 5}, b"x" * 100)[:50]
    async with serving(tmp_path, parts) as server, connected(tmp_path) as other:
        await other.hello()
        for data in (huge, no_json, no_object, no_id, list_id, half):
            async with connected(tmp_path) as peer:
                await peer.hello()
                peer.writer.write(data)
                peer.writer.write_eof()
                assert await peer.is_over()
        await until(lambda: server.connections == 1)
        assert (await other.ask("echo")).header["ok"] is True


async def test_an_id_in_use(peer: Peer, parts: Parts) -> None:
    """Two answers of one id could not be told apart."""
    peer.send("hold")
    peer._next_id -= 1
    peer.send("hold")
    assert await peer.is_over()


async def test_connections_have_a_bound(tmp_path: Path, parts: Parts) -> None:
    async with serving(tmp_path, parts, Bounds(connections=1)), connected(tmp_path) as peer:
        await peer.hello()
        async with connected(tmp_path) as other:
            assert await other.is_over()
        assert (await peer.ask("echo")).header["ok"] is True


async def test_retire(tmp_path: Path, parts: Parts) -> None:
    """The agent is told to end when the answer is out."""
    parts.can_retire = False
    async with serving(tmp_path, parts) as server, connected(tmp_path) as peer:
        await peer.hello()
        assert (await peer.ask(Op.RETIRE, end_running=False)).header["did_retire"] is False
        assert not server.retired.is_set()
        assert (await peer.ask(Op.RETIRE, end_running=True)).header["did_retire"] is True
        await server.retired.wait()
        await server.close()
        assert await peer.is_over()


async def test_closing_sends_what_was_answered(tmp_path: Path, parts: Parts) -> None:
    async with serving(tmp_path, parts) as server, connected(tmp_path) as peer:
        await peer.hello()
        sent = [peer.send("echo", b"x" * 1000) for _ in range(50)]
        await until(lambda: parts.echoed == len(sent))
        closing = asyncio.get_running_loop().create_task(server.close())
        assert [(await peer.receive()).header["id"] for _ in sent] == sent
        assert await peer.is_over()
        await closing
