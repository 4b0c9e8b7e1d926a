"""A session of a workload as a task for a real agent: what the user asks, what the model will answer.

Owns the wording: the task, the commands, and the script that the emulated model follows. Token counts and
tool times are the workload's; the commands are real, of a program in the agent's workspace (``workspace``).
Knows no framework but by its ``Dialect`` and runs nothing.
"""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec

from loadgen.errors import LoadgenError
from loadgen.text import DEFAULT_CHARS_PER_TOKEN, TextSource
from loadgen.workload import Session, Turn

LONGEST_OUTPUT_CHARS = 28_000
"""Below what OpenHands keeps of a command's output (30,000 characters, ``MAX_CMD_OUTPUT_SIZE`` in 1.58)."""
OPENING = "Work through the steps of this task in the repository, one command at a time, and finish."


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a framework's model asks for a command, and says that it is done."""

    command_tool: str
    finish_tool: str
    finish_arguments: tuple[tuple[str, str], ...]

    def command(self, command: str) -> dict[str, Any]:
        return self._call(self.command_tool, {"command": command})

    def finish(self) -> dict[str, Any]:
        return self._call(self.finish_tool, dict(self.finish_arguments))

    def _call(self, tool: str, arguments: dict[str, str]) -> dict[str, Any]:
        # As chat templates repeat arguments: else the answer's tokens are not the history's.
        return {"tool": tool, "args": msgspec.Raw(json.dumps(arguments, ensure_ascii=False).encode())}


DIALECTS = {
    "openhands": Dialect("terminal", "finish", (("message", "All steps are done."),)),
    "mini-swe-agent": Dialect("bash", "bash", (("command", "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"),)),
}


def dialect_of(framework: str) -> Dialect:
    if framework not in DIALECTS:
        raise LoadgenError(f"--framework is {framework!r}; allowed: {', '.join(sorted(DIALECTS))}")
    return DIALECTS[framework]


@dataclass(frozen=True, slots=True)
class Task:
    """Every turn but the last asks for one command."""

    session: Session
    chars_per_token: float = DEFAULT_CHARS_PER_TOKEN
    """To make texts of so many tokens."""

    @property
    def id(self) -> str:
        return self.session.id

    @property
    def steps(self) -> int:
        return len(self.session.turns) - 1

    @property
    def mark(self) -> str:
        """In the user's message, and in no other task's: the script finds the task by it."""
        return f"[{self.id}]"

    def prompt(self, text: TextSource) -> str:
        """The framework's system prompt and tools come on top, so ``system_tokens`` are not made up here."""
        filler = text.message(self.id, 0, self.session.turns[0].new_tokens)
        return f"{self.mark} {OPENING}\n\n{filler}"

    def command(self, step: int) -> str:
        """Of the step with this number, from 1."""
        turn, after = self.session.turns[step - 1], self.session.turns[step]
        duration_s, cpu_s = times_of(turn)
        chars = min(LONGEST_OUTPUT_CHARS, max(1, round(after.new_tokens * self.chars_per_token)))
        seed = Random(f"{self.id}/{step}").getrandbits(31)  # no two commands are alike
        words = ["python3", "-IS", "step.py", str(step), f"--seconds={duration_s:.3f}", f"--cpu={cpu_s:.3f}"]
        return shlex.join([*words, f"--chars={chars}", f"--seed={seed}"])

    def script_line(self, dialect: Dialect) -> bytes:
        """For ``--script`` of the embedded engine and of the emulated vLLM."""
        turns = [{**each, "output_tokens": turn.output_tokens} for turn, each in self._answers(dialect)]
        return msgspec.json.encode({"match": {"user": self.mark}, "turns": turns}) + b"\n"

    def _answers(self, dialect: Dialect) -> Iterator[tuple[Turn, dict[str, Any]]]:
        for step, turn in enumerate(self.session.turns[:-1], start=1):
            yield turn, dialect.command(self.command(step))
        yield self.session.turns[-1], dialect.finish()


def times_of(turn: Turn) -> tuple[float, float]:
    """Seconds of the command on an idle host, and those that it computes for; a pause of a user is none."""
    tool = turn.tool
    return (0.0, 0.0) if tool is None else (tool.traced_s, tool.traced_s * min(1.0, tool.cores))


def tasks_of(sessions: list[Session], chars_per_token: float) -> list[Task]:
    if short := [session.id for session in sessions if len(session.turns) < 2]:
        raise LoadgenError(f"session {short[0]!r} has one turn; an agent's task needs two or more")
    return [Task(session, chars_per_token) for session in sessions]
