"""The events of one command, for one reader, from wherever that reader left off.

Theory of operation. A reader's whole state is its *position*: how far the command was (queued, started, over)
and the offsets reached in its two streams. It is the ``id`` of each event, so a reader that comes back with
``Last-Event-ID`` brings its state along, to this gateway or to one that was started since. Nothing is kept
for readers: output is pulled from the spool when the reader has taken what came before, so a stalled one
costs an idle task, and a slow one gets larger pieces, at most ``CHUNK_BYTES`` each.

Small output is let gather for ``coalesce_s``: a command that writes a byte at a time would otherwise make
an event of each byte, and the loop that sends them starves everything else.

The last event is ``exit`` with the state that the gateway knows, ``lost`` included. When even that cannot
be had (the gateway goes down), the stream ends without it: a reader must take that for "unknown", and come
back.

Owns the order of events and positions. It must not know HTTP or where output is kept.
"""

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import msgspec

from gateway.errors import Refusal
from gateway.host import Chunk
from gateway.protocol import ExecState, ExecStatus, StreamName
from gateway.stream_protocol import (
    EVENT_NAMES,
    ExitEvent,
    HeartbeatEvent,
    OutputEvent,
    OutputLostEvent,
    QueuedEvent,
    StartedEvent,
    StreamEvent,
)
from gateway.tasks import Tasks

HEARTBEAT_S = 10.0
"""Well below the 60 s after which proxies close a silent connection."""
COALESCE_S = 0.1
"""Ten events a second are as good as live to a reader."""
CHUNK_BYTES = 64 << 10
_READ_WAIT_S = 30.0
"""One long poll of a host; the next one follows."""
_POSITION_S = 1.0
"""How often a queued reader is told where it stands."""

