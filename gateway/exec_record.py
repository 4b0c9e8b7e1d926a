"""The record of one command and how the API shows it.

Owns the fields and the legal steps between states. It must not start, stop or await anything.
"""

import asyncio
import base64
import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from gateway.host import EndedBy, HostExec, StreamCount
from gateway.protocol import (
    EXIT_CANCELLED,
    EXIT_SIGNAL_BASE,
    EXIT_TIMED_OUT,
    ExecState,
    ExecStatus,
    StreamName,
    StreamStatus,
)

_ENDINGS = {
    ExecState.EXITED,
    ExecState.TIMED_OUT,
    ExecState.CANCELLED,
    ExecState.OOM_KILLED,
    ExecState.LOST,
}
_NEXT_STATES = {
    ExecState.QUEUED: {ExecState.STARTING, ExecState.CANCELLED, ExecState.REJECTED},
    ExecState.STARTING: {ExecState.RUNNING, ExecState.REJECTED, *_ENDINGS},
    ExecState.RUNNING: _ENDINGS,
}
"""STARTING to EXITED is a program that is not there: 127, as a shell would say. Final states have no next."""


@dataclass(slots=True, eq=False)
class Exec:
    """Times are on the gateway's monotonic clock. What is read-only from outside changes by ``step`` and
    ``end`` alone."""

    id: str
    tenant: str
    session: str
    host: str
    cpu: float
    memory_mb: float | None
    """Set aside for it; None when nothing is known."""
    kill_grace_s: float
    labels: Mapping[str, str]
    command_digest: str
    program: str | None
    """Its name, and never its arguments: it is told to the proxy."""
    signature: str | None
    """By which what it takes is learned (``tool_signature``)."""
    body_digest: str | None
    """Of the request, when it had a key."""
    queued_at_s: float
    granted: asyncio.Future[bool]
    """True when it holds its slots, False when nobody wants it any more."""
    stop: asyncio.Future[float]
    """Done when it is to end before its time, with the seconds between SIGTERM and SIGKILL."""
    long_input_bytes: int | None = None
    """Of an input that is longer than what comes with a start; None: all of it does."""
    fed: asyncio.Event | None = None
    """Set when the rest of such an input is with its host, or never will be."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is over, and when the gateway leaves it."""
    state: ExecState = ExecState.QUEUED
    steps: int = 0
    """How many states it has left behind; see ``Execs.wait_step``."""
    stepped: asyncio.Event = field(default_factory=asyncio.Event)
    """Set at each step and when it is left, and then another takes its place."""
    _told_when_left: list[Callable[[], None]] = field(default_factory=list)
    started_at_s: float | None = None
    ended_at_s: float | None = None
    exit_code: int | None = None
    signal_name: str | None = None
    reason: str | None = None
    cpu_s: float | None = None
    max_rss_mb: float | None = None
    host_run_s: float | None = None
    """On the host's clock, without what the way there takes."""
    stdout: StreamCount = field(default_factory=StreamCount)
    stderr: StreamCount = field(default_factory=StreamCount)

    def __repr__(self) -> str:
        return f"<Exec {self.id} on {self.host} [{self.state}]>"

    @property
    def ending(self) -> str | None:
        return self.state.value if self.state.is_final else None

    @property
    def is_left(self) -> bool:
        """The gateway leaves it to the next one: it goes on, and no more of it is known here."""
        return self.ended.is_set() and not self.state.is_final

    @property
    def was_started(self) -> bool:
        """Its output may be on its host. Of one that was lost in its start that is not known."""
        return self.started_at_s is not None and self.state is not ExecState.REJECTED

    @property
    def kept_bytes(self) -> int:
        return self.stdout.kept_bytes + self.stderr.kept_bytes

    def count(self, stream: StreamName) -> StreamCount:
        return self.stdout if stream is StreamName.STDOUT else self.stderr

    def step(self, state: ExecState, now: float) -> None:
        assert state in _NEXT_STATES.get(self.state, ()), f"{self.state} to {state}"
        self.state = state
        self.steps += 1
        if state is ExecState.STARTING:
            self.started_at_s = now
        if state.is_final:
            self.ended_at_s = now
        self._wake()

    def leave(self) -> None:
        self.ended.set()
        self._wake()
        for tell in list(self._told_when_left):
            tell()

    @contextlib.contextmanager
    def telling_when_left(self, tell: Callable[[], None]) -> Iterator[None]:
        """At once if it is: cheaper than a task, for what is waited for often."""
        if self.is_left:
            tell()
        self._told_when_left.append(tell)
        try:
            yield
        finally:
            self._told_when_left.remove(tell)

    def _wake(self) -> None:
        self.stepped.set()
        self.stepped = asyncio.Event()

    def update(self, seen: HostExec) -> None:
        """What the host counts while it runs, too."""
        self.stdout, self.stderr = seen.stdout, seen.stderr
        self.host_run_s = seen.run_s

    def end(self, seen: HostExec, now: float) -> None:
        """Take over how a command that had its start ended."""
        self.update(seen)
        self.cpu_s, self.max_rss_mb = seen.cpu_s, seen.max_rss_mb
        if seen.returncode is not None and seen.returncode < 0:
            self.signal_name = _signal_name(-seen.returncode)
        state, self.exit_code = _ending(seen)
        if state is not ExecState.CANCELLED or self.reason is None:
            self.reason = seen.reason  # It was asked to end and had another end already.
        if state is ExecState.LOST:
            self.reason = self.reason or "how it ended is not known"
        self.step(state, now)

    def lose(self, reason: str, now: float) -> None:
        self.reason = reason
        self.step(ExecState.LOST, now)

    def queue_s(self, now: float) -> float:
        if self.started_at_s is not None:
            return self.started_at_s - self.queued_at_s
        return (now if self.ended_at_s is None else self.ended_at_s) - self.queued_at_s

    def run_s(self, now: float) -> float | None:
        if self.started_at_s is None:
            return None
        if self.ended_at_s is not None:
            return self.ended_at_s - self.started_at_s if self.host_run_s is None else self.host_run_s
        return now - self.started_at_s


