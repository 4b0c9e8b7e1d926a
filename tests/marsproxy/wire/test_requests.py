"""What is read from a request, and that nothing in one can break the reading."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marsproxy.core.evidence import Level, Schema
from marsproxy.wire.forms import NormalForms
from marsproxy.wire.requests import ParsedRequest, read_request, split_session_url, tracked_schema

UUID_CALL = "chatcmpl-tool-9f86d081884c7d659a2feaa0c55ad015"
TOOLS = [{"type": "function", "function": {"name": "bash", "description": "run", "parameters": {}}}]
USER = {"role": "user", "content": "fix the bug"}
CHAT = {"model": "m", "messages": [{"role": "system", "content": "be good"}, USER]}


def read(
    body: dict[str, Any] | bytes,
    schema: Schema = Schema.CHAT,
    *,
    headers: list[tuple[bytes, bytes]] | None = None,
    url_session: str | None = None,
    forms: NormalForms | None = None,
) -> ParsedRequest:
    parsed = try_read(body, schema, headers=headers, url_session=url_session, forms=forms)
    assert parsed is not None
    return parsed


def try_read(
    body: dict[str, Any] | bytes,
    schema: Schema = Schema.CHAT,
    *,
    headers: list[tuple[bytes, bytes]] | None = None,
    url_session: str | None = None,
    forms: NormalForms | None = None,
) -> ParsedRequest | None:
    return read_request(
        schema,
        headers or [],
        body if isinstance(body, bytes) else json.dumps(body).encode(),
        tenant="tenant",
        url_session=url_session,
        normal_forms=forms or NormalForms(seed=1),
    )


@pytest.mark.parametrize(
    ("method", "path", "schema"),
    [
        ("POST", "/v1/chat/completions", Schema.CHAT),
        ("POST", "/v1/completions", Schema.COMPLETIONS),
        ("POST", "/v1/responses", Schema.RESPONSES),
        ("POST", "/v1/messages", Schema.MESSAGES),
        ("GET", "/v1/responses", None),
        ("POST", "/v1/responses/resp_1/cancel", None),
        ("POST", "/v1/messages/count_tokens", None),
        ("POST", "/v1/embeddings", None),
        ("POST", "/s/x/v1/chat/completions", None),
    ],
)
def test_tracked_routes(method: str, path: str, schema: Schema | None) -> None:
    assert tracked_schema(method, path) is schema


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/s/run-7/v1/chat/completions", ("run-7", "/v1/chat/completions")),
        ("/s/run-7/v1/models", ("run-7", "/v1/models")),
        ("/s/run-7/v1", ("run-7", "/v1")),
        ("/v1/chat/completions", (None, "/v1/chat/completions")),
        ("/s/run-7/metrics", (None, "/s/run-7/metrics")),
        ("/s//v1/models", (None, "/s//v1/models")),
        ("/s/two words/v1/models", (None, "/s/two words/v1/models")),
        ("/s/run-7", (None, "/s/run-7")),
        ("/score", (None, "/score")),
    ],
)
def test_session_urls(path: str, expected: tuple[str | None, str]) -> None:
    assert split_session_url(path) == expected


def test_a_chat_request() -> None:
    parsed = read(
        {**CHAT, "tools": TOOLS, "stream": True, "max_completion_tokens": 64, "n": 2, "priority": 0}
    )
    assert parsed.model == "m"
    assert parsed.is_streaming
    assert not parsed.asks_usage
    assert parsed.max_tokens == 64
    assert parsed.samples == 2
    assert parsed.sets_priority
    assert parsed.evidence.schema is Schema.CHAT
    assert parsed.evidence.tenant == "tenant"
    assert parsed.evidence.has_tools
    assert len(parsed.evidence.message_digests) == 2


@pytest.mark.parametrize(
    ("schema", "members", "asks"),
    [
        (Schema.CHAT, {}, True),
        (Schema.CHAT, {"stream": True}, False),
        (Schema.CHAT, {"stream": True, "stream_options": {"include_usage": True}}, True),
        (Schema.CHAT, {"stream": True, "stream_options": {"include_usage": False}}, False),
        (Schema.CHAT, {"stream": True, "stream_options": None}, False),
        (Schema.COMPLETIONS, {"stream": True}, False),
        (Schema.RESPONSES, {"stream": True}, True),
        (Schema.MESSAGES, {"stream": True}, True),
    ],
)
def test_who_gets_usage_anyway(schema: Schema, members: dict[str, Any], asks: bool) -> None:
    body = {"messages": [USER], "input": "x", "prompt": "x", **members}
    assert read(body, schema).asks_usage is asks


def test_instructions_and_system_are_a_leading_message() -> None:
    responses = {"input": [USER], "instructions": "be good"}
    assert len(read(responses, Schema.RESPONSES).evidence.message_digests) == 2
    assert len(read({**responses, "instructions": None}, Schema.RESPONSES).evidence.message_digests) == 1
    as_text = {"messages": [USER], "system": "be good"}
    as_blocks = {"messages": [USER], "system": [{"type": "text", "text": "be good"}]}
    assert (
        read(as_text, Schema.MESSAGES).evidence.message_digests
        == read(as_blocks, Schema.MESSAGES).evidence.message_digests
    )


def test_input_as_a_string_is_a_user_message() -> None:
    as_text = read({"input": "fix the bug"}, Schema.RESPONSES)
    as_items = read({"input": [USER]}, Schema.RESPONSES)
    assert as_text.evidence.message_digests == as_items.evidence.message_digests


def test_url_session_header_and_body_in_order() -> None:
    body = {**CHAT, "session_id": "from-body"}
    header = [(b"x-session-id", b"from-header")]
    evidence = read(body, headers=header, url_session="from-url").evidence
    assert (evidence.explicit_id, evidence.explicit_level) == ("from-url", Level.URL)
    evidence = read(body, headers=header).evidence
    assert (evidence.explicit_id, evidence.explicit_level) == ("from-header", Level.HEADER)
    evidence = read(body).evidence
    assert (evidence.explicit_id, evidence.explicit_level) == ("from-body", Level.BODY)
    evidence = read(CHAT).evidence
    assert (evidence.explicit_id, evidence.explicit_level) == (None, None)


def test_previous_response_is_its_own_evidence() -> None:
    evidence = read({"input": "go on", "previous_response_id": "resp_1"}, Schema.RESPONSES).evidence
    assert (evidence.previous_response_id, evidence.explicit_id) == ("resp_1", None)


def test_echoed_ids_latest_last_and_only_unique_ones() -> None:
    def result(call_id: str) -> dict[str, Any]:
        return {"role": "tool", "tool_call_id": call_id, "content": "ok"}

    other = UUID_CALL.replace("9f86", "a1b2")
    body = {"messages": [result(UUID_CALL), result("functions.bash:0"), result("call_1"), result(other)]}
    assert read(body).evidence.echoed_call_ids == (UUID_CALL, other)


def test_a_group_has_a_name_that_could_be_a_sessions() -> None:
    found = [read({**CHAT, "prompt_cache_key": key}).evidence.group_id for key in ("k", "two words", 7, None)]
    assert found == ["k", None, None, None]
    assert read(CHAT).evidence.group_id is None


def test_family() -> None:
    def family(**members: Any) -> str | None:
        return read({**CHAT, **members}).evidence.family

    assert family(prompt_cache_key="k", user="a") == family(prompt_cache_key="k", user="b")
    assert family(prompt_cache_key="k") != family(prompt_cache_key="l")
    assert family(user="a") != family(user="b")
    assert "somebody@example.org" not in str(family(user="somebody@example.org"))
    # Without either: system prompt and tool names, whatever is asked of them.
    tools = family(tools=TOOLS)
    other_task = [CHAT["messages"][0], {"role": "user", "content": "another task"}]
    described = [{"type": "function", "function": {"name": "bash", "description": "today is Monday"}}]
    assert tools == family(tools=described, messages=other_task)
    assert tools != family()
    assert family(messages=[USER]) is None


@pytest.mark.parametrize("empty", [None, [], {}, "none"])
def test_no_tools(empty: object) -> None:
    assert not read({**CHAT, "tools": empty}).evidence.has_tools


def test_a_body_without_messages_is_known_by_the_whole_of_it() -> None:
    forms, bare = NormalForms(seed=5), {**CHAT, "messages": []}
    one, same, other = (read(body, forms=forms) for body in (bare, bare, {**bare, "seed": 1}))
    assert one.evidence == same.evidence
    assert one.evidence.body_digest != other.evidence.body_digest


def test_a_continuation_is_parsed_only_where_it_is_new() -> None:
    forms = NormalForms(seed=5)
    first = read(CHAT, forms=forms)
    known = forms.entries
    messages = [
        *CHAT["messages"],
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": "more"},
    ]
    second = read({**CHAT, "messages": messages}, forms=forms)
    assert second.evidence.message_digests[:2] == first.evidence.message_digests
    assert forms.entries == known + 2


def test_the_memory_of_forms_is_bounded_and_does_not_change_the_answer() -> None:
    forms = NormalForms(seed=5, max_entries=3)
    messages = [{"role": "user", "content": str(n)} for n in range(10)]
    digests = read({"messages": messages}, forms=forms).evidence.message_digests
    assert forms.entries == 3
    assert digests == read({"messages": messages}, forms=NormalForms(seed=99)).evidence.message_digests


def test_the_same_bytes_mean_something_else_in_another_api() -> None:
    forms = NormalForms(seed=5)
    call = {"type": "function_call", "call_id": "c", "name": "sh", "arguments": "{}"}
    chat = read({"messages": [call]}, forms=forms).evidence
    responses = read({"input": [call]}, Schema.RESPONSES, forms=forms).evidence
    assert chat.message_digests != responses.message_digests


def test_pictures_do_not_count_as_prompt() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 500_000}}
    message = {"role": "user", "content": [{"type": "text", "text": "look " * 100}, picture]}
    assert 500 < read({"messages": [message]}).prompt_bytes < 1000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"messages"',
        b'{"messages": [',
        b'{"messages": {}}',
        b'{"messages": "hi"}',
        b'{"messages": null}',
        b'{"model": "m"}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": ' + b"[" * 200_000,
        b'{"messages": [' + b'{"a":' * 200_000,
        b"\xff\xfe{}",
    ],
)
def test_what_is_not_understood_is_none(body: bytes) -> None:
    assert try_read(body) is None


@pytest.mark.parametrize(
    "members",
    [
        {"model": 5, "stream": "yes", "n": "2", "max_tokens": True, "tools": 1, "user": [], "priority": None},
        {"stream_options": "x", "vllm_xargs": 3, "metadata": [], "client_metadata": 1, "session_id": {}},
        {"n": -1, "max_tokens": 0, "tools": [None, 3, {"function": 1}], "conversation": 4},
        {"n": 10**400, "max_tokens": 1e308, "prompt_cache_key": 7, "previous_response_id": ["x"]},
    ],
)
def test_members_of_a_wrong_type_count_as_absent(members: dict[str, Any]) -> None:
    parsed = read({**CHAT, "model": "m", **members})
    assert len(parsed.evidence.message_digests) == 2
    assert parsed.samples == 1
    assert parsed.max_tokens is None
    assert not parsed.is_streaming
    assert parsed.evidence.explicit_id is None


def test_messages_that_cannot_be_decoded_still_tell_histories_apart() -> None:
    one = read(b'{"messages": [{"role": "user", "content": "\xff"}]}').evidence.message_digests
    other = read(b'{"messages": [{"role": "user", "content": "\xfe"}]}').evidence.message_digests
    assert len(one) == len(other) == 1
    assert one != other


def test_byte_order_mark_and_duplicate_keys() -> None:
    assert read(b"\xef\xbb\xbf" + json.dumps(CHAT).encode()).model == "m"
    # Python's parser, hence the backend, takes the last one.
    assert read(b'{"model": "a", "messages": [], "model": "b"}').model == "b"


def test_final_header() -> None:
    assert read(CHAT, headers=[(b"x-mars-session-final", b"true")]).is_final
    assert not read(CHAT).is_final


SEEDS = [
    json.dumps({**CHAT, "tools": TOOLS, "stream": True, "metadata": {"session_id": "s"}}).encode(),
    json.dumps({"input": [USER], "instructions": "x", "conversation": {"id": "c"}}).encode(),
    json.dumps({"prompt": ["a", "b"], "n": 2}).encode(),
    json.dumps({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}], "system": []}).encode(),
]


@given(st.sampled_from(list(Schema)), st.binary(max_size=200))
@example(Schema.RESPONSES, b'{"input":[1e999,-0,"x"]}')
@example(Schema.COMPLETIONS, b'{"prompt":[1,-1,2]}')
@example(Schema.COMPLETIONS, b'{"prompt":[[],[[[]]],null,99999999999999999999999]}')
def test_no_bytes_raise(schema: Schema, body: bytes) -> None:
    parsed = try_read(body, schema)
    assert parsed is None or parsed.schema is schema


@settings(max_examples=300)
@given(
    st.sampled_from(list(Schema)),
    st.sampled_from(SEEDS),
    st.integers(0, 250),
    st.integers(0, 8),
    st.sampled_from([b"", b"null", b"0", b"[", b"}", b'"', b"\xff", b"1e999", b"\\u0000", b"-"]),
)
def test_no_damaged_body_raises(schema: Schema, body: bytes, at: int, length: int, put: bytes) -> None:
    parsed = try_read(body[:at] + put + body[at + length :], schema)
    assert parsed is None or parsed.samples >= 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = st.sampled_from(
    [
        *("messages", "input", "prompt", "system", "instructions", "tools", "functions", "model", "stream"),
        *("stream_options", "vllm_xargs", "n", "max_tokens", "user", "metadata", "client_metadata"),
        *("session_id", "conversation", "previous_response_id", "priority"),
    ]
)


@given(st.sampled_from(list(Schema)), st.dictionaries(MEMBERS, JSON, max_size=6))
def test_no_shape_raises(schema: Schema, body: dict[str, Any]) -> None:
    parsed = try_read(body, schema)
    assert parsed is None or parsed.samples >= 1
