"""Scripted answers in the emulated vLLM: its own tool parser makes the calls, and histories hit the cache.

The official clients see what they would see of a model that calls tools, by all three APIs, whole and
streamed. An agent's turns find all of its history, the answers included, in the prefix cache.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from backend_patch.emulator.launch import LaunchOptions
from backend_patch.emulator.serve import EmulatedServer
from backend_patch.emulator.tiny_model import write_tiny_model
from loadgen.engine.config import EngineConfig
from loadgen.engine.server import EngineServer
from loadgen.records import TurnRecord
from loadgen.trace import write_sessions
from loadgen.workload import Session, ToolCall, Turn
from tests.integration import official_clients as clients
from tests.vllm.stream_parts import put_together

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]

SCRIPT = """\
{"match": {"user": "one call"}, "turns": [
  {"text": "Let me look.", "tool": "bash", "args": {"command": "ls | wc"}}]}
{"match": {"user": "two calls"}, "turns": [
  {"tools": [{"name": "bash", "args": {"command": "ls"}},
  {"name": "bash", "args": {"command": "echo \\"ü\\""}}]}]}
{"match": {"user": "no call"}, "turns": [{"text": "There is nothing to do.", "output_tokens": 40}]}
{"match": {"user": "long task"}, "turns": [
  {"text": "First.", "tool": "bash", "args": {"command": "cat \\"a b\\".py"}, "output_tokens": 120},
  {"tools": [{"name": "bash", "args": {"command": "ls"}}, {"name": "bash", "args": {"n": [1, 2.5, null]}}]},
  {"text": "Between.\\n"},
  {"text": "  ", "tool": "bash", "args": {"command": "pytest -q\\n"}, "output_tokens": 90},
  {"text": "Done.", "output_tokens": 60}]}
