"""Tells the embedded engine what to answer: the tool call that the workload has there.

A model that is only asked for so many tokens never calls a tool, so to a proxy every turn looks like the
last. With scripted answers a turn that a tool follows ends in a tool call, and the others in text, as an
agent's do. The engine's field, ``vllm_xargs.mars_answer``, is described in ``backend_patch.script``; a
real vLLM passes it over.
"""

from enum import Enum
from typing import Any

import msgspec

from loadgen.workload import ToolCall, Turn

CHARS_PER_TOKEN = 4
"""Of the embedded engine."""
CALL_TOKENS = 24
"""Names and braces around a call's command."""


class AnswerMode(Enum):
    MODEL = "model"
    """What the model says."""
    CALLS = "calls"
    """Tool calls where the workload has them (embedded engine only)."""


def scripted_answer(turn: Turn, label: str) -> str:
    """``label`` stands for a command that is not traced, or too long for the answer; unique, so that it
    joins one call to one turn."""
    answer: dict[str, Any] = {"output_tokens": turn.output_tokens}
    if turn.tool is not None:
        answer |= {"tool": turn.tool.name, "args": {"command": command_of(turn.tool, turn, label)}}
    return msgspec.json.encode(answer).decode()


def command_of(tool: ToolCall, turn: Turn, label: str) -> str:
    room = (turn.output_tokens - CALL_TOKENS) * CHARS_PER_TOKEN
    return tool.command if tool.command is not None and len(tool.command) <= room else label
