"""Asking parts of the agent as its server does, and an agent over its socket as a gateway does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gateway.host_agent import wire
from gateway.host_agent.isolation import Isolation
from gateway.host_agent.operations import Caller, Operations, Refused
from gateway.host_agent.wire import Frame, Op


class Asking:
    """One connection to some operations, without a socket."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations
        self.caller = Caller()

    async def __call__(self, op: str, payload: bytes = b"", **fields: Any) -> Frame:
        return await self.operations[op](Frame(fields, payload), self.caller)

    async def refused(self, op: str, payload: bytes = b"", **fields: Any) -> Refused:
        try:
            answer = await self(op, payload, **fields)
        except Refused as refused:
            return refused
        raise AssertionError(f"{op} was answered: {answer.header}")


class FakeExecs:
    """Stands in for the part that owns processes: ``running`` is what a test says."""

    def __init__(self) -> None:
        self.running = 0
        self.ended_sessions: list[str] = []
        self.closed: list[bool] = []
        self.extra: Operations = {}

    def operations(self) -> Operations:
        return self.extra

    def usage(self) -> dict[str, dict[str, float | None]]:
        return {"e1": {"cpu_s": 1.5, "rss_mb": None}}

    def capabilities(self) -> dict[str, Any]:
        return {"containment": "process_group"}

    async def holds(self, isolation: Isolation) -> dict[str, Any]:
        return {"refuses_commands": None if isolation == Isolation() else f"not {isolation.sandbox}"}

    async def end_session(self, session: str) -> None:
        self.ended_sessions.append(session)

    async def close(self, end_running: bool) -> None:
        self.closed.append(end_running)
        self.running = 0


class Peer:
    """A gateway's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._next_id = 0

    def send(self, op: str, payload: bytes = b"", **fields: Any) -> int:
        self._next_id += 1
        self.writer.write(wire.encode({"id": self._next_id, "op": op, **fields}, payload))
        return self._next_id

    async def receive(self) -> Frame:
        sizes = wire.lengths(await self.reader.readexactly(wire.LENGTHS_BYTES))
        header, payload = [await self.reader.readexactly(size) for size in sizes]
        return wire.decode(header, payload)

    async def ask(self, op: str, payload: bytes = b"", **fields: Any) -> Frame:
        sent = self.send(op, payload, **fields)
        answer = await self.receive()
        assert answer.header["id"] == sent
        return answer

    async def hello(self) -> Frame:
        return await self.ask(Op.HELLO, gateway="g", versions=[wire.VERSION])

    async def is_over(self) -> bool:
        """The other side sends nothing more."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True


@contextlib.asynccontextmanager
async def connected(directory: Path) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_unix_connection(str(directory / "agent.sock"))
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
