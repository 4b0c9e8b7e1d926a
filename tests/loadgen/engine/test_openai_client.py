"""The official client against the engine: an agent loop of two turns with tools."""

import json
from typing import Any

import openai
import pytest

TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "bash", "parameters": {"type": "object", "properties": {}}}}
]
CALLS = json.dumps(
    {
        "text": "Let me look at it. ",
        "tools": [
            {"name": "bash", "args": {"command": "ls -l 'ä'"}},
            {"name": "bash", "args": {"command": "pwd"}},
        ],
        "output_tokens": 90,
    },
    ensure_ascii=False,
)


async def streamed(client: openai.AsyncOpenAI, messages: list[Any], **fields: Any) -> tuple[Any, Any]:
    """The message as the stream builds it up, and the last chunk's usage."""
    stream = await client.chat.completions.create(
        model="qwen3-30b-a3b",
        messages=messages,
        tools=TOOLS,
        stream=True,
        stream_options={"include_usage": True},
        **fields,
    )
    message: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": []}
    usage, reasons = None, []
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            message["content"] += choice.delta.content or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
            for call in choice.delta.tool_calls or []:
                if call.id:
                    function = {"name": call.function.name, "arguments": ""}
                    message["tool_calls"].append({"id": call.id, "type": "function", "function": function})
                else:
                    message["tool_calls"][call.index]["function"]["arguments"] += call.function.arguments
    assert reasons == ["tool_calls" if message["tool_calls"] else "stop"]
    return message, usage


@pytest.mark.parametrize("stream", [True, False])
async def test_an_agents_next_turn_hits_prompt_answer_and_tool_calls(run_engine: Any, stream: bool) -> None:
    history: list[Any] = [
        {"role": "system", "content": "You are an agent. " * 20},
        {"role": "user", "content": [{"type": "text", "text": "What is in here?"}]},
    ]
    extra = {"vllm_xargs": {"mars_answer": CALLS}}
    async with (
        run_engine() as engine,
        openai.AsyncOpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0) as client,
    ):
        if stream:
            message, first = await streamed(client, history, extra_body=extra)
        else:
            answer = await client.chat.completions.create(
                model="qwen3-30b-a3b", messages=history, tools=TOOLS, extra_body=extra
            )
            assert answer.choices[0].finish_reason == "tool_calls"
            message, first = answer.choices[0].message.model_dump(exclude_none=True), answer.usage
        assert [call["function"]["arguments"] for call in message["tool_calls"]] == [
            '{"command": "ls -l \'ä\'"}',
            '{"command": "pwd"}',
        ]
        assert first.completion_tokens == 90
        history += [
            message,
            *(
                {"role": "tool", "tool_call_id": call["id"], "content": "total 0"}
                for call in message["tool_calls"]
            ),
        ]
        _message, second = await streamed(client, history)

    # All but the block of the last generated token, whose KV was never computed.
    covered = first.prompt_tokens + first.completion_tokens - 1
    assert second.prompt_tokens_details.cached_tokens == covered // 16 * 16


async def test_the_client_understands_the_refusals(run_engine: Any) -> None:
    async with (
        run_engine(max_model_len=100) as engine,
        openai.AsyncOpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0) as client,
    ):
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "x"}])
        with pytest.raises(openai.BadRequestError, match="maximum context length is 100 tokens"):
            await client.completions.create(model="qwen3-30b-a3b", prompt="x" * 500)
        assert [model.id async for model in client.models.list()] == ["Qwen/Qwen3-30B-A3B"]
