"""One backend over HTTP: bytes out, bytes in, failures translated once.

Uses aiohttp's client directly: on the relay's path it costs about half of what httpx costs with the
same transport underneath (``marsproxy/DESIGN.md``, decision 3). Nothing outside this module knows
which client it is.
"""

import asyncio
import io
import re
from collections.abc import AsyncIterator, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace
from multidict import CIMultiDict
from yarl import URL

RawHeaders = list[tuple[bytes, bytes]]

LARGE_BODY_BYTES = 1 << 20
"""aiohttp warns about larger bodies given as bytes, and then wants a file."""

MAX_FIELD_BYTES = 1 << 16
"""Of one header of an answer, as much as clients may send in all of theirs (``listen.max_header_bytes``).
aiohttp allows 8 KiB, which gateways' tokens and policies exceed; the answer would be lost."""

STALE_WINDOW_S = 1.0
"""A connection that had been closed while idle fails within a round trip; a failure later than this may
be a request that the backend had begun to work on, and is not repeated."""

CONTROL_CHARACTER = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""Not allowed in the value of a header (RFC 9110, section 5.5)."""

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""Headers that belong to one connection (RFC 9110, section 7.6.1)."""


class UpstreamError(Exception):
    """A backend failed us. ``backend`` is its name, without credentials."""

    def __init__(self, backend: str, what: str, *, may_have_begun: bool = True) -> None:
        """
        Args:
            may_have_begun: the request may have reached it; False if there was no connection at all.
        """
        super().__init__(f"backend {backend}: {what}")
        self.backend = backend
        self.what = what
        self.may_have_begun = may_have_begun


class UpstreamUnreachable(UpstreamError):
    """No connection, or it broke before the first byte of an answer."""


class UpstreamTimeout(UpstreamError):
    """It took longer than configured to connect or to answer."""


class UpstreamBroke(UpstreamError):
    """The connection broke in the middle of an answer."""


class UpstreamSilent(UpstreamBroke):
    """Nothing came for longer than configured, in the middle of an answer."""


class ConnectionEvents(Protocol):
    """Told of what the metrics count."""

    def connected(self, took_s: float) -> None: ...

    def retried(self) -> None: ...

    def aborted(self) -> None: ...


@dataclass(slots=True)
class _Attempt:
    """What becomes of one sending of a request."""

    was_reused: bool = True
    """It went over a connection that was there before."""
    body_failure: Exception | None = None
    """Raised by the stream of the request's body; aiohttp turns it into an error of its own."""


_ATTEMPT: ContextVar[_Attempt] = ContextVar("attempt")
"""Of the task that asks the connector for a connection. aiohttp's own tracing would tell the same for some
twenty microseconds a request."""


class _Connector(aiohttp.TCPConnector):
    """Notes which connections are new."""

    def __init__(self, events: ConnectionEvents | None, *, limit: int, keepalive_timeout: float) -> None:
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout)
        self._events = events

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        _ATTEMPT.get().was_reused = False
        started_s = self._loop.time()
        connection = await super()._create_connection(req, traces, timeout)
        if self._events is not None:
            self._events.connected(self._loop.time() - started_s)
        return connection


class _OnClose(Protocol):
    def __call__(self, *, is_given_up: bool) -> None: ...


