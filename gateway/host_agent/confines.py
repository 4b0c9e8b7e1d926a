"""What each command is confined to: the user of its session, the sandbox of its session, or nothing.

Owns that what was demanded holds or the command is refused; nothing is ever run with less. Must not know how
either is made.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

from gateway.host_agent.bubblewrap import NoSandbox
from gateway.host_agent.isolation import BUBBLEWRAP, NO_SANDBOX, Isolation
from gateway.host_agent.operations import Refused
from gateway.host_agent.order import Order
from gateway.host_agent.owner import Owner
from gateway.host_agent.privileges import Confinement
from gateway.host_agent.process import not_started
from gateway.host_agent.sandboxes import Sandboxes
from gateway.host_agent.session_uids import trouble
from gateway.host_agent.users import kill_all_of

log = logging.getLogger(__name__)


class Sessions(Protocol):
    """What is needed of the part that has the workspaces."""

    def path(self, session: str) -> Path:
        """Of its workspace. Raises Refused."""
        ...

    def owner(self, session: str) -> Owner | None: ...


class Confines:
    """``close`` it."""

    def __init__(self, directory: Path, sessions: Sessions) -> None:
        self._directory = directory
        self._sessions = sessions
        self._sandboxes = Sandboxes(directory)

    async def holds(self, isolation: Isolation) -> dict[str, Any]:
        """What of it commands really get, and why they are refused if that is not all."""
        has_sandbox = isolation.sandbox == BUBBLEWRAP and await self._sandboxes.trouble() is None
        why_no_uids = trouble(self._directory, isolation)
        return {
            "sandbox": BUBBLEWRAP if has_sandbox else NO_SANDBOX,
            "isolates_sessions": isolation.session_uids is not None and why_no_uids is None,
            "refuses_commands": await self._why_not(isolation),
        }

    async def prepare(self, order: Order) -> None:
        """What takes time, before anything of a command with demands is begun. Raises Refused."""
        why_not = await self._why_not(order.isolation)
        if why_not is not None:
            raise not_started(why_not)
        if order.isolation.sandbox == BUBBLEWRAP:
            await self._open_sandbox(order.session)

    async def _open_sandbox(self, session: str) -> None:
        workspace = self._sessions.path(session)
        which = workspace.stat().st_ino
        try:
            await self._sandboxes.open(session, workspace.parent)
        except NoSandbox as none:
            raise not_started(str(none)) from none
        try:
            is_there = self._sessions.path(session).stat().st_ino == which
        except (OSError, Refused):
            is_there = False
        if not is_there:  # It was removed meanwhile, and its name may be another's by now.
            self._sandboxes.end(session)
            raise not_started("session: it ended")

    def of(self, order: Order) -> Confinement | None:
        """Of a command that was prepared; None: nothing is demanded. Raises Refused."""
        owner = self._sessions.owner(order.session)
        if owner is None and order.isolation.session_uids is not None:
            raise not_started("session: it was made without a user of its own; end it and make it again")
        namespaces = None
        if order.isolation.sandbox == BUBBLEWRAP:
            namespaces = self._sandboxes.of(order.session)
            if namespaces is None:
                raise not_started("sandbox: its session's is gone")
        if owner is None and namespaces is None:
            return None
        return Confinement(owner, namespaces or ())

    async def end_session(self, session: str) -> None:
        """With every process of its user."""
        self._sandboxes.end(session)
        owner = self._sessions.owner(session)
        if owner is not None and not await kill_all_of(owner.uid):
            log.warning("a process of user %d cannot be killed", owner.uid)

    def close(self) -> None:
        self._sandboxes.close()

    async def _why_not(self, isolation: Isolation) -> str | None:
        why_not = trouble(self._directory, isolation)
        if why_not is None and isolation.sandbox == BUBBLEWRAP:
            why_not = await self._sandboxes.trouble()
        return why_not
