"""What is on the disk about each command, from which an agent that comes later can go on.

Owns the names and formats in ``execs/``. The directory ``<id>`` itself is the lock: who makes it starts the
command, nobody else ever does. Beside ``stdout`` and ``stderr`` there are in it, each whole or absent:

- ``order.json``: session, the gateway's record;
- ``started``: which process it is, and in which life of the host;
- ``exit``: how it ended. With it, the command is over, and what it says is never changed;
- ``refusal``: it was not started, and why.

A stream that had no output has no file.

When a command is forgotten, an empty file takes the directory's place and keeps its name taken, until the
time that the file was modified last: a time to come.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ORDER, _STARTED, _EXIT, _REFUSAL = "order.json", "started", "exit", "refusal"
_EXIT_BYTES = 4096
"""More than it ever has, and a block of most file systems."""
_GOING = ".going-"
"""Begins the name of a directory that is being removed. No id does."""


class ExecDirectory:
    """Of one command."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stdout = path / "stdout"
        self.stderr = path / "stderr"
        self.shell_state = path / "shell_state"
        """Where a command with a state writes what it leaves."""

    def write_order(self, order: Mapping[str, Any]) -> None:
        """Half of it is as good as nothing: then it was not started."""
        _write(self.path / _ORDER, json.dumps(order).encode())

    def write_started(self, started: Mapping[str, Any]) -> None:
        """Half of it is as good as nothing: then its processes are found without it."""
        _write(self.path / _STARTED, json.dumps(started).encode())

    def reserve_exit(self) -> None:
        """Room for how it will have ended, in case its output fills the disk. Raises OSError."""
        fd = os.open(_new(self.path / _EXIT), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, _EXIT_BYTES)
        finally:
            os.close(fd)

    def write_exit(self, outcome: Mapping[str, Any]) -> None:
        self._write(_EXIT, outcome, is_synced=True)

    def write_refusal(self, refusal: Mapping[str, Any]) -> None:
        self._write(_REFUSAL, refusal, is_synced=True)

    def order(self) -> dict[str, Any] | None:
        return self._read(_ORDER)

    def started(self) -> dict[str, Any] | None:
        return self._read(_STARTED)

    def exit(self) -> dict[str, Any] | None:
        return self._read(_EXIT)

    def refusal(self) -> dict[str, Any] | None:
        return self._read(_REFUSAL)

    def _write(self, name: str, fields: Mapping[str, Any], *, is_synced: bool = False) -> None:
        write_whole(self.path / name, json.dumps(fields).encode(), is_synced=is_synced)

    def _read(self, name: str) -> dict[str, Any] | None:
        """None also for what a power cut left half of."""
        try:
            fields = json.loads((self.path / name).read_bytes())
        except (OSError, ValueError):
            return None
        return fields if isinstance(fields, dict) else None


class ExecDirectories:
    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in os.scandir(path):
            if entry.name.startswith(_GOING):
                shutil.rmtree(entry.path, ignore_errors=True)

    def of(self, exec_id: str) -> ExecDirectory:
        return ExecDirectory(self._path / exec_id)

    def try_claim(self, exec_id: str) -> ExecDirectory | None:
        """None: somebody had it before. Raises OSError."""
        directory = self.of(exec_id)
        try:
            directory.path.mkdir(mode=0o700)
        except FileExistsError:
            return None
        return directory

    def release(self, exec_id: str) -> None:
        """As if it had never been claimed."""
        shutil.rmtree(self._path / exec_id, ignore_errors=True)

    def has(self, exec_id: str) -> bool:
        return (self._path / exec_id).is_dir()

    def forget(self, exec_id: str, free_at_s: float) -> None:
        """Output and all; the name stays taken until ``free``, which is due at ``free_at_s`` of the wall
        clock: it counts across reboots."""
        going = self._path / f"{_GOING}{exec_id}"
        with contextlib.suppress(FileNotFoundError):
            (self._path / exec_id).rename(going)
        with contextlib.suppress(FileExistsError):
            (self._path / exec_id).touch(mode=0o600, exist_ok=False)
            os.utime(self._path / exec_id, (free_at_s, free_at_s))
        shutil.rmtree(going, ignore_errors=True)

    def is_forgotten(self, exec_id: str) -> bool:
        return (self._path / exec_id).is_file()

    def free(self, exec_id: str) -> None:
        """Of a forgotten one: its name may be used again."""
        (self._path / exec_id).unlink(missing_ok=True)

    def kept(self) -> list[str]:
        return sorted(entry.name for entry in os.scandir(self._path) if entry.is_dir())

    def forgotten(self) -> list[tuple[float, str]]:
        """When each is free again and which, the first one first."""
        return sorted(
            (entry.stat().st_mtime, entry.name) for entry in os.scandir(self._path) if entry.is_file()
        )


def write_whole(path: Path, data: bytes, *, is_synced: bool = False) -> None:
    """All of it or nothing is there under its name, whenever we die; with ``is_synced`` also when the power
    does."""
    new = _new(path)
    _write(new, data, is_synced=is_synced)
    new.rename(path)


def _write(path: Path, data: bytes, *, is_synced: bool = False) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.ftruncate(fd, len(data))  # Only now: room that was reserved stays ours until it is filled.
        if is_synced:
            os.fsync(fd)
    finally:
        os.close(fd)


def _new(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")
