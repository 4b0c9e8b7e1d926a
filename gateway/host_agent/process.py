"""Starts the leader of a command, signals its group and reaps it.

Owns the number of the process and what may be done with it. A leader is in a session of its own, so group and
session have its number. It is reaped last, when nothing of its group is left: until then the kernel gives the
number to nobody else, and no signal of ours can hit a stranger.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.host_agent.operations import Refused
from gateway.host_agent.process_use import stat_fields
from gateway.host_agent.terminal import become_controlling
from gateway.host_agent.waiters import Waiters
from gateway.host_agent.wire import Fault

EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
"""As a shell answers for a command that it could not start."""

_OOM_SCORE = "100"
"""A command is a better victim than the agent when the host is out of memory (0 is usual, 1000 the first)."""
_DEFAULT_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD)
"""What an agent that was started with nohup or in the background ignores, a command must not."""
_UMASK = 0o022
_POLL_S = 0.02
"""For the end of a leader, on kernels before 5.3, which have no handles to processes."""


@dataclass(frozen=True)
class Launch:
    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    stdin: int
    stdout: int
    stderr: int
    entrances: Sequence[int] = ()
    """Of the control groups that it enters."""
    has_terminal: bool = False
    """``stdin`` is one, which becomes its own."""
    fsize_mb: int | None = None
    open_files: tuple[int, int] | None = None
    """Soft and hard limit that it gets back, where the agent raised its own."""


def spawn(launch: Launch) -> Leader:
    """Returns when the program runs. Raises Refused: it was not started."""
    try:
        process = subprocess.Popen(
            launch.argv,
            cwd=launch.cwd,
            env=launch.env,
            stdin=launch.stdin,
            stdout=launch.stdout,
            stderr=launch.stderr,
            start_new_session=True,
            preexec_fn=_preparation(launch),  # Safe: there is one thread.
        )
    except FileNotFoundError as error:
        if error.filename == str(launch.cwd):
            raise not_started("its working directory does not exist") from error
        raise not_started("no such program", EXIT_NOT_FOUND) from error
    except PermissionError as error:
        raise not_started("the program or its directory may not be entered", EXIT_NOT_EXECUTABLE) from error
    except OSError as error:
        raise not_started(f"could not be started: {error.strerror}") from error
    except subprocess.SubprocessError as error:  # What the preparation raises arrives as this.
        raise not_started("its limits or its terminal could not be set up") from error
    process.returncode = 0  # It is ours to wait for: no part of ``subprocess`` reaps it, or says we forgot.
    return Leader(process.pid)


def not_started(reason: str, exit_code: int | None = None) -> Refused:
    return Refused(Fault.NOT_STARTED, reason, exit_code=exit_code)


def _preparation(launch: Launch) -> Callable[[], None]:
    """What the child does before it becomes the command."""

    def prepare() -> None:
        for fd in launch.entrances:
            os.write(fd, b"0")
        with contextlib.suppress(OSError):
            fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
            os.write(fd, _OOM_SCORE.encode())
            os.close(fd)
        for number in _DEFAULT_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.umask(_UMASK)
        if launch.has_terminal:
            become_controlling(0)
        if launch.open_files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, launch.open_files)
        if launch.fsize_mb is not None:
            most = launch.fsize_mb * 1_000_000
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    return prepare


class Leader:
    """The process that was started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.is_gone = False
        """It has ended; until ``reap`` it is a zombie and its number is safe."""
        self.returncode: int | None = None
        self._is_reaped = False
        self._ending = Waiters()
        self._loop = asyncio.get_running_loop()
        self._handle = -1
        self._watch()

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
        except (ProcessLookupError, PermissionError):
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
        if self._handle >= 0:
            self._loop.remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1

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

    def _on_gone(self) -> None:
        self.close()
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
