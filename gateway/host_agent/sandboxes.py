"""The view of the machine that each session's commands get where the host's settings demand a sandbox.

Owns which session has which, and whether there can be any: that is found out by trying what matters. Must not
know how commands are started.

Theory of operation. Bubblewrap makes a view once for each session (``bubblewrap``), and a command enters it
between fork and exec. So the command itself is what we start, wait for and signal: its exit code, its signals
and its control group are those of any command, which they would not be with a bwrap as its parent, and
nothing is started beside it. It shares the network with the machine, and its processes.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import signal
import time
from pathlib import Path
from typing import NoReturn

from gateway.host_agent.bubblewrap import Namespaces, NoSandbox, close_all, made
from gateway.host_agent.privileges import Confinement, confine

_AGAIN_S = 60.0
"""After a failure: it may have been for want of memory, or of the program."""
_OPEN_ROOT, _CLOSED_WORKSPACE, _NOT_ENTERED = 10, 11, 12
"""Exit codes of who looks around."""
_FOUND = {
    0: None,
    _OPEN_ROOT: "sandbox: what bwrap makes here is not read-only",
    _CLOSED_WORKSPACE: "sandbox: in what bwrap makes here the workspace cannot be written",
}


class Sandboxes:
    """``close`` it."""

    def __init__(self, directory: Path) -> None:
        """Of the agent."""
        self._directory = directory
        self._of_session: dict[str, Namespaces] = {}
        self._one_at_a_time = asyncio.Lock()
        self._trouble: str | None = None
        self._try_again_at_s = -math.inf

    async def trouble(self) -> str | None:
        """Why commands cannot have one, found out by trying: once, unless that failed."""
        async with self._one_at_a_time:
            if time.monotonic() >= self._try_again_at_s:
                self._trouble = await self._tried()
                self._try_again_at_s = math.inf if self._trouble is None else time.monotonic() + _AGAIN_S
        return self._trouble

    async def open(self, session: str, home: Path) -> None:
        """Of a session whose workspace is in ``home``. Raises NoSandbox."""
        why_not = await self.trouble()
        if why_not is not None:
            raise NoSandbox(why_not)
        async with self._one_at_a_time:
            if session not in self._of_session:
                self._of_session[session] = await made(self._directory, home)

    def of(self, session: str) -> Namespaces | None:
        return self._of_session.get(session)

    def end(self, session: str) -> None:
        close_all(self._of_session.pop(session, ()))

    def close(self) -> None:
        for session in list(self._of_session):
            self.end(session)

    async def _tried(self) -> str | None:
        home = self._directory / "sandbox_trial"
        try:
            (home / "workspace").mkdir(mode=0o700, parents=True, exist_ok=True)
            namespaces = await made(self._directory, home)
            try:
                return _looked_around(namespaces, home / "workspace")
            finally:
                close_all(namespaces)
        except NoSandbox as none:
            return str(none)
        except OSError as error:
            return f"sandbox: it could not be tried: {error.strerror}"
        finally:
            shutil.rmtree(home, ignore_errors=True)


def _looked_around(namespaces: Namespaces, workspace: Path) -> str | None:
    """Raises OSError."""
    pid = os.fork()
    if pid == 0:
        _look_around(namespaces, workspace)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return _FOUND.get(code, "sandbox: what bwrap makes here cannot be entered by commands")


def _look_around(namespaces: Namespaces, workspace: Path) -> NoReturn:
    """By a child: what a command would find."""
    found = _NOT_ENTERED
    try:
        signal.set_wakeup_fd(-1)
        confine(Confinement(None, namespaces), ())
        found = _CLOSED_WORKSPACE
        (workspace / "trial").touch()
        found = 0 if os.statvfs("/").f_flag & os.ST_RDONLY else _OPEN_ROOT
    finally:
        os._exit(found)
