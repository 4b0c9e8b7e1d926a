"""Reads event logs back: single lines as they were written, and which files belong to which process.

Owns the names of the files and the checks of their lines. It reads line by line and keeps nothing, so a
log may be of any size.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from marsproxy.core.log_format import ENTRY_TYPES, FORMAT_VERSION, Entry, LogHeader

FILE_NAME = re.compile(r"events-(\d{6,})\.jsonl")


class EventLogError(Exception):
    """A file is not an event log of this version; the message names the line."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line, read back."""

    now: float
    wall: float
    entry: Entry


@dataclass(frozen=True, slots=True)
class ProcessLog:
    """What is left of the log of one process."""

    header: LogHeader
    """Of the oldest file that is left."""
    files: tuple[Path, ...]
    pieces: tuple[int, ...]
    """Numbers of those files; 1, 2, ... if nothing is missing."""

    @property
    def is_whole(self) -> bool:
        return self.pieces == tuple(range(1, len(self.pieces) + 1))

    def entries(self) -> Iterator[LogEntry]:
        """Without the headers."""
        for line in read_files(self.files):
            if not isinstance(line.entry, LogHeader):
                yield line


class _Line(msgspec.Struct, frozen=True):
    now: float
    wall: float
    name: str
    fields: msgspec.Raw


class _Format(msgspec.Struct, frozen=True):
    format: int


def log_files(directory: Path) -> list[Path]:
    """Files of the event log in ``directory``, oldest first."""
    return sorted((path for path in directory.iterdir() if FILE_NAME.fullmatch(path.name)), key=file_number)


def file_number(path: Path) -> int:
    match = FILE_NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def read_log(path: Path) -> Iterator[LogEntry]:
    """Every entry of a file, or of all files of a directory, in the order in which it was written.

    A last line without its end, from a process that was killed, is left out; any other line that is not
    understood raises ``EventLogError``.
    """
    yield from read_files(log_files(path) if path.is_dir() else [path])


def read_files(files: Iterable[Path]) -> Iterator[LogEntry]:
    decoders = {name: msgspec.json.Decoder(kind) for name, kind in ENTRY_TYPES.items()}
    for path in files:
        yield from _read_file(path, decoders)


def process_logs(path: Path) -> list[ProcessLog]:
    """The processes that wrote a file, or the files of a directory, in the order in which they began.

    Raises:
        EventLogError: there is no log, or one of a version without headers.
    """
    try:
        files = log_files(path) if path.is_dir() else [path]
        headers = [_header(file) for file in files]
    except OSError as error:
        raise EventLogError(f"{path}: cannot be read: {error.strerror}") from error
    if not files:
        raise EventLogError(f"{path}: no event log in it (files named events-000001.jsonl and so on)")
    by_process: dict[str, list[tuple[LogHeader, Path]]] = {}
    for header, file in zip(headers, files, strict=True):
        if header is not None:
            by_process.setdefault(header.process, []).append((header, file))
    return [_process_log(pieces) for pieces in by_process.values()]


def _process_log(pieces: list[tuple[LogHeader, Path]]) -> ProcessLog:
    return ProcessLog(
        pieces[0][0],
        tuple(file for _, file in pieces),
        tuple(header.piece for header, _ in pieces),
    )


def _header(path: Path) -> LogHeader | None:
    """None for a file without a whole line: its process was killed as it began it."""
    first = next(read_files([path]), None)
    if first is None:
        return None
    if not isinstance(first.entry, LogHeader):
        raise EventLogError(
            f"{path}:1: no header; written by a version that said neither policy nor settings, "
            f"or the beginning was cut off (this version reads format {FORMAT_VERSION})"
        )
    return first.entry


def _read_file(path: Path, decoders: dict[str, msgspec.json.Decoder[Any]]) -> Iterator[LogEntry]:
    envelope = msgspec.json.Decoder(_Line)
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if not text.endswith(b"\n"):
                return
            try:
                line = envelope.decode(text)
                if line.name == LogHeader.__name__:
                    _check_format(line.fields)
                entry = decoders[line.name].decode(line.fields)
            except msgspec.MsgspecError as error:
                raise EventLogError(f"{path}:{number}: not a line of an event log: {error}") from error
            except KeyError as error:
                raise EventLogError(f"{path}:{number}: unknown name {error}") from error
            except EventLogError as error:
                raise EventLogError(f"{path}:{number}: {error}") from error
            yield LogEntry(line.now, line.wall, entry)


def _check_format(header: msgspec.Raw) -> None:
    written = msgspec.json.decode(header, type=_Format).format
    if written != FORMAT_VERSION:
        raise EventLogError(f"is of format {written}; this version reads format {FORMAT_VERSION}")
