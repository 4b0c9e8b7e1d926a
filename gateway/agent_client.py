"""A host, as its agent serves it: typed operations over a link that may break at any time.

Owns what each operation is called, which refusals of it are none, and what may be asked again after a break:
all but archives. Twice is the same as once, since offsets say where bytes belong, and the directory of a
command is its lock, so that a start that did arrive is answered with what it started. It must not know
queues, HTTP or how a connection is made.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Literal

from gateway import agent_answers
from gateway.agent_requests import SLOW_ANSWER_S, AgentRequests, NeverSent
from gateway.host import (
    Chunk,
    EndedBy,
    FileChunk,
    HostExec,
    HostFault,
    HostLost,
    HostSession,
    Reading,
    RunOrder,
    StartError,
    TerminalSize,
)
from gateway.host_agent.wire import MAX_PAYLOAD_BYTES, Fault, Frame, Op
from gateway.link import Link
from gateway.protocol import HostCapabilities, StreamName

_LIST_PAGE = 100
"""Each brings its record, and a header has 4 MiB."""


class AgentHost:
    """A ``host.CommandHost``. Its link is somebody else's to open and close."""

    def __init__(self, link: Link, *, lost_after_s: float) -> None:
        self._link = link
        self._requests = AgentRequests(link, lost_after_s=lost_after_s)

    @property
    def name(self) -> str:
        return self._link.name

    @property
    def state(self) -> Literal["up", "connecting", "down"]:
        return self._link.state.value

    @property
    def capabilities(self) -> HostCapabilities | None:
        return None if self._link.hello is None else self._link.hello.capabilities

    @property
    def boot_id(self) -> str | None:
        return None if self._link.hello is None else self._link.hello.boot_id

    async def start(self, order: RunOrder) -> HostExec:
        if len(order.stdin) > MAX_PAYLOAD_BYTES:
            raise StartError(f"stdin: at most {MAX_PAYLOAD_BYTES} bytes may come with the start")
        try:
            await self._requests.connection()
            fields = {**_start_fields(order), "boot_id": order.boot_id or self.boot_id}
            answer = await self._requests.ask(Op.START, fields, order.stdin)
            return agent_answers.exec_status(answer, order.exec_id)
        except NeverSent as error:
            raise StartError(str(error)) from error
        except HostFault as fault:
            if fault.code == Fault.INTERNAL:
                return await self._look_whether_started(order.exec_id, fault)
            if fault.code == Fault.GONE:  # It did run, and the host has forgotten how that ended.
                return HostExec(order.exec_id, EndedBy.NOBODY, reason=fault.message, existed=True)
            raise StartError(fault.message, agent_answers.shell_exit_code(fault)) from fault

    async def wait(self, exec_id: str, wait_s: float, inline_bytes: int = 0) -> HostExec:
        fields = {"exec": exec_id, "inline_bytes": inline_bytes}
        try:
            answer = await self._requests.poll(Op.WAIT, fields, wait_s)
        except HostFault as fault:
            if fault.code not in (Fault.UNKNOWN_EXEC, Fault.GONE):
                raise
            return HostExec(exec_id, EndedBy.NOBODY, reason="its host does not know it any more")
        return agent_answers.exec_status(answer, exec_id)

    async def stop(self, exec_id: str, grace_s: float) -> None:
        with _unless(Fault.UNKNOWN_EXEC):
            await self._requests.ask(Op.STOP, {"exec": exec_id, "grace_s": grace_s})

    async def read(self, exec_id: str, stream: StreamName, offset: int, limit: int, wait_s: float) -> Chunk:
        fields = {
            "exec": exec_id,
            "stream": stream.value,
            "offset": offset,
            "limit": min(limit, MAX_PAYLOAD_BYTES),
        }
        return agent_answers.chunk(await self._requests.poll(Op.READ, fields, wait_s), offset)

    async def write_stdin(self, exec_id: str, data: bytes, offset: int, *, is_eof: bool) -> int:
        fields = {"exec": exec_id, "offset": offset, "is_eof": is_eof}
        return agent_answers.count(await self._requests.ask(Op.STDIN, fields, data), "next_offset")

    async def signal(self, exec_id: str, name: str, scope: str) -> bool:
        """Sent again after a break, and so perhaps twice: a signal is no count."""
        answer = await self._requests.ask(Op.SIGNAL, {"exec": exec_id, "signal": name, "scope": scope})
        return agent_answers.flag(answer, "was_sent")

    async def resize(self, exec_id: str, size: TerminalSize) -> None:
        await self._requests.ask(Op.RESIZE, {"exec": exec_id, **asdict(size)})

    async def forget(self, exec_id: str, taken_s: float) -> None:
        with _unless(Fault.UNKNOWN_EXEC, Fault.GONE):
            await self._requests.ask(Op.FORGET, {"exec": exec_id, "taken_s": taken_s})

    async def list_execs(self) -> list[HostExec]:
        execs: list[HostExec] = []
        while True:
            after = execs[-1].exec_id if execs else ""
            page = agent_answers.exec_page(
                await self._requests.ask(Op.LIST, {"after": after, "limit": _LIST_PAGE}), after
            )
            if not page:
                return execs
            execs += page

    async def put_session(self, name: str, record: Mapping[str, Any]) -> HostSession:
        answer = await self._requests.ask(Op.SESSION_PUT, {"session": name, "record": dict(record)})
        return agent_answers.put_session(answer, name, dict(record))

    async def list_sessions(self) -> list[HostSession]:
        sessions: list[HostSession] = []
        is_last = False
        while not is_last:
            after = sessions[-1].name if sessions else ""
            page, is_last = agent_answers.session_page(
                await self._requests.ask(Op.SESSION_LIST, {"after": after}), after
            )
            sessions += page
        return sessions

    async def remove_session(self, name: str, *, keeps_workspace: bool = False) -> None:
        fields = {"session": name, "keeps_workspace": keeps_workspace}
        with _unless(Fault.UNKNOWN_SESSION):
            await self._requests.ask(Op.SESSION_REMOVE, fields, answer_s=SLOW_ANSWER_S)

    async def read_file(self, session: str, path: str, offset: int, limit: int) -> FileChunk:
        fields = {
            "session": session,
            "path": path,
            "offset": offset,
            "limit": min(limit, MAX_PAYLOAD_BYTES),
        }
        return agent_answers.file_chunk(await self._requests.ask(Op.FILE_READ, fields))

    async def write_file(
        self,
        session: str,
        path: str,
        upload: str,
        offset: int,
        data: bytes,
        *,
        is_last: bool,
        mode: int | None,
    ) -> int:
        """``data`` is at most ``MAX_PAYLOAD_BYTES``."""
        fields = {
            "session": session,
            "path": path,
            "upload": upload,
            "offset": offset,
            "is_last": is_last,
            "mode": mode,
        }
        return agent_answers.count(await self._requests.ask(Op.FILE_WRITE, fields, data), "next_offset")

    async def remove_file(self, session: str, path: str) -> bool:
        """Sent again after a break, it says that nothing was there."""
        fields = {"session": session, "path": path}
        answer = await self._requests.ask(Op.FILE_REMOVE, fields, answer_s=SLOW_ANSWER_S)
        return agent_answers.flag(answer, "was_there")

    async def open_archive(self, session: str, path: str, mode: str) -> str:
        generation = await self._requests.connection()
        fields = {"session": session, "path": path, "mode": mode}
        answer = await self._requests.ask_on(generation, Op.ARCHIVE_OPEN, fields)
        return f"{generation}:{agent_answers.text(answer, 'archive')}"

    async def read_archive(self, handle: str) -> tuple[bytes, bool]:
        answer = await self._ask_of_archive(handle, Op.ARCHIVE_READ)
        return answer.payload, agent_answers.flag(answer, "is_eof")

    async def write_archive(self, handle: str, data: bytes, *, is_last: bool) -> int:
        """Entries that were unpacked, after the last piece; 0 before. ``data`` is at most
        ``MAX_PAYLOAD_BYTES``."""
        answer = await self._ask_of_archive(handle, Op.ARCHIVE_WRITE, data, is_last=is_last)
        return agent_answers.count(answer, "entries") if is_last else 0

    async def close_archive(self, handle: str) -> None:
        """What a break closed is closed."""
        with _unless(Fault.UNKNOWN_ARCHIVE):
            await self._ask_of_archive(handle, Op.ARCHIVE_CLOSE)

    async def observe(self) -> Reading:
        return agent_answers.reading(await self._requests.ask(Op.OBSERVE, {}))

    async def _ask_of_archive(self, handle: str, op: str, data: bytes = b"", **fields: Any) -> Frame:
        generation, _, archive = handle.partition(":")
        return await self._requests.ask_on(int(generation), op, {"archive": archive, **fields}, data)

    async def _look_whether_started(self, exec_id: str, trouble: HostFault) -> HostExec:
        """Something went wrong there with a start, before or after it was one."""
        try:
            return agent_answers.exec_status(await self._requests.ask(Op.LOOK, {"exec": exec_id}), exec_id)
        except HostFault as fault:
            if fault.code == Fault.UNKNOWN_EXEC:
                raise StartError(trouble.message) from fault
            raise HostLost(f"host {self.name}: {fault.message}") from fault


@contextlib.contextmanager
def _unless(*codes: str) -> Iterator[None]:
    """These faults say that it is already as it should be."""
    try:
        yield
    except HostFault as fault:
        if fault.code not in codes:
            raise


def _start_fields(order: RunOrder) -> dict[str, Any]:
    """What is not said is as the agent has it by default."""
    limits = {name: value for name, value in asdict(order.limits).items() if value is not None}
    fields: dict[str, Any] = {
        "exec": order.exec_id,
        "session": order.session,
        "argv": list(order.argv),
        "cwd": order.cwd,
        "env": dict(order.env),
        "timeout_s": order.timeout_s,
        "kill_grace_s": order.kill_grace_s,
        "output": {"max_bytes": order.max_output_bytes, "merge": order.merges_output},
        "limits": {**limits, "cpu_weight": order.cpu_weight},
        "record": dict(order.record),
    }
    if order.keeps_state:
        fields["state"] = "env_cwd"
    if order.keeps_stdin:
        fields["keep_stdin"] = True
    if order.tty is not None:
        fields["tty"] = asdict(order.tty)
    if order.keeps_children:
        fields["on_exit"] = "keep"
    if order.may_start_outside:
        fields["allow_outside"] = True
    return fields
