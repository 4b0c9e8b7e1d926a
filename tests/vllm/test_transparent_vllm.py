"""A real vLLM answers the same through the proxy and straight, and learns what the proxy tells it.

Temperature 0 makes two answers equal but for ids and times. Each request is made once before it is
compared, so that both ways find the same prefix cache.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import httpx
import openai
import pytest

from marsproxy.server import Server
from tests.integration import official_clients as clients
from tests.integration.official_clients import openai_client
from tests.vllm.stream_parts import put_together

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]

Use = Callable[[str], Awaitable[Any]]

COMMANDS = {
    "type": "object",
    "properties": {"command": {"enum": ["ls", "pwd"]}},
    "required": ["command"],
    "additionalProperties": False,
}
CHAT_TOOL = {"type": "function", "function": {"name": "bash", "strict": True, "parameters": COMMANDS}}
RESPONSES_TOOL = {"type": "function", "name": "bash", "strict": True, "parameters": COMMANDS}
MESSAGES_TOOL = {"name": "bash", "strict": True, "input_schema": COMMANDS}

NO_REPEATING = {"extra_body": {"frequency_penalty": 2.0, "presence_penalty": 2.0}}
"""Random weights repeat one token for ever, also the blanks that a grammar allows inside of a call."""

CHAT = {"max_tokens": 24, "extra_body": clients.UNKNOWN | {"min_tokens": 8}}
SAMPLES = CHAT | {"n": 2, "temperature": 0.7, "seed": 1}
CHAT_CALL = NO_REPEATING | {
    "max_tokens": 200,
    "tools": [CHAT_TOOL],
    "tool_choice": {"type": "function", "function": {"name": "bash"}},
}
COMPLETION = {"max_tokens": 24, "temperature": 0.0, "logprobs": 2}
RESPONSE = {"max_output_tokens": 24, "temperature": 0.0, "tools": []}
RESPONSE_CALL = (
    RESPONSE
    | NO_REPEATING
    | {
        "max_output_tokens": 200,
        "tools": [RESPONSES_TOOL],
        "tool_choice": {"type": "function", "name": "bash"},
    }
)
MESSAGE = {"max_tokens": 24, "extra_body": {"temperature": 0.0}, "tools": []}
MESSAGE_CALL = MESSAGE | {
    "max_tokens": 200,
    "tools": [MESSAGES_TOOL],
    "tool_choice": {"type": "tool", "name": "bash"},
}
ENDLESS = {"max_tokens": 6000, "extra_body": {"ignore_eos": True}}
ASKING = {"stream_options": {"include_usage": True}}

WHOLE: dict[str, Use] = {
    "chat": partial(clients.chat, **CHAT),
    "chat, two samples": partial(clients.chat, **SAMPLES, logprobs=True, top_logprobs=2),
    "chat with a call": partial(clients.chat, **CHAT_CALL),
    "completions": partial(clients.completion, **COMPLETION),
    "responses": partial(clients.response, **RESPONSE),
    "responses with a call": partial(clients.response, **RESPONSE_CALL),
    "messages": partial(clients.message, **MESSAGE),
    "messages with tools": partial(clients.message, **MESSAGE_CALL),
}
STREAMS: dict[str, Use] = {
    "chat": partial(clients.chat_stream, **CHAT),
    "chat, asked": partial(clients.chat_stream, **CHAT, **ASKING),
    "chat, two samples": partial(clients.chat_stream, **SAMPLES),
    "chat with a call": partial(clients.chat_stream, **CHAT_CALL),
    "completions": partial(clients.completion_stream, **COMPLETION | {"logprobs": None}),
    "completions, asked": partial(clients.completion_stream, **COMPLETION | {"logprobs": None}, **ASKING),
    "responses": partial(clients.response_stream, **RESPONSE),
    "responses with a call": partial(clients.response_stream, **RESPONSE_CALL),
    "messages": partial(clients.message_stream, **MESSAGE),
    "messages with tools": partial(clients.message_stream, **MESSAGE_CALL),
}
CHANGING = frozenset({"id", "item_id", "call_id", "created", "created_at", "completed_at"})
"""Random, or the time."""


def fixed(answer: Any) -> Any:
    """With the type instead of the value of what changes from answer to answer."""
    if isinstance(answer, dict):
        return {
            key: type(value).__name__ if key in CHANGING else fixed(value) for key, value in answer.items()
        }
    return [fixed(each) for each in answer] if isinstance(answer, list) else answer


def calls_in(answer: Any) -> list[str]:
    """The arguments of the calls of an answer of either API."""
    if isinstance(answer, list):
        return [call for each in answer for call in calls_in(each)]
    if not isinstance(answer, dict):
        return []
    own = [answer["arguments"]] if answer.get("name") == "bash" and "arguments" in answer else []
    return own + [call for value in answer.values() for call in calls_in(value)]


async def both(vllm_url: str, proxy: Server, use: Use) -> tuple[Any, Any]:
    await use(vllm_url)
    return await use(vllm_url), await use(proxy.url)


@pytest.mark.parametrize("case", WHOLE)
async def test_whole_answers(vllm_url: str, proxy: Server, case: str) -> None:
    direct, proxied = await both(vllm_url, proxy, WHOLE[case])
    assert fixed(proxied) == fixed(direct)
    assert proxied["usage"]


@pytest.mark.parametrize("case", ["chat with a call", "responses with a call"])
async def test_real_tool_calls(vllm_url: str, proxy: Server, case: str) -> None:
    direct, proxied = await both(vllm_url, proxy, WHOLE[case])
    assert calls_in(proxied) == calls_in(direct)
    assert calls_in(proxied)[0] in ('{"command": "ls"}', '{"command": "pwd"}')


@pytest.mark.parametrize("case", STREAMS)
async def test_streams(vllm_url: str, proxy: Server, case: str) -> None:
    """vLLM puts tokens that came together into one event, so the events are put together first."""
    direct, proxied = await both(vllm_url, proxy, STREAMS[case])
    straight, through = put_together(direct), put_together(proxied)
    assert through.texts == straight.texts
    assert fixed(through.others) == fixed(straight.others)
    assert "".join(through.texts.values())


@pytest.mark.parametrize("case", ["chat", "chat with a call", "completions"])
async def test_usage_that_nobody_asked_for_is_only_the_proxys(
    vllm_url: str, proxy: Server, case: str
) -> None:
    asking = partial(STREAMS[case], **ASKING)
    [*_, last] = await asking(vllm_url)
    events = await STREAMS[case](proxy.url)
    assert all("usage" not in event for event in events)
    [session] = await sessions(proxy)
    assert session["context_tokens"] == last["usage"]["total_tokens"]


async def sessions(proxy: Server) -> list[dict[str, Any]]:
    async with httpx.AsyncClient() as http:
        found: list[dict[str, Any]] = (await http.get(f"{proxy.url}/mars/v1/sessions")).json()["sessions"]
        return found


@pytest.mark.parametrize("case", ["responses", "messages"])
async def test_usage_of_the_other_apis_is_read(proxy: Server, case: str) -> None:
    answer = await WHOLE[case](proxy.url)
    usage = answer["usage"]
    cached = usage.get("cache_read_input_tokens") or 0
    [session] = await sessions(proxy)
    assert session["context_tokens"] == usage["input_tokens"] + cached + usage["output_tokens"]


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/v1/models", None),
        ("GET", "/health", None),
        ("GET", "/version", None),
        ("POST", "/tokenize", {"model": "tiny", "prompt": "Hallo wörld"}),
        ("POST", "/detokenize", {"model": "tiny", "tokens": [300, 301]}),
        ("GET", "/v1/responses/resp_unknown", None),
        ("POST", "/v1/responses/resp_unknown/cancel", None),
        ("DELETE", "/v1/responses/resp_unknown", None),
        ("POST", "/v1/embeddings", {"model": "tiny", "input": "x"}),
        ("POST", "/v1/chat/completions", {"model": "other", "messages": []}),
        ("POST", "/v1/chat/completions", {"model": "tiny", "messages": "none"}),
        ("POST", "/v1/messages", {"model": "tiny"}),
        ("POST", "/v1/completions", {"model": "tiny", "prompt": "x" * 40_000}),
        ("POST", "/nowhere", {}),
    ],
)
async def test_other_routes_and_errors(
    vllm_url: str, proxy: Server, method: str, target: str, body: Any
) -> None:
    async with httpx.AsyncClient() as http:
        direct = await http.request(method, vllm_url + target, json=body)
        proxied = await http.request(method, proxy.url + target, json=body)
    assert proxied.status_code == direct.status_code
    assert _comparable(proxied) == _comparable(direct)


def _comparable(answer: httpx.Response) -> tuple[Any, dict[str, str]]:
    is_json = answer.headers.get("content-type", "").startswith("application/json")
    headers = {k: v for k, v in answer.headers.items() if k != "date" and not k.startswith("x-mars-")}
    return fixed(answer.json()) if is_json and answer.content else answer.content, headers


async def test_the_pool_is_read(proxy: Server) -> None:
    async with httpx.AsyncClient(timeout=60) as http, asyncio.timeout(30):
        while (await http.get(f"{proxy.url}/readyz")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        [backend] = (await http.get(f"{proxy.url}/readyz")).json()["backends"].values()
    assert backend["reachable"]
    assert backend["kv_tokens_total"] > 8192


async def test_the_priority_is_taken(vllm_url: str, proxy: Server) -> None:
    """One request runs at a time, so of two that wait the more urgent is answered first."""
    answered: list[str] = []

    async def ask(priority: str) -> None:
        async with openai_client(proxy.url, default_headers={"x-vllm-priority": priority}) as client:
            await client.chat.completions.create(**clients.CHAT_REQUEST | CHAT)
        answered.append(priority)

    async with (
        httpx.AsyncClient(timeout=60) as http,
        openai_client(proxy.url) as client,
        asyncio.timeout(120),
        asyncio.TaskGroup() as group,
    ):
        # Not streamed: thousands of chunks leave the API server of vLLM no time for other requests.
        request = clients.CHAT_REQUEST | CHAT | ENDLESS
        first = group.create_task(client.chat.completions.create(**request))
        await metric(http, vllm_url, "running", 1)
        group.create_task(ask("5"))
        await metric(http, vllm_url, "waiting", 1)
        group.create_task(ask("-5"))
        await metric(http, vllm_url, "waiting", 2)
        first.cancel()
    assert answered == ["-5", "5"]


@pytest.mark.parametrize("is_streaming", [True, False])
async def test_a_client_that_leaves_stops_the_generation(
    vllm_url: str, proxy: Server, is_streaming: bool
) -> None:
    async with (
        openai_client(proxy.url) as client,
        httpx.AsyncClient(timeout=60) as http,
        asyncio.timeout(120),
    ):
        async with asyncio.TaskGroup() as group:
            turn = group.create_task(read_to_the_end(client, ENDLESS | {"stream": is_streaming}))
            await metric(http, vllm_url, "running", 1)
            turn.cancel()
        await metric(http, vllm_url, "running", 0)
    assert turn.cancelled()
    assert proxy.proxy.dispatcher.open_turns == 0


async def read_to_the_end(client: openai.AsyncOpenAI, changes: dict[str, Any]) -> None:
    answer = await client.chat.completions.create(**clients.CHAT_REQUEST | changes)
    if changes["stream"]:
        async for _ in answer:
            pass


async def metric(http: httpx.AsyncClient, vllm_url: str, state: str, wanted: int) -> None:
    """Wait until vLLM says that so many requests are in that state."""
    name = f"vllm:num_requests_{state}{{"
    while True:
        # On a busy machine it may fall behind, and then closes connections that it takes to be idle.
        with contextlib.suppress(httpx.TransportError):
            page = (await http.get(f"{vllm_url}/metrics")).text
            [count] = [float(line.split()[-1]) for line in page.splitlines() if line.startswith(name)]
            if count == wanted:
                return
        await asyncio.sleep(0.02)
