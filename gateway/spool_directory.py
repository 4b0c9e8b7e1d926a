"""The directory that workspaces and output live in while a gateway runs.

Owns making it, guarding it against a second gateway, and clearing up after a gateway that died.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gateway.sweep import kill_marked

_ROOMS = ("execs", "sessions")


class SpoolDirectoryError(Exception):
    """It cannot be used; the message says why."""


@contextlib.contextmanager
def spool_directory(asked: Path | None) -> Iterator[Path]:
    """Empty but for its rooms; emptied again at the end. None: a private one in the temporary directory."""
    if asked is None:
        with tempfile.TemporaryDirectory(prefix="mars-gateway-", ignore_cleanup_errors=True) as name:
            yield _with_rooms(Path(name))
        return
    with _locked(asked.absolute()) as directory:
        _clear_up_after_a_crash(directory)
        try:
            yield _with_rooms(directory)
        finally:
            _remove_rooms(directory)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[Path]:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SpoolDirectoryError(f"spool_dir: {directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield directory
    except BlockingIOError as error:
        raise SpoolDirectoryError(f"spool_dir: another gateway is using {directory}") from error
    finally:
        os.close(lock)


def _clear_up_after_a_crash(directory: Path) -> None:
    """Commands outlive a gateway that was killed; their ids are the names of what is left here."""
    with contextlib.suppress(FileNotFoundError):
        if left := {entry.name for entry in os.scandir(directory / "execs")}:
            kill_marked(left)
    _remove_rooms(directory)


def _with_rooms(directory: Path) -> Path:
    for room in _ROOMS:
        (directory / room).mkdir(mode=0o700)
    return directory


def _remove_rooms(directory: Path) -> None:
    for room in _ROOMS:
        shutil.rmtree(directory / room, ignore_errors=True)
