"""One process of a Codex session: an exec, its output in numbered pieces, and who is told of them.

Owns the numbering and what is kept for a client that comes back. It must not know sockets or JSON-RPC.
"""

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from gateway.compat.calls import until_ended
from gateway.compat.codex_protocol import Chunk, ReadAnswer
from gateway.errors import Refusal
from gateway.exec_record import Exec
from gateway.gateway import Gateway
from gateway.protocol import ExecState, StreamName

_KEPT_BYTES = 1 << 20
"""Of output, for process/read; as Codex' own executor keeps."""
_MAX_WRITE_IDS = 1024
_PIECE_BYTES = 64 << 10
_READ_WAIT_S = 30.0
_NO_EXIT_CODE = -1
"""The protocol wants a number where there is none; no command exits with this one."""

Tell = Callable[[str, dict[str, Any]], Awaitable[None]]
Stream = Literal["stdout", "stderr", "pty"]


class Process:
    def __init__(
        self, process_id: str, record: Exec, *, has_terminal: bool, has_stdin: bool, body: bytes
    ) -> None:
        self.process_id = process_id
        self.record = record
        self.body = body
        """Of the request that started it."""
        self.is_closed = False
        self.is_followed = False
        self._has_terminal = has_terminal
        self._has_stdin = has_stdin or has_terminal
        self._stdin_offset = 0
        self._write_ids: OrderedDict[str, None] = OrderedDict()
        self._writing = asyncio.Lock()
        self._kept: deque[Chunk] = deque()
        self._kept_bytes = 0
        self._seq = 0
        self._telling = asyncio.Lock()
        self._changed = asyncio.Event()
        self._has_exited = False
        self._failure: str | None = None

    async def follow(self, gateway: Gateway, tell: Tell) -> None:
        """Tells of everything until it is over."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(gateway, StreamName.STDOUT, tell))
                if not self._has_terminal:
                    group.create_task(self._pass_on(gateway, StreamName.STDERR, tell))
        except* Refusal as refused:
            self._failure = f"its output cannot be read: {refused.exceptions[0]}"
        with contextlib.suppress(Refusal):  # It is we who leave, and it goes on.
            await until_ended(gateway, self.record)
            await self._end(tell)

    async def read(self, after_seq: int, max_bytes: int | None, wait_s: float) -> ReadAnswer:
        """What came after a number, as much as fits, but at least one piece; waits for some."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while self._seq <= after_seq and not self.is_closed:
                    await self._changed.wait()
        chunks: list[Chunk] = []
        left, next_seq = max_bytes, self._seq + 1
        for chunk in self._kept:
            if chunk.seq <= after_seq:
                continue
            if left is not None and chunks and len(chunk.chunk) > left:
                next_seq = chunk.seq
                break
            left = None if left is None else left - len(chunk.chunk)
            chunks.append(chunk)
        is_all = next_seq > self._seq
        return ReadAnswer(
            chunks,
            next_seq,
            self._has_exited and is_all,
            self._exit_code() if self._has_exited and is_all else None,
            self.is_closed and is_all,
            self._failure,
        )

    async def write(self, gateway: Gateway, data: bytes, write_id: str | None) -> str:
        """The status. Raises Refusal. What came under the same id before is not written again."""
        if not self._has_stdin or self.record.state.is_final:
            return "stdinClosed"
        async with self._writing:
            if write_id is None or write_id not in self._write_ids:
                end = self._stdin_offset + len(data)
                while self._stdin_offset < end:
                    rest = data[len(data) - (end - self._stdin_offset) :]
                    self._stdin_offset = await gateway.execs.write_stdin(
                        self.record, rest, self._stdin_offset, is_eof=False
                    )
                self._remember(write_id)
        return "accepted"

    def _remember(self, write_id: str | None) -> None:
        if write_id is not None:
            self._write_ids[write_id] = None
            if len(self._write_ids) > _MAX_WRITE_IDS:
                self._write_ids.popitem(last=False)

    async def _pass_on(self, gateway: Gateway, stream: StreamName, tell: Tell) -> None:
        offset, is_eof = 0, False
        name: Stream = "pty" if self._has_terminal else stream.value
        while not is_eof:
            chunk = await gateway.execs.read(self.record, stream, offset, _PIECE_BYTES, _READ_WAIT_S)
            offset, is_eof = chunk.next_offset, chunk.is_eof
            if chunk.data:
                await self._output(name, chunk.data, tell)
            elif self.record.is_left:
                return

    async def _output(self, stream: Stream, data: bytes, tell: Tell) -> None:
        async with self._telling:
            chunk = Chunk(self._next(), stream, data)
            self._kept.append(chunk)
            self._kept_bytes += len(data)
            while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
                self._kept_bytes -= len(self._kept.popleft().chunk)
            await tell(
                "process/output",
                {"processId": self.process_id, "seq": chunk.seq, "stream": stream, "chunk": data},
            )

    async def _end(self, tell: Tell) -> None:
        if self.record.exit_code is None:
            self._failure = f"no exit code is known: {self.record.reason or self.record.state.value}"
        if self._failure is not None:
            said = f"[mars-gateway: {self._failure}]\n".encode()
            await self._output("pty" if self._has_terminal else "stderr", said, tell)
        async with self._telling:
            seq, self._has_exited = self._next(), True
            params = {"processId": self.process_id, "seq": seq, "exitCode": self._exit_code()}
            await tell("process/exited", {**params, "sandboxDenied": False})
            seq, self.is_closed = self._next(), True
            await tell("process/closed", {"processId": self.process_id, "seq": seq})

    def _exit_code(self) -> int:
        return _NO_EXIT_CODE if self.record.exit_code is None else self.record.exit_code

    def _next(self) -> int:
        self._seq += 1
        self._changed.set()
        self._changed = asyncio.Event()
        return self._seq

    @property
    def is_running(self) -> bool:
        return not self.record.state.is_final


def has_started(record: Exec) -> bool:
    return record.state not in (ExecState.QUEUED, ExecState.STARTING)
