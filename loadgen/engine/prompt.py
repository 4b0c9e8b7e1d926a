"""From chat messages to the bytes the engine counts as tokens: a small ChatML-like template.

Each message is ``<|role|>``, its content, its tool calls, ``<|end|>``; the tools go into the system
message, as the Hermes and Qwen templates put them. Every piece is filled up to whole tokens, so a
prompt that continues another shares all of its tokens, and an assistant message renders to exactly the
tokens that were generated for it.
"""

from collections.abc import Iterable, Sequence

import msgspec

from loadgen.engine.tokens import encode


class Part(msgspec.Struct):
    """One part of a multi-part content; anything that is not text renders as its type."""

    type: str = "text"
    text: str | None = None


class FunctionCall(msgspec.Struct):
    name: str
    arguments: str | dict[str, object] | None = None


class ToolCallMessage(msgspec.Struct):
    function: FunctionCall
    id: str | None = None


class Message(msgspec.Struct):
    role: str
    content: str | list[Part | str] | None = None
    tool_calls: list[ToolCallMessage] | None = None

    @property
    def text(self) -> str:
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        # vLLM joins text parts with a newline for templates that want a string
        return "\n".join(_part_text(part) for part in self.content)


def render_chat(
    messages: Sequence[Message], tools: Sequence[msgspec.Raw] = (), *, generation_prompt: bool = True
) -> bytes:
    pieces: list[bytes] = []
    declared = _declare_tools(tools)
    if declared and (not messages or messages[0].role not in ("system", "developer")):
        pieces += [_opening("system"), declared, _closing()]
        declared = b""
    for message in messages:
        calls = [(call.function.name, _arguments(call.function)) for call in message.tool_calls or ()]
        pieces += [_opening(message.role), assistant_body(message.text, calls), declared, _closing()]
        declared = b""
    if generation_prompt:
        pieces.append(_opening("assistant"))
    return b"".join(pieces)


def assistant_body(text: str, calls: Iterable[tuple[str, str]]) -> bytes:
    """What a model generates to say ``text`` and make these ``(name, arguments)`` calls."""
    return encode(text) + b"".join(tool_call_body(name, arguments) for name, arguments in calls)


def tool_call_body(name: str, arguments: str) -> bytes:
    return encode(f"{tool_call_opening(name)}{arguments}}}\n</tool_call>")


def tool_call_opening(name: str) -> str:
    """Everything of a call before its arguments."""
    return f'<tool_call>\n{{"name": {msgspec.json.encode(name).decode()}, "arguments": '


def _opening(role: str) -> bytes:
    return encode(f"<|{role}|>\n")


def _closing() -> bytes:
    return b"<|end|>\n"


def _declare_tools(tools: Sequence[msgspec.Raw]) -> bytes:
    if not tools:
        return b""
    return encode("\n\n# Tools\n<tools>\n") + b"".join(encode(bytes(tool).decode()) for tool in tools)


def _arguments(function: FunctionCall) -> str:
    if isinstance(function.arguments, str):
        return function.arguments
    return msgspec.json.encode(function.arguments or {}).decode()


def _part_text(part: Part | str) -> str:
    if isinstance(part, str):
        return part
    return part.text if part.text is not None else f"<|{part.type}|>"
