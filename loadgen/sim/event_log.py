"""Writes what the policy of a simulated run was told, and its commands, as the proxy's event log.

So the tools for that log work on simulated runs: ``marsproxy replay`` above all. What a line may hold is
said in ``marsproxy.core.log_format``; the reader is ``loadgen.event_log``. One file, whatever its size.
Nothing in it but the run: the same seed gives the same bytes. Virtual time begins in 1970.
"""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from loadgen.errors import LoadgenError
from loadgen.sim.settings import SimulationSettings, Sizes
from marsproxy.core.commands import Command
from marsproxy.core.events import Event
from marsproxy.core.log_format import FORMAT_VERSION, Entry, LogHeader

FILE_NAME = "events-000001.jsonl"


class _Line(msgspec.Struct, frozen=True):
    now: float
    wall: float
    name: str
    fields: Entry


class EventLogFile:
    """Raises ``LoadgenError`` for a directory that holds a log already, or cannot be written."""

    def __init__(self, directory: Path, header: LogHeader) -> None:
        self._encode = msgspec.json.Encoder().encode
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(directory.glob("events-*.jsonl")):
                raise LoadgenError(
                    f"--event-log {str(directory)!r} holds a log already; name another directory"
                )
            path = directory / FILE_NAME
            path.touch(mode=0o600)
            self._file = path.open("wb")
        except OSError as exc:
            raise LoadgenError(f"--event-log {str(directory)!r} cannot be written: {exc.strerror}") from exc
        self._write(0.0, header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def record(self, now: float, event: Event, commands: Sequence[Command]) -> None:
        self._write(now, event)
        for command in commands:
            self._write(now, command)

    def _write(self, now: float, entry: Entry) -> None:
        self._file.write(self._encode(_Line(now, now, type(entry).__name__, entry)) + b"\n")


def header_of(settings: SimulationSettings) -> LogHeader:
    """Of the policy that ``settings`` ask for.

    Raises:
        LoadgenError: it knows what no event says, so no log could make it again.
    """
    if settings.sizes is not Sizes.LEARNED or settings.size_factor != 1:
        raise LoadgenError("--event-log excludes --sizes and --size-factor: a replay could not know them")
    return LogHeader(
        format=FORMAT_VERSION,
        version=package_version(),
        process=sha256(repr(replace(settings, label=None)).encode()).hexdigest()[:16],
        piece=1,
        policy=settings.policy,
        settings=settings.policy_settings,
        backends=tuple(settings.backend_names),
    )


def package_version() -> str:
    try:
        return version("marsproxy")
    except PackageNotFoundError:
        return "0+source"
