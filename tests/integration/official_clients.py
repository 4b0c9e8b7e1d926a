"""The official ``openai`` and ``anthropic`` clients, as an agent uses them: each function is one use.

A use takes the base URL and returns what the library made of the answer, as plain data.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

SCHEMA = {
    "type": "object",
    "properties": {"command": {"type": "string", "description": "é"}},
    "required": ["command"],
}
CHAT_TOOL = {"type": "function", "function": {"name": "bash", "description": "Run.", "parameters": SCHEMA}}
RESPONSES_TOOL = {"type": "function", "name": "bash", "parameters": SCHEMA, "strict": True}
MESSAGES_TOOL = {"name": "bash", "description": "Run.", "input_schema": SCHEMA}

UNKNOWN: dict[str, Any] = {"x_unknown": {"deep": [1.0, None, "é\u2028"], "long": 12345678901234567890}}
"""Members of a request that no version knows."""
HEADERS = {"X-Unknown": "a,  b", "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


@asynccontextmanager
async def openai_client(url: str, **options: Any) -> AsyncIterator[AsyncOpenAI]:
    settings = {"api_key": "sk-1", "max_retries": 0, "default_headers": HEADERS} | options
    async with AsyncOpenAI(base_url=f"{url}/v1", **settings) as client:
        yield client


@asynccontextmanager
async def anthropic_client(url: str, **options: Any) -> AsyncIterator[AsyncAnthropic]:
    settings = {"api_key": "sk-1", "max_retries": 0, "default_headers": HEADERS} | options
    async with AsyncAnthropic(base_url=url, **settings) as client:
        yield client


CHAT_REQUEST: dict[str, Any] = {
    "model": "tiny",
    "messages": [
        {"role": "system", "content": "Sei höflich."},
        {"role": "user", "name": "zoë", "content": [{"type": "text", "text": "Hallo 🙂"}], "x_extra": [1.5]},
    ],
    "temperature": 0.0,
    "extra_body": UNKNOWN,
}


async def chat(url: str, **changes: Any) -> dict[str, Any]:
    async with openai_client(url) as client:
        answer = await client.chat.completions.create(**CHAT_REQUEST | changes)
        return answer.to_dict()


async def chat_stream(url: str, **changes: Any) -> list[dict[str, Any]]:
    async with openai_client(url) as client:
        stream = await client.chat.completions.create(**CHAT_REQUEST | {"stream": True} | changes)
        return [chunk.to_dict() async for chunk in stream]


COMPLETION_REQUEST: dict[str, Any] = {"model": "tiny", "prompt": "Hallo wö", "extra_body": UNKNOWN}


async def completion(url: str, **changes: Any) -> dict[str, Any]:
    async with openai_client(url) as client:
        return (await client.completions.create(**COMPLETION_REQUEST | changes)).to_dict()


async def completion_stream(url: str, **changes: Any) -> list[dict[str, Any]]:
    async with openai_client(url) as client:
        stream = await client.completions.create(**COMPLETION_REQUEST | {"stream": True} | changes)
        return [chunk.to_dict() async for chunk in stream]


RESPONSES_REQUEST: dict[str, Any] = {
    "model": "tiny",
    "instructions": "Sei höflich.",
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hallo 🙂"}]}],
    "tools": [RESPONSES_TOOL],
    "extra_body": UNKNOWN,
}


async def response(url: str, **changes: Any) -> dict[str, Any]:
    async with openai_client(url) as client:
        return (await client.responses.create(**RESPONSES_REQUEST | changes)).to_dict()


async def response_stream(url: str, **changes: Any) -> list[dict[str, Any]]:
    async with openai_client(url) as client:
        stream = await client.responses.create(**RESPONSES_REQUEST | {"stream": True} | changes)
        return [event.to_dict() async for event in stream]


MESSAGES_REQUEST: dict[str, Any] = {
    "model": "tiny",
    "max_tokens": 64,
    "system": [{"type": "text", "text": "Sei höflich.", "cache_control": {"type": "ephemeral"}}],
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Hallo 🙂"}]}],
    "tools": [MESSAGES_TOOL],
    "extra_body": UNKNOWN,
}


async def message(url: str, **changes: Any) -> dict[str, Any]:
    async with anthropic_client(url) as client:
        return (await client.messages.create(**MESSAGES_REQUEST | changes)).to_dict()


async def message_stream(url: str, **changes: Any) -> list[dict[str, Any]]:
    async with anthropic_client(url) as client:
        stream = await client.messages.create(**MESSAGES_REQUEST | {"stream": True} | changes)
        return [event.to_dict() async for event in stream]


async def message_accumulated(url: str) -> dict[str, Any]:
    """The library's own putting together of a stream."""
    async with anthropic_client(url) as client, client.messages.stream(**MESSAGES_REQUEST) as stream:
        return (await stream.get_final_message()).to_dict()
