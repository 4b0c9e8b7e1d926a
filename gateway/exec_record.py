"""The record of one command and how the API shows it.

Owns the fields and the legal steps between states. It must not start, stop or await anything.
"""

import asyncio
import base64
import signal
from dataclasses import dataclass, field

from gateway.protocol import (
    EXIT_CANCELLED,
    EXIT_SIGNAL_BASE,
    EXIT_TIMED_OUT,
    ExecState,
    ExecStatus,
    StreamName,
    StreamStatus,
)
from gateway.runner import EndedBy, Exit
from gateway.spool import Spool

_ENDINGS = {ExecState.EXITED, ExecState.TIMED_OUT, ExecState.CANCELLED, ExecState.LOST}
_NEXT_STATES = {
    ExecState.QUEUED: {ExecState.STARTING, ExecState.CANCELLED, ExecState.REJECTED},
    ExecState.STARTING: {ExecState.RUNNING, ExecState.REJECTED, *_ENDINGS},
    ExecState.RUNNING: _ENDINGS,
}
"""STARTING to EXITED is a program that is not there: 127, as a shell would say. Final states have no next."""


@dataclass(slots=True, eq=False)
class Exec:
    """Times are on the gateway's monotonic clock."""

    id: str
    tenant: str
    session: str
    cpu: float
    kill_grace_s: float
    labels: dict[str, str]
    command_digest: str
    program: str | None
    """Name of the program, for learning about its kind; never its arguments."""
    stdout: Spool
    stderr: Spool
    queued_at_s: float
    granted: asyncio.Future[bool]
    """True when it holds its slots, False when nobody wants it any more."""
    stop: asyncio.Future[float]
    """Done when it is to end before its time, with the seconds between SIGTERM and SIGKILL."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    state: ExecState = ExecState.QUEUED
    started_at_s: float | None = None
    ended_at_s: float | None = None
    exit_code: int | None = None
    signal_name: str | None = None
    reason: str | None = None
    cpu_s: float | None = None
    max_rss_mb: float | None = None

    def __repr__(self) -> str:
        return f"<Exec {self.id} [{self.state}]>"

    def step(self, state: ExecState, now: float) -> None:
        assert state in _NEXT_STATES.get(self.state, ()), f"{self.state} to {state}"
        self.state = state
        if state is ExecState.STARTING:
            self.started_at_s = now
        if state.is_final:
            self.ended_at_s = now

    def end(self, exit_: Exit, now: float) -> None:
        """Take over how a command that was running ended."""
        self.cpu_s, self.max_rss_mb = exit_.cpu_s, exit_.max_rss_mb
        if exit_.returncode is not None and exit_.returncode < 0:
            self.signal_name = signal.Signals(-exit_.returncode).name
        match exit_.by:
            case EndedBy.ITSELF:
                self.exit_code = _shell_code(exit_.returncode)
                self.step(ExecState.EXITED, now)
            case EndedBy.TIMEOUT:
                self.exit_code = EXIT_TIMED_OUT
                self.step(ExecState.TIMED_OUT, now)
            case EndedBy.STOP:
                self.exit_code = EXIT_CANCELLED
                self.step(ExecState.CANCELLED, now)
            case EndedBy.NOBODY:
                self.reason = self.reason or "how it ended is not known"
                self.step(ExecState.LOST, now)

    def queue_s(self, now: float) -> float:
        return (self.started_at_s or self.ended_at_s or now) - self.queued_at_s

    def run_s(self, now: float) -> float | None:
        return None if self.started_at_s is None else (self.ended_at_s or now) - self.started_at_s

    def spool(self, stream: StreamName) -> Spool:
        return self.stdout if stream is StreamName.STDOUT else self.stderr

    @property
    def spool_bytes(self) -> int:
        return self.stdout.kept_bytes + self.stderr.kept_bytes


def exec_status(record: Exec, now: float, host: str, position: int | None, inline_bytes: int) -> ExecStatus:
    inline = inline_bytes if record.state.is_final else 0
    return ExecStatus(
        id=record.id,
        session=record.session,
        state=record.state,
        exit_code=record.exit_code,
        signal=record.signal_name,
        timed_out=record.state is ExecState.TIMED_OUT,
        reason=record.reason,
        host=host,
        cpu=record.cpu,
        queue_s=record.queue_s(now),
        run_s=record.run_s(now),
        cpu_s=record.cpu_s,
        max_rss_mb=record.max_rss_mb,
        labels=record.labels,
        stdout=_stream_status(record.stdout, inline),
        stderr=_stream_status(record.stderr, inline),
        queue_position=position,
    )


def _shell_code(returncode: int | None) -> int | None:
    if returncode is None or returncode >= 0:
        return returncode
    return EXIT_SIGNAL_BASE - returncode


def _stream_status(spool: Spool, inline_bytes: int) -> StreamStatus:
    counts = (spool.total_bytes, spool.kept_bytes, spool.is_truncated)
    if inline_bytes == 0:
        return StreamStatus(*counts)
    head = spool.read(0, inline_bytes)
    text, used = _text(head)
    if text is None:
        return StreamStatus(*counts, b64=base64.b64encode(head).decode(), next_offset=len(head))
    return StreamStatus(*counts, text=text, next_offset=used)


def _text(head: bytes) -> tuple[str | None, int]:
    """The text and how many bytes it took: a character cut in two at the end is left for the next read."""
    try:
        return head.decode(), len(head)
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return head[: error.start].decode(), error.start
        return None, 0
