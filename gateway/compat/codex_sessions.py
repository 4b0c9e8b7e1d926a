"""Codex' sessions: what a connection was about, kept a while for the one that resumes it.

Owns the table, its bound and its expiry. A session holds processes; when nobody has come back for it in time,
they are ended, as Codex' own executor does.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.compat.calls import DOOR_LABEL, session_on_demand
from gateway.compat.codex_process import Process
from gateway.compat.codex_protocol import INVALID_REQUEST, RpcError
from gateway.gateway import Gateway
from gateway.session_record import Session
from gateway.tasks import Tasks

DOOR = "codex"
RESUME_S = 30.0
"""Codex' own executor waits so long, and its client gives up a little earlier."""
MAX_SESSIONS = 4096
MAX_PROCESSES = 256
"""Of one session, over or not; the oldest that are over are forgotten."""

Tell = Callable[[str, dict[str, Any]], Awaitable[None]]


class CodexSession:
    def __init__(self, session_id: str, session: Session, *, is_named: bool) -> None:
        self.id = session_id
        self.session = session
        self.is_named = is_named
        """The URL says the gateway's session; else it is this one's own and ends with it."""
        self.processes: dict[str, Process] = {}
        self.peer: Tell | None = None
        self.followers = Tasks()

    async def tell(self, method: str, params: dict[str, Any]) -> None:
        """Nobody there: it is read with process/read later."""
        if self.peer is not None:
            await self.peer(method, params)

    def add(self, process: Process) -> None:
        """Raises RpcError."""
        over = [key for key, each in self.processes.items() if each.is_closed]
        if len(self.processes) >= MAX_PROCESSES:
            if not over:
                raise RpcError(INVALID_REQUEST, f"{MAX_PROCESSES} processes run, which is the limit")
            del self.processes[over[0]]
        self.processes[process.process_id] = process


class CodexSessions:
    def __init__(self, resume_s: float = RESUME_S) -> None:
        self._resume_s = resume_s
        self._sessions: dict[tuple[str, str], CodexSession] = {}
        self._expiries: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._tasks = Tasks()

    def __len__(self) -> int:
        return len(self._sessions)

    async def attach(
        self, gateway: Gateway, tenant: str, session_id: str | None, resumes: str | None, peer: Tell
    ) -> CodexSession:
        """Raises RpcError, Refusal."""
        if resumes is not None:
            found = self._resumed(tenant, resumes)
        else:
            found = await self._new(gateway, tenant, session_id)
        found.peer = peer
        return found

    def detach(self, gateway: Gateway, codex: CodexSession, peer: Tell) -> None:
        """The connection is gone; its session waits for another one."""
        if codex.peer is not peer:
            return
        codex.peer = None
        key = (codex.session.tenant, codex.id)
        self._expiries[key] = self._tasks.spawn("codex session", self._expire(gateway, key))

    async def close(self) -> None:
        await self._tasks.close()
        for codex in self._sessions.values():
            await codex.followers.close()
        self._sessions.clear()

    def _resumed(self, tenant: str, session_id: str) -> CodexSession:
        key = (tenant, session_id)
        found = self._sessions.get(key)
        if found is None:
            raise RpcError(INVALID_REQUEST, f"resumeSessionId: no session {session_id!r}; it may be over")
        if found.peer is not None:
            raise RpcError(INVALID_REQUEST, f"session {session_id!r} is attached to another connection")
        if (expiry := self._expiries.pop(key, None)) is not None:
            expiry.cancel()
        return found

    async def _new(self, gateway: Gateway, tenant: str, session_id: str | None) -> CodexSession:
        if len(self._sessions) >= MAX_SESSIONS:
            raise RpcError(INVALID_REQUEST, f"{MAX_SESSIONS} sessions are open, which is the limit")
        own_id = str(uuid.uuid4())
        session = await session_on_demand(gateway, tenant, session_id or f"{DOOR}-{own_id}", DOOR)
        codex = CodexSession(own_id, session, is_named=session_id is not None)
        self._sessions[tenant, own_id] = codex
        return codex

    async def _expire(self, gateway: Gateway, key: tuple[str, str]) -> None:
        await asyncio.sleep(self._resume_s)
        codex = self._sessions.pop(key)
        self._expiries.pop(key, None)
        await codex.followers.close()
        for process in codex.processes.values():
            gateway.execs.cancel(process.record, "its client is gone")
        if not codex.is_named and codex.session.settings.labels.get(DOOR_LABEL) == DOOR:
            await gateway.sessions.end(codex.session, "its client is gone")
