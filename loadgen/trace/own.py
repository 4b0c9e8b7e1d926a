"""Our own JSON Lines form (``docs/workload-format.md``): strict reader, exact writer."""

import gzip
import math
from collections.abc import Iterable
from pathlib import Path

import msgspec

from loadgen.errors import FieldError
from loadgen.workload import Session, ToolCall


def parse_session(line: bytes) -> Session:
    session = msgspec.json.decode(line, type=Session)
    check_session(session)
    return session


def check_session(session: Session) -> None:
    """Ranges that the types cannot say. Every reader ends here."""
    if not session.id:
        raise FieldError("id", "is empty; give each session a name of its own")
    if not session.turns:
        raise FieldError("turns", "is empty; a session has at least one turn")
    check_at_least("system_tokens", session.system_tokens, 0)
    check_at_least("arrival_s", session.arrival_s, 0)
    for i, turn in enumerate(session.turns):
        check_at_least(f"turns[{i}].new_tokens", turn.new_tokens, 1)
        check_at_least(f"turns[{i}].output_tokens", turn.output_tokens, 1)
        check_at_least(f"turns[{i}].think_s", turn.think_s, 0)
        if turn.tool is not None:
            check_tool(f"turns[{i}].tool", turn.tool)


def check_tool(field: str, tool: ToolCall) -> None:
    if not tool.name:
        raise FieldError(f"{field}.name", "is empty; name the tool")
    check_at_least(f"{field}.duration_s", tool.duration_s, 0)
    check_at_least(f"{field}.cores", tool.cores, 0)
    check_at_least(f"{field}.memory_mb", tool.memory_mb, 0)


def check_at_least(field: str, value: float | None, least: int) -> None:
    if value is not None and not (value >= least and math.isfinite(value)):
        raise FieldError(field, f"is {value}; allowed: a finite number >= {least}")


def write_sessions(path: Path, sessions: Iterable[Session]) -> int:
    """One line a session, gzipped when the name ends in ``.gz``; returns how many were written."""
    written = 0
    with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as out:
        for session in sessions:
            out.write(msgspec.json.encode(session) + b"\n")
            written += 1
    return written
