"""One framed connection to an agent, from hello to its break.

Owns the ids of requests, who waits for which answer, back-pressure on writing and the question whether the
other side still lives. It must not know what an operation means, nor how connections are made: ``link`` makes
the next one when this one is broken.

Theory of operation. A request is written whole, one at a time, and waits in ``_waiting`` under its id; one
task reads answers and hands them out, in whatever order they come. The first thing that goes wrong, on
whichever side, *breaks* the conversation for good: everyone who waits is told with ``LinkBroken``, and so is
everyone who asks later. When nothing has been heard for ``silence_s`` a request is sent whose answer does not
matter; no answer to it within ``answer_s`` is a break too. TCP alone would notice a cable that was pulled
after a quarter of an hour.
"""

import asyncio
import contextlib
import itertools
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.host_agent.wire import LENGTHS_BYTES, Frame, FrameError, Op, decode, encode, lengths
from gateway.tasks import Tasks

_NO_EXEC = "-"
"""Of no command. To look for it is the cheapest thing that an agent answers."""


class Channel(Protocol):
    """Bytes to an agent and back. Everything raises OSError or EOFError once it is broken."""

    async def read_exactly(self, n: int) -> bytes: ...

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None:
        """Returns when the other side has taken enough of what was written."""
        ...

    def abort(self) -> None:
        """At once: who waits in one of the above is woken. Again is the same as once."""
        ...

    async def close(self) -> None:
        """``abort``, and wait a moment until everything of it is let go. Raises nothing."""
        ...


class LinkBroken(Exception):
    """No answer will come. Whether the agent acted on the request is not known if ``was_sent``."""

    def __init__(self, trouble: str, *, was_sent: bool) -> None:
        super().__init__(trouble)
        self.trouble = trouble
        self.was_sent = was_sent


@dataclass(frozen=True, slots=True)
class KeepAlive:
    silence_s: float = 15.0
    """As OpenSSH's manual suggests for ServerAliveInterval: middleboxes forget a silent connection after
    minutes."""
    answer_s: float = 20.0
    """Longer than an agent with a busy disk stands still, shorter than people wait for a dead one."""


class Conversation:
    """``close`` it after its last use. Awaits may be cancelled anywhere."""

    def __init__(self, channel: Channel, keep_alive: KeepAlive) -> None:
        self._channel = channel
        self._keep_alive = keep_alive
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Frame]] = {}
        self._writing = asyncio.Lock()
        self._heard = 0
        """Frames; their number tells whether any came since."""
        self._broken: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._tasks = Tasks()
        self._tasks.spawn("read answers", self._read())
        self._tasks.spawn("keep alive", self._keep_it_alive())

    @property
    def in_flight(self) -> int:
        return len(self._waiting)

    @property
    def is_broken(self) -> bool:
        return self._broken.done()

    async def until_broken(self) -> str:
        """What the trouble is."""
        return await asyncio.shield(self._broken)

    async def ask(self, op: str, fields: dict[str, Any], payload: bytes = b"") -> Frame:
        """The answer, ok or not. Raises LinkBroken; FrameError for a request that is too large to send.
        Cancelled, it tells the agent that nobody waits for the answer any more."""
        request_id, answer = await self._send(op, fields, payload)
        try:
            return await answer
        except asyncio.CancelledError:
            self._say_cancelled(request_id)
            raise
        finally:
            del self._waiting[request_id]

    async def close(self) -> None:
        self._break("closed")
        try:
            await self._tasks.close()
        finally:
            await self._channel.close()

    async def _send(
        self, op: str, fields: dict[str, Any], payload: bytes
    ) -> tuple[int, asyncio.Future[Frame]]:
        """One frame at a time and none while the agent does not take them, so that what is not yet written
        is held by those who wait here and is gone when they give up."""
        request_id = next(self._ids)
        frame = encode({"id": request_id, "op": op, **fields}, payload)
        async with self._writing:
            self._check(was_sent=False)
            try:
                await self._channel.drain()
                self._check(was_sent=False)
                self._channel.write(frame)
            except (OSError, EOFError) as error:
                self._break(_words(error))
                self._check(was_sent=True)
        self._waiting[request_id] = asyncio.get_running_loop().create_future()
        return request_id, self._waiting[request_id]

    def _check(self, *, was_sent: bool) -> None:
        if self._broken.done():
            raise LinkBroken(self._broken.result(), was_sent=was_sent)

    def _say_cancelled(self, request_id: int) -> None:
        """Not held back as requests are: it is small, and there are no more of them than requests."""
        if not self._broken.done():
            with contextlib.suppress(OSError, EOFError):
                self._channel.write(encode({"id": next(self._ids), "op": Op.CANCEL, "request": request_id}))

    async def _read(self) -> None:
        try:
            while True:
                self._hand_out(await self._frame())
        except (OSError, EOFError, FrameError) as error:
            self._break(_words(error))

    async def _frame(self) -> Frame:
        header_bytes, payload_bytes = lengths(await self._channel.read_exactly(LENGTHS_BYTES))
        header = await self._channel.read_exactly(header_bytes)
        return decode(header, await self._channel.read_exactly(payload_bytes) if payload_bytes else b"")

    def _hand_out(self, frame: Frame) -> None:
        """Answers that nobody waits for are let go: whoever did was cancelled."""
        self._heard += 1
        request_id = frame.header.get("id")
        waiting = self._waiting.get(request_id) if isinstance(request_id, int) else None
        if waiting is not None and not waiting.done():
            waiting.set_result(frame)

    async def _keep_it_alive(self) -> None:
        while True:
            heard = self._heard
            await asyncio.sleep(self._keep_alive.silence_s)
            if self._heard != heard:
                continue
            try:
                async with asyncio.timeout(self._keep_alive.answer_s):
                    await self.ask(Op.LOOK, {"exec": _NO_EXEC})
            except TimeoutError:
                self._break(f"it did not answer within {self._keep_alive.answer_s:g} s")
                return
            except LinkBroken:
                return

    def _break(self, trouble: str) -> None:
        if self._broken.done():
            return
        self._broken.set_result(trouble)
        self._channel.abort()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(LinkBroken(trouble, was_sent=True))


def _words(error: Exception) -> str:
    match error:
        case EOFError():
            return "the connection ended"
        case OSError(strerror=str(text)):
            return f"the connection broke: {text}"
    return f"the connection broke: {error}"
