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

from gateway.host_agent.wire import MARKER, OWNER

_MARKER_BYTES = MARKER.encode()
_OWNER_BYTES = OWNER.encode()

_MAX_PASSES = 20
"""Something that forks faster than it is found is given up after so many walks."""
_PIDS_PER_TURN = 50
"""About a millisecond."""
_DYING_S = 1.0
"""A killed process takes milliseconds, unless it hangs in the kernel; then nobody can wait for it."""
_DYING_POLL_S = 0.005


Mark = tuple[str, str]
"""Owner and id of an exec."""


class Sweeper:
    """Sweeps for several commands in one walk: those that ask while a walk is on share the next one."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        """Whose commands alone are looked for."""
        self._wanted: set[str] = set()
        self._walk = asyncio.Lock()

    async def kill(self, exec_ids: Iterable[str]) -> None:
        """SIGKILL to every process that carries one of the ids, until there is none."""
        ids = set(exec_ids)
        self._wanted |= ids
        async with self._walk:
            if not self._wanted.isdisjoint(ids):
                wanted, self._wanted = self._wanted, set()
                await _kill_marked(self._marks(wanted))

    async def signal(self, exec_id: str, number: signal.Signals) -> int:
        """Once to each process that carries the id; returns how many there were."""
        return await _signal_marked(self._marks({exec_id}), number)

    async def has_any(self, exec_id: str) -> bool:
        return bool([pid async for pid in marked_pids(self._marks({exec_id}))])

    def _marks(self, exec_ids: Iterable[str]) -> set[Mark]:
        return {(self._owner, exec_id) for exec_id in exec_ids}


async def _kill_marked(marks: Set[Mark]) -> None:
    for _ in range(_MAX_PASSES):
        if not await _signal_marked(marks, signal.SIGKILL):
            return
        await _gone(marks)


async def _signal_marked(marks: Set[Mark], number: signal.Signals) -> int:
    sent = 0
    async for pid in marked_pids(marks):
        sent += send(pid, number, partial(_is_of, pid, marks))
    return sent


async def marked_pids(marks: Set[Mark]) -> AsyncIterator[int]:
    """Every living process that carries one of them."""
    me = os.getpid()
    for count, name in enumerate(os.listdir("/proc")):  # noqa: PTH208 - names only, of thousands
        if count % _PIDS_PER_TURN == 0:
            await asyncio.sleep(0)
        if name.isdigit() and int(name) != me and _mark_of(int(name)) in marks:
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


async def _gone(marks: Set[Mark]) -> None:
    """Or zombies, which have no environment any more."""
    for _ in range(int(_DYING_S / _DYING_POLL_S)):
        if not [pid async for pid in marked_pids(marks)]:
            return
        await asyncio.sleep(_DYING_POLL_S)


def _is_of(pid: int, marks: Set[Mark]) -> bool:
    return _mark_of(pid) in marks


def _mark_of(pid: int) -> Mark | None:
    """Whose command a process belongs to, and which."""
    environ = b""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb", buffering=0) as file:  # noqa: PTH123
        environ = file.read()  # Empty of a zombie; an error when it is gone or another user's.
    if _MARKER_BYTES not in environ:
        return None
    variables = dict(each.partition(b"=")[::2] for each in environ.split(b"\0"))
    if _MARKER_BYTES not in variables:
        return None
    owner, exec_id = (variables.get(name, b"") for name in (_OWNER_BYTES, _MARKER_BYTES))
    return owner.decode("utf-8", "replace"), exec_id.decode("utf-8", "replace")
