"""Answers written in advance: the file of ``--script`` and the ``mars_answer`` request field.

One format for the embedded engine and the emulated vLLM. Knows no engine, no HTTP and no chat template.

A script is JSON Lines; empty lines and lines that start with ``#`` are skipped. Each line names the
requests it is for and what they get, turn by turn::

    {"match": {"user": "Fix the bug"},
     "turns": [{"text": "Let me look.", "tool": "bash", "args": {"command": "ls"}},
               {"tools": [{"name": "bash", "args": {"command": "pytest"}},
                          {"name": "bash", "args": {"command": "git diff"}}]},
               {"text": "Done.", "output_tokens": 120}],
     "after": "last"}

``match`` (all of what is given must hold; ``{}`` or absent matches everything):

* ``session``: the session id that the request carries (``X-Session-ID``, body ``session_id`` or
  ``vllm_xargs.session_id``), exactly;
* ``user``, ``system``: a substring of any message of that role;
* ``tools``: whether the request declares tools;
* ``last``: a substring of the last message, whoever's it is; with it a script can follow what tools
  answered, also where the client rewrites its history;
* ``turn``: the index of the turn, the number of assistant messages in the history.

``turns`` are indexed by that same number, so a retry gets the same answer; with ``match.turn`` the
list has the one answer. ``after`` says what follows the last: ``last`` (default) repeats it, ``none``
leaves the request to the next line or to a generated answer.

An answer has ``text``, one call (``tool``, ``args``) or several (``tools``), and ``output_tokens``: the
text is lengthened with filler until the answer has that many tokens (a longer one stays as it is).
The arguments reach the client with the very characters of the file. An answer that calls tools is
passed over for a request that declares none, as a title or summary request does.

``vllm_xargs.mars_answer`` holds one such answer as a JSON string and goes before any script;
``vllm_xargs.mars_output_tokens`` sets the number of tokens of an answer otherwise generated.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import msgspec

logger = logging.getLogger(__name__)

NO_ARGUMENTS = msgspec.Raw(b"{}")


class ScriptError(ValueError):
    """The script or the answer field is not what the module describes; says where and why."""


class SaidMessage(Protocol):
    """What a script looks at in a message of the history."""

    @property
    def role(self) -> str: ...

    @property
    def text(self) -> str: ...


class ToolUse(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    args: msgspec.Raw = NO_ARGUMENTS

    @property
    def arguments(self) -> str:
        return bytes(self.args).decode()


class ScriptedAnswer(msgspec.Struct, forbid_unknown_fields=True):
    text: str = ""
    tool: str | None = None
    args: msgspec.Raw = NO_ARGUMENTS
    tools: list[ToolUse] = []
    output_tokens: int | None = None

    @property
    def calls(self) -> list[ToolUse]:
        single = [ToolUse(self.tool, self.args)] if self.tool is not None else []
        return single + self.tools


class Match(msgspec.Struct, forbid_unknown_fields=True):
    session: str | None = None
    user: str | None = None
    system: str | None = None
    last: str | None = None
    tools: bool | None = None
    turn: int | None = None


class ScriptLine(msgspec.Struct, forbid_unknown_fields=True):
    turns: list[ScriptedAnswer]
    match: Match = msgspec.field(default_factory=Match)
    after: Literal["last", "none"] = "last"

    def answer(self, asked: "Asked") -> ScriptedAnswer | None:
        if not asked.fits(self.match):
            return None
        turn = 0 if self.match.turn is not None else asked.turn
        if turn >= len(self.turns) and self.after == "none":
            return None
        answer = self.turns[min(turn, len(self.turns) - 1)]
        return None if answer.calls and not asked.has_tools else answer


@dataclass(frozen=True, slots=True)
class Asked:
    """What a script may look at in a request."""

    session: str | None
    messages: Sequence[SaidMessage]
    has_tools: bool

    @property
    def turn(self) -> int:
        return sum(1 for message in self.messages if message.role == "assistant")

    def fits(self, match: Match) -> bool:
        return (
            (match.session is None or match.session == self.session)
            and (match.tools is None or match.tools == self.has_tools)
            and (match.turn is None or match.turn == self.turn)
            and (match.user is None or self._says("user", match.user))
            and (match.system is None or self._says("system", match.system))
            and (match.last is None or self._ends_with(match.last))
        )

    def _says(self, role: str, words: str) -> bool:
        return any(message.role == role and words in message.text for message in self.messages)

    def _ends_with(self, words: str) -> bool:
        return bool(self.messages) and words in self.messages[-1].text


class Script:
    def __init__(self, lines: Sequence[ScriptLine] = ()) -> None:
        self._lines = list(lines)

    @property
    def is_empty(self) -> bool:
        return not self._lines

    @classmethod
    def read(cls, path: Path) -> "Script":
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise ScriptError(f"script {path}: {exc}") from exc
        return cls(
            [
                _parse_line(line, f"script {path}, line {number}")
                for number, line in enumerate(text.splitlines(), 1)
                if line.strip() and not line.lstrip().startswith("#")
            ]
        )

    def answer(self, asked: Asked) -> ScriptedAnswer | None:
        """The answer of the first line that has one for this request."""
        for line in self._lines:
            if (answer := line.answer(asked)) is not None:
                return answer
        return None


class ScriptFile:
    """A script that may be replaced while it is played: read again when its file is another one.

    The file is to be replaced as a whole (``os.replace``). A new one that is no script is reported once,
    and what was read before goes on being played.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_of = self._file()
        self._script = Script.read(path)

    @property
    def is_empty(self) -> bool:
        return self._current().is_empty

    def answer(self, asked: Asked) -> ScriptedAnswer | None:
        return self._current().answer(asked)

    def _current(self) -> Script:
        file = self._file()
        if file is not None and file != self._read_of:
            self._read_of = file
            try:
                self._script = Script.read(self._path)
            except ScriptError:
                logger.exception("the script before it stays")
        return self._script

    def _file(self) -> tuple[int, int] | None:
        """What tells it from another one of that name; None while there is none."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns


def parse_answer(text: str) -> ScriptedAnswer:
    """The ``mars_answer`` field."""
    try:
        return msgspec.json.decode(text, type=ScriptedAnswer)
    except (msgspec.DecodeError, msgspec.ValidationError) as exc:
        raise ScriptError(f"mars_answer: {exc}") from exc


def _parse_line(line: str, where: str) -> ScriptLine:
    try:
        parsed = msgspec.json.decode(line, type=ScriptLine)
    except (msgspec.DecodeError, msgspec.ValidationError) as exc:
        raise ScriptError(f"{where}: {exc}") from exc
    if not parsed.turns:
        raise ScriptError(f"{where}: turns must have at least one answer")
    return parsed
