"""The client's side of one request: its body, its patience, its going away."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from marsproxy.http_limits import CUT
from marsproxy.tasks import TaskOwner
from marsproxy.upstream import RawHeaders

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


BODYLESS = frozenset((204, 304))
"""Statuses whose Content-Length describes another answer (RFC 9110, section 8.6). uvicorn (0.54) would
wait for that many bytes."""


class ClientGone(Exception):
    """The client closed its connection before the answer was complete."""


class BodyTooLarge(Exception):
    """The request body is over the configured bound."""


class BodyTooSlow(Exception):
    """The client took too long to send its body."""


class Client:
    """One ASGI request. Used by one task, apart from the watcher that it starts itself."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        """Still percent-encoded: it goes out as it came in."""
        self.query: str = scope["query_string"].decode("latin-1")
        self.headers: RawHeaders = scope["headers"]
        self._scope = scope
        self._receive = receive
        self._send = send
        self._writing_since_s: float | None = None
        """Set while a piece of the answer waits to be taken; on the monotonic clock."""
        self._reading_check: asyncio.TimerHandle
        self.is_answering = False
        """The head of an answer is on its way: the status can no longer be changed."""
        self.is_only_held = False
        """All that the client has seen is an open event stream with comments in it."""
        self._is_answered = False
        self._body_taken: asyncio.Event | None = None
        """Of a body that is read as a stream: set when nobody reads it any more."""

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def content_length(self) -> int | None:
        """As announced; None for a chunked body. The server has checked that it is a number."""
        value = self.header(b"content-length")
        return None if value is None else int(value)

    async def read_body(self, max_bytes: int, timeout_s: float) -> bytes:
        """The whole body.

        Raises:
            BodyTooLarge, BodyTooSlow, ClientGone
        """
        if (self.content_length or 0) > max_bytes:
            raise BodyTooLarge
        parts: list[bytes] = []
        size, is_whole = 0, False
        try:
            async with asyncio.timeout(timeout_s):
                while not is_whole:
                    part, is_whole = await self._body_part()
                    parts.append(part)
                    size += len(part)
                    if size > max_bytes:
                        raise BodyTooLarge
        except TimeoutError as exc:
            raise BodyTooSlow from exc
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def stream_body(self, timeout_s: float) -> AsyncIterator[bytes]:
        """The body piece by piece, for somebody else to read. It may be left before its end.

        Args:
            timeout_s: for the client's part of it; the time in which nobody asks for more is not counted.

        Raises:
            BodyTooSlow, ClientGone: out of the iterator.
        """
        self._body_taken = asyncio.Event()
        return self._taking_body(timeout_s, self._body_taken)

    async def _taking_body(self, timeout_s: float, taken: asyncio.Event) -> AsyncIterator[bytes]:
        loop, is_whole = asyncio.get_running_loop(), False
        try:
            while not is_whole:
                started_s = loop.time()
                async with asyncio.timeout(timeout_s):
                    part, is_whole = await self._body_part()
                timeout_s -= loop.time() - started_s
                if part:
                    yield part
        except TimeoutError as exc:
            raise BodyTooSlow from exc
        finally:
            taken.set()

    async def _body_part(self) -> tuple[bytes, bool]:
        """The next piece, and whether it was the last."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message.get("body", b""), not message.get("more_body")

    @asynccontextmanager
    async def watched(self, owner: TaskOwner, write_timeout_s: float) -> AsyncIterator[None]:
        """Interrupt the block as soon as the client goes away, or has not read for too long. What is left
        of the body is dropped, unless it is being read as a stream.

        Args:
            write_timeout_s: for one piece of the answer to be taken; looked at once in that time.

        Raises:
            ClientGone: out of whatever the block was waiting for.
        """
        loop = asyncio.get_running_loop()
        try:
            # A deadline that never comes, unless the watcher brings it forward: the standard library
            # then gets cancelling and un-cancelling right.
            async with asyncio.timeout(None) as deadline:
                watcher = owner.spawn("client-watcher", self._watch(deadline, loop))
                self._check_reading(deadline, loop, write_timeout_s)
                try:
                    yield
                finally:
                    watcher.cancel()
                    self._reading_check.cancel()
        except TimeoutError as exc:
            if deadline.expired():
                raise ClientGone from exc
            raise

    async def _watch(self, deadline: asyncio.Timeout, loop: asyncio.AbstractEventLoop) -> None:
        if self._body_taken is not None:
            await self._body_taken.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._is_answered:
            deadline.reschedule(loop.time())

    def _check_reading(
        self, deadline: asyncio.Timeout, loop: asyncio.AbstractEventLoop, write_timeout_s: float
    ) -> None:
        since_s = self._writing_since_s
        if since_s is not None and time.monotonic() - since_s >= write_timeout_s:
            deadline.reschedule(loop.time())
        self._reading_check = loop.call_later(
            write_timeout_s, self._check_reading, deadline, loop, write_timeout_s
        )

    async def show_life(self, headers: RawHeaders, comment: bytes) -> None:
        """Open an event stream for a client that has to wait, and write a comment into it."""
        if not self.is_answering:
            await self.start(200, headers)
            self.is_only_held = True
        await self.write(comment)

    async def start(self, status: int, headers: RawHeaders) -> None:
        """Begin the answer. After ``show_life`` it has begun: status and headers can only be dropped."""
        if self.is_only_held:
            self.is_only_held = False
            return
        self.is_answering = True
        if status in BODYLESS:
            headers = [(name, value) for name, value in headers if name != b"content-length"]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, chunk: bytes) -> None:
        """Pass on bytes; waits while the client reads too slowly."""
        self._writing_since_s = time.monotonic()
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        self._writing_since_s = None

    async def discard_body(self, timeout_s: float) -> None:
        """Read and forget what the client still sends: closing the connection over unread bytes would
        answer them with a reset, which can overtake our answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while (await self._receive()).get("more_body"):
                    pass

    def cut(self) -> None:
        """End the connection without ending the answer: nobody must take the part for the whole."""
        self._is_answered = True
        self._scope["extensions"][CUT]()

    async def finish(self, chunk: bytes = b"") -> None:
        # Set first: the server reports a disconnect as soon as the answer is complete.
        self._is_answered = True
        await self._send({"type": "http.response.body", "body": chunk, "more_body": False})
