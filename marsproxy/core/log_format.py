"""What a line of the event log may hold, besides how it is written: the vocabulary that its readers share.

The proxy writes and reads logs (``marsproxy.eventlog``), the load generator reads them; both build their
decoders from the types in here, so neither can name what the other does not know.

Each process writes files of its own, and each file begins with a ``LogHeader``: what is needed to make the
policy of that process again, and which piece of its log this is. A piece that is missing, by rotation or
because lines were lost, makes an exact replay impossible, and can be seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from marsproxy.core.commands import Command
from marsproxy.core.events import Event
from marsproxy.core.settings import PolicySettings

FORMAT_VERSION = 2
"""Rises when a reader of the version before could misunderstand a line. 1 had no header."""


@dataclass(frozen=True, slots=True)
class LogHeader:
    """First line of every file."""

    format: int
    version: str
    """Of the package that wrote it."""
    process: str
    """The same in all files of one process, and in no other."""
    piece: int
    """1 is the first file of the process."""
    policy: str
    """Its name in ``marsproxy.core.policies``."""
    settings: PolicySettings
    backends: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LinesLost:
    """Here lines are missing: the disk was too slow, or refused them."""

    lines: int


@dataclass(frozen=True, slots=True)
class StateAdopted:
    """From here on the policy is one that other replicas have made: what comes before does not lead to it."""

    open_turns: int
    """It had, before those of this process were told to it."""


Entry = LogHeader | LinesLost | StateAdopted | Event | Command

EVENTS: tuple[type[Event], ...] = get_args(Event)
COMMANDS: tuple[type[Command], ...] = get_args(Command)

ENTRY_TYPES: Mapping[str, type[Entry]] = {
    kind.__name__: kind for kind in (LogHeader, LinesLost, StateAdopted, *EVENTS, *COMMANDS)
}
"""By the name that a line gives."""
