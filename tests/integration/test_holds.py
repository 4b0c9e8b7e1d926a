"""Turns that wait: signs of life, the answer in the end, or a refusal that client libraries understand."""

import asyncio
import json
import logging
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from marsproxy.children import READY
from marsproxy.config import Hold
from marsproxy.core.settings import AdmissionSettings
from tests.integration import faulty_backend as faulty
from tests.integration.faulty_backend import Exchange
from tests.integration.running import (
    HANG_S,
    RunningProxy,
    ask,
    ask_chat,
    assert_logs_are_clean,
    chat,
    client_of,
    running_proxy,
)

COMMENT = b": held\n\n"
HELD_CONNECTIONS = 2000
MAX_RSS_MB = 300


@pytest.fixture(autouse=True)
def clean_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO)
    yield
    assert_logs_are_clean(caplog)


@asynccontextmanager
async def one_place(
    then: faulty.Behaviour = faulty.answers_well, **admission: Any
) -> AsyncIterator[tuple[RunningProxy, asyncio.Event]]:
    """A proxy whose only place is taken until the event is set; ``then`` answers everybody else."""
    go_on = asyncio.Event()

    async def waits_first(exchange: Exchange) -> None:
        if exchange.number == 1:
            await go_on.wait()
            await faulty.answers_well(exchange)
        else:
            await then(exchange)

    async with (
        faulty.faulty_backend(waits_first) as backend,
        running_proxy(
            backend.url,
            admission=AdmissionSettings(fallback_concurrency=1, idle_gap_s=0.0, **admission),
            hold=Hold(sse_comment_interval_s=0.05),
        ) as proxy,
        client_of(proxy.url) as client,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(ask_chat(client))
        await proxy.until(lambda: len(backend.requests) == 1)
        try:
            yield proxy, go_on
        finally:
            go_on.set()
        await proxy.until_nothing_is_left()


def without_comments(body: bytes) -> bytes:
    return re.sub(rb"^:.*\n\n", b"", body, flags=re.MULTILINE)


@pytest.mark.parametrize("asks_usage", [True, False])
async def test_a_held_stream_is_kept_alive_and_then_answered(asks_usage: bool) -> None:
    """Comments, and after them the backend's bytes, in an answer that says that it was held."""
    fields: dict[str, Any] = {"stream_options": {"include_usage": True}} if asks_usage else {}
    async with one_place() as (proxy, go_on), client_of(proxy.url) as client:
        request = client.stream("POST", "/v1/chat/completions", json=chat("held", stream=True, **fields))
        body = b""
        async with request as answer:
            async for piece in answer.aiter_raw():
                body += piece
                if body.count(COMMENT) == 3:
                    go_on.set()
        assert answer.headers["x-mars-decision"] == "held"
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [event for event in faulty.WHOLE_STREAM if asks_usage or event != faulty.USAGE]
        assert without_comments(body) == b"".join(events)
        assert body.startswith(COMMENT)
        assert re.search(rb"^: held_ms=[1-9]\d+\n\n", body, re.MULTILINE)


async def test_a_held_unary_request_waits_in_silence() -> None:
    """It has nothing to show before its answer, which says how long it took."""
    async with one_place() as (proxy, go_on), client_of(proxy.url) as client:
        held = asyncio.get_running_loop().create_task(ask_chat(client, user="held"))
        await proxy.until(lambda: proxy.leftovers().get("held turns") == 1)
        await asyncio.sleep(0.1)
        go_on.set()
        seen = await held
        assert (seen.status, seen.body) == (200, faulty.UNARY)
        assert int(seen.headers["x-mars-held-ms"]) >= 90


async def test_an_error_of_the_backend_after_comments_is_an_event() -> None:
    """The status is gone by then."""
    error = b'{"error":{"message":"unknown model","code":404}}'
    refuses = faulty.sends(faulty.answer(error, status=b"404 Not Found"))
    async with one_place(then=refuses) as (proxy, go_on), client_of(proxy.url) as client:
        body = b""
        async with client.stream("POST", "/v1/chat/completions", json=chat("held", stream=True)) as answer:
            async for piece in answer.aiter_raw():
                body += piece
                go_on.set()
        assert answer.status_code == 200
        assert without_comments(body) == b"data: " + error + b"\n\n"


# -- refusals -------------------------------------------------------------------------------------

QUEUE_FULL = {"max_held_turns": 0}
HELD_TOO_LONG = {"max_hold_s": 0.2}


@pytest.mark.parametrize(
    ("limits", "status", "reason"),
    [(QUEUE_FULL, 429, "queue_full"), (HELD_TOO_LONG, 503, "held_too_long")],
)
async def test_refusals_say_why_and_when_to_come_back(limits: Any, status: int, reason: str) -> None:
    """In the shape of each API."""
    async with one_place(**limits) as (proxy, _), client_of(proxy.url) as client:
        seen = await ask_chat(client, user="refused")
        assert (seen.status, seen.code) == (status, reason)
        assert (seen.headers["retry-after"], seen.headers["x-mars-reason"]) == ("5", reason)
        seen = await ask(client, "POST", "/v1/messages", json=chat(max_tokens=5))
        error = json.loads(seen.body)
        kind = {429: "rate_limit_error", 503: "overloaded_error"}[status]
        assert (seen.status, error["type"], error["error"]["type"]) == (status, "error", kind)
        assert (seen.headers["retry-after"], seen.headers["x-mars-reason"]) == ("5", reason)


@asynccontextmanager
async def openai_client(proxy: RunningProxy) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="k", max_retries=0) as client:
        yield client


