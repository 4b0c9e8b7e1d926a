"""Clients that go away at any moment: everything they held is given back, at once."""

import asyncio
import json
import logging
import random
import statistics
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field

import httpx
import pytest

from marsproxy.config import Backend, Hold, Stop
from marsproxy.core.settings import AdmissionSettings
from tests.integration import faulty_backend as faulty
from tests.integration.faulty_backend import Exchange, chunk, delta
from tests.integration.running import (
    RunningProxy,
    assert_logs_are_clean,
    chat,
    client_of,
    running_engine,
    running_proxy,
)

log = logging.getLogger(__name__)

CLIENTS = 1000
LEAVE_WITHIN_S = 3.0
PATIENT_EVERY, MAX_PATIENCE_S = 5, 60.0
ANSWER_TOKENS = 4000
"""About 40 s of the modelled engine: nobody stays to the end."""
MAX_ABORT_S = 2.0
"""Against a hang, not a measurement: clients, engine, proxy and tap share one event loop, and the machine is
shared too. Alone on two cores the median is 1 to 2 ms; the goal is 100 ms."""


@dataclass
class Tap:
    """Passes connections on to the engine, and notes when the proxy ends one."""

    engine: tuple[str, int]
    url: str = ""
    ended_s: dict[int, float] = field(default_factory=dict)
    """By the number that the client gave itself in a header."""
    begun: defaultdict[int, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    """Requests that the proxy has sent on."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        with suppress(asyncio.CancelledError, ConnectionError):
            engine_reader, engine_writer = await asyncio.open_connection(*self.engine)
            with closing(writer), closing(engine_writer):
                async with asyncio.TaskGroup() as tasks:
                    answers = tasks.create_task(_pump(engine_reader, writer))
                    await self._requests(reader, engine_writer)
                    answers.cancel()
        self.tasks.discard(task)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = None
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                if b"\r\nx-client: " in data:
                    number = int(data.split(b"\r\nx-client: ")[1].split(b"\r\n")[0])
                    self.begun[number].set()
                writer.write(data)
        if number is not None:
            self.ended_s[number] = asyncio.get_running_loop().time()
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
    writer.close()


@asynccontextmanager
async def tapped(url: str) -> AsyncIterator[Tap]:
    parts = httpx.URL(url)
    assert parts.port is not None
    tap = Tap((parts.host, parts.port))
    async with await asyncio.start_server(tap.serve, "127.0.0.1", 0, backlog=CLIENTS) as server:
        tap.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield tap
        finally:
            for task in list(tap.tasks):
                task.cancel()
            await asyncio.gather(*tap.tasks, return_exceptions=True)


async def come_and_go(proxy_url: str, tap: Tap, number: int, rng: random.Random) -> float:
    """One client; returns when it left. Some leave only once they are being answered: on a busy machine the
    others may all be gone before."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(rng.uniform(0, LEAVE_WITHIN_S / 3))
    stays_s = rng.uniform(0, LEAVE_WITHIN_S)
    parts = httpx.URL(proxy_url)
    reader, writer = await asyncio.open_connection(parts.host, parts.port)
    fields = {"stream": rng.random() < 0.5, "max_tokens": ANSWER_TOKENS, "ignore_eos": True}
    body = json.dumps(chat(f"client {number}", **fields, model="qwen3-30b-a3b")).encode()
    headers = f"content-type: application/json\r\nx-client: {number}\r\ncontent-length: {len(body)}"
    request = f"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\n{headers}\r\n\r\n".encode() + body
    sent = rng.choice((len(request), len(request), len(request), len(request) - 20, 40))
    writer.write(request[:sent])
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(stays_s):
            while await reader.read(65_536):
                pass
    if number % PATIENT_EVERY == 0 and sent == len(request):
        with suppress(TimeoutError):
            async with asyncio.timeout(MAX_PATIENCE_S):
                await tap.begun[number].wait()
    if rng.random() < 0.5:
        writer.transport.abort()
    else:
        writer.close()
    return loop.time()


async def measure_ticks(ticks_s: list[float]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        started_s = loop.time()
        await asyncio.sleep(0.01)
        ticks_s.append(loop.time() - started_s)


@pytest.mark.slow
async def test_a_thousand_clients_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    """Held and running, streaming and not, in the middle of their requests or of their answers."""
    rng = random.Random(20_260)
    ticks_s: list[float] = []
    async with (
        running_engine(kv_tokens=400_000, speed=1.0) as (engine_url, engine),
        tapped(engine_url) as tap,
        running_proxy(tap.url, hold=Hold(sse_comment_interval_s=0.2)) as proxy,
        asyncio.TaskGroup() as tasks,
    ):
        ticking = tasks.create_task(measure_ticks(ticks_s))
        clients = [
            tasks.create_task(come_and_go(proxy.url, tap, number, random.Random(rng.random())))
            for number in range(CLIENTS)
        ]
        await proxy.until(lambda: proxy.leftovers().get("held turns", 0) > CLIENTS / 10)
        left_s = dict(enumerate(await asyncio.gather(*clients)))
        await proxy.until_nothing_is_left()
        assert proxy.counted_sessions == 0
        await proxy.until(lambda: not engine.engine.scheduler.running and not engine.engine.scheduler.waiting)
        assert engine.engine.scheduler.kv_used_ratio == 0
        await proxy.until(lambda: len(tap.tasks) <= 1)  # telemetry's own connection
        ticking.cancel()
    aborts_s = [ended_s - left_s[number] for number, ended_s in tap.ended_s.items()]
    assert len(aborts_s) > CLIENTS / 20
    median_s, tick_s = statistics.median(aborts_s), statistics.median(ticks_s)
    log.info(
        "%d upstream requests aborted: median %.1f ms, worst %.1f ms; a tick of 10 ms took %.1f ms",
        *(len(aborts_s), median_s * 1000, max(aborts_s) * 1000, tick_s * 1000),
    )
    assert median_s < max(MAX_ABORT_S, 5 * tick_s)
    assert_logs_are_clean(caplog)


# -- each moment by itself ------------------------------------------------------------------------


async def is_silent(exchange: Exchange) -> None:
    await asyncio.Event().wait()


async def stops_in_the_middle(exchange: Exchange) -> None:
    await exchange.send(faulty.SSE_HEAD, chunk(delta("one ")))
    await asyncio.Event().wait()


async def floods(exchange: Exchange) -> None:
    await exchange.send(faulty.SSE_HEAD)
    while True:
        await exchange.send(chunk(delta("x" * 60_000)))


async def leave(writer: asyncio.StreamWriter, how: str) -> None:
    if how == "reset":
        writer.transport.abort()
    else:
        writer.close()


async def open_request(
    proxy: RunningProxy, path: str, body: bytes, length: int | None = None
) -> asyncio.StreamWriter:
    parts = httpx.URL(proxy.url)
    reader, writer = await asyncio.open_connection(parts.host, parts.port)
    reader._transport.pause_reading()  # type: ignore[attr-defined] # a client that never reads
    size = len(body) if length is None else length
    writer.write(b"POST %s HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%s" % (path.encode(), size, body))
    await writer.drain()
    return writer


BODY = json.dumps(chat(stream=True)).encode()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
@pytest.mark.parametrize("behaviour", [is_silent, stops_in_the_middle, floods])
async def test_a_client_that_leaves_ends_its_upstream_request(
    behaviour: faulty.Behaviour, path: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """While the head is awaited, between two chunks, and while the client reads too slowly."""
    async with (
        faulty.faulty_backend(behaviour) as backend,
        running_proxy(backend.url, backend=Backend(kv_tokens=10**9)) as proxy,
    ):
        writer = await open_request(proxy, path, BODY)
        await proxy.until(lambda: len(backend.requests) == 1)
        await asyncio.sleep(0.05)
        await leave(writer, how)
        await proxy.until(lambda: backend.lost == 1)
        await proxy.until_nothing_is_left()
        assert proxy.counted_sessions == 0
    assert_logs_are_clean(caplog)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/v1/files", "/finish_session"])
async def test_a_client_that_leaves_in_the_middle_of_its_body(
    path: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Read whole, streamed, or for a route of the proxy's own."""
    length = 4 << 20 if path == "/v1/files" else 1000
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        running_proxy(backend.url, backend=Backend(kv_tokens=10**9)) as proxy,
    ):
        writer = await open_request(proxy, path, b"{", length)
        await proxy.until(lambda: bool(proxy.leftovers()))
        await leave(writer, how)
        await proxy.until_nothing_is_left()
        async with client_of(proxy.url) as client:
            page = (await client.get("/metrics")).text
        assert "backend_unreachable" not in page  # it is not the backend that failed
    assert_logs_are_clean(caplog)


async def test_a_client_that_leaves_after_a_streamed_upload() -> None:
    """Its answer is still being worked on."""
    async with (
        faulty.faulty_backend(is_silent) as backend,
        running_proxy(backend.url, backend=Backend(kv_tokens=10**9)) as proxy,
    ):
        writer = await open_request(proxy, "/v1/files", b"x" * (2 << 20))
        await proxy.until(lambda: len(backend.requests) == 1)
        await asyncio.sleep(0.1)
        writer.close()
        await proxy.until(lambda: backend.lost == 1)
        await proxy.until_nothing_is_left()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_held_client_that_leaves_makes_room_in_the_queue(stream: bool, how: str) -> None:
    """Before and after it was shown signs of life."""
    body = json.dumps(chat("second", stream=stream)).encode()
    async with (
        faulty.faulty_backend(is_silent) as backend,
        running_proxy(
            backend.url,
            admission=AdmissionSettings(fallback_concurrency=1, max_held_turns=1),
            hold=Hold(sse_comment_interval_s=0.05),
        ) as proxy,
    ):
        first = await open_request(proxy, "/v1/chat/completions", BODY)
        await proxy.until(lambda: len(backend.requests) == 1)
        for wait_s in (0.0, 0.15):
            second = await open_request(proxy, "/v1/chat/completions", body)
            await proxy.until(lambda: proxy.leftovers().get("held turns") == 1)
            await asyncio.sleep(wait_s)
            await leave(second, how)
            await proxy.until(lambda: "held turns" not in proxy.leftovers())
        first.close()
        await proxy.until_nothing_is_left()
        assert len(backend.requests) == 1
        assert proxy.counted_sessions == 0


async def test_a_client_that_pipelined_and_left() -> None:
    """The request under way is given up, though another was read after it."""
    async with (
        faulty.faulty_backend(stops_in_the_middle) as backend,
        running_proxy(backend.url, backend=Backend(kv_tokens=10**9)) as proxy,
    ):
        writer = await open_request(proxy, "/v1/chat/completions", BODY)
        await proxy.until(lambda: len(backend.requests) == 1)
        writer.write(b"GET /v1/models HTTP/1.1\r\nhost: h\r\n\r\n")
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await proxy.until(lambda: backend.lost == 1)
        await proxy.until_nothing_is_left()


async def test_a_stopping_proxy_gives_up_what_is_under_way(caplog: pytest.LogCaptureFixture) -> None:
    """After its patience, without a word in the log for each."""
    async with faulty.faulty_backend(stops_in_the_middle) as backend:
        unmeasured = Backend(kv_tokens=10**9)
        async with running_proxy(backend.url, backend=unmeasured, stop=Stop(grace_s=0)) as proxy:
            writers = [await open_request(proxy, "/v1/chat/completions", BODY) for _ in range(5)]
            await proxy.until(lambda: len(backend.requests) == 5)
        assert proxy.leftovers() == {"tasks": -1}  # those that run beside requests are gone too
        assert proxy.proxy.backends.tasks == 0
        for writer in writers:
            writer.close()
    records = [r for r in caplog.get_records("call") if r.exc_info]
    assert records == []
