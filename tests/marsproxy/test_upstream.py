"""The connections to one backend, against real sockets that misbehave."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import pytest

from marsproxy.upstream import Upstream, UpstreamBroke, UpstreamSilent, UpstreamUnreachable
from tests.integration import faulty_backend as faulty
from tests.integration.faulty_backend import Behaviour, Exchange, FaultyBackend


@asynccontextmanager
async def upstream_of(
    behaviour: Behaviour, read_timeout_s: float | None = 5.0, *, reads_body: bool = True
) -> AsyncIterator[tuple[Upstream, FaultyBackend]]:
    """At the end no answer may be open, nor a connection in use."""
    async with faulty.faulty_backend(behaviour, reads_body=reads_body) as backend:
        upstream = Upstream(
            "gpu", backend.url, connect_timeout_s=1.0, read_timeout_s=read_timeout_s, keepalive_s=4.0
        )
        await upstream.open()
        try:
            yield upstream, backend
            assert upstream.open_answers == 0
        finally:
            await upstream.close()


async def fetch(upstream: Upstream, body: bytes | AsyncIterator[bytes] | None = b"{}") -> tuple[int, bytes]:
    answer = await upstream.send("POST", "/v1/x?a=%20", [(b"x-mine", b"\xe4")], body)
    try:
        return answer.status, b"".join([chunk async for chunk in answer.chunks()])
    finally:
        answer.close()


async def test_head_and_body_come_back_as_they_are() -> None:
    """But for what belongs to the connection."""
    headers = (
        b"X-Odd: \xe4 b",
        b"Set-Cookie: a",
        b"Set-Cookie: b",
        b"Keep-Alive: 5",
        b"Connection: keep-alive",
    )
    async with upstream_of(faulty.sends(faulty.answer(b"x", *headers))) as (upstream, backend):
        answer = await upstream.send("GET", "/a//b/../c?x=%zz", [], None)
        assert answer.headers == [
            (b"content-type", b"application/json"),
            (b"content-length", b"1"),
            (b"x-odd", b"\xe4 b"),
            (b"set-cookie", b"a"),
            (b"set-cookie", b"b"),
        ]
        assert [chunk async for chunk in answer.chunks()] == [b"x"]
        answer.close()
        answer.close()
        assert backend.requests[0].split(b"\r\n")[0] == b"GET /a//b/../c?x=%zz HTTP/1.1"
        assert b"user-agent" not in backend.requests[0].lower()


async def test_a_connection_is_used_again() -> None:
    """If the answer was read to its end."""
    async with upstream_of(faulty.answers_well) as (upstream, backend):
        for _ in range(3):
            assert await fetch(upstream) == (200, faulty.UNARY)
        assert (backend.connections, upstream.retries_total) == (1, 0)


async def test_an_answer_that_is_not_read_ends_its_connection() -> None:
    """So the backend stops working on it."""

    async def streams(exchange: Exchange) -> None:
        await exchange.send(faulty.SSE_HEAD, faulty.chunk(faulty.delta()))
        await asyncio.Event().wait()

    async with upstream_of(streams) as (upstream, backend):
        answer = await upstream.send("POST", "/", [], b"{}")
        answer.close()
        async with asyncio.timeout(5):
            while not backend.lost:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@pytest.mark.parametrize("moment", ["head", "chunk"])
async def test_a_cancelled_wait_ends_its_connection(moment: str) -> None:
    """At each await."""

    async def stops(exchange: Exchange) -> None:
        if moment == "chunk":
            await exchange.send(faulty.SSE_HEAD)
        await asyncio.Event().wait()

    async with upstream_of(stops) as (upstream, backend):
        fetching = asyncio.get_running_loop().create_task(fetch(upstream))
        async with asyncio.timeout(5):
            while not backend.requests:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.02)
            fetching.cancel()
            await asyncio.wait((fetching,))
            while not backend.lost:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@contextmanager
def deaf_server() -> Iterator[str]:
    """Its kernel queue is full: a connection to it is neither accepted nor refused."""
    with ExitStack() as sockets:
        listening = sockets.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(3):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


async def test_a_cancelled_connect_leaves_nothing() -> None:
    """Given up while nobody answers at all."""
    with deaf_server() as url:
        upstream = Upstream("gpu", url, connect_timeout_s=5, read_timeout_s=None, keepalive_s=4.0)
        await upstream.open()
        fetching = asyncio.get_running_loop().create_task(fetch(upstream))
        await asyncio.sleep(0.02)
        assert not fetching.done()
        fetching.cancel()
        await asyncio.wait((fetching,))
        assert upstream.open_answers == 0
        await upstream.close()


class Counted:
    """What the metrics are told."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def connected(self, took_s: float) -> None:
        assert took_s > 0
        self.seen.append("connected")

    def retried(self) -> None:
        self.seen.append("retried")

    def aborted(self) -> None:
        self.seen.append("aborted")


