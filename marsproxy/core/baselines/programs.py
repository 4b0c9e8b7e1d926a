"""ThunderAgent's books: what a program is, what it is charged, and which backend has room for it.

Knows no turns and no time; ``thunderagent`` decides who is paused and resumed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from marsproxy.core.baselines.base import FollowedTurn
from marsproxy.core.headroom import BackendState
from marsproxy.core.sessions import SessionState


@dataclass(frozen=True, slots=True)
class ThunderAgentRules:
    """The router's defaults, but for the two last."""

    tick_s: float = 5.0
    acting_weight: float = 1.0
    tokens_per_program: int = 100
    forced_resume_s: float = 1800.0
    """A program paused for so long is resumed, whether it fits or not."""
    marking_frees: bool = True
    """What is marked to be paused counts as paused already. False as published: once no ACTING program is
    left, every REASONING one on the backend is marked."""
    resumes_at_home: bool = True
    """A program goes back to the backend that may have its blocks, if it fits there. False as published:
    to the one that it fits best."""


@dataclass(slots=True)
class Program:
    """A session that has been heard of and is not released. Active when its session is counted."""

    session: SessionState
    is_new: bool
    """At its first step."""
    has_run: bool = False
    """It was active at least once; one that was not has nothing to be resumed for but its turns."""
    charged: int = 0
    """Tokens that its backend is charged for it; 0 unless active."""
    is_marked: bool = False
    """To be paused when its response ends."""
    paused_s: float = 0.0
    held: list[FollowedTurn] = field(default_factory=list)
    """Turns that wait for it to be resumed."""

    @property
    def is_reasoning(self) -> bool:
        return bool(self.session.main_turns)

    @property
    def backend(self) -> str:
        assert self.session.backend is not None, "an active program has a backend"
        return self.session.backend

    @property
    def resume_rank(self) -> int:
        """REASONING after the first step, then new, then ACTING."""
        return int(self.is_new) if self.held else 2


class Ledger:
    """Tokens that active programs are charged, for each backend."""

    def __init__(self, rules: ThunderAgentRules, backends: Mapping[str, BackendState]) -> None:
        self._rules = rules
        self._backends = backends
        self._used = dict.fromkeys(backends, 0)
        self._elsewhere: dict[str, int] = {}
        """Tokens that other replicas may use while this one does not hear them."""

    def used_tokens(self) -> dict[str, float]:
        """Where it is known of what."""
        return {name: float(used) for name, used in self._used.items() if self._pool(name) is not None}

    def used_on(self, name: str) -> int:
        return self._used[name]

    def over(self, name: str) -> int:
        """Tokens used beyond the pool; where that is unknown there is always room."""
        pool = self._pool(name)
        return 0 if pool is None else self._used[name] - pool

    def is_over(self) -> bool:
        return any(self.over(name) > 0 for name in self._backends)

    def stand_alone(self, replicas: int, own: Mapping[str, int]) -> None:
        """``own`` of what is used on each backend stays; of what is free it is one share."""
        for name, used in own.items():
            if (pool := self._pool(name)) is not None:
                free = pool - self._used[name]
                self._elsewhere[name] = pool - used - free // replicas

    def stand_together(self) -> None:
        self._elsewhere.clear()

    def activate(self, program: Program) -> None:
        """Its session has been placed."""
        self._backends[program.backend].charge(program.session)
        program.is_new, program.has_run = False, True
        self.charge(program)

    def charge(self, program: Program) -> None:
        """Bring an active program's charge up to date; fine for one that is not."""
        if program.session.is_counted:
            self._set(program, self._cost(program, is_reasoning=program.is_reasoning))

    def deactivate(self, program: Program) -> None:
        """Fine for one that is not active."""
        if program.session.is_counted:
            self._set(program, 0)
            self._backends[program.backend].release(program.session)
        program.is_marked = False

    def most_room(self, program: Program) -> str | None:
        """For a program that comes in: its old home if it has one, else the least loaded."""
        fitting = self._fitting(program)
        if self._rules.resumes_at_home and program.session.backend in fitting:
            return program.session.backend
        return max(fitting, key=lambda name: (self._room(name), -self._used[name]), default=None)

    def best_fit(self, program: Program) -> str | None:
        """For one that is resumed."""
        fitting = self._fitting(program)
        if self._rules.resumes_at_home and program.session.backend in fitting:
            return program.session.backend
        return min(fitting, key=self._room, default=None)

    def _set(self, program: Program, tokens: int) -> None:
        self._used[program.backend] += tokens - program.charged
        program.charged = tokens

    def _cost(self, program: Program, *, is_reasoning: bool) -> int:
        weight = 1.0 if is_reasoning else self._rules.acting_weight
        return round(weight * program.session.context_tokens) + self._rules.tokens_per_program

    def _pool(self, name: str) -> int | None:
        """Its size does not change while it runs: an old reading is as good as a new one."""
        tokens = self._backends[name].kv_tokens_total
        return None if tokens is None else tokens - self._elsewhere.get(name, 0)

    def _room(self, name: str) -> float:
        """A backend with nothing on it takes anything: else a program larger than the pool never ran."""
        pool = self._pool(name)
        if pool is None or not self._backends[name].counted:
            return math.inf
        return pool - self._used[name]

    def _fitting(self, program: Program) -> list[str]:
        reachable = [name for name, backend in self._backends.items() if backend.is_reachable]
        cost = self._cost(program, is_reasoning=True)
        return [name for name in reachable or self._backends if self._room(name) >= cost]
