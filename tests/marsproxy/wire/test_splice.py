"""Members are added without touching another byte, or not at all."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.evidence import Schema
from marsproxy.wire.forms import NormalForms
from marsproxy.wire.requests import ParsedRequest, read_request
from marsproxy.wire.splice import add_xargs, ask_usage

USER = {"role": "user", "content": 'say "stream_options": {} and \\"stream_options\\"'}


def parse(body: bytes, schema: Schema = Schema.CHAT) -> ParsedRequest:
    parsed = read_request(schema, [], body, tenant="", url_session=None, normal_forms=NormalForms(seed=1))
    assert parsed is not None
    return parsed


def asked(body: bytes, schema: Schema = Schema.CHAT) -> bytes | None:
    return ask_usage(body, parse(body, schema))


def chat(**members: Any) -> bytes:
    return json.dumps({"model": "m", "stream": True, **members, "messages": [USER]}).encode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"stream":true,"messages":[]}',
            b'{"stream_options":{"include_usage":true},"stream":true,"messages":[]}',
        ),
        (
            b'\xef\xbb\xbf \r\n{ "stream": true, "messages": [] } ',
            b'\xef\xbb\xbf \r\n{"stream_options":{"include_usage":true}, "stream": true, "messages": [] } ',
        ),
        (
            b'{"stream":true, "stream_options" : {"x": 1.50} ,"messages":[]}',
            b'{"stream":true, "stream_options" : {"x":1.50,"include_usage":true} ,"messages":[]}',
        ),
        (
            b'{"stream":true,"stream_options":{},"messages":[]}',
            b'{"stream":true,"stream_options":{"include_usage":true},"messages":[]}',
        ),
        (
            b'{"stream":true,"stream_options":null,"messages":[]}',
            b'{"stream":true,"stream_options":{"include_usage":true},"messages":[]}',
        ),
        (
            b'{"stream":true,"stream_options":{"include_usage": false},"messages":[]}',
            b'{"stream":true,"stream_options":{"include_usage":true},"messages":[]}',
        ),
    ],
)
def test_asking(body: bytes, expected: bytes) -> None:
    assert asked(body) == expected


def test_names_inside_strings_do_not_mislead() -> None:
    body = chat(stream_options={"include_usage": False})
    result = asked(body)
    assert result is not None
    assert json.loads(result) == {**json.loads(body), "stream_options": {"include_usage": True}}


def test_a_member_of_the_same_name_deeper_down_does_not_matter_when_ours_is_absent() -> None:
    body = chat(metadata={"stream_options": {}})
    result = asked(body)
    assert result == b'{"stream_options":{"include_usage":true},' + body[1:]


@pytest.mark.parametrize(
    "body",
    [
        chat(stream=False),
        chat(stream_options={"include_usage": True}),
        chat(n=2),
        chat(stream_options={"continuous_usage_stats": True}),
        chat(stream_options=[1]),
        chat(stream_options={}, metadata={"stream_options": {}}),
        chat(stream_options={}, user="stream_options"),
        b'{"stream":true,"stream\\u005foptions":{},"messages":[]}',
        b'{"stream":true,"stream_options":{},"stream_options":{"a":1},"messages":[]}',
    ],
)
def test_left_alone(body: bytes) -> None:
    assert asked(body) is None


def test_completions_are_asked_like_chat_and_the_other_apis_never() -> None:
    body = b'{"prompt":"x","input":"x","messages":[],"stream":true}'
    assert asked(body, Schema.COMPLETIONS) is not None
    assert asked(body, Schema.RESPONSES) is None
    assert asked(body, Schema.MESSAGES) is None
    batch = b'{"prompt":["x","y"],"stream":true}'
    assert asked(batch, Schema.COMPLETIONS) is None


def test_xargs_join_those_of_the_client_which_win() -> None:
    body = chat(vllm_xargs={"mars_ttl_ms": 5, "own": "x"})
    result = add_xargs(body, parse(body), {"mars_ttl_ms": 800, "mars_final": 1})
    assert result is not None
    assert json.loads(result)["vllm_xargs"] == {"mars_ttl_ms": 5, "own": "x", "mars_final": 1}
    assert add_xargs(chat(vllm_xargs=3), parse(chat(vllm_xargs=3)), {"mars_final": 1}) is None


def test_both_can_be_added_with_one_parse() -> None:
    body = chat()
    parsed = parse(body)
    with_usage = ask_usage(body, parsed)
    assert with_usage is not None
    both = add_xargs(with_usage, parsed, {"mars_ttl_ms": 800})
    assert both is not None
    expected = {"stream_options": {"include_usage": True}, "vllm_xargs": {"mars_ttl_ms": 800}}
    assert json.loads(both) == {**json.loads(body), **expected}


def test_nothing_is_added_to_an_empty_object() -> None:
    body = b"{ }"
    assert add_xargs(body, parse(body, Schema.COMPLETIONS), {"mars_final": 1}) is None


OPTIONS = st.none() | st.dictionaries(
    st.sampled_from(["include_usage", "stream_options", "x"]), st.booleans() | st.none() | st.text(max_size=5)
)


@given(
    st.dictionaries(st.text(max_size=5) | st.just("metadata"), OPTIONS | st.text(max_size=15), max_size=4),
    OPTIONS | st.just("absent"),
    st.sampled_from([None, 2]),
    st.booleans(),
)
def test_asking_changes_nothing_else(
    others: dict[str, Any], options: Any, indent: int | None, is_last: bool
) -> None:
    known = {"stream": True, "messages": [USER]} | (
        {} if options == "absent" else {"stream_options": options}
    )
    value = {**others, **known} if is_last else {**known, **others}
    value["stream"] = True
    value["messages"] = [USER]
    body = json.dumps(value, indent=indent).encode()
    result = asked(body)
    if result is not None:
        spliced = json.loads(result)
        assert spliced.pop("stream_options")["include_usage"] is True
        value.pop("stream_options", None)
        assert spliced == value
