"""A fleet of agents behind one key, more than may be at work: it is held and not refused."""

import heapq
from collections import Counter
from dataclasses import dataclass, field
from itertools import count

import pytest

from marsproxy.core.commands import Command, ForwardTurn, RejectTurn, SetTimer
from marsproxy.core.events import (
    BackendObserved,
    Ending,
    Event,
    TenantLimits,
    TenantsChanged,
    TimerFired,
    TurnArrived,
    TurnEnded,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.policies import POLICIES
from marsproxy.core.settings import AdmissionSettings, PolicySettings
from marsproxy.core.tenant_limits import LimitedPolicy

SESSIONS, MAX_SESSIONS, TURNS = 200, 50, 5
TURN_S, GAP_S = 1.0, 3.0
SETTINGS = PolicySettings(AdmissionSettings(telemetry_stale_s=1e9))


@dataclass
class Fleet:
    """Agents in virtual time: each sends its next turn ``GAP_S`` after the last was answered.

    Args:
        vanishing: of how many agents one never comes back from its last tool.
    """

    policy: LimitedPolicy
    vanishing: int | None = None
    now: float = 0.0
    agenda: list[tuple[float, int, Event | None]] = field(default_factory=list)
    numbers: "count[int]" = field(default_factory=count)
    timer_s: float | None = None
    answered: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)

    def plan(self, in_s: float, event: Event) -> None:
        heapq.heappush(self.agenda, (self.now + in_s, next(self.numbers), event))

    def arrive(self, session: str, turn: int, in_s: float) -> None:
        kind = TurnKind.CONTINUATION if turn else TurnKind.FIRST
        self.plan(in_s, TurnArrived(f"{session}/{turn}", session, kind, "fleet", "agent", 1000 + 500 * turn))

    def run(self) -> None:
        while self.agenda or self.timer_s is not None:
            if self.timer_s is not None and (not self.agenda or self.timer_s <= self.agenda[0][0]):
                self.now, self.timer_s = max(self.now, self.timer_s), None
                event: Event = TimerFired()
                if not self.policy.open_turns:
                    return
            else:
                self.now, _, event = heapq.heappop(self.agenda)
            self.enact(self.policy.handle(event, self.now))
            if isinstance(event, TurnEnded) and event.ending is Ending.FINISHED:
                self.go_on(event.turn_id)

    def enact(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case SetTimer():
                    self.timer_s = command.at_s
                case ForwardTurn():
                    self.plan(TURN_S, self.answer(command.turn_id))
                case RejectTurn():
                    self.refused.append(command.turn_id)
                    self.plan(0.0, TurnEnded(command.turn_id, Ending.FAILED))

    def answer(self, turn_id: str) -> TurnEnded:
        session, _, turn = turn_id.partition("/")
        is_last = int(turn) == TURNS - 1 and not self.vanishes(session)
        return TurnEnded(turn_id, Ending.FINISHED, 1000 + 500 * int(turn), 0, 100, tool_calls=not is_last)

    def go_on(self, turn_id: str) -> None:
        session, _, turn = turn_id.partition("/")
        self.answered[session] += 1
        if int(turn) < TURNS - 1:
            self.arrive(session, int(turn) + 1, GAP_S)

    def vanishes(self, session: str) -> bool:
        return self.vanishing is not None and int(session) % self.vanishing == 0


@pytest.mark.parametrize("vanishing", [None, 10], ids=["all finish", "a tenth vanish"])
@pytest.mark.parametrize("pool_tokens", [4_000_000, 60_000], ids=["much room", "little room"])
def test_a_fleet_is_held_and_not_refused(vanishing: int | None, pool_tokens: int) -> None:
    policy = LimitedPolicy(POLICIES["mars"].make(SETTINGS, ("a",)))
    policy.handle(TenantsChanged((TenantLimits("fleet", max_sessions=MAX_SESSIONS),)), 0.0)
    policy.handle(BackendObserved("a", kv_tokens_total=pool_tokens), 0.0)
    fleet = Fleet(policy, vanishing)
    for number in range(SESSIONS):
        fleet.arrive(str(number), 0, 0.0)
    fleet.run()
    assert fleet.refused == []
    assert fleet.answered == {str(number): TURNS for number in range(SESSIONS)}
