"""Output of commands: from their pipes to capped files, at any speed of any reader.

Owns the pipes' reading ends, the spool files and one thread, the *pump*, which empties every pipe as
soon as something is in it. It must not know commands, states or HTTP.

Why a pump, and not the file itself as the command's stdout:

- the cap is exact, and so is the count of what came after it; a file that the command writes itself can
  only be cut back on a timer, by which time ``yes`` has filled gigabytes, and RLIMIT_FSIZE kills;
- shells reopen their output (``echo oops > /dev/stderr``): on a regular file that truncates what was
  written so far, on a pipe it does nothing.

What it costs: the bytes pass through this process. The pump is a thread of its own, and both its system
calls release the interpreter lock, so neither a busy event loop nor a stalled reader stops a command;
readers only ever see files.
"""

import asyncio
import contextlib
import fcntl
import os
import select
import threading
from collections import deque
from pathlib import Path

_PIPE_BYTES = 1 << 20
"""Asked of the kernel for each pipe (its usual upper limit, /proc/sys/fs/pipe-max-size); fewer wake-ups."""


class Spool:
    """The leading ``max_bytes`` of one stream, in a file, and the count of all of it.

    Written by the pump's thread, read by the event loop; the counters only grow.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.total_bytes = 0
        self.kept_bytes = 0
        self.is_complete = False
        """Nothing more will come."""
        self._waiters: set[asyncio.Future[None]] = set()
        self._is_waking = False

    @property
    def is_truncated(self) -> bool:
        return self.total_bytes > self.kept_bytes

    def is_eof(self, offset: int) -> bool:
        return self.is_complete and offset >= self.kept_bytes

    def read(self, offset: int, limit: int) -> bytes:
        length = min(limit, self.kept_bytes - offset)
        if length <= 0:
            return b""
        try:
            with self.path.open("rb") as file:
                return os.pread(file.fileno(), length, offset)
        except FileNotFoundError:  # Forgotten while somebody was still waiting for it.
            return b""

    async def readable(self, offset: int, timeout_s: float) -> None:
        """Return when there is something behind ``offset`` or nothing will come, else after the timeout."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            # The thread changes the counters before it looks for waiters, so one of us sees the other.
            if self.kept_bytes <= offset and not self.is_complete:
                await asyncio.wait({waiter}, timeout=timeout_s)
        finally:
            self._waiters.discard(waiter)

    def complete(self) -> None:
        """Of a command that was never started; the pump says so of the others."""
        self.is_complete = True
        self._wake()

    def grew(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called by the pump's thread; one wake-up is under way at a time, however fast it comes."""
        if self._waiters and not self._is_waking:
            self._is_waking = True
            loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._is_waking = False
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class Channel:
    """One pipe on its way into one spool. Belongs to the pump's thread once it is open."""

    def __init__(self, read_fd: int, spool: Spool) -> None:
        self.read_fd = read_fd
        self.spool = spool
        self.file_fd = os.open(spool.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.is_hung_up = False
        """No writer is left."""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, data: memoryview) -> None:
        spool = self.spool
        wanted = min(max(spool.max_bytes - spool.kept_bytes, 0), len(data))
        kept = _write_all(self.file_fd, data[:wanted])
        if kept < wanted:
            spool.max_bytes = 0  # The disk is full: what we have is all that we keep.
        spool.total_bytes += len(data)
        spool.kept_bytes += kept


class Pump:
    """One thread for all commands. ``open`` and ``finish`` belong to the event loop's thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._channels: dict[int, Channel] = {}
        self._retiring: deque[Channel] = deque()
        self._is_stopping = False
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._buffer = bytearray(_PIPE_BYTES)
        self._thread = threading.Thread(target=self._run, name="gateway-pump", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._channels)

    def open(self, spool: Spool) -> tuple[Channel, int]:
        """A pipe into the spool: the channel to ``finish``, and the writing end, which the caller closes."""
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(read_fd, False)
            with contextlib.suppress(
                OSError
            ):  # Over the user's share of pipe memory: a small pipe works too.
                fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            channel = Channel(read_fd, spool)
        except BaseException:
            os.close(read_fd)
            os.close(write_fd)
            raise
        self._channels[read_fd] = channel
        self._epoll.register(read_fd, select.EPOLLIN)
        return channel, write_fd

    async def finish(self, channel: Channel) -> None:
        """Take what is in the pipe now and close it, whoever may still hold its other end."""
        self._retiring.append(channel)
        os.eventfd_write(self._wake_fd, 1)
        await asyncio.shield(channel.closed)

    def stop(self) -> None:
        """Only when every channel is finished."""
        self._is_stopping = True
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        self._epoll.close()
        os.close(self._wake_fd)

    def _run(self) -> None:
        while not self._is_stopping:
            for fd, _ in self._epoll.poll():
                if fd == self._wake_fd:
                    os.eventfd_read(fd)
                else:
                    self._move(self._channels[fd])
            while self._retiring:
                self._retire(self._retiring.popleft())

    def _move(self, channel: Channel) -> int:
        """One buffer from pipe to file; returns its size, 0 when there is nothing (more)."""
        try:
            size = os.readv(channel.read_fd, [self._buffer])
        except BlockingIOError:
            return 0
        if size:
            channel.take(memoryview(self._buffer)[:size])
            channel.spool.grew(self._loop)
        else:
            channel.is_hung_up = True
            self._epoll.unregister(channel.read_fd)  # It would be reported for ever.
        return size

    def _retire(self, channel: Channel) -> None:
        left = _PIPE_BYTES  # What it can hold at most; a writer that is still there must not keep us.
        while left > 0 and not channel.is_hung_up and (size := self._move(channel)):
            left -= size
        del self._channels[channel.read_fd]  # Before the close: then the number may be taken again.
        os.close(channel.read_fd)
        os.close(channel.file_fd)
        self._loop.call_soon_threadsafe(_closed, channel)


def _closed(channel: Channel) -> None:
    channel.spool.complete()
    if not channel.closed.done():
        channel.closed.set_result(None)


def _write_all(fd: int, data: memoryview) -> int:
    """Returns how much was written: less than all when the disk is full."""
    written = 0
    with contextlib.suppress(OSError):
        while written < len(data):
            written += os.write(fd, data[written:])
    return written
