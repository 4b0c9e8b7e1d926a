"""Prompts only ever grow, have the length that was asked for, and share what is meant to be shared."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.history import History, RequestOptions
from loadgen.scripted import AnswerMode, scripted_answer
from loadgen.sse import Answer, CalledTool
from loadgen.text import TextSource
from loadgen.workload import ToolCall, Turn

CALL = Turn(1, 90, ToolCall("edit", 1.0))


def decoded(history: History, turn: Turn = Turn(1, 9)) -> dict[str, Any]:  # noqa: B008
    body: dict[str, Any] = msgspec.json.decode(history.body(turn, label="s/1"))
    return body


def test_a_body_asks_for_the_exact_length() -> None:
    body = decoded(History(RequestOptions("m")))
    assert body["model"] == "m"
    assert (body["max_tokens"], body["min_tokens"], body["ignore_eos"]) == (9, 9, True)
    assert body["stream_options"] == {"include_usage": True}
    assert body["tools"][0]["function"]["name"] == "bash"


def test_a_body_for_servers_that_know_only_openai_fields() -> None:
    body = decoded(History(RequestOptions("m", stream=False, exact_output=False)))
    assert body["max_tokens"] == 9
    assert not {"min_tokens", "ignore_eos", "stream", "stream_options"} & set(body)


@pytest.mark.parametrize(
    ("turn", "answer"),
    [
        (CALL, {"output_tokens": 90, "tool": "edit", "args": {"command": "s/1"}}),
        (Turn(1, 90, ToolCall("b", 1.0, command="ls")), {"tool": "b", "args": {"command": "ls"}}),
        (Turn(1, 30, ToolCall("b", 1.0, command="x" * 99)), {"tool": "b", "args": {"command": "s/1"}}),
        (Turn(1, 90, think_s=5.0), {"output_tokens": 90}),
    ],
)
def test_scripted_answers_call_the_tool_that_follows(turn: Turn, answer: dict[str, Any]) -> None:
    options = RequestOptions("m", answers=AnswerMode.CALLS)
    written = msgspec.json.decode(decoded(History(options), turn)["vllm_xargs"]["mars_answer"])
    assert written == answer | {"output_tokens": turn.output_tokens}
    assert "vllm_xargs" not in decoded(History(RequestOptions("m")), turn)


def test_arguments_are_written_as_templates_write_them() -> None:
    """Then the tokens of an answer are those of the history that it becomes."""
    turn = Turn(1, 90, ToolCall("b", 1.0, command='echo "ü"'))
    written = scripted_answer(turn, "s/1")
    assert '"args":{"command": "echo \\"ü\\""}' in written


def test_a_scripted_answer_may_end_by_itself() -> None:
    body = decoded(History(RequestOptions("m", answers=AnswerMode.CALLS)))
    assert (body["max_tokens"], body["min_tokens"]) == (9, 9)
    assert "ignore_eos" not in body


@given(st.lists(st.text(), max_size=6))
def test_every_body_begins_with_the_messages_of_the_one_before(answers: list[str]) -> None:
    history = History(RequestOptions("m"))
    history.append({"role": "system", "content": "s"})
    before: list[Any] = []
    for i, text in enumerate(answers):
        history.add_input(f"input {i}", is_from_user=True)
        messages = decoded(history)["messages"]
        assert messages[: len(before)] == before
        history.add_answer(Answer(text=[text]))
        before = [*messages, {"role": "assistant", "content": text}]


def test_tool_output_answers_the_calls_the_model_made() -> None:
    history = History(RequestOptions("m"))
    history.add_answer(
        Answer(text=["t"], tools=[CalledTool("c1", "bash", ['{"a"', ":1}"]), CalledTool("c2", "bash")])
    )
    history.add_input("output")
    assistant, *results = decoded(history)["messages"]
    assert [call["id"] for call in assistant["tool_calls"]] == ["c1", "c2"]
    assert assistant["tool_calls"][0]["function"] == {"name": "bash", "arguments": '{"a":1}'}
    assert results == [
        {"role": "tool", "tool_call_id": "c1", "content": "output"},
        {"role": "tool", "tool_call_id": "c2", "content": "done"},
    ]


def test_a_user_who_speaks_after_a_call_closes_it_first() -> None:
    history = History(RequestOptions("m"))
    history.add_answer(Answer(tools=[CalledTool("c1", "bash")]))
    history.add_input("question", is_from_user=True)
    assert [message["role"] for message in decoded(history)["messages"]] == ["assistant", "tool", "user"]


def test_tool_output_without_a_call_is_a_user_message() -> None:
    history = History(RequestOptions("m"))
    history.add_answer(Answer(text=["t"]))
    history.add_input("output")
    assert decoded(history)["messages"][-1] == {"role": "user", "content": "output"}


@given(tokens=st.integers(1, 200_000), chars_per_token=st.floats(1, 8))
def test_texts_have_the_length_asked_for(tokens: int, chars_per_token: float) -> None:
    texts = TextSource(0, chars_per_token)
    assert len(texts.message("s", 1, tokens)) == max(1, round(tokens * chars_per_token))


def test_texts_differ_by_session_and_are_shared_by_system_id() -> None:
    texts, again = TextSource(0), TextSource(0)
    assert texts.message("a", 1, 100) == again.message("a", 1, 100)
    distinct = {texts.message(name, turn, 100)[:40] for name in "abc" for turn in (1, 2)}
    assert len(distinct) == 6
    assert texts.system_prompt("x", 300) == again.system_prompt("x", 300)
    assert texts.system_prompt("x", 300)[:100] != texts.system_prompt("y", 300)[:100]
    assert texts.system_prompt("x", 300).startswith(texts.system_prompt("x", 200))
