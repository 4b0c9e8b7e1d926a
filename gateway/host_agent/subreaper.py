"""Adopts what commands leave behind, so that it has a parent that reaps it.

A process whose parent died goes to the nearest *subreaper* above it. Without one, in a container whose first
process reaps nobody, every daemon of every command stays a zombie for ever. Owns SIGCHLD; must never reap a
leader: its owner does that, when its number may go to another process.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h"""
_AGAIN_S = 0.05
"""A leader that has ended and is being cleared up after hides the others from us meanwhile."""


class Subreaper:
    def __init__(self, is_leader: Callable[[int], bool], on_reaped: Callable[[], None]) -> None:
        self._is_leader = is_leader
        self._on_reaped = on_reaped
        self._again: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.is_on = _set_subreaper(True)
        if self.is_on:
            self._loop.add_signal_handler(signal.SIGCHLD, self._reap)

    def close(self) -> None:
        if self.is_on:
            self._loop.remove_signal_handler(signal.SIGCHLD)
            _set_subreaper(False)
            self.is_on = False
        if self._again is not None:
            self._again.cancel()

    def _reap(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        did_reap = False
        while (pid := _ended_child()) is not None:
            if self._is_leader(pid):
                self._again = self._loop.call_later(_AGAIN_S, self._reap)
                break
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
                did_reap = True
        if did_reap:
            self._on_reaped()


def _ended_child() -> int | None:
    """One of them, left as it is."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if ended is None else ended.si_pid


def _set_subreaper(is_on: bool) -> bool:
    """False: the kernel does not have it, or there is no C library to ask it by."""
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return False
    return bool(prctl(_PR_SET_CHILD_SUBREAPER, int(is_on), 0, 0, 0) == 0)