""".replace("\n  ", " ")
CALLS = {
    "one call": ("Let me look.", [{"command": "ls | wc"}]),
    "two calls": ("", [{"command": "ls"}, {"command": 'echo "ü"'}]),
    "no call": ("There is nothing to do.", []),
}
RESULT = "def f():\n    return 1\n" * 20


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("model")
    write_tiny_model(folder)
    script = folder / "script.jsonl"
    script.write_text(SCRIPT, "utf-8")
    options = LaunchOptions(
        port=0, speed=20.0, kv_tokens=100_000, script=script, served_model_name="tiny", seed=1
    )
    with EmulatedServer(folder, options) as server:
        yield server.url


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("task", CALLS)
async def test_chat(emulated: str, task: str) -> None:
    text, calls = CALLS[task]
    asked = {"messages": user(task), "tools": [clients.CHAT_TOOL], "max_tokens": 100}
    whole = await clients.chat(emulated, **asked)
    (choice,) = whole["choices"]
    made = choice["message"].get("tool_calls") or []
    assert (choice["message"]["content"] or "").startswith(text)
    assert [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in made] == [
        ("bash", arguments) for arguments in calls
    ]
    assert choice["finish_reason"] == ("tool_calls" if calls else "stop")

    chunks = await clients.chat_stream(emulated, **asked, stream_options={"include_usage": True})
    stream = put_together(chunks)
    assert stream.texts.get("choice 0, content", "") == (choice["message"]["content"] or "")
    for index, call in enumerate(made):
        assert stream.texts[f"choice 0, call {index}, arguments"] == call["function"]["arguments"]
    ends = [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]]
    assert ends[-1] == choice["finish_reason"]
    assert chunks[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]


@pytest.mark.parametrize("task", CALLS)
async def test_messages(emulated: str, task: str) -> None:
    text, calls = CALLS[task]
    whole = await clients.message(emulated, messages=user(task), max_tokens=100)
    said = [block["text"] for block in whole["content"] if block["type"] == "text"]
    assert "".join(said).startswith(text)
    used = [block["input"] for block in whole["content"] if block["type"] == "tool_use"]
    assert used == calls
    assert whole["stop_reason"] == ("tool_use" if calls else "end_turn")

    stream = put_together(await clients.message_stream(emulated, messages=user(task), max_tokens=100))
    pieces = [json.loads(each) for place, each in stream.texts.items() if place.endswith("partial_json")]
    assert pieces == calls


@pytest.mark.parametrize("task", CALLS)
async def test_responses(emulated: str, task: str) -> None:
    text, calls = CALLS[task]
    whole = await clients.response(emulated, input=user(task))
    made = [json.loads(item["arguments"]) for item in whole["output"] if item["type"] == "function_call"]
    said = [item["content"][0]["text"] for item in whole["output"] if item["type"] == "message"]
    assert "".join(said).startswith(text)
    assert made == calls

    events = await clients.response_stream(emulated, input=user(task))
    end = events[-1]["response"]["output"]
    assert [json.loads(item["arguments"]) for item in end if item["type"] == "function_call"] == calls


@pytest.mark.parametrize("stream", [False, True])
async def test_a_requests_own_answer_has_the_length_that_it_says(emulated: str, stream: bool) -> None:
    own = '{"tool": "bash", "args": {"command": "ls"}, "output_tokens": 77}'
    asked: dict[str, Any] = {
        "messages": user("one call"),
        "tools": [clients.CHAT_TOOL],
        "max_tokens": 77,
        "extra_body": {"vllm_xargs": {"mars_answer": own}, "min_tokens": 77},
    }
    if stream:
        chunks = await clients.chat_stream(emulated, **asked, stream_options={"include_usage": True})
        usage, end = chunks[-1]["usage"], chunks[-2]["choices"][0]["finish_reason"]
    else:
        whole = await clients.chat(emulated, **asked)
        usage, end = whole["usage"], whole["choices"][0]["finish_reason"]
    assert (usage["completion_tokens"], end) == (77, "tool_calls")


async def test_completions_get_the_markup_as_text(emulated: str) -> None:
    own = {"vllm_xargs": {"mars_answer": '{"text": "Hm.", "tool": "bash", "args": {"a": 1}}'}}
    whole = await clients.completion(emulated, max_tokens=100, extra_body=own)
    expected = 'Hm.<tool_call>\n{"name": "bash", "arguments": {"a": 1}}\n</tool_call>'
    assert whole["choices"][0]["text"] == expected


async def test_a_wrong_answer_is_a_bad_request(emulated: str) -> None:
    with pytest.raises(openai.BadRequestError, match="mars_answer: Input data was truncated"):
        await clients.chat(emulated, extra_body={"vllm_xargs": {"mars_answer": "{"}})


@pytest.mark.parametrize("stream", [False, True])
async def test_an_agents_turns_find_their_history(emulated: str, stream: bool) -> None:
    """With text, calls, several calls and results; as the client has it, sent back unchanged."""
    messages: list[Any] = [{"role": "system", "content": f"{stream} {RESULT}"}, *user(f"long task {RESULT}")]
    before = None
    async with clients.openai_client(emulated) as client:
        for _turn in range(5):
            answer, usage = await chat_turn(client, messages, stream=stream)
            if before is not None:
                assert usage.prompt_tokens_details.cached_tokens >= 0.95 * before
            before = usage.total_tokens
            messages.append(answer)
            calls = answer.get("tool_calls") or []
            messages += [{"role": "tool", "tool_call_id": call["id"], "content": RESULT} for call in calls]
            messages += [] if calls else user("go on")
    assert answer["content"].startswith("Done.")


async def chat_turn(client: openai.AsyncOpenAI, messages: list[Any], *, stream: bool) -> tuple[Any, Any]:
    asked: dict[str, Any] = {"model": "tiny", "messages": messages, "tools": [clients.CHAT_TOOL]}
    if not stream:
        whole = await client.chat.completions.create(**asked)
        message = whole.choices[0].message
        return message.model_dump(include={"role", "content", "tool_calls"}, exclude_none=True) | {
            "content": message.content or ""
        }, whole.usage
    async with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as events:
        async for _event in events:
            pass
        final = await events.get_final_completion()
    message = final.choices[0].message
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for call in message.tool_calls or ()
    ]
    answer: dict[str, Any] = {"role": "assistant", "content": message.content or ""}
    return answer | ({"tool_calls": calls} if calls else {}), final.usage


SESSIONS = [
    Session(
        f"session-{i}",
        [
            Turn(1000, 60, ToolCall("bash", 0.01, command="grep -rn 'def main' --include=*.py . | head")),
            Turn(400, 45, ToolCall("bash", 0.01)),
            Turn(700, 300, ToolCall("edit", 0.01, command="x" * 2000)),
            Turn(500, 80, think_s=0.01),
            Turn(300, 64),
        ],
        system_tokens=900,
        system_id="shared",
    )
    for i in range(3)
]


@pytest.mark.parametrize("streaming", ["--stream", "--no-stream"])
async def test_the_load_generators_calls_are_those_of_the_embedded_engine(
    emulated: str, tmp_path: Path, streaming: str
) -> None:
    write_sessions(tmp_path / "sessions.jsonl", SESSIONS)
    async with embedded() as engine:
        ours = await replay(engine, tmp_path, streaming, "embedded")
    real = await replay(emulated, tmp_path, streaming, "emulated")

    planned = [turn for session in SESSIONS for turn in session.turns]
    assert [turn.output_tokens for turn in real] == [turn.output_tokens for turn in ours]
    assert [turn.output_tokens for turn in real] == [turn.output_tokens for turn in planned]
    for session in SESSIONS:
        expected = session.system_tokens or 0
        before = None
        for turn, record in zip(session.turns, of(session, real), strict=True):
            expected += turn.new_tokens
            assert record.prompt_tokens == pytest.approx(expected, rel=0.02)
            if before is not None:
                assert record.cached_tokens is not None
                assert record.cached_tokens >= 0.95 * before
            assert record.prompt_tokens is not None
            before = record.prompt_tokens + turn.output_tokens
            expected += turn.output_tokens


def of(session: Session, turns: list[TurnRecord]) -> list[TurnRecord]:
    return [turn for turn in turns if turn.session == session.id]


async def replay(url: str, folder: Path, streaming: str, name: str) -> list[TurnRecord]:
    line = ["run", "--target", url, "--workload", str(folder / "sessions.jsonl"), "--concurrency", "3"]
    line += ["--answers", "calls", streaming, "--out", str(folder / name)]
    # A process of its own: it takes the signals of its main thread.
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "loadgen", *line)
    assert await process.wait() == 0
    lines = (folder / name / "turns.jsonl").read_bytes().splitlines()
    return sorted(
        (msgspec.json.decode(each, type=TurnRecord) for each in lines), key=lambda r: (r.session, r.turn)
    )


@asynccontextmanager
async def embedded() -> AsyncIterator[str]:
    server = EngineServer(EngineConfig(port=0, speed=50.0, kv_tokens=64_000))
    stop, url = asyncio.Event(), asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(stop, url.set_result))
        try:
            yield await url
        finally:
            stop.set()
