"""A backend that fails in every way: a clear error or an untouched answer, and nothing left behind."""

import asyncio
import gzip
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from marsproxy.config import Backend
from tests.integration import faulty_backend as faulty
from tests.integration.faulty_backend import Behaviour, Exchange, FaultyBackend, chunk, delta
from tests.integration.running import (
    RunningProxy,
    Seen,
    ask,
    ask_chat,
    assert_logs_are_clean,
    client_of,
    running_proxy,
)


@pytest.fixture(autouse=True)
def clean_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO)
    yield
    assert_logs_are_clean(caplog)


@asynccontextmanager
async def fronted(
    behaviour: Behaviour, *, reads_body: bool = True, **settings: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, FaultyBackend, RunningProxy]]:
    """A proxy before such a backend; at the end it must still serve, and nothing may be left."""
    async with (
        faulty.faulty_backend(behaviour, reads_body=reads_body) as backend,
        running_proxy(backend.url, backend=Backend(kv_tokens=10**9, **settings)) as proxy,
        client_of(proxy.url) as client,
    ):
        yield client, backend, proxy
        await proxy.until_nothing_is_left()
        backend.behaviour, backend.reads_body = faulty.answers_well, True
        after = await ask_chat(client)
        assert (after.status, after.body) == (200, faulty.UNARY)


async def seen_through(behaviour: Behaviour, **fields: Any) -> Seen:
    async with fronted(behaviour) as (client, _, _):
        return await ask_chat(client, **fields)


STREAMING = {"stream": True, "stream_options": {"include_usage": True}}


# -- answers that are odd, but answers ------------------------------------------------------------


@pytest.mark.parametrize(
    "events",
    [
        faulty.WHOLE_STREAM,
        (delta("a"), delta("b", "stop")),
        (delta("a"), b"data: {not json\n\n", faulty.DONE),
        (delta("a"), b"data: \xff\xfe\n\n", faulty.DONE),
        (delta("a"), b'data: {"error": {"message": "died", "code": 500}}\n\n', faulty.DONE),
        (b"\n\n\n\n", b"event\n", b"data" * 10_000, b"\n\n"),
        (b'data: {"choices": 7, "usage": []}\n\n', b"data: [[]]\n\n", b"data: null\n\n", faulty.DONE),
    ],
    ids=["whole", "no-usage-no-done", "no-json", "no-utf8", "error-in-the-middle", "no-sse", "wrong-types"],
)
@pytest.mark.parametrize("asks_usage", [True, False])
async def test_odd_streams_pass_untouched(events: tuple[bytes, ...], asks_usage: bool) -> None:
    """Whatever it is that the backend says: if it ends properly, it is the client's to judge."""
    fields = STREAMING if asks_usage else {"stream": True}
    seen = await seen_through(faulty.streams(*events), **fields)
    expected = b"".join(event for event in events if asks_usage or event != faulty.USAGE)
    assert (seen.status, seen.body, seen.is_whole) == (200, expected, True)


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"\xff\xfe", b'{"choices": {}}', b"[" * 100_000, faulty.UNARY[:-20]],
    ids=["empty", "text", "no-utf8", "wrong-types", "deep", "truncated"],
)
async def test_odd_answers_pass_untouched(body: bytes) -> None:
    """The same without a stream."""
    seen = await seen_through(faulty.sends(faulty.answer(body)))
    assert (seen.status, seen.body, seen.is_whole) == (200, body, True)


@pytest.mark.parametrize("status", [b"400 Bad Request", b"404 Not Found", b"500 Oh", b"503 Busy", b"599 X"])
async def test_errors_of_the_backend_pass_untouched(status: bytes) -> None:
    """They say best what is wrong."""
    body = b'{"error": {"message": "unknown model"}}'
    seen = await seen_through(faulty.sends(faulty.answer(body, b"retry-after: 7", status=status)))
    assert (seen.status, seen.body) == (int(status[:3]), body)
    assert seen.headers["retry-after"] == "7"


async def test_compressed_answers_stay_compressed() -> None:
    """Nobody decodes what was not meant for him."""
    seen = await seen_through(faulty.gzipped())
    assert seen.headers["content-encoding"] == "gzip"
    assert gzip.decompress(seen.body) == faulty.UNARY


async def test_broken_compression_passes_untouched() -> None:
    """The client asked for it."""
    broken = gzip.compress(faulty.UNARY)[:-9] + b"?"
    seen = await seen_through(faulty.sends(faulty.answer(broken, b"content-encoding: gzip")))
    assert (seen.status, seen.body) == (200, broken)


async def test_a_slow_trickle_arrives_as_it_comes() -> None:
    """Each piece reaches the client before the next is sent."""
    go_on = asyncio.Event()

    async def trickles(exchange: Exchange) -> None:
        await exchange.send(faulty.SSE_HEAD)
        for byte in faulty.WHOLE_STREAM[0]:
            await go_on.wait()
            go_on.clear()
            await exchange.send(chunk(bytes((byte,))))
        await exchange.send(*map(chunk, faulty.WHOLE_STREAM[1:]), faulty.LAST_CHUNK)

    async with fronted(trickles) as (client, _, _):
        request = client.stream(
            "POST", "/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]} | STREAMING
        )
        body = b""
        async with request as answer:
            go_on.set()
            async for piece in answer.aiter_raw():
                body += piece
                go_on.set()
        assert body == b"".join(faulty.WHOLE_STREAM)


