"""What must hold where everything comes together: tenants' limits in front, backends that come and go,
failures, and replicas that part and come back with turns that the state knows otherwise, or not at all.

``AnyOrder`` with more that can happen, and the same that must hold. What a replica alone does not count,
sessions whose latest turn went through another, is none of its books: only that their turns end once.
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from marsproxy.core.commands import Command, HoldTurn
from marsproxy.core.events import (
    Ending,
    Event,
    StandingAlone,
    StandingTogether,
    TenantLimits,
    TenantsChanged,
    TurnArrived,
    TurnEnded,
    TurnResumed,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.policy import Policy
from marsproxy.core.scheduling import SchedulingPolicy
from marsproxy.core.sessions import Phase
from marsproxy.core.tenant_limits import LIMIT_REASONS, LimitedPolicy
from tests.marsproxy.core.test_policy_properties import (
    ALL_BACKENDS,
    SESSION_IDS,
    TENANTS,
    TOKENS,
    AnyOrder,
    Shell,
)

pytestmark = pytest.mark.slow

LIMITS = st.builds(
    TenantLimits,
    st.sampled_from(["heavy", "light"]),
    weight=st.sampled_from([1.0, 2.0]),
    max_open_turns=st.sampled_from([None, 1, 4]),
    max_sessions=st.sampled_from([None, 1, 2]),
    tokens_per_s=st.sampled_from([None, 100.0]),
)


@dataclass
class SharedShell(Shell):
    """The dispatcher of one of several replicas, with tenants' limits before the policy."""

    door: LimitedPolicy = field(init=False)
    is_alone: bool = False
    elsewhere: set[str] = field(default_factory=set)
    """Open turns of other replicas."""
    home: dict[str, bool] = field(default_factory=dict)
    """Of each session, whether its latest turn came through here."""

    def __post_init__(self) -> None:
        self.door = LimitedPolicy(self.policy)

    @property
    def queued(self) -> dict[str, TurnArrived]:
        lines = [line for use in self.door._uses.values() for line in (use.for_session, use.for_tokens)]
        in_line = {turn_id for line in lines for turn_id in line}
        return {turn_id: turn for turn_id, turn in self.waiting.items() if turn_id not in in_line}

    def handle(self, event: Event) -> list[Command]:
        return self.door.handle(event, self.now)

    def check_hold(self, command: HoldTurn, event: Event) -> None:
        """A turn that waited for its tenant may wait for capacity next, whatever it was that let it go."""
        assert command.turn_id in self.waiting
        held = self.door.held if command.reason in LIMIT_REASONS else self.policy.held
        assert 1 <= command.position <= len(held)

    def arrive(self, arrival: TurnArrived) -> None:
        if not self.is_alone and len(self.home) % 2:
            self.elsewhere.add(arrival.turn_id)
        self._note_home(arrival)
        super().arrive(arrival)

    def _note_home(self, arrival: TurnArrived) -> None:
        if arrival.kind is not TurnKind.SIDE:
            self.home.pop(arrival.session_id, None)
            self.home[arrival.session_id] = arrival.turn_id not in self.elsewhere

    def end(self, turn_id: str, ended: TurnEnded) -> None:
        for session_id, turns in list(self.astray.items()):
            if turn_id in turns:
                turns.discard(turn_id)
                self.asked.pop(turn_id, None)
                if not turns:
                    del self.astray[session_id]
        self.elsewhere.discard(turn_id)
        super().end(turn_id, ended)

    def part(self, replicas: int) -> None:
        others = {
            session.id
            for session in self.policy.sessions
            if session.phase is not Phase.IDLE and not self.home.get(session.id, False)
        }
        for session_id in others:
            own = {id_ for id_, turn in self.in_flight.items() if turn.session_id == session_id}
            if own := own - self.elsewhere - self.aside:
                self.astray[session_id] = own
        self.leases = {key: until_s for key, until_s in self.leases.items() if key[0] not in others}
        self.is_alone = True
        self.tell(StandingAlone(replicas, tuple(sorted(others))))
        for turn_id in [*self.waiting, *self.in_flight]:
            if turn_id in self.elsewhere and (turn_id in self.waiting or turn_id in self.in_flight):
                self.end(turn_id, TurnEnded(turn_id, Ending.ABORTED))
        self.elsewhere.clear()

    def unite(self) -> None:
        self.is_alone = False
        self.tell(StandingTogether())

    def resume_in_flight(self, arrival: TurnArrived, backend: str) -> None:
        """Its replica has it there, whatever the state knows of it."""
        turn_id = arrival.turn_id
        self._note_home(arrival)
        if turn_id not in self.in_flight:
            self.waiting.pop(turn_id, None)
            self.in_flight[turn_id], self.where[turn_id] = arrival, backend
            if arrival.kind is TurnKind.SIDE:
                self.aside.add(turn_id)
            else:
                self.leases.pop((arrival.session_id, backend), None)
        self.tell(TurnResumed(arrival, backend))
        if turn_id not in self.policy._turns:  # it ends where nobody counts
            assert backend not in self.specs or arrival.session_id not in {s.id for s in self.policy.sessions}
            del self.in_flight[turn_id]
            self.aside.discard(turn_id)
            self.door.handle(TurnEnded(turn_id, Ending.FINISHED), self.now)
            self.log.append((TurnEnded(turn_id, Ending.FINISHED), self.now, []))

    def resume_held(self, arrival: TurnArrived, waited_s: float) -> None:
        """Its replica has no verdict, and gets one, or has it wait on."""
        turn_id, is_new = arrival.turn_id, arrival.turn_id not in {**self.waiting, **self.in_flight}
        was_in_flight = turn_id in self.in_flight
        self._note_home(arrival)
        if is_new or was_in_flight:
            self.waiting[turn_id] = self.in_flight.pop(turn_id, arrival)
            self.asked.pop(turn_id, None)
        self.told_again = {turn_id} if was_in_flight else set()
        commands = self.tell(TurnResumed(arrival, None, waited_s))
        decisions = [c for c in commands if getattr(c, "turn_id", None) == turn_id]
        if is_new or was_in_flight:
            assert len(decisions) == 1


