"""What the engine served, one JSON line as each request begins and as it ends: evidence, not statistics.

Every line is handed to the kernel before the next token is made, so an engine that is killed has said all
that it did. Knows nothing of text; a request is known by the ``X-Request-Id`` that came with it. Fields:
``id`` (null where none came), ``at_s`` (seconds since 1970), ``what`` ("begun", "finished", "aborted") and,
at an end, ``tokens`` generated.
"""

import os
import time
from pathlib import Path
from typing import Literal

import msgspec


class RequestLine(msgspec.Struct, frozen=True):
    """One line."""

    id: str | None
    at_s: float
    what: Literal["begun", "finished", "aborted"]
    tokens: int | None = None


class RequestLog:
    """Appends to a file, open until the process ends. A line is one write: engines may share one."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._encode = msgspec.json.Encoder().encode

    def begun(self, request_id: str | None) -> None:
        self._write(RequestLine(request_id, time.time(), "begun"))

    def ended(self, request_id: str | None, tokens: int, *, is_complete: bool) -> None:
        what: Literal["finished", "aborted"] = "finished" if is_complete else "aborted"
        self._write(RequestLine(request_id, time.time(), what, tokens))

    def _write(self, line: RequestLine) -> None:
        os.write(self._file, self._encode(line) + b"\n")
