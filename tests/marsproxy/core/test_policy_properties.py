"""What must hold whatever happens, in whatever order, sense or nonsense.

Every turn is answered or refused, once, and once more for each backend that failed it, and never by one
that may not have it; every turn ends once; budgets hold, and are what looking at every
session would find; no lease is asked of who takes no hints, and none is left to a session without a place;
the log replays to the same commands.

``Shell`` keeps its own books of turns and sessions, enacts the commands, and checks both against the
policy after every event. It fires timers only when asked, so a timer that the policy forgot to set shows
as a turn that is never answered.
"""

from dataclasses import dataclass, field
from math import inf
from typing import TypeGuard

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from marsproxy.core.commands import (
    Command,
    ForgetSession,
    ForwardTurn,
    HintKv,
    HoldTurn,
    KvAction,
    KvLease,
    RejectTurn,
    SetTimer,
    YieldsTo,
)
from marsproxy.core.events import (
    BackendObserved,
    BackendsChanged,
    BackendSpec,
    BackendUnreachable,
    Ending,
    Event,
    HintAnswered,
    KvReclaimed,
    LeaseExpired,
    LeaseResumed,
    SessionEnded,
    TimerFired,
    ToolHostsObserved,
    ToolObserved,
    ToolPhase,
    TurnArrived,
    TurnBounced,
    TurnEnded,
    TurnFirstToken,
    TurnProgressed,
    TurnResumed,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.gaps import TOOL_LIMIT_GAPS
from marsproxy.core.policy import Policy
from marsproxy.core.scheduling import SchedulingPolicy
from marsproxy.core.sessions import Phase, SessionState
from marsproxy.core.settings import AdmissionSettings, Parts, PolicySettings, SessionSettings

pytestmark = pytest.mark.slow

IDLE_GAP_S, MAX_HOLD_S, IDLE_EXPIRY_S = 10.0, 60.0, 200.0
LONGEST_GAP_S = TOOL_LIMIT_GAPS * IDLE_GAP_S
BACKENDS = ("one", "two")
ALL_BACKENDS = (*BACKENDS, "three")
MODELS = ("m", "n")
SESSION_IDS = ("a", "b", "c", "d", "e", "f")
EXEC_IDS = ("x1", "x2", "x3")
DIGESTS = ("ls", "pytest")
DIGEST_LISTS = st.lists(st.sampled_from(DIGESTS), max_size=2).map(tuple)
TENANTS = {"a": "", "b": "", "c": "heavy", "d": "heavy", "e": "light", "f": "light"}
"""A session is one tenant's."""
WEIGHTS = {"heavy": 3.0}
HOSTS = ("", "host-1", "host-2")
TOKENS = st.sampled_from([0, 1, 500, 4_000, 9_000, 30_000])
PARTS = [
    Parts(),
    Parts(order=False, priority=False),
    Parts(gpu_budget=False, correction=False),
    Parts(cpu_budget=False, valve=False),
    Parts(retention=False),
]


@dataclass
class Shell:
    """The dispatcher, as far as the policy can tell."""

    policy: Policy
    now: float = 0.0
    timer_s: float | None = None
    log: list[tuple[Event, float, list[Command]]] = field(default_factory=list)
    waiting: dict[str, TurnArrived] = field(default_factory=dict)
    in_flight: dict[str, TurnArrived] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    """The backend of each turn in flight."""
    aside: set[str] = field(default_factory=set)
    """Turns in flight that take no place, whatever they are."""
    specs: dict[str, BackendSpec] = field(default_factory=dict)
    bounced: dict[str, set[str]] = field(default_factory=dict)
    """Backends that failed each turn."""
    ended: list[str] = field(default_factory=list)
    last_work_s: dict[str, float] = field(default_factory=dict)
    """Per session, when its last main turn in flight ended; absent after an abort."""
    last_tool_s: float | None = None
    asked: dict[str, tuple[str, str, float]] = field(default_factory=dict)
    """Session, backend and seconds of the lease that goes with each turn in flight."""
    leases: dict[tuple[str, str], float] = field(default_factory=dict)
    """By session and backend, with the second at which the engine would end it by itself."""
    arrivals: int = 0
    astray: dict[str, set[str]] = field(default_factory=dict)
    """Own turns in flight of sessions that came last through another replica when they parted."""
    told_again: set[str] = field(default_factory=set)
    """Turns whose verdict had not reached their replica."""

    def tell(self, event: Event) -> list[Command]:
        sessions_before = {session.id for session in self.policy.sessions}
        if isinstance(event, BackendObserved) and not event.takes_hints:
            self._lose_leases_of(event.backend)
        commands = self.handle(event)
        self.log.append((event, self.now, commands))
        for command in commands:
            self._enact(command, event, sessions_before)
        self._check_budget({c.backend for c in commands if self.is_admitting(event, c)})
        return commands

    def handle(self, event: Event) -> list[Command]:
        return self.policy.handle(event, self.now)

    @property
    def queued(self) -> dict[str, TurnArrived]:
        """Turns that the policy holds."""
        return self.waiting

    def is_astray(self, session_id: str) -> bool:
        """Whether the policy does not count what it has in flight."""
        return session_id in self.astray

    def is_admitting(self, event: Event, command: Command) -> TypeGuard[ForwardTurn]:
        """Whether capacity was asked for; a verdict that is only told again took its own before."""
        is_again = isinstance(event, TurnResumed) and event.arrival.turn_id in self.told_again
        return isinstance(command, ForwardTurn) and command.decision in ("new", "return") and not is_again

    def arrive(self, arrival: TurnArrived) -> None:
        self.waiting[arrival.turn_id] = arrival
        decisions = [c for c in self.tell(arrival) if getattr(c, "turn_id", None) == arrival.turn_id]
        assert len(decisions) == 1, "a turn that arrives is decided on once, at once"

    def end(self, turn_id: str, ended: TurnEnded) -> None:
        if turn_id in self.in_flight and turn_id not in self.aside:
            self.last_work_s[self.in_flight[turn_id].session_id] = self.now
        turn = self.in_flight.pop(turn_id, None) or self.waiting.pop(turn_id, None)
        assert turn is not None
        self.ended.append(turn_id)
        lease = self.asked.pop(turn_id, None)
        if lease is not None and ended.ending is Ending.FINISHED:
            self.leases[lease[:2]] = self.now + lease[2]
        self.tell(ended)

    def bounce(self, turn_id: str) -> None:
        backend = self.where[turn_id]
        self.waiting[turn_id] = self.in_flight.pop(turn_id)
        self.asked.pop(turn_id, None)
        self.bounced.setdefault(turn_id, set()).add(backend)
        decisions = [
            c for c in self.tell(TurnBounced(turn_id, backend)) if getattr(c, "turn_id", None) == turn_id
        ]
        assert len(decisions) == 1, "a turn that bounces is decided on once, at once"

    def change(self, specs: list[BackendSpec]) -> None:
        self.specs = {spec.name: spec for spec in specs}
        for name in ALL_BACKENDS:
            if name not in self.specs:
                self._lose_leases_of(name)
        self.tell(BackendsChanged(tuple(specs)))

    def pass_time(self, duration_s: float) -> None:
        until_s = self.now + duration_s
        fired = 0
        while (due_s := self._next_due_s()) <= until_s:
            if due_s in self.leases.values():
                self.expire(due_s)
            else:
                self.fire()
            fired += 1
            assert fired < 1_000, "timer after timer, and nothing happens"
        self.now = until_s

    def _next_due_s(self) -> float:
        timer_s = inf if self.timer_s is None else self.timer_s
        return min([timer_s, *self.leases.values()])

    def expire(self, due_s: float) -> None:
        key = next(key for key, until_s in self.leases.items() if until_s == due_s)
        del self.leases[key]
        self.now = max(self.now, due_s)
        self.tell(LeaseExpired(*key, 500))

    def fire(self) -> None:
        assert self.timer_s is not None
        self.now, self.timer_s = self.timer_s, None
        self.tell(TimerFired())

    def _enact(self, command: Command, event: Event, sessions_before: set[str]) -> None:
        match command:
            case ForwardTurn():
                turn = self.in_flight[command.turn_id] = self.waiting.pop(command.turn_id)
                self._check_destination(turn, command, is_admission=self.is_admitting(event, command))
                self.where[command.turn_id] = command.backend
                self.aside.discard(command.turn_id)
                assert command.may_break_leases == (command.decision != "new")
                if command.decision == "side":
                    self.aside.add(command.turn_id)
                else:
                    self.leases.pop((turn.session_id, command.backend), None)
                if command.lease is not None:
                    self._ask(turn, command.backend, command.lease)
            case HintKv(session_id, backend, action, ttl_s):
                assert self.policy.backends[backend].takes_hints
                if action is KvAction.KEEP:
                    assert ttl_s is not None
                    assert 0 < ttl_s <= LONGEST_GAP_S
                    self.leases[session_id, backend] = self.now + ttl_s
                else:
                    self.leases.pop((session_id, backend), None)
            case RejectTurn():
                assert command.retry_after_s > 0
                self.ended.append(command.turn_id)
                del self.waiting[command.turn_id]
            case HoldTurn():
                self.check_hold(command, event)
            case ForgetSession():
                assert command.session_id in sessions_before
                assert command.session_id not in {turn.session_id for turn in self.in_flight.values()}
                assert command.session_id not in {session_id for session_id, _ in self.leases}
                self.last_work_s.pop(command.session_id, None)
            case SetTimer():
                assert command.at_s >= self.now
                self.timer_s = command.at_s

    def check_hold(self, command: HoldTurn, event: Event) -> None:
        assert isinstance(event, TurnArrived | TurnBounced)
        assert command.turn_id == event.turn_id
        assert 1 <= command.position <= len(self.policy.held)

    def _check_destination(self, turn: TurnArrived, command: ForwardTurn, *, is_admission: bool) -> None:
        """It is there, serves the model if any does, has not failed the turn, and takes new ones."""
        spec = self.specs[command.backend]
        assert command.backend not in self.bounced.get(turn.turn_id, ())
        if turn.model is not None and spec.models is not None and turn.model not in spec.models:
            assert not [s for s in self.specs.values() if s.models is None or turn.model in s.models]
        if is_admission:
            assert not spec.is_draining

    def _ask(self, turn: TurnArrived, backend: str, lease: KvLease) -> None:
        assert self.policy.backends[backend].takes_hints
        assert self.policy._parts.retention
        assert turn.turn_id not in self.aside
        assert lease == KvLease(IDLE_GAP_S, YieldsTo.RETURNING)
        self.asked[turn.turn_id] = turn.session_id, backend, lease.ttl_s

    def _lose_leases_of(self, backend: str) -> None:
        """It was started anew, and without the patch."""
        self.leases = {key: until_s for key, until_s in self.leases.items() if key[1] != backend}
        self.asked = {turn_id: lease for turn_id, lease in self.asked.items() if lease[1] != backend}

    def _check_budget(self, admitted_to: set[str]) -> None:
        """Where somebody was let in beside others, all fits. A warm return is not let in: it just goes."""
        policy = self.policy
        reserved = policy.reserved_tokens(self.now)
        for name in admitted_to:
            backend = policy.backends[name]
            if len(backend.counted) > 1 and policy._parts.gpu_budget:
                if name in reserved:
                    assert backend.kv_tokens_total is not None
                    assert reserved[name] <= policy._budgets.target(backend) * backend.kv_tokens_total + 1e-3
                else:
                    assert len(backend.counted) <= policy._admission.fallback_concurrency

    def main_turns_in_flight(self) -> set[str]:
        return {turn.session_id for id_, turn in self.in_flight.items() if id_ not in self.aside}

    def may_be_counted(self, session: SessionState) -> bool:
        """A turn in flight, a gap that is not over, or tools seen since the gap began."""
        if session.id in self.main_turns_in_flight():
            return True
        if (began_s := self.last_work_s.get(session.id)) is None:
            return False
        has_tools = self.last_tool_s is not None and self.last_tool_s >= began_s
        last_sign_s = max(began_s, self.last_tool_s or 0.0) if has_tools else began_s
        return self.now <= last_sign_s + IDLE_GAP_S * (TOOL_LIMIT_GAPS if has_tools else 1)


class AnyOrder(RuleBasedStateMachine):
    """Random events; the end of each run lets all turns end and time pass, and looks at what is left."""

    @initialize(
        backends=st.integers(1, 2),
        look_ahead=st.integers(0, 3),
        max_overtakes=st.integers(0, 3),
        max_held=st.sampled_from([0, 2, 50, 50]),
        fallback=st.integers(1, 3),
        max_sessions=st.sampled_from([2, 50, 50]),
        beta=st.sampled_from([0.0, 0.5, 1.0]),
        slack=st.sampled_from([0.0, 0.1, 30.0]),
        valve=st.sampled_from([0.3, 0.95]),
        parts=st.sampled_from(PARTS),
        pool=st.sampled_from([None, 10_000, 40_000]),
    )
    def start(
        self,
        backends,
        look_ahead,
        max_overtakes,
        max_held,
        fallback,
        max_sessions,
        beta,
        slack,
        valve,
        parts,
        pool,
    ) -> None:
        self.settings = PolicySettings(
            AdmissionSettings(
                growth_beta=beta,
                peak_prior_tokens=8_000,
                valve=valve,
                deadline_slack=slack,
                idle_gap_s=IDLE_GAP_S,
                fallback_concurrency=fallback,
                telemetry_stale_s=20.0,
                look_ahead=look_ahead,
                max_overtakes=max_overtakes,
                max_held_turns=max_held,
                max_hold_s=MAX_HOLD_S,
            ),
            SessionSettings(max_sessions=max_sessions, idle_expiry_s=IDLE_EXPIRY_S),
            parts,
            WEIGHTS,
        )
        self.names = BACKENDS[:backends]
        self.begun: set[str] = set()
        self.shell = self.make_shell(Policy(self.settings, self.names))
        self.shell.specs = {name: BackendSpec(name) for name in self.names}
        if pool is not None:
            for name in self.names:
                self.shell.tell(BackendObserved(name, pool, takes_hints=True))

    def make_shell(self, policy: Policy) -> Shell:
        return Shell(policy)

    def make_again(self) -> SchedulingPolicy:
        """As it was made, for the replay."""
        return Policy(self.settings, self.names)

    # -- what happens -----------------------------------------------------------------------------

    @rule(session_id=st.sampled_from(SESSION_IDS), tokens=TOKENS, model=st.sampled_from([None, *MODELS]))
    def a_session_goes_on(self, session_id, tokens, model) -> None:
        """With its first turn, with the one after a tool, or after a long time."""
        kind = TurnKind.CONTINUATION if session_id in self.begun else TurnKind.FIRST
        self.arrive(session_id, kind, tokens, model=model)

    @precondition(lambda self: self.shell.in_flight)
    @rule(data=st.data(), context=TOKENS, digests=DIGEST_LISTS)
    def a_turn_calls_a_tool(self, data, context, digests) -> None:
        turn_id = data.draw(st.sampled_from([*self.shell.in_flight]))
        self.shell.end(
            turn_id,
            TurnEnded(turn_id, Ending.FINISHED, context, 0, 10, 1, "bash", digests),
        )

    @rule(
        session_id=st.sampled_from(SESSION_IDS),
        kind=st.sampled_from(TurnKind),
        tokens=TOKENS,
        family=st.sampled_from(["f", "g"]),
        parent=st.sampled_from([None, *SESSION_IDS]),
        has_tools=st.booleans(),
        model=st.sampled_from([None, *MODELS, "nobody's"]),
    )
    def any_turn_arrives(self, session_id, kind, tokens, family, parent, has_tools, model) -> None:
        self.arrive(session_id, kind, tokens, family, parent, has_tools, model)

    def arrive(self, session_id, kind, tokens, family="f", parent=None, has_tools=True, model=None) -> None:
        self.begun.add(session_id)
        self.shell.arrivals += 1
        self.shell.arrive(
            TurnArrived(
                f"{session_id}{self.shell.arrivals}",
                session_id,
                kind,
                TENANTS[session_id],
                family,
                tokens,
                parent_session_id=parent,
                has_tools=has_tools,
                model=model,
            )
        )

    @precondition(lambda self: self.shell.in_flight)
    @rule(data=st.data())
    def a_turn_bounces(self, data) -> None:
        self.shell.bounce(data.draw(st.sampled_from([*self.shell.in_flight])))

    @rule(
        names=st.lists(st.sampled_from(ALL_BACKENDS), unique=True),
        models=st.lists(
            st.sampled_from([None, (), ("m",), ("n",), MODELS]), min_size=len(ALL_BACKENDS), max_size=3
        ),
        draining=st.lists(st.booleans(), min_size=len(ALL_BACKENDS), max_size=3),
    )
    def the_backends_change(self, names, models, draining) -> None:
        self.shell.change(list(map(BackendSpec, names, models, draining)))

    @precondition(lambda self: self.shell.in_flight or self.shell.waiting)
    @rule(
        data=st.data(),
        ending=st.sampled_from(Ending),
        prompt=st.none() | TOKENS,
        cached=st.none() | TOKENS,
        completion=st.none() | TOKENS,
        tool_calls=st.integers(0, 1),
        digests=DIGEST_LISTS,
    )
    def a_turn_ends(self, data, ending, prompt, cached, completion, tool_calls, digests) -> None:
        """In flight or held, in any way: a held turn that finishes is nonsense, and still has to work."""
        turn_id = data.draw(st.sampled_from([*self.shell.waiting, *self.shell.in_flight]))
        self.shell.end(
            turn_id,
            TurnEnded(turn_id, ending, prompt, cached, completion, tool_calls, command_digests=digests),
        )

    @rule(
        name=st.sampled_from(ALL_BACKENDS),
        pool=st.sampled_from([0, None, 10_000, 40_000]),
        takes_hints=st.booleans(),
        preemptions=st.sampled_from([None, 0, 3]),
    )
    def a_backend_is_read(self, name, pool, takes_hints, preemptions) -> None:
        """Of those that are there, or late of one that is gone."""
        if pool == 0:
            self.shell.tell(BackendUnreachable(name))
            return
        self.shell.tell(
            BackendObserved(
                name,
                kv_tokens_total=pool,
                takes_hints=takes_hints,
                preemptions_total=preemptions,
            )
        )

    @rule(
        host=st.sampled_from(HOSTS),
        running=st.sampled_from([None, 0, 3, 100]),
        queued=st.sampled_from([None, 0]),
        cores=st.sampled_from([None, 0.0, 4.0]),
        available=st.sampled_from([None, 0, 900]),
        memory_pressure=st.sampled_from([None, 0.0, 0.9]),
        wait_s=st.sampled_from([None, 0.0, 5.0, 500.0]),
    )
    def a_tool_host_reports(self, host, running, queued, cores, available, memory_pressure, wait_s) -> None:
        self.shell.tell(
            ToolHostsObserved(cores, running, queued, available, host, 1_000, None, memory_pressure, wait_s)
        )

    @rule(
        exec_id=st.sampled_from(EXEC_IDS),
        phase=st.sampled_from(ToolPhase),
        llm_session=st.sampled_from([None, None, *SESSION_IDS]),
        digest=st.sampled_from([None, *DIGESTS]),
        principal=st.sampled_from([None, "alice", "bob"]),
        run_s=st.sampled_from([None, 0.1, 50.0]),
    )
    def a_tool_is_seen(self, exec_id, phase, llm_session, digest, principal, run_s) -> None:
        self.shell.last_tool_s = self.shell.now
        self.shell.tell(
            ToolObserved(
                exec_id,
                phase,
                "gateway",
                llm_session=llm_session,
                command_digest=digest,
                run_s=run_s,
                principal=principal,
                host="host-1",
            )
        )

    @rule(session_id=st.sampled_from(SESSION_IDS))
    def a_session_is_over(self, session_id: str) -> None:
        self.shell.tell(SessionEnded(session_id))

    @rule(duration_s=st.sampled_from([0.5, 5.0, IDLE_GAP_S, MAX_HOLD_S, IDLE_EXPIRY_S]))
    def time_passes(self, duration_s: float) -> None:
        self.shell.pass_time(duration_s)

    @rule(
        data=st.data(),
        what=st.sampled_from(
            ["token", "progress", "hint", "reclaim", "resumed", "expired", "timer", "stranger", "bounce"]
        ),
        session_id=st.sampled_from(SESSION_IDS),
        backend=st.sampled_from(ALL_BACKENDS),
    )
    def other_word_comes(self, data, what, session_id, backend) -> None:
        """Some of it true, some of it late, some of nobody."""
        turn_id = data.draw(st.sampled_from(["stranger1", *self.shell.ended, *self.shell.in_flight]))
        match what:
            case "token":
                self.shell.tell(TurnFirstToken(turn_id))
            case "progress":
                self.shell.tell(TurnProgressed(turn_id, 100))
            case "hint":
                self.shell.tell(HintAnswered(session_id, backend, 0))
            case "reclaim":
                self.shell.leases.pop((session_id, backend), None)
                self.shell.tell(KvReclaimed(session_id, backend, 500))
            case "resumed":
                self.shell.tell(LeaseResumed(session_id, backend, 500, 0))
            case "expired":
                self.shell.leases.pop((session_id, backend), None)
                self.shell.tell(LeaseExpired(session_id, backend, 500))
            case "timer":
                self.shell.tell(TimerFired())
            case "stranger" if turn_id not in self.shell.in_flight:
                commands = self.shell.tell(TurnEnded(turn_id, Ending.FINISHED))
                assert not [c for c in commands if not isinstance(c, SetTimer)]
            case "bounce" if self.shell.where.get(turn_id) != backend:
                self.shell.tell(TurnBounced(turn_id, backend))

    # -- what holds -------------------------------------------------------------------------------

    @invariant()
    def the_books_agree(self) -> None:
        policy = self.shell.policy
        assert policy.open_turns == len(self.shell.queued) + len(self.shell.in_flight)
        assert {held.turn_id for held in policy.held} == set(self.shell.queued)
        assert len(policy.held) <= self.settings.admission.max_held_turns
        assert len(policy.sessions) <= self.settings.sessions.max_sessions

    @invariant()
    def the_counted_are_the_sum_of_the_backends(self) -> None:
        policy = self.shell.policy
        by_backend = {id_: name for name, b in policy.backends.items() for id_ in b.counted}
        assert len(by_backend) == sum(len(b.counted) for b in policy.backends.values())
        by_session = {session.id: session.backend for session in policy.sessions if session.is_counted}
        assert by_backend == by_session

    @invariant()
    def the_sums_are_those_of_the_table(self) -> None:
        policy = self.shell.policy
        for name, backend in policy.backends.items():
            counted = [
                session for session in policy.sessions if session.is_counted and session.backend == name
            ]
            families = {session.family for session in counted}
            shared = sum(policy._budgets.shared.of(family, name) for family in families)
            charged = sum(session.charged_tokens for session in counted)
            assert backend.reserved_tokens == pytest.approx(shared + charged, abs=1e-3)
            assert backend.context_tokens == shared + sum(session.charged_context for session in counted)

    @invariant()
    def only_who_has_a_place_has_a_lease(self) -> None:
        """And it ends by itself, whatever the policy does later."""
        for (session_id, backend), until_s in self.shell.leases.items():
            session = self.shell.policy.sessions.get(session_id)
            assert session is not None
            assert (session.is_counted, session.backend) == (True, backend)
            assert self.shell.now < until_s <= self.shell.now + LONGEST_GAP_S

    @invariant()
    def nobody_is_counted_without_a_reason(self) -> None:
        waiting = {turn.session_id for turn in self.shell.queued.values()}
        for session in self.shell.policy.sessions:
            if session.is_counted:
                assert self.shell.may_be_counted(session)
                assert session.id not in waiting

    @invariant()
    def phases_say_what_is_so(self) -> None:
        in_flight = self.shell.main_turns_in_flight()
        waiting = {turn.session_id for turn in self.shell.queued.values()}
        for session in self.shell.policy.sessions:
            if self.shell.is_astray(session.id):
                continue
            assert (session.phase is Phase.GENERATING) == (session.id in in_flight)
            assert (session.phase is Phase.QUEUED) == (session.id in waiting)
            assert session.is_counted == (session.phase in (Phase.GENERATING, Phase.TOOL_GAP))

    # -- the end ----------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "shell"):
            return
        self._everything_is_answered()
        self._nothing_is_left()
        self._the_log_replays()

    def _everything_is_answered(self) -> None:
        """Turns in flight end one after the other, timers fire when asked for: nobody waits for ever."""
        shell = self.shell
        while shell.waiting or shell.in_flight:
            shell.now += 0.1
            if shell.in_flight:
                turn_id = next(iter(shell.in_flight))
                shell.end(turn_id, TurnEnded(turn_id, Ending.FINISHED, 1_000, tool_calls=1))
            else:
                assert shell.timer_s is not None, "turns wait, and nothing will ever wake them"
                shell.pass_time(max(0.0, shell.timer_s - shell.now))

    def _nothing_is_left(self) -> None:
        shell, policy = self.shell, self.shell.policy
        shell.pass_time(IDLE_GAP_S * TOOL_LIMIT_GAPS)
        assert sum(len(b.counted) for b in policy.backends.values()) == 0
        assert set(policy.backends) == set(policy._budgets.corrections) == set(shell.specs)
        assert (self.shell.leases, self.shell.asked) == ({}, {})
        shell.pass_time(IDLE_EXPIRY_S)
        assert (len(policy.sessions), len(policy.held), policy.open_turns) == (0, 0, 0)
        assert shell.timer_s is None

    def _the_log_replays(self) -> None:
        again = self.make_again()
        for event, now, commands in self.shell.log:
            assert again.handle(event, now) == commands


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, report_multiple_bugs=False
)
