"""A shell that remembers, without a shell that stays: each command begins where the session's last one ended.

Owns the text that goes around such a command, and the file in which a session's variables and directory wait
for its next one. Must not know how commands are started.

Theory of operation. The command runs in a bash of its own, inside ``_WRAPPER``, to which its text is an
argument and never part of the program. When that bash ends, also by ``exit N`` or ``set -e``, it writes its
directory and its exported variables, each followed by a NUL, into a file of the exec: it has that open, and
may not be able to open it by name. The agent reads the file as data. What it keeps is the difference to what
the command was given, as (given, left) for each variable; so the next command gets what was left, unless
whoever orders it says something new about the same variable or directory.

Functions, aliases and shell options are not kept. Neither is anything if the command replaces its shell
(``exec``) or sets an EXIT trap of its own and then calls ``exit``: then the old state stays, and
``state_saved`` of the status is false.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gateway.host_agent.exec_directory import write_whole
from gateway.host_agent.process import STATE_FD
from gateway.host_agent.wire import MARKER, OWNER

MAX_STATE_BYTES = 1 << 20
"""Of all variables of a session together."""
MAX_VARIABLE_BYTES = 1 << 17
"""No program can be given a longer one (MAX_ARG_STRLEN of the kernel)."""

_NOT_KEPT = frozenset({"_", "SHLVL", "PWD", MARKER, OWNER})
"""Set anew by every shell, or by us."""

_LEAVE = (
    r"__mars_leave() { local IFS=$' \t\n' __mars_name"
    r"; set +eu; [[ ${__mars_has_left-} ]] && return 0; __mars_has_left=1"
    r'; { builtin printf "%s\0" "$PWD"'
    r"; while builtin read -r __mars_name"
    r'; do builtin printf "%s=%s\0" "$__mars_name" "${!__mars_name}"; done < <(builtin compgen -e)'
    rf'; builtin printf "end\0"; }} 2>/dev/null >&{STATE_FD}; }}'
)
_WRAPPER = "; ".join(
    (
        r"__mars_text=$1",
        r"shift",
        _LEAVE,
        r"trap '{ __mars_status=$?; set +x; } 2>/dev/null; __mars_leave; exit $__mars_status' EXIT",
        r'eval "$__mars_text"',
        r"{ __mars_status=$?; set +x; } 2>/dev/null",
        r"__mars_leave",
        r"exit $__mars_status",
    )
)
"""On one line, so that line numbers in messages are those of the command. The last three are for commands
that set an EXIT trap of their own, which replaces ours, and come to their end without ``exit``."""


class NoShell(Exception):
    """The command is not one that a bash reads."""


@dataclass(frozen=True)
class ShellState:
    ordered_cwd: str = ""
    cwd: str | None = None
    """None: nothing was left."""
    changed: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)
    """Name of a variable -> what it was given as and what it was left as; None is unset."""

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        env = dict(given)
        for name, (before, left) in self.changed.items():
            if given.get(name) == before:
                if left is None:
                    env.pop(name, None)
                else:
                    env[name] = left
        return env

    def directory(self, ordered_cwd: str) -> str | None:
        """None: as it was ordered."""
        return self.cwd if ordered_cwd == self.ordered_cwd else None


def wrapped(argv: Sequence[str]) -> list[str]:
    """Raises NoShell."""
    if len(argv) != 3 or Path(argv[0]).name != "bash" or argv[1] not in ("-c", "-lc"):
        raise NoShell
    shell, option, text = argv
    return [shell, option, _WRAPPER, shell, text]


class ShellStates:
    """Of all sessions, each in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def of(self, session: str) -> ShellState:
        try:
            fields = json.loads(self._file(session).read_bytes())
            changed = {name: (before, left) for name, (before, left) in fields["changed"].items()}
            return ShellState(fields["ordered_cwd"], fields["cwd"], changed)
        except (OSError, ValueError, KeyError, TypeError):
            return ShellState()

    def keep(self, session: str, left_at: Path, ordered_cwd: str, given: Mapping[str, str]) -> bool:
        """What a command wrote to ``left_at``. False: that is not whole, or too large, and the old stays."""
        left = _read(left_at)
        if left is None:
            return False
        cwd, variables = left
        changed = {
            name: (given.get(name), variables.get(name))
            for name in {*given, *variables} - _NOT_KEPT
            if given.get(name) != variables.get(name)
        }
        state = {"ordered_cwd": ordered_cwd, "cwd": cwd, "changed": changed}
        try:
            write_whole(self._file(session), json.dumps(state).encode())
        except OSError:
            return False
        return True

    def remove(self, session: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._file(session).unlink()

    def _file(self, session: str) -> Path:
        return self._path / hashlib.sha256(session.encode("utf-8", "surrogatepass")).hexdigest()


def _read(left_at: Path) -> tuple[str, dict[str, str]] | None:
    try:
        with left_at.open("rb") as file:
            data = file.read(MAX_STATE_BYTES + 1)
    except OSError:
        return None
    cwd, *variables = data.split(b"\0")
    if len(data) > MAX_STATE_BYTES or variables[-2:] != [b"end", b""] or not cwd:
        return None
    if any(len(each) >= MAX_VARIABLE_BYTES for each in variables):
        return None
    pairs = (_text(each).partition("=") for each in variables[:-2])
    return _text(cwd), {name: value for name, _, value in pairs}


def _text(data: bytes) -> str:
    """As ``os.environ`` has it: bytes that are not UTF-8 survive."""
    return data.decode("utf-8", "surrogateescape")
