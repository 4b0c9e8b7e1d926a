"""The proxy cannot be seen: the official clients, through it and straight, against the same bytes.

``Compared.assert_transparent`` says what "the same" is. These are the requests that belong to sessions;
``test_transparent_wire.py`` has what no client library would send, and the routes that no session needs.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anthropic
import openai
import pytest

from tests.integration import official_clients as clients
from tests.integration import vllm_answers as vllm
from tests.integration.byte_backend import Answering, Reply, head, streamed, whole
from tests.integration.comparison import TURN_HEADERS, Paths
from tests.integration.conftest import RunProxy
from tests.integration.http_messages import Message
from tests.integration.vllm_answers import JSON, SSE

Use = Callable[[str], Awaitable[Any]]

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"

ODD_HEADERS = (
    "X-Request-Id: abc",
    "Set-Cookie: a=1; Path=/; HttpOnly",
    "Set-Cookie: b=2",
    "X-Empty:",
    "X-Utf8: zoë".encode(),
    "X-Latin1: zoë".encode("latin-1"),
    "Server: uvicorn",
    "Date: Thu, 01 Jan 1970 00:00:00 GMT",
)
TOOLS = {"tools": [clients.CHAT_TOOL], "tool_choice": "auto", "parallel_tool_calls": True}
LOGPROBS = {"n": 2, "logprobs": True, "top_logprobs": 1}
ASKING = {"stream_options": {"include_usage": True}}


def asks_usage(request: Message) -> bool:
    return b'"include_usage":true' in request.body


def with_usage_if_asked(stream: Callable[..., list[bytes]]) -> Answering:
    """vLLM's two streams, with usage and without."""
    return lambda request: streamed(stream(asked=asks_usage(request)), SSE, *ODD_HEADERS)


CHAT_TOOL_STREAM = partial(vllm.chat_stream, *vllm.CHAT_TOOL_DELTAS, finish="tool_calls")
CHAT_TEXT_STREAM = partial(vllm.chat_stream, *vllm.CHAT_DELTAS)
CHAT_SAMPLES_STREAM = partial(vllm.chat_stream, *vllm.CHAT_SAMPLE_DELTAS, samples=2)
COMPLETION_STREAM = partial(vllm.completion_stream, "hé", "llo 🙂")

WHOLE_ANSWERS: dict[str, tuple[str, bytes, Use]] = {
    "chat": (CHAT, vllm.CHAT, clients.chat),
    "chat with tools": (CHAT, vllm.CHAT_TOOLS, partial(clients.chat, **TOOLS)),
    "chat, two samples": (CHAT, vllm.CHAT_SAMPLES, partial(clients.chat, **LOGPROBS)),
    "completions": (COMPLETIONS, vllm.COMPLETION, partial(clients.completion, logprobs=1)),
    "responses": (RESPONSES, vllm.RESPONSE, clients.response),
    "messages": (MESSAGES, vllm.MESSAGE, clients.message),
}


@pytest.mark.parametrize("case", WHOLE_ANSWERS)
async def test_whole_answers(paths: Paths, case: str) -> None:
    target, body, use = WHOLE_ANSWERS[case]
    paths.backend.reply("POST", target, whole(body, JSON, *ODD_HEADERS))
    (await paths.compare(use)).assert_transparent()


UNASKED_STREAMS: dict[str, tuple[str, Callable[..., list[bytes]], Use]] = {
    "chat": (CHAT, CHAT_TEXT_STREAM, clients.chat_stream),
    "chat with tools": (CHAT, CHAT_TOOL_STREAM, partial(clients.chat_stream, **TOOLS)),
    "chat that refuses usage": (
        CHAT,
        CHAT_TEXT_STREAM,
        partial(clients.chat_stream, stream_options={"include_usage": False}),
    ),
    "completions": (COMPLETIONS, COMPLETION_STREAM, clients.completion_stream),
}


@pytest.mark.parametrize("case", UNASKED_STREAMS)
async def test_usage_that_only_the_proxy_asked_for_stays_with_it(paths: Paths, case: str) -> None:
    target, stream, use = UNASKED_STREAMS[case]
    paths.backend.answer("POST", target, with_usage_if_asked(stream))
    compared = await paths.compare(use)
    compared.assert_transparent(asks_usage=True)
    assert all("usage" not in event for event in compared.proxied.result)
    [session] = paths.proxy.proxy.dispatcher.policy.sessions
    assert session.context_tokens == vllm.CHAT_USAGE["total_tokens"]


ASKING_STREAMS: dict[str, tuple[str, Answering, Use]] = {
    "chat": (CHAT, with_usage_if_asked(CHAT_TEXT_STREAM), partial(clients.chat_stream, **ASKING)),
    "chat with tools": (
        CHAT,
        with_usage_if_asked(CHAT_TOOL_STREAM),
        partial(clients.chat_stream, **TOOLS, **ASKING),
    ),
    "chat, two samples": (
        CHAT,
        with_usage_if_asked(CHAT_SAMPLES_STREAM),
        partial(clients.chat_stream, **LOGPROBS),
    ),
    "completions": (
        COMPLETIONS,
        with_usage_if_asked(COMPLETION_STREAM),
        partial(clients.completion_stream, **ASKING),
    ),
    "responses": (
        RESPONSES,
        lambda _: streamed(vllm.responses_stream(), SSE, *ODD_HEADERS),
        clients.response_stream,
    ),
    "messages": (
        MESSAGES,
        lambda _: streamed(vllm.messages_stream(), SSE, *ODD_HEADERS),
        clients.message_stream,
    ),
    "messages put together": (
        MESSAGES,
        lambda _: streamed(vllm.messages_stream(), SSE, *ODD_HEADERS),
        clients.message_accumulated,
    ),
}


