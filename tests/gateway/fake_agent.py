"""An agent on the other end of a socket pair that does what a test tells it, and a transport to it."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.host_agent.wire import LENGTHS_BYTES, VERSION, Fault, Frame, Op, decode, encode, lengths
from gateway.link import ConnectError
from gateway.stream_channel import StreamChannel
from gateway.tasks import Tasks

Answer = Callable[[Frame], Awaitable[Frame]]

CAPABILITIES = {
    "containment": "process_group",
    "can_limit_memory": False,
    "can_limit_pids": False,
    "can_limit_cpu": False,
    "has_pressure": True,
}


def ok(payload: bytes = b"", **fields: Any) -> Frame:
    return Frame({"ok": True, **fields}, payload)


def fault(error: str, **fields: Any) -> Frame:
    return Frame({"ok": False, "error": error, "message": f"{error}!", **fields})


class FakeAgent:
    """A transport to itself. ``close`` it."""

    def __init__(self) -> None:
        self.boot_id = "b"
        self.build = "build-1"
        self.answers: dict[str, Answer] = {Op.HELLO: self._hello, Op.LOOK: self._look}
        self.asked: list[Frame] = []
        """Requests that came, of all connections."""
        self.connections = 0
        self.refusal: str | None = None
        """Why there is no connection."""
        self.is_mute = False
        """It reads and answers nothing."""
        self.hears = asyncio.Event()
        """Clear: it does not even read."""
        self.hears.set()
        self._tasks = Tasks()
        self._writers: list[asyncio.StreamWriter] = []

    def on(self, op: str, *answers: Frame) -> None:
        """Answer so, one after the other, the last one again and again."""
        left = list(answers)

        async def answer(_: Frame) -> Frame:
            return left.pop(0) if len(left) > 1 else left[0]

        self.answers[op] = answer

    def ops(self) -> list[str]:
        return [frame.header["op"] for frame in self.asked]

    async def connect(self) -> StreamChannel:
        if self.refusal is not None:
            raise ConnectError(self.refusal)
        self.connections += 1
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        self._writers.append(writer)
        self._tasks.spawn("fake agent", self._serve(reader, writer))
        return StreamChannel(*await asyncio.open_connection(sock=ours))

    def cut(self) -> None:
        """All connections, without a word."""
        while self._writers:
            self._writers.pop().transport.abort()

    async def close(self) -> None:
        self.cut()
        await self._tasks.close()

    def send(self, data: bytes) -> None:
        """Whatever comes into its mind, on the last connection."""
        self._writers[-1].write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await self.hears.wait()
                header, payload = lengths(await reader.readexactly(LENGTHS_BYTES))
                frame = decode(await reader.readexactly(header), await reader.readexactly(payload))
                self.asked.append(frame)
                if not self.is_mute:
                    self._tasks.spawn("fake answer", self._answer(frame, writer))
        writer.close()

    async def _answer(self, frame: Frame, writer: asyncio.StreamWriter) -> None:
        answer = self.answers.get(frame.header["op"])
        if frame.header["op"] != Op.CANCEL:
            said = fault(Fault.UNKNOWN_OP) if answer is None else await answer(frame)
            writer.write(encode({**said.header, "id": frame.header["id"]}, said.payload))

    async def _hello(self, _: Frame) -> Frame:
        return ok(
            version=VERSION,
            agent=self.build,
            instance=f"i{self.connections}",
            boot_id=self.boot_id,
            capabilities=CAPABILITIES,
        )

    async def _look(self, _: Frame) -> Frame:
        return fault(Fault.UNKNOWN_EXEC)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - what a test waits for has no event
            await asyncio.sleep(0.005)
