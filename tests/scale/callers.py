"""Which process is at the other end of a TCP connection on this machine.

Read from /proc, as any user may of its own processes: replicas must know their backends by the same
names, so a forwarder cannot tell them apart by the port that they come to.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_LOCAL, _INODE = 1, 9
"""Columns of /proc/net/tcp."""


def caller_of(port: int, pids: Iterable[int]) -> int | None:
    """The one of these processes whose local end of a connection has this port; None if none has."""
    inode = _inode_of(port)
    if inode is None:
        return None
    wanted = f"socket:[{inode}]"
    return next((pid for pid in pids if wanted in _open_files(pid)), None)


def _inode_of(port: int) -> str | None:
    suffix = f":{port:04X}"
    with Path("/proc/net/tcp").open() as table:
        next(table)
        for line in table:
            columns = line.split()
            if columns[_LOCAL].endswith(suffix):
                return columns[_INODE]
    return None


def _open_files(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(str(entry.readlink()))
    return found