@pytest.mark.parametrize(
    ("behaviour", "seen"),
    [
        (faulty.answers_well, ["connected"]),
        (faulty.sends(faulty.SSE_HEAD, faulty.chunk(b"x")), ["connected", "aborted", "connected", "aborted"]),
    ],
)
async def test_connections_and_aborts_are_told_of(behaviour: Behaviour, seen: list[str]) -> None:
    """A connection that is used again counts once; an answer left before its end costs its connection."""
    events = Counted()
    async with faulty.faulty_backend(behaviour) as backend:
        upstream = Upstream(
            "gpu", backend.url, connect_timeout_s=1, read_timeout_s=5, keepalive_s=4.0, events=events
        )
        await upstream.open()
        for _ in range(2):
            answer = await upstream.send("POST", "/v1/x", [], b"{}")
            async for _chunk in answer.chunks():
                break
            answer.close()
        await upstream.close()
    assert events.seen == seen


async def test_framing_that_breaks_later_is_noticed() -> None:
    """With no timeout that would end the wait."""

    async def stumbles(exchange: Exchange) -> None:
        await exchange.send(faulty.SSE_HEAD, faulty.chunk(b"x"))
        await asyncio.sleep(0.02)
        await exchange.send(b"no size\r\n")

    async with upstream_of(stumbles, read_timeout_s=None) as (upstream, _), asyncio.timeout(5):
        with pytest.raises(UpstreamBroke):
            await fetch(upstream)


class BodyFailed(Exception):
    pass


async def test_a_body_that_fails_fails_as_itself() -> None:
    """It is not the backend's fault."""

    async def body() -> AsyncIterator[bytes]:
        yield b"some"
        raise BodyFailed

    async with upstream_of(faulty.is_silent) as (upstream, _):
        with pytest.raises(BodyFailed):
            await fetch(upstream, body())


async def test_large_bodies() -> None:
    """As bytes and as a stream."""
    sizes = []

    async def measures(exchange: Exchange) -> None:
        sizes.append(len(exchange.body))
        await faulty.answers_well(exchange)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(32):
            yield b"x" * (1 << 16)

    async with upstream_of(measures) as (upstream, _):
        await fetch(upstream, b"x" * (2 << 20))
        await fetch(upstream, body())
        assert sizes == [2 << 20] * 2


async def test_credentials_in_the_url_replace_the_clients() -> None:
    """One request cannot have both."""
    async with faulty.faulty_backend(faulty.answers_well) as backend:
        url = backend.url.replace("http://", "http://user:secret@")
        upstream = Upstream("gpu", url, connect_timeout_s=1.0, read_timeout_s=5.0, keepalive_s=4.0)
        await upstream.open()
        answer = await upstream.send("GET", "/", [(b"authorization", b"Bearer mine")], None)
        answer.close()
        await upstream.close()
        assert b"authorization: basic dxnlcjpzzwnyzxq=" in backend.requests[0].lower()
        assert b"Bearer mine" not in backend.requests[0]


async def test_a_stream_is_not_sent_twice() -> None:
    """A stale connection may have taken some of it."""

    async def answers_once(exchange: Exchange) -> None:
        if exchange.number_on_connection > 1:
            exchange.writer.close()
        else:
            await faulty.answers_well(exchange)

    async def body() -> AsyncIterator[bytes]:
        yield b"x"

    async with upstream_of(answers_once) as (upstream, backend):
        await fetch(upstream)
        with pytest.raises(UpstreamUnreachable):
            await fetch(upstream, body())
        assert (len(backend.requests), upstream.retries_total) == (2, 0)


async def test_the_first_bytes_can_be_waited_for() -> None:
    """And come again with the rest; a head without a body has none."""
    async with upstream_of(faulty.sends(faulty.answer(b"x" * 100))) as (upstream, _):
        answer = await upstream.send("GET", "/", [], None)
        await answer.begin()
        assert b"".join([chunk async for chunk in answer.chunks()]) == b"x" * 100
        answer.close()
    async with upstream_of(faulty.sends(faulty.SSE_HEAD, ends=True)) as (upstream, _):
        answer = await upstream.send("GET", "/", [], None)
        with pytest.raises(UpstreamBroke):
            await answer.begin()
        answer.close()


async def test_silence_in_an_answer_is_told_from_a_broken_one() -> None:
    """Whoever is silent may be at work."""
    async with upstream_of(faulty.sends(faulty.SSE_HEAD), read_timeout_s=0.1) as (upstream, _):
        answer = await upstream.send("GET", "/", [], None)
        with pytest.raises(UpstreamSilent):
            await answer.begin()
        answer.close()


async def test_whether_a_request_may_have_begun() -> None:
    """Not without a connection."""
    async with upstream_of(faulty.resets) as (upstream, _):
        with pytest.raises(UpstreamUnreachable) as reset:
            await upstream.send("GET", "/", [], None)
    nobody = Upstream("gpu", "http://127.0.0.1:1", connect_timeout_s=1.0, read_timeout_s=1.0, keepalive_s=1.0)
    await nobody.open()
    with pytest.raises(UpstreamUnreachable) as refused:
        await nobody.send("GET", "/", [], None)
    await nobody.close()
    assert (reset.value.may_have_begun, refused.value.may_have_begun) == (True, False)


async def test_it_is_idle_when_the_last_answer_is_closed() -> None:
    """From the start, and again."""
    async with upstream_of(faulty.sends(faulty.answer())) as (upstream, _):
        await upstream.until_idle()
        answer = await upstream.send("GET", "/", [], None)
        waiting = asyncio.get_running_loop().create_task(upstream.until_idle())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        answer.close()
        await waiting
