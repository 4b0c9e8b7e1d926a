"""The words of docker's command line, as far as the gateway can do what they say.

Owns the options of each command and how they are written (``-it``, ``-eK=V``, ``--name=N``, ``--name N``). An
option that is not here is an error: a container that lacks what was asked for is worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

FLAG, VALUE, LIST = "flag", "value", "list"
EXIT_USAGE = 125
"""As docker answers."""


class UsageFault(Exception):
    """The message is for the user."""


class Form:
    """Of one command. ``options``: long name to kind; ``letters``: short name to long name."""

    def __init__(
        self, options: Mapping[str, str], letters: Mapping[str, str], *, stops_at_operand: bool = False
    ) -> None:
        self.options = options
        self.letters = letters
        self.stops_at_operand = stops_at_operand
        """What follows is the words of another program."""


class Words:
    def __init__(self) -> None:
        self.flags: set[str] = set()
        self.values: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}
        self.operands: list[str] = []

    def list(self, name: str) -> list[str]:
        return self.lists.get(name, [])


_ENVIRONMENT = {"env": LIST, "env-file": LIST, "workdir": VALUE}
_ENVIRONMENT_LETTERS = {"e": "env", "w": "workdir"}

RUN = Form(
    {
        **_ENVIRONMENT,
        "detach": FLAG,
        "interactive": FLAG,
        "tty": FLAG,
        "rm": FLAG,
        "name": VALUE,
        "volume": LIST,
        "entrypoint": VALUE,
        "label": LIST,
        "memory": VALUE,
        "cpus": VALUE,
        "pids-limit": VALUE,
        "network": VALUE,
        "init": FLAG,
        "quiet": FLAG,
        "pull": VALUE,
        "platform": VALUE,
        "hostname": VALUE,
        "shm-size": VALUE,
    },
    {
        **_ENVIRONMENT_LETTERS,
        "d": "detach",
        "i": "interactive",
        "t": "tty",
        "v": "volume",
        "l": "label",
        "m": "memory",
        "q": "quiet",
        "h": "hostname",
    },
    stops_at_operand=True,
)
EXEC = Form(
    {**_ENVIRONMENT, "detach": FLAG, "interactive": FLAG, "tty": FLAG},
    {**_ENVIRONMENT_LETTERS, "d": "detach", "i": "interactive", "t": "tty"},
    stops_at_operand=True,
)
STOP = Form({"time": VALUE, "timeout": VALUE, "signal": VALUE}, {"t": "time", "s": "signal"})
KILL = Form({"signal": VALUE}, {"s": "signal"})
RM = Form({"force": FLAG, "volumes": FLAG}, {"f": "force", "v": "volumes"})
CP = Form({"quiet": FLAG, "archive": FLAG}, {"q": "quiet", "a": "archive"})
INSPECT = Form({"format": VALUE, "type": VALUE, "size": FLAG}, {"f": "format", "s": "size"})
PS = Form(
    {"all": FLAG, "quiet": FLAG, "no-trunc": FLAG, "format": VALUE, "filter": LIST},
    {"a": "all", "q": "quiet", "f": "filter"},
)
FORMAT = Form({"format": VALUE}, {"f": "format"})


def read(form: Form, command: str, words: Sequence[str]) -> Words:
    """Raises UsageFault."""
    found, todo = Words(), list(words)
    while todo:
        word = todo.pop(0)
        if word == "--":
            found.operands += todo
            break
        if word.startswith("--"):
            _long(form, command, word[2:], todo, found)
        elif word.startswith("-") and word != "-":
            _short(form, command, word[1:], todo, found)
        else:
            found.operands.append(word)
            if form.stops_at_operand:
                found.operands += todo
                break
    return found


def _long(form: Form, command: str, word: str, todo: list[str], found: Words) -> None:
    name, equals, value = word.partition("=")
    kind = form.options.get(name)
    if kind is None:
        raise UsageFault(f"unknown flag: --{name}; gw-docker {command} knows {_known(form)}")
    if kind == FLAG:
        if value not in ("", "true", "false"):
            raise UsageFault(f"--{name} must be true or false, not {value!r}")
        (found.flags.discard if value == "false" else found.flags.add)(name)
        return
    _set(name, kind, value if equals else _next(f"--{name}", todo), found)


def _short(form: Form, command: str, letters: str, todo: list[str], found: Words) -> None:
    while letters:
        letter, letters = letters[0], letters[1:]
        name = form.letters.get(letter)
        if name is None:
            raise UsageFault(f"unknown shorthand flag: -{letter}; gw-docker {command} knows {_known(form)}")
        kind = form.options[name]
        if kind == FLAG:
            found.flags.add(name)
            continue
        _set(name, kind, letters.removeprefix("=") if letters else _next(f"-{letter}", todo), found)
        return


def _set(name: str, kind: str, value: str, found: Words) -> None:
    if kind == LIST:
        found.lists.setdefault(name, []).append(value)
    else:
        found.values[name] = value


def _next(option: str, todo: list[str]) -> str:
    if not todo:
        raise UsageFault(f"flag needs an argument: {option}")
    return todo.pop(0)


def _known(form: Form) -> str:
    return ", ".join(f"--{name}" for name in sorted(form.options))
