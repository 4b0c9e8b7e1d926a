"""What an agent answered, read strictly: a host is not trusted to send sense.

Owns the way from the fields of an answer to the shapes of ``host``. Fields that we do not know are ignored;
one that is missing, of another type or out of bounds makes the whole answer a ``HostFault`` (internal) that
names it. It must not know how answers come.
"""

from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from gateway.host import (
    Chunk,
    EndedBy,
    ExecUse,
    FileChunk,
    HostExec,
    HostFault,
    HostSession,
    Reading,
    StreamCount,
)
from gateway.host_agent.wire import Fault, Frame
from gateway.protocol import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, StreamName

_MAX_MESSAGE_CHARACTERS = 500
_FAULTS = frozenset(value for name, value in vars(Fault).items() if name.isupper())

Amount = Annotated[float, Meta(ge=0, le=1e15)]
"""Neither NaN nor infinite, which Python's reader of JSON lets through."""
Share = Annotated[float, Meta(ge=0, le=1)]
Size = Annotated[int, Meta(ge=0, le=1 << 62)]
Record = dict[str, Any]

T = TypeVar("T")


class Status(Struct, frozen=True):
    """``wire.STATUS_FIELDS``, and what some operations add."""

    exec: str
    state: Literal["running", "ended"]
    ended_by: EndedBy | None = None
    returncode: Annotated[int, Meta(ge=-255, le=255)] | None = None
    run_s: Amount | None = None
    cpu_s: Amount | None = None
    max_rss_mb: Amount | None = None
    reason: str | None = None
    stdout: tuple[Size, Size] = (0, 0)
    stderr: tuple[Size, Size] = (0, 0)
    existed: bool = False
    record: Record | None = None
    inline: tuple[Size, Size] | None = None

    def __post_init__(self) -> None:
        if (self.state == "ended") != (self.ended_by is not None):
            raise ValueError("`ended_by` must be said when it ended, and only then")


class _ExecList(Struct, frozen=True):
    execs: list[Status]


class _Read(Struct, frozen=True):
    next_offset: Size
    is_eof: bool
    total_bytes: Size
    kept_bytes: Size


class _Put(Struct, frozen=True):
    workspace: str
    is_new: bool


class _Session(Struct, frozen=True):
    session: str
    workspace: str
    record: Record


class _SessionList(Struct, frozen=True):
    sessions: list[_Session]
    is_last: bool = True


class _File(Struct, frozen=True):
    size: Size
    mode: Annotated[int, Meta(ge=0, le=0o7777)]
    mtime_s: Annotated[float, Meta(ge=-1e12, le=1e12)]
    is_eof: bool


class _Use(Struct, frozen=True):
    cpu_s: Amount | None = None
    rss_mb: Amount | None = None


class _Reading(Struct, frozen=True):
    cores: Amount | None = None
    load_1m: Amount | None = None
    cpu_busy: Share | None = None
    cpu_pressure: Share | None = None
    memory_pressure: Share | None = None
    memory_total_mb: Size | None = None
    memory_available_mb: Size | None = None
    disk_free_mb: Size | None = None
    processes: Size | None = None
    execs: dict[str, _Use] = {}


class _Refusal(HostFault):
    """``exit_code``: what a shell's would be, of a program that could not be started."""

    def __init__(self, code: str, message: str, exit_code: object) -> None:
        super().__init__(code, message)
        is_shells = exit_code in (EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND)
        self.exit_code = exit_code if is_shells and isinstance(exit_code, int) else None


def fault(answer: Frame) -> HostFault | None:
    """None: the answer is yes."""
    match answer.header.get("ok"), answer.header.get("error"), answer.header.get("message"):
        case True, _, _:
            return None
        case False, str(code), str(message) if code in _FAULTS:
            return _Refusal(code, message[:_MAX_MESSAGE_CHARACTERS], answer.header.get("exit_code"))
    return nonsense("it is neither a yes nor a no with a reason that we know")


