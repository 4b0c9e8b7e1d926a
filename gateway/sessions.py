"""Workspaces: one directory per session of a tenant, with the settings that its commands share.

Owns the table of sessions, their directories and their expiry. It must not know HTTP or processes; a
session ends after its commands have.
"""

import asyncio
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gateway.errors import Refusal, draining, session_not_found
from gateway.execs import Execs
from gateway.limits import Limits
from gateway.protocol import SessionRequest, SessionStatus
from gateway.tasks import Tasks


@dataclass(slots=True, eq=False)
class Session:
    """Times are on the gateway's monotonic clock."""

    tenant: str
    id: str
    workspace: Path
    settings: SessionRequest
    settings_at_s: float
    active_at_s: float
    """When it last had a command queued or running, as far as was looked."""
    is_ending: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def expires_at_s(self) -> float | None:
        return None if self.settings.ttl_s is None else self.settings_at_s + self.settings.ttl_s


class Sessions:
    def __init__(self, *, limits: Limits, execs: Execs, directory: Path, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._execs = execs
        self._directory = directory
        self._clock = clock
        self._sessions: dict[tuple[str, str], Session] = {}
        self._endings = Tasks()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._sessions)

    def put(self, tenant: str, session_id: str, settings: SessionRequest) -> tuple[Session, bool]:
        """Create the session or replace its settings; True if it is new."""
        now = self._clock()
        session = self._sessions.get((tenant, session_id))
        if session is None:
            return self._create(tenant, session_id, settings, now), True
        if session.is_ending:
            raise _is_ending(session)
        session.settings, session.settings_at_s = settings, now
        return session, False

    def find(self, tenant: str, session_id: str) -> Session | None:
        return self._sessions.get((tenant, session_id))

    def get(self, tenant: str, session_id: str) -> Session:
        session = self.find(tenant, session_id)
        if session is None:
            raise session_not_found(session_id)
        return session

    def use(self, tenant: str, session_id: str) -> Session:
        """The session, for a command that is about to be queued in it."""
        session = self.get(tenant, session_id)
        if session.is_ending:
            raise _is_ending(session)
        session.active_at_s = self._clock()
        return session

    def status(self, session: Session) -> SessionStatus:
        now = self._clock()
        active = len(self._execs.active_in(session.tenant, session.id))
        expires_at_s = session.expires_at_s()
        return SessionStatus(
            id=session.id,
            workspace=str(session.workspace),
            env_names=sorted(session.settings.env),
            cwd=session.settings.cwd,
            labels=session.settings.labels,
            execs_active=active,
            expires_in_s=None if expires_at_s is None else max(0.0, expires_at_s - now),
            idle_expires_in_s=None
            if active
            else max(0.0, session.active_at_s + self._idle_ttl_s(session) - now),
        )

    async def end(self, session: Session, reason: str) -> None:
        """Kill its commands, then remove its workspace. Goes on if the caller is cancelled."""
        if not session.is_ending:
            session.is_ending = True
            self._endings.spawn("end a session", self._end(session, reason))
        await session.ended.wait()

    def end_expired(self) -> None:
        now = self._clock()
        active = self._execs.active_sessions()
        for key, session in self._sessions.items():
            if key in active:
                session.active_at_s = now
            if session.is_ending:
                continue
            if (reason := self._expiry(session, now)) is not None:
                session.is_ending = True
                self._endings.spawn("end an expired session", self._end(session, reason))

    async def close(self) -> None:
        self._is_closed = True
        for session in list(self._sessions.values()):
            await self.end(session, "the gateway shut down")
        await self._endings.join()

    def _create(self, tenant: str, session_id: str, settings: SessionRequest, now: float) -> Session:
        if self._is_closed:
            raise draining()
        if len(self._sessions) >= self._limits.max_sessions:
            message = f"{len(self._sessions)} sessions exist, which is the limit; DELETE one or let it expire"
            raise Refusal(429, "too_many_sessions", message, retry_after_s=60)
        workspace = self._directory / f"{session_id}-{secrets.token_hex(4)}"
        workspace.mkdir(mode=0o700)
        session = Session(tenant, session_id, workspace, settings, settings_at_s=now, active_at_s=now)
        self._sessions[tenant, session_id] = session
        return session

    def _idle_ttl_s(self, session: Session) -> float:
        asked = session.settings.idle_ttl_s
        return self._limits.session_idle_ttl_s if asked is None else asked

    def _expiry(self, session: Session, now: float) -> str | None:
        expires_at_s = session.expires_at_s()
        if expires_at_s is not None and now >= expires_at_s:
            return "its session's ttl_s is over"
        if now >= session.active_at_s + self._idle_ttl_s(session):
            return "its session was idle"
        return None

    async def _end(self, session: Session, reason: str) -> None:
        active = self._execs.active_in(session.tenant, session.id)
        for record in active:
            self._execs.cancel(record, reason)
        for record in active:
            await record.ended.wait()
        await asyncio.to_thread(shutil.rmtree, session.workspace, ignore_errors=True)
        del self._sessions[session.tenant, session.id]
        session.ended.set()


def _is_ending(session: Session) -> Refusal:
    return Refusal(409, "session_ending", f"session {session.id!r} is being ended", param="sid")
