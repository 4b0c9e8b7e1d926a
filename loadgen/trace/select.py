"""Only those sessions of a file that have a certain value in a certain field: one file, several sources."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from loadgen.errors import LoadgenError, WorkloadError

VALUES_NAMED = 10
"""Of those that are in a file, in the message that none was the one asked for."""


@dataclass(frozen=True, slots=True)
class Select:
    field: str
    value: str

    def __str__(self) -> str:
        return f"{self.field}={self.value}"

    def value_in(self, line: bytes) -> object:
        """None also of a line that is no object: the reader will say what is wrong with it."""
        try:
            fields = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
            return msgspec.json.decode(fields[self.field]) if self.field in fields else None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    def none_found(self, path: Path, values: set[str]) -> WorkloadError:
        there = ", ".join(sorted(values)[:VALUES_NAMED]) or f"no field {self.field!r}"
        return WorkloadError(f"no session with {self}; in the file: {there}", path=str(path))


def parse_select(text: str) -> Select:
    """``field=value``."""
    field, is_there, value = text.partition("=")
    if not (field and is_there and value):
        raise LoadgenError(f"--select is {text!r}; allowed: FIELD=VALUE, such as src=NAME")
    return Select(field, value)
