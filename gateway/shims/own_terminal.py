"""The terminal that a shim was started on: its size, and a mode in which nothing is changed on the way.

Owns putting the mode back. It must not know what is on the other side.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios

_SIZE = "HHHH"
"""Rows, columns, and both in pixels."""


def is_terminal(fd: int) -> bool:
    return os.isatty(fd)


def size(fd: int) -> tuple[int, int]:
    """Columns and rows; 0 where the terminal does not say."""
    rows, cols, _, _ = struct.unpack(_SIZE, fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return cols, rows


def copy_size(source: int, target: int) -> None:
    """The programs in the foreground of the target get a SIGWINCH if that is a change."""
    fcntl.ioctl(target, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8)))


def controls_us() -> bool:
    """We have a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def mode(fd: int) -> list[object]:
    return list(termios.tcgetattr(fd))


def set_mode(fd: int, attributes: list[object]) -> None:
    termios.tcsetattr(fd, termios.TCSANOW, attributes)  # type: ignore[arg-type]


def set_raw(fd: int) -> list[object]:
    """Keys and output pass as they are. Returns the mode before, for ``restore``."""
    before = termios.tcgetattr(fd)
    mode = list(before)
    mode[0] &= ~(
        termios.BRKINT
        | termios.ICRNL
        | termios.INPCK
        | termios.ISTRIP
        | termios.IXON
        | termios.INLCR
        | termios.IGNCR
    )
    mode[1] &= ~termios.OPOST
    mode[2] = (mode[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    mode[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
    mode[6] = list(before[6])
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, mode)
    return before


def restore(fd: int, mode: list[object]) -> None:
    """A terminal that has gone meanwhile needs nothing."""
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, mode)  # type: ignore[arg-type]
    except termios.error:
        return
