"""Runs one command through a gateway as if it ran here: input, output, exit code, Ctrl-C.

Owns what goes on at the same time while a command runs elsewhere, and in which order it ends. It must not
know the command line, or how this process gets its input and signals: ``local_ends`` does.

Theory of operation. Two copies follow the output to its end; that and the final state end everything else:
the copy of the input, the heartbeats, the watch for interrupts. Leaving early, by an error or by being
cancelled, cancels the command: nobody is left who wants it. Being killed does not, unless it has
heartbeats.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from signal import Signals
from typing import BinaryIO, Protocol

import msgspec

from gateway.client import GatewayClient, GatewayError, Refused, Unreachable
from gateway.protocol import ExecRequest, ExecStatus, StreamName

HEARTBEAT_TTL_S = 10.0
"""A client that is silent for so long is gone."""
_BEATS = 3
"""In that time: two may get lost."""


class LocalEnds(Protocol):
    """This side of a command."""

    @property
    def out(self) -> BinaryIO: ...
    @property
    def err(self) -> BinaryIO: ...

    def input(self) -> AsyncIterator[bytes]:
        """To its end."""
        ...

    async def next_interrupt(self) -> Signals: ...

    async def next_size(self) -> tuple[int, int]:
        """Columns and rows of the terminal when they change; never returns without one."""
        ...


class RemoteCommand:
    """Use once."""

    def __init__(self, client: GatewayClient, ends: LocalEnds) -> None:
        self._client = client
        self._ends = ends
        self._exec_id: str | None = None
        self._interrupts = 0

    async def run(self, session: str, request: ExecRequest, *, beats: bool = False) -> ExecStatus:
        """Raises GatewayError; CancelledError when it was interrupted before it began."""
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch(asyncio.current_task()))
                await self._start(session, _tied(request) if beats else request)
                beside = [group.create_task(each) for each in self._beside(request, beats=beats)]
                try:
                    status = await self._follow()
                finally:
                    for task in (watch, *beside):
                        task.cancel()
        except BaseException as error:
            first = _first(error)
            await self._give_up(first)
            raise first from error
        return status

    async def _start(self, session: str, request: ExecRequest) -> None:
        """If this is cancelled while the answer is on its way, the command is known by then."""
        await self._client.ensure_session(session)
        async with asyncio.TaskGroup() as group:
            start = group.create_task(self._client.start(session, request))
            try:
                self._exec_id = (await asyncio.shield(start)).id
            except asyncio.CancelledError:
                self._exec_id = (await start).id
                raise

    async def _follow(self) -> ExecStatus:
        exec_id = self._known()
        async with asyncio.TaskGroup() as streams:
            streams.create_task(self._copy(StreamName.STDOUT, self._ends.out))
            streams.create_task(self._copy(StreamName.STDERR, self._ends.err))
        return await self._client.wait(exec_id)

    async def _copy(self, stream: StreamName, out: BinaryIO) -> None:
        async for data in self._client.output(self._known(), stream):
            # In a thread: a reader that stalls must not stop the heartbeats.
            await asyncio.to_thread(_write, out, data)

    def _beside(self, request: ExecRequest, *, beats: bool) -> Iterator[Coroutine[None, None, None]]:
        if request.stdin_open:
            yield self._type()
        if request.tty is not None:
            yield self._resize()
        if beats:
            yield self._beat()

    async def _type(self) -> None:
        offset = 0
        with contextlib.suppress(Refused):  # It is over, or has closed its input.
            async for data in self._ends.input():
                offset = await self._client.write_stdin(self._known(), data, offset)
            await self._client.write_stdin(self._known(), b"", offset, eof=True)

    async def _beat(self) -> None:
        while True:
            await self._client.heartbeat(self._known(), HEARTBEAT_TTL_S)
            await asyncio.sleep(HEARTBEAT_TTL_S / _BEATS)

    async def _resize(self) -> None:
        while True:
            cols, rows = await self._ends.next_size()
            with contextlib.suppress(Refused):
                await self._client.resize(self._known(), cols, rows)

    async def _watch(self, whole: "asyncio.Task[ExecStatus] | None") -> None:
        """The first Ctrl-C is the command's; another one, or a request to end, ends it."""
        while True:
            number = await self._ends.next_interrupt()
            self._interrupts += 1
            if self._exec_id is None:
                assert whole is not None
                whole.cancel()
            elif number is not Signals.SIGINT or self._interrupts > 1 or not await self._did_signal(number):
                await self._client.cancel(self._exec_id)

    async def _did_signal(self, number: Signals) -> bool:
        try:
            return await self._client.signal(self._known(), number.name)
        except GatewayError:  # It was not started yet, or cannot be reached.
            return False

    async def _give_up(self, error: BaseException) -> None:
        if self._exec_id is not None and not isinstance(error, Unreachable):
            with contextlib.suppress(GatewayError):
                await asyncio.shield(self._client.cancel(self._exec_id))

    def _known(self) -> str:
        assert self._exec_id is not None
        return self._exec_id


def _tied(request: ExecRequest) -> ExecRequest:
    """It ends also if we are killed before the first heartbeat."""
    return msgspec.structs.replace(request, heartbeat_ttl_s=HEARTBEAT_TTL_S)


def _write(out: BinaryIO, data: bytes) -> None:
    out.write(data)
    out.flush()


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
