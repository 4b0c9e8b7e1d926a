"""Tells the engine what to answer: the tool call that the workload has there.

A model that is only asked for so many tokens never calls a tool, so to a proxy every turn looks like the
last. With scripted answers a turn that a tool follows ends in a tool call, and the others in text, as an
agent's do. The field for it, ``vllm_xargs.mars_answer``, is described in ``backend_patch.script``. The
embedded engine and the emulated vLLM act on it; a vLLM with a model of its own passes it over.
"""

import json
from enum import Enum
from typing import Any

import msgspec

from loadgen.workload import ToolCall, Turn

CHARS_PER_TOKEN = 2
"""Of a shell command, at the least: real tokenizers cut digits one by one and take paths apart (the emulated
vLLM's tiny model has 1.6 to 3.4 on commands of coding agents), the embedded engine's has 4."""
CALL_TOKENS = 24
"""Names, braces and tags around a call's command, and the token that ends the answer."""


class AnswerMode(Enum):
    MODEL = "model"
    """What the model says."""
    CALLS = "calls"
    """Tool calls where the workload has them (embedded engine and emulated vLLM)."""


def scripted_answer(turn: Turn, label: str) -> str:
    """``label`` stands for a command that is not traced, or too long for the answer; unique, so that it
    joins one call to one turn."""
    answer: dict[str, Any] = {"output_tokens": turn.output_tokens}
    if turn.tool is not None:
        answer |= {"tool": turn.tool.name, "args": arguments_of(command_of(turn.tool, turn, label))}
    return msgspec.json.encode(answer).decode()


def arguments_of(command: str) -> msgspec.Raw:
    """In the very style that chat templates write them in when they come back as history. In another, the
    tokens of the answer would not be those of the next prompt, and its prefix would not be found."""
    return msgspec.Raw(json.dumps({"command": command}, ensure_ascii=False).encode())


def command_of(tool: ToolCall, turn: Turn, label: str) -> str:
    room = (turn.output_tokens - CALL_TOKENS) * CHARS_PER_TOKEN
    return tool.command if tool.command is not None and len(tool.command) <= room else label
