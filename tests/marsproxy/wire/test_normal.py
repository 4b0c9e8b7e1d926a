"""What makes two shapes the same message."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsproxy.wire.normal import (
    canonical_arguments,
    chat_form,
    history_digests,
    messages_form,
    responses_form,
    system_form,
)

CALL = {"id": "call_1", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}


def assistant(**members: Any) -> dict[str, Any]:
    return {"role": "assistant", **members}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"role": "user", "content": "hi"}, {"content": [{"type": "text", "text": "hi"}], "role": "user"}),
        ({"role": "system", "content": "be good"}, {"role": "developer", "content": "be good"}),
        (
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "x"}]},
            {
                "role": "tool",
                "tool_call_id": "c",
                "name": "bash",
                "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
                "cache_control": {"type": "ephemeral"},
            },
        ),
        (assistant(content=None, tool_calls=[CALL]), assistant(content="", tool_calls=[CALL])),
        (assistant(content="\n\n", tool_calls=[CALL]), assistant(tool_calls=[CALL])),
        (assistant(content="a", tool_calls=[]), assistant(content="a\n")),
        (
            assistant(content="a", tool_calls=[CALL]),
            assistant(
                content="a",
                tool_calls=[{**CALL, "index": 0}],
                provider_specific_fields={"refusal": None},
                reasoning_content="hm",
                reasoning="hm",
                refusal=None,
                annotations=[],
                audio=None,
                function_call=None,
            ),
        ),
        (
            assistant(tool_calls=[CALL]),
            assistant(
                tool_calls=[{"id": "call_1", "function": {"name": "bash", "arguments": {"command": "ls"}}}]
            ),
        ),
    ],
)
def test_chat_messages_that_are_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert chat_form(one).digest == chat_form(other).digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"role": "user", "content": "a"}, {"role": "user", "content": "b"}),
        ({"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}),
        ({"role": "user", "content": "a"}, {"role": "user", "content": "a "}),
        (
            {"role": "tool", "tool_call_id": "1", "content": "a"},
            {"role": "tool", "tool_call_id": "2", "content": "a"},
        ),
        (assistant(tool_calls=[CALL]), assistant(tool_calls=[{**CALL, "id": "call_2"}])),
        (assistant(tool_calls=[CALL]), assistant(tool_calls=[CALL, CALL])),
        (
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}],
            },
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AB"}}],
            },
        ),
    ],
)
def test_chat_messages_that_are_not(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert chat_form(one).digest != chat_form(other).digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a": 1, "b": [true, null]}', '{"b":[true,null],"a":1}'),
        ('{"a": 1.0}', '{"a":1}'),
        ('{"t": "\\u00e9"}', '{"t":"é"}'),
        ("", "{}"),
        (None, "{}"),
        ({"a": {"y": 1, "x": 2}}, '{"a":{"x":2,"y":1}}'),
    ],
)
def test_arguments_are_compared_by_value(one: object, other: object) -> None:
    """opencode sends ``{"command":"ls"}`` back for ``{"command": "ls"}``."""
    assert canonical_arguments(one) == canonical_arguments(other)


def test_arguments_that_are_no_json_are_compared_as_text() -> None:
    assert canonical_arguments("*** Begin Patch\n") == "*** Begin Patch\n"
    assert canonical_arguments('{"cut": "o') != canonical_arguments('{"cut": "of')


def test_media_are_told_apart_by_their_data_alone() -> None:
    def part(**image: str) -> dict[str, Any]:
        return {"role": "user", "content": [{"type": "image_url", "image_url": image}]}

    one = chat_form(part(url="data:image/png;base64,AAAA"))
    assert one.digest == chat_form(part(url="data:image/png;base64,AAAA", detail="high")).digest
    big = chat_form(part(url="data:image/png;base64," + "A" * 1_000_000))
    assert big.digest != one.digest
    assert big.prompt_bytes < 1000


def test_a_tool_result_answers_its_call() -> None:
    call_id = "chatcmpl-tool-9f86d081884c7d659a2feaa0c55ad015"
    form = chat_form({"role": "tool", "tool_call_id": call_id, "content": "x"})
    assert form.answered_call_ids == (call_id,)
    assert chat_form({"role": "tool", "tool_call_id": "call_0", "content": "x"}).answered_call_ids == ()
    blocks = [{"type": "tool_result", "tool_use_id": call_id, "content": "x"}]
    assert messages_form({"role": "user", "content": blocks}).answered_call_ids == (call_id,)
    item = {"type": "function_call_output", "call_id": call_id, "output": "x"}
    assert responses_form(item).answered_call_ids == (call_id,)


def test_messages_ignore_thinking_and_marks() -> None:
    text = {"type": "text", "text": "I look", "cache_control": {"type": "ephemeral"}}
    use = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}}
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    with_all = messages_form(assistant(content=[thinking, text, use]))
    assert (
        with_all.digest == messages_form(assistant(content=[{"type": "text", "text": "I look"}, use])).digest
    )
    assert with_all.digest != messages_form(assistant(content="I look")).digest


def test_tool_results_of_the_messages_api_count() -> None:
    def result(content: object) -> bytes | None:
        block = {"type": "tool_result", "tool_use_id": "t", "content": content, "is_error": False}
        return messages_form({"role": "user", "content": [block]}).digest

    assert result("ok") == result([{"type": "text", "text": "ok"}])
    assert result("ok") != result("failed")


def test_claude_codes_billing_header_is_no_part_of_the_system_prompt() -> None:
    def system(billing: str) -> bytes | None:
        return system_form([{"type": "text", "text": billing}, {"type": "text", "text": "You are"}]).digest

    assert system("x-anthropic-billing-header: cch=1") == system("x-anthropic-billing-header: cch=2")
    assert system("x-anthropic-billing-header: cch=1") == system_form("You are").digest


def test_responses_output_becomes_input() -> None:
    output = {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "done", "annotations": [], "logprobs": None}],
    }
    assert responses_form(output).digest == responses_form(assistant(content="done")).digest
    call = {"type": "function_call", "call_id": "call_1", "name": "shell", "arguments": '{"cmd":"ls"}'}
    sent_back = {**call, "id": "fc_1", "status": "completed", "arguments": '{"cmd": "ls"}'}
    assert responses_form(call).digest == responses_form(sent_back).digest
    custom = {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": "*** Begin"}
    assert (
        responses_form(custom).digest
        == responses_form({**custom, "id": "ct_1", "status": "completed"}).digest
    )


def test_neighbouring_items_of_the_model_are_one_answer() -> None:
    user = responses_form({"role": "user", "content": "fix"})
    thought = responses_form({"type": "reasoning", "summary": [], "encrypted_content": "x"})
    text = responses_form(assistant(content="I look"))
    call = responses_form({"type": "function_call", "call_id": "c", "name": "sh", "arguments": "{}"})
    result = responses_form({"type": "function_call_output", "call_id": "c", "output": "ok"})
    digests = history_digests([user, thought, text, call, result])
    assert len(digests) == 3
    assert digests == history_digests([user, text, call, result])
    assert digests[0] == user.digest
    assert digests[2] == result.digest
    assert history_digests([user, thought]) == (user.digest,)


@pytest.mark.parametrize("form", [chat_form, messages_form, responses_form])
@pytest.mark.parametrize(
    "value", [None, 1, "text", [], [1], {"role": 5, "content": 7}, {"content": [None, 3, {}]}]
)
def test_unexpected_shapes_have_a_form_too(form: Any, value: object) -> None:
    assert form(value).digest is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_writing_arguments_again_changes_nothing(arguments: dict[str, object]) -> None:
    spaced = json.dumps(arguments)
    packed = json.dumps(arguments, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    assert canonical_arguments(spaced) == canonical_arguments(packed) == canonical_arguments(arguments)


@given(st.sampled_from(["user", "assistant", "tool", "system"]), st.text(max_size=40), JSON)
def test_decoration_and_block_form_never_matter(role: str, text: str, decoration: object) -> None:
    plain = {"role": role, "content": text}
    block = {"type": "text", "text": text, "cache_control": decoration}
    decorated = {"role": role, "content": [block], "cache_control": decoration, "x_sdk": decoration}
    assert chat_form(plain).digest == chat_form(decorated).digest
    assert messages_form(plain).digest == messages_form(decorated).digest
    assert responses_form(plain).digest == responses_form(decorated).digest
