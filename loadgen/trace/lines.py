"""Lines of a text file, plain or gzip, and what to do with a bad one."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from loadgen.errors import FieldError, WorkloadError

T = TypeVar("T")

GZIP_MAGIC = b"\x1f\x8b"
"""RFC 1952, section 2.3.1."""


@dataclass(slots=True)
class BadLines:
    """Policy for a line that is no session: raise (default), or count it and go on."""

    skip: bool = False
    errors: list[WorkloadError] = field(default_factory=list)
    count: int = 0
    keep: int = 20
    """Errors kept for the report; the count goes on."""

    def report(self, error: WorkloadError) -> None:
        if not self.skip:
            raise error
        self.count += 1
        if len(self.errors) < self.keep:
            self.errors.append(error)


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Non-blank lines with their number; gunzipped by content, whatever the name says."""
    try:
        with path.open("rb") as plain:
            is_gzip = plain.read(2) == GZIP_MAGIC
        with gzip.open(path, "rb") if is_gzip else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if stripped := line.strip():
                    yield number, stripped
    except (OSError, EOFError, zlib.error) as exc:
        raise WorkloadError(f"cannot be read: {exc}", path=str(path)) from exc


def read_all(path: Path) -> bytes:
    return b"\n".join(line for _, line in numbered_lines(path))


def parse_line(path: Path, number: int, line: bytes, parse: Callable[[bytes], T]) -> T:
    """``parse(line)`` with every complaint located."""
    try:
        return parse(line)
    except FieldError as exc:
        raise WorkloadError(exc.problem, path=str(path), line=number, field=exc.field) from exc
    except msgspec.ValidationError as exc:
        problem, _, where = str(exc).partition(" - at `$")
        raise WorkloadError(problem, path=str(path), line=number, field=where.strip(".`") or None) from exc
    except msgspec.DecodeError as exc:
        raise WorkloadError(f"not valid JSON: {exc}", path=str(path), line=number) from exc
    except (UnicodeDecodeError, RecursionError) as exc:
        raise WorkloadError(f"not readable as JSON: {exc}", path=str(path), line=number) from exc
