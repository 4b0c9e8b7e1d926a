"""Reads the proxy's event log: the lines of each process, in order.

The format is the proxy's; what a line may hold is said in ``marsproxy.core.log_format``, which is all
that the load generator may know of it. Reads line by line, so a log may be of any size. Rotation may have
dropped the beginning: who needs all of it looks at the header's ``piece``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from loadgen.errors import LoadgenError
from marsproxy.core.log_format import ENTRY_TYPES, FORMAT_VERSION, Entry, LogHeader


@dataclass(frozen=True, slots=True)
class LogLine:
    process: str
    """Which proxy wrote it: turn ids and times of one mean nothing in another."""
    now: float
    entry: Entry


class _Line(msgspec.Struct, frozen=True):
    now: float
    name: str
    fields: msgspec.Raw


class _Format(msgspec.Struct, frozen=True):
    format: int


def read_event_log(path: Path) -> Iterator[LogLine]:
    """Of a file, or of all files of a directory.

    Raises:
        LoadgenError: there is no log, or a line is not understood; the message names it.
    """
    files = sorted(path.glob("events-*.jsonl"), key=lambda file: (len(file.name), file.name))
    if not path.is_dir():
        files = [path]
    if not files:
        raise LoadgenError(f"{path}: no event log in it (files named events-000001.jsonl and so on)")
    for file in files:
        try:
            yield from _read_file(file)
        except OSError as exc:
            raise LoadgenError(f"{file}: cannot be read: {exc.strerror}") from exc


def _read_file(path: Path) -> Iterator[LogLine]:
    envelope = msgspec.json.Decoder(_Line)
    decoders = {name: msgspec.json.Decoder(kind) for name, kind in ENTRY_TYPES.items()}
    process: str | None = None
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if not text.endswith(b"\n"):
                return  # of a process that was killed
            try:
                line = envelope.decode(text)
                _check_format(line)
                entry = decoders[line.name].decode(line.fields)
            except (msgspec.MsgspecError, KeyError, ValueError) as exc:
                raise LoadgenError(f"{path}:{number}: not a line of an event log: {exc}") from exc
            if isinstance(entry, LogHeader):
                process = entry.process
            if process is None:
                raise LoadgenError(f"{path}:1: no header; written by another version, or cut off")
            yield LogLine(process, line.now, entry)


def _check_format(line: _Line) -> None:
    if line.name == LogHeader.__name__:
        written = msgspec.json.decode(line.fields, type=_Format).format
        if written != FORMAT_VERSION:
            raise ValueError(f"it is of format {written}; this version reads format {FORMAT_VERSION}")
