"""Runs commands on this host, each as the leader of a process group of its own.

Owns spawning, signalling and reaping. It must not know slots, sessions, HTTP or what a command is for.

Theory of operation. A command is *started* (one leader, in a new session, so the group and the session
have the leader's pid), *waited for* (the leader only: a background child that holds the output open
delays nobody) and *finished*: the whole group is killed, what escaped the group is swept by its marker,
the pipes are emptied, and only then is the leader reaped. Until it is reaped its pid, and the group's
id, cannot be given to another process, so no signal of ours can hit a stranger.
"""

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import tempfile
from collections.abc import Callable

from gateway.protocol import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND
from gateway.runner import EndedBy, Exit, RunOrder, StartError
from gateway.spool import Channel, Pump, Spool
from gateway.sweep import MARKER, Sweeper
from gateway.tasks import Tasks

_UNKILLABLE_AFTER_S = 10.0
"""A process that outlives SIGKILL so long hangs in the kernel (state D: a dead disk or NFS server)."""

_MB = 1_000_000


class LocalRunner:
    """``close`` it after its last ``run``."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._sweeper = Sweeper()
        self._finishing = Tasks()

    async def run(self, order: RunOrder, on_started: Callable[[], None], stop: asyncio.Future[float]) -> Exit:
        channels: list[Channel] = []
        leader: _Leader | None = None
        by = EndedBy.NOBODY
        try:
            leader = self._start(order, channels)
            on_started()
            by = await leader.until(stop, order.timeout_s)
            if by is not EndedBy.ITSELF:
                leader.signal_group(signal.SIGTERM)
                await leader.gone_within(stop.result() if by is EndedBy.STOP else order.kill_grace_s)
        finally:
            # A task of its own: who is cancelled may be cancelled again, and cleaning up is not optional.
            finish = self._finishing.spawn("finish a command", self._finish(order.exec_id, leader, channels))
            await asyncio.shield(finish)
        usage = leader.usage
        if usage is None:
            return Exit(EndedBy.NOBODY)
        return Exit(by, leader.returncode, usage.ru_utime + usage.ru_stime, _max_rss_mb(usage))

    async def close(self) -> None:
        await self._finishing.join()

    def _start(self, order: RunOrder, channels: list[Channel]) -> "_Leader":
        """Fills ``channels`` as it opens them, so that they are known even if a later step fails."""
        with contextlib.ExitStack() as ours:
            stdout = self._open(order.stdout, channels, ours)
            stderr = stdout if order.stderr is None else self._open(order.stderr, channels, ours)
            stdin = _stdin_fd(order.stdin, ours)
            return _Leader(_spawn(order, stdin, stdout, stderr))

    def _open(self, spool: Spool, channels: list[Channel], ours: contextlib.ExitStack) -> int:
        try:
            channel, write_fd = self._pump.open(spool)
        except OSError as error:
            raise StartError(f"no pipe for its output: {error.strerror}") from error
        channels.append(channel)
        ours.callback(os.close, write_fd)
        return write_fd

    async def _finish(self, exec_id: str, leader: "_Leader | None", channels: list[Channel]) -> None:
        if leader is not None:
            leader.signal_group(signal.SIGKILL)
            await leader.gone_within(_UNKILLABLE_AFTER_S)
            await self._sweeper.kill(exec_id)
        for channel in channels:
            await self._pump.finish(channel)
        if leader is not None:
            leader.reap_when_gone()


class _Leader:
    """The process we started. Signals go out only while it is unreaped."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        loop = asyncio.get_running_loop()
        self.usage: resource.struct_rusage | None = None
        """Of it and the children that it waited for; None until it is reaped."""
        self._process = process
        self._gone: asyncio.Future[None] = loop.create_future()
        try:
            self._pidfd = os.pidfd_open(process.pid)  # Readable once it has ended, before it is reaped.
        except OSError:  # Out of descriptors, and there is no other way to watch it.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        loop.add_reader(self._pidfd, self._on_gone)

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    async def until(self, stop: asyncio.Future[float], timeout_s: float) -> EndedBy:
        either: set[asyncio.Future[None] | asyncio.Future[float]] = {self._gone, stop}
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if self._gone.done():
            return EndedBy.ITSELF
        return EndedBy.STOP if stop.done() else EndedBy.TIMEOUT

    async def gone_within(self, timeout_s: float) -> None:
        await asyncio.wait({self._gone}, timeout=timeout_s)

    def signal_group(self, number: signal.Signals) -> None:
        assert self.usage is None, "its pid may belong to a stranger"
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def reap_when_gone(self) -> None:
        """At once, as a rule; of an unkillable process, when the kernel lets go of it."""
        if self._gone.done():
            self._reap()
        else:
            self._gone.add_done_callback(lambda _: self._reap())

    def _on_gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._gone.set_result(None)

    def _reap(self) -> None:
        _, status, self.usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)


def _max_rss_mb(usage: resource.struct_rusage) -> float | None:
    """Linux counts our own resident set towards the command's peak, from before its exec (exec_mmap in
    fs/exec.c). A peak that is no higher than ours says nothing about the command."""
    ours = resource.getrusage(resource.RUSAGE_SELF)
    return None if usage.ru_maxrss <= ours.ru_maxrss else usage.ru_maxrss * 1024 / _MB


def _spawn(order: RunOrder, stdin: int, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    """Returns when the program runs; about a millisecond, in which the event loop stands still."""
    try:
        return subprocess.Popen(
            order.argv,
            cwd=order.cwd,
            env={**order.env, MARKER: order.exec_id},
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        if error.filename == order.cwd:
            raise StartError("its working directory does not exist") from error
        raise StartError("no such program", EXIT_NOT_FOUND) from error
    except PermissionError as error:
        raise StartError("the program or its directory may not be entered", EXIT_NOT_EXECUTABLE) from error
    except OSError as error:
        raise StartError(f"could not be started: {error.strerror}") from error


def _stdin_fd(data: bytes, ours: contextlib.ExitStack) -> int:
    """A file, so that nobody has to feed it: the command reads as fast or as slowly as it likes."""
    try:
        if not data:
            fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            ours.callback(os.close, fd)
            return fd
        file = tempfile.TemporaryFile()  # noqa: SIM115 - `ours` closes it
        ours.enter_context(file)
        file.write(data)
        file.seek(0)
        return file.fileno()
    except OSError as error:
        raise StartError(f"no file for its input: {error.strerror}") from error