async def test_an_interim_answer_is_no_answer() -> None:
    """100 Continue and 103 Early Hints come before the answer."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    seen = await seen_through(faulty.sends(interim, faulty.answer()))
    assert (seen.status, seen.body) == (200, faulty.UNARY)


@pytest.mark.parametrize(
    ("head", "method", "status"),
    [
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 12\r\netag: x\r\n\r\n", "GET", 304),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "GET", 204),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n", "HEAD", 200),
    ],
    ids=["304", "204", "head"],
)
async def test_answers_without_a_body(head: bytes, method: str, status: int) -> None:
    """Even where a length is announced."""
    async with fronted(faulty.sends(head)) as (client, _, _):
        seen = await ask(client, method, "/static/thing")
        assert (seen.status, seen.body, seen.is_whole) == (status, b"", True)


# -- answers that break off -----------------------------------------------------------------------


def breaks_off(*parts: bytes, hard: bool = False) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.send(*parts)
        await asyncio.sleep(0.02)
        if hard:
            exchange.reset()
        else:
            exchange.writer.close()

    return behave


PARTS: dict[str, tuple[bytes, ...]] = {
    "half an event": (faulty.SSE_HEAD, chunk(delta("one ")), chunk(delta("two")[:30])),
    "after the finish reason": (faulty.SSE_HEAD, chunk(delta("two", "stop"))),
    "half a chunk": (faulty.SSE_HEAD, chunk(delta("one "))[:-10]),
    "no chunk": (faulty.SSE_HEAD,),
    "short of its length": (faulty.answer()[:-30],),
    "no byte of its length": (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n",),
}


@pytest.mark.parametrize("hard", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS.keys())
async def test_a_part_is_never_the_whole(part: tuple[bytes, ...], hard: bool) -> None:
    """The client gets the bytes that came, and then a connection that is cut, not ended."""
    seen = await seen_through(breaks_off(*part, hard=hard), **STREAMING)
    sent = b"".join(part).partition(b"\r\n\r\n")[2]
    assert (seen.status, seen.is_whole) == (200, False)
    assert len(seen.body) <= len(sent)


async def test_a_part_of_an_untracked_answer_is_cut_too() -> None:
    """On routes that nobody follows."""
    async with fronted(breaks_off(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")) as (client, _, _):
        seen = await ask(client, "GET", "/v1/models")
        assert (seen.status, seen.body, seen.is_whole) == (200, b"half", False)


async def test_malformed_framing_is_cut() -> None:
    """What cannot be read any further cannot be passed on as an end."""

    async def stumbles(exchange: Exchange) -> None:
        await exchange.send(faulty.SSE_HEAD, chunk(delta("one ")))
        await asyncio.sleep(0.02)
        await exchange.send(b"what size is this\r\n")

    seen = await seen_through(stumbles, **STREAMING)
    assert (seen.status, seen.body, seen.is_whole) == (200, delta("one "), False)


async def test_what_follows_the_length_is_not_the_answers() -> None:
    """It cannot be the next request's answer either."""
    async with fronted(faulty.sends(faulty.answer() + b"HTTP/1.1 200 OK\r\n\r\nevil")) as (client, _, _):
        for _ in range(3):
            seen = await ask_chat(client)
            assert (seen.status, seen.body, seen.is_whole) == (200, faulty.UNARY, True)


async def test_the_cut_is_told_once_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """One line that names the backend; no traceback (every test here checks that)."""
    async with fronted(breaks_off(*PARTS["half an event"])) as (client, backend, _):
        await ask_chat(client, **STREAMING)
        told = [r.getMessage() for r in caplog.records if r.name == "marsproxy.relay"]
        assert len(told) == 1
        assert f"{backend.url}: broke off" in told[0]


# -- no answer ------------------------------------------------------------------------------------


async def test_refused_connections() -> None:
    """502 in OpenAI's shape, naming the backend."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    async with running_proxy(url) as proxy, client_of(proxy.url) as client:
        for path in ("/v1/chat/completions", "/v1/embeddings"):
            seen = await ask(client, "POST", path, json={"messages": []})
            assert (seen.status, seen.code) == (502, "backend_unreachable")
            assert url.encode() in seen.body
        assert seen.headers["x-mars-reason"] == "backend_unreachable"
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200
        await proxy.until_nothing_is_left()


async def test_a_backend_that_does_not_accept() -> None:
    """504 after the connect timeout."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:  # fill the backlog: the kernel then drops what comes
            each.setblocking(False)
            each.connect_ex(address)
        settings = Backend(connect_timeout_s=0.2, telemetry_timeout_s=0.2)
        async with running_proxy(f"http://127.0.0.1:{address[1]}", backend=settings) as proxy:
            async with client_of(proxy.url) as client:
                seen = await ask_chat(client)
            assert (seen.status, seen.code) == (504, "backend_timeout")
            await proxy.until_nothing_is_left()
        for each in waiting:
            each.close()


