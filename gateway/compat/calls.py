"""What every door does: take a session that is made when it is first named, run a command in it, have its
output.

Owns waiting for the end and reading the whole of what was written. It must not know any door's protocol.
"""

import re

from gateway.compat.errors import NotRun
from gateway.errors import Refusal, invalid
from gateway.exec_record import Exec
from gateway.gateway import Gateway
from gateway.protocol import ExecRequest, SessionRequest, StreamName
from gateway.session_record import Session

_SESSION_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
"""As ``routing.SessionId``, for paths that FastAPI does not look at."""
DOOR_LABEL = "door"
"""Of sessions that a door made, with its name; those it may end again."""
_WAIT_S = 60.0
_READ_BYTES = 1 << 20


def check_session_id(session_id: str) -> None:
    """Raises Refusal."""
    if _SESSION_ID.fullmatch(session_id) is None:
        raise invalid("sid", f"must match {_SESSION_ID.pattern}")


async def session_on_demand(gateway: Gateway, tenant: str, session_id: str, door: str) -> Session:
    """Raises Refusal. One that somebody made before keeps its settings."""
    if gateway.sessions.find(tenant, session_id) is None:
        await gateway.sessions.put(tenant, session_id, SessionRequest(labels={DOOR_LABEL: door}))
    return gateway.sessions.use(tenant, session_id)


async def run_to_end(gateway: Gateway, session: Session, request: ExecRequest, key: str | None) -> Exec:
    """Raises Refusal, and NotRun for one that was never started."""
    record = await gateway.submission.submit(session, request, key)
    await ended(gateway, record)
    return record


async def ended(gateway: Gateway, record: Exec) -> None:
    """Returns when it has ended after it was started. Raises as ``run_to_end``."""
    await until_ended(gateway, record)
    check_was_run(record)


def check_was_run(record: Exec) -> None:
    """Raises NotRun for one that ended before it began: rejected, or cancelled in the queue."""
    if record.state.is_final and not record.was_started:
        raise NotRun(record.reason or "there was no room for it")


async def until_ended(gateway: Gateway, record: Exec) -> None:
    """Raises Refusal when the gateway goes and leaves the command to the next one."""
    while not record.ended.is_set():
        await gateway.execs.wait_ended(record, _WAIT_S)
    if not record.state.is_final:
        message = "the gateway is shutting down; the command goes on and may be asked for again"
        raise Refusal(503, "draining", message, retry_after_s=5)


async def output_of(gateway: Gateway, record: Exec, stream: StreamName, offset: int = 0) -> bytes:
    """All that was kept of a command that is over, from an offset on. Raises Refusal where it cannot be had:
    an empty answer would say that nothing was written."""
    data, is_eof = bytearray(), False
    while not is_eof:
        chunk = await gateway.execs.read(record, stream, offset, _READ_BYTES, 0)
        data += chunk.data
        is_eof = chunk.is_eof or not chunk.data
        offset = chunk.next_offset
    return bytes(data)
