"""Bounds on what a client may do before there is a request: uvicorn's HTTP protocol with limits.

Owns three bounds that uvicorn (0.54) does not have with httptools: the bytes of request line and
headers (431), the time in which they must be complete (408), and the number of open connections (503);
and a way for the application to cut an answer that it cannot complete. Whatever comes after the headers
is the application's business. It must not know what is served.

Theory of operation. A connection is *between* requests, in a *head*, or past it. The parser says when a
head begins and ends (``on_message_begin``, ``on_headers_complete``). Almost every head begins and ends
within one read; such a request pays for a few comparisons (1.5 us, measured) and no timer. Only a head
that is still open after a read is looked at: its bytes so far against the bound, and a timer for its
end. A new connection has the timer from the start. ``_head_bytes`` counts whole reads and thus may
include what follows the head in its last read; so a head that ends over the bound is measured again
exactly.

A refused connection is not closed at once: the kernel would answer what the client is still sending
with a reset, which can overtake our answer. It is shut for writing, drained for ``LINGER_S``, then closed.
"""

import asyncio
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from marsproxy import errors
from marsproxy.config import Listen
from marsproxy.errors import Refusal

CUT = "marsproxy.cut"
"""ASGI extension: a function in the request's scope that ends the connection in the middle of an answer."""
MAX_PIPELINED = 8
"""Requests read ahead of their turn; with more, a connection is no longer watched for its end. No client
library of the field pipelines at all."""
SILENT_GRACE_S = 1.0
"""A connection that has said nothing for so long may be closed for another: clients write their request with
the connection's first packets, also where a whole fleet connects at once."""
LINGER_S = 1.0
"""Long enough for an answer to cross the world and the client to stop, short for a flood."""


def stays() -> bool:
    """For ``is_leaving`` of a server that nobody stops."""
    return False


def limited_protocol(
    listen: Listen, *, is_leaving: Callable[[], bool] = stays
) -> type["LimitedHttpProtocol"]:
    """The protocol class to give to ``uvicorn.Config(http=...)``, which makes one object a connection.

    Args:
        is_leaving: while it is true, each connection closes after its next answer, and the answer says so.
    """
    bounds: dict[str, Any] = {
        "is_leaving": staticmethod(is_leaving),
        "max_header_bytes": listen.max_header_bytes,
        "header_timeout_s": listen.header_timeout_s,
        "max_connections": listen.max_connections,
        "silent": {},
    }
    return type("BoundHttpProtocol", (LimitedHttpProtocol,), bounds)


class LimitedHttpProtocol(HttpToolsProtocol):
    """One client connection."""

    max_header_bytes: int
    header_timeout_s: float
    max_connections: int | None
    is_leaving: Callable[[], bool]
    silent: dict["LimitedHttpProtocol", float]
    """Connections of this server that have sent nothing yet, and since when; oldest first."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._is_refused = False
        self._is_head_open = False
        self._head_bytes = 0
        self._uncounted_bytes = 0
        """Of the present read, if a head that begins in it would have to count them."""
        self._head_timer: asyncio.TimerHandle | None = None
        # Weak, or each connection would leave a cycle behind.
        self._extensions: Any = {CUT: partial(_cut, weakref.ref(self))}
        self._answering: RequestResponseCycle | None = None
        """The request that is being answered; ``cycle`` is the latest that was read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.max_connections is None:
            self._start_head_timer()
            return
        if len(self.connections) > self.max_connections:
            self._close_a_silent_one()
        if len(self.connections) > self.max_connections:
            self.connections.discard(self)  # it must not take the place of another while it lingers
            self._refuse(errors.too_many_connections(self.max_connections))
        else:
            self.silent[self] = self.loop.time()
            self._start_head_timer()

    def _close_a_silent_one(self) -> None:
        """Who opens connections and says nothing must not keep out those who have something to say."""
        oldest = next(iter(self.silent), None)
        if oldest is not None and self.loop.time() - self.silent[oldest] >= SILENT_GRACE_S:
            del self.silent[oldest]
            self.connections.discard(oldest)
            oldest.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self.silent.pop(self, None)
        if self._answering is not None and self._answering is not self.cycle:
            # uvicorn tells only the latest of several pipelined requests.
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        if self._is_head_open:
            self._head_bytes += len(data)
            self._uncounted_bytes = 0
        else:
            is_past_head = self.cycle is not None and self.cycle.more_body
            self._uncounted_bytes = 0 if is_past_head else len(data)
        super().data_received(data)
        if self._is_head_open:
            self._check_open_head()

    def on_message_begin(self) -> None:
        self._is_head_open = True
        self.silent.pop(self, None)
        self._head_bytes, self._uncounted_bytes = self._uncounted_bytes, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_head_open = False
        if self._head_timer is not None:
            self._stop_head_timer()
        if self._head_bytes > self.max_header_bytes and self._exact_head_bytes() > self.max_header_bytes:
            self._answer_instead_of_app()
        super().on_headers_complete()
        if 0 < len(self.pipeline) <= MAX_PIPELINED:
            # uvicorn stops reading here, and would not see that the client goes away.
            self.flow.resume_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        cycle.scope["extensions"] = self._extensions
        if self.is_leaving():
            cycle.keep_alive = False
        super()._start_asgi_task(cycle, app)

    def cut(self) -> None:
        """End the connection after the bytes that were sent: the client sees that an end is missing."""
        if self._answering is not None:
            # uvicorn then takes the missing end for the client's doing, and does not report it.
            self._answering.disconnected = True
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what is no HTTP, in our shape."""
        if not self._is_refused:
            self._refuse(errors.not_http())

    def _check_open_head(self) -> None:
        if self._is_refused:
            return
        if self._head_bytes > self.max_header_bytes:
            self._refuse(errors.headers_too_large(self.max_header_bytes))
        elif self._head_timer is None:
            self._start_head_timer()

    def _exact_head_bytes(self) -> int:
        """As it was sent, but for blanks around values: each header has ``": "`` and a line end."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _answer_instead_of_app(self) -> None:
        """The head is complete, so this request gets its refusal the usual way."""
        answer = errors.as_answer(errors.headers_too_large(self.max_header_bytes))

        async def refuse(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
            await send({"type": "http.response.body", "body": answer.body})

        self.app = refuse

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.header_timeout_s, self._head_overdue)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_overdue(self) -> None:
        if self._is_head_open:
            self._refuse(errors.headers_too_slow(self.header_timeout_s))
        else:
            self.transport.close()  # connected and said nothing: there is nobody to answer

    def _refuse(self, refusal: Refusal) -> None:
        """Answer outside of any request, and end the connection."""
        self._is_refused = True
        self._stop_head_timer()
        self._unset_keepalive_if_required()
        if self.cycle is not None and not self.cycle.response_complete:
            is_reading = self.cycle is self._answering and self.cycle.more_body
            if self.cycle.response_started or not is_reading:
                self.transport.close()  # ours would land inside the answer that is under way, or before it
                return
            # The body that is being read breaks off: the application need not wait for the rest of it.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        answer = errors.as_answer(refusal)
        lines = [name + b": " + value + b"\r\n" for name, value in answer.headers]
        self.transport.write(b"".join([STATUS_LINE[answer.status], *lines, b"\r\n", answer.body]))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._head_timer = self.loop.call_later(LINGER_S, self.transport.close)


def _cut(connection: "weakref.ref[LimitedHttpProtocol]") -> None:
    if (protocol := connection()) is not None:
        protocol.cut()
