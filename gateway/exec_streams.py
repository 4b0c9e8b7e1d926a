"""Input and output of a command, wherever it is: read by offset, written, signalled, resized.

Owns which of it is answered here and what of the host's answers becomes which refusal. It must not know
states' reasons or the queue.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable

from gateway.errors import Refusal, host_lost
from gateway.exec_record import Exec
from gateway.heads import Head, Heads
from gateway.host import Chunk, CommandHost, HostFault, HostLost, TerminalSize
from gateway.host_agent.wire import Fault
from gateway.hosts import Hosts
from gateway.protocol import ExecState, Scope, StreamName

_GLANCE_S = 2.0
"""For what makes a status better but is not worth a wait: the counts of a running command."""
_HEAD_S = 15.0
"""For the beginning of what a finished command wrote: who asks for its status wants that above all, and may
take a status without it for one of a command that wrote nothing. A host that is busy takes seconds."""
_START_WAIT_S = 20.0
"""Input waits so long for its command to start, and for what comes before it; shorter than clients' usual
timeouts of 30 s."""

_BEFORE_START = (ExecState.QUEUED, ExecState.STARTING)


class ExecStreams:
    def __init__(self, hosts: Hosts, heads: Heads, inline_bytes: int) -> None:
        self._hosts = hosts
        self._heads = heads
        self._inline_bytes = inline_bytes

    async def head(self, record: Exec) -> Head:
        """Of a command that is over: the beginning of each stream, or nothing where that cannot be had
        now."""
        if self._inline_bytes == 0:
            return {}
        if not record.was_started or not record.kept_bytes:
            return dict.fromkeys(StreamName, b"") if record.state is not ExecState.LOST else {}
        if (kept := self._heads.find(record.id)) is not None:
            return kept
        with contextlib.suppress(HostLost, HostFault, TimeoutError):
            async with asyncio.timeout(_HEAD_S if self._client(record).state == "up" else _GLANCE_S):
                head = {stream: await self._beginning(record, stream) for stream in StreamName}
                self._heads.put(record.id, head)
                return head
        return {}

    async def glance(self, record: Exec) -> None:
        """Bring the counts of a running command up to date, if its host says them soon."""
        client = self._client(record)
        if record.state is not ExecState.RUNNING or client.state != "up":
            return
        with contextlib.suppress(HostLost, HostFault, TimeoutError):
            async with asyncio.timeout(_GLANCE_S):
                seen = await client.wait(record.id, 0)
            if not record.state.is_final:
                record.update(seen)

    async def read(self, record: Exec, stream: StreamName, offset: int, limit: int, wait_s: float) -> Chunk:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        await until_started(record, wait_s)
        if record.state in _BEFORE_START:
            if record.is_left:
                await asyncio.sleep(0)  # Who asks again and again must let others tell it so.
            return Chunk(b"", offset, False, 0, 0)
        count = record.count(stream)
        if not record.was_started:
            return Chunk(b"", offset, True, 0, 0)
        if record.state.is_final and (offset >= count.kept_bytes or self._is_here(record, stream, offset)):
            return self._from_head(record, stream, offset, limit)
        async with _refusing(record):
            left_s = max(0.0, until_s - loop.time())
            reading = self._client(record).read(record.id, stream, offset, limit, left_s)
            if not left_s or record.state.is_final:
                return await reading
            chunk = await _unless_left(record, reading)
            return Chunk(b"", offset, False, count.total_bytes, count.kept_bytes) if chunk is None else chunk
        raise AssertionError("it returns or raises")

    async def write_stdin(self, record: Exec, data: bytes, offset: int, *, is_eof: bool) -> int:
        await self._ready(record)
        if record.fed is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_START_WAIT_S):
                    await record.fed.wait()
        if record.state.is_final:
            raise Refusal(409, "exec_over", "the command is over and reads no more input", param="id")
        async with _refusing(record):
            return await self._client(record).write_stdin(record.id, data, offset, is_eof=is_eof)
        raise AssertionError("it returns or raises")

    async def signal(self, record: Exec, name: str, scope: Scope) -> bool:
        await self._ready(record)
        if record.state.is_final:
            return False
        async with _refusing(record):
            return await self._client(record).signal(record.id, name, scope.value)
        raise AssertionError("it returns or raises")

    async def resize(self, record: Exec, size: TerminalSize) -> None:
        await self._ready(record)
        if not record.state.is_final:
            async with _refusing(record):
                await self._client(record).resize(record.id, size)

    async def _ready(self, record: Exec) -> None:
        await until_started(record, _START_WAIT_S)
        if record.state in _BEFORE_START:
            message = f"the command is {record.state.value}; it has not started yet"
            raise Refusal(409, "not_started", message, param="id", retry_after_s=1)

    async def _beginning(self, record: Exec, stream: StreamName) -> bytes:
        if not record.count(stream).kept_bytes:
            return b""
        chunk = await self._client(record).read(record.id, stream, 0, self._inline_bytes, 0)
        return chunk.data

    def _is_here(self, record: Exec, stream: StreamName, offset: int) -> bool:
        head = self._heads.find(record.id)
        return head is not None and offset < len(head.get(stream, b""))

    def _from_head(self, record: Exec, stream: StreamName, offset: int, limit: int) -> Chunk:
        head, count = self._heads.find(record.id) or {}, record.count(stream)
        data = head.get(stream, b"")[offset : offset + limit]
        following = offset + len(data)
        return Chunk(data, following, following >= count.kept_bytes, count.total_bytes, count.kept_bytes)

    def _client(self, record: Exec) -> CommandHost:
        return self._hosts.get(record.host).client


async def until_started(record: Exec, timeout_s: float) -> None:
    """Or rejected, cancelled or left, or the timeout."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while record.state in _BEFORE_START and not record.is_left:
                await record.stepped.wait()


async def until_left(record: Exec) -> None:
    """Returns when the gateway goes and leaves a command to the next one; until then, never."""
    await record.ended.wait()
    if not record.is_left:
        await asyncio.Event().wait()


async def _unless_left(record: Exec, reading: Awaitable[Chunk]) -> Chunk | None:
    """None: it was left before there was anything, and the rest is for the next gateway to be asked for."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None) as wait:
            with record.telling_when_left(lambda: wait.reschedule(0)):
                return await reading
    return None


@contextlib.asynccontextmanager
async def _refusing(record: Exec) -> AsyncIterator[None]:
    """What a host answers, in the API's words."""
    try:
        yield
    except HostLost as error:
        raise host_lost(record.host) from error
    except HostFault as fault:
        raise _refusal(fault) from fault


def _refusal(fault: HostFault) -> Refusal:
    match fault.code:
        case Fault.GONE | Fault.UNKNOWN_EXEC:
            message = "the output of this command is no longer on its host"
            return Refusal(410, "output_forgotten", message, param="id")
        case Fault.BAD_REQUEST:
            return Refusal(409, "stdin_gap", fault.message, param="offset")
        case Fault.FORBIDDEN:
            return Refusal(409, "not_possible", fault.message, param="id")
    return Refusal(502, "host_fault", f"its host answered: {fault.message}", param="id")
