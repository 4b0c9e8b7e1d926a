"""Finds what a command left outside its process group, by the marker in its environment.

``setsid``, ``nohup`` tricks and daemons leave the group; the marker stays. Owns the walk through /proc; must
not know why a command ends. A process that wipes its environment as well escapes: cgroups are the answer to
that, where there are any.

A walk over all processes takes milliseconds, so it lets the event loop have its turn now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Set
from functools import partial

from gateway.host_agent.wire import MARKER

_MARKER_BYTES = MARKER.encode()

_MAX_PASSES = 20
"""Something that forks faster than it is found is given up after so many walks."""
_PIDS_PER_TURN = 50
"""About a millisecond."""
_DYING_S = 1.0
"""A killed process takes milliseconds, unless it hangs in the kernel; then nobody can wait for it."""
_DYING_POLL_S = 0.005


class Sweeper:
    """Sweeps for several commands in one walk: those that ask while a walk is on share the next one."""

    def __init__(self) -> None:
        self._wanted: set[str] = set()
        self._walk = asyncio.Lock()

    async def kill(self, exec_ids: Iterable[str]) -> None:
        """SIGKILL to every process that carries one of the ids, until there is none."""
        ids = set(exec_ids)
        self._wanted |= ids
        async with self._walk:
            if not self._wanted.isdisjoint(ids):
                wanted, self._wanted = self._wanted, set()
                await _kill_marked(wanted)

    async def signal(self, exec_id: str, number: signal.Signals) -> int:
        """Once to each process that carries the id; returns how many there were."""
        return await _signal_marked({exec_id}, number)


async def _kill_marked(exec_ids: Set[str]) -> None:
    for _ in range(_MAX_PASSES):
        if not await _signal_marked(exec_ids, signal.SIGKILL):
            return
        await _gone(exec_ids)


async def _signal_marked(exec_ids: Set[str], number: signal.Signals) -> int:
    sent = 0
    async for pid in marked_pids(exec_ids):
        sent += send(pid, number, partial(_is_of, pid, exec_ids))
    return sent


async def marked_pids(exec_ids: Set[str]) -> AsyncIterator[int]:
    """Every living process that carries one of the ids."""
    me = os.getpid()
    for count, name in enumerate(os.listdir("/proc")):  # noqa: PTH208 - names only, of thousands
        if count % _PIDS_PER_TURN == 0:
            await asyncio.sleep(0)
        if name.isdigit() and int(name) != me and _mark_of(int(name)) in exec_ids:
            yield int(name)


def send(pid: int, number: signal.Signals, is_still_it: Callable[[], bool]) -> bool:
    """Signal a process that may have ended and whose number may be another's by now: it is looked at again
    through a handle that cannot change hands."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:  # Gone.
        return False
    try:
        if not is_still_it():
            return False
        signal.pidfd_send_signal(handle, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(handle)
    return True


async def _gone(exec_ids: Set[str]) -> None:
    """Or zombies, which have no environment any more."""
    for _ in range(int(_DYING_S / _DYING_POLL_S)):
        if not [pid async for pid in marked_pids(exec_ids)]:
            return
        await asyncio.sleep(_DYING_POLL_S)


def _is_of(pid: int, exec_ids: Set[str]) -> bool:
    return _mark_of(pid) in exec_ids


def _mark_of(pid: int) -> str | None:
    """The id of the command that a process belongs to."""
    environ = b""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb", buffering=0) as file:  # noqa: PTH123
        environ = file.read()  # Empty of a zombie; an error when it is gone or another user's.
    if _MARKER_BYTES not in environ:
        return None
    start = _MARKER_BYTES + b"="
    for variable in environ.split(b"\0"):
        if variable.startswith(start):
            return variable[len(start) :].decode("utf-8", "replace")
    return None
