"""Starts the leader of a command, signals its group and reaps it.

Owns the number of the process and what may be done with it. A leader is in a session of its own, so group and
session have its number. It is reaped last, when nothing of its group is left: until then the kernel gives the
number to nobody else, and no signal of ours can hit a stranger.

``subprocess`` would do but for one thing: it waits until the child has become the program, with the event
loop standing still. On a host whose cores are busy with commands, the child, one of them by then, takes its
time. Here the child reports by a pipe that closes when it becomes the program.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import resource
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from gateway.host_agent.operations import Refused
from gateway.host_agent.privileges import Confinement, confine
from gateway.host_agent.process_use import stat_fields
from gateway.host_agent.terminal import become_controlling
from gateway.host_agent.waiters import Waiters
from gateway.host_agent.wire import Fault

EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
"""As a shell answers for a command that it could not start."""

_OOM_SCORE = b"100"
"""A command is a better victim than the agent when the host is out of memory (0 is usual, 1000 the first)."""
_DEFAULT_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
)
"""That somebody may have changed for this process; handling all 64 takes longer than the fork."""
_UMASK = 0o022
STATE_FD = 187
"""Where a shell writes what its session's next command begins with. Scripts take low or round numbers."""
_POLL_S = 0.02
"""For the end of a leader, on kernels before 5.3, which have no handles to processes."""


@dataclass(frozen=True)
class Launch:
    argv: list[str]
    directories: Sequence[Path]
    """Where it starts: the first that it can enter."""
    env: Mapping[str, str]
    streams: tuple[int, int, int]
    """Its standard input, output and error."""
    entrances: Sequence[int] = ()
    """Of the control groups that it enters."""
    has_terminal: bool = False
    """Its input is one, which becomes its own."""
    fsize_mb: int | None = None
    open_files: tuple[int, int] | None = None
    """Soft and hard limit that it gets back, where the agent raised its own."""
    state_fd: int | None = None
    """Open to it under the number ``STATE_FD``."""
    confinement: Confinement | None = None
    """None: it is what the agent is."""


def spawn(launch: Launch) -> Leader:
    """Returns at once; ``Leader.refusal`` says later whether it became the program. Raises Refused."""
    report_fd, childs_fd = os.pipe2(os.O_CLOEXEC)
    # A signal that arrives in the child before its handlers are reset would be told to this event loop.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _DEFAULT_SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            _become(launch, childs_fd)
    except OSError as error:
        os.close(report_fd)
        raise not_started(f"could not be started: {error.strerror}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(childs_fd)
    return Leader(pid, report_fd)


def not_started(reason: str, exit_code: int | None = None) -> Refused:
    return Refused(Fault.NOT_STARTED, reason, exit_code=exit_code)


class _Stage:
    """What the child was doing when it failed."""

    PREPARE = "prepare"
    CONFINE = "confine"
    ENTER = "enter"
    PROGRAM = "program"


def _become(launch: Launch, report_fd: int) -> NoReturn:
    """By the child, from fork to exec. Every descriptor of ours closes by itself then."""
    stage = _Stage.PREPARE
    try:
        os.setsid()
        _prepare(launch)
        if launch.confinement is not None:
            stage = _Stage.CONFINE
            confine(launch.confinement, (0, 1, 2))
        stage = _Stage.ENTER
        _enter(launch.directories)
        stage = _Stage.PROGRAM
        os.execvpe(launch.argv[0], launch.argv, launch.env)
    except BaseException as error:  # noqa: BLE001 - whatever it is, there must not be a second agent
        code = error.errno if isinstance(error, OSError) else 0
        os.write(report_fd, f"{stage} {code}".encode())
    finally:
        os._exit(EXIT_NOT_FOUND)


def _prepare(launch: Launch) -> None:
    for fd in launch.entrances:
        os.write(fd, b"0")
    for at, fd in enumerate([fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in launch.streams]):
        os.dup2(fd, at)
    if launch.state_fd is not None:
        os.dup2(launch.state_fd, STATE_FD)
    with contextlib.suppress(OSError):
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        os.write(score, _OOM_SCORE)
    if launch.has_terminal:
        become_controlling(0)
    if launch.open_files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, launch.open_files)
    if launch.fsize_mb is not None:
        most = launch.fsize_mb * 1_000_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    os.umask(_UMASK)
    _reset_signals()


