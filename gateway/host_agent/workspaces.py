"""Workspaces: one directory per session that a gateway has on this host.

Owns ``DIR/sessions/<name>/{record.json,workspace/}``; what is on disk is all there is to know, so an agent
that starts again has every session. A workspace without a record is one that was kept for a session to come.
What a session has elsewhere (commands, uploads) is ended by those who have it, through ``before_removal``. It
must not know processes, nor what is in a record.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import secrets
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gateway.host_agent import exec_fields as read
from gateway.host_agent import removal
from gateway.host_agent.operations import Caller, Operations, Refused
from gateway.host_agent.owner import Owner, acting_as
from gateway.host_agent.paths import OPEN_DIRECTORY, Root, refusing_errors
from gateway.host_agent.session_uids import SessionUids, owner_in
from gateway.host_agent.wire import Fault, Frame, Op

MAX_SESSIONS = 10_000
MAX_RECORD_BYTES = 1 << 20
LIST_BYTES = 2 << 20
"""Of records in one answer, which must fit a frame's header."""
_RECORD = "record.json"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+=,~-]{0,199}")

EndSession = Callable[[str], Awaitable[None]]

log = logging.getLogger(__name__)


class Workspaces:
    def __init__(self, directory: Path, max_sessions: int = MAX_SESSIONS) -> None:
        self._max_sessions = max_sessions
        self._sessions = directory / "sessions"
        self._trash = directory / "trash"
        for each in (self._sessions, self._trash):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        homes = [self._sessions / entry.name for entry in os.scandir(self._sessions)]
        self._count = len(homes)
        self._uids = SessionUids(directory, homes)
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._before_removal: list[EndSession] = []

    def before_removal(self, end: EndSession) -> None:
        """``end(session)`` is awaited before the session's workspace goes."""
        self._before_removal.append(end)

    def operations(self) -> Operations:
        return {
            Op.SESSION_PUT: self._put,
            Op.SESSION_LIST: self._list,
            Op.SESSION_REMOVE: self._remove,
        }

    def path(self, session: Any) -> Path:
        """Raises Refused."""
        home = self._home(session)
        workspace = home / "workspace"
        try:
            is_there = stat.S_ISDIR(workspace.lstat().st_mode) and (home / _RECORD).exists()
        except OSError:
            is_there = False
        if not is_there or session in self._removals:
            raise _unknown(session)
        return workspace

    def owner(self, session: Any) -> Owner | None:
        """The user of its own that the session has, if it has one; also of one that is being removed. Raises
        Refused."""
        return owner_in(self._home(session))

    def root(self, session: Any) -> Root:
        """The workspace, open. Raises Refused."""
        with refusing_errors():
            return Root.open(self.path(session), self.owner(session))

    def start_directory(self, session: str, cwd: str, allow_outside: bool) -> Path:
        """Where a command of the session starts. A command may go anywhere its user may, so this keeps a
        caller to its word and no command in. Raises Refused."""
        workspace = self.path(session).resolve()
        try:
            with acting_as(self.owner(session)):
                found = Path(workspace, cwd).resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle, before 3.13
            raise Refused(Fault.NOT_FOUND, f"cwd: there is no directory {cwd!r}") from error
        if not allow_outside and found != workspace and workspace not in found.parents:
            raise Refused(Fault.OUTSIDE, f"cwd: {cwd!r} is outside of the workspace")
        if not found.is_dir():
            raise Refused(Fault.NOT_FOUND, f"cwd: {cwd!r} is no directory")
        return found

    async def empty_trash(self) -> None:
        """What a removal left that was interrupted, or that was refused then."""
        for entry in list(os.scandir(self._trash)):
            await self._discard(entry.name)

    async def close(self) -> None:
        """Removals that are under way go on at the next start."""
        for task in list(self._removals.values()):
            task.cancel()
        await asyncio.gather(*self._removals.values(), return_exceptions=True)

    async def _put(self, request: Frame, caller: Caller) -> Frame:
        name, record = request.header.get("session"), request.header.get("record", {})
        home = self._home(name)
        text = json.dumps(record).encode()
        if not isinstance(record, dict) or len(text) > MAX_RECORD_BYTES:
            raise Refused(Fault.BAD_REQUEST, f"record: must be an object of at most {MAX_RECORD_BYTES} bytes")
        if (removing := self._removals.get(str(name))) is not None:
            await asyncio.wait({removing})
        with refusing_errors():
            is_new = not (home / _RECORD).exists()
            self._make(home, caller.isolation.session_uids)
            _write_durably(home / _RECORD, text)
        return Frame({"workspace": str(home / "workspace"), "is_new": is_new})

    async def _list(self, request: Frame, caller: Caller) -> Frame:
        """By name; a list that is too long for one answer goes on after the last of them."""
        after = request.header.get("after") or ""
        names = sorted(entry.name for entry in os.scandir(self._sessions) if entry.name > after)
        found: list[dict[str, Any]] = []
        room = LIST_BYTES
        for name in names:
            text = _read(self._sessions / name / _RECORD)
            if text is None or name in self._removals:
                continue
            room -= len(text)
            if found and room < 0:
                return Frame({"sessions": found, "is_last": False})
            workspace = str(self._sessions / name / "workspace")
            found.append({"session": name, "workspace": workspace, "record": _record(text)})
        return Frame({"sessions": found, "is_last": True})

    async def _remove(self, request: Frame, caller: Caller) -> Frame:
        name = request.header.get("session")
        home = self._home(name)
        keeps_workspace = read.flag(request.header, "keeps_workspace")
        task = self._removals.get(str(name))
        if task is None:
            if not home.exists():
                raise _unknown(name)
            end = self._end(str(name), keeps_workspace)
            task = asyncio.get_running_loop().create_task(end, name="remove a session")
            self._removals[str(name)] = task
        with refusing_errors():
            await asyncio.shield(task)
        return Frame({})

    async def _end(self, name: str, keeps_workspace: bool) -> None:
        discarded = f"{name}.{secrets.token_hex(8)}"
        try:
            for end in self._before_removal:
                await end(name)
            if keeps_workspace:
                with contextlib.suppress(FileNotFoundError):
                    (self._sessions / name / _RECORD).unlink()
                return
            owner = self.owner(name)
            (self._sessions / name).rename(self._trash / discarded)
            self._count -= 1
            self._uids.free(owner)
        finally:
            del self._removals[name]
        await self._discard(discarded)

    async def _discard(self, name: str) -> None:
        trash = os.open(self._trash, OPEN_DIRECTORY)
        try:
            with contextlib.suppress(FileNotFoundError):
                if failed := await removal.remove(trash, name):
                    log.warning(
                        "%d entries of a removed workspace would not go; next start tries again", failed
                    )
        finally:
            os.close(trash)

    def _home(self, name: object) -> Path:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            allowed = "1 to 200 letters, digits and ._@+=,~-, the first a letter, digit or _"
            raise Refused(Fault.BAD_REQUEST, f"session: must be {allowed}")
        return self._sessions / name

    def _make(self, home: Path, uids: tuple[int, int] | None) -> None:
        if not home.exists():
            if self._count >= self._max_sessions:
                raise Refused(
                    Fault.NO_SPACE, f"session: {self._count} exist, which is the limit of this host"
                )
            home.mkdir(mode=0o700)
            self._count += 1
        try:
            self._make_workspace(home, uids)
        except (OSError, Refused):
            with contextlib.suppress(OSError):
                home.rmdir()  # Where there is nothing in it.
                self._count -= 1
            raise

    def _make_workspace(self, home: Path, uids: tuple[int, int] | None) -> None:
        workspace = home / "workspace"
        owner = owner_in(home)
        if owner is None and uids is not None:
            if workspace.exists():
                message = "session: its workspace was made without a user of its own; remove it first"
                raise Refused(Fault.FORBIDDEN, message)
            owner = self._uids.take(uids, home)
        if not workspace.exists():
            _make_directory(workspace, owner)


def _make_directory(path: Path, owner: Owner | None) -> None:
    """It has its name when it has its owner."""
    new = path.with_suffix(".new")
    new.mkdir(mode=0o700, exist_ok=True)
    if owner is not None:
        os.chown(new, owner.uid, owner.gid)
    new.rename(path)


def _write_durably(path: Path, data: bytes) -> None:
    new = path.with_suffix(".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        new.replace(path)
    except OSError:
        new.unlink()
        raise


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _record(text: bytes) -> dict[str, Any]:
    """{} where it is damaged: the session is there all the same."""
    try:
        record = json.loads(text)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _unknown(session: object) -> Refused:
    return Refused(Fault.UNKNOWN_SESSION, f"session: there is none of the name {session!r}")
