"""The text that a command is known by, on both sides: in a tool call that asks for it and at the gateway
that runs it.

A model asks for ``bash -lc TEXT`` as text, as ``["bash", "-lc", TEXT]`` or as TEXT alone, and a shim in
between may change the one into the other. All of them are TEXT; other argument lists are the line that one
would type. Knows nothing of who runs it.
"""

import shlex
from collections.abc import Sequence
from hashlib import sha256

SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh"})
MAX_OPTIONS = 6
"""Words between a shell and its script: ``bash --noprofile --norc -e -o pipefail -c`` has six."""


def command_text(argv: Sequence[str]) -> str:
    """Of an argument list; "" of an empty one."""
    script = _script(argv)
    return shlex.join(argv) if script is None else script


def command_digest(command: str | Sequence[str]) -> str:
    """Hex SHA-256 of a command's text."""
    text = command if isinstance(command, str) else command_text(command)
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _script(argv: Sequence[str]) -> str | None:
    """What a shell is given to run, if that is all it is given: further words are its parameters, and then
    the script alone does not say what is run."""
    words = argv[1:] if argv and argv[0] in ("env", "/usr/bin/env") else argv
    if not words or words[0].rpartition("/")[2] not in SHELLS:
        return None
    options = words[1:-1]
    if not options or len(options) > MAX_OPTIONS or not _ends_in_c(options):
        return None
    return words[-1]


def _ends_in_c(options: Sequence[str]) -> bool:
    """Only options, the last of them with the ``c`` that takes the script: ``-c``, ``-lc``, ``-euxc``. The
    word after ``-o`` is its value."""
    *others, last = options
    for before, word in zip(("", *others), others, strict=False):
        if not word.startswith("-") and not before.endswith("o"):
            return False
    return last.startswith("-") and not last.startswith("--") and last.endswith("c")
