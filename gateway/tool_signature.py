"""The names of the programs that a command runs, and of their subcommands, and never a word more.

What is learned about tools is learned by name, and the name leaves this process; arguments, which may be
secrets, must not. So whatever is not plainly the name of a program, or a subcommand that we know, is unknown.
"""

import re
from pathlib import PurePosixPath

MAX_CHARS = 64
"""Of a name: twice the longest of a Debian system's programs."""

_PREFIX = re.compile(
    r"""\s*(?:
        cd\s+[^\s;&|<>$`\\'"()]+\s*(?:&&|;)                                  # where it runs
      | [A-Za-z_]\w*=(?:'[^']*'|"[^"\\$`]*"|[^\s'"$`\\();&|<>]*)(?=\s)       # its environment
    )""",
    re.VERBOSE,
)
"""What agents put in front of the program. A value with anything unusual in it is not skipped, and then
no name is found: half of a value must not be taken for one."""
_PROGRAM = re.compile(r"\s*([\w.+/-]+)(?=[\s;&|<>)]|$)")

_SUBCOMMANDS = {
    "apt-get": "install update upgrade remove",
    "cargo": "bench build check clippy fmt run test",
    "conda": "create install list run update",
    "docker": "build exec images logs ps pull run stop",
    "dotnet": "build restore run test",
    "git": "add apply blame branch checkout clone commit diff fetch grep log ls-files merge pull push rebase"
    " reset restore rev-parse rm show stash status switch tag worktree",
    "go": "build fmt generate get install mod run test vet",
    "npm": "ci install run start test",
    "pip": "download freeze install list show uninstall wheel",
    "pnpm": "add build install run test",
    "poetry": "add build install lock run",
    "uv": "add build lock pip run sync",
    "yarn": "add build install run test",
}
"""Those that tell commands of one program apart. Any other word may be a password."""
_MODULES = "build compileall mypy pip pytest timeit tox unittest venv"
"""The same for ``python -m``."""
_MAX_PARTS = 4
_MAX_OPTIONS = 8
"""Words that are looked at for a subcommand."""

_SPACE = r"[^\S\n]*"
_WORD = r"""(?:[^\s;&|<>()'"\\`$#{}]|'[^']*'|"[^"\\`$]*"|\\.|\$\w+)++"""
"""Quotes as a shell has them, as far as nothing in them is run."""
_FIRST_WORD = re.compile(
    rf"""{_SPACE}(?:
        (?:time|nohup) (?=\s)
      | timeout (?: \s+ -k \s* [\d.]+[smhd]? )? \s+ [\d.]+[smhd]? (?=\s)
      | nice (?: \s+ -n \s* -?\d+ )? (?=\s)
    )?""",
    re.VERBOSE,
)
"""Programs that only run another one, whose own arguments are numbers."""
_REST = re.compile(rf"(?:{_SPACE}(?:\d*(?:>>|>&|<&|>|<|&>>|&>)(?!<){_SPACE}{_WORD}|{_WORD}))*+{_SPACE}")
_JOINT = re.compile(r"(?:&&|\|\||\|&?|;|\n)\s*")
_KEYWORDS = frozenset({"case", "do", "else", "for", "function", "if", "select", "then", "until", "while"})


def program_name(command: str) -> str | None:
    """Of the first program of a shell command; None when it is not plain to see."""
    begin = 0
    while (prefix := _PREFIX.match(command, begin)) is not None:
        begin = prefix.end()
    found = _PROGRAM.match(command, begin)
    if found is None:
        return None
    name = PurePosixPath(found[1]).name
    return name if 0 < len(name) <= MAX_CHARS else None


def command_signature(command: str) -> str | None:
    """By which it is learned what a command takes: its programs in order, and the subcommand of those that
    have some. "…" stands for what was not understood, such as loops and here-documents, so that a long
    command is not taken for the short one that it begins with."""
    parts: list[str] = []
    begin = 0
    while begin < len(command):
        if len(parts) == _MAX_PARTS:
            return _joined([*parts, "…"])
        found = _part(command, begin)
        if found is None:
            return _joined([*parts, "…"]) if parts else None
        part, begin = found
        parts.append(part)
        if begin < len(command):
            joint = _JOINT.match(command, begin)
            if joint is None:
                return _joined([*parts, "…"])
            begin = joint.end()
    return _joined(parts) if parts else None


def signature_parts(signature: str) -> list[str]:
    return signature.split(" + ")


def _joined(parts: list[str]) -> str:
    return " + ".join(parts)


def _part(command: str, begin: int) -> tuple[str, int] | None:
    """The program that is run there, and where its arguments end."""
    while (prefix := _PREFIX.match(command, begin)) is not None:
        begin = prefix.end()
    first = _FIRST_WORD.match(command, begin)
    found = _PROGRAM.match(command, begin if first is None else first.end())
    if found is None:
        return None
    name = PurePosixPath(found[1]).name
    if not 0 < len(name) <= MAX_CHARS or name in _KEYWORDS:
        return None
    rest = _REST.match(command, found.end())
    assert rest is not None, "it matches nothing at least"
    return _with_subcommand(name, command[found.end() : rest.end()].split(maxsplit=_MAX_OPTIONS)), rest.end()


def _with_subcommand(name: str, words: list[str]) -> str:
    while words and words[0].startswith("--"):
        words = words[1:]
    if name.startswith("python") and words[:1] == ["-m"]:
        known, words = _MODULES, words[1:]
    else:
        known = _SUBCOMMANDS.get("pip" if name.startswith("pip") else name, "")
    return f"{name} {words[0]}" if words and words[0] in known.split() else name
