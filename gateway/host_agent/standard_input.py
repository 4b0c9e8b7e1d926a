"""Standard input of commands: all of it at once, or piece by piece as it comes.

Owns the bytes between a request and a pipe. Input that is complete goes into a file in memory, which the
command reads as it likes and nobody has to feed. Input that goes on goes through a pipe (or terminal), which
is never waited for: what does not fit stays in a bounded buffer until the command has read.
"""

from __future__ import annotations

import asyncio
import os

from gateway.host_agent.waiters import Waiters

BUFFER_BYTES = 1 << 20
"""Input that the command has not read yet, per command."""

_END_OF_INPUT = b"\x04"
"""What a terminal takes for the end of input at the beginning of a line, and of the line elsewhere (termios,
VEOF)."""


def complete_input(data: bytes) -> int:
    """A descriptor to read it from, for the caller to close."""
    if not data:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Feed:
    """The writing end of a command's input. ``offset`` counts what was accepted: bytes before it are not
    taken twice, so a piece may be sent again after a break."""

    def __init__(self, fd: int, *, is_terminal: bool = False) -> None:
        """``fd`` is the feed's from now on; of a terminal it is somebody else's, who closes it after us."""
        self.offset = 0
        self._fd = fd
        self._is_terminal = is_terminal
        self._buffer = bytearray()
        self._last = b""
        self._ends = False
        self._is_writing = False
        self._is_closed = False
        self._room = Waiters()
        self._loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)

    @property
    def has_room(self) -> bool:
        return self._is_closed or len(self._buffer) < BUFFER_BYTES

    async def room(self, timeout_s: float) -> None:
        if not self.has_room:
            await self._room.wait(timeout_s)

    def accept(self, offset: int, data: bytes, *, is_eof: bool) -> int:
        """Takes what fits; returns the next offset. ``offset`` may lie before ours, not behind it."""
        assert offset <= self.offset
        new = data[self.offset - offset :]
        if self._is_closed or self._ends:
            self.offset += len(new)  # The command does not read any more; that is no error of the sender.
            return self.offset
        taken = new[: max(BUFFER_BYTES - len(self._buffer), 0)]
        self._buffer += taken
        self._last = taken[-1:] or self._last
        self.offset += len(taken)
        self._ends = is_eof and len(taken) == len(new)
        if self._ends and self._is_terminal:
            is_in_line = bool(self._last) and self._last != b"\n"
            self._buffer += _END_OF_INPUT * (2 if is_in_line else 1)
        self._write()
        return self.offset

    def close(self) -> None:
        """What was not read by now never will be."""
        if self._is_closed:
            return
        self._is_closed = True
        self._watch(False)
        self._buffer.clear()
        if not self._is_terminal:
            os.close(self._fd)
        self._room.wake()

    def _write(self) -> None:
        try:
            while self._buffer:
                del self._buffer[: os.write(self._fd, self._buffer)]
        except BlockingIOError:
            self._watch(True)
        except OSError:  # Nobody reads it: EPIPE, of a terminal EIO.
            self.close()
            return
        else:
            self._watch(False)
            if self._ends and not self._is_terminal:
                self.close()
        if self.has_room:
            self._room.wake()

    def _watch(self, wanted: bool) -> None:
        if wanted and not self._is_writing:
            self._loop.add_writer(self._fd, self._write)
        elif not wanted and self._is_writing:
            self._loop.remove_writer(self._fd)
        self._is_writing = wanted
