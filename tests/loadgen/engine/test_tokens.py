"""Four bytes a token: reversible, prefix-stable, and history renders to what was generated."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from loadgen.engine.prompt import FunctionCall, Message, Part, ToolCallMessage, assistant_body, render_chat
from loadgen.engine.tokens import bytes_of, decode, encode, prefix_hashes, token_count, token_ids

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(texts)
def test_text_survives_the_round_trip(text: str) -> None:
    assert decode(bytes_of(token_ids(encode(text)))) == text


@given(texts, texts)
def test_appending_changes_no_token_but_the_last_partial_one(text: str, more: str) -> None:
    whole = len(text.encode()) // 4
    assert token_ids(encode(text + more))[:whole] == token_ids(encode(text))[:whole]


def test_a_token_is_four_bytes() -> None:
    assert [token_count(encode(text)) for text in ("", "a", "four", "fives")] == [0, 1, 1, 2]


def test_hashes_are_of_whole_prefixes() -> None:
    one, other = b"a" * 64 + b"b" * 64, b"c" * 64 + b"b" * 64
    assert len(prefix_hashes(one + b"d" * 63, 16)) == 2
    assert prefix_hashes(one, 16)[0] == prefix_hashes(one[:64], 16)[0]
    assert prefix_hashes(one, 16)[1] != prefix_hashes(other, 16)[1], "same block, another prefix"


def test_a_salt_separates() -> None:
    data = b"a" * 64
    assert prefix_hashes(data, 16, "x") != prefix_hashes(data, 16) != prefix_hashes(data, 16, "y")
    assert prefix_hashes(data, 16, "x") == prefix_hashes(data, 16, "x")


@given(st.lists(texts, min_size=1, max_size=5), texts, texts, st.booleans())
def test_a_continuation_starts_with_the_prompt_and_the_answer(
    history: list[str], answer: str, more: str, with_call: bool
) -> None:
    messages = [Message("user", text) for text in history]
    calls = [("bash", '{"command":  "ls"}')] if with_call else []
    generated = render_chat(messages) + assistant_body(answer, calls)
    said = Message(
        "assistant",
        answer or None,
        [ToolCallMessage(FunctionCall(name, arguments), "id-1") for name, arguments in calls],
    )

    assert render_chat([*messages, said, Message("tool", more)]).startswith(generated)


def test_tools_are_part_of_the_system_message() -> None:
    tools = [msgspec.Raw(b'{"type": "function"}')]
    alone = decode(render_chat([Message("user", "hi")], tools))
    joined = decode(render_chat([Message("system", "Be brief."), Message("user", "hi")], tools))

    assert alone.startswith('<|system|>\n\n\n# Tools\n<tools>\n{"type": "function"}<|end|>\n<|user|>\nhi')
    assert joined.startswith("<|system|>\nBe brief.\n\n# Tools\n")
    assert joined.count("<|system|>") == 1


def test_parts_are_joined_and_what_is_no_text_shows_its_type() -> None:
    message = Message("user", [Part("text", "one"), "two", Part("image_url")])
    assert message.text == "one\ntwo\n<|image_url|>"


def test_arguments_given_as_an_object_are_encoded() -> None:
    call = ToolCallMessage(FunctionCall("f", {"a": 1}))
    assert '"arguments": {"a":1}' in decode(render_chat([Message("assistant", None, [call])]))
