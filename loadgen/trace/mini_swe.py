"""mini-swe-agent's ``.traj.json``: one run a file, with its messages.

Token counts come from the ``usage`` that the run kept with each answer, else from the length of the
text. A tool's duration is the time between the stamps of the answer and of its observation, else
``UNKNOWN_TOOL_S``. Commands come along, so a replay through the gateway can run them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from loadgen.errors import FieldError, WorkloadError
from loadgen.trace.lines import BadLines, parse_line, read_all
from loadgen.trace.own import check_session
from loadgen.workload import Session, ToolCall, Turn

CHARS_PER_TOKEN = 4.0
"""Rule of thumb for English text and code; used only where a message carries no usage."""
UNKNOWN_TOOL_S = 0.155
"""Median tool time of SWE-agent runs (profile ``autonomous``); for runs that kept no time stamps."""


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Answer(msgspec.Struct, frozen=True):
    usage: Usage | None = None


class Action(msgspec.Struct, frozen=True):
    command: str | None = None


class Extra(msgspec.Struct, frozen=True):
    timestamp: float | None = None
    actions: list[Action] = []
    response: Answer | None = None


class Message(msgspec.Struct, frozen=True):
    role: str
    content: Any = None
    extra: Extra | None = None
    tool_calls: Any = None


class Trajectory(msgspec.Struct, frozen=True):
    messages: list[Message]


def read(path: Path, bad_lines: BadLines) -> Iterator[Session]:
    try:
        yield parse_line(path, 1, read_all(path), lambda text: to_session(text, path.name.split(".")[0]))
    except WorkloadError as error:
        bad_lines.report(error)


def to_session(text: bytes, name: str) -> Session:
    messages = msgspec.json.decode(text, type=Trajectory).messages
    answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
    if not answers:
        raise FieldError("messages", "has no message of role 'assistant', so there is no turn to replay")
    turns: list[Turn] = []
    start, context = 0, 0
    for i in answers:
        asked = sum(estimated_tokens(message) for message in messages[start:i])
        usage = usage_of(messages[i])
        prompt = usage.prompt_tokens or context + asked
        output = usage.completion_tokens or estimated_tokens(messages[i])
        tool = tool_after(messages, i) if i != answers[-1] else None
        turns.append(Turn(new_tokens=max(1, prompt - context), output_tokens=output, tool=tool))
        start, context = i + 1, prompt + output
    session = Session(id=name, turns=turns)
    check_session(session)
    return session


def usage_of(message: Message) -> Usage:
    if message.extra and message.extra.response and message.extra.response.usage:
        return message.extra.response.usage
    return Usage()


def estimated_tokens(message: Message) -> int:
    text = (
        message.content if isinstance(message.content, str) else msgspec.json.encode(message.content).decode()
    )
    calls = msgspec.json.encode(message.tool_calls).decode() if message.tool_calls else ""
    return max(1, round((len(text) + len(calls)) / CHARS_PER_TOKEN))


def tool_after(messages: list[Message], i: int) -> ToolCall:
    answered = messages[i].extra or Extra()
    commands = [action.command for action in answered.actions if action.command]
    observed_at = last_observation_at(messages, i)
    duration_s = UNKNOWN_TOOL_S
    if answered.timestamp is not None and observed_at is not None:
        duration_s = observed_at - answered.timestamp
        if duration_s < 0:
            raise FieldError(
                f"messages[{i}].extra.timestamp",
                f"is {-duration_s:g} s after its observation; allowed: before it",
            )
    return ToolCall(name="bash", duration_s=duration_s, command="\n".join(commands) or None)


def last_observation_at(messages: list[Message], i: int) -> float | None:
    at = None
    for message in messages[i + 1 :]:
        if message.role == "assistant":
            break
        if message.extra and message.extra.timestamp is not None:
            at = message.extra.timestamp
    return at
