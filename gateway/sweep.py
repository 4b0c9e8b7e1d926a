"""Finds and kills what a command left outside its process group.

``setsid``, ``nohup`` tricks and daemons leave the group; the marker in their environment stays. Owns
the walk through /proc; must not know why an exec ends. A process that wipes its environment as well
escapes: cgroups are the answer to that, where there are any.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Set
from pathlib import Path

MARKER = "MARS_EXEC_ID"

_MAX_PASSES = 20
"""Something that forks faster than it is found is given up after so many walks."""


class Sweeper:
    """Sweeps for several execs in one walk: those that ask while a walk is on share the next one."""

    def __init__(self) -> None:
        self._wanted: set[str] = set()
        self._walk = asyncio.Lock()

    async def kill(self, exec_id: str) -> None:
        self._wanted.add(exec_id)
        async with self._walk:
            if exec_id in self._wanted:
                wanted, self._wanted = self._wanted, set()
                await asyncio.to_thread(kill_marked, wanted)


def kill_marked(exec_ids: Set[str]) -> int:
    """SIGKILL to every process that carries one of the ids; returns how many there were."""
    marks = {f"{MARKER}={exec_id}".encode() for exec_id in exec_ids}
    killed: set[int] = set()
    for _ in range(_MAX_PASSES):
        found = {pid for pid in _other_pids() if _kill_if_marked(pid, marks)}
        if found <= killed:
            break
        killed |= found
    return len(killed)


def _other_pids() -> Iterator[int]:
    me = os.getpid()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (pid := int(entry.name)) != me:
            yield pid


def _kill_if_marked(pid: int, marks: Set[bytes]) -> bool:
    if not _is_marked(pid, marks):
        return False
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # Looked at again through a handle: the number may have passed to another process meanwhile.
        if not _is_marked(pid, marks):
            return False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        return True
    finally:
        os.close(handle)


def _is_marked(pid: int, marks: Set[bytes]) -> bool:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # Gone, another user's, or a kernel thread.
        return False
    return MARKER.encode() in environ and not marks.isdisjoint(environ.split(b"\0"))
