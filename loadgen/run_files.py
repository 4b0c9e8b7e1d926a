"""Reads what a run left in its directory, complete or cut short.

Owns the file names. A missing file, or lines that a killed driver left half-written, become notes that the
report prints; a directory without any of the files is an error of the caller.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from loadgen.records import GaugeSample, SessionRecord, TurnRecord
from loadgen.summary import summarise

TURNS_FILE = "turns.jsonl"
SESSIONS_FILE = "sessions.jsonl"
GAUGES_FILE = "gauges.jsonl"
SUMMARY_FILE = "summary.json"
RUN_FILES = (SUMMARY_FILE, SESSIONS_FILE, TURNS_FILE, GAUGES_FILE)

_NESTING_LIMIT = 3
"""``loadgen compare`` and ``sweep`` put runs at most this deep below the directory they were given."""

Record = TypeVar("Record", TurnRecord, SessionRecord, GaugeSample)


class RunFilesError(Exception):
    """A directory that was named as a run cannot be read as one."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run as its directory tells it."""

    path: Path
    summary: dict[str, Any]
    turns: list[TurnRecord]
    sessions: list[SessionRecord]
    gauges: list[GaugeSample]
    notes: list[str] = field(default_factory=list)
    """What is missing or broken, in words for the reader of a report."""


def is_run_dir(path: Path) -> bool:
    return any((path / name).is_file() for name in RUN_FILES)


def find_run_dirs(path: Path) -> list[Path]:
    """The directory itself if it is a run, else the runs below it, by name."""
    return list(_run_dirs(path, _NESTING_LIMIT))


def _run_dirs(path: Path, levels: int) -> Iterator[Path]:
    if is_run_dir(path):
        yield path
    elif levels and path.is_dir():
        for child in sorted(path.iterdir()):
            yield from _run_dirs(child, levels - 1)


def read_run(path: Path) -> Run:
    if not is_run_dir(path):
        raise RunFilesError(f"{path}: no run here; expected at least one of {', '.join(RUN_FILES)}")
    notes: list[str] = []
    turns = _read_lines(path / TURNS_FILE, TurnRecord, notes)
    sessions = _read_lines(path / SESSIONS_FILE, SessionRecord, notes)
    gauges = _read_lines(path / GAUGES_FILE, GaugeSample, notes) if (path / GAUGES_FILE).is_file() else []
    summary = _read_summary(path / SUMMARY_FILE, notes)
    if summary is None:
        summary = summarise(turns, sessions, {})
        notes.append("the figures were recomputed from the records; the settings of the run are not known")
    return Run(path, summary, turns, sessions, gauges, notes)


def read_summary(path: Path) -> dict[str, Any]:
    """``summary.json`` of a run directory, recomputed from the records where the run was cut short."""
    summary = _read_summary(path / SUMMARY_FILE, [])
    return read_run(path).summary if summary is None else summary


def _read_lines(path: Path, record_type: type[Record], notes: list[str]) -> list[Record]:
    if not path.is_file():
        notes.append(f"no {path.name}")
        return []
    decoder = msgspec.json.Decoder(record_type)
    records: list[Record] = []
    broken = 0
    with path.open("rb") as lines:
        for line in filter(bytes.strip, lines):
            try:
                records.append(decoder.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError):
                broken += 1
    if broken:
        notes.append(f"{broken} unreadable line{'s' if broken > 1 else ''} in {path.name}, left out")
    return records


def _read_summary(path: Path, notes: list[str]) -> dict[str, Any] | None:
    if not path.is_file():
        notes.append(f"no {path.name}: the run was cut short")
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        notes.append(f"{path.name} is unreadable")
        return None
