"""The answer of a chat completion, collected from server-sent events or from one JSON body.

Pure: bytes in, facts out. Decodes only the fields it needs; comments and unknown fields are passed over.
Text is kept because the next prompt repeats it; no token is ever a record of its own.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from loadgen.errors import LoadgenError

HELD_COMMENT = b": held_ms="


class FunctionPart(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class ToolCallPart(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: FunctionPart | None = None


class Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallPart] | None = None


class Choice(msgspec.Struct):
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None


class PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None


class Chunk(msgspec.Struct):
    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None


class BrokenAnswerError(LoadgenError):
    """The server said 200 and then something that is no complete answer."""


@dataclass(slots=True)
class CalledTool:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Answer:
    text: list[str] = field(default_factory=list)
    tools: list[CalledTool] = field(default_factory=list)
    finish_reason: str | None = None
    usage: Usage | None = None
    is_done: bool = False
    """``[DONE]`` was seen."""
    outputs: int = 0
    """Events with anything that the model generated; when it rises, a token has come."""
    held_ms: float | None = None
    """From the proxy's comment ``: held_ms=N``."""

    def add(self, chunk: Chunk) -> None:
        if chunk.error is not None:
            raise BrokenAnswerError("error event in the stream")
        if chunk.usage is not None:
            self.usage = chunk.usage
        if chunk.choices:
            choice = chunk.choices[0]
            self.finish_reason = choice.finish_reason or self.finish_reason
            if (delta := choice.delta or choice.message) is not None:
                self.add_delta(delta)

    def add_delta(self, delta: Delta) -> None:
        if delta.content:
            self.text.append(delta.content)
        for part in delta.tool_calls or ():
            self.add_tool_part(part)
        if delta.content or delta.tool_calls or delta.reasoning_content or delta.reasoning:
            self.outputs += 1

    def add_tool_part(self, part: ToolCallPart) -> None:
        while len(self.tools) <= part.index:
            self.tools.append(CalledTool())
        called = self.tools[part.index]
        called.id = part.id or called.id
        if part.function is not None:
            called.name = part.function.name or called.name
            if part.function.arguments:
                called.arguments.append(part.function.arguments)


class SseReader:
    """Feeds network chunks, split anywhere, into an ``Answer``."""

    def __init__(self) -> None:
        self.answer = Answer()
        self._decode = msgspec.json.Decoder(Chunk).decode
        self._rest = b""

    def feed(self, data: bytes) -> None:
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip())
            elif line.startswith(HELD_COMMENT):
                self._held(line[len(HELD_COMMENT) :])

    def finish(self) -> Answer:
        """The stream is over: whole, or ``BrokenAnswerError``."""
        self.feed(b"\n")
        if self.answer.finish_reason is None:
            raise BrokenAnswerError("the stream ended before a finish_reason")
        return self.answer

    def _held(self, number: bytes) -> None:
        with suppress(ValueError):
            self.answer.held_ms = float(number)

    def _event(self, payload: bytes) -> None:
        if payload == b"[DONE]":
            self.answer.is_done = True
            return
        try:
            chunk = self._decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise BrokenAnswerError("an event in the stream is no chat completion chunk") from exc
        self.answer.add(chunk)


def read_json_answer(body: bytes) -> Answer:
    try:
        chunk = msgspec.json.decode(body, type=Chunk)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise BrokenAnswerError("the body is no chat completion") from exc
    answer = Answer()
    answer.add(chunk)
    if answer.finish_reason is None:
        raise BrokenAnswerError("the answer has no finish_reason")
    return answer
