"""Which format a file has, by its content; then the right reader."""

from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import assert_never

import msgspec

from loadgen.errors import WorkloadError
from loadgen.trace import agent_sessions, mooncake, own
from loadgen.trace.lines import BadLines, numbered_lines, parse_line
from loadgen.trace.select import Select
from loadgen.workload import Session


class TraceKind(Enum):
    OWN = "own"
    AGENT_SESSIONS = "agent-sessions"
    MOONCAKE = "mooncake"


ONE_SESSION_A_LINE = (TraceKind.OWN, TraceKind.AGENT_SESSIONS)


def read_sessions(
    path: Path,
    *,
    bad_lines: BadLines | None = None,
    kind: TraceKind | None = None,
    select: Select | None = None,
) -> Iterator[Session]:
    """Sessions of ``path``, whatever known format it has. At least one, with ids that differ."""
    bad_lines = bad_lines or BadLines()
    seen: set[str] = set()
    for session in read(path, kind or detect(path), bad_lines, select):
        if session.id in seen:
            bad_lines.report(
                WorkloadError(
                    f"{session.id!r} is there twice; allowed: each id once", path=str(path), field="id"
                )
            )
            continue
        seen.add(session.id)
        yield session
    if not seen:
        raise WorkloadError("no session in the file" + skipped(bad_lines), path=str(path))


def read(path: Path, kind: TraceKind, bad_lines: BadLines, select: Select | None = None) -> Iterator[Session]:
    if select is not None and kind not in ONE_SESSION_A_LINE:
        raise WorkloadError(
            f"is {kind.value}; {select} can be selected only where a line is a session", path=str(path)
        )
    match kind:
        case TraceKind.OWN:
            return each_line(path, own.parse_session, bad_lines, select)
        case TraceKind.AGENT_SESSIONS:
            return each_line(path, agent_sessions.parse_session, bad_lines, select)
        case TraceKind.MOONCAKE:
            return mooncake.read(path, bad_lines)
        case _:
            assert_never(kind)


def each_line(
    path: Path, parse: Callable[[bytes], Session], bad_lines: BadLines, select: Select | None
) -> Iterator[Session]:
    for number, line in selected_lines(path, select):
        try:
            session = parse_line(path, number, line, parse)
        except WorkloadError as error:
            bad_lines.report(error)
            continue
        yield session


def selected_lines(path: Path, select: Select | None) -> Iterator[tuple[int, bytes]]:
    if select is None:
        yield from numbered_lines(path)
        return
    others: set[str] = set()
    is_found = False
    for number, line in numbered_lines(path):
        value = select.value_in(line)
        if value == select.value:
            is_found = True
            yield number, line
        elif isinstance(value, str):
            others.add(value)
    if not is_found:
        raise select.none_found(path, others)


def detect(path: Path) -> TraceKind:
    """By the first line that is a JSON object."""
    is_empty = True
    for _, line in numbered_lines(path):
        is_empty = False
        if (found := as_object(line)) is not None and (kind := kind_of(found)) is not None:
            return kind
    if is_empty:
        raise WorkloadError("is empty; a workload has one session a line", path=str(path))
    raise WorkloadError(
        "is no known workload; allowed: JSON Lines with 'id' and 'turns' (own form, or 'in' and 'out' in "
        "the turns), or Mooncake's 'timestamp', 'input_length' and 'output_length'; `loadgen import` makes "
        "one of agents' transcripts",
        path=str(path),
    )


def kind_of(found: dict[str, object]) -> TraceKind | None:
    if "input_length" in found or "hash_ids" in found:
        return TraceKind.MOONCAKE
    turns = found.get("turns")
    first = turns[0] if isinstance(turns, list) and turns else None
    if isinstance(first, dict) and ("in" in first or "gap_s" in first):
        return TraceKind.AGENT_SESSIONS
    # A session with a misspelt or missing field must reach the strict reader, which names the field.
    return TraceKind.OWN if "turns" in found or "id" in found else None


def as_object(text: bytes) -> dict[str, object] | None:
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def skipped(bad_lines: BadLines) -> str:
    return (
        f" ({bad_lines.count} bad lines skipped, the first: {bad_lines.errors[0]})"
        if bad_lines.errors
        else ""
    )
