"""This process's side of a command that runs elsewhere: standard streams, signals, the terminal.

Owns what must be put back when it is over: the terminal's mode and the handlers of signals. It must not
know what the command is or where it runs.
"""

import asyncio
import concurrent.futures
import contextlib
import os
import shutil
import sys
import termios
import threading
import tty
from collections.abc import AsyncIterator, Iterator
from signal import Signals
from typing import BinaryIO

_READ_BYTES = 64 << 10
_PIECES = 4
"""Of input that was read and not yet taken: the rest stays in the pipe."""
_INTERRUPTS = (Signals.SIGINT, Signals.SIGTERM, Signals.SIGHUP)


class ProcessEnds:
    """Of the process that this is. Use inside ``opened``."""

    def __init__(self) -> None:
        self._interrupts: asyncio.Queue[Signals] = asyncio.Queue()
        self._sizes: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self.out: BinaryIO = sys.stdout.buffer
        self.err: BinaryIO = sys.stderr.buffer

    @contextlib.contextmanager
    def opened(self, *, has_terminal: bool) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in _INTERRUPTS:
            loop.add_signal_handler(number, self._interrupts.put_nowait, number)
        try:
            with self._raw_terminal(loop) if has_terminal else contextlib.nullcontext():
                yield
        finally:
            for number in _INTERRUPTS:
                loop.remove_signal_handler(number)

    async def next_interrupt(self) -> Signals:
        return await self._interrupts.get()

    async def next_size(self) -> tuple[int, int]:
        return await self._sizes.get()

    async def input(self) -> AsyncIterator[bytes]:
        pieces: asyncio.Queue[bytes] = asyncio.Queue(_PIECES)
        # A thread, since a file cannot be polled; a daemon, since nothing can wake it from its read.
        reading = (asyncio.get_running_loop(), pieces)
        threading.Thread(target=_read_input, args=reading, daemon=True).start()
        while piece := await pieces.get():
            yield piece

    @contextlib.contextmanager
    def _raw_terminal(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Keys go to the command as they are, Ctrl-C too: its own terminal makes signals of them."""
        if not os.isatty(0):
            yield
            return
        before = termios.tcgetattr(0)
        loop.add_signal_handler(Signals.SIGWINCH, lambda: self._sizes.put_nowait(terminal_size()))
        tty.setraw(0, termios.TCSADRAIN)  # What was typed ahead is kept.
        try:
            yield
        finally:
            loop.remove_signal_handler(Signals.SIGWINCH)
            termios.tcsetattr(0, termios.TCSADRAIN, before)


def terminal_size() -> tuple[int, int]:
    size = shutil.get_terminal_size()
    return size.columns, size.lines


def _read_input(loop: asyncio.AbstractEventLoop, pieces: asyncio.Queue[bytes]) -> None:
    # The loop may be over before the input is; then nobody wants it.
    with contextlib.suppress(RuntimeError, concurrent.futures.CancelledError):
        while True:
            try:
                data = os.read(0, _READ_BYTES)
            except OSError:  # Such as a terminal that hung up.
                data = b""
            asyncio.run_coroutine_threadsafe(pieces.put(data), loop).result()
            if not data:
                return
