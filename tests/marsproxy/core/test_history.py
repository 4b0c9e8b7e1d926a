"""Prefix keys: equal exactly for equal beginnings under one schema."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.evidence import Schema, TurnEvidence
from marsproxy.core.history import History
from tests.marsproxy.core.agent_fleet import digest


def history(*messages: str, **more: Any) -> History:
    fields: dict[str, Any] = {"schema": Schema.CHAT, "tenant": "", "has_tools": True}
    fields |= {"message_digests": tuple(digest(m) for m in messages), "body_digest": digest(messages)}
    return History(TurnEvidence(**(fields | more)))


words = st.lists(st.sampled_from("abc"), max_size=6)


@given(one=words.filter(bool), two=words.filter(bool))
def test_keys_agree_as_far_as_the_messages_do(one: list[str], two: list[str]) -> None:
    keys_one, keys_two = history(*one).keys, history(*two).keys
    for length in range(min(len(one), len(two)) + 1):
        assert (keys_one[length] == keys_two[length]) == (one[:length] == two[:length])


def test_answer_continues_the_chain() -> None:
    assert history("a", "b").end.key_with(digest("c")) == history("a", "b", "c").request_key


def test_answering_twice_starts_from_the_same_end() -> None:
    end = history("a").end
    assert end.key_with(digest("x")) == end.key_with(digest("x")) != end.key_with(digest("y"))


def test_schemas_and_stored_responses_have_keys_of_their_own() -> None:
    variants = [
        history("a"),
        history("a", schema=Schema.RESPONSES),
        history("a", schema=Schema.RESPONSES, previous_response_id="r-1"),
        history("a", schema=Schema.RESPONSES, previous_response_id="r-2"),
    ]
    assert len({h.request_key for h in variants}) == 4


def test_lead_of_a_single_message_is_that_message() -> None:
    short, long = history("a"), history("a", "b", "c")
    assert short.lead == (short.keys[1], short.keys[1])
    assert long.lead == (long.keys[1], long.keys[2])
    assert short.lead[0] == long.lead[0]


def test_without_messages_the_body_stands_for_them() -> None:
    assert len(history(body_digest=digest("one"))) == 1
    assert (
        history(body_digest=digest("one")).request_key
        == history(body_digest=digest("one")).request_key
        != history(body_digest=digest("two")).request_key
    )
