"""An interactive shell here, with the shim between it and its input, so that work waits for room.

Theory of operation. On a terminal the shell gets a terminal of its own, made like ours in mode and size; ours
is put in a mode in which nothing is changed on the way, and bytes are copied both ways as they are. Where our
terminal controls us, the other one controls the shell, and job control works. Where we lead a session that
none controls (frameworks start shells so), so does the shell there, and takes its terminal as it would have
taken ours. Without a terminal only the input goes through us, by a pipe.

Owns descriptors and the copying; ``bursts`` decides what is passed on when.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable

from gateway.shims import local_shell, own_terminal, process_tree, signals, vigil
from gateway.shims.bursts import LINE_ENDS, Bursts
from gateway.shims.lease import Lease
from gateway.shims.leased_command import pass_on

_READ_BYTES = 64 << 10
_MOST_BYTES = 256 << 10
"""Waiting to be written on either side; then nothing more is read on the other."""


MakeLease = Callable[[bytes | None], Lease]


def run(shell: str, words: list[str], make_lease: MakeLease, queue_s: float) -> int:
    """The exit code. Raises OSError where the shell could not be started."""
    mark = os.urandom(8).hex()
    canary = signals.Canary()
    keeper = vigil.keep(_Duty(mark, canary, make_lease))
    bursts = Bursts(_announced(make_lease, keeper), queue_s)
    mask = set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    shell_side, ours, terminal = _terminal() if own_terminal.is_terminal(0) else _pipe()
    try:
        pid = _spawn(shell, words, mark, mask, shell_side, terminal)
        os.close(shell_side)
        status = _Relay(pid, bursts, canary, ours, terminal is not None).until_over()
    finally:
        bursts.rest()
        if terminal is not None:
            terminal.restore()
        canary.end()
        keeper.end(b"over")
    return local_shell.end_like(status)


class _Terminal:
    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.path = os.ttyname(self.slave)
        own_terminal.set_mode(self.slave, own_terminal.mode(0))
        own_terminal.copy_size(0, self.slave)
        self._before = own_terminal.set_raw(0)

    def restore(self) -> None:
        own_terminal.restore(0, self._before)


def _terminal() -> tuple[int, int, _Terminal | None]:
    made = _Terminal()
    return made.slave, made.master, made


def _pipe() -> tuple[int, int, _Terminal | None]:
    reading, writing = os.pipe()
    return reading, writing, None


def _spawn(
    shell: str, words: list[str], mark: str, mask: set[int], fd: int, terminal: _Terminal | None
) -> int:
    if terminal is None:
        return local_shell.spawn(shell, words, mark, mask, actions=local_shell.onto(fd, 0))
    leads = os.getsid(0) == os.getpid()
    if not own_terminal.controls_us():
        actions = local_shell.onto(fd, 0, 1, 2)
        return local_shell.spawn(shell, words, mark, mask, actions=actions, leads_session=leads)
    opened = (os.POSIX_SPAWN_OPEN, 0, terminal.path, os.O_RDWR, 0)
    opening = [opened, *local_shell.onto(0, 1, 2)]  # The leader of a session is controlled by what it opens.
    return local_shell.spawn(shell, words, mark, mask, actions=opening, leads_session=True)


class _Relay:
    def __init__(
        self, pid: int, bursts: Bursts, canary: signals.Canary, shell_fd: int, has_terminal: bool
    ) -> None:
        self._pid = pid
        self._bursts = bursts
        self._canary = canary
        self._shell_fd: int | None = shell_fd
        self._has_terminal = has_terminal
        self._has_input = True
        self._to_shell = b""
        self._to_us = b""
        self._arrived: list[int] = []
        self._wakeup, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(writing, False)
        os.set_blocking(shell_fd, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (*signals.PASSED_ON, signal.SIGCHLD, signal.SIGWINCH):
            signal.signal(number, lambda each, _: self._arrived.append(each))

    def until_over(self) -> int:
        """The wait status of the shell."""
        looked_at_s = 0.0
        while True:
            self._wait(self._bursts.look_s)
            now = time.monotonic()
            if now - looked_at_s >= self._bursts.look_s:
                looked_at_s = now
                self._bursts.look(process_tree.use_of(self._pid), now)
            self._to_shell += self._bursts.passed()
            ended, status = os.waitpid(self._pid, os.WNOHANG)
            if ended == self._pid:
                self._drain()
                return status
            self._take_signals()

    def _wait(self, timeout_s: float) -> None:
        """And copy what can be copied."""
        ready = select.poll()
        ready.register(self._wakeup, select.POLLIN)
        if self._has_input and self._bursts.takes_more and len(self._to_shell) < _MOST_BYTES:
            ready.register(0, select.POLLIN)
        if self._shell_fd is not None and (events := self._shell_events()):
            ready.register(self._shell_fd, events)
        if self._to_us:
            ready.register(1, select.POLLOUT)
        found = dict(ready.poll(timeout_s * 1000))
        if self._wakeup in found:
            os.read(self._wakeup, 512)
        if self._shell_fd in found and self._has_terminal:
            self._read_shell()
        if 1 in found:
            self._write_us()
        if 0 in found:
            self._read_us()
        self._write_shell()

    def _shell_events(self) -> int:
        events = select.POLLOUT if self._to_shell else 0
        return events | (select.POLLIN if self._has_terminal and len(self._to_us) < _MOST_BYTES else 0)

    def _read_us(self) -> None:
        try:
            data = os.read(0, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # The terminal hung up.
            data = b""
        if data:
            if not self._to_shell and any(each in data for each in LINE_ENDS):
                self._bursts.before_line(process_tree.use_of(self._pid))
            self._bursts.accept(data, time.monotonic())
            self._to_shell += self._bursts.passed()
            return
        self._has_input = False
        self._bursts.accept(b"\x04" if self._has_terminal else b"", time.monotonic())
        if self._has_terminal:
            self._pass_on(signal.SIGHUP)

    def _read_shell(self) -> None:
        """A terminal whose other side is closed answers with an error, not with an end."""
        assert self._shell_fd is not None
        try:
            self._to_us += os.read(self._shell_fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            os.close(self._shell_fd)
            self._shell_fd = None
        self._write_us()

    def _write_us(self) -> None:
        try:
            self._to_us = self._to_us[os.write(1, self._to_us) :]
        except BlockingIOError:
            return
        except OSError:  # Nobody is there to read.
            self._to_us = b""

    def _write_shell(self) -> None:
        if self._shell_fd is None:
            return
        try:
            if self._to_shell:
                self._to_shell = self._to_shell[os.write(self._shell_fd, self._to_shell) :]
            elif not self._has_input and not self._has_terminal:
                os.close(self._shell_fd)
                self._shell_fd = None
        except BlockingIOError:
            return
        except OSError:  # It has closed its input.
            self._to_shell = b""

    def _drain(self) -> None:
        """What the shell wrote last; others that hold its terminal are not waited for."""
        while self._shell_fd is not None and self._has_terminal:
            ready = select.poll()
            ready.register(self._shell_fd, select.POLLIN)
            if not ready.poll(0):
                break
            self._read_shell()
        os.set_blocking(1, True)
        while self._to_us:
            self._write_us()

    def _take_signals(self) -> None:
        arrived, self._arrived = self._arrived, []
        for number in arrived:
            if number == signal.SIGWINCH and self._has_terminal and self._shell_fd is not None:
                own_terminal.copy_size(0, self._shell_fd)
            elif number in signals.PASSED_ON:
                self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        pass_on(number, self._pid, self._canary)


def _announced(make_lease: MakeLease, keeper: vigil.Vigil) -> MakeLease:
    """The same leases, each known to the vigil while there is one."""

    def make(text: bytes | None) -> Lease:
        made = make_lease(text)
        made.changed = lambda each: keeper.note(b"" if each is None else each.encode())
        return made

    return make


class _Duty(vigil.Duty):
    """Nothing is renewed there: the relay does that, as long as it lives."""

    def __init__(self, mark: str, canary: signals.Canary, make_lease: MakeLease) -> None:
        super().__init__(
            period_s=3600.0,
            renew=lambda: None,
            farewell=lambda _: None,
            noted=self._note,
            abandoned=self._clean_up,
        )
        self._mark = mark
        self._canary = canary
        self._lease = make_lease(None)

    def _note(self, word: bytes) -> None:
        self._lease.id = word.decode() or None

    def _clean_up(self) -> None:
        self._canary.kill()
        local_shell.kill_marked(self._mark)
        if self._lease.id is not None:
            self._lease.give_back()
