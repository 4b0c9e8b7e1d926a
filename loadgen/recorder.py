"""The files of a run: records are written as they come, so that a killed run keeps what it measured."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from loadgen.errors import LoadgenError
from loadgen.records import GaugeSample, SessionRecord, TurnRecord

TURNS_FILE = "turns.jsonl"
SESSIONS_FILE = "sessions.jsonl"
GAUGES_FILE = "gauges.jsonl"
SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.html"


class Recorder:
    """Writes and keeps the records: the summary wants all of them at the end."""

    def __init__(self, out_dir: Path) -> None:
        self.out_dir = out_dir
        self.turns: list[TurnRecord] = []
        self.sessions: list[SessionRecord] = []
        self._encoder = msgspec.json.Encoder()
        try:
            out_dir.mkdir(parents=True, exist_ok=True)
            if (out_dir / TURNS_FILE).exists():
                raise LoadgenError(f"--out {str(out_dir)!r} holds a run already; name another directory")
            self._turns = (out_dir / TURNS_FILE).open("wb")
            self._sessions = (out_dir / SESSIONS_FILE).open("wb")
            self._gauges = (out_dir / GAUGES_FILE).open("wb")
        except OSError as exc:
            raise LoadgenError(f"--out {str(out_dir)!r} cannot be written: {exc.strerror}") from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._turns, self._sessions, self._gauges):
            file.close()

    def add_turn(self, record: TurnRecord) -> None:
        self.turns.append(record)
        self._turns.write(self._encoder.encode(record) + b"\n")

    def add_session(self, record: SessionRecord) -> None:
        self.sessions.append(record)
        self._sessions.write(self._encoder.encode(record) + b"\n")
        # A session is rare beside its turns: the moment to bring everything so far to disk.
        self._flush()

    def add_gauges(self, sample: GaugeSample) -> None:
        self._gauges.write(self._encoder.encode(sample) + b"\n")
        self._flush()

    def write_summary(self, summary: dict[str, Any]) -> None:
        text = msgspec.json.format(msgspec.json.encode(summary), indent=2)
        (self.out_dir / SUMMARY_FILE).write_bytes(text + b"\n")

    def _flush(self) -> None:
        for file in (self._turns, self._sessions, self._gauges):
            file.flush()
