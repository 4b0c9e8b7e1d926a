"""A turn is over before its client can know it: the next one may come at once, over another connection."""

import asyncio
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from marsproxy.server import Proxy
from tests.integration import fleet_answers
from tests.integration.fleet_answers import Answer
from tests.integration.fleet_proxy import proxy_in_front_of
from tests.loadgen.upstream import Fake, begin, more, serving

CHAT = "/v1/chat/completions"


@dataclass
class OneAnswer(Fake):
    """Says the same to everybody, in pieces and without a length."""

    is_stream: bool = False
    has_length: bool = False

    async def answer(self, method: str, path: str, headers: dict[str, str], body: bytes, send: Any) -> None:
        answer = Answer("1", "I look.")
        content = fleet_answers.stream(CHAT, answer)
        kind = {"content-type": "text/event-stream"}
        if not self.is_stream:
            content = msgspec.json.encode(fleet_answers.body(CHAT, answer))
            kind = {"content-type": "application/json"}
        await begin(send, 200, kind | ({"content-length": str(len(content))} if self.has_length else {}))
        await more(send, content[:20])
        await asyncio.sleep(0.02)  # so that the two arrive as two
        await more(send, content[20:])
        await send({"type": "http.response.body", "body": b""})


@dataclass
class WatchingClient:
    """One request at the proxy's door, without a network to come late; notes with every piece of its answer
    how many turns are open."""

    proxy: Proxy
    pieces: list[tuple[bool, int]] = field(default_factory=list)
    """Whether it has bytes, and the count."""
    _is_asked: bool = False

    async def ask(self) -> None:
        scope = {"type": "http", "method": "POST", "path": CHAT, "query_string": b"", "headers": []}
        await self.proxy.app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if self._is_asked:
            await asyncio.Event().wait()
        self._is_asked = True
        return {"type": "http.request", "body": b'{"messages": [{"role": "user", "content": "hi"}]}'}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            self.pieces.append((message["body"] != b"", self.proxy.dispatcher.open_turns))


@pytest.mark.parametrize(
    ("is_stream", "has_length"), [(True, False), (True, True), (False, False), (False, True)]
)
async def test_the_turn_is_over_when_its_last_bytes_go_out(is_stream: bool, has_length: bool) -> None:
    with serving(OneAnswer(is_stream=is_stream, has_length=has_length)) as model:
        async with proxy_in_front_of(model.url) as server:
            client = WatchingClient(server.proxy)
            await client.ask()
    assert client.pieces[0] == (True, 1)
    *_, last_bytes, end = client.pieces
    # Without a length an answer that is no stream is complete when the server says so.
    assert (last_bytes if is_stream or has_length else end) == (is_stream or has_length, 0)
