"""The same conversation asks the same of a script, whichever API it comes through."""

import pytest

from backend_patch.emulator.asked import (
    ASKED,
    Body,
    asked_of_chat,
    asked_of_messages,
    asked_of_responses,
    session_of,
)
from backend_patch.script import Match

CHAT: Body = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Fix it"}, {"type": "image_url"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "done"},
        {"role": "assistant", "content": "Well."},
        {"role": "user", "content": "Thanks"},
    ],
    "tools": [{"type": "function"}],
}
MESSAGES: Body = {
    "system": [{"type": "text", "text": "Be brief."}],
    "messages": [
        {"role": "user", "content": "Fix it"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "bash", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "done"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Well."}]},
        {"role": "user", "content": "Thanks"},
    ],
    "tools": [{"name": "bash"}],
}
RESPONSES: Body = {
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "Fix it"}]},
        {"type": "reasoning", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hm."}]},
        {"type": "function_call", "call_id": "1", "name": "bash", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "done"},
        {"role": "assistant", "content": "Well."},
        {"role": "user", "content": "Thanks"},
    ],
    "tools": [{"type": "function", "name": "bash"}],
}
BODIES = {"/v1/chat/completions": CHAT, "/v1/messages": MESSAGES, "/v1/responses": RESPONSES}


def test_there_is_a_body_for_every_api() -> None:
    assert BODIES.keys() == ASKED.keys()


@pytest.mark.parametrize("path", BODIES)
def test_a_conversation_is_read(path: str) -> None:
    asked = ASKED[path](BODIES[path], "s1")
    assert asked.turn == 2
    assert asked.fits(Match(session="s1", user="Fix it", system="brief", tools=True, turn=2))
    assert asked.fits(Match(user="Thanks"))
    assert not asked.fits(Match(user="done")), "what a tool says is not what the user says"
    assert not asked.fits(Match(user="Be brief."))


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "body", [{}, {"messages": 3, "input": 3, "system": 3}, {"messages": [3], "input": [3]}]
)
def test_nonsense_asks_for_nothing(path: str, body: Body) -> None:
    assert ASKED[path](body, None).turn == 0


def test_tools_that_must_not_be_called_do_not_count() -> None:
    assert not asked_of_chat({**CHAT, "tool_choice": "none"}, None).has_tools
    assert not asked_of_messages({**MESSAGES, "tool_choice": {"type": "none"}}, None).has_tools
    assert not asked_of_chat({**CHAT, "tools": None}, None).has_tools


def test_a_response_to_a_plain_text() -> None:
    asked = asked_of_responses({"input": "Fix it"}, None)
    assert asked.turn == 0
    assert asked.fits(Match(user="Fix it", tools=False))


def test_the_session_is_found_as_vllm_finds_it() -> None:
    xargs = {"session_id": "x"}
    assert session_of({"session_id": "b"}, xargs, "h") == "b"
    assert session_of({}, xargs, "h") == "h"
    assert session_of({"session_id": 3}, xargs, None) == "x"
    assert session_of({}, {}, None) is None
