"""The user that a session's files and commands belong to, where that is not the agent's own.

Owns acting as that user on the file system. What root does by name in a directory of somebody else, that
somebody can turn against others: a name that was looked at is a link to another file a moment later. So root
does not do it: for the file system it *is* the owner meanwhile (setfsuid(2)), and can do no more than the
session's own commands could.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.host_agent.libc import libc

_NO_CHANGE = 2**32 - 1
"""No user has this number; setfsuid() answers with the present one."""


@dataclass(frozen=True)
class Owner:
    uid: int
    gid: int


@contextlib.contextmanager
def acting_as(owner: Owner | None) -> Iterator[None]:
    """Files are found, read, made and changed as by this user. Nothing may be awaited within: it holds for
    the whole thread. Raises OSError."""
    if owner is None:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    gid_before, uid_before = _set_gid(owner.gid), _set_uid(owner.uid)
    try:
        if _set_uid(_NO_CHANGE) != owner.uid or _set_gid(_NO_CHANGE) != owner.gid:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        yield
    finally:
        _set_uid(uid_before)
        _set_gid(gid_before)
        os.setgroups(groups)


def is_root_on_disk() -> bool:
    """Root, and not acting as somebody."""
    return os.geteuid() == 0 and _set_uid(_NO_CHANGE) == 0


def _set_uid(uid: int) -> int:
    return int(libc().setfsuid(ctypes.c_uint(uid)))


def _set_gid(gid: int) -> int:
    return int(libc().setfsgid(ctypes.c_uint(gid)))
