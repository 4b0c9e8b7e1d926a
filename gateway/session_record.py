"""The record of one session, and how it is written down and read again.

Owns the fields and the name of a session on its host. It must not start, stop or await anything.
"""

import asyncio
import hashlib
from dataclasses import dataclass, field

from gateway.notes import SessionNote
from gateway.protocol import SessionRequest


@dataclass(slots=True, eq=False)
class Session:
    """Times are on the gateway's monotonic clock."""

    tenant: str
    id: str
    host: str
    name: str
    """Of it on its host."""
    workspace: str
    """Absolute path there."""
    settings: SessionRequest
    settings_at_s: float
    active_at_s: float
    """When it last had a command queued or running, as far as was looked."""
    is_hearsay: bool = False
    """Only the store told of it; its host has not yet."""
    is_ending: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def expires_at_s(self) -> float | None:
        return None if self.settings.ttl_s is None else self.settings_at_s + self.settings.ttl_s

    def idle_at_s(self, default_s: float) -> float:
        """When it will have been idle for too long, if nothing is run in it."""
        asked_s = self.settings.idle_ttl_s
        return self.active_at_s + (default_s if asked_s is None else asked_s)

    def expiry(self, now: float, default_idle_s: float) -> str | None:
        """Why it is over; None while it is not."""
        expires_at_s = self.expires_at_s()
        if expires_at_s is not None and now >= expires_at_s:
            return "its session's ttl_s is over"
        return "its session was idle" if now >= self.idle_at_s(default_idle_s) else None


def host_name(tenant: str, session_id: str) -> str:
    """Of a session on its host: a directory's name. Always the same, as a workspace that was kept is found
    again."""
    return f"{session_id}.{hashlib.sha256(tenant.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def session_note(session: Session, now: float, unix_now: float, *, is_ended: bool = False) -> SessionNote:
    return SessionNote(
        tenant=session.tenant,
        session=session.id,
        host=session.host,
        workspace=session.workspace,
        settings=session.settings,
        settings_at_unix_s=unix_now - (now - session.settings_at_s),
        is_ended=is_ended,
    )


def session_of(note: SessionNote, host: str, workspace: str, now: float, unix_now: float) -> Session:
    """Its age is told by the wall clock, which may have been put back: then it is new."""
    age_s = max(0.0, unix_now - note.settings_at_unix_s)
    name = host_name(note.tenant, note.session)
    return Session(note.tenant, note.session, host, name, workspace, note.settings, now - age_s, now)
