"""The record of every policy event and command: JSON Lines, rotated by size, bounded in number.

Owns the files and their format. A line is ``{"now", "wall", "name", "fields"}``: ``now`` is the time
that the policy was told (seconds, monotonic), ``wall`` seconds since 1970, ``name`` the class in
``marsproxy.core``. The values are what those classes have, counts and fingerprints, so no text of a
prompt, header or command can get here. Every file begins with a ``LogHeader``: giving the events of one
process, in order, to the policy that the header describes yields the same commands (``marsproxy.replay``).

A log is advice for people, never needed to serve: when the disk is slow or gone, lines are dropped and
counted, and where they are missing a line says so.

Each process begins a new file: ``now`` of one process says nothing to another.
"""

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Condition, Thread
from typing import IO

import msgspec

from marsproxy.build import build_version
from marsproxy.core.commands import Command
from marsproxy.core.events import Event
from marsproxy.core.log_format import FORMAT_VERSION, Entry, LinesLost, LogHeader, StateAdopted
from marsproxy.core.settings import PolicySettings
from marsproxy.log_reader import file_number, log_files

log = logging.getLogger(__name__)

FLUSH_INTERVAL_S = 0.2
"""Longest time that a line waits for the disk: what a killed process loses."""
FLUSH_BYTES = 256 * 1024
"""Waiting bytes that wake the writer early."""
MAX_WAITING_BYTES = 8 * 1024 * 1024
"""Waiting bytes from which lines are dropped: some 25,000 lines (measured: 330 bytes for a TurnArrived)."""


class _Line(msgspec.Struct, frozen=True):
    now: float
    wall: float
    name: str
    fields: Entry


def new_header(policy: str, settings: PolicySettings, backends: Sequence[str]) -> LogHeader:
    """For the log of this process."""
    return LogHeader(
        format=FORMAT_VERSION,
        version=build_version(),
        process=secrets.token_hex(8),
        piece=1,
        policy=policy,
        settings=settings,
        backends=tuple(backends),
    )


class EventLog:
    """Takes entries on the event loop and writes them in a thread of its own."""

    def __init__(
        self,
        directory: Path,
        max_file_bytes: int,
        max_files: int,
        header: LogHeader,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._header = header
        self._files = _RotatedFiles(directory, max_file_bytes, max_files, self._first_line)
        self._clock = clock
        self._wall_clock = wall_clock
        self._encode = msgspec.json.Encoder().encode
        self._changed = Condition()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._is_closed = False
        self._is_failing = False
        self._dropped_waiting = 0
        self._dropped_writing = 0
        self._untold_waiting = 0
        self._untold_writing = 0
        """Of those dropped, lines whose loss the log does not show yet."""
        self.lines_written = 0
        self._thread = Thread(target=self._write_until_closed, name="event-log", daemon=True)
        self._thread.start()

    @property
    def lines_dropped(self) -> int:
        """Lines lost because the disk was too slow or refused. Each thread counts its own."""
        return self._dropped_waiting + self._dropped_writing

    def record(self, now: float, entry: Event | Command | StateAdopted) -> None:
        """Keep one event, command or mark. Takes a few microseconds and never waits for the disk."""
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self._dropped_waiting += 1
            self._untold_waiting += 1
            return
        lines = [self._line(now, entry)]
        if self._untold_waiting:
            lines.insert(0, self._line(now, LinesLost(self._untold_waiting)))
            self._untold_waiting = 0
        with self._changed:
            self._waiting += lines
            self._waiting_bytes += sum(map(len, lines))
            if self._waiting_bytes > FLUSH_BYTES:
                self._changed.notify()

    def close(self) -> None:
        """Write what waits and stop. For the end of the process: this one does wait for the disk."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _line(self, now: float, entry: Entry) -> bytes:
        return self._encode(_Line(now, self._wall_clock(), type(entry).__name__, entry))

    def _first_line(self, piece: int) -> bytes:
        return self._line(self._clock(), replace(self._header, piece=piece))

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
        shown = [self._line(self._clock(), LinesLost(self._untold_writing))] if self._untold_writing else []
        try:
            self._files.write([*shown, *lines])
        except OSError as error:
            self._dropped_writing += len(lines)
            self._untold_writing += len(lines)
            if not self._is_failing:
                log.error("event log: %s; lines are dropped until it works again", error.strerror)
            self._is_failing = True
        else:
            self.lines_written += len(lines)
            self._untold_writing = 0
            if self._is_failing:
                log.warning("event log: works again; %d lines were dropped", self.lines_dropped)
            self._is_failing = False


class _RotatedFiles:
    """Writes batches of lines to the newest file; begins the next one when it is full.

    ``first_line`` makes the line that the n-th file of this process begins with.
    """

    def __init__(
        self, directory: Path, max_file_bytes: int, max_files: int, first_line: Callable[[int], bytes]
    ) -> None:
        self._directory = directory
        self._max_file_bytes = max_file_bytes
        self._max_files = max_files
        self._first_line = first_line
        self._files_begun = 0
        self._file: IO[bytes] | None = None
        self._file_bytes = 0

    def write(self, lines: list[bytes]) -> None:
        while lines:
            if self._file is None:
                self._begin_file()
            assert self._file is not None
            count = self._count_that_fit(lines)
            batch = b"\n".join(lines[:count]) + b"\n"
            try:
                _write_all(self._file, batch)
            except OSError:
                self.close()  # a torn line can only be the last of its file: the reader relies on it
                raise
            self._file_bytes += len(batch)
            if self._file_bytes >= self._max_file_bytes:
                self.close()
            lines = lines[count:]

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _count_that_fit(self, lines: list[bytes]) -> int:
        """At least one; the last of them may be the one that fills the file."""
        room = self._max_file_bytes - self._file_bytes
        for count, line in enumerate(lines, start=1):
            room -= len(line) + 1
            if room <= 0:
                return count
        return len(lines)

    def _begin_file(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = log_files(self._directory)
        number = file_number(files[-1]) + 1 if files else 1
        path = self._directory / f"events-{number:06}.jsonl"
        path.touch(mode=0o600, exist_ok=False)
        self._file = path.open("ab", buffering=0)
        header = self._first_line(self._files_begun + 1) + b"\n"
        try:
            _write_all(self._file, header)
        except OSError:
            self.close()
            path.unlink(missing_ok=True)  # or a full disk gets one more file with each attempt
            raise
        self._files_begun += 1
        self._file_bytes = len(header)
        for outdated in files[: max(0, len(files) + 1 - self._max_files)]:
            outdated.unlink(missing_ok=True)


def _write_all(file: IO[bytes], content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
