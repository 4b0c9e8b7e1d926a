"""What an engine's books of leases look like, whatever happens: nothing is pinned for ever.

The shell of ``test_properties`` with an engine behind it that takes every hint, and ends a lease when it
starts the session's next turn, when its time is over, or when it is told so.
"""

from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, run_state_machine_as_test

from marsproxy.core.commands import Command, ForwardTurn, HintKv, KvAction, Reprioritise
from marsproxy.core.events import Event, HintAnswered, KvReclaimed, TurnFirstToken
from marsproxy.core.evidence import TurnKind
from marsproxy.core.policies import POLICIES
from tests.marsproxy.core.baselines.test_properties import EFFORT, AnyOrder, Shell

PINNING = ["continuum", "continuum_dy", "infercept"]
PRIORITY_LIMIT = 2**63
"""vLLM's priority is a signed integer of 64 bits."""


@dataclass
class Engine(Shell):
    """Leases by session and backend, with the second at which they end."""

    leases: dict[tuple[str, str], float] = field(default_factory=dict)
    priorities: dict[str, int] = field(default_factory=dict)

    def tell(self, event: Event) -> list[Command]:
        match event:
            case TurnFirstToken(turn_id) if turn_id in self.in_flight:
                turn = self.in_flight[turn_id]
                if turn.kind is not TurnKind.SIDE:
                    self.end_leases(turn.session_id)
            case KvReclaimed(session_id) | HintAnswered(session_id, kept_tokens=0):
                self.end_leases(session_id)
            case _:
                pass
        return super().tell(event)

    def end_leases(self, session_id: str) -> None:
        self.leases = {key: until_s for key, until_s in self.leases.items() if key[0] != session_id}

    def _enact(self, command: Command, event: Event, known: set[str]) -> None:
        super()._enact(command, event, known)
        match command:
            case HintKv(session_id, backend, KvAction.KEEP, ttl_s):
                self.leases[session_id, backend] = inf if ttl_s is None else self.now + ttl_s
            case HintKv(session_id, backend):
                self.leases.pop((session_id, backend), None)
            case ForwardTurn(turn_id, _, priority) | Reprioritise(turn_id, priority):
                assert self.priorities.get(turn_id) != priority, "an order to change nothing"
                assert 0 <= priority < PRIORITY_LIMIT
                self.priorities[turn_id] = priority
            case _:
                pass


class AnyOrderOfHints(AnyOrder):
    @initialize(backends=st.integers(1, 2), max_sessions=st.sampled_from([2, 4, 50]))
    def start(self, backends: int, max_sessions: int) -> None:
        super().start(backends=backends, max_held=50, fallback=3, max_sessions=max_sessions)
        self.shell: Engine = Engine(self.shell.policy)

    @invariant()
    def only_who_has_a_turn_waiting_is_pinned_without_end(self) -> None:
        leases = self.shell.leases
        endless = {session_id for (session_id, _), until_s in leases.items() if until_s == inf}
        assert endless <= {turn.session_id for turn in self.shell.in_flight.values()}


@pytest.mark.parametrize("name", PINNING)
def test_no_lease_leaks(name: str) -> None:
    machine = type("AnyOrderOf", (AnyOrderOfHints,), {"policy_name": name})
    run_state_machine_as_test(machine, settings=EFFORT)


def test_all_that_pin_are_here() -> None:
    others = {"mars", "fcfs", "priority", "thunderagent", "thunderagent_default", "concur", "autellix"}
    needing_hints = {name for name, kind in POLICIES.items() if kind.needs_hints}
    assert needing_hints - others == set(PINNING)
