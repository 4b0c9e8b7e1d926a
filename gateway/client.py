"""``mars-gateway exec``: runs one command through a gateway as if it ran here.

Owns following an exec: its output as it comes, its exit code, Ctrl-C as cancel. It speaks the REST API
and knows nothing of the server but ``protocol``.
"""

import asyncio
import uuid
from typing import BinaryIO

import httpx
import msgspec

from gateway.protocol import ErrorBody, ExecRequest, ExecStatus, SessionRequest, StreamName

_POLL_S = 20.0
"""One long poll; the transport's timeout is longer."""
_TIMEOUT = httpx.Timeout(10.0, read=_POLL_S + 20.0)
_CHUNK_BYTES = 1 << 20


class GatewayError(Exception):
    """The gateway refused or could not be reached; the message is for the user."""


class GatewayClient:
    """Use as an async context manager."""

    def __init__(
        self, url: str, token: str | None = None, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=_TIMEOUT, transport=transport)

    async def __aenter__(self) -> "GatewayClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ensure_session(self, session: str) -> None:
        """Create it with default settings unless it exists."""
        response = await self._send("GET", f"/v1/sessions/{session}", accept=(200, 404))
        if response.status_code == 404:
            await self._send("PUT", f"/v1/sessions/{session}", content=msgspec.json.encode(SessionRequest()))

    async def start(self, session: str, request: ExecRequest) -> ExecStatus:
        """A key of its own makes it safe to send again when the connection breaks."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        content = msgspec.json.encode(request)
        response = await self._send("POST", f"/v1/sessions/{session}/execs", content=content, headers=headers)
        return msgspec.json.decode(response.content, type=ExecStatus)

    async def follow(self, exec_id: str, stream: StreamName, out: BinaryIO) -> None:
        """Copy a stream as it comes, to its end."""
        offset = 0
        while True:
            params = {"stream": stream.value, "offset": offset, "limit": _CHUNK_BYTES, "wait": _POLL_S}
            response = await self._send("GET", f"/v1/execs/{exec_id}/output", params=params)
            out.write(response.content)
            out.flush()
            offset = int(response.headers["X-Next-Offset"])
            if response.headers["X-Eof"] == "true":
                return

    async def wait(self, exec_id: str) -> ExecStatus:
        while True:
            response = await self._send("GET", f"/v1/execs/{exec_id}", params={"wait": _POLL_S})
            status = msgspec.json.decode(response.content, type=ExecStatus)
            if status.state.is_final:
                return status

    async def cancel(self, exec_id: str) -> None:
        await self._send("DELETE", f"/v1/execs/{exec_id}")

    async def run(self, session: str, request: ExecRequest, out: BinaryIO, err: BinaryIO) -> ExecStatus:
        """The whole way of one command. Cancelling this cancels it."""
        await self.ensure_session(session)
        started = await self.start(session, request)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self.follow(started.id, StreamName.STDOUT, out))
                both.create_task(self.follow(started.id, StreamName.STDERR, err))
            return await self.wait(started.id)
        except BaseException as error:
            await asyncio.shield(self.cancel(started.id))
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from error
            raise

    async def _send(
        self,
        method: str,
        path: str,
        *,
        accept: tuple[int, ...] = (200, 201, 202, 204),
        content: bytes | None = None,
        params: dict[str, str | int | float] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        try:
            response = await self._http.request(method, path, content=content, params=params, headers=headers)
        except httpx.HTTPError as error:
            raise GatewayError(f"{self._http.base_url} does not answer: {type(error).__name__}") from error
        if response.status_code not in accept:
            raise GatewayError(_message(response))
        return response


def _message(response: httpx.Response) -> str:
    try:
        return msgspec.json.decode(response.content, type=ErrorBody).error.message
    except msgspec.DecodeError:
        return f"status {response.status_code}, which no gateway answers"
