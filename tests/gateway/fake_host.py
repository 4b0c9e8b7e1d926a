"""A host in memory that does what the test says. It outlives gateways, as a real one does."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gateway.host import (
    Chunk,
    EndedBy,
    ExecUse,
    FileChunk,
    HostExec,
    HostFault,
    HostLost,
    HostSession,
    Reading,
    RunOrder,
    StartError,
    StreamCount,
    TerminalSize,
)
from gateway.host_agent.wire import Fault
from gateway.protocol import HostCapabilities, StreamName

CAPABILITIES = HostCapabilities(
    containment="process_group",
    can_limit_memory=True,
    can_limit_pids=True,
    can_limit_cpu=True,
    has_pressure=True,
)


@dataclass
class FakeExec:
    order: RunOrder
    status: HostExec
    output: dict[StreamName, bytearray] = field(
        default_factory=lambda: {name: bytearray() for name in StreamName}
    )
    stdin: bytearray = field(default_factory=bytearray)
    signals: list[tuple[str, str]] = field(default_factory=list)
    sizes: list[TerminalSize] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class FakeHost:
    def __init__(self, name: str = "here") -> None:
        self.name = name
        self.state: Literal["up", "connecting", "down"] = "up"
        self.capabilities: HostCapabilities | None = CAPABILITIES
        self.boot_id: str | None = "boot 1"
        self.is_gone = False
        """Every call raises HostLost."""
        self.refuses: StartError | HostFault | None = None
        self.is_slow: asyncio.Event | None = None
        """Starts wait for it, before they happen."""
        self.answers_late: asyncio.Event | None = None
        """Answers to starts wait for it, after they have happened."""
        self.reading = Reading(cores=4, memory_total_mb=8000, memory_available_mb=4000)
        self.execs: dict[str, FakeExec] = {}
        self.forgotten: list[str] = []
        self.taken_s: dict[str, float] = {}
        self.stops: list[tuple[str, float]] = []
        self.starts: list[str] = []
        """Each time that a command really began."""
        self.sessions: dict[str, HostSession] = {}
        self.kept: dict[str, HostSession] = {}
        self.removed: list[str] = []
        self.calls: list[str] = []
        self._lost = asyncio.Event()

    # What a test does to it.

    def lose(self) -> None:
        self.state, self.is_gone = "down", True
        self._lost.set()

    def come_back(self) -> None:
        self.state, self.is_gone = "up", False
        self._lost = asyncio.Event()

    def write(self, exec_id: str, data: bytes, stream: StreamName = StreamName.STDOUT) -> None:
        one = self.execs[exec_id]
        one.output[stream] += data
        total = len(one.output[stream])
        count = StreamCount(total, min(total, one.order.max_output_bytes))
        if stream is StreamName.STDOUT:
            one.status = replace(one.status, stdout=count)
        else:
            one.status = replace(one.status, stderr=count)
        self._change(one)

    def finish(
        self, exec_id: str, ended_by: EndedBy = EndedBy.ITSELF, returncode: int | None = 0, **fields: Any
    ) -> None:
        one = self.execs[exec_id]
        one.status = replace(one.status, ended_by=ended_by, returncode=returncode, **fields)
        self._change(one)

    def reboot(self) -> None:
        """Its processes are gone, its directories are not."""
        self.boot_id = "boot 2"
        for one in self.execs.values():
            if one.status.ended_by is None:
                self.finish(one.order.exec_id, EndedBy.NOBODY, None)

    def lose_power(self) -> None:
        """Its directories are gone, too: they were never on the disk."""
        self.reboot()
        for exec_id in list(self.execs):
            self.drop(exec_id)

    def drop(self, exec_id: str) -> None:
        """Its directory was removed behind the agent's back."""
        one = self.execs.pop(exec_id)
        one.status = HostExec(exec_id, EndedBy.NOBODY, reason="its host does not know it any more")
        self._change(one)

    def running(self) -> list[str]:
        return [name for name, one in self.execs.items() if one.status.ended_by is None]

    # CommandHost.

    async def start(self, order: RunOrder) -> HostExec:
        await self._reached("start")
        if self.is_slow is not None:
            await self._unless_lost(self.is_slow)
        if order.exec_id in self.forgotten:
            raise HostFault(Fault.GONE, "it was forgotten")
        if order.exec_id in self.execs:
            one = self.execs[order.exec_id]
            return replace(one.status, existed=True, record=one.order.record)
        if order.boot_id not in (None, self.boot_id):
            raise HostFault(Fault.GONE, "the host was started again since")
        if self.refuses is not None:
            raise self.refuses
        self.starts.append(order.exec_id)
        one = self.execs[order.exec_id] = FakeExec(order, HostExec(order.exec_id, None, run_s=0.0))
        one.stdin += order.stdin
        if self.answers_late is not None:
            await self._unless_lost(self.answers_late)
        return self.execs[order.exec_id].status

    async def wait(self, exec_id: str, wait_s: float, inline_bytes: int = 0) -> HostExec:
        one = await self._exec("wait", exec_id)
        while one.status.ended_by is None and wait_s > 0:
            if not await self._unless_lost(one.changed, wait_s):
                break
        if one.status.ended_by is None:
            return one.status
        head = {stream: bytes(data[:inline_bytes]) for stream, data in one.output.items()}
        return replace(one.status, head=head if inline_bytes else None)

    async def stop(self, exec_id: str, grace_s: float) -> None:
        one = await self._exec("stop", exec_id)
        self.stops.append((exec_id, grace_s))
        if one.status.ended_by is None:
            self.finish(exec_id, EndedBy.STOP, -15)

    async def read(self, exec_id: str, stream: StreamName, offset: int, limit: int, wait_s: float) -> Chunk:
        one = await self._exec("read", exec_id)
        while one.status.ended_by is None and len(one.output[stream]) <= offset and wait_s > 0:
            if not await self._unless_lost(one.changed, wait_s):
                break
        kept = one.output[stream][: one.order.max_output_bytes]
        data = bytes(kept[offset : offset + limit])
        following = offset + len(data)
        is_eof = one.status.ended_by is not None and following >= len(kept)
        return Chunk(data, following, is_eof, len(one.output[stream]), len(kept))

    async def write_stdin(self, exec_id: str, data: bytes, offset: int, *, is_eof: bool) -> int:
        one = await self._exec("write_stdin", exec_id)
        if offset > len(one.stdin):
            raise HostFault(Fault.BAD_REQUEST, f"offset: must not lie behind {len(one.stdin)}")
        one.stdin += data[len(one.stdin) - offset :]
        return len(one.stdin)

    async def signal(self, exec_id: str, name: str, scope: str) -> bool:
        one = await self._exec("signal", exec_id)
        one.signals.append((name, scope))
        return one.status.ended_by is None

    async def resize(self, exec_id: str, size: TerminalSize) -> None:
        (await self._exec("resize", exec_id)).sizes.append(size)

    async def forget(self, exec_id: str, taken_s: float) -> None:
        await self._exec("forget", exec_id)
        del self.execs[exec_id]
        self.forgotten.append(exec_id)
        self.taken_s[exec_id] = taken_s

    async def list_execs(self) -> list[HostExec]:
        await self._reached("list_execs")
        return [replace(one.status, record=one.order.record) for one in self.execs.values()]

    async def put_session(self, name: str, record: Mapping[str, Any]) -> HostSession:
        await self._reached("put_session")
        is_new = name not in self.sessions and name not in self.kept
        self.kept.pop(name, None)
        self.sessions[name] = HostSession(name, f"/fake/{self.name}/{name}", is_new, dict(record))
        return self.sessions[name]

    async def list_sessions(self) -> list[HostSession]:
        await self._reached("list_sessions")
        return [*self.sessions.values(), *self.kept.values()]

    async def remove_session(self, name: str, *, keeps_workspace: bool = False) -> None:
        await self._reached("remove_session")
        found = self.sessions.pop(name, None)
        self.removed.append(name)
        if keeps_workspace and found is not None:
            self.kept[name] = found

    async def read_file(self, session: str, path: str, offset: int, limit: int) -> FileChunk:
        raise HostFault(Fault.NOT_FOUND, "no such file")

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
        return offset + len(data)

    async def remove_file(self, session: str, path: str) -> bool:
        return False

    async def open_archive(self, session: str, path: str, mode: str) -> str:
        return "archive"

    async def read_archive(self, handle: str) -> tuple[bytes, bool]:
        return b"", True

    async def write_archive(self, handle: str, data: bytes, *, is_last: bool) -> int:
        return 0

    async def close_archive(self, handle: str) -> None:
        pass

    async def observe(self) -> Reading:
        await self._reached("observe")
        return replace(self.reading, execs={name: ExecUse(None, None) for name in self.running()})

    async def _reached(self, call: str) -> None:
        self.calls.append(call)
        await asyncio.sleep(0)
        if self.is_gone:
            raise HostLost(f"{self.name} is gone")

    async def _exec(self, call: str, exec_id: str) -> FakeExec:
        await self._reached(call)
        if exec_id in self.forgotten:
            raise HostFault(Fault.GONE, "it was forgotten")
        if exec_id not in self.execs:
            raise HostFault(Fault.UNKNOWN_EXEC, "it was never started here")
        return self.execs[exec_id]

    def _change(self, one: FakeExec) -> None:
        one.changed.set()
        one.changed = asyncio.Event()

    async def _unless_lost(self, event: asyncio.Event, timeout_s: float | None = None) -> bool:
        """False after the timeout. Raises HostLost when the host goes meanwhile."""
        async with asyncio.TaskGroup() as group:
            either = {group.create_task(event.wait()), group.create_task(self._lost.wait())}
            await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            for task in either:
                task.cancel()
        if self.is_gone:
            raise HostLost(f"{self.name} is gone")
        return event.is_set()
