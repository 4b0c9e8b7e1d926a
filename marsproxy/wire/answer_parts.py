"""What every API's answer comes down to, whichever way it was sent.

Owns the vocabulary between the readers of one API each and ``answers``.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from marsproxy.core import command_text
from marsproxy.core.evidence import Digest
from marsproxy.wire.normal import UNREADABLE, NormalForm, read_json
from marsproxy.wire.sse import payloads

MAX_CALLS = 128
"""Tool calls or blocks of one answer that are kept apart; a backend that sends more is out of order."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str | None
    name: str | None
    command_digest: str | None = None
    """Hex SHA-256 of the command it asks for; None when it asks for none."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the backend counted them; None is unknown."""

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class AnswerParts:
    digests: tuple[Digest | None, ...] = ()
    """One per sample, in the order of their index."""
    call_ids: tuple[str, ...] = ()
    """Of all samples: the client goes on with one of them."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Of the first sample."""
    response_id: str | None = None
    usage: Usage = Usage()
    finish_reason: str | None = None
    is_complete: bool = False
    has_error: bool = False


class AnswerParser(Protocol):
    """Reads one answer of one API. No method raises on JSON of an unexpected shape."""

    def add_events(self, events: bytes) -> bool:
        """Complete server-sent events; whether there was one with data among them."""

    def add_body(self, body: bytes) -> None:
        """The whole answer, when it was not streamed."""

    def forget(self) -> None:
        """Keep no text from here on: the answer is too large to be digested."""

    def parts(self) -> AnswerParts: ...


def add_each(events: bytes, add_event: Callable[[bytes], None]) -> bool:
    """``add_events`` for a parser that takes them one by one."""
    has_data = False
    for payload in payloads(events):
        has_data = True
        add_event(payload)
    return has_data


def tool_call(call_id: object, name: object, arguments: object) -> ToolCall:
    return ToolCall(text(call_id) or None, text(name) or None, command_digest(arguments))


def command_digest(arguments: object) -> str | None:
    """Of ``command`` or ``cmd``, text or an argument list (Codex)."""
    if isinstance(arguments, str):
        try:
            arguments = read_json(arguments)
        except UNREADABLE:
            return None
    if not isinstance(arguments, dict):
        return None
    command = arguments.get("command", arguments.get("cmd"))
    is_list = isinstance(command, list) and all(isinstance(word, str) for word in command)
    if not command or not (is_list or isinstance(command, str)):
        return None
    return command_text.command_digest(command)


def try_digest(form: Callable[[object], NormalForm], message: object) -> Digest | None:
    try:
        return form(message).digest
    except UNREADABLE:
        return None


def text(value: object) -> str:
    return value if isinstance(value, str) else ""


def count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def member(value: object, *names: str) -> Any:
    """A member of a member of a dict; None when a step is missing or no dict."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def items(value: object) -> Iterable[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