def nonsense(what: str) -> HostFault:
    return HostFault(Fault.INTERNAL, f"the host's answer makes no sense: {what}")


def exec_status(answer: Frame, exec_id: str) -> HostExec:
    status = _read(answer.header, Status)
    if status.exec != exec_id:
        raise nonsense("it is about another command")
    return _host_exec(status, _head(status, answer.payload))


def exec_page(answer: Frame, after: str) -> list[HostExec]:
    """Of a list in the order of ids; what comes in no order would never end."""
    execs = _read(answer.header, _ExecList).execs
    ids = [after, *(each.exec for each in execs)]
    if any(one >= other for one, other in pairwise(ids)):
        raise nonsense("execs: they are not in order")
    return [_host_exec(each, None) for each in execs]


def chunk(answer: Frame, offset: int) -> Chunk:
    read = _read(answer.header, _Read)
    if read.next_offset < offset:
        raise nonsense("next_offset: it lies before the offset that was asked for")
    return Chunk(answer.payload, read.next_offset, read.is_eof, read.total_bytes, read.kept_bytes)


def put_session(answer: Frame, name: str, record: Record) -> HostSession:
    put = _read(answer.header, _Put)
    return HostSession(name, put.workspace, put.is_new, record)


def session_page(answer: Frame, after: str) -> tuple[list[HostSession], bool]:
    """And whether it is the last one."""
    page = _read(answer.header, _SessionList)
    names = [after, *(each.session for each in page.sessions)]
    if any(one >= other for one, other in pairwise(names)):
        raise nonsense("sessions: they are not in order")
    sessions = [HostSession(each.session, each.workspace, False, each.record) for each in page.sessions]
    return sessions, page.is_last or not sessions


def file_chunk(answer: Frame) -> FileChunk:
    file = _read(answer.header, _File)
    return FileChunk(answer.payload, file.size, file.mode, file.mtime_s, file.is_eof)


def reading(answer: Frame) -> Reading:
    said = _read(answer.header, _Reading)
    fields = {name: getattr(said, name) for name in said.__struct_fields__ if name != "execs"}
    uses = {exec_id: ExecUse(use.cpu_s, use.rss_mb) for exec_id, use in said.execs.items()}
    return Reading(**fields, execs=uses)


def count(answer: Frame, name: str) -> int:
    if (found := _one(answer, name, int)) < 0:
        raise nonsense(f"{name}: it is below 0")
    return found


def flag(answer: Frame, name: str) -> bool:
    return _one(answer, name, bool)


def text(answer: Frame, name: str) -> str:
    return _one(answer, name, str)


def shell_exit_code(fault: HostFault) -> int | None:
    """Of a program that could not be started, where a shell would say so."""
    return fault.exit_code if isinstance(fault, _Refusal) else None


def _one(answer: Frame, name: str, kind: type[T]) -> T:
    try:
        return msgspec.convert(answer.header.get(name), kind)
    except msgspec.ValidationError as error:
        raise nonsense(f"{name}: {error}") from error


def _read(fields: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise nonsense(str(error)) from error


def _host_exec(status: Status, head: dict[StreamName, bytes] | None) -> HostExec:
    return HostExec(
        exec_id=status.exec,
        ended_by=status.ended_by,
        returncode=status.returncode,
        run_s=status.run_s,
        cpu_s=status.cpu_s,
        max_rss_mb=status.max_rss_mb,
        reason=status.reason,
        stdout=StreamCount(*status.stdout),
        stderr=StreamCount(*status.stderr),
        existed=status.existed,
        record=status.record,
        head=head,
    )


def _head(status: Status, payload: bytes) -> dict[StreamName, bytes] | None:
    if status.inline is None:
        return None
    of_stdout, of_stderr = status.inline
    if of_stdout + of_stderr != len(payload):
        raise nonsense("inline: it does not add up to the payload")
    return {StreamName.STDOUT: payload[:of_stdout], StreamName.STDERR: payload[of_stdout:]}
