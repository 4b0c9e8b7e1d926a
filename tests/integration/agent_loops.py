"""Agents with the official clients: ask, call the tool, answer it, until there is nothing left to call.

Each loop takes the base URL and a task, and returns how many turns it took. The backend's side is
``Toolsmith``, which answers with a call until it has been answered often enough.
"""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

from openai.types.responses import ResponseFunctionToolCall

from tests.integration.byte_backend import Reply, whole
from tests.integration.http_messages import Message
from tests.integration.official_clients import (
    CHAT_TOOL,
    MESSAGES_TOOL,
    RESPONSES_TOOL,
    anthropic_client,
    openai_client,
)

CALLS = 3
"""In one session, one a turn; then comes the final answer."""
SYSTEM = "You are a coding agent."

Loop = Callable[[str, str], Awaitable[int]]


async def chat_loop(url: str, task: str) -> int:
    messages: list[Any] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": task}]
    turns = 0
    async with openai_client(url) as client:
        while True:
            turns += 1
            answer = await client.chat.completions.create(model="tiny", messages=messages, tools=[CHAT_TOOL])
            message = answer.choices[0].message
            messages.append(message.to_dict())
            if not message.tool_calls:
                return turns
            messages += [
                {"role": "tool", "tool_call_id": call.id, "content": f"done, é {turns}"}
                for call in message.tool_calls
            ]


async def responses_chain(url: str, task: str) -> int:
    """Only what is new goes out; the backend keeps the rest."""
    turns, previous, new = 0, None, [{"role": "user", "content": task}]
    async with openai_client(url) as client:
        while True:
            turns += 1
            answer = await client.responses.create(
                model="tiny", input=new, previous_response_id=previous, tools=[RESPONSES_TOOL]
            )
            previous, new = answer.id, _outputs(answer.output, turns)
            if not new:
                return turns


async def responses_history(url: str, task: str) -> int:
    """The whole history goes out every time, the answers' items in it as they came."""
    turns, history = 0, [{"role": "user", "content": task}]
    async with openai_client(url) as client:
        while True:
            turns += 1
            answer = await client.responses.create(
                model="tiny", instructions=SYSTEM, input=history, tools=[RESPONSES_TOOL], store=False
            )
            outputs = _outputs(answer.output, turns)
            history += [*(item.to_dict() for item in answer.output), *outputs]
            if not outputs:
                return turns


def _outputs(items: list[Any], turn: int) -> list[dict[str, Any]]:
    calls = [item for item in items if isinstance(item, ResponseFunctionToolCall)]
    return [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"done, é {turn}"}
        for call in calls
    ]


async def messages_loop(url: str, task: str) -> int:
    """With the cache markers that agents move along: they are no part of the history."""
    history: list[Any] = [{"role": "user", "content": task}]
    turns = 0
    async with anthropic_client(url) as client:
        while True:
            turns += 1
            answer = await client.messages.create(
                model="tiny",
                max_tokens=64,
                system=[{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}],
                messages=[*history[:-1], _marked(history[-1])],
                tools=[MESSAGES_TOOL],
            )
            history.append({"role": "assistant", "content": [block.to_dict() for block in answer.content]})
            results = [
                {"type": "tool_result", "tool_use_id": block.id, "content": f"done, é {turns}"}
                for block in answer.content
                if block.type == "tool_use"
            ]
            if not results:
                return turns
            history.append({"role": "user", "content": results})


def _marked(message: dict[str, Any]) -> dict[str, Any]:
    content = message["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return message | {"content": [*blocks[:-1], blocks[-1] | {"cache_control": {"type": "ephemeral"}}]}


class Toolsmith:
    """Answers on all three APIs. Ids are random, as vLLM's are, unless they are counted.

    Args:
        counts_ids: every session's first call has the same id, so that no id tells sessions apart.
    """

    def __init__(self, *, counts_ids: bool = False) -> None:
        self._counts_ids = counts_ids
        self._calls_before: dict[str, int] = {}
        """By response id: what a chain's earlier answers have called."""

    def chat(self, request: Message) -> Reply:
        called = self._called(request)
        message: dict[str, Any] = {"role": "assistant", "content": f"Step {called}."}
        if called < CALLS:
            function = {"name": "bash", "arguments": '{"command": "ls"}'}
            message["tool_calls"] = [{"id": self._call_id(called), "type": "function", "function": function}]
        finish = "tool_calls" if called < CALLS else "stop"
        choice = {"index": 0, "message": message, "finish_reason": finish}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        heading = {
            "id": f"chatcmpl-{uuid4().hex}",
            "object": "chat.completion",
            "created": 1,
            "model": "tiny",
        }
        return _json(heading | {"choices": [choice], "usage": usage})

    def responses(self, request: Message) -> Reply:
        previous = json.loads(request.body).get("previous_response_id")
        called = self._calls_before.get(previous, 0) + self._called(request)
        response_id = f"resp_{uuid4().hex}"
        self._calls_before[response_id] = called
        content = [{"type": "output_text", "text": f"Step {called}.", "annotations": []}]
        item: dict[str, Any] = {"type": "message", "id": f"msg_{uuid4().hex}", "role": "assistant"}
        item |= {"status": "completed", "content": content}
        if called < CALLS:
            item = {"type": "function_call", "id": f"fc_{uuid4().hex}", "call_id": self._call_id(called)}
            item |= {"name": "bash", "arguments": '{"command": "ls"}', "status": "completed"}
        heading = {"id": response_id, "object": "response", "created_at": 1, "model": "tiny"}
        state = {"status": "completed", "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
        return _json(heading | state | {"output": [item]})

    def messages(self, request: Message) -> Reply:
        called = self._called(request)
        content: list[dict[str, Any]] = [{"type": "text", "text": f"Step {called}."}]
        if called < CALLS:
            call = {"type": "tool_use", "id": self._call_id(called), "name": "bash"}
            content.append(call | {"input": {"command": "ls"}})
        heading = {"id": f"msg_{uuid4().hex}", "type": "message", "role": "assistant", "model": "tiny"}
        stop = {"stop_reason": "tool_use" if called < CALLS else "end_turn", "stop_sequence": None}
        usage = {"input_tokens": 10, "output_tokens": 5}
        return _json(heading | stop | {"content": content, "usage": usage})

    def _call_id(self, called: int) -> str:
        return f"functions.bash:{called}" if self._counts_ids else f"call_{uuid4().hex}"

    def _called(self, request: Message) -> int:
        """Results in the request: one for each call so far."""
        return len(re.findall(rb'"(?:tool_call_id|tool_use_id)"|"function_call_output"', request.body))


def _json(answer: dict[str, Any]) -> Reply:
    return whole(json.dumps(answer).encode(), "content-type: application/json")
