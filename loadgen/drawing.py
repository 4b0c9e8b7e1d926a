"""What sessions are taken from: a profile, the sessions of a file, or several of these by weight.

Session ``index`` of a seed is the same however many are taken.
"""

from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Protocol

import msgspec

from loadgen.modifiers import Modifiers
from loadgen.profiles import Profile
from loadgen.workload import Session


class Source(Protocol):
    @property
    def length(self) -> int | None:
        """How many there are; None if any number can be drawn."""

    def session(self, index: int, seed: int) -> Session: ...


@dataclass(frozen=True, slots=True)
class ProfileSource:
    profile: Profile
    modifiers: Modifiers

    @property
    def length(self) -> None:
        return None

    def session(self, index: int, seed: int) -> Session:
        return self.modifiers.apply(self.profile.session(index, seed))


@dataclass(frozen=True, slots=True)
class FileSource:
    """In the order of the file, which starts again at its end."""

    sessions: list[Session]

    @property
    def length(self) -> int:
        return len(self.sessions)

    def session(self, index: int, seed: int) -> Session:
        lap, place = divmod(index, len(self.sessions))
        return again(self.sessions[place], lap + 1) if lap else self.sessions[place]


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """By seed and with replacement: every file stands for as many different workloads as one likes."""

    name: str
    sessions: list[Session]

    @property
    def length(self) -> int:
        return len(self.sessions)

    def session(self, index: int, seed: int) -> Session:
        place = Random(f"{self.name}/{seed}/{index}").randrange(len(self.sessions))
        return again(self.sessions[place], index)


@dataclass(frozen=True, slots=True)
class Mixture:
    sources: tuple[Source, ...]
    weights: tuple[float, ...]

    @property
    def length(self) -> None:
        return None

    def session(self, index: int, seed: int) -> Session:
        share = Random(f"mixture/{seed}/{index}").random() * sum(self.weights)
        passed = sum(share >= upto for upto in accumulate(self.weights))
        return self.sources[min(passed, len(self.sources) - 1)].session(index, seed)


def again(session: Session, number: int) -> Session:
    """The same session again is another session, and its traced arrival would come a second time."""
    return msgspec.structs.replace(session, id=f"{session.id}~{number}", arrival_s=None)


def with_shared_prompt(session: Session, tokens: int, system_id: str) -> Session:
    """The first ``tokens`` of the first prompt become a system prompt of that id: traces do not say that
    sessions have one in common. A first prompt that is no longer than that cannot begin with it."""
    first = session.turns[0]
    if session.system_tokens or tokens < 1 or first.new_tokens <= tokens:
        return session
    turns = [msgspec.structs.replace(first, new_tokens=first.new_tokens - tokens), *session.turns[1:]]
    return msgspec.structs.replace(session, turns=turns, system_tokens=tokens, system_id=system_id)
