"""One backend over HTTP: bytes out, bytes in, failures translated once.

Uses aiohttp's client directly: on the relay's path it costs about half of what httpx costs with the
same transport underneath (``marsproxy/DESIGN.md``, decision 3). Nothing outside this module knows
which client it is.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import aiohttp
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

    def __init__(self, backend: str, what: str) -> None:
        super().__init__(f"backend {backend}: {what}")
        self.backend = backend
        self.what = what


class UpstreamUnreachable(UpstreamError):
    """No connection, or it broke before the first byte of an answer."""


class UpstreamTimeout(UpstreamError):
    """It took longer than configured to connect or to answer."""


class UpstreamBroke(UpstreamError):
    """The connection broke in the middle of an answer."""


@dataclass(slots=True)
class _Attempt:
    """Filled in by the trace hooks of one request."""

    was_reused: bool = False


class UpstreamAnswer:
    """A backend's answer whose body is still to come. Close it, whatever happens."""

    def __init__(self, backend: str, response: aiohttp.ClientResponse) -> None:
        self._backend = backend
        self._response = response
        self.status = response.status

    @property
    def headers(self) -> RawHeaders:
        """As the backend sent them, less those of its connection."""
        raw = ((name.lower(), value) for name, value in self._response.raw_headers)
        return [(name, value) for name, value in raw if name not in HOP_BY_HOP]

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives.

        Raises:
            UpstreamBroke: the backend went away, or fell silent for too long, before the end.
        """
        content = self._response.content
        try:
            while chunk := await content.readany():
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise UpstreamBroke(self._backend, f"broke off its answer ({type(exc).__name__})") from exc

    def close(self) -> None:
        """Return the connection if the answer was read to its end; else close it: vLLM aborts then."""
        self._response.close()


class Upstream:
    """Connections to one backend.

    Args:
        name: what it is called in metrics, logs and errors.
        url: scheme, host and port, perhaps with a path to put before every request's path.
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
    ) -> None:
        self.name = name
        self._base = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=connect_timeout_s, sock_read=read_timeout_s
        )
        self._keepalive_s = keepalive_s
        self._session: aiohttp.ClientSession | None = None
        self.retries_total = 0

    async def open(self) -> None:
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=self._keepalive_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=MAX_FIELD_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            timeout=self._timeout,
            trace_configs=[trace],
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

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
        """
        loop = asyncio.get_running_loop()
        while True:
            attempt, started_s = _Attempt(), loop.time()
            try:
                return await self._send_once(attempt, method, target, headers, body)
            except aiohttp.ConnectionTimeoutError as exc:
                raise UpstreamTimeout(self.name, "does not accept connections in time") from exc
            except TimeoutError as exc:
                raise UpstreamTimeout(self.name, "does not answer in time") from exc
            except (aiohttp.ClientError, OSError) as exc:
                is_stale = attempt.was_reused and loop.time() - started_s < STALE_WINDOW_S
                if not is_stale or not isinstance(body, bytes | None):
                    what = f"cannot be reached ({type(exc).__name__})"
                    raise UpstreamUnreachable(self.name, what) from exc
                # Each round uses up one pooled connection, so this ends with a new one.
                self.retries_total += 1

    async def _send_once(
        self,
        attempt: _Attempt,
        method: str,
        target: str,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes | AsyncIterator[bytes] | None,
    ) -> UpstreamAnswer:
        assert self._session is not None, "open() comes before send()"
        is_large = isinstance(body, bytes) and len(body) > LARGE_BODY_BYTES
        response = await self._session.request(
            method,
            URL(self._base + target, encoded=True),
            headers=CIMultiDict((_text(name), _text(value)) for name, value in headers),
            data=io.BytesIO(body) if is_large and isinstance(body, bytes) else body,
            allow_redirects=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            trace_request_ctx=attempt,
        )
        return UpstreamAnswer(self.name, response)


async def _note_reuse(_: aiohttp.ClientSession, context: SimpleNamespace, params: Any) -> None:
    context.trace_request_ctx.was_reused = True


def _text(raw: bytes) -> str:
    """aiohttp writes header text as UTF-8; bytes that are none were latin-1 to begin with."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
