"""The rendered history begins with what was prompted and generated before, whatever was said."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from backend_patch.emulator.chat_template import CHAT_TEMPLATE, GENERATION_PROMPT
from backend_patch.emulator.markup import render_answer
from backend_patch.script import ToolUse

Messages = list[dict[str, Any]]

TOOLS = [{"type": "function", "function": {"name": "bash", "description": "ü"}}]

texts = st.text(st.characters(codec="utf-8"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts, lambda inner: st.lists(inner, max_size=2)
)
arguments = st.dictionaries(texts, values, max_size=3)
calls = st.lists(st.tuples(texts.filter(bool), arguments), max_size=3)
results = st.lists(texts, min_size=1, max_size=3)


def compiled() -> Template:
    """As transformers (4 and 5) compiles it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(CHAT_TEMPLATE)


TEMPLATE = compiled()


def render(messages: Messages, tools: list[Any] | None, *, prompt: bool = True) -> str:
    return TEMPLATE.render(messages=messages, tools=tools, add_generation_prompt=prompt)


@st.composite
def conversations(draw: st.DrawFn) -> Messages:
    said: Messages = [{"role": "system", "content": draw(texts)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        said += draw(st.lists(st.sampled_from([{"role": "user", "content": "go on"}]), max_size=2))
        said.append({"role": "user", "content": draw(texts)})
        made = [{"type": "function", "function": {"name": n, "arguments": a}} for n, a in draw(calls)]
        said.append(
            {"role": "assistant", "content": draw(texts | st.none())} | ({"tool_calls": made} if made else {})
        )
        said += [{"role": "tool", "content": text} for text in draw(results)] if made else []
    return said


def generated(message: dict[str, Any]) -> str:
    """The answer as the emulated model emits it: the client has the arguments from there."""
    made = [call["function"] for call in message.get("tool_calls", ())]
    uses = [
        ToolUse(each["name"], msgspec.Raw(json.dumps(each["arguments"], ensure_ascii=False).encode()))
        for each in made
    ]
    return render_answer(message["content"] or "", uses)


@given(conversations(), st.sampled_from([None, TOOLS]))
def test_history_begins_with_every_prompt_and_its_answer(messages: Messages, tools: list[Any] | None) -> None:
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    assert answers
    for end in range(answers[-1] + 1, len(messages) + 1):
        rendered = render(messages[:end], tools)
        for i in answers:
            assert rendered.startswith(render(messages[:i], tools) + generated(messages[i]) + "<|im_end|>")


@given(texts.filter(bool))
def test_arguments_that_are_still_text_keep_their_characters(written: str) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": written}}
    rendered = render([{"role": "assistant", "content": None, "tool_calls": [call]}], None)
    assert f'{{"name": "f", "arguments": {written}}}\n</tool_call><|im_end|>' in rendered


def test_it_is_chatml_with_hermes_tools() -> None:
    call = {"type": "function", "function": {"name": "bash", "arguments": {"command": "ls"}}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Look.", "tool_calls": [call, call]},
        {"role": "tool", "content": "a"},
        {"role": "tool", "content": "b"},
    ]
    rendered = render(messages, TOOLS)
    assert rendered.startswith("<|im_start|>system\nBe brief.\n\n# Tools\n")
    assert (
        '<tools>\n{"type": "function", "function": {"name": "bash", "description": "ü"}}\n</tools>'
        in rendered
    )
    one = '<tool_call>\n{"name": "bash", "arguments": {"command": "ls"}}\n</tool_call>'
    assert rendered.endswith(
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        f"<|im_start|>assistant\nLook.{one}\n{one}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\na\n</tool_response>\n<tool_response>\nb\n</tool_response><|im_end|>\n"
        f"{GENERATION_PROMPT}"
    )


def test_nothing_is_made_up_where_nothing_is_said() -> None:
    assert (
        render([{"role": "user", "content": "Hi"}], None, prompt=False) == "<|im_start|>user\nHi<|im_end|>\n"
    )
