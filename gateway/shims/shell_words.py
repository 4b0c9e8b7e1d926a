"""The words that a shell was started with, read as bash reads them.

Owns which of them is the command, and whether the shell is interactive. The words themselves go to the real
shell untouched, but for one style: a prefix (``PREFIX 'whole command'``, as Claude Code wraps commands),
where the only word is the command and no file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

_OPTIONS_WITH_WORD = frozenset({"--rcfile", "--init-file"})
_LETTERS_WITH_WORD = frozenset("oO")


class ShellWords:
    def __init__(
        self, words: list[str], *, command: str | None, has_script: bool, letters: str, is_login: bool
    ) -> None:
        self.words = words
        """For the real shell, without its name."""
        self.command = command
        """Text behind -c."""
        self.has_script = has_script
        """The first operand is a file to run."""
        self.letters = letters
        self._is_login = is_login

    @property
    def is_interactive(self) -> bool:
        """It was asked to be, and to read what it runs from its input."""
        return "i" in self.letters and self.command is None and not self.has_script

    @property
    def asks_about_itself(self) -> bool:
        return bool(self.words) and self.words[0] in ("--help", "--version")

    @property
    def reads_input(self) -> bool:
        return self.command is None and not self.has_script

    @property
    def remote_words(self) -> list[str]:
        """For a shell elsewhere: the plain forms as the gateway knows them, so that it sees the command."""
        if self.command is not None and self.words[-1] == self.command and not set(self.letters) - set("lc"):
            return ["-lc" if self._is_login else "-c", self.command]
        return self.words


def read(
    words: Sequence[str], *, is_prefix: bool, is_file: Callable[[str], bool] = os.path.isfile
) -> ShellWords:
    """``is_prefix``: a single word is a command even if there is a file of that name."""
    words = list(words)
    if len(words) == 1 and not words[0].startswith("-") and (is_prefix or not is_file(words[0])):
        return ShellWords(["-c", words[0]], command=words[0], has_script=False, letters="c", is_login=False)
    letters, first = _options(words)
    operand = words[first] if first < len(words) else None
    has_command = "c" in letters and operand is not None
    return ShellWords(
        words,
        command=operand if has_command else None,
        has_script=operand is not None and not has_command and "s" not in letters,
        letters=letters,
        is_login="l" in letters or "--login" in words[:first],
    )


def _options(words: list[str]) -> tuple[str, int]:
    """Letters of the options that are switched on, and the index of the first word behind them."""
    letters, at = "", 0
    while at < len(words):
        word = words[at]
        if word in ("-", "--"):
            return letters, at + 1
        if len(word) < 2 or word[0] not in "-+":
            break
        at += 1
        if word.startswith("--"):
            at += word in _OPTIONS_WITH_WORD
            continue
        at += sum(letter in _LETTERS_WITH_WORD for letter in word[1:])
        if word[0] == "-":
            letters += word[1:]
    return letters, min(at, len(words))
