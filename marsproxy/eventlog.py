"""The record of every policy event and command: JSON Lines, rotated by size, bounded in number.

Owns the files and their format. A line is ``{"now", "wall", "name", "fields"}``: ``now`` is the time
that the policy was told (seconds, monotonic), ``wall`` seconds since 1970, ``name`` the class in
``marsproxy.core``. The values are what those classes have, counts and fingerprints, so no text of a
prompt, header or command can get here. Reading a file back and giving the events to a policy of the
same configuration yields the same commands.

A log is advice for people, never needed to serve: when the disk is slow or gone, lines are dropped
and counted.

Each process begins a new file: ``now`` of one process says nothing to another.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread
from typing import IO, Any, get_args

import msgspec

from marsproxy.core.commands import Command
from marsproxy.core.events import Event

log = logging.getLogger(__name__)

FLUSH_INTERVAL_S = 0.2
"""Longest time that a line waits for the disk: what a killed process loses."""
FLUSH_BYTES = 256 * 1024
"""Waiting bytes that wake the writer early."""
MAX_WAITING_BYTES = 8 * 1024 * 1024
"""Waiting bytes from which lines are dropped: some 25,000 lines (measured: 330 bytes for a TurnArrived)."""

FILE_NAME = re.compile(r"events-(\d{6,})\.jsonl")


class EventLogError(Exception):
    """A file is not an event log of this version; the message names the line."""


class _Line(msgspec.Struct, frozen=True):
    now: float
    wall: float
    name: str
    fields: Any
    """The event or command itself when writing, its JSON when reading."""


class _RawLine(_Line, frozen=True):
    fields: msgspec.Raw


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line, read back."""

    now: float
    wall: float
    entry: Event | Command


class EventLog:
    """Takes entries on the event loop and writes them in a thread of its own."""

    def __init__(
        self,
        directory: Path,
        max_file_bytes: int,
        max_files: int,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._files = _RotatedFiles(directory, max_file_bytes, max_files)
        self._wall_clock = wall_clock
        self._encode = msgspec.json.Encoder().encode
        self._changed = Condition()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._is_closed = False
        self._is_failing = False
        self._dropped_waiting = 0
        self._dropped_writing = 0
        self.lines_written = 0
        self._thread = Thread(target=self._write_until_closed, name="event-log", daemon=True)
        self._thread.start()

    @property
    def lines_dropped(self) -> int:
        """Lines lost because the disk was too slow or refused. Each thread counts its own."""
        return self._dropped_waiting + self._dropped_writing

    def record(self, now: float, entry: Event | Command) -> None:
        """Keep one event or command. Takes a few microseconds and never waits for the disk."""
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self._dropped_waiting += 1
            return
        line = self._encode(_Line(now, self._wall_clock(), type(entry).__name__, entry))
        with self._changed:
            self._waiting.append(line)
            self._waiting_bytes += len(line)
            if self._waiting_bytes > FLUSH_BYTES:
                self._changed.notify()

    def close(self) -> None:
        """Write what waits and stop. For the end of the process: this one does wait for the disk."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _write_until_closed(self) -> None:
        is_closed = False
        while not is_closed:
            with self._changed:
                if not self._is_closed:
                    self._changed.wait(FLUSH_INTERVAL_S)
                is_closed = self._is_closed
                lines, self._waiting, self._waiting_bytes = self._waiting, [], 0
            if lines:
                self._write(lines)
        self._files.close()

    def _write(self, lines: list[bytes]) -> None:
        try:
            self._files.write(lines)
        except OSError as error:
            self._dropped_writing += len(lines)
            if not self._is_failing:
                log.error("event log: %s; lines are dropped until it works again", error.strerror)
            self._is_failing = True
        else:
            self.lines_written += len(lines)
            if self._is_failing:
                log.warning("event log: works again; %d lines were dropped", self.lines_dropped)
            self._is_failing = False


class _RotatedFiles:
    """Writes batches of lines to the newest file; begins the next one when it is full."""

    def __init__(self, directory: Path, max_file_bytes: int, max_files: int) -> None:
        self._directory = directory
        self._max_file_bytes = max_file_bytes
        self._max_files = max_files
        self._file: IO[bytes] | None = None
        self._file_bytes = 0

    def write(self, lines: list[bytes]) -> None:
        for batch in self._batches(lines):
            if self._file is None:
                self._begin_file()
            assert self._file is not None
            try:
                _write_all(self._file, batch)
            except OSError:
                self.close()  # a torn line can only be the last of its file: the reader relies on it
                raise
            self._file_bytes += len(batch)
            if self._file_bytes >= self._max_file_bytes:
                self.close()

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _batches(self, lines: list[bytes]) -> Iterator[bytes]:
        """Whole lines, cut where the file is full, so that none outgrows its bound by more than a line."""
        begin, room = 0, self._max_file_bytes - (self._file_bytes if self._file else 0)
        for end, line in enumerate(lines, start=1):
            room -= len(line) + 1
            if room <= 0:
                yield b"\n".join(lines[begin:end]) + b"\n"
                begin, room = end, self._max_file_bytes
        if begin < len(lines):
            yield b"\n".join(lines[begin:]) + b"\n"

    def _begin_file(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = log_files(self._directory)
        number = _number(files[-1]) + 1 if files else 1
        path = self._directory / f"events-{number:06}.jsonl"
        path.touch(mode=0o600, exist_ok=False)
        self._file = path.open("ab", buffering=0)
        self._file_bytes = 0
        for outdated in files[: max(0, len(files) + 1 - self._max_files)]:
            outdated.unlink(missing_ok=True)


def _write_all(file: IO[bytes], content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _number(path: Path) -> int:
    match = FILE_NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def log_files(directory: Path) -> list[Path]:
    """Files of the event log in ``directory``, oldest first."""
    return sorted((path for path in directory.iterdir() if FILE_NAME.fullmatch(path.name)), key=_number)


def read_log(path: Path) -> Iterator[LogEntry]:
    """Every entry of a file, or of all files of a directory, in the order in which it was written.

    A last line without its end, from a process that was killed, is left out; any other line that is not
    understood raises ``EventLogError``.
    """
    for file in log_files(path) if path.is_dir() else [path]:
        yield from _read_file(file)


def _read_file(path: Path) -> Iterator[LogEntry]:
    envelope = msgspec.json.Decoder(_RawLine)
    decoders = {name: msgspec.json.Decoder(kind) for name, kind in _types_by_name().items()}
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if not text.endswith(b"\n"):
                return
            try:
                line = envelope.decode(text)
                entry = decoders[line.name].decode(line.fields)
            except msgspec.MsgspecError as error:
                raise EventLogError(f"{path}:{number}: not a line of an event log: {error}") from error
            except KeyError as error:
                raise EventLogError(f"{path}:{number}: unknown name {error}") from error
            yield LogEntry(line.now, line.wall, entry)


def _types_by_name() -> dict[str, type[Event | Command]]:
    return {kind.__name__: kind for kind in (*get_args(Event), *get_args(Command))}