def _enter(directories: Sequence[Path]) -> None:
    """Raises OSError of the last."""
    *first, last = directories
    for directory in first:
        with contextlib.suppress(OSError):
            os.chdir(directory)
            return
    os.chdir(last)


def _reset_signals() -> None:
    """Those that this process handles, or ignores: nohup, shells in the background and Python do that."""
    signal.set_wakeup_fd(-1)
    for number in _DEFAULT_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _refusal(report: bytes) -> Refused | None:
    """None: it became the program, or was killed on the way."""
    if not report:
        return None
    stage, _, code = report.decode().partition(" ")
    number = int(code)
    if stage == _Stage.ENTER:
        return not_started(f"its working directory cannot be entered: {os.strerror(number)}")
    if stage == _Stage.CONFINE:
        return not_started(f"its user or its sandbox cannot be entered: {os.strerror(number)}")
    if stage == _Stage.PREPARE:
        return not_started(f"its limits or its terminal could not be set up: {os.strerror(number)}")
    if number == errno.ENOENT:
        return not_started("no such program", EXIT_NOT_FOUND)
    if number in (errno.EACCES, errno.EPERM):
        return not_started("the program or its directory may not be entered", EXIT_NOT_EXECUTABLE)
    return not_started(f"the program cannot be executed: {os.strerror(number)}", EXIT_NOT_EXECUTABLE)


class Leader:
    """The process that was started."""

    def __init__(self, pid: int, report_fd: int) -> None:
        self.pid = pid
        self.is_settled = False
        """Whether it became the program is known."""
        self.is_gone = False
        """It has ended; until ``reap`` it is a zombie and its number is safe."""
        self.returncode: int | None = None
        self._is_reaped = False
        self._report_fd = report_fd
        self._report = Waiters()
        self._refusal: Refused | None = None
        self._ending = Waiters()
        self._loop = asyncio.get_running_loop()
        self._handle = -1
        self._loop.add_reader(report_fd, self._on_report)
        self._watch()

    async def refusal(self) -> Refused | None:
        """When it became the program, or why it did not; then it is about to be gone."""
        while not self.is_settled:
            await self._report.wait(None)
        return self._refusal

    async def gone(self, timeout_s: float | None = None) -> None:
        if not self.is_gone:
            await self._ending.wait(timeout_s)

    def stop_waiting(self) -> None:
        """Who waits for its end goes on without it."""
        self._ending.wake()

    def signal_group(self, number: signal.Signals) -> bool:
        assert not self._is_reaped, "its number may belong to a stranger"
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            os.kill(self.pid, number)  # It has not come to making a group yet.
        except PermissionError:
            return False
        return True

    def reap(self) -> resource.struct_rusage:
        """Of a leader that is gone."""
        assert self.is_gone
        _, status, usage = os.wait4(self.pid, 0)
        self._is_reaped = True
        self.returncode = os.waitstatus_to_exitcode(status)
        return usage

    def close(self) -> None:
        """Watch it no longer, whatever becomes of it."""
        self._close_report()
        self._close_handle()

    def _watch(self) -> None:
        try:
            self._handle = os.pidfd_open(self.pid)
        except OSError:  # An old kernel, or out of descriptors.
            self._poll()
        else:
            self._loop.add_reader(self._handle, self._on_gone)  # Readable once it has ended, unreaped.

    def _poll(self) -> None:
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            self._loop.call_later(_POLL_S, self._poll)
        else:
            self._on_gone()

    def _on_report(self) -> None:
        self._refusal = _refusal(os.read(self._report_fd, 100))
        self._close_report()
        self.is_settled = True
        self._report.wake()

    def _close_report(self) -> None:
        if self._report_fd >= 0:
            self._loop.remove_reader(self._report_fd)
            os.close(self._report_fd)
            self._report_fd = -1

    def _close_handle(self) -> None:
        if self._handle >= 0:
            self._loop.remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1

    def _on_gone(self) -> None:
        self._close_handle()
        self.is_gone = True
        self._ending.wake()


@dataclass(frozen=True)
class Identity:
    """A process, told from every other before and after it."""

    pid: int
    start_ticks: int
    """Of the kernel's clock since boot: field 22 of /proc/PID/stat, proc(5)."""


def identity(pid: int) -> Identity | None:
    """None: there is no such process."""
    fields = stat_fields(pid)
    return None if fields is None else Identity(pid, int(fields[19]))
