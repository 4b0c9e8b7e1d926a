"""Sessions of tenants: settings that their commands share, and a workspace on one host.

Owns the table of sessions, where each is and when it expires. It must not know HTTP or processes; a session
ends after its commands have, and its host removes what is left. What a host or the store says of sessions
from before is taken over (``adopt``, ``restore``); a session that only the store knows is on a host that is
not back yet.
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Set

import msgspec

from gateway.errors import Refusal, adopting, draining, host_lost, session_not_found
from gateway.exec_record import Exec
from gateway.execs import Execs
from gateway.field_checks import check_settings
from gateway.host import CommandHost, HostFault, HostLost
from gateway.hosts import Host, Hosts
from gateway.limits import Limits
from gateway.notes import SessionNote, as_record, read_bytes
from gateway.protocol import Persist, SessionRequest, SessionStatus
from gateway.session_record import Session, host_name, session_note, session_of
from gateway.store import Store, StoreUnavailable
from gateway.tasks import Tasks

log = logging.getLogger(__name__)

_MAX_ANCESTORS = 16
"""Agents nest a few deep; a ring of parents must end too."""
_REMOVAL_S = 60.0
"""For a host to end what runs in a session and remove its workspace. One that is gone removes nothing; the
session is over here all the same."""

_GLANCE_S = 0.5
"""How late it is noticed that a host went while a session on it was ended."""

Key = tuple[str, str]
"""Tenant and session."""


class Sessions:
    def __init__(
        self,
        *,
        limits: Limits,
        hosts: Hosts,
        execs: Execs,
        store: Store,
        clock: Callable[[], float],
        unix_clock: Callable[[], float],
    ) -> None:
        self._limits = limits
        self._hosts = hosts
        self._execs = execs
        self._store = store
        self._clock = clock
        self._unix_clock = unix_clock
        self._sessions: dict[Key, Session] = {}
        self._creating: dict[Key, asyncio.Task[Session]] = {}
        self._leftovers: OrderedDict[str, Session] = OrderedDict()
        """What hosts that were gone shall remove when they are back, by name there; the oldest are given
        up."""
        self._endings = Tasks()
        self._writings = Tasks(Refusal)
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._sessions)

    async def put(self, tenant: str, session_id: str, settings: SessionRequest) -> tuple[Session, bool]:
        """Create the session or replace its settings; True if it is new. Checks the settings. Raises Refusal.
        A session that is being created is created even if its caller leaves."""
        if self._is_closed:
            raise draining()
        check_settings(settings, self._limits)
        key = (tenant, session_id)
        if (creating := self._creating.get(key)) is not None:
            await asyncio.wait({creating})
        if (session := self._sessions.get(key)) is not None:
            return self._replace(session, settings), False
        if (creating := self._creating.get(key)) is None:
            self._check_room()
            host = self._place(tenant, settings)
            creating = self._writings.spawn("create a session", self._create(key, host, settings))
            self._creating[key] = creating
            creating.add_done_callback(lambda _: self._creating.pop(key, None))
        return await asyncio.shield(creating), True

    def find(self, tenant: str, session_id: str) -> Session | None:
        return self._sessions.get((tenant, session_id))

    def all_of(self, tenant: str) -> list[Session]:
        return [session for (owner, _), session in self._sessions.items() if owner == tenant]

    def get(self, tenant: str, session_id: str) -> Session:
        """Raises Refusal 404, or 503 ``adopting`` while hosts are still asked what they have."""
        session = self.find(tenant, session_id)
        if session is None:
            raise session_not_found(session_id) if self._hosts.are_asked else adopting()
        return session

    def use(self, tenant: str, session_id: str) -> Session:
        """For a command, file or archive: it is not idle now. Raises Refusal."""
        session = self.get(tenant, session_id)
        if session.is_ending:
            raise _is_ending(session)
        session.active_at_s = self._clock()
        return session

    def client(self, session: Session) -> CommandHost:
        """Of its host, for files and archives under ``session.name``. Its HostLost is ``errors.host_lost``,
        its HostFault is the routes' own to explain."""
        return self._hosts.get(session.host).client

    def family(self, session: Session) -> Key:
        """The session at the top of its parents."""
        key = (session.tenant, session.id)
        for _ in range(_MAX_ANCESTORS):
            found = self._sessions.get(key)
            if found is None or found.settings.parent is None:
                break
            key = (session.tenant, found.settings.parent)
        return key

    def status(self, session: Session) -> SessionStatus:
        now = self._clock()
        active = len(self._execs.active_in(session.tenant, session.id))
        expires_at_s = session.expires_at_s()
        idle_s = session.idle_at_s(self._limits.session_idle_ttl_s) - now
        return SessionStatus(
            id=session.id,
            host=session.host,
            workspace=session.workspace,
            env_names=sorted(session.settings.env),
            cwd=session.settings.cwd,
            labels=session.settings.labels,
            execs_active=active,
            expires_in_s=None if expires_at_s is None else max(0.0, expires_at_s - now),
            idle_expires_in_s=None if active else max(0.0, idle_s),
        )

    async def end(self, session: Session, reason: str) -> None:
        """End its commands, then remove its workspace. Goes on if the caller is cancelled."""
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
            reason = session.expiry(now, self._limits.session_idle_ttl_s)
            if not session.is_ending and reason is not None:
                session.is_ending = True
                self._endings.spawn("end an expired session", self._end(session, reason))

    def adopt(self, host: Host, name: str, workspace: str, note: SessionNote) -> None:
        """One that a host has from before. One that was ended while the host was gone is removed there now;
        one that was made anew elsewhere is left for its owner to find."""
        key = (note.tenant, note.session)
        if (leftover := self._leftovers.pop(f"{host.name}/{name}", None)) is not None:
            self._endings.spawn("remove a workspace", self._remove(leftover))
        elif (known := self._sessions.get(key)) is None:
            if key not in self._creating:
                self._add(self._from_note(note, host.name, workspace))
        elif known.host == host.name:
            known.is_hearsay = False
        else:
            log.warning("host %s has a workspace of a session that is on %s now", host.name, known.host)

    async def deny(self, host: Host, names: Set[str]) -> None:
        """A host has these and no more: what only the store knew of others there is over. Whoever asks is
        told that there is no such session, and not given an empty workspace in its place."""
        for session in list(self._sessions.values()):
            if session.is_hearsay and session.host == host.name and session.name not in names:
                log.warning("host %s has lost the workspace of a session", host.name)
                self._drop(session)
                with contextlib.suppress(StoreUnavailable):
                    await self._store.remove_session(session.name)

    async def restore(self) -> None:
        """Those that the store knows. A host says more of them when it is back."""
        try:
            records = await self._store.sessions()
        except StoreUnavailable:
            log.warning("the store is not there; sessions are asked of the hosts")
            return
        for note in (read_bytes(record, SessionNote) for record in records):
            if note is not None and not note.is_ended and self._hosts.find(note.host) is not None:
                session = self._from_note(note, note.host, note.workspace)
                session.is_hearsay = True
                self._add(session)

    def drain(self) -> None:
        """Take no new ones, nor new settings."""
        self._is_closed = True

    async def close(self, *, keeps_all: bool) -> None:
        self.drain()
        if not keeps_all:
            async with asyncio.TaskGroup() as group:
                for session in list(self._sessions.values()):
                    group.create_task(self.end(session, "the gateway shut down"))
        await self._endings.join(_REMOVAL_S)
        for tasks in (self._endings, self._writings):
            await tasks.close()

    def _replace(self, session: Session, settings: SessionRequest) -> Session:
        if session.is_ending:
            raise _is_ending(session)
        if settings.host not in (None, session.host):
            message = f"host: the session is on {session.host!r} and cannot move; DELETE it first"
            raise Refusal(409, "session_elsewhere", message, param="host")
        session.settings, session.settings_at_s = settings, self._clock()
        self._writings.spawn("write down a session", self._write(session))
        return session

    def _check_room(self) -> None:
        if not self._hosts.are_asked and not self._store.is_durable:
            raise adopting()  # It may be there, with a workspace.
        if len(self._sessions) + len(self._creating) >= self._limits.max_sessions:
            message = f"{len(self._sessions)} sessions exist, which is the limit; DELETE one or let it expire"
            raise Refusal(429, "too_many_sessions", message, retry_after_s=60)

    def _place(self, tenant: str, settings: SessionRequest) -> Host:
        parent = None if settings.parent is None else self.find(tenant, settings.parent)
        return self._hosts.place(
            settings.host, settings.selector, parent_host=None if parent is None else parent.host
        )

    async def _create(self, key: Key, host: Host, settings: SessionRequest) -> Session:
        tenant, session_id = key
        now = self._clock()
        name = host_name(tenant, session_id)
        session = Session(tenant, session_id, host.name, name, "", settings, now, now)
        try:
            there = await host.client.put_session(name, as_record(self._note(session)))
        except HostLost as error:
            raise host_lost(host.name) from error
        except HostFault as fault:
            message = f"host {host.name!r} made no workspace: {fault.message}"
            raise Refusal(503, "no_workspace", message, retry_after_s=30) from fault
        session.workspace = there.workspace
        self._add(session)
        self._writings.spawn("write down a session", self._write_in_store(session))
        return session

    def _add(self, session: Session) -> None:
        self._sessions[session.tenant, session.id] = session
        self._hosts.get(session.host).session_count += 1

    def _drop(self, session: Session) -> None:
        if self._sessions.pop((session.tenant, session.id), None) is not None:
            self._hosts.get(session.host).session_count -= 1
        session.ended.set()

    def _note(self, session: Session, *, is_ended: bool = False) -> SessionNote:
        return session_note(session, self._clock(), self._unix_clock(), is_ended=is_ended)

    def _from_note(self, note: SessionNote, host: str, workspace: str) -> Session:
        return session_of(note, host, workspace, self._clock(), self._unix_clock())

    async def _write(self, session: Session) -> None:
        """Where it is and in the store. Advice: neither is needed before this gateway ends."""
        with contextlib.suppress(HostLost, HostFault):
            await self.client(session).put_session(session.name, as_record(self._note(session)))
        await self._write_in_store(session)

    async def _write_in_store(self, session: Session) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self._store.put_session(session.name, msgspec.json.encode(self._note(session)))

    async def _end(self, session: Session, reason: str) -> None:
        try:
            with contextlib.suppress(StoreUnavailable):
                await self._store.remove_session(session.name)
            active = self._execs.active_in(session.tenant, session.id)
            for record in active:
                self._execs.cancel(record, reason)
            if await self._are_ended(active, self._hosts.get(session.host)):
                await self._remove(session)
            else:
                self._leave_over(session)
        finally:
            self._drop(session)

    async def _are_ended(self, records: list[Exec], host: Host) -> bool:
        """False as soon as their host is gone: nobody waits for that."""
        for record in records:
            while not record.ended.is_set() and not host.is_gone:
                await self._execs.wait_ended(record, _GLANCE_S)
        return not host.is_gone

    async def _remove(self, session: Session) -> None:
        keeps = session.settings.workspace.persist is Persist.KEEP
        client = self.client(session)
        try:
            async with asyncio.timeout(_REMOVAL_S):
                if keeps:
                    note = as_record(self._note(session, is_ended=True))
                    await client.put_session(session.name, note)
                await client.remove_session(session.name, keeps_workspace=keeps)
        except (HostLost, HostFault, TimeoutError) as error:
            log.warning("host %s keeps a workspace that is over: %s", session.host, type(error).__name__)
            self._leave_over(session)

    def _leave_over(self, session: Session) -> None:
        self._leftovers[f"{session.host}/{session.name}"] = session
        if len(self._leftovers) > self._limits.max_sessions:
            self._leftovers.popitem(last=False)


def _is_ending(session: Session) -> Refusal:
    return Refusal(409, "session_ending", f"session {session.id!r} is being ended", param="sid")
