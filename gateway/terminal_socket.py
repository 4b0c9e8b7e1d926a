"""What crosses the WebSocket of a terminal, in both directions, until one side ends.

Binary frames are bytes of the terminal, text frames JSON (``stream_protocol``). Several things go on at once:
output is pulled from the spool as fast as the client takes it, input is written in order, and a takeover is
watched for. The first of them to end ends the others, and says why the socket is closed; none of them ends
the shell.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

import msgspec
from fastapi import WebSocket, WebSocketDisconnect

from gateway.errors import Refusal
from gateway.exec_record import Exec
from gateway.exec_streams import until_left
from gateway.execs import Execs
from gateway.host import TerminalSize
from gateway.protocol import ExecState, Scope, StreamName
from gateway.stream_protocol import (
    Attached,
    CloseCode,
    OutputLostEvent,
    QueuedEvent,
    TerminalControl,
    TerminalNews,
    TerminalQuery,
)
from gateway.tasks import Tasks
from gateway.terminals import Hold

_READ_BYTES = 64 << 10
_READ_WAIT_S = 30.0
_POSITION_S = 1.0
_INPUT_PAUSE_S = 0.05
"""Before input is offered again to a terminal that took only a part: its program is not reading."""
_INPUT_OFFERS = 200
"""Ten seconds of such pauses."""
_MAX_REASON_BYTES = 123
"""Of a close frame (RFC 6455, section 5.5)."""


@dataclass(frozen=True, slots=True)
class _Close:
    code: int
    reason: str


class TerminalSocket:
    """An accepted WebSocket."""

    def __init__(self, websocket: WebSocket, execs: Execs) -> None:
        self._websocket = websocket
        self._execs = execs
        self._attached = asyncio.Event()
        """The terminal runs and has its client's size: what is typed before would find another."""

    async def serve(self, shell: Exec, hold: Hold, query: TerminalQuery) -> None:
        """Returns when the socket is closed, by either side."""
        ways = Tasks()
        try:
            endings = {
                ways.spawn("terminal output", self._ended(self._outward(shell, query))),
                ways.spawn("terminal input", self._ended(self._inward(shell))),
                ways.spawn("terminal takeover", _taken(hold)),
                ways.spawn("terminal left", _left(shell)),
            }
            done, _ = await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await ways.close()
        closing = done.pop().result()
        if closing is not None:
            await self.close(closing.code, closing.reason)

    async def close(self, code: int, reason: str) -> None:
        cut = reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        await self._websocket.close(code, cut)

    async def refuse(self, refusal: Refusal) -> None:
        await self._tell(TerminalNews(error=refusal.body().error))
        await self.close(CloseCode.LOST, refusal.message)

    async def _ended(self, way: Awaitable[_Close]) -> _Close | None:
        """None: the client has left."""
        try:
            return await way
        except WebSocketDisconnect:
            return None
        except Refusal as refusal:
            return _Close(CloseCode.LOST, refusal.message)

    async def _outward(self, shell: Exec, query: TerminalQuery) -> _Close:
        await self._until_started(shell)
        offset = await self._attach(shell, query)
        is_eof = told_of_loss = False
        while not is_eof:
            chunk = await self._execs.read(shell, StreamName.STDOUT, offset, _READ_BYTES, _READ_WAIT_S)
            if chunk.data:
                await self._websocket.send_bytes(chunk.data)
            offset, is_eof = chunk.next_offset, chunk.is_eof
            if offset >= chunk.kept_bytes and chunk.total_bytes > chunk.kept_bytes and not told_of_loss:
                told_of_loss = True
                lost = OutputLostEvent(StreamName.STDOUT, offset, "it has written more than is kept")
                await self._tell(TerminalNews(output_lost=lost))
        await self._execs.wait_ended(shell, _READ_WAIT_S)
        await self._tell(TerminalNews(exit=await self._execs.status(shell)))
        return _Close(CloseCode.ENDED, "the shell has ended")

    async def _until_started(self, shell: Exec) -> None:
        told: list[int | None] = []
        while shell.state in (ExecState.QUEUED, ExecState.STARTING):
            steps, position = shell.steps, self._execs.position(shell)
            if shell.state is ExecState.QUEUED and told != [position]:
                told = [position]
                await self._tell(TerminalNews(queued=QueuedEvent(position)))
            await self._execs.wait_step(shell, steps, _POSITION_S)

    async def _attach(self, shell: Exec, query: TerminalQuery) -> int:
        """Where the replay begins: an offset that this shell has not reached was another shell's."""
        seen = await self._execs.read(shell, StreamName.STDOUT, query.since, 1, 0.0)
        offset = query.since if query.since <= seen.kept_bytes else 0
        await self._tell(TerminalNews(attached=Attached(shell.id, offset)))
        if not shell.state.is_final:
            await self._execs.resize(shell, TerminalSize(query.cols, query.rows))
        self._attached.set()
        return offset

    async def _inward(self, shell: Exec) -> _Close:
        offset: int | None = None
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"])
            await self._attached.wait()
            try:
                if (data := message.get("bytes")) is not None:
                    offset = await self._type(shell, data, offset)
                else:
                    await self._control(shell, message.get("text") or "")
            except Refusal as refusal:
                offset = None  # Asked for again with the next input.
                await self._tell(TerminalNews(error=refusal.body().error))

    async def _type(self, shell: Exec, data: bytes, offset: int | None) -> int:
        """Returns the offset behind it. The first time it is asked where the input of an older shell
        stands."""
        if offset is None:
            offset = await self._execs.write_stdin(shell, b"", 0, is_eof=False)
        end, offers = offset + len(data), 0
        while offset < end:
            taken = await self._execs.write_stdin(
                shell, data[len(data) - (end - offset) :], offset, is_eof=False
            )
            offers = offers + 1 if taken <= offset else 0
            offset = max(taken, offset)
            if offers >= _INPUT_OFFERS:
                raise Refusal(409, "input_not_taken", f"{end - offset} bytes: the program does not read")
            if offset < end:
                await asyncio.sleep(_INPUT_PAUSE_S)
        return offset

    async def _control(self, shell: Exec, text: str) -> None:
        try:
            control = msgspec.json.decode(text, type=TerminalControl)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise Refusal(400, "invalid_value", f"text frame: {error}") from error
        if control.resize is not None:
            await self._execs.resize(shell, TerminalSize(control.resize.cols, control.resize.rows))
        elif control.signal is not None:
            await self._execs.signal(shell, control.signal, Scope.TREE)

    async def _tell(self, news: TerminalNews) -> None:
        await self._websocket.send_text(msgspec.json.encode(news).decode())


async def _left(shell: Exec) -> _Close:
    await until_left(shell)
    return _Close(CloseCode.GOING, "the gateway is shutting down, the shell goes on")


async def _taken(hold: Hold) -> _Close:
    await hold.taken.wait()
    return _Close(CloseCode.TAKEN_OVER, "another client has taken this terminal over")
