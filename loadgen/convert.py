"""``loadgen import``: any known trace as a workload file of our own form."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from loadgen.errors import LoadgenError
from loadgen.trace import BadLines, TraceKind, read_sessions, write_sessions
from loadgen.workload import Session

Kind = Literal["auto", "own", "agent-sessions", "mooncake", "mini-swe-agent"]


def import_command(
    kind: Kind,
    *files: Path,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    skip_bad_lines: bool = False,
) -> int:
    """Turn traces into one workload file.

    Parameters
    ----------
    kind
        Format of the files; auto tells it by their content.
    files
        One or more, plain or gzip.
    out
        The workload file; compressed if its name ends in .gz.
    skip_bad_lines
        Count broken lines and go on, instead of stopping at the first.
    """
    if not files:
        raise LoadgenError("import needs at least one file")
    bad_lines = BadLines(skip=skip_bad_lines)
    written = write_sessions(out, all_sessions(files, kind, bad_lines))
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{written} sessions written to {out}, {bad_lines.count} bad lines skipped")
    return 0


def all_sessions(files: tuple[Path, ...], kind: Kind, bad_lines: BadLines) -> Iterator[Session]:
    wanted = None if kind == "auto" else TraceKind(kind)
    seen: dict[str, Path] = {}
    for path in files:
        for session in read_sessions(path, bad_lines=bad_lines, kind=wanted):
            if session.id in seen:
                raise LoadgenError(f"{path} and {seen[session.id]} both have a session {session.id!r}")
            seen[session.id] = path
            yield session
