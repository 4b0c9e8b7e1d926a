"""What is written down about commands and sessions where it outlives the gateway, and how it is read again.

Owns the fields of the notes that hosts keep for us (``record``) and that the store holds. A note that is not
ours, or of a version that we do not know, reads as None: on a shared host somebody else's command is left
alone.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from gateway.exec_record import Exec
from gateway.host import HostExec, StreamCount
from gateway.protocol import ExecState, SessionRequest


class ExecNote(Struct, frozen=True, omit_defaults=True):
    """With each command, on its host."""

    tenant: str
    session: str
    labels: dict[str, str]
    command_digest: str
    program: str | None
    signature: str | None
    cpu: float
    memory_mb: float | None
    kill_grace_s: float
    queue_s: float = 0.0
    body_digest: str | None = None
    """With which its key was claimed; None of one without a key."""
    long_input_bytes: int | None = None
    """Of an input whose rest comes after the start; None: all of it came with that."""
    v: Literal[1] = 1


class SessionNote(Struct, frozen=True, omit_defaults=True):
    """With each session, on its host and in the store."""

    tenant: str
    session: str
    host: str
    workspace: str
    settings: SessionRequest
    settings_at_unix_s: float
    is_ended: bool = False
    """Only its workspace was kept."""
    v: Literal[1] = 1


class EndedExec(Struct, frozen=True, omit_defaults=True):
    """What the store holds of a command that is over."""

    id: str
    host: str
    note: ExecNote
    state: ExecState
    exit_code: int | None
    signal_name: str | None
    reason: str | None
    run_s: float | None
    cpu_s: float | None
    max_rss_mb: float | None
    stdout: tuple[int, int]
    stderr: tuple[int, int]


T = TypeVar("T", bound=Struct)


def as_record(note: ExecNote | SessionNote) -> dict[str, Any]:
    """JSON, as a host keeps it. ``v`` is there always."""
    return {**msgspec.to_builtins(note), "v": note.v}


def read_record(record: Mapping[str, Any] | None, kind: type[T]) -> T | None:
    if record is None or record.get("v") != 1:
        return None
    try:
        return msgspec.convert(dict(record), kind)
    except msgspec.ValidationError:
        return None


def read_bytes(record: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(record, type=kind)
    except msgspec.DecodeError:
        return None


def new_exec(id_: str, host: str, note: ExecNote, queued_at_s: float) -> Exec:
    """Queued. Needs a running event loop."""
    loop = asyncio.get_running_loop()
    return Exec(
        id=id_,
        tenant=note.tenant,
        session=note.session,
        host=host,
        cpu=note.cpu,
        memory_mb=note.memory_mb,
        kill_grace_s=note.kill_grace_s,
        labels=note.labels,
        command_digest=note.command_digest,
        program=note.program,
        signature=note.signature,
        body_digest=note.body_digest,
        long_input_bytes=note.long_input_bytes,
        queued_at_s=queued_at_s,
        granted=loop.create_future(),
        stop=loop.create_future(),
    )


def adopted(seen: HostExec, host: str, note: ExecNote, now: float) -> Exec:
    """One that a host told of: running, also if it is over by now."""
    started_at_s = now - (seen.run_s or 0.0)
    record = new_exec(seen.exec_id, host, note, started_at_s - note.queue_s)
    record.granted.set_result(True)
    record.step(ExecState.STARTING, started_at_s)
    record.step(ExecState.RUNNING, started_at_s)
    record.update(seen)
    return record


def note_of(record: Exec, now: float) -> ExecNote:
    return ExecNote(
        tenant=record.tenant,
        session=record.session,
        labels=dict(record.labels),
        command_digest=record.command_digest,
        program=record.program,
        signature=record.signature,
        cpu=record.cpu,
        memory_mb=record.memory_mb,
        kill_grace_s=record.kill_grace_s,
        queue_s=record.queue_s(now),
        body_digest=record.body_digest,
        long_input_bytes=record.long_input_bytes,
    )


def ended_exec(record: Exec, now: float) -> EndedExec:
    return EndedExec(
        id=record.id,
        host=record.host,
        note=note_of(record, now),
        state=record.state,
        exit_code=record.exit_code,
        signal_name=record.signal_name,
        reason=record.reason,
        run_s=record.run_s(now),
        cpu_s=record.cpu_s,
        max_rss_mb=record.max_rss_mb,
        stdout=(record.stdout.total_bytes, record.stdout.kept_bytes),
        stderr=(record.stderr.total_bytes, record.stderr.kept_bytes),
    )


def restored(ended: EndedExec, now: float) -> Exec:
    """As it was when it ended; that it ended now is how long it is kept."""
    record = new_exec(ended.id, ended.host, ended.note, now - ended.note.queue_s)
    record.granted.set_result(ended.run_s is not None)
    if ended.run_s is not None:
        record.step(ExecState.STARTING, now)
        record.started_at_s = now
        record.host_run_s = ended.run_s
    record.state, record.ended_at_s = ended.state, now
    record.exit_code, record.signal_name, record.reason = ended.exit_code, ended.signal_name, ended.reason
    record.cpu_s, record.max_rss_mb = ended.cpu_s, ended.max_rss_mb
    record.stdout, record.stderr = StreamCount(*ended.stdout), StreamCount(*ended.stderr)
    record.ended.set()
    return record
