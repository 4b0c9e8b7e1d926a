"""What holds for every policy in the table, whatever happens, in whatever order, sense or nonsense.

``Shell`` keeps its own books and enacts the commands. It fires timers only when asked, so a timer that a
policy forgot to set shows as a turn that is never answered.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from marsproxy.core.commands import (
    Command,
    ForgetSession,
    ForwardTurn,
    HintKv,
    HoldTurn,
    RejectTurn,
    Reprioritise,
    SetTimer,
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
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.policies import POLICIES
from marsproxy.core.scheduling import SchedulingPolicy
from marsproxy.core.settings import AdmissionSettings, PolicySettings, SessionSettings

pytestmark = pytest.mark.slow

MAX_HOLD_S, IDLE_EXPIRY_S = 60.0, 200.0
BACKENDS = ("one", "two")
SESSION_IDS = ("a", "b", "c", "d", "e", "f")
TOKENS = st.sampled_from([0, 1, 500, 4_000, 9_000, 30_000])

EFFORT = settings(max_examples=60, stateful_step_count=30, deadline=None, report_multiple_bugs=False)

every_policy = pytest.mark.parametrize("name", sorted(POLICIES))


@dataclass
class Shell:
    """The dispatcher, as far as a policy can tell."""

    policy: SchedulingPolicy
    now: float = 0.0
    timer_s: float | None = None
    log: list[tuple[Event, float, list[Command]]] = field(default_factory=list)
    waiting: dict[str, TurnArrived] = field(default_factory=dict)
    in_flight: dict[str, TurnArrived] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    """The backend of each turn that was forwarded."""
    ended: list[str] = field(default_factory=list)
    arrived_s: dict[str, float] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)
    """Sessions that somebody said are over, until they are forgotten."""

    def tell(self, event: Event) -> list[Command]:
        known = {session.id for session in self.policy.sessions}
        commands = self.policy.handle(event, self.now)
        self.log.append((event, self.now, list(commands)))
        if isinstance(event, SessionEnded) and event.session_id in known:
            self.over.add(event.session_id)
        for command in commands:
            self._enact(command, event, known)
        return commands

    def arrive(self, arrival: TurnArrived) -> None:
        self.waiting[arrival.turn_id] = arrival
        self.arrived_s[arrival.turn_id] = self.now
        commands = self.tell(arrival)
        verdicts = [c for c in commands if isinstance(c, ForwardTurn | HoldTurn | RejectTurn)]
        assert len([c for c in verdicts if c.turn_id == arrival.turn_id]) == 1, "decided on once, at once"

    def end(self, turn_id: str, ended: TurnEnded) -> None:
        assert self.in_flight.pop(turn_id, None) or self.waiting.pop(turn_id, None)
        self.ended.append(turn_id)
        self.tell(ended)

    def bounce(self, turn_id: str) -> None:
        backend = self.where[turn_id]
        self.waiting[turn_id] = self.in_flight.pop(turn_id)
        commands = self.tell(TurnBounced(turn_id, backend))
        verdicts = [c for c in commands if isinstance(c, ForwardTurn | HoldTurn | RejectTurn)]
        (verdict,) = [c for c in verdicts if c.turn_id == turn_id]
        assert not isinstance(verdict, ForwardTurn) or verdict.backend != backend

    def pass_time(self, duration_s: float) -> int:
        """How many timers fired."""
        until_s = self.now + duration_s
        fired = 0
        while self.timer_s is not None and self.timer_s <= until_s:
            self.now, self.timer_s = max(self.now, self.timer_s), None
            self.tell(TimerFired())
            fired += 1
            assert fired < 1_000, "timer after timer, and nothing happens"
        self.now = until_s
        return fired

    def _enact(self, command: Command, event: Event, known: set[str]) -> None:
        match command:
            case ForwardTurn():
                assert command.backend in self.policy.backends
                self.in_flight[command.turn_id] = self.waiting.pop(command.turn_id)
                self.where[command.turn_id] = command.backend
            case RejectTurn():
                assert command.retry_after_s > 0
                self.ended.append(command.turn_id)
                del self.waiting[command.turn_id]
            case HoldTurn():
                assert isinstance(event, TurnArrived | TurnBounced)
                assert command.turn_id == event.turn_id
                assert 1 <= command.position <= len(self.policy.held)
            case HintKv():
                assert command.backend in self.policy.backends
                assert command.ttl_s is None or command.ttl_s >= 0
            case Reprioritise():
                assert command.turn_id in self.in_flight
            case ForgetSession():
                at_work = {turn.session_id for turn in (*self.in_flight.values(), *self.waiting.values())}
                assert command.session_id in known
                assert command.session_id not in at_work or isinstance(event, TurnArrived)
                self.over.discard(command.session_id)
            case SetTimer():
                assert command.at_s >= self.now
                self.timer_s = command.at_s


class AnyOrder(RuleBasedStateMachine):
    """Random events; the end of each run lets all turns end and time pass, and looks at what is left."""

    policy_name = ""

    @initialize(
        backends=st.integers(1, 2),
        max_held=st.sampled_from([0, 2, 50]),
        fallback=st.integers(1, 3),
        max_sessions=st.sampled_from([2, 4, 50]),
    )
    def start(self, backends: int, max_held: int, fallback: int, max_sessions: int) -> None:
        self.settings = PolicySettings(
            AdmissionSettings(
                peak_prior_tokens=8_000,
                idle_gap_s=10.0,
                fallback_concurrency=fallback,
                telemetry_stale_s=20.0,
                max_held_turns=max_held,
                max_hold_s=MAX_HOLD_S,
            ),
            SessionSettings(max_sessions=max_sessions, idle_expiry_s=IDLE_EXPIRY_S),
        )
        self.names = BACKENDS[:backends]
        self.arrivals = 0
        self.shell = Shell(self.make())

    def make(self) -> SchedulingPolicy:
        return POLICIES[self.policy_name].make(self.settings, self.names)

    def backend(self, index: int) -> str:
        return self.names[index % len(self.names)]

    # -- what happens -----------------------------------------------------------------------------

    @rule(
        session_id=st.sampled_from(SESSION_IDS),
        kind=st.sampled_from(TurnKind),
        tokens=TOKENS,
        parent=st.sampled_from([None, *SESSION_IDS]),
        has_tools=st.booleans(),
    )
    def a_turn_arrives(self, session_id, kind, tokens, parent, has_tools) -> None:
        self.arrivals += 1
        turn_id = f"{session_id}{self.arrivals}"
        self.shell.arrive(
            TurnArrived(
                turn_id, session_id, kind, "", "f", tokens, parent_session_id=parent, has_tools=has_tools
            )
        )

    @precondition(lambda self: self.shell.in_flight or self.shell.waiting)
    @rule(
        data=st.data(),
        ending=st.sampled_from(Ending),
        prompt=st.none() | TOKENS,
        cached=st.none() | TOKENS,
        completion=st.none() | TOKENS,
        tool_calls=st.integers(0, 1),
    )
    def a_turn_ends(self, data, ending, prompt, cached, completion, tool_calls) -> None:
        """In flight or held, in any way: a held turn that finishes is nonsense, and still has to work."""
        turn_id = data.draw(st.sampled_from([*self.shell.waiting, *self.shell.in_flight]))
        self.shell.end(turn_id, TurnEnded(turn_id, ending, prompt, cached, completion, tool_calls))

    @precondition(lambda self: self.shell.in_flight)
    @rule(data=st.data())
    def a_turn_bounces(self, data) -> None:
        """MARS may find another backend for it."""
        turn_id = data.draw(st.sampled_from([*self.shell.in_flight]))
        self.shell.bounce(turn_id)

    @rule(draining=st.lists(st.booleans(), min_size=2, max_size=2), gone=st.integers(0, 2))
    def the_backends_change(self, draining, gone) -> None:
        """One at least stays."""
        specs = [BackendSpec(*each) for each in zip(self.names, (None, None), draining, strict=False)]
        self.shell.tell(BackendsChanged(tuple(specs[: max(1, len(specs) - gone)])))

    @rule(data=st.data(), ending=st.sampled_from(Ending))
    def a_turn_ends_that_nobody_knows(self, data, ending) -> None:
        turn_id = data.draw(st.sampled_from(["stranger1", *self.shell.ended]))
        assert not [c for c in self.shell.tell(TurnEnded(turn_id, ending)) if not isinstance(c, SetTimer)]

    @precondition(lambda self: self.shell.in_flight)
    @rule(data=st.data(), tokens=TOKENS)
    def a_turn_gets_on(self, data, tokens) -> None:
        turn_id = data.draw(st.sampled_from([*self.shell.in_flight]))
        self.shell.tell(TurnFirstToken(turn_id))
        self.shell.tell(TurnProgressed(turn_id, tokens))

    @rule(
        index=st.integers(0, 1),
        pool=st.sampled_from([None, 0, 10_000, 40_000]),
        used=st.sampled_from([None, 0.0, 0.5, 0.97, 1.0]),
        queries=st.sampled_from([None, 0, 1_000, 50_000]),
        hits=st.sampled_from([None, 0, 900, 40_000]),
        takes_hints=st.booleans(),
    )
    def a_backend_is_read(self, index, pool, used, queries, hits, takes_hints) -> None:
        """Counters may go back: the engine was started anew."""
        self.shell.tell(
            BackendObserved(
                self.backend(index),
                kv_tokens_total=pool,
                kv_used_ratio=used,
                prefix_queries_total=queries,
                prefix_hits_total=hits,
                takes_hints=takes_hints,
            )
        )

    @rule(index=st.integers(0, 1))
    def a_backend_is_gone(self, index) -> None:
        self.shell.tell(BackendUnreachable(self.backend(index)))

    @rule(session_id=st.sampled_from(SESSION_IDS), index=st.integers(0, 1), tokens=st.none() | TOKENS)
    def a_backend_speaks_of_leases(self, session_id, index, tokens) -> None:
        self.shell.tell(HintAnswered(session_id, self.backend(index), tokens))
        self.shell.tell(KvReclaimed(session_id, self.backend(index), tokens or 0))

    @rule(running=st.sampled_from([None, 0, 3, 100]), cores=st.sampled_from([None, 0.0, 4.0]))
    def tool_hosts_report(self, running, cores) -> None:
        self.shell.tell(ToolHostsObserved(cores=cores, running=running, queued=0))

    @rule(phase=st.sampled_from(ToolPhase), llm_session=st.sampled_from([None, *SESSION_IDS]))
    def a_tool_is_seen(self, phase, llm_session) -> None:
        self.shell.tell(ToolObserved("x1", phase, "gateway", llm_session=llm_session))

    @rule(session_id=st.sampled_from(SESSION_IDS))
    def a_session_is_over(self, session_id) -> None:
        self.shell.tell(SessionEnded(session_id))

    @rule(duration_s=st.sampled_from([0.0, 0.5, 5.0, 10.0, MAX_HOLD_S, IDLE_EXPIRY_S]))
    def time_passes(self, duration_s) -> None:
        self.shell.pass_time(duration_s)

    @rule()
    def a_timer_fires_unasked(self) -> None:
        self.shell.tell(TimerFired())

    @rule()
    def a_token_comes_from_nowhere(self) -> None:
        assert self.shell.tell(TurnFirstToken("stranger1")) == []
        assert self.shell.tell(TurnProgressed("stranger1", 100)) == []

    # -- what holds -------------------------------------------------------------------------------

    @invariant()
    def the_books_agree(self) -> None:
        policy = self.shell.policy
        assert policy.open_turns == len(self.shell.waiting) + len(self.shell.in_flight)
        assert len(policy.held) == len(self.shell.waiting) <= self.settings.admission.max_held_turns
        assert len(policy.sessions) <= self.settings.sessions.max_sessions

    @invariant()
    def nobody_waits_longer_than_allowed(self) -> None:
        shell = self.shell
        assert all(shell.now <= shell.arrived_s[turn_id] + MAX_HOLD_S for turn_id in shell.waiting)

    @invariant()
    def what_is_over_is_forgotten_with_its_last_turn(self) -> None:
        shell = self.shell
        at_work = {turn.session_id for turn in (*shell.in_flight.values(), *shell.waiting.values())}
        assert all(shell.policy.sessions.get(id_) is None for id_ in shell.over - at_work)

    @invariant()
    def promises_are_made_to_sessions_that_are_known(self) -> None:
        policy = self.shell.policy
        counted = {id_: name for name, backend in policy.backends.items() for id_ in backend.counted}
        assert counted == {session.id: session.backend for session in policy.sessions if session.is_counted}
        assert all(tokens >= 0 for tokens in policy.reserved_tokens(self.shell.now).values())

    # -- the end ----------------------------------------------------------------------------------

    def teardown(self) -> None:
        if hasattr(self, "shell"):
            self.everything_is_answered()
            self.nothing_is_left()
            self.the_log_replays()

    def everything_is_answered(self) -> None:
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

    def nothing_is_left(self) -> None:
        shell, policy = self.shell, self.shell.policy
        shell.pass_time(IDLE_EXPIRY_S)
        assert (len(policy.sessions), len(policy.held), policy.open_turns) == (0, 0, 0)
        assert sum(len(backend.counted) for backend in policy.backends.values()) == 0
        assert set(policy.reserved_tokens(shell.now).values()) <= {0}
        shell.pass_time(100 * IDLE_EXPIRY_S)
        assert shell.timer_s is None

    def the_log_replays(self) -> None:
        again = self.make()
        for event, now, commands in self.shell.log:
            assert again.handle(event, now) == commands


@every_policy
def test_any_order(name: str) -> None:
    machine = type("AnyOrderOf", (AnyOrder,), {"policy_name": name})
    run_state_machine_as_test(machine, settings=EFFORT)


# -- memory ---------------------------------------------------------------------------------------

SESSIONS = 3_000
FEW = 300
"""Sessions that a policy may remember after they are forgotten: windows of what it learned from."""


def words_within(thing: object, seen: dict[int, object]) -> Iterator[str]:
    """All strings that can be reached from ``thing``."""
    if isinstance(thing, str):
        yield thing
        return
    if id(thing) in seen or isinstance(thing, type) or callable(thing):
        return
    seen[id(thing)] = thing
    inner: list[object] = []
    if isinstance(thing, dict):
        inner += [*thing, *thing.values()]
    elif isinstance(thing, list | tuple | set | frozenset) or hasattr(thing, "maxlen"):
        inner += list(thing)  # type: ignore[call-overload]
    elif is_dataclass(thing):
        inner += [getattr(thing, each.name) for each in fields(thing)]
    else:
        inner += list(getattr(thing, "__dict__", {}).values())
    for each in inner:
        yield from words_within(each, seen)


@every_policy
def test_sessions_that_are_gone_leave_nothing(name: str) -> None:
    """Thousands of sessions come and go, some in silence; what is left does not grow with them."""
    limits = PolicySettings(
        AdmissionSettings(max_hold_s=MAX_HOLD_S), SessionSettings(idle_expiry_s=IDLE_EXPIRY_S)
    )
    shell = Shell(POLICIES[name].make(limits, BACKENDS))
    for backend in BACKENDS:
        shell.tell(BackendObserved(backend, kv_tokens_total=200_000, takes_hints=True))
    for number in range(SESSIONS):
        turn_id = f"session{number}-turn"
        shell.arrive(TurnArrived(turn_id, f"session{number}", TurnKind.FIRST, "", "family", 5_000))
        shell.pass_time(0.5)
        if turn_id in shell.in_flight:
            shell.end(turn_id, TurnEnded(turn_id, Ending.FINISHED, 5_000, 0, 100, tool_calls=number % 2))
    shell.pass_time(1_000)
    for turn_id in list(shell.in_flight):
        shell.end(turn_id, TurnEnded(turn_id, Ending.FINISHED, 5_000, 0, 100))
    shell.pass_time(5_000)
    names = {word for word in words_within(shell.policy, {}) if word.startswith("session")}
    assert len(names) <= FEW
    assert shell.timer_s is None
