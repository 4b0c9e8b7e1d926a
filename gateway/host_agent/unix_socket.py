"""The agent's socket in its directory, from both sides, and who is at the other end.

It imports little, since ``connect`` starts once per connection.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from gateway.host_agent.program import SOCKET

_PEER = struct.Struct("3i")
"""struct ucred: pid, uid, gid."""


def bound_socket(directory: Path) -> socket.socket:
    """What is there is nobody's: who calls has the directory's lock."""
    with contextlib.suppress(FileNotFoundError):
        (directory / SOCKET).unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with _short_path(directory) as path:
            listener.bind(path)
    finally:
        os.umask(before)
    listener.setblocking(False)
    return listener


def try_connect(directory: Path) -> socket.socket | None:
    """None: nobody listens. Raises OSError."""
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short_path(directory) as path:
            agent.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        agent.close()
        return None
    except OSError:
        agent.close()
        raise
    return agent


def uid_of(peer: socket.socket) -> int:
    return int(_PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[1])


def may_ask(uid: int) -> bool:
    """The same user, or root."""
    return uid in (os.geteuid(), 0)


@contextlib.contextmanager
def _short_path(directory: Path) -> Iterator[str]:
    """Through a descriptor: the path of a socket may have 107 bytes only."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET}"
    finally:
        os.close(fd)