async def test_a_silent_backend() -> None:
    """504 after the read timeout."""
    async with fronted(faulty.is_silent, read_timeout_s=0.2) as (client, backend, proxy):
        seen = await ask_chat(client)
        assert (seen.status, seen.code) == (504, "backend_timeout")
        await proxy.until(lambda: backend.lost == 1)


async def test_a_backend_that_falls_silent() -> None:
    """In the middle of a stream only the connection can tell."""

    async def falls_silent(exchange: Exchange) -> None:
        await exchange.send(faulty.SSE_HEAD, chunk(delta("one ")))
        await asyncio.Event().wait()

    async with fronted(falls_silent, read_timeout_s=0.2) as (client, _, _):
        seen = await ask_chat(client, **STREAMING)
        assert (seen.status, seen.body, seen.is_whole) == (200, delta("one "), False)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"HTTP/1.1 999 What\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 099 What\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: twelve\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad name: 1\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx-bad: a\x00b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx-bad: a\x01b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_no_answer(reply: bytes) -> None:
    """502 that names the backend, never a 500 of our own; where it can be understood after all, fine."""
    async with fronted(faulty.sends(reply, ends=True)) as (client, backend, _):
        seen = await ask_chat(client)
        assert (seen.status, seen.code) == (502, "backend_unreachable")
        assert backend.url.encode() in seen.body


# -- connections that were just closed ------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
@pytest.mark.parametrize("hard", [False, True], ids=["closed", "reset"])
async def test_a_stale_connection_costs_one_retry(path: str, hard: bool) -> None:
    """The backend closed an idle connection as the request was on its way: the client sees nothing."""

    async def answers_once(exchange: Exchange) -> None:
        if exchange.number_on_connection == 1:
            await faulty.answers_well(exchange)
        elif hard:
            exchange.reset()
        else:
            exchange.writer.close()

    async with fronted(answers_once) as (client, backend, proxy):
        for _ in range(3):
            seen = await ask(client, "POST", path, json={"messages": [{"role": "user", "content": "x"}]})
            assert (seen.status, seen.body) == (200, faulty.UNARY)
        [upstream] = (backend.upstream for backend in proxy.proxy.backends)
        assert (upstream.retries_total, backend.connections, len(backend.requests)) == (2, 3, 5)


async def test_several_stale_connections() -> None:
    """Each is tried once."""
    are_all_there = asyncio.Event()

    async def answers_first_on_connection(exchange: Exchange) -> None:
        if exchange.number_on_connection > 1:
            exchange.writer.close()
            return
        if exchange.number == 4:
            are_all_there.set()
        await are_all_there.wait()
        await faulty.answers_well(exchange)

    async with fronted(answers_first_on_connection) as (client, backend, proxy):
        await asyncio.gather(*(ask_chat(client) for _ in range(4)))
        assert (await ask_chat(client)).status == 200
        [upstream] = (backend.upstream for backend in proxy.proxy.backends)
        assert (upstream.retries_total, backend.connections, len(backend.requests)) == (4, 5, 9)


async def test_a_new_connection_that_breaks_is_not_retried() -> None:
    """The backend may have begun to work on it."""
    async with fronted(faulty.resets) as (client, backend, _):
        assert (await ask_chat(client)).status == 502
        assert len(backend.requests) == 1


# -- bodies on their way ---------------------------------------------------------------------------


async def upload(size: int, piece: bytes = b"x" * 65_536) -> AsyncIterator[bytes]:
    for _ in range(size // len(piece)):
        yield piece


async def test_an_answer_before_the_body_was_read() -> None:
    """It is passed on, and the connections stay usable."""
    async with fronted(
        faulty.sends(faulty.answer(b"{}", b"connection: close", status=b"413 Too Large"), ends=True),
        reads_body=False,
    ) as (client, _, proxy):
        seen = await ask(client, "POST", "/v1/audio/transcriptions", content=upload(8 << 20))
        assert seen.status in (413, 502)  # a reset may overtake the backend's answer
        await proxy.until_nothing_is_left()


async def test_an_upload_streams_through() -> None:
    """Not held in memory, not retried."""
    sizes: list[int] = []

    async def measures(exchange: Exchange) -> None:
        sizes.append(len(exchange.body))
        await faulty.answers_well(exchange)

    async with fronted(measures) as (client, _, _):
        seen = await ask(client, "POST", "/v1/audio/transcriptions", content=upload(4 << 20))
        assert (seen.status, sizes) == (200, [4 << 20])


async def test_an_upload_to_a_backend_that_is_gone() -> None:
    """A body is not sent twice."""
    async with fronted(faulty.resets, reads_body=False) as (client, backend, _):
        seen = await ask(client, "POST", "/v1/audio/transcriptions", content=upload(4 << 20))
        assert (seen.status, seen.code) == (502, "backend_unreachable")
        assert len(backend.requests) == 1
