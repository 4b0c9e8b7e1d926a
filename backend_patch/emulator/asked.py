"""What a script looks at, read from the bodies of vLLM's three chat APIs.

Text only: images and documents are passed over. A turn is a run of messages or items of the assistant, so
that an answer that one API keeps in one message and another in several items counts once. The history of a
response that names an earlier one (``previous_response_id``) is with the server, and counts as none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend_patch.script import Asked

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    role: str
    text: str


def asked_of_chat(body: Body, session: str | None) -> Asked:
    said = [_said(message) for message in _list(body.get("messages"))]
    return Asked(session, said, _has_tools(body))


def asked_of_messages(body: Body, session: str | None) -> Asked:
    system = [Said("system", _text(body["system"]))] if body.get("system") else []
    said = [_said(message) for message in _list(body.get("messages"))]
    return Asked(session, [*system, *said], _has_tools(body))


def asked_of_responses(body: Body, session: str | None) -> Asked:
    said = [Said("system", _text(body["instructions"]))] if body.get("instructions") else []
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else _list(given)
    for item in items:
        each = _said_by(item)
        if each.role == "assistant" and said and said[-1].role == "assistant":
            each = Said("assistant", f"{said.pop().text}\n{each.text}")
        said.append(each)
    return Asked(session, said, _has_tools(body))


ASKED = {
    "/v1/chat/completions": asked_of_chat,
    "/v1/messages": asked_of_messages,
    "/v1/responses": asked_of_responses,
}


def session_of(body: Body, xargs: Body, header: str | None) -> str | None:
    """As vLLM finds it."""
    for found in (body.get("session_id"), header, xargs.get("session_id")):
        if isinstance(found, str) and found:
            return found
    return None


def _said_by(item: Any) -> Said:
    match item:
        case {"type": "function_call" | "reasoning"}:
            return Said("assistant", "")
        case {"type": "function_call_output"}:
            return Said("tool", _text(item.get("output")))
    return _said(item)


def _said(message: Any) -> Said:
    match message:
        case {"role": str(role)}:
            return Said(role, _text(message.get("content")))
    return Said("", "")


def _text(content: Any) -> str:
    """Parts are joined as vLLM joins them for templates that take a string."""
    if isinstance(content, str):
        return content
    texts = (part if isinstance(part, str) else _part_text(part) for part in _list(content))
    return "\n".join(text for text in texts if text is not None)


def _part_text(part: Any) -> str | None:
    match part:
        case {"text": str(text)}:
            return text
    return None


def _has_tools(body: Body) -> bool:
    choice = body.get("tool_choice")
    is_off = choice == "none" or (isinstance(choice, dict) and choice.get("type") == "none")
    return bool(body.get("tools")) and not is_off


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
