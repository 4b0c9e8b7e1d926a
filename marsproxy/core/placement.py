"""The verdict on one request: which session, which kind of turn.

``naming`` and ``joining`` reach it, ``identity`` acts on it.
"""

from dataclasses import dataclass

from marsproxy.core.evidence import Level, TurnKind
from marsproxy.core.frontiers import Frontier, Session


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a request belongs."""

    kind: TurnKind
    level: Level
    session: Session | None = None
    """None makes a new one."""
    matched: int = 0
    again: Frontier | None = None
    """The turn that a retry repeats."""
    parent: Session | None = None
    """The session that a new one branches off."""


def continued(session: Session, level: Level, matched: int) -> Placement:
    return Placement(TurnKind.CONTINUATION, level, session, matched)


def condensed(session: Session, level: Level, matched: int) -> Placement:
    return Placement(TurnKind.CONDENSED, level, session, matched)


def repeated(frontier: Frontier, level: Level) -> Placement:
    return Placement(TurnKind.RETRY, level, frontier.session, frontier.length, again=frontier)


def branched(parent: Session, level: Level, matched: int) -> Placement:
    """A new session beside its parent, whose context it may share."""
    return Placement(TurnKind.FIRST, level, None, matched, parent=parent)
