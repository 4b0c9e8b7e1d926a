"""A typed client of the gateway's REST API.

Owns one method for each thing that can be asked, with the types of ``protocol``. What is sent again when
something breaks, ``client_calls`` decides; every command that is started here has an Idempotency-Key, so it
runs at most once.

    async with GatewayClient("http://127.0.0.1:8090") as gateway:
        await gateway.put_session("fix-1")
        status = await gateway.run("fix-1", ExecRequest(command="make test"))
        print(status.exit_code, status.stdout.text)
"""

import asyncio
import base64
import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TypeVar

import httpx
import msgspec

from gateway.client_calls import Calls, GatewayError, Params, Refused, Unreachable
from gateway.protocol import (
    ArchiveStatus,
    DrainRequest,
    ExecRequest,
    ExecStatus,
    FileStatus,
    HeartbeatRequest,
    HostList,
    HostStatus,
    LeaseEnding,
    LeaseRenewal,
    LeaseRequest,
    LeaseState,
    LeaseStatus,
    Scope,
    SessionRequest,
    SessionStatus,
    SignalRequest,
    SignalStatus,
    StdinRequest,
    StdinStatus,
    StreamName,
    TtyRequest,
)

__all__ = ["GatewayClient", "GatewayError", "OutputPiece", "Refused", "Unreachable"]

