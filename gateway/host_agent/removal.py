"""Removing a tree, whatever commands left in it, in steps small enough for an event loop.

Owns the order and the means: directories without permissions, trees deeper than there are descriptors. It
follows no link. It must not know whose tree it is.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from gateway.host_agent.paths import OPEN_DIRECTORY
from gateway.host_agent.turns import STEP_S, Turns

MAX_DEPTH = 64
"""Directories held open at a time. What lies deeper is moved up to the top first, then removed from there."""
ENTRIES_AT_ONCE = 1000
"""Names read before they are removed."""


async def remove(directory: int, name: str, step_s: float = STEP_S) -> int:
    """What is there in the open ``directory``, with all in it. Returns how many entries would not go.
    Raises FileNotFoundError if there is nothing. If it is cancelled, a part is gone."""
    failed, turns = 0, Turns(step_s)
    for is_gone in removing(directory, name):
        failed += not is_gone
        await turns.give()
    return failed


def removing(directory: int, name: str) -> Iterator[bool]:
    """One step per entry: whether it is gone."""
    try:
        os.unlink(name, dir_fd=directory)
        yield True
        return
    except (IsADirectoryError, PermissionError):  # POSIX lets unlink() of a directory be either
        pass
    top = _open_writable(directory, name)
    if top is None:
        yield False
        return
    try:
        hoisted: list[str] = []
        yield from _emptying(top, top, 1, hoisted)
        while hoisted:
            each = hoisted.pop()
            yield from _removing_directory(top, top, each, 1, hoisted)
    finally:
        os.close(top)
    yield _rmdir(directory, name)


def _emptying(top: int, directory: int, depth: int, hoisted: list[str]) -> Iterator[bool]:
    for name, is_directory in _entries(directory):
        if not is_directory:
            yield _unlink(directory, name)
        elif depth >= MAX_DEPTH and (up := _hoist(directory, name, top)) is not None:
            hoisted.append(up)
            yield True
        else:
            yield from _removing_directory(top, directory, name, depth + 1, hoisted)


def _entries(directory: int) -> Iterator[tuple[str, bool]]:
    """Names, and whether each is a directory; read some at a time, since all may be too many."""
    with os.scandir(directory) as entries:
        while some := [(e.name, e.is_dir(follow_symlinks=False)) for e in islice(entries, ENTRIES_AT_ONCE)]:
            yield from some


def _removing_directory(
    top: int, directory: int, name: str, depth: int, hoisted: list[str]
) -> Iterator[bool]:
    fd = _open_writable(directory, name)
    if fd is not None:
        try:
            yield from _emptying(top, fd, depth, hoisted)
        finally:
            os.close(fd)
    yield _rmdir(directory, name)


def _open_writable(directory: int, name: str) -> int | None:
    """None: it is no directory any more, or not ours to change."""
    with contextlib.suppress(OSError):
        if os.geteuid() != 0:  # root needs no permission
            _permit(directory, name)
        return os.open(name, OPEN_DIRECTORY, dir_fd=directory)
    return None


def _permit(directory: int, name: str) -> None:
    """By a descriptor of the directory itself: ``chmod`` by name would follow a link."""
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        Path(f"/proc/self/fd/{fd}").chmod(0o700)
    finally:
        os.close(fd)


def _hoist(directory: int, name: str, top: int) -> str | None:
    new = f".deep-{secrets.token_hex(8)}"
    try:
        if os.geteuid() != 0:
            _permit(directory, name)
        os.rename(name, new, src_dir_fd=directory, dst_dir_fd=top)
    except OSError:
        return None
    return new


def _unlink(directory: int, name: str) -> bool:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _rmdir(directory: int, name: str) -> bool:
    try:
        os.rmdir(name, dir_fd=directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
