"""ThunderAgent: programs are paused and resumed on a tick, so that the active ones fit the KV pool.

After arXiv 2602.13692 and its router (commit a7eef77). A program is a session from its first request to
its release. An active one is REASONING (a turn in flight) or ACTING (between two turns) and is charged
its context on one backend::

    used = tokens(REASONING) + weight * tokens(ACTING) + 100 per program

A new program is admitted at once only if nobody waits and a backend has room. Everything else happens on
the tick: first paused programs are resumed while they fit, then active ones are paused until the rest
does. A paused program's next turn waits until it is resumed.

Where this differs from the router, and why, is in ``docs/baselines.md``.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence

from marsproxy.core.baselines.base import FollowedTurn, Follower, Observation, goes_on
from marsproxy.core.baselines.programs import Ledger, Program, ThunderAgentRules
from marsproxy.core.commands import Reason
from marsproxy.core.events import BackendObserved, BackendUnreachable, TurnEnded, TurnProgressed
from marsproxy.core.priority import TurnClass
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import PolicySettings

REPAIRED = ThunderAgentRules()
AS_PUBLISHED = ThunderAgentRules(marking_frees=False, resumes_at_home=False)


class ThunderAgent(Follower):
    """The version that is fair to compare with."""

    def __init__(
        self, settings: PolicySettings, backends: Sequence[str], rules: ThunderAgentRules = REPAIRED
    ) -> None:
        super().__init__(settings, backends)
        self._rules = rules
        self._ledger = Ledger(rules, self.backends)
        self._programs: dict[str, Program] = {}
        self._paused: OrderedDict[str, Program] = OrderedDict()
        """In the order in which they were paused or, new ones, arrived."""
        self._waiting: set[str] = set()
        """Those of the paused that have a turn."""
        self._tick_s: float | None = None
        self._has_changed = False
        """Something happened that the next tick may act on."""
        self._known: dict[str, tuple[int | None, bool]] = {}
        """Pool and reachability of each backend when last looked at."""

    def reserved_tokens(self, now: float) -> dict[str, float]:
        return self._ledger.used_tokens()

    # -- turns ------------------------------------------------------------------------------------

    def turn_arrived(self, turn: FollowedTurn, now: float) -> None:
        session = turn.session
        if turn.is_side:
            self.forward(turn, self.home_of(session))
            return
        self._has_changed = True
        program = self._programs.get(session.id)
        if program is not None and self._has_lost_backend(program):
            self._release(program)
            program = None
        if program is None:
            self._enter(turn, now)
        elif session.is_counted:
            self._forward_active(program, [turn])
        else:
            self._wait(program, turn, Reason.KV_FULL, now)

    def _enter(self, turn: FollowedTurn, now: float) -> None:
        """A program that is new, or that was released and goes on. The latter is first in line anyway."""
        program = Program(turn.session, is_new=turn.turn_class is TurnClass.NEW, paused_s=now)
        self._programs[turn.session.id] = program
        if program.is_new and self._waiting:
            self._queue(program, turn, Reason.BEHIND_OTHERS, now)
        elif (backend := self._ledger.most_room(program)) is None:
            self._queue(program, turn, Reason.KV_FULL, now)
        else:
            self._activate(program, backend)
            self._forward_active(program, [turn])

    def _queue(self, program: Program, turn: FollowedTurn, reason: Reason, now: float) -> None:
        self._paused[program.session.id] = program
        self._wait(program, turn, reason, now)

    def _wait(self, program: Program, turn: FollowedTurn, reason: Reason, now: float) -> None:
        if self.hold(turn, reason, now):
            program.held.append(turn)
            self._waiting.add(program.session.id)
        else:
            self._drop_if_gone(program)

    def _forward_active(self, program: Program, turns: Sequence[FollowedTurn]) -> None:
        for turn in turns:
            self.forward(turn, program.backend)
        self._ledger.charge(program)

    def turn_ended(self, turn: FollowedTurn, event: TurnEnded | None, now: float) -> None:
        program = self._programs.get(turn.session.id)
        if turn.is_side or program is None:
            return
        self._has_changed = True
        if turn.backend is None:
            self._give_up(program, turn)
        elif not turn.session.is_counted:
            return  # it was in flight when others took its program over
        elif program.is_reasoning:
            self._ledger.charge(program)
        elif event is None or not goes_on(event, turn.session):
            self._release(program)
        elif program.is_marked:
            self._pause(program, now)
        else:
            self._ledger.charge(program)

    def _give_up(self, program: Program, turn: FollowedTurn) -> None:
        program.held.remove(turn)
        if not program.held:
            self._waiting.discard(program.session.id)
            self._drop_if_gone(program)

    def session_forgotten(self, session: SessionState) -> None:
        if (program := self._programs.get(session.id)) is not None:
            self._has_changed = True
            self._release(program)

    def observed(self, event: Observation, now: float) -> None:
        match event:
            case TurnProgressed():
                self._progressed_to(event.turn_id)
            case BackendObserved() | BackendUnreachable():
                self._has_changed |= self._backend_changed(event.backend)
            case _:
                pass

    def _progressed_to(self, turn_id: str) -> None:
        turn = self.turns.get(turn_id)
        if turn is not None and (program := self._programs.get(turn.session.id)) is not None:
            self._ledger.charge(program)
            self._has_changed = True

    def _backend_changed(self, name: str) -> bool:
        backend = self.backends[name]
        before, self._known[name] = self._known.get(name), (backend.kv_tokens_total, backend.is_reachable)
        return before != self._known[name]

    def _has_lost_backend(self, program: Program) -> bool:
        if not program.session.is_counted or program.is_reasoning:
            return False
        return self.home_of(program.session) != program.backend

    # -- replicas ---------------------------------------------------------------------------------

    def stand_alone(self, replicas: int, elsewhere: Sequence[SessionState]) -> None:
        """Its own active programs stay so, and it has its share of the room."""
        known = (self._programs.get(session.id) for session in elsewhere if session.is_counted)
        others = [program for program in known if program is not None]
        own = {name: self._ledger.used_on(name) for name in self.backends}
        for program in others:
            own[program.backend] -= program.charged
        self._ledger.stand_alone(replicas, own)
        for program in others:
            self._release(program)
        self._has_changed = True

    def stand_together(self) -> None:
        self._ledger.stand_together()
        self._has_changed = True

    # -- programs ---------------------------------------------------------------------------------

    def _activate(self, program: Program, backend: str) -> None:
        self.place(program.session, backend)
        self._ledger.activate(program)

    def _pause(self, program: Program, now: float) -> None:
        self._ledger.deactivate(program)
        program.paused_s = now
        self._paused[program.session.id] = program
        self._has_changed = True

    def _resume(self, program: Program, backend: str) -> None:
        del self._paused[program.session.id]
        self._waiting.discard(program.session.id)
        self._activate(program, backend)
        waiting, program.held = program.held, []
        self._forward_active(program, waiting)
        self._has_changed = True

    def _release(self, program: Program) -> None:
        """The program is over, or so it seems: if it goes on it is admitted anew."""
        self._ledger.deactivate(program)
        self._drop(program)

    def _drop_if_gone(self, program: Program) -> None:
        if not program.has_run and not program.held:
            self._drop(program)

    def _drop(self, program: Program) -> None:
        assert not program.held, "somebody still waits for it"
        del self._programs[program.session.id]
        self._paused.pop(program.session.id, None)

    # -- the tick ---------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """Ask for the next tick if there is something for it to do."""
        if self._tick_s is None and self._has_changed:
            self._has_changed = False
            if self._paused or self._ledger.is_over():
                self._tick_s = (math.floor(now / self._rules.tick_s) + 1) * self._rules.tick_s

    def next_tick_s(self) -> float | None:
        forced_s = next((self._forced_s(program) for program in self._paused.values()), None)
        return min((at_s for at_s in (self._tick_s, forced_s) if at_s is not None), default=None)

    def tick(self, now: float) -> None:
        self._tick_s = None
        self._resume_overdue(now)
        self._resume_what_fits()
        for name in self.backends:
            self._pause_until_safe(name, now)

    def _forced_s(self, program: Program) -> float:
        return program.paused_s + self._rules.forced_resume_s

    def _resume_overdue(self, now: float) -> None:
        while self._paused and self._forced_s(first := next(iter(self._paused.values()))) <= now:
            self._resume(first, self.home_of(first.session))

    def _resume_what_fits(self) -> None:
        full_for: int | None = None
        order = sorted(
            (each.resume_rank, each.session.context_tokens, key) for key, each in self._paused.items()
        )
        for rank, _, session_id in order:
            if rank == full_for:  # those behind the first that does not fit are larger still
                continue
            program = self._paused[session_id]
            backend = self._ledger.best_fit(program)
            if backend is None:
                full_for = rank
            else:
                self._resume(program, backend)

    def _pause_until_safe(self, name: str, now: float) -> None:
        """ACTING programs at once, REASONING ones when their response has ended; the smallest first."""
        over = self._ledger.over(name)
        if over <= 0:
            return
        counted = self.backends[name].counted
        active = sorted(
            (self._programs[key] for key in counted), key=lambda each: each.session.context_tokens
        )
        for program in active:
            if program.is_reasoning:
                continue
            if over <= 0 or (len(counted) == 1 and not self._waiting):
                return
            over -= program.charged
            self._pause(program, now)
        self._mark(over, [each for each in active if each.is_reasoning])

    def _mark(self, over: int, reasoning: Sequence[Program]) -> None:
        if self._rules.marking_frees:
            over -= sum(program.charged for program in reasoning if program.is_marked)
        for program in reasoning:
            if over <= 0:
                return
            if not program.is_marked:
                program.is_marked = True
                over -= program.charged if self._rules.marking_frees else 0


class ThunderAgentAsPublished(ThunderAgent):
    """With the router's marking and placement."""

    def __init__(self, settings: PolicySettings, backends: Sequence[str]) -> None:
        super().__init__(settings, backends, AS_PUBLISHED)