@asynccontextmanager
async def anthropic_client(proxy: RunningProxy) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=proxy.url, api_key="k", max_retries=0) as client:
        yield client


MESSAGES: Any = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("limits", "openai_error", "anthropic_error"),
    [
        (QUEUE_FULL, openai.RateLimitError, anthropic.RateLimitError),
        (HELD_TOO_LONG, openai.InternalServerError, anthropic.InternalServerError),
    ],
)
async def test_official_clients_raise_what_a_refusal_is(
    limits: Any, openai_error: type[Exception], anthropic_error: type[Exception]
) -> None:
    """Also for a stream that is refused at once; one that was opened is below."""
    async with one_place(**limits) as (proxy, _):
        async with openai_client(proxy) as client:
            with pytest.raises(openai_error) as raised:
                await client.chat.completions.create(model="m", messages=MESSAGES)
            assert raised.value.response.headers["retry-after"] == "5"  # type: ignore[attr-defined]
            if limits is QUEUE_FULL:
                with pytest.raises(openai_error):
                    await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            with pytest.raises(openai_error):
                await client.responses.create(model="m", input="hello")
        async with anthropic_client(proxy) as other:
            with pytest.raises(anthropic_error):
                await other.messages.create(model="m", messages=MESSAGES, max_tokens=5)


async def test_official_clients_raise_in_an_open_stream() -> None:
    """The status was 200 by the time the turn was refused."""
    async with one_place(**HELD_TOO_LONG) as (proxy, _):
        async with openai_client(proxy) as client:
            with pytest.raises(openai.APIError, match="no capacity became free"):
                async for _ in await client.chat.completions.create(
                    model="m", messages=MESSAGES, stream=True
                ):
                    pass
            with pytest.raises(openai.APIError, match="no capacity became free"):
                async for _ in await client.completions.create(model="m", prompt="hello", stream=True):
                    pass
            with pytest.raises(openai.APIError, match="no capacity became free"):
                async for _ in await client.responses.create(model="m", input="hello", stream=True):
                    pass
        async with anthropic_client(proxy) as other:
            with pytest.raises(anthropic.APIStatusError, match="no capacity became free"):
                async for _ in await other.messages.create(
                    model="m", messages=MESSAGES, max_tokens=5, stream=True
                ):
                    pass


# -- many -----------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_memory_of_two_thousand_held_connections() -> None:
    """Of a proxy in a process of its own, each with its comments coming."""
    async with faulty.faulty_backend(faulty.is_silent) as backend, AsyncExitStack() as stack:
        arguments = ("--backend", backend.url, "--port", "0", "--admission.fallback-concurrency", "1")
        proxy = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "marsproxy", "serve", *arguments),
            *("--hold.sse-comment-interval-s", "1"),
            stdout=PIPE,
        )
        stack.push_async_callback(proxy.wait)
        stack.callback(proxy.terminate)
        assert proxy.stdout is not None
        found = READY.search(await proxy.stdout.readline())
        assert found is not None
        url = httpx.URL(found[1].decode())
        before_mb = _rss_mb(proxy.pid)
        for number in range(HELD_CONNECTIONS):
            reader, writer = await asyncio.open_connection(url.host, url.port)
            stack.callback(writer.close)
            body = json.dumps(chat(f"{number} " + "word " * 400, stream=True)).encode()
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%s"
                % (len(body), body)
            )
        async with asyncio.timeout(HANG_S):
            await reader.readuntil(COMMENT)
        async with httpx.AsyncClient(trust_env=False) as client:
            page = (await client.get(f"{url}/metrics")).text
        held = [float(line.split()[-1]) for line in page.splitlines() if line.startswith("mars_held_turns{")]
        assert sum(held) == HELD_CONNECTIONS - 1
        after_mb = _rss_mb(proxy.pid)
        logging.getLogger(__name__).info(
            "RSS %.0f MB before, %.0f MB with %d held", before_mb, after_mb, HELD_CONNECTIONS
        )
        assert after_mb < MAX_RSS_MB


def _rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024
