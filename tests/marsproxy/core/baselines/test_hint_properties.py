"""What an engine's books of leases look like, whatever happens: nothing is pinned for ever.

The shell of ``test_properties`` with an engine behind it that takes every hint, and ends a lease when it
starts the session's next turn, when its time is over, or when it is told so. What it is to keep while a
turn of the session runs, it keeps from that turn's end.
"""

from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from marsproxy.core.commands import Command, ForwardTurn, HintKv, KvAction, Reprioritise
from marsproxy.core.events import (
    BackendObserved,
    BackendUnreachable,
    Ending,
    Event,
    KvReclaimed,
    SessionEnded,
    TurnArrived,
    TurnEnded,
    TurnFirstToken,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.policies import POLICIES
from marsproxy.core.settings import PolicySettings
from tests.marsproxy.core.baselines.test_properties import BACKENDS, Shell
from tests.marsproxy.core.baselines.test_properties import EFFORT as SHARED_EFFORT

PINNING = ["continuum", "infercept"]
PRIORITY_LIMIT = 2**63
"""vLLM's priority is a signed integer of 64 bits."""
EFFORT = settings(SHARED_EFFORT, max_examples=60)


@dataclass
class Engine(Shell):
    """Leases by session and backend, with the second at which they end."""

    leases: dict[tuple[str, str], float] = field(default_factory=dict)
    wishes: dict[tuple[str, str], float] = field(default_factory=dict)
    """Seconds to keep for, once what runs has ended."""
    running: set[str] = field(default_factory=set)
    """Turns that have started."""
    priorities: dict[str, int] = field(default_factory=dict)

    def tell(self, event: Event) -> list[Command]:
        match event:
            case TurnFirstToken(turn_id) if turn_id in self.in_flight:
                self.running.add(turn_id)
                self.end_leases(self.in_flight[turn_id].session_id)
            case KvReclaimed(session_id):
                self.end_leases(session_id)
            case TurnEnded(turn_id):
                self.running.discard(turn_id)
                self.grant_wishes()
            case _:
                pass
        return super().tell(event)

    def grant_wishes(self) -> None:
        busy = {turn_id[0] for turn_id in self.running}
        for key in [key for key in self.wishes if key[0] not in busy]:
            self.leases[key] = self.now + self.wishes.pop(key)

    def end_leases(self, session_id: str) -> None:
        self.leases = {key: until_s for key, until_s in self.leases.items() if key[0] != session_id}

    def _enact(self, command: Command, event: Event, known: set[str]) -> None:
        super()._enact(command, event, known)
        match command:
            case HintKv(session_id, backend, KvAction.KEEP, ttl_s):
                self.wishes[session_id, backend] = inf if ttl_s is None else ttl_s
                self.grant_wishes()
            case HintKv(session_id, backend):
                self.wishes.pop((session_id, backend), None)
                self.leases.pop((session_id, backend), None)
            case ForwardTurn(turn_id, _, priority) | Reprioritise(turn_id, priority):
                assert self.priorities.get(turn_id) != priority, "an order to change nothing"
                assert 0 <= priority < PRIORITY_LIMIT
                self.priorities[turn_id] = priority
            case _:
                pass


class Pauses(RuleBasedStateMachine):
    """One session, because pins know nothing of each other, and only what can happen to a pin."""

    policy_name = ""

    def __init__(self) -> None:
        super().__init__()
        self.arrivals = 0
        self.engine = Engine(POLICIES[self.policy_name].make(PolicySettings(), BACKENDS))
        for backend in BACKENDS:
            self.back(backend)

    @rule(is_side=st.booleans())
    def arrive(self, is_side: bool) -> None:
        self.arrivals += 1
        kind = TurnKind.SIDE if is_side else TurnKind.CONTINUATION
        self.engine.arrive(TurnArrived(f"a{self.arrivals}", "a", kind, "", "family", 8_000))

    @rule()
    def pause(self) -> None:
        """All turns under way finish, the last with a tool call."""
        self.arrive(is_side=False)
        for turn_id in [*self.engine.in_flight]:
            self.engine.end(turn_id, TurnEnded(turn_id, Ending.FINISHED, 8_000, 0, 100, 1, "bash"))

    @precondition(lambda self: self.engine.in_flight)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        self.engine.tell(TurnFirstToken(data.draw(st.sampled_from([*self.engine.in_flight]))))

    @precondition(lambda self: self.engine.in_flight)
    @rule(data=st.data(), ending=st.sampled_from(Ending), tool_calls=st.integers(0, 1))
    def end(self, data: st.DataObject, ending: Ending, tool_calls: int) -> None:
        turn_id = data.draw(st.sampled_from([*self.engine.in_flight]))
        usage = (8_000, 0, 100) if ending is Ending.FINISHED else (None, None, None)
        self.engine.end(turn_id, TurnEnded(turn_id, ending, *usage, tool_calls, "bash"))

    @rule(duration_s=st.sampled_from([0.1, 1.0, 3.0]))
    def time_passes(self, duration_s: float) -> None:
        self.engine.pass_time(duration_s)

    @rule(backend=st.sampled_from(BACKENDS))
    def reclaim(self, backend: str) -> None:
        self.engine.tell(KvReclaimed("a", backend, 1_000))

    @rule()
    def end_session(self) -> None:
        self.engine.tell(SessionEnded("a"))

    @rule(backend=st.sampled_from(BACKENDS))
    def gone(self, backend: str) -> None:
        self.engine.tell(BackendUnreachable(backend))

    @rule(backend=st.sampled_from(BACKENDS))
    def back(self, backend: str) -> None:
        self.engine.tell(BackendObserved(backend, 100_000, takes_hints=True, kv_swap_tokens_per_s=1e5))

    @invariant()
    def only_who_has_a_turn_waiting_is_pinned_without_end(self) -> None:
        leases = self.engine.leases
        endless = {session_id for (session_id, _), until_s in leases.items() if until_s == inf}
        in_flight = self.engine.in_flight.values()
        assert endless <= {turn.session_id for turn in in_flight if turn.kind is not TurnKind.SIDE}

    @invariant()
    def nobody_is_pinned_twice(self) -> None:
        now = self.engine.now
        pinned = [session_id for (session_id, _), until_s in self.engine.leases.items() if until_s > now]
        assert len(pinned) == len(set(pinned))


@pytest.mark.parametrize("name", PINNING)
def test_no_lease_leaks(name: str) -> None:
    machine = type("PausesOf", (Pauses,), {"policy_name": name})
    run_state_machine_as_test(machine, settings=EFFORT)