_POLL_S = 20.0
"""One long poll; what takes longer is asked for again."""
_PIECE_BYTES = 1 << 20
_STDIN_PAUSE_S = 0.05
"""Before input is offered again to a command that took only a part of it."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OutputPiece:
    data: bytes
    next_offset: int
    is_eof: bool
    is_truncated: bool


class GatewayClient:
    """Use as an async context manager. ``patience_s``: how long what is safe to send again is sent again."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        patience_s: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._calls = Calls(url, token, patience_s, transport)

    async def __aenter__(self) -> "GatewayClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._calls.close()

    # Sessions

    async def put_session(self, session: str, settings: SessionRequest | None = None) -> SessionStatus:
        return await self._put(f"/v1/sessions/{session}", settings or SessionRequest(), SessionStatus)

    async def session(self, session: str) -> SessionStatus | None:
        """None: there is none of that name."""
        try:
            return await self._get(f"/v1/sessions/{session}", SessionStatus)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    async def ensure_session(self, session: str) -> None:
        """Create it with default settings unless it exists."""
        if await self.session(session) is None:
            await self.put_session(session)

    async def end_session(self, session: str) -> None:
        await self._calls.send("DELETE", f"/v1/sessions/{session}")

    # Commands

    async def start(self, session: str, request: ExecRequest, key: str | None = None) -> ExecStatus:
        """``key``: of a command that may have been started before; by default it has not."""
        response = await self._calls.send(
            "POST",
            f"/v1/sessions/{session}/execs",
            content=msgspec.json.encode(request),
            headers={"Idempotency-Key": key or str(uuid.uuid4())},
            is_safe=True,
        )
        return msgspec.json.decode(response.content, type=ExecStatus)

    async def run(self, session: str, request: ExecRequest, key: str | None = None) -> ExecStatus:
        """To its end. It goes on if this is cancelled."""
        return await self.wait((await self.start(session, request, key)).id)

    async def exec(self, exec_id: str) -> ExecStatus:
        return await self._get(f"/v1/execs/{exec_id}", ExecStatus)

    async def wait(self, exec_id: str) -> ExecStatus:
        while True:
            status = await self._get(f"/v1/execs/{exec_id}", ExecStatus, {"wait": _POLL_S})
            if status.state.is_final:
                return status

    async def cancel(self, exec_id: str) -> ExecStatus:
        response = await self._calls.send("DELETE", f"/v1/execs/{exec_id}")
        return msgspec.json.decode(response.content, type=ExecStatus)

    async def read_output(
        self, exec_id: str, stream: StreamName = StreamName.STDOUT, offset: int = 0, wait_s: float = 0.0
    ) -> OutputPiece:
        params = {"stream": stream.value, "offset": offset, "limit": _PIECE_BYTES, "wait": wait_s}
        response = await self._calls.send("GET", f"/v1/execs/{exec_id}/output", params=params)
        headers = response.headers
        return OutputPiece(
            response.content,
            int(headers["X-Next-Offset"]),
            headers["X-Eof"] == "true",
            headers["X-Truncated"] == "true",
        )

    async def output(
        self, exec_id: str, stream: StreamName = StreamName.STDOUT, offset: int = 0
    ) -> AsyncIterator[bytes]:
        """As it comes, to its end."""
        is_eof = False
        while not is_eof:
            piece = await self.read_output(exec_id, stream, offset, _POLL_S)
            offset, is_eof = piece.next_offset, piece.is_eof
            if piece.data:
                yield piece.data

    async def write_stdin(self, exec_id: str, data: bytes, offset: int, *, eof: bool = False) -> int:
        """All of it, however slowly it is read. Returns the offset of what is written next."""
        end = offset + len(data)
        while True:
            rest = data[len(data) - (end - offset) :] if offset < end else b""
            request = StdinRequest(base64.b64encode(rest).decode(), offset, eof)
            content = msgspec.json.encode(request)
            response = await self._calls.send(
                "POST", f"/v1/execs/{exec_id}/stdin", content=content, is_safe=True
            )
            offset = msgspec.json.decode(response.content, type=StdinStatus).next_offset
            if offset >= end:
                return offset
            await asyncio.sleep(_STDIN_PAUSE_S)

    async def signal(self, exec_id: str, name: str, scope: Scope = Scope.GROUP) -> bool:
        """False: it was over. Not sent again when the connection breaks: some signals count."""
        request = msgspec.convert({"signal": name, "scope": scope}, SignalRequest)
        content = msgspec.json.encode(request)
        response = await self._calls.send("POST", f"/v1/execs/{exec_id}/signal", content=content)
        return msgspec.json.decode(response.content, type=SignalStatus).was_sent

    async def resize(self, exec_id: str, cols: int, rows: int) -> None:
        content = msgspec.json.encode(TtyRequest(cols, rows))
        await self._calls.send("PUT", f"/v1/execs/{exec_id}/tty", content=content)

    async def heartbeat(self, exec_id: str, ttl_s: float) -> None:
        """From now on it is cancelled unless this is called again within ``ttl_s``."""
        content = msgspec.json.encode(HeartbeatRequest(ttl_s))
        await self._calls.send("PUT", f"/v1/execs/{exec_id}/heartbeat", content=content)

    # Files

    async def write_file(
        self, session: str, path: str, data: bytes | AsyncIterator[bytes], mode: str | None = None
    ) -> FileStatus:
        params = {"path": path} if mode is None else {"path": path, "mode": mode}
        response = await self._calls.send("PUT", f"/v1/sessions/{session}/files", content=data, params=params)
        return msgspec.json.decode(response.content, type=FileStatus)

    async def read_file(self, session: str, path: str) -> bytes:
        response = await self._calls.send("GET", f"/v1/sessions/{session}/files", params={"path": path})
        return response.content

    def file(self, session: str, path: str) -> AsyncGenerator[bytes, None]:
        """In pieces, for one that is large."""
        return self._download(f"/v1/sessions/{session}/files", path)

    async def remove_file(self, session: str, path: str) -> None:
        await self._calls.send("DELETE", f"/v1/sessions/{session}/files", params={"path": path})

    async def unpack(self, session: str, tar: bytes | AsyncIterator[bytes], path: str = ".") -> ArchiveStatus:
        response = await self._calls.send(
            "PUT", f"/v1/sessions/{session}/archive", content=tar, params={"path": path}
        )
        return msgspec.json.decode(response.content, type=ArchiveStatus)

    def pack(self, session: str, path: str = ".") -> AsyncGenerator[bytes, None]:
        """A tar, in pieces."""
        return self._download(f"/v1/sessions/{session}/archive", path)

    # Leases

    @contextlib.asynccontextmanager
    async def lease(self, request: LeaseRequest) -> AsyncIterator[LeaseStatus]:
        """Held from here to there, however long that takes. Raises Refused where there is no room in time."""
        lease = await self._held(request)
        try:
            async with asyncio.TaskGroup() as group:
                renewing = group.create_task(self._renew(lease.id, request.ttl_s))
                try:
                    yield lease
                finally:
                    renewing.cancel()
        finally:
            await self.release(lease.id)

    async def release(self, lease_id: str, ending: LeaseEnding | None = None) -> LeaseStatus:
        content = msgspec.json.encode(ending or LeaseEnding())
        response = await self._calls.send("DELETE", f"/v1/leases/{lease_id}", content=content)
        return msgspec.json.decode(response.content, type=LeaseStatus)

    # Hosts

    async def hosts(self) -> list[HostStatus]:
        return (await self._get("/v1/hosts", HostList)).hosts

    async def drain(self, host: str, *, is_draining: bool = True) -> HostStatus:
        return await self._put(f"/v1/hosts/{host}/drain", DrainRequest(is_draining), HostStatus)

    async def _held(self, request: LeaseRequest) -> LeaseStatus:
        content = msgspec.json.encode(request)
        response = await self._calls.send("POST", "/v1/leases", content=content, params={"wait": _POLL_S})
        lease = msgspec.json.decode(response.content, type=LeaseStatus)
        while lease.state is LeaseState.QUEUED:
            lease = await self._get(f"/v1/leases/{lease.id}", LeaseStatus, {"wait": _POLL_S})
        if lease.state is not LeaseState.HELD:
            raise GatewayError(f"the lease is {lease.state}: {lease.reason or 'no reason given'}")
        return lease

    async def _renew(self, lease_id: str, ttl_s: float) -> None:
        while True:
            await asyncio.sleep(ttl_s / 3)
            await self._put(f"/v1/leases/{lease_id}", LeaseRenewal(ttl_s), LeaseStatus)

    async def _download(self, url: str, path: str) -> AsyncGenerator[bytes, None]:
        async with self._calls.stream("GET", url, params={"path": path}) as response:
            async for piece in response.aiter_raw():
                yield piece

    async def _get(self, path: str, kind: type[T], params: Params | None = None) -> T:
        response = await self._calls.send("GET", path, params=params)
        return msgspec.json.decode(response.content, type=kind)

    async def _put(self, path: str, body: msgspec.Struct, kind: type[T]) -> T:
        response = await self._calls.send("PUT", path, content=msgspec.json.encode(body))
        return msgspec.json.decode(response.content, type=kind)
