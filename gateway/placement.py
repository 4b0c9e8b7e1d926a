"""Which host a new session goes to.

Owns the choice; it must not know how a host is reached, nor keep anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host as it is now. None is unknown."""

    name: str
    labels: Mapping[str, str]
    is_up: bool
    is_draining: bool
    slots: float
    used: float
    queued: int
    sessions: int
    memory_total_mb: float | None = None
    memory_available_mb: float | None = None
    memory_reserved_mb: float = 0.0
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Placement:
    host: str | None
    reason: str
    """Why there, or why nowhere."""


def place(
    candidates: Sequence[Candidate],
    *,
    selector: Mapping[str, str],
    host: str | None = None,
    parent_host: str | None = None,
) -> Placement:
    """``host``: that one or none. ``parent_host``: that one if it fits."""
    for each in candidates:
        if each.is_up and not each.is_draining and selector.items() <= each.labels.items():
            return Placement(each.name, "it has room")
    return Placement(None, "no host fits")
