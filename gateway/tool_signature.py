"""The name of the program that a command runs, and never a word more.

What is learned about tools is learned by name, and the name leaves this process; arguments, which may be
secrets, must not. So whatever is not plainly the name of a program is unknown.
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
    """By which what a command takes is learned: its program, and the subcommand of those that have some."""
    return program_name(command)
