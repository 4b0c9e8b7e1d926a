"""One import: every path read, every session once, everything that was left out remembered."""

from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path

import msgspec

from loadgen.errors import WorkloadError
from loadgen.importers import claude_code, codex, mini_swe_agent, openhands, openhands_list, swe_agent
from loadgen.importers.find import Format, candidates, format_of
from loadgen.importers.sessions import to_sessions
from loadgen.importers.transcript import Reading, Transcript
from loadgen.trace import BadLines, TraceKind, read_sessions
from loadgen.trace.detect import detect
from loadgen.workload import Session

PROBLEMS_TOLD = 20
"""One by one; of the others only how many."""


class TraceFormat(Enum):
    """Traces that are no transcripts: whole workloads in other forms."""

    OWN = TraceKind.OWN.value
    AGENT_SESSIONS = TraceKind.AGENT_SESSIONS.value
    MOONCAKE = TraceKind.MOONCAKE.value


Origin = Format | TraceFormat


def read_openhands(path: Path, reading: Reading) -> list[Transcript]:
    return openhands.read(path, reading) if path.is_dir() else openhands_list.read(path, reading)


READERS: dict[Format, Callable[[Path, Reading], list[Transcript]]] = {
    Format.CLAUDE_CODE: claude_code.read,
    Format.CODEX: codex.read,
    Format.MINI_SWE_AGENT: mini_swe_agent.read,
    Format.OPENHANDS: read_openhands,
    Format.SWE_AGENT: swe_agent.read,
}


class ImportRun:
    def __init__(
        self, reading: Reading, origin: Origin | None = None, *, keep_arrivals: bool = False
    ) -> None:
        self.reading = reading
        self.files_read = 0
        self.files_passed_over = 0
        """In directories: no transcripts."""
        self._origin = origin
        self._keep_arrivals = keep_arrivals
        self._found: dict[str, Session] = {}

    def read(self, paths: list[Path]) -> list[Session]:
        visited: set[Path] = set()
        for named in paths:
            for path in candidates(named):
                if (real := path.resolve()) not in visited:
                    visited.add(real)
                    self._read_file(path, is_named=path == named)
        return list(tidied(list(self._found.values()), keep_arrivals=self._keep_arrivals))

    def problems(self) -> Iterator[str]:
        broken = self.reading.notes.broken
        yield from (str(error) for error in broken[:PROBLEMS_TOLD])
        if len(broken) > PROBLEMS_TOLD:
            yield f"and {len(broken) - PROBLEMS_TOLD} more lines and files that cannot be read"

    def why_nothing(self) -> str:
        if self.reading.notes.broken:
            return "what was found cannot be read"
        if self.files_read:
            return "no transcript has an answer of a model"
        return f"no transcript among {self.files_passed_over} files; --format says what they are"

    def _read_file(self, path: Path, *, is_named: bool) -> None:
        try:
            origin = self._origin or format_of(path)
            if origin is None and is_named:
                origin = trace_format_of(path)
            if origin is None:
                self.files_passed_over += 1
                return
            self._keep(sessions_in(path, origin, self.reading))
            self.files_read += 1
        except WorkloadError as error:
            self.reading.notes.broken.append(error)

    def _keep(self, sessions: list[Session]) -> None:
        for session in sessions:
            if self._found.setdefault(session.id, session) is not session:
                self.reading.count("sessions that are there twice")


def sessions_in(path: Path, origin: Origin, reading: Reading) -> list[Session]:
    if isinstance(origin, TraceFormat):
        return sessions_in_trace(path, origin, reading)
    found = []
    for transcript in READERS[origin](path, reading):
        if not transcript.calls:
            reading.count("transcripts without an answer")
        found += to_sessions(transcript, reading.counter.name, reading.notes)
    return found


def sessions_in_trace(path: Path, origin: TraceFormat, reading: Reading) -> list[Session]:
    bad_lines = BadLines(skip=True)
    try:
        return list(read_sessions(path, bad_lines=bad_lines, kind=TraceKind(origin.value)))
    finally:
        reading.notes.broken += bad_lines.errors


def trace_format_of(path: Path) -> TraceFormat:
    try:
        return TraceFormat(detect(path).value)
    except WorkloadError as exc:
        raise WorkloadError(
            "is no known transcript or trace; --format says what it is", path=str(path)
        ) from exc


def tidied(sessions: list[Session], *, keep_arrivals: bool) -> Iterator[Session]:
    """Times since the first began, or none; no parent that is not there."""
    start = min((s.arrival_s for s in sessions if s.arrival_s is not None), default=0.0)
    ids = {session.id for session in sessions}
    for session in sessions:
        at = session.arrival_s if keep_arrivals else None
        yield msgspec.structs.replace(
            session,
            arrival_s=None if at is None else round(at - start, 3),
            parent=session.parent if session.parent in ids else None,
        )
