"""A session's append-only message history, kept as the bytes of the JSON array it becomes.

Contexts reach hundreds of kilobytes: encoding only what a turn adds is what lets one core drive a
thousand sessions. Knows the chat completions body and no network.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from loadgen.scripted import AnswerMode, scripted_answer
from loadgen.sse import Answer
from loadgen.workload import Turn

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "bash",
            "description": "Run a command in the workspace",
            "parameters": {
                "type": "object",
                "properties": {"command": {"type": "string"}},
                "required": ["command"],
            },
        },
    }
]
"""Declared in every request, as agents do; the commands that run come from the workload."""


@dataclass(frozen=True, slots=True)
class RequestOptions:
    model: str
    stream: bool = True
    exact_output: bool = True
    """Ask for the traced number of tokens exactly (``ignore_eos``, ``min_tokens``: vLLM's fields). A scripted
    answer has that many by itself, and ends as a model's does: only then is it told to call a tool."""
    answers: AnswerMode = AnswerMode.MODEL

    def fields(self, turn: Turn, label: str) -> dict[str, Any]:
        fields: dict[str, Any] = {"model": self.model, "max_tokens": turn.output_tokens, "temperature": 0}
        if self.exact_output:
            fields["min_tokens"] = turn.output_tokens
        if self.exact_output and self.answers is AnswerMode.MODEL:
            fields["ignore_eos"] = True
        if self.answers is AnswerMode.CALLS:
            fields["vllm_xargs"] = {"mars_answer": scripted_answer(turn, label)}
        if self.stream:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        return fields | {"tools": TOOLS}


class History:
    def __init__(self, options: RequestOptions) -> None:
        self._options = options
        self._messages = bytearray(b'{"messages":[')
        self._open_calls: list[str] = []

    def append(self, message: dict[str, Any]) -> None:
        if not self._messages.endswith(b"["):
            self._messages += b","
        self._messages += msgspec.json.encode(message)

    def body(self, turn: Turn, label: str) -> bytes:
        """The request for ``turn``; ``label`` names it where an answer is scripted."""
        fields = msgspec.json.encode(self._options.fields(turn, label))
        return bytes(self._messages + b"]," + fields[1:])

    def add_answer(self, answer: Answer) -> None:
        """As the client received it; what follows answers its tool calls, if it made any."""
        message: dict[str, Any] = {"role": "assistant", "content": "".join(answer.text)}
        calls = [call for call in answer.tools if call.id]
        if calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": "".join(call.arguments)},
                }
                for call in calls
            ]
        self.append(message)
        self._open_calls = [call.id for call in calls]

    @property
    def is_calling(self) -> bool:
        """The last answer made calls that have no results yet."""
        return bool(self._open_calls)

    def add_input(self, text: str, *, is_from_user: bool = False) -> None:
        """New tokens of a turn: a tool's output, or what the user says. Every open call gets its result."""
        for i, call_id in enumerate(self._open_calls):
            content = text if i == 0 and not is_from_user else "done"
            self.append({"role": "tool", "tool_call_id": call_id, "content": content})
        if is_from_user or not self._open_calls:
            self.append({"role": "user", "content": text})
        self._open_calls = []
