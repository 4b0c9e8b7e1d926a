"""The same use of an API straight and through the proxy, and what may differ between the two.

Owns the list of documented differences. Everything that is not on it must be equal: the request as the
backend receives it, the answer as the client's socket receives it, and what the client's library makes of it.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from marsproxy.server import Server
from tests.integration.byte_backend import ByteBackend
from tests.integration.http_messages import Headers, Message
from tests.integration.tap import Tap

T = TypeVar("T")

PER_CONNECTION = {b"connection", b"keep-alive", b"transfer-encoding"}
"""Each of the two connections has its own (RFC 9110, section 7.6.1)."""
TURN_HEADERS = {b"x-vllm-priority", b"x-session-id"}
"""Added to the requests of sessions."""
USAGE_OPTION = re.compile(rb'"stream_options":\{"include_usage":(true|false)\},?')
"""Set to true in a body whose client did not ask, or said no."""


@dataclass(frozen=True)
class Seen(Generic[T]):
    """One way to the backend."""

    result: T
    """What the client's library returned."""
    requests: list[Message]
    """As the backend received them."""
    answers: list[Message]
    """As the client received them."""


@dataclass(frozen=True)
class Compared(Generic[T]):
    direct: Seen[T]
    proxied: Seen[T]

    def assert_transparent(self, *, is_turn: bool = True, asks_usage: bool = False) -> None:
        """Nothing but the documented differences.

        Args:
            is_turn: the request belongs to a session, so it is tagged.
            asks_usage: the client streams without asking for usage, so the proxy does.
        """
        self.assert_same_requests(TURN_HEADERS if is_turn else set(), asks_usage=asks_usage)
        self.assert_same_answers(is_turn=is_turn)
        assert self.proxied.result == self.direct.result

    def assert_same_requests(self, added: set[bytes], *, asks_usage: bool = False) -> None:
        assert len(self.proxied.requests) == len(self.direct.requests) > 0
        for direct, proxied in zip(self.direct.requests, self.proxied.requests, strict=True):
            assert proxied.start == direct.start
            assert added <= dict(proxied.headers).keys() - dict(direct.headers).keys()
            own = {b"host", b"content-length"} | (added - dict(direct.headers).keys())
            own |= {b"accept-encoding"} if asks_usage else set()
            assert _without(proxied.headers, own) == _without(direct.headers, own)
            assert _asks_identity(proxied) or not asks_usage
            _assert_same_body(direct, proxied, asks_usage=asks_usage)

    def assert_same_answers(self, *, is_turn: bool = True) -> None:
        assert len(self.proxied.answers) == len(self.direct.answers) > 0
        for direct, proxied in zip(self.direct.answers, self.proxied.answers, strict=True):
            assert proxied.start == direct.start
            ours = {name for name, _ in proxied.headers if name.startswith(b"x-mars-")}
            assert bool(ours) == is_turn
            assert _without(proxied.headers, ours) == _without(direct.headers, set())
            assert proxied.body == direct.body


@dataclass(frozen=True)
class Paths:
    """Two ways to one backend."""

    backend: ByteBackend
    direct: Tap
    proxied: Tap
    proxy: Server

    async def compare(self, use: Callable[[str], Awaitable[T]]) -> Compared[T]:
        """``use`` gets the base URL and may make any number of requests, over connections of its own."""
        return Compared(await self._seen(self.direct, use), await self._seen(self.proxied, use))

    async def _seen(self, tap: Tap, use: Callable[[str], Awaitable[T]]) -> Seen[T]:
        requests, connections = len(self.backend.requests), len(tap.connections)
        result = await use(tap.url)
        answers = [answer for _, answer in tap.exchanges(connections)]
        return Seen(result, self.backend.requests[requests:], answers)


def _without(headers: Headers, names: set[bytes]) -> Headers:
    return [(name, value) for name, value in headers if name not in names | PER_CONNECTION]


def _asks_identity(request: Message) -> bool:
    return request.header(b"accept-encoding") == b"identity"


def _assert_same_body(direct: Message, proxied: Message, *, asks_usage: bool) -> None:
    assert int(proxied.header(b"content-length") or 0) in (len(proxied.body), 0)
    if not asks_usage:
        assert proxied.body == direct.body
        return
    assert USAGE_OPTION.findall(proxied.body) == [b"true"]
    assert USAGE_OPTION.sub(b"", proxied.body) == USAGE_OPTION.sub(b"", direct.body)