def exec_status(
    record: Exec, now: float, position: int | None, heads: Mapping[StreamName, bytes]
) -> ExecStatus:
    """``heads``: the beginning of each stream of a command that is over; none where it is not known."""
    return ExecStatus(
        id=record.id,
        session=record.session,
        state=record.state,
        exit_code=record.exit_code,
        signal=record.signal_name,
        timed_out=record.state is ExecState.TIMED_OUT,
        reason=record.reason,
        host=record.host,
        cpu=record.cpu,
        queue_s=record.queue_s(now),
        run_s=record.run_s(now),
        cpu_s=record.cpu_s,
        max_rss_mb=record.max_rss_mb,
        labels=dict(record.labels),
        stdout=_stream_status(record.stdout, heads.get(StreamName.STDOUT)),
        stderr=_stream_status(record.stderr, heads.get(StreamName.STDERR)),
        queue_position=position,
    )


def _ending(seen: HostExec) -> tuple[ExecState, int | None]:
    match seen.ended_by:
        case EndedBy.ITSELF:
            return ExecState.EXITED, _shell_code(seen.returncode)
        case EndedBy.TIMEOUT:
            return ExecState.TIMED_OUT, EXIT_TIMED_OUT
        case EndedBy.STOP:
            return ExecState.CANCELLED, EXIT_CANCELLED
        case EndedBy.OOM:
            return ExecState.OOM_KILLED, _shell_code(seen.returncode)
        case EndedBy.NOBODY:
            return ExecState.LOST, None
    raise AssertionError("it runs")


def _shell_code(returncode: int | None) -> int | None:
    if returncode is None or returncode >= 0:
        return returncode
    return EXIT_SIGNAL_BASE - returncode


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):  # A real-time signal has no name.
        return signal.Signals(number).name
    return f"SIG{number}"


def _stream_status(count: StreamCount, head: bytes | None) -> StreamStatus:
    counts = (count.total_bytes, count.kept_bytes, count.total_bytes > count.kept_bytes)
    if head is None:
        return StreamStatus(*counts)
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
