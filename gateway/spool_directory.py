"""The directory of the agent on the gateway's own host, where its workspaces and output live.

Owns making it and guarding it against a second gateway. What is in it is the agent's; in a directory that is
kept that outlives a gateway, and the next one goes on with it.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

_LOCK = "gateway.lock"


class SpoolDirectoryError(Exception):
    """It cannot be used; the message says why."""


@contextlib.contextmanager
def spool_directory(asked: Path | None) -> Iterator[Path]:
    """None: a private one in the temporary directory, removed at the end."""
    if asked is None:
        with tempfile.TemporaryDirectory(prefix="mars-gateway-", ignore_cleanup_errors=True) as name:
            yield Path(name)
        return
    with _locked(asked.absolute()) as directory:
        yield directory


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[Path]:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SpoolDirectoryError(f"spool_dir: {directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield directory
    except BlockingIOError as error:
        raise SpoolDirectoryError(f"spool_dir: another gateway is using {directory}") from error
    finally:
        os.close(lock)
