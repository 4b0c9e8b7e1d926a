"""Ends everything that a session's user runs, whatever it did to hide: it can wipe its environment and leave
its group, and stays that user.

Owns the one stroke, kill(-1): the kernel signals all that the caller may, so the caller is that user. Must
not know sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import NoReturn

from gateway.host_agent.session_uids import uids_of_processes

_STROKES = 20
"""A process that outlives so many hangs in the kernel."""
_PAUSE_S = 0.02


async def kill_all_of(uid: int) -> bool:
    """False: something is left, which cannot be killed now. Raises OSError."""
    for _ in range(_STROKES):
        if uid not in uids_of_processes():
            return True
        _strike(uid)
        await asyncio.sleep(_PAUSE_S)
    return uid not in uids_of_processes()


def _strike(uid: int) -> None:
    pid = os.fork()
    if pid == 0:
        _kill_as(uid)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _kill_as(uid: int) -> NoReturn:
    """By a child. All but itself; no other user's, since it is root no longer by then."""
    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        os.kill(-1, signal.SIGKILL)
    finally:
        os._exit(0)
