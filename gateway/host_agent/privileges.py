"""What a child gives up between fork and exec, so that its program has no more than its session may.

Owns the system calls and their order. Must not know why. Everything is asked of the kernel by the child
itself; one call that fails is an OSError, and then there must be no program.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.host_agent.libc import call, libc
from gateway.host_agent.owner import Owner

_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
"""linux/prctl.h"""
_CAPABILITIES = 64
"""The kernel has room for so many; what it does not know it refuses."""


@dataclass(frozen=True)
class Confinement:
    """Of one command."""

    owner: Owner | None
    """It becomes this user. None: it stays what the agent is."""
    namespaces: Sequence[int] = ()
    """Descriptors of those that it enters, in this order."""

    def __post_init__(self) -> None:
        libc()  # Not by the child: between fork and exec the less the better.


def confine(confinement: Confinement, streams: Sequence[int]) -> None:
    """By the child. Its user can open ``streams`` again by name (/dev/stdout) afterwards. Raises OSError."""
    owner = confinement.owner
    if owner is not None:
        for fd in streams:
            _give(fd, owner)
    for namespace in confinement.namespaces:
        call("setns", namespace, 0)
    if owner is not None:
        os.setgroups([])
        os.setresgid(owner.gid, owner.gid, owner.gid)
        os.setresuid(owner.uid, owner.uid, owner.uid)
    elif confinement.namespaces and os.geteuid() == 0:
        _drop_capabilities()
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _give(fd: int, owner: Owner) -> None:
    """A pipe, a terminal or a file in memory of ours; never /dev/null."""
    found = os.fstat(fd)
    is_ours = stat.S_ISFIFO(found.st_mode) or stat.S_ISREG(found.st_mode) or os.isatty(fd)
    if is_ours:
        os.fchown(fd, owner.uid, owner.gid)


def _drop_capabilities() -> None:
    """Root's, for ever: else it could mount what the sandbox has read-only. They are gone at its exec."""
    for capability in range(_CAPABILITIES):
        with contextlib.suppress(OSError):
            call("prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0)
