"""Output of commands: from their pipes to capped files, at any speed of any reader.

Owns the reading ends and the spool files. It must not know commands, states or frames.

Why the output passes through this process, and the file is not itself the command's stdout:

- the cap is exact, and so is the count of what came after it; a file that the command writes itself can
  only be cut back on a timer, by which time ``yes`` has filled gigabytes, and RLIMIT_FSIZE kills;
- shells reopen their output (``echo oops > /dev/stderr``): on a regular file that truncates what was
  written so far, on a pipe it does nothing.

There is no thread for it: the agent forks, and has one. So each stream moves one piece per turn of the event
loop, whatever more is waiting, and a loud command takes no more turns than a quiet one. Readers only ever see
files; one that stalls holds nobody up.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path

from gateway.host_agent.waiters import Waiters

PIECE_BYTES = 1 << 16
"""Moved per stream and turn: 20 microseconds of copying, so that 500 loud streams make a turn of 10 ms."""
PIPE_BYTES = 1 << 18
"""Asked of the kernel for each pipe; fewer wake-ups. A user's pipes share 64 MB
(/proc/sys/fs/pipe-user-pages-soft), and past that stay at their usual size."""
_F_SETPIPE_SZ = 1031
"""linux/fcntl.h; ``fcntl`` names it from Python 3.10 on."""


class Spool:
    """The leading ``max_bytes`` of one stream, in a file, and the count of all of it. Counters only grow."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.total_bytes = 0
        self.kept_bytes = 0
        self.is_complete = False
        """Nothing more will come."""
        self.is_full = False
        """The disk had no more room for it, before ``max_bytes`` were kept."""
        self._max_bytes = max_bytes
        self._changes = Waiters()

    @classmethod
    def of_ended(cls, path: Path, total_bytes: int, kept_bytes: int) -> Spool:
        spool = cls(path, kept_bytes)
        spool.total_bytes, spool.kept_bytes, spool.is_complete = total_bytes, kept_bytes, True
        return spool

    def is_eof(self, offset: int) -> bool:
        return self.is_complete and offset >= self.kept_bytes

    def read(self, offset: int, limit: int) -> bytes:
        length = min(limit, self.kept_bytes - offset)
        if length <= 0:
            return b""
        try:
            with self.path.open("rb", buffering=0) as file:
                return os.pread(file.fileno(), length, offset)
        except FileNotFoundError:  # Forgotten while somebody was still waiting for it.
            return b""

    async def readable(self, offset: int, timeout_s: float) -> None:
        """Return when there is something behind ``offset`` or nothing will come, else after the timeout."""
        until_s = time.monotonic() + timeout_s
        while self.kept_bytes <= offset and not self.is_complete:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return
            await self._changes.wait(left_s)

    def take(self, file_fd: int, data: memoryview) -> None:
        wanted = 0 if self.is_full else min(max(self._max_bytes - self.kept_bytes, 0), len(data))
        kept = _write_all(file_fd, data[:wanted])
        self.is_full = self.is_full or kept < wanted
        self.total_bytes += len(data)
        self.kept_bytes += kept
        if kept:
            self._changes.wake()

    def complete(self) -> None:
        self.is_complete = True
        self._changes.wake()


class Pump:
    """All streams of all commands. Its buffer is shared: there is one thread."""

    def __init__(self) -> None:
        self.buffer = bytearray(PIECE_BYTES)
        self._open = 0

    def __len__(self) -> int:
        return self._open

    def open(self, spool: Spool) -> tuple[Channel, int]:
        """A pipe into the spool: the channel to ``finish``, and the writing end, which the caller closes."""
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):  # Over the user's share: a small pipe works too.
                fcntl.fcntl(write_fd, _F_SETPIPE_SZ, PIPE_BYTES)
            return self.attach(read_fd, spool), write_fd
        except BaseException:
            os.close(write_fd)
            raise

    def attach(self, read_fd: int, spool: Spool) -> Channel:
        """From a descriptor, which is the channel's from now on, whatever happens."""
        os.set_blocking(read_fd, False)
        self._open += 1
        return Channel(self, read_fd, spool)

    def closed(self) -> None:
        self._open -= 1


class Channel:
    """One pipe (or terminal) on its way into one spool."""

    def __init__(self, pump: Pump, read_fd: int, spool: Spool) -> None:
        self.spool = spool
        self.read_fd = read_fd
        self._pump = pump
        self._file_fd = -1
        """From the first byte of output on."""
        self._is_ended = False
        self._loop = asyncio.get_running_loop()
        self._hang_up = Waiters()
        self.is_hung_up = False
        """No writer is left, and everything was read."""
        self._loop.add_reader(read_fd, self._move)

    async def hung_up(self, timeout_s: float) -> None:
        if not self.is_hung_up:
            await self._hang_up.wait(timeout_s)

    def finish(self) -> None:
        """Take what is in the pipe now and close it, whoever may still hold its other end."""
        self.end_of_output()
        self.close()

    def end_of_output(self) -> None:
        """Take what is in the pipe now; what comes later is read and dropped, so that who was left in the
        background may go on writing."""
        left = PIPE_BYTES  # A writer that is still there must not keep us.
        while left > 0 and not self.is_hung_up and (size := self._move()):
            left -= size
        self._is_ended = True
        self._close_file()
        self.spool.complete()

    def close(self) -> None:
        """Without what may still be in the pipe."""
        self._loop.remove_reader(self.read_fd)
        os.close(self.read_fd)
        self._close_file()
        self._pump.closed()

    def _move(self) -> int:
        """One piece from pipe to file; returns its size, 0 when there is nothing (more)."""
        try:
            size = os.readv(self.read_fd, [self._pump.buffer])
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno != errno.EIO:  # EIO is how a terminal says that nobody has it open any more.
                raise
            size = 0
        if not size:
            self._hung_up()
        elif not self._is_ended:
            self._open_file()
            self.spool.take(self._file_fd, memoryview(self._pump.buffer)[:size])
        return size

    def _open_file(self) -> None:
        if self._file_fd < 0:
            with contextlib.suppress(OSError):  # As good as a full disk: writing to it fails, too.
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._file_fd = os.open(self.spool.path, flags, 0o600)

    def _hung_up(self) -> None:
        self.is_hung_up = True
        self._loop.remove_reader(self.read_fd)  # It would be reported for ever.
        self._hang_up.wake()

    def _close_file(self) -> None:
        if self._file_fd >= 0:
            os.close(self._file_fd)
            self._file_fd = -1


def _write_all(fd: int, data: memoryview) -> int:
    """Returns how much was written: less than all when the disk is full."""
    written = 0
    with contextlib.suppress(OSError):
        while written < len(data):
            written += os.write(fd, data[written:])
    return written
