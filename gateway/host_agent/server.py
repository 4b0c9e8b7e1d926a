"""The socket on which gateways ask.

Owns connections: frames in, operations run side by side, answers out in any order, and what becomes of a peer
that goes away, asks too much at once or does not read. It must not know what an operation does.

A connection begins with ``hello``, which settles the version. Every other request is a task of its own, so a
long poll keeps nobody waiting. At ``Bounds.in_flight`` requests we stop reading until one is answered, and at
``Bounds.unsent_bytes`` until the peer has read. When a peer has sent its last (half-closed), what it asked is
still answered, for ``linger_s``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.host_agent import exec_fields as read
from gateway.host_agent import wire
from gateway.host_agent.isolation import Isolation
from gateway.host_agent.operations import Caller, Operations, Refused
from gateway.host_agent.unix_socket import bound_socket, may_ask, uid_of
from gateway.host_agent.wire import Fault, Frame, FrameError, Op

READ_AHEAD_BYTES = 256 << 10
"""Of one connection, taken off the socket before it is asked for (asyncio takes up to twice as much)."""

Hello = Callable[[Isolation], Awaitable["dict[str, Any]"]]
Retire = Callable[[bool], Awaitable[bool]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bounds:
    connections: int = 64
    """A gateway keeps a few; another gateway may be about to take over."""
    in_flight: int = 1024
    """Requests of one connection: long polls of as many commands as a host runs."""
    unsent_bytes: int = 8 << 20
    """Answers of one connection that wait for it to read."""
    stall_s: float = 60.0
    """A peer that reads none of an answer for so long is gone."""
    linger_s: float = 5.0
    """For requests of a peer that has sent its last."""


class Server:
    def __init__(
        self,
        operations: Operations,
        hello: Hello,
        retire: Retire,
        retired: asyncio.Event,
        bounds: Bounds | None = None,
    ) -> None:
        """``retired`` is set when ``retire`` said yes and that is sent: the agent is to end."""
        self.retired = retired
        self._operations = operations
        self._hello = hello
        self._retire = retire
        self._bounds = bounds or Bounds()
        self._listener: asyncio.AbstractServer | None = None
        self._connections: set[_Connection] = set()

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def listen(self, directory: Path) -> None:
        """At ``directory/agent.sock``; what is there is nobody's, since ours is the lock."""
        self._listener = await asyncio.start_unix_server(
            self._connected, sock=bound_socket(directory), limit=READ_AHEAD_BYTES
        )

    async def close(self) -> None:
        """No more connections; those there are get what was already answered."""
        if self._listener is not None:
            self._listener.close()
        await asyncio.gather(*(each.close() for each in list(self._connections)))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (
            not may_ask(uid_of(writer.get_extra_info("socket")))
            or len(self._connections) >= self._bounds.connections
        ):
            writer.transport.abort()
            return
        connection = _Connection(self, reader, writer)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    async def answer(self, request: Frame, caller: Caller) -> Frame:
        """Raises Refused."""
        op = request.header.get("op")
        if op == Op.RETIRE:
            return Frame({"did_retire": await self._retire(bool(request.header.get("end_running")))})
        operation = self._operations.get(op) if isinstance(op, str) else None
        if operation is None:
            raise Refused(Fault.UNKNOWN_OP, f"op: {op!r:.40} is not known to version {wire.VERSION}")
        return await operation(request, caller)

    async def greeting(self, request: Frame, caller: Caller) -> dict[str, Any]:
        """Raises Refused."""
        if request.header.get("op") != Op.HELLO:
            raise Refused(Fault.BAD_REQUEST, "op: the first request must be hello")
        offered = request.header.get("versions")
        if not isinstance(offered, list) or wire.VERSION not in offered:
            raise Refused(
                Fault.NO_COMMON_VERSION, f"versions: must have {wire.VERSION}", versions=[wire.VERSION]
            )
        caller.isolation = read.isolation(request.header, "isolation")
        return {"version": wire.VERSION, **await self._hello(caller.isolation)}

    @property
    def bounds(self) -> Bounds:
        return self._bounds


