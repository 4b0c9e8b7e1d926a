"""Signals that a shim gets and its command shall have.

A signal may be sent to the shim alone or to its whole process group, in which the command is, too; the kernel
does not tell which. What went to the group must not be passed on: a second Ctrl-C means another thing to many
programs than the first. So a *canary*, a child that does nothing but report the signals that it gets, is in
the group as well: what it heard of, the command has.

Owns which signals these are, and telling the two apart.
"""

from __future__ import annotations

import os
import select
import signal

PASSED_ON = frozenset(
    (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
)
_REPORT_S = 0.1
"""For the canary to be scheduled on a busy machine. Only a signal that is passed on waits so long."""
_GLANCE_S = 5.0
"""How late a canary notices that the shim was killed, when all else that would end it was killed, too."""


def block() -> set[int]:
    """Those, and SIGCHLD, are waited for from now on. Returns the mask before."""
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON | {signal.SIGCHLD}))


def next_one(timeout_s: float | None = None) -> int | None:
    """The number of the next blocked signal; None after the timeout."""
    awaited = PASSED_ON | {signal.SIGCHLD}
    if timeout_s is None:
        return signal.sigwaitinfo(awaited).si_signo
    found = signal.sigtimedwait(awaited, timeout_s)
    return None if found is None else found.si_signo


class Canary:
    """In the process group of whoever makes it, with signals blocked."""

    def __init__(self) -> None:
        self._reports, writing = os.pipe()
        shim = os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # None may kill it before it listens.
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _report(writing, shim)
            finally:
                os._exit(0)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(writing)

    def has_heard(self, number: int) -> bool:
        """Whether a signal that has just come was for the whole group."""
        ready = select.poll()
        ready.register(self._reports, select.POLLIN)
        while ready.poll(_REPORT_S * 1000):
            heard = os.read(self._reports, 64)
            if number in heard or not heard:
                return bool(heard)
        return False

    def kill(self) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def end(self) -> None:
        """By its parent."""
        self.kill()
        os.waitpid(self.pid, 0)


def _report(writing: int, shim: int) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) != writing:
            try:
                os.close(int(name))
            except OSError:  # The one by which this list was read.
                continue
    while os.getppid() == shim:
        found = signal.sigtimedwait(PASSED_ON, _GLANCE_S)
        if found is not None:
            os.write(writing, bytes([found.si_signo]))