class Together(AnyOrder):
    def make_shell(self, policy: Policy) -> Shell:
        return SharedShell(policy)

    def make_again(self) -> SchedulingPolicy:
        return LimitedPolicy(super().make_again())

    # -- what happens -----------------------------------------------------------------------------

    @rule(tenants=st.lists(LIMITS, max_size=2, unique_by=lambda each: each.tenant))
    def tenants_change(self, tenants) -> None:
        self.shell.tell(TenantsChanged(tuple(tenants)))

    @precondition(lambda self: not self.shell.is_alone)
    @rule(replicas=st.integers(1, 3))
    def the_replicas_part(self, replicas) -> None:
        self.shell.part(replicas)

    @precondition(lambda self: self.shell.is_alone)
    @rule()
    def the_replicas_are_one_again(self) -> None:
        self.shell.unite()

    @rule(
        session_id=st.sampled_from(SESSION_IDS),
        kind=st.sampled_from(TurnKind),
        tokens=TOKENS,
        backend=st.none() | st.sampled_from(ALL_BACKENDS),
        waited_s=st.sampled_from([0.0, 5.0, 100.0]),
    )
    def an_unknown_turn_is_resumed(self, session_id, kind, tokens, backend, waited_s) -> None:
        self.begun.add(session_id)
        self.shell.arrivals += 1
        turn_id = f"{session_id}{self.shell.arrivals}"
        self._resume(
            TurnArrived(turn_id, session_id, kind, TENANTS[session_id], "f", tokens), backend, waited_s
        )

    @precondition(lambda self: self.shell.waiting or self.shell.in_flight)
    @rule(data=st.data(), backend=st.none() | st.sampled_from(ALL_BACKENDS))
    def a_known_turn_is_resumed(self, data, backend) -> None:
        """On the backend that the state says, on another, on one that is gone, or held."""
        known = {**self.shell.waiting, **self.shell.in_flight}
        turn_id = data.draw(st.sampled_from([*known]))
        self.shell.elsewhere.discard(turn_id)
        self._resume(known[turn_id], backend, 1.0)

    def _resume(self, arrival: TurnArrived, backend: str | None, waited_s: float) -> None:
        if backend is None:
            self.shell.resume_held(arrival, waited_s)
        else:
            self.shell.resume_in_flight(arrival, backend)

    # -- what holds -------------------------------------------------------------------------------

    @invariant()
    def the_tenants_books_agree(self) -> None:
        shell = self.shell
        assert shell.door.open_turns == len(shell.waiting) + len(shell.in_flight)
        assert shell.door._turns.keys() == {**shell.waiting, **shell.in_flight}.keys()
        open_turns = [turn.tenant for turn in (*shell.waiting.values(), *shell.in_flight.values())]
        for tenant, use in shell.door._uses.items():
            assert use.open_turns == open_turns.count(tenant)
            assert not use.waiting or tenant in shell.door._waiting


TestTogether = Together.TestCase
TestTogether.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, report_multiple_bugs=False
)