_QUEUED, _STARTED, _OVER = range(3)
_POSITION = re.compile(r"([012])\.(\d{1,18})\.(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """How far a reader is. Never goes back in any of its parts."""

    stage: int = _QUEUED
    stdout: int = 0
    stderr: int = 0

    def __str__(self) -> str:
        return f"{self.stage}.{self.stdout}.{self.stderr}"

    @property
    def is_over(self) -> bool:
        return self.stage == _OVER

    def offset(self, stream: StreamName) -> int:
        return self.stdout if stream is StreamName.STDOUT else self.stderr

    def moved(self, stream: StreamName, offset: int) -> "Position":
        return replace(self, stdout=offset) if stream is StreamName.STDOUT else replace(self, stderr=offset)


def read_position(text: str | None) -> Position | None:
    """Of ``Last-Event-ID``; None when it is none of ours."""
    if not text:
        return Position()
    found = _POSITION.fullmatch(text)
    return None if found is None else Position(*map(int, found.groups()))


class Followed(Protocol):
    """The command that is followed."""

    @property
    def state(self) -> ExecState: ...

    async def status(self) -> ExecStatus:
        """Without output."""
        ...

    async def moved_on(self, state: ExecState, timeout_s: float) -> None:
        """Returns when it is no longer in ``state``, at the latest after ``timeout_s``."""
        ...

    async def left(self) -> None:
        """Returns when this gateway goes and leaves it to the next one; until then, never."""
        ...

    async def read(self, stream: StreamName, offset: int, limit: int, wait_s: float) -> Chunk:
        """Raises Refusal."""
        ...


def encoded(event: StreamEvent, position: Position) -> bytes:
    """As SSE frames it. A heartbeat is no step and has no id."""
    name, data = EVENT_NAMES[type(event)].encode(), msgspec.json.encode(event)
    step = b"" if isinstance(event, HeartbeatEvent) else b"id: %s\n" % str(position).encode()
    return b"%sevent: %s\ndata: %s\n\n" % (step, name, data)


@dataclass(frozen=True, slots=True)
class _Piece:
    event: OutputEvent | OutputLostEvent | None
    next_offset: int
    is_last: bool
    is_full: bool = False
    """There is more at once."""


class ExecEvents:
    """Iterate once, then ``close``."""

    def __init__(
        self,
        followed: Followed,
        position: Position,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        coalesce_s: float = COALESCE_S,
    ) -> None:
        self._followed = followed
        self.position = position
        """After the event that was yielded last."""
        self._heartbeat_s = heartbeat_s
        self._coalesce_s = coalesce_s
        self._reads = Tasks()
        self._left: asyncio.Task[None] | None = None

    async def close(self) -> None:
        await self._reads.close()

    async def frames(self) -> AsyncIterator[bytes]:
        async for event in self.events():
            yield encoded(event, self.position)

    async def events(self) -> AsyncIterator[StreamEvent]:
        if self.position.is_over:
            return
        self._left = self._reads.spawn("leave", self._followed.left())
        async for event in self._until_started():
            yield event
        status = await self._followed.status()
        if status.run_s is not None:
            if self.position.stage == _QUEUED:
                self.position = replace(self.position, stage=_STARTED)
                yield StartedEvent(status.host, status.queue_s)
            async for output in self._output():
                yield output
        async for beat in self._until_final():
            yield beat
        if not self._followed.state.is_final:
            return
        self.position = replace(self.position, stage=_OVER)
        yield ExitEvent(await self._followed.status())

    async def _until_started(self) -> AsyncIterator[StreamEvent]:
        told: list[int | None] = []
        quiet_s = 0.0
        while (status := await self._followed.status()).state in (ExecState.QUEUED, ExecState.STARTING):
            is_news = self.position.stage == _QUEUED and told != [status.queue_position]
            if is_news and status.state is ExecState.QUEUED:
                told, quiet_s = [status.queue_position], 0.0
                yield QueuedEvent(status.queue_position)
            if quiet_s >= self._heartbeat_s:
                quiet_s = 0.0
                yield HeartbeatEvent(status.state)
            step_s = min(_POSITION_S, self._heartbeat_s)
            await self._followed.moved_on(status.state, step_s)
            if self._has_left():
                return
            quiet_s += step_s

    async def _output(self) -> AsyncIterator[StreamEvent]:
        """Both streams to their ends, each with one read under way."""
        reads = {stream: self._read(stream) for stream in StreamName}
        while reads and not self._has_left():
            await self._any({*reads.values()})
            done = [stream for stream, read in reads.items() if read.done()]
            for stream in done:
                piece = reads.pop(stream).result()
                if piece.event is not None:
                    self.position = self.position.moved(stream, piece.next_offset)
                    yield piece.event
                if not piece.is_last:
                    reads[stream] = self._read(stream, 0.0 if piece.is_full else self._coalesce_s)
            if not done and not self._has_left():
                yield HeartbeatEvent(self._followed.state)

    async def _until_final(self) -> AsyncIterator[StreamEvent]:
        while not (state := self._followed.state).is_final and not self._has_left():
            await self._followed.moved_on(state, self._heartbeat_s)
            if self._followed.state is state and not self._has_left():
                yield HeartbeatEvent(state)

    def _has_left(self) -> bool:
        return self._left is not None and self._left.done()

    async def _any(self, reads: set[asyncio.Task[_Piece]]) -> None:
        """Returns when one is done, or the gateway leaves, or nothing came for the time of a heartbeat."""
        ends: set[asyncio.Task[Any]] = {*reads}
        if self._left is not None:
            ends.add(self._left)
        await asyncio.wait(ends, timeout=self._heartbeat_s, return_when=asyncio.FIRST_COMPLETED)

    def _read(self, stream: StreamName, after_s: float = 0.0) -> asyncio.Task[_Piece]:
        offset = self.position.offset(stream)
        return self._reads.spawn(f"read {stream}", self._piece(stream, offset, after_s))

    async def _piece(self, stream: StreamName, offset: int, after_s: float) -> _Piece:
        if after_s:
            await self._followed.moved_on(ExecState.RUNNING, after_s)
        try:
            chunk = await self._followed.read(stream, offset, CHUNK_BYTES, _READ_WAIT_S)
        except Refusal as error:
            return _Piece(OutputLostEvent(stream, offset, error.message), offset, is_last=True)
        return _piece(stream, offset, chunk)


def _piece(stream: StreamName, offset: int, chunk: Chunk) -> _Piece:
    is_full = len(chunk.data) >= CHUNK_BYTES
    if not chunk.data:
        return _Piece(None, offset, is_last=chunk.is_eof)
    text, used = _whole_characters(chunk.data)
    if text is None:
        event = OutputEvent(stream, offset, b64=base64.b64encode(chunk.data).decode())
    else:
        event = OutputEvent(stream, offset, text=text)
    return _Piece(event, offset + used, is_last=chunk.is_eof and used == len(chunk.data), is_full=is_full)


def _whole_characters(data: bytes) -> tuple[str | None, int]:
    """The text and the bytes that it took. A character cut at the end waits for its rest, alone it does
    not."""
    try:
        return data.decode(), len(data)
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and error.start > 0:
            return data[: error.start].decode(), error.start
        return None, len(data)