class UpstreamAnswer:
    """A backend's answer whose body is still to come. Close it, whatever happens."""

    def __init__(self, backend: str, response: aiohttp.ClientResponse, on_close: "_OnClose") -> None:
        self._backend = backend
        self._response = response
        self._on_close = on_close
        self._is_open = True
        self._first = b""
        """Read already, to see whether there is any."""
        self.status = response.status
        self._connection_lost = _connection_lost(response)
        if self._connection_lost is not None:
            self._connection_lost.add_done_callback(self._check_whole)

    @property
    def headers(self) -> RawHeaders:
        """As the backend sent them, less those of its connection."""
        raw = ((name.lower(), value) for name, value in self._response.raw_headers)
        return [(name, value) for name, value in raw if name not in HOP_BY_HOP]

    async def begin(self) -> None:
        """Wait for the first bytes of the body, with which ``chunks`` then begins.

        Raises:
            UpstreamBroke: as ``chunks``.
        """
        self._first = await self._next()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives.

        Raises:
            UpstreamBroke: the backend went away, or fell silent for too long, before the end.
        """
        if self._first:
            yield self._first
        while chunk := await self._next():
            yield chunk

    async def _next(self) -> bytes:
        try:
            return await self._response.content.readany()
        except TimeoutError as exc:
            raise UpstreamSilent(self._backend, f"broke off its answer ({type(exc).__name__})") from exc
        except (aiohttp.ClientError, OSError, RuntimeError) as exc:  # the latter: it ended before its body
            raise UpstreamBroke(self._backend, f"broke off its answer ({type(exc).__name__})") from exc

    def close(self) -> None:
        """Return the connection if the answer was read to its end; else close it: vLLM aborts then."""
        content = self._response.content
        is_given_up = not content.is_eof() and content.exception() is None
        self._response.close()
        if self._connection_lost is not None:
            self._connection_lost.remove_done_callback(self._check_whole)
        if self._is_open:
            self._is_open = False
            self._on_close(is_given_up=is_given_up)

    def _check_whole(self, _: asyncio.Future[None]) -> None:
        """aiohttp (3.14) closes a connection whose chunks make no sense without telling the reader, who
        would wait for ever."""
        content = self._response.content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("malformed framing"))


class Upstream:
    """Connections to one backend.

    Args:
        name: what it is called in metrics, logs and errors.
        url: scheme, host and port, perhaps with a path to put before every request's path, and with
            credentials that take the place of the client's.
        connect_timeout_s: for a new connection.
        read_timeout_s: longest silence while waiting for an answer or inside one; None waits for ever.
        keepalive_s: idle connections are dropped after this; it must be below the backend's own limit
            (vLLM's server closes after 5 s), or requests meet connections that are just being closed.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        connect_timeout_s: float,
        read_timeout_s: float | None,
        keepalive_s: float,
        events: ConnectionEvents | None = None,
    ) -> None:
        self.name = name
        self._events = events
        self._base = url.rstrip("/")
        self._has_credentials = URL(url).user is not None
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=connect_timeout_s, sock_read=read_timeout_s
        )
        self._keepalive_s = keepalive_s
        self._session: aiohttp.ClientSession | None = None
        self.retries_total = 0
        self.open_answers = 0
        """Requests between their sending and the closing of their answers."""
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=_Connector(self._events, limit=0, keepalive_timeout=self._keepalive_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=MAX_FIELD_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            timeout=self._timeout,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def until_idle(self) -> None:
        """Wait until no answer is under way."""
        await self._is_idle.wait()

    async def send(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes | AsyncIterator[bytes] | None,
    ) -> UpstreamAnswer:
        """Send a request and wait for the head of the answer.

        A connection that the backend had just closed costs one immediate second attempt on another
        connection: nothing had reached the backend. A body that is a stream is sent once only.

        Args:
            target: path and query, already encoded, passed on as it is.

        Raises:
            UpstreamUnreachable, UpstreamTimeout: no head of an answer came.
            Exception: whatever the stream of the body raised.
        """
        self.open_answers += 1
        self._is_idle.clear()
        try:
            response = await self._send(method, target, headers, body)
        except BaseException as exc:
            self._answer_closed(is_given_up=isinstance(exc, asyncio.CancelledError))
            raise
        return UpstreamAnswer(self.name, response, self._answer_closed)

    def _answer_closed(self, *, is_given_up: bool) -> None:
        self.open_answers -= 1
        if not self.open_answers:
            self._is_idle.set()
        if is_given_up and self._events is not None:
            self._events.aborted()

    async def _send(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes | AsyncIterator[bytes] | None,
    ) -> aiohttp.ClientResponse:
        loop = asyncio.get_running_loop()
        while True:
            attempt, started_s = _Attempt(), loop.time()
            _ATTEMPT.set(attempt)
            try:
                return await self._send_once(attempt, method, target, headers, body)
            except aiohttp.ConnectionTimeoutError as exc:
                what = "does not accept connections in time"
                raise UpstreamTimeout(self.name, what, may_have_begun=False) from exc
            except TimeoutError as exc:
                raise UpstreamTimeout(self.name, "does not answer in time") from exc
            except (aiohttp.ClientError, OSError) as exc:
                if attempt.body_failure is not None:
                    raise attempt.body_failure from exc
                is_stale = attempt.was_reused and loop.time() - started_s < STALE_WINDOW_S
                if not is_stale or not isinstance(body, bytes | None):
                    what = f"cannot be reached ({type(exc).__name__})"
                    begun = not isinstance(exc, aiohttp.ClientConnectorError)
                    raise UpstreamUnreachable(self.name, what, may_have_begun=begun) from exc
                # Each round uses up one pooled connection, so this ends with a new one.
                self.retries_total += 1
                if self._events is not None:
                    self._events.retried()

    def _headers(self, headers: Iterable[tuple[bytes, bytes]]) -> CIMultiDict[str]:
        if self._has_credentials:
            headers = ((name, value) for name, value in headers if name != b"authorization")
        return CIMultiDict((_text(name), _text(value)) for name, value in headers)

    async def _send_once(
        self,
        attempt: _Attempt,
        method: str,
        target: str,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes | AsyncIterator[bytes] | None,
    ) -> aiohttp.ClientResponse:
        assert self._session is not None, "open() comes before send()"
        response = await self._session.request(
            method,
            URL(self._base + target, encoded=True),
            headers=self._headers(headers),
            data=_as_data(body, attempt),
            allow_redirects=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )
        if not _can_be_passed_on(response):
            response.close()
            raise UpstreamUnreachable(self.name, "does not answer in HTTP")
        return response


def _as_data(body: bytes | AsyncIterator[bytes] | None, attempt: _Attempt) -> Any:
    if isinstance(body, bytes):
        return io.BytesIO(body) if len(body) > LARGE_BODY_BYTES else body
    return None if body is None else _noting_failure(body, attempt)


async def _noting_failure(body: AsyncIterator[bytes], attempt: _Attempt) -> AsyncIterator[bytes]:
    try:
        async for part in body:
            yield part
    except Exception as exc:
        attempt.body_failure = exc
        raise


def _connection_lost(response: aiohttp.ClientResponse) -> asyncio.Future[None] | None:
    """Done when the answer's connection ends; None if the answer is complete already."""
    connection = response.connection
    protocol = None if connection is None else connection.protocol
    lost = None if protocol is None else protocol.closed
    if lost is not None:
        # It outlives the answer, and may end with an exception that nobody else asks for.
        lost.remove_done_callback(_retrieve)
        lost.add_done_callback(_retrieve)
    return lost


def _retrieve(lost: asyncio.Future[None]) -> None:
    if not lost.cancelled():
        lost.exception()


def _can_be_passed_on(response: aiohttp.ClientResponse) -> bool:
    """aiohttp reads more than HTTP allows, and more than a server may write."""
    values = (value for _, value in response.raw_headers)
    return 200 <= response.status < 600 and not any(map(CONTROL_CHARACTER.search, values))


def _text(raw: bytes) -> str:
    """aiohttp writes header text as UTF-8; bytes that are none were latin-1 to begin with."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
