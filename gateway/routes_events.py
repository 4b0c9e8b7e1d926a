"""REST: the events of a command, as server-sent events."""

from collections.abc import AsyncGenerator
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Response

from gateway.errors import invalid
from gateway.exec_events import ExecEvents, read_position
from gateway.exec_record import Exec
from gateway.exec_streams import until_left
from gateway.execs import Execs
from gateway.host import Chunk
from gateway.openapi import empty_answer, refusals
from gateway.protocol import ExecState, ExecStatus, StreamName
from gateway.routing import ExecId, Tenant, ThisGateway
from gateway.stream_protocol import EVENT_NAMES
from gateway.streaming import StreamedResponse

_SSE = "text/event-stream"
_EXAMPLE = (
    'id: 0.0.0\nevent: queued\ndata: {"position":1}\n\n'
    'id: 1.0.0\nevent: started\ndata: {"host":"local","queue_s":0.2}\n\n'
    'id: 1.3.0\nevent: output\ndata: {"stream":"stdout","offset":0,"text":"42\\n"}\n\n'
    'event: heartbeat\ndata: {"state":"running"}\n\n'
    'id: 2.3.0\nevent: exit\ndata: {"status":{"state":"exited","exit_code":0, ...}}\n\n'
)

_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "id": {"type": "string", "pattern": r"^[0-2]\.[0-9]+\.[0-9]+$"},
        "event": {"enum": [*EVENT_NAMES.values()]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
"""Each of the stream, as OpenAPI 3.2 says it (``itemSchema``); who does not know that reads the example."""


def event_routes() -> APIRouter:
    api = APIRouter(tags=["execs"])
    stream = {"itemSchema": _EVENT, "example": _EXAMPLE}
    api.add_api_route(
        "/execs/{exec_id}/events",
        get_events,
        methods=["GET"],
        response_class=Response,
        responses={
            200: {"description": "Events, until `exit`.", "content": {_SSE: stream}},
            204: empty_answer("`Last-Event-ID` was that of `exit`: nothing follows."),
            **refusals(400, 404, 503),
        },
    )
    return api


async def get_events(
    gateway: ThisGateway,
    tenant: Tenant,
    exec_id: ExecId,
    last_event_id: Annotated[
        str | None, Header(max_length=64, description="Of the last event that was seen; go on behind it.")
    ] = None,
) -> Response:
    """Follow a command: `queued`, `started`, `output`, `heartbeat` after 10 s of silence, and `exit`.

    A stream that ends without `exit` says nothing about the command: come back with `Last-Event-ID`.
    """
    position = read_position(last_event_id)
    if position is None:
        raise invalid("Last-Event-ID", "must be the id of an event of this stream")
    record = await gateway.execs.get(tenant, exec_id)
    if position.is_over:
        return Response(status_code=204)
    events = ExecEvents(_Followed(gateway.execs, record), position)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamedResponse(_frames(events), 200, headers, _SSE)


async def _frames(events: ExecEvents) -> AsyncGenerator[bytes, None]:
    try:
        async for frame in events.frames():
            yield frame
    finally:
        await events.close()


class _Followed:
    def __init__(self, execs: Execs, record: Exec) -> None:
        self._execs = execs
        self._record = record

    @property
    def state(self) -> ExecState:
        return self._record.state

    async def status(self) -> ExecStatus:
        status = await self._execs.status(self._record)
        streams = {name: _counts(getattr(status, name)) for name in StreamName}
        return msgspec.structs.replace(status, **streams)

    async def moved_on(self, state: ExecState, timeout_s: float) -> None:
        if self._record.state is state:
            await self._execs.wait_step(self._record, self._record.steps, timeout_s)

    async def left(self) -> None:
        await until_left(self._record)

    async def read(self, stream: StreamName, offset: int, limit: int, wait_s: float) -> Chunk:
        return await self._execs.read(self._record, stream, offset, limit, wait_s)


def _counts(stream: msgspec.Struct) -> msgspec.Struct:
    return msgspec.structs.replace(stream, text=None, b64=None, next_offset=0)