class _Connection:
    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._bounds = server.bounds
        self._caller = Caller()
        self._tasks: dict[object, asyncio.Task[None]] = {}
        self._unsent_bytes = 0
        self._one_at_a_time = asyncio.Lock()
        self._has_room = asyncio.Event()

    async def run(self) -> None:
        try:
            if await self._greet():
                await self._read_requests()
            if self._tasks:
                await asyncio.wait(self._tasks.values(), timeout=self._bounds.linger_s)
        except (FrameError, OSError, asyncio.IncompleteReadError) as error:
            log.info("a connection ended: %s", type(error).__name__)
        finally:
            await self.close()

    async def close(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()
        self._caller.end()
        self._writer.close()
        with contextlib.suppress(OSError), self._abort_after(1.0):
            await self._writer.wait_closed()

    async def _greet(self) -> bool:
        request = await self._next()
        if request is None:
            return False
        try:
            greeting = await self._server.greeting(request, self._caller)
        except Refused as refused:
            await self._send(request, _refusal(refused))
            return False
        await self._send(request, Frame({**greeting, "ok": True}))
        return True

    async def _read_requests(self) -> None:
        while not self._writer.is_closing() and (request := await self._next()) is not None:
            if request.header.get("op") == Op.CANCEL:
                self._cancel(request)
                continue
            self._begin(request)
            await asyncio.sleep(0)  # it starts, so that what it is about to send counts
            while self._is_full():
                self._has_room.clear()
                await self._has_room.wait()

    def _is_full(self) -> bool:
        bounds = self._bounds
        return len(self._tasks) >= bounds.in_flight or self._unsent_bytes > bounds.unsent_bytes

    async def _next(self) -> Frame | None:
        """None: there are no more. Raises FrameError, IncompleteReadError, OSError."""
        try:
            prefix = await self._reader.readexactly(wire.LENGTHS_BYTES)
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return None
        header_bytes, payload_bytes = wire.lengths(prefix)
        header = await self._reader.readexactly(header_bytes)
        frame = wire.decode(header, await self._reader.readexactly(payload_bytes))
        if type(frame.header.get("id")) not in (int, str) or frame.header["id"] in self._tasks:
            raise FrameError("id must be a number or text that is not in use")
        return frame

    def _begin(self, request: Frame) -> None:
        request_id = request.header["id"]
        task = asyncio.get_running_loop().create_task(self._serve(request), name="answer a request")
        self._tasks[request_id] = task
        task.add_done_callback(lambda _: self._ended(request_id))

    def _cancel(self, request: Frame) -> None:
        wanted = request.header.get("request")
        task = self._tasks.get(wanted) if isinstance(wanted, (int, str)) else None
        if task is not None:
            task.cancel()

    def _ended(self, request_id: object) -> None:
        del self._tasks[request_id]
        self._has_room.set()

    async def _serve(self, request: Frame) -> None:
        answer = await self._answer(request)
        with contextlib.suppress(OSError):  # it is gone, which the reading notices
            await self._send(request, answer)
            if request.header.get("op") == Op.RETIRE and answer.header.get("did_retire"):
                self._server.retired.set()

    async def _answer(self, request: Frame) -> Frame:
        try:
            answer = await self._server.answer(request, self._caller)
        except Refused as refused:
            return _refusal(refused)
        except Exception as error:  # noqa: BLE001 - the root of a request's task: it fails alone
            what = f"{type(error).__name__} in {_innermost(error)}"
            log.error("%s failed: %s", str(request.header.get("op"))[:40], what)
            return _refusal(Refused(Fault.INTERNAL, f"the agent failed: {what}"))
        return Frame({**answer.header, "ok": True}, answer.payload)

    async def _send(self, request: Frame, answer: Frame) -> None:
        """Raises OSError."""
        data = wire.encode({**answer.header, "id": request.header["id"]}, answer.payload)
        self._unsent_bytes += len(data)
        try:
            async with self._one_at_a_time:
                if self._writer.is_closing():
                    raise ConnectionResetError
                with self._abort_after(self._bounds.stall_s):
                    self._writer.write(data)
                    await self._writer.drain()
        finally:
            self._unsent_bytes -= len(data)
            self._has_room.set()

    @contextlib.contextmanager
    def _abort_after(self, limit_s: float) -> Any:
        timer = asyncio.get_running_loop().call_later(limit_s, self._writer.transport.abort)
        try:
            yield
        finally:
            timer.cancel()


def _refusal(refused: Refused) -> Frame:
    return Frame({**refused.fields, "error": refused.fault, "message": refused.message, "ok": False})


def _innermost(error: BaseException) -> str:
    trace = error.__traceback__
    if trace is None:
        return "?"
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
