"""The process that stays behind when a shim is killed: it keeps saying that the shim is there, and cleans up
once it is not.

A shim that is killed with SIGKILL, as agents do when a command takes too long, can do nothing any more; and
one that waits for its command has no time to renew a lease. So both is done by a child in a session of its
own. It notices the end of the shim by their connection, which the kernel closes.

Owns that process. It must not know what is renewed or cleaned up.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable

_NOTE = b"+"
_MOST_BYTES = 256
"""Of a word to the other side."""
FAREWELL_S = 5.0
"""For the last call to the gateway; then the shim goes."""


class Vigil:
    """The shim's end."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self._connection = connection
        self.pid = pid

    def note(self, word: bytes) -> None:
        """For the other side's ``noted``. At most a few bytes."""
        try:
            self._connection.send(_NOTE + word)
        except OSError:  # It was killed: there is nobody to tell.
            return

    def end(self, farewell: bytes) -> None:
        """Returns when the last call is made, or after FAREWELL_S."""
        self._connection.settimeout(FAREWELL_S)
        try:
            self._connection.send(farewell)
            self._connection.recv(1)
        except TimeoutError:
            return
        except OSError:  # It was killed.
            pass
        finally:
            self._connection.close()
        os.waitpid(self.pid, 0)


class Duty:
    """What is kept up, and how it ends. All of it happens in the other process."""

    def __init__(
        self,
        *,
        period_s: float,
        renew: Callable[[], None],
        farewell: Callable[[bytes], None],
        abandoned: Callable[[], None],
        noted: Callable[[bytes], None] = lambda _: None,
        begins_at_once: bool = False,
    ) -> None:
        self.noted = noted
        """Something that the shim wants to be known in case that it is killed."""
        self.period_s = period_s
        self.begins_at_once = begins_at_once
        self.renew = renew
        """Every ``period_s``."""
        self.farewell = farewell
        """The shim has ended by itself, with these last words."""
        self.abandoned = abandoned
        """The shim was killed."""


def keep(duty: Duty) -> Vigil:
    """Call it in a process of one thread, before there is a child."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ours.close()
            _detach(theirs.fileno())
            _watch(theirs, duty)
            code = 0
        finally:
            os._exit(code)  # Nothing of the shim's own end is ours.
    theirs.close()
    return Vigil(ours, pid)


def _detach(kept_fd: int) -> None:
    """No signal for the shim's group or terminal reaches us, and nobody waits for an end because of us."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd != kept_fd:
            try:
                os.close(fd)
            except OSError:  # The one by which this list was read.
                continue
    os.chdir("/")


def _watch(connection: socket.socket, duty: Duty) -> None:
    if duty.begins_at_once:
        duty.renew()
    ready = select.poll()
    ready.register(connection, select.POLLIN)
    while True:
        if not ready.poll(duty.period_s * 1000):
            duty.renew()
            continue
        word = connection.recv(_MOST_BYTES)
        if word.startswith(_NOTE):
            duty.noted(word.removeprefix(_NOTE))
            continue
        if word:
            duty.farewell(word)
        else:
            duty.abandoned()
        return
