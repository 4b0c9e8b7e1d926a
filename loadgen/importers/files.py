"""Files of JSON, line by line or whole; what cannot be read is said with its name and line."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec

from loadgen.errors import WorkloadError
from loadgen.importers.transcript import Notes
from loadgen.importers.values import Fields
from loadgen.trace.lines import numbered_lines, read_all

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def as_object(text: bytes) -> Fields | None:
    try:
        found = msgspec.json.decode(text)
    except UNREADABLE:
        return None
    return found if isinstance(found, dict) else None


def records(path: Path, notes: Notes) -> Iterator[Fields]:
    """The objects of a file of JSON Lines. A broken line is noted and the rest goes on."""
    for number, line in numbered_lines(path):
        found = as_object(line)
        if found is None:
            notes.broken.append(WorkloadError("is no JSON object", path=str(path), line=number))
        else:
            yield found


def document(path: Path) -> object:
    """A file that is one JSON value."""
    content = read_all(path)
    try:
        return msgspec.json.decode(content)
    except UNREADABLE as exc:
        raise WorkloadError(
            "is not valid JSON; was it cut off?", path=str(path), line=line_of(content)
        ) from exc


def digest_of(path: Path) -> str:
    """Tells runs apart whose files have one name, in the directories of several experiments."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def line_of(content: bytes) -> int | None:
    """Where it stops being JSON."""
    try:
        json.loads(content)
    except json.JSONDecodeError as exc:
        return exc.lineno
    except (UnicodeDecodeError, RecursionError):
        return None
    return None
