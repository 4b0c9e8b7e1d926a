"""In any order of events no tenant has more than it may, and none is in another's way for long."""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marsproxy.core.commands import Command, ForwardTurn, RejectTurn, SetTimer
from marsproxy.core.events import (
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
from marsproxy.core.policy import Policy
from marsproxy.core.sessions import Phase
from marsproxy.core.settings import PolicySettings
from marsproxy.core.tenant_limits import LimitedPolicy
from tests.marsproxy.core.playbook import ROUND_NUMBERS, STEADY, TURN_TOKENS, answers, arrives, reading

LIMITS = (
    TenantLimits("few", max_open_turns=3, max_sessions=2),
    TenantLimits("slow", tokens_per_s=20, burst_tokens=200, max_open_turns=6),
)
TENANTS = ("few", "slow", "free")


@dataclass(slots=True)
class World:
    """Clients of three tenants, and the timer."""

    policy: LimitedPolicy
    now: float = 0.0
    timer_s: float | None = None
    tenant_of: dict[str, str] = field(default_factory=dict)
    waiting: OrderedDict[str, None] = field(default_factory=OrderedDict)
    flying: OrderedDict[str, None] = field(default_factory=OrderedDict)
    refused: list[str] = field(default_factory=list)
    computed: Counter[str] = field(default_factory=Counter)

    def tell(self, event: Event) -> list[Command]:
        commands = self.policy.handle(event, self.now)
        refused = []
        for command in commands:
            match command:
                case SetTimer():
                    self.timer_s = command.at_s
                case ForwardTurn():
                    del self.waiting[command.turn_id]
                    self.flying[command.turn_id] = None
                case RejectTurn():
                    del self.waiting[command.turn_id]
                    refused.append(command.turn_id)
        self.refused += refused
        for turn_id in refused:
            self.tell(TurnEnded(turn_id, Ending.FAILED))
        self.check()
        return commands

    def check(self) -> None:
        open_turns = Counter(self.tenant_of[turn_id] for turn_id in (*self.waiting, *self.flying))
        for limits in LIMITS:
            assert open_turns[limits.tenant] <= (limits.max_open_turns or 1e9)
        at_work = [
            session.id
            for session in self.policy.sessions
            if session.tenant == "few" and (session.phase is not Phase.IDLE or session.open_turns)
        ]
        assert len(at_work) <= 2
        use = self.policy.use_of("slow")
        assert use is not None
        assert use.bucket is not None
        assert use.bucket.balance(self.now) <= 200
        # At most what came in, and what the last that went were not expected to cost.
        assert self.computed["slow"] <= 200 + 20 * self.now + 6 * 120

    def pass_time(self, seconds: float) -> None:
        until_s = self.now + seconds
        while self.timer_s is not None and self.timer_s <= until_s:
            self.now, self.timer_s = max(self.now, self.timer_s), None
            self.tell(TimerFired())
        self.now = until_s

    def arrive(self, tenant: str, session: int, has_history: bool) -> None:
        turn_id = f"turn {len(self.tenant_of)}"
        self.tenant_of[turn_id] = tenant
        self.waiting[turn_id] = None
        kind = TurnKind.CONTINUATION if has_history else TurnKind.FIRST
        self.tell(TurnArrived(turn_id, f"{tenant} {session}", kind, tenant, "", 100))

    def end(self, ending: Ending, calls: int) -> None:
        line = self.flying if ending is not Ending.ABORTED or not self.waiting else self.waiting
        if not line:
            return
        turn_id, _ = line.popitem(last=False)
        if ending is Ending.FINISHED:
            self.computed[self.tenant_of[turn_id]] += 120
            self.tell(TurnEnded(turn_id, ending, 100, 0, 20, tool_calls=calls))
        else:
            self.tell(TurnEnded(turn_id, ending))


STEPS = st.one_of(
    st.tuples(st.just("arrive"), st.sampled_from(TENANTS), st.integers(0, 4), st.booleans()),
    st.tuples(st.just("end"), st.sampled_from(Ending), st.integers(0, 1)),
    st.tuples(st.just("pass"), st.floats(0, 30)),
)


@settings(deadline=None)
@given(steps=st.lists(STEPS, max_size=60), policy=st.sampled_from(["mars", "fcfs", "static_cap"]))
def test_no_tenant_has_more_than_it_may_and_every_turn_is_answered(steps: list[tuple], policy: str) -> None:
    world = World(LimitedPolicy(POLICIES[policy].make(PolicySettings(), ("a",))))
    world.tell(TenantsChanged(LIMITS))
    for what, *details in steps:
        match what:
            case "arrive":
                world.arrive(*details)
            case "end":
                world.end(*details)
            case "pass":
                world.pass_time(*details)
    for _ in range(len(world.tenant_of)):
        while world.flying:
            world.end(Ending.FINISHED, 0)
        world.pass_time(1000.0)
    assert not world.waiting
    assert not world.flying
    assert world.policy.open_turns == world.policy.waiting == 0


# -- one tenant's flood, another's wait ---------------------------------------------------------------


def turns_admitted_before(flood: int, limits: tuple[TenantLimits, ...]) -> int:
    """How many turns of a flooding tenant go between the arrival of another's one turn and its going."""
    policy = LimitedPolicy(Policy(PolicySettings(ROUND_NUMBERS, parts=STEADY), ("gpu",)))
    policy.handle(TenantsChanged(limits), 0.0)
    policy.handle(reading(), 0.0)
    running: list[str] = []
    for number in range(flood):
        commands = policy.handle(arrives(f"flood-{number}-1", tenant="flood"), 1.0)
        running += [c.turn_id for c in commands if isinstance(c, ForwardTurn)]
        for command in commands:
            if isinstance(command, RejectTurn):
                policy.handle(TurnEnded(command.turn_id, Ending.FAILED), 1.0)
    commands = policy.handle(arrives("calm-1", tenant="calm"), 2.0)
    before = 0
    while not any(isinstance(c, ForwardTurn) and c.turn_id == "calm-1" for c in commands):
        commands = policy.handle(answers(running.pop(0), context=TURN_TOKENS), 3.0)
        going = [c.turn_id for c in commands if isinstance(c, ForwardTurn)]
        running += going
        before += len([turn_id for turn_id in going if turn_id != "calm-1"])
    return before


@pytest.mark.parametrize("limits", [(), (TenantLimits("flood", max_open_turns=50),)], ids=["none", "turns"])
def test_a_flood_delays_others_by_no_more_the_larger_it_is(limits: tuple[TenantLimits, ...]) -> None:
    """With lanes alone the next place is the calm tenant's, be ten wait before it or a thousand."""
    delays = [turns_admitted_before(flood, limits) for flood in (10, 100, 1000)]
    assert delays[0] == delays[1] == delays[2] <= 1


def test_a_weight_told_at_runtime_is_a_share_of_the_places() -> None:
    """Two tenants always wait; the one with three times the weight is given three times the places."""
    policy = LimitedPolicy(Policy(PolicySettings(ROUND_NUMBERS, parts=STEADY), ("gpu",)))
    policy.handle(TenantsChanged((TenantLimits("large", weight=3.0), TenantLimits("small"))), 0.0)
    policy.handle(reading(), 0.0)
    running: list[str] = []
    for number in range(100):
        for tenant in ("large", "small"):
            commands = policy.handle(arrives(f"{tenant}-{number}-1", tenant=tenant), 1.0)
            running += [c.turn_id for c in commands if isinstance(c, ForwardTurn)]
    admitted: Counter[str] = Counter()
    for _ in range(80):
        for command in policy.handle(answers(running.pop(0)), 2.0):
            if isinstance(command, ForwardTurn):
                running.append(command.turn_id)
                admitted[command.turn_id.partition("-")[0]] += 1
    assert 2.5 <= admitted["large"] / admitted["small"] <= 3.5
