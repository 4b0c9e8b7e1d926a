"""Terminals for commands that want one.

Owns the pair of descriptors and the size. Output comes from ``master`` by way of a spool like any other.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios

from gateway.host_agent.order import TerminalSize


def open_terminal(size: TerminalSize) -> tuple[int, int]:
    """Master and slave, both for the caller to close."""
    master, slave = os.openpty()
    try:
        resize(slave, size)
    except BaseException:
        os.close(master)
        os.close(slave)
        raise
    return master, slave


def resize(fd: int, size: TerminalSize) -> None:
    """The programs in its foreground get a SIGWINCH if that is a change."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.cols, 0, 0))


def become_controlling(fd: int) -> None:
    """By the child, when it leads a session of its own: Ctrl-C and hang-ups reach it then."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