@pytest.mark.parametrize("case", ASKING_STREAMS)
async def test_streams_that_have_all_they_need(paths: Paths, case: str) -> None:
    target, answering, use = ASKING_STREAMS[case]
    paths.backend.answer("POST", target, answering)
    (await paths.compare(use)).assert_transparent()


OPENAI_ERROR = (
    '{"error":{"message":"Nö.","type":"BadRequestError","param":null,"code":400, "x":1.0}}'.encode()
)
MESSAGES_ERROR = '{"type":"error","error":{"type":"invalid_request_error","message":"Nö."}}'.encode()
STATUSES = (
    "400 Bad Request",
    "401 Unauthorized",
    "404 Not Found",
    "429 Too Many Requests",
    "500 Internal Server Error",
    "503 Service Unavailable",
    "529 ",
)
FAILING: dict[str, tuple[str, bytes, Use]] = {
    "chat": (CHAT, OPENAI_ERROR, clients.chat),
    "chat stream": (CHAT, OPENAI_ERROR, partial(clients.chat_stream, **ASKING)),
    "completions": (COMPLETIONS, OPENAI_ERROR, clients.completion),
    "responses": (RESPONSES, OPENAI_ERROR, clients.response),
    "responses stream": (RESPONSES, OPENAI_ERROR, clients.response_stream),
    "messages": (MESSAGES, MESSAGES_ERROR, clients.message),
}


async def error_of(use: Use, url: str) -> tuple[str, int, str, Any, str | None]:
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as caught:
        await use(url)
    error = caught.value
    retry_after = error.response.headers.get("retry-after")
    return type(error).__name__, error.status_code, error.message, error.body, retry_after


@pytest.mark.parametrize("case", FAILING)
async def test_errors_of_the_backend(paths: Paths, case: str) -> None:
    target, body, use = FAILING[case]
    for status in STATUSES:
        paths.backend.reply("POST", target, whole(body, JSON, "Retry-After: 7", *ODD_HEADERS, status=status))
        compared = await paths.compare(partial(error_of, use))
        compared.assert_transparent()
        assert compared.proxied.result[4] == "7"


async def test_an_error_in_the_middle_of_a_stream(paths: Paths) -> None:
    broken: Reply = streamed(
        [*CHAT_TEXT_STREAM()[:2], vllm.event('{"error":{"message":"Nö.","code":500}}')], SSE
    )
    paths.backend.reply("POST", CHAT, broken)

    async def use(url: str) -> str:
        with pytest.raises(openai.APIError) as caught:
            await clients.chat_stream(url, **ASKING)
        return str(caught.value)

    compared = await paths.compare(use)
    compared.assert_same_requests(TURN_HEADERS)
    assert compared.proxied.result == compared.direct.result == "Nö."


@pytest.mark.parametrize(
    ("status", "body"), [("200 OK", b""), ("204 No Content", b""), ("200 OK", b" \r\n ")]
)
async def test_answers_without_an_answer(paths: Paths, status: str, body: bytes) -> None:
    async def use(url: str) -> bytes:
        async with clients.openai_client(url) as client:
            return (await client.chat.completions.with_raw_response.create(**clients.CHAT_REQUEST)).content

    length = () if status.startswith("204") else (f"content-length: {len(body)}",)
    paths.backend.reply("POST", CHAT, (head(status, JSON, *length) + body,))
    (await paths.compare(use)).assert_transparent()


async def test_three_megabytes_both_ways(paths: Paths) -> None:
    text = "é🙂\\u0000" * 400_000
    answer = vllm.CHAT.replace(b"h\\u00e9llo", text.encode())
    assert len(answer) > 3_000_000
    paths.backend.reply("POST", CHAT, whole(answer, JSON))
    use = partial(clients.chat, messages=[{"role": "user", "content": text}])
    (await paths.compare(use)).assert_transparent()


async def test_the_clients_own_retries(paths: Paths) -> None:
    replies = [
        whole(OPENAI_ERROR, JSON, "Retry-After-Ms: 1", status="503 Service Unavailable"),
        whole(vllm.CHAT, JSON),
    ] * 2

    async def use(url: str) -> Any:
        async with clients.openai_client(url, max_retries=1) as client:
            return (await client.chat.completions.create(**clients.CHAT_REQUEST)).to_dict()

    paths.backend.answer("POST", CHAT, lambda _: replies.pop(0))
    compared = await paths.compare(use)
    compared.assert_same_requests(TURN_HEADERS)
    assert compared.proxied.result == compared.direct.result
    [session] = paths.proxy.proxy.dispatcher.policy.sessions
    assert session.turns == 1


async def test_the_embedded_engine(engine_url: str, run_proxy: RunProxy) -> None:
    """Not scripted: what the proxy learns is what the engine counted, and the client sees nothing of it."""
    async with clients.openai_client(engine_url) as client:
        [model] = (await client.models.list()).data
    asked: dict[str, Any] = {"model": model.id, "max_tokens": 16, "extra_body": {}}
    [*_, last] = await clients.chat_stream(engine_url, **asked, **ASKING)
    async with run_proxy(engine_url) as proxy:
        events = await clients.chat_stream(proxy.url, **asked)
        [session] = proxy.proxy.dispatcher.policy.sessions
    assert all("usage" not in event for event in events)
    assert session.context_tokens == last["usage"]["total_tokens"]
