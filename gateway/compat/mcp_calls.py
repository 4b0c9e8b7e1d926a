"""What MCP's tools do, on one session of the gateway.

Owns the answers that a model reads, and the key by which a call that comes again runs once. It must not know
the SDK.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

from gateway.compat.calls import session_on_demand
from gateway.compat.mcp_tools import (
    Call,
    ReadFile,
    Shell,
    ShellCancel,
    ShellOutput,
    ShellStatus,
    WriteFile,
)
from gateway.compat.workspace_files import put_bytes
from gateway.errors import Refusal, exec_not_found
from gateway.exec_record import Exec
from gateway.gateway import Gateway
from gateway.host import Chunk
from gateway.protocol import ExecRequest, ExecState, OutputRequest, StreamName
from gateway.session_record import Session
from gateway.transfers import Workspace

DOOR = "mcp"
_CANCEL_WAIT_S = 15.0
"""For a command that was told to end: its grace and what a busy host takes."""
_KEY_META = ("sessionId", "threadId", "itemId", "callId")
"""Of Codex, outermost first. Some models number their calls anew in each turn."""


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    structured: dict[str, Any] = field(default_factory=dict)
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    tenant: str
    session_id: str
    client_session: str | None
    """Of the MCP transport; None where the protocol has none."""
    request_id: str | int | None
    meta: Mapping[str, Any]

    @property
    def call_id(self) -> str | None:
        found = self.meta.get("callId")
        return found if isinstance(found, str) and found else None

    @property
    def key(self) -> str | None:
        """None where nothing tells a second attempt from a second call."""
        if self.call_id is not None:
            turn = self.meta.get("x-codex-turn-metadata")
            parts = [self.meta.get(name) for name in _KEY_META]
            parts.insert(0, turn.get("turn_id") if isinstance(turn, Mapping) else None)
        elif self.client_session is not None and self.request_id is not None:
            parts = [self.client_session, type(self.request_id).__name__, self.request_id]
        else:
            return None
        return "/".join([DOOR, self.session_id, *(str(part) for part in parts)])


@dataclass(frozen=True, slots=True)
class McpCalls:
    gateway: Gateway
    caller: Caller

    async def answer(self, call: Call) -> Answer:
        """Raises Refusal."""
        match call:
            case Shell():
                return await self._shell(call)
            case ShellStatus():
                record = await self._exec(call.exec_id)
                await self.gateway.execs.wait_ended(record, call.wait_s)
                return await self._told(record, "")
            case ShellOutput():
                return await self._output(call)
            case ShellCancel():
                record = await self._exec(call.exec_id)
                self.gateway.execs.cancel(record, "its client cancelled it")
                await self.gateway.execs.wait_ended(record, _CANCEL_WAIT_S)
                return await self._told(record, "")
            case ReadFile():
                return await self._read(call)
            case WriteFile():
                return await self._write(call)
        assert_never(call)

    async def _shell(self, call: Shell) -> Answer:
        session = await self._session()
        labels = {} if self.caller.call_id is None else {"tool_call_id": self.caller.call_id[:256]}
        request = ExecRequest(
            command=call.command,
            cwd=call.cwd,
            env=call.env,
            timeout_s=call.timeout_s,
            state=call.state,
            output=OutputRequest(merge=True),
            labels=labels,
        )
        record = await self.gateway.submission.submit(session, request, self.caller.key)
        try:
            await self.gateway.execs.wait_ended(record, call.wait_s)
        except asyncio.CancelledError:
            self._cancelled(record)
            raise
        text, next_offset = await self._excerpt(record, call.max_output_bytes)
        return await self._told(record, text, next_offset=next_offset)

    def _cancelled(self, record: Exec) -> None:
        """The client wants it no more, unless it is we who leave."""
        if not self.gateway.is_draining:
            self.gateway.execs.cancel(record, "its client cancelled it")

    async def _output(self, call: ShellOutput) -> Answer:
        record = await self._exec(call.exec_id)
        chunk = await self._chunk(record, call.offset, call.max_bytes, call.wait_s)
        text, used = _text(chunk.data, is_last=chunk.is_eof)
        return Answer(
            text,
            {
                "exec_id": record.id,
                "state": record.state.value,
                "next_offset": call.offset + used,
                "is_eof": chunk.is_eof,
                "truncated": chunk.total_bytes > chunk.kept_bytes,
            },
        )

    async def _excerpt(self, record: Exec, max_bytes: int) -> tuple[str, int]:
        """The whole of it, or its beginning and, when it is over, its end. With the offset where reading goes
        on."""
        first = await self._chunk(record, 0, max_bytes, 0)
        if not record.state.is_final or first.is_eof:
            text, used = _text(first.data, is_last=first.is_eof)
            return text, used
        half = max_bytes // 2
        head, used = _text(first.data[:half], is_last=False)
        last = await self._chunk(record, first.kept_bytes - half, half, 0)
        tail = last.data.decode(errors="replace")
        left_out = first.kept_bytes - half - used
        return f"{head}\n[... {left_out} bytes left out, from offset {used} on ...]\n{tail}", used

    async def _told(self, record: Exec, text: str, *, next_offset: int | None = None) -> Answer:
        status = await self.gateway.execs.status(record)
        structured: dict[str, Any] = {
            "exec_id": record.id,
            "state": status.state.value,
            "exit_code": status.exit_code,
            "timed_out": status.timed_out,
            "reason": status.reason,
            "output_bytes": status.stdout.total_bytes,
            "truncated": status.stdout.truncated,
        }
        if next_offset is not None:
            structured["next_offset"] = next_offset
        is_error = record.state.is_final and not record.was_started
        gap = "" if not text or text.endswith("\n") else "\n"
        return Answer(f"{text}{gap}[{_ending(record)}]", structured, is_error)

    async def _read(self, call: ReadFile) -> Answer:
        chunk = await (await self._workspace()).read(call.path, call.offset, call.max_bytes)
        text, used = _text(chunk.data, is_last=chunk.is_eof)
        following = call.offset + used
        structured = {"size_bytes": chunk.size, "next_offset": following, "is_eof": chunk.is_eof}
        return Answer(text, structured)

    async def _write(self, call: WriteFile) -> Answer:
        data = call.content.encode("utf-8", "surrogatepass")
        mode = None if call.mode is None else int(call.mode, 8)
        size = await put_bytes(await self._workspace(), call.path, data, mode)
        return Answer(f"{call.path}: {size} bytes written", {"path": call.path, "size_bytes": size})

    async def _chunk(self, record: Exec, offset: int, limit: int, wait_s: float) -> Chunk:
        return await self.gateway.execs.read(record, StreamName.STDOUT, offset, limit, wait_s)

    async def _exec(self, exec_id: str) -> Exec:
        record = await self.gateway.execs.get(self.caller.tenant, exec_id)
        if record.session != self.caller.session_id:
            raise exec_not_found(exec_id)
        return record

    async def _session(self) -> Session:
        return await session_on_demand(self.gateway, self.caller.tenant, self.caller.session_id, DOOR)

    async def _workspace(self) -> Workspace:
        session = await self._session()
        return Workspace(self.gateway.sessions.client(session), session.name, session.id)


def refused(refusal: Refusal) -> Answer:
    """A model reads it, too: it says whether anything was run."""
    structured = {"code": refusal.code, "param": refusal.param, "retry_after_s": refusal.retry_after_s}
    return Answer(f"{refusal.code}: {refusal.message}", structured, is_error=True)


def _text(data: bytes, *, is_last: bool) -> tuple[str, int]:
    """Bytes that are not UTF-8 are marked; a character that is cut in two at the end is left for the next
    read."""
    try:
        return data.decode(), len(data)
    except UnicodeDecodeError as error:
        is_cut = error.reason == "unexpected end of data" and not is_last and error.start > 0
        used = error.start if is_cut else len(data)
        return data[:used].decode(errors="replace"), used


def _ending(record: Exec) -> str:
    match record.state:
        case ExecState.EXITED:
            return f"exit code {record.exit_code}"
        case ExecState.TIMED_OUT:
            return f"timed out and was ended; exit code {record.exit_code}"
        case ExecState.QUEUED | ExecState.STARTING | ExecState.RUNNING:
            return f"{record.state.value}; exec_id {record.id}: read on with shell_output, or shell_status"
    if not record.was_started:
        return f"not run: {record.reason}"
    code = "not known" if record.exit_code is None else str(record.exit_code)
    return f"{record.state.value}: {record.reason}; exit code {code}"
