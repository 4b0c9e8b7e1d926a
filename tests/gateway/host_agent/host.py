"""A host's commands in this process, asked in the frames that a gateway sends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from gateway.host_agent.cgroups import Cgroups
from gateway.host_agent.containment import Containment
from gateway.host_agent.execs import Execs, open_execs
from gateway.host_agent.operations import Caller, Refused
from gateway.host_agent.wire import MARKER, Fault, Frame, Op


class Sessions:
    """Workspaces for every session of a name that does not begin with "no"."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, session: str) -> Path:
        if session.startswith("no"):
            raise Refused(Fault.UNKNOWN_SESSION, "session: there is none")
        workspace = self._directory / session
        workspace.mkdir(parents=True, exist_ok=True)
        return workspace

    def owner(self, session: str) -> None:
        """They have no users of their own."""

    def start_directory(self, session: str, cwd: str, allow_outside: bool) -> Path:
        found = (self.path(session) / cwd).resolve()
        if not found.is_dir():
            raise Refused(Fault.NOT_FOUND, "cwd: there is no such directory")
        return found


class Host:
    def __init__(self, directory: Path, execs: Execs) -> None:
        self.directory = directory
        self.execs = execs
        self.caller = Caller()
        self._operations = execs.operations()
        self._names = (f"ex-{os.urandom(4).hex()}-{n}" for n in itertools.count())

    async def ask(self, op: str, payload: bytes = b"", **fields: Any) -> Frame:
        return await asyncio.wait_for(self._operations[op](Frame(fields, payload), self.caller), 60)

    async def start(self, command: str = "true", **fields: Any) -> str:
        return str((await self.start_frame(command, **fields)).header["exec"])

    async def start_frame(self, command: str = "true", *, stdin: bytes = b"", **fields: Any) -> Frame:
        order: dict[str, Any] = {
            "exec": next(self._names),
            "session": "s",
            "argv": ["bash", "-c", command],
            "cwd": "",
            "env": {},
            "timeout_s": 60,
            "kill_grace_s": 5,
            "output": {"max_bytes": 1 << 20, "merge": False},
            "record": {},
        }
        return await self.ask(Op.START, stdin, **{**order, **fields})

    async def ended(self, exec_id: str) -> dict[str, Any]:
        status = (await self.ask(Op.WAIT, exec=exec_id, wait_s=50)).header
        assert status["state"] == "ended"
        return status

    async def run(self, command: str = "true", **fields: Any) -> dict[str, Any]:
        """Its status at the end, with its output as ``out`` and ``err``."""
        exec_id = await self.start(command, **fields)
        status = await self.ended(exec_id)
        out, err = [await self.output(exec_id, stream) for stream in ("stdout", "stderr")]
        return {**status, "out": out, "err": err}

    async def output(self, exec_id: str, stream: str = "stdout") -> bytes:
        found = b""
        while True:
            answer = await self.ask(
                Op.READ, exec=exec_id, stream=stream, offset=len(found), limit=1 << 20, wait_s=0
            )
            if not answer.payload:
                return found
            found += answer.payload

    async def printed(self, exec_id: str, text: bytes) -> bytes:
        """Output up to now, when the text is in it."""
        offset, found = 0, b""
        while text not in found:
            answer = await self.ask(
                Op.READ, exec=exec_id, stream="stdout", offset=offset, limit=1 << 20, wait_s=20
            )
            assert answer.payload or not answer.header["is_eof"], found
            found += answer.payload
            offset = answer.header["next_offset"]
        return found


OpenHost = Callable[..., contextlib.AbstractAsyncContextManager[Host]]


@contextlib.asynccontextmanager
async def open_host(
    directory: Path, *, cgroups: bool = True, end_running: bool = True
) -> AsyncIterator[Host]:
    containment = None if cgroups else Containment(Cgroups(()), str(directory))
    execs = open_execs(directory, Sessions(directory / "workspaces"), containment)
    try:
        yield Host(directory, execs)
    finally:
        await asyncio.wait_for(execs.close(end_running), 60)


def processes_of(exec_id: str) -> list[int]:
    """Living processes that carry the exec's marker, whoever they are."""
    found = []
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and f"{MARKER}={exec_id}".encode() in (
                Path(entry.path, "environ").read_bytes().split(b"\0")
            ):
                found.append(int(entry.name))
    return found
