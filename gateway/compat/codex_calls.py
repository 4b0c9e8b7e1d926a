"""The methods of Codex' executor, on one session.

Owns which method does what. A process is an exec of the gateway: it waits for its turn before process/start
is answered, so that a client's patience begins when the command does.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.compat.calls import check_was_run
from gateway.compat.codex_files import CodexFiles
from gateway.compat.codex_process import Process, has_started
from gateway.compat.codex_protocol import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    Copy,
    EnvironmentInfo,
    OnPath,
    Read,
    RpcError,
    Signal,
    Start,
    Terminate,
    Write,
    WriteFile,
    check_unsandboxed,
    path_of,
    uri_of,
)
from gateway.compat.codex_sessions import DOOR, CodexSession
from gateway.errors import draining
from gateway.exec_record import Exec
from gateway.gateway import Gateway
from gateway.protocol import ExecRequest, Scope, TtyRequest

_STEP_S = 60.0
_MAX_WAIT_S = 60.0
Call = Callable[[Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class CodexCalls:
    gateway: Gateway
    codex: CodexSession

    async def call(self, method: str, raw: msgspec.Raw) -> Any:
        """The result. Raises RpcError, Refusal, NotRun."""
        files = CodexFiles(self.gateway, self.codex.session)
        calls: dict[str, tuple[type[Any], Call]] = {
            "environment/info": (dict, self._environment),
            "process/start": (Start, self._start),
            "process/read": (Read, self._read),
            "process/write": (Write, self._write),
            "process/signal": (Signal, self._signal),
            "process/terminate": (Terminate, self._terminate),
            "fs/getMetadata": (OnPath, files.get_metadata),
            "fs/readFile": (OnPath, files.read_file),
            "fs/writeFile": (WriteFile, files.write_file),
            "fs/createDirectory": (OnPath, files.create_directory),
            "fs/readDirectory": (OnPath, files.read_directory),
            "fs/canonicalize": (OnPath, files.canonicalize),
            "fs/remove": (OnPath, files.remove),
            "fs/copy": (Copy, files.copy),
        }
        if method not in calls:
            raise RpcError(METHOD_NOT_FOUND, f"exec-server method not found: {method}")
        kind, call = calls[method]
        return await call(decoded(raw, kind))

    def environment(self) -> EnvironmentInfo:
        home = uri_of(self.codex.session.workspace)
        return EnvironmentInfo(cwd=home, user_home_dir=home)

    def begin(self, process_id: str) -> None:
        """Its start was answered: from now on its client hears of it."""
        process = self.codex.processes[process_id]
        if not process.is_followed:
            process.is_followed = True
            self.codex.followers.spawn("codex process", process.follow(self.gateway, self.codex.tell))

    async def _environment(self, params: object) -> EnvironmentInfo:
        return self.environment()

    async def _start(self, params: Start) -> dict[str, str]:
        check_unsandboxed(params.sandbox)
        if params.enforce_managed_network:
            message = "enforceManagedNetwork: this executor cannot hold a command off the network"
            raise RpcError(INVALID_REQUEST, message)
        body = msgspec.json.encode(params)
        known = self.codex.processes.get(params.process_id)
        if known is not None and known.body != body:
            raise RpcError(INVALID_REQUEST, f"processId: {params.process_id!r} is another process")
        if known is None:
            started = await self._started(params, body)
            if params.process_id not in self.codex.processes:  # Else the same start came twice at once.
                self.codex.add(started)
        return {"processId": params.process_id, "sandboxType": "none"}

    async def _started(self, params: Start, body: bytes) -> Process:
        key = f"{DOOR}/{self.codex.id}/{params.process_id}"
        record = await self.gateway.submission.submit(self.codex.session, _request(params), key)
        try:
            await self._until_started(record)
        except asyncio.CancelledError:
            self.gateway.execs.cancel(record, "its client left before it was started")
            raise
        return Process(
            params.process_id, record, has_terminal=params.tty, has_stdin=params.pipe_stdin, body=body
        )

    async def _until_started(self, record: Exec) -> None:
        while not has_started(record):
            if record.ended.is_set():
                raise draining()
            await self.gateway.execs.wait_step(record, record.steps, _STEP_S)
        check_was_run(record)

    async def _read(self, params: Read) -> Any:
        wait_s = min((params.wait_ms or 0) / 1000, _MAX_WAIT_S)
        return await self._process(params.process_id).read(params.after_seq or 0, params.max_bytes, wait_s)

    async def _write(self, params: Write) -> dict[str, str]:
        process = self.codex.processes.get(params.process_id)
        if process is None:
            return {"status": "unknownProcess"}
        return {"status": await process.write(self.gateway, params.chunk, params.write_id)}

    async def _signal(self, params: Signal) -> dict[str, str]:
        record = self._process(params.process_id).record
        await self.gateway.execs.signal(record, "SIGINT", Scope.GROUP)
        return {}

    async def _terminate(self, params: Terminate) -> dict[str, bool]:
        process = self.codex.processes.get(params.process_id)
        is_running = process is not None and process.is_running
        if process is not None:
            self.gateway.execs.cancel(process.record, "its client terminated it")
        return {"running": is_running}

    def _process(self, process_id: str) -> Process:
        if (found := self.codex.processes.get(process_id)) is None:
            raise RpcError(INVALID_REQUEST, f"unknown process id {process_id}")
        return found


def decoded(raw: msgspec.Raw, kind: type[Any]) -> Any:
    """Raises RpcError, which names the field."""
    try:
        return msgspec.json.decode(b"{}" if bytes(raw) == b"null" else raw, type=kind)
    except msgspec.DecodeError as error:
        raise RpcError(INVALID_PARAMS, f"params: {error}") from error


def _request(params: Start) -> ExecRequest:
    argv = params.argv
    if params.arg0 is not None and params.arg0 != argv[0]:
        argv = ["bash", "-c", 'exec -a "$0" "$@"', params.arg0, *argv]
    policy = {} if params.env_policy is None else params.env_policy.set
    call_id = None if params.metadata is None else params.metadata.tool_call_id
    return ExecRequest(
        argv=argv,
        cwd=path_of(params.cwd, "cwd"),
        env={**policy, **params.env},
        tty=TtyRequest() if params.tty else None,
        stdin_open=params.pipe_stdin and not params.tty,
        labels={} if call_id is None else {"tool_call_id": call_id[:256]},
    )
