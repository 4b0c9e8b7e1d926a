"""Finds and kills what a command left outside its process group.

``setsid``, ``nohup`` tricks and daemons leave the group; the marker in their environment stays. Owns
the walk through /proc; must not know why an exec ends. A process that wipes its environment as well
escapes: cgroups are the answer to that, where there are any.
"""

import asyncio
import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator, Set

MARKER = "MARS_EXEC_ID"
_MARKER_BYTES = MARKER.encode()

_MAX_PASSES = 20
"""Something that forks faster than it is found is given up after so many walks."""
_DYING_S = 1.0
"""A killed process takes milliseconds, unless it hangs in the kernel; then nobody can wait for it."""


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
    """SIGKILL to every process that carries one of the ids, until there is none; returns how many."""
    marks = {f"{MARKER}={exec_id}".encode() for exec_id in exec_ids}
    killed = 0
    for _ in range(_MAX_PASSES):
        with contextlib.ExitStack() as handles:
            dying = [
                handle for pid in _other_pids() if (handle := _try_kill(pid, marks, handles)) is not None
            ]
            if not dying:
                break
            killed += len(dying)
            _wait_gone(dying)
    return killed


def _other_pids() -> Iterator[int]:
    me = os.getpid()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (pid := int(entry.name)) != me:
            yield pid


def _try_kill(pid: int, marks: Set[bytes], handles: contextlib.ExitStack) -> int | None:
    """A handle to the process if it is marked and now dying."""
    if not _is_marked(pid, marks):
        return None
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    handles.callback(os.close, handle)
    # Looked at again through the handle: the number may have passed to another process meanwhile.
    if not _is_marked(pid, marks):
        return None
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return None
    return handle


def _wait_gone(handles: list[int]) -> None:
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
    deadline_s = time.monotonic() + _DYING_S
    left = len(handles)
    while left and (remaining_s := deadline_s - time.monotonic()) > 0:
        for handle, _ in poll.poll(remaining_s * 1000):
            poll.unregister(handle)
            left -= 1


def _is_marked(pid: int, marks: Set[bytes]) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:  # noqa: PTH123 - half the time of Path's
            environ = file.read()
    except OSError:  # Gone, another user's, or a kernel thread.
        return False
    return _MARKER_BYTES in environ and not marks.isdisjoint(environ.split(b"\0"))
