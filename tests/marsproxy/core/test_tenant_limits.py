"""Limits of tenants: transcripts in front of a policy that lets everything go."""

import pickle

from marsproxy.core.baselines.fcfs import Fcfs
from marsproxy.core.commands import Command, ForwardTurn, HoldTurn, Reason, RejectTurn, SetTimer
from marsproxy.core.events import (
    Ending,
    Event,
    SessionEnded,
    StandingAlone,
    StandingTogether,
    TenantLimits,
    TenantsChanged,
    TimerFired,
    TurnArrived,
    TurnBounced,
    TurnEnded,
    TurnProgressed,
    TurnResumed,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.policy import Policy
from marsproxy.core.settings import PolicySettings
from marsproxy.core.tenant_limits import LOOK_AGAIN_S, MAX_WAIT_S, RETRY_AFTER_S, LimitedPolicy
from tests.marsproxy.core.playbook import ROUND_NUMBERS, STEADY, reading


class OneBackend(Fcfs):
    """Lets everything go, and has no share of anything to mind."""

    def handle(self, event: Event, now: float) -> list[Command]:
        if isinstance(event, StandingAlone | StandingTogether):
            return []
        return super().handle(event, now)


def limited(*tenants: TenantLimits) -> LimitedPolicy:
    policy = LimitedPolicy(OneBackend(PolicySettings(), ("a",)))
    policy.handle(TenantsChanged(tenants), 0.0)
    return policy


def arrives(
    turn_id: str,
    session: str | None = None,
    *,
    tenant: str = "t",
    kind: TurnKind = TurnKind.FIRST,
    parent: str | None = None,
    tokens: int = 100,
) -> TurnArrived:
    return TurnArrived(
        turn_id, session or f"session of {turn_id}", kind, tenant, "", tokens, parent_session_id=parent
    )


def finishes(
    turn_id: str, prompt: int = 100, cached: int = 0, completion: int = 0, calls: int = 0
) -> TurnEnded:
    return TurnEnded(turn_id, Ending.FINISHED, prompt, cached, completion, tool_calls=calls)


def answers(commands: list[Command]) -> list[tuple[str, Reason | None]]:
    """Turns that were decided on, with what held them up; a refusal shows as its reason, too."""
    found: list[tuple[str, Reason | None]] = []
    for command in commands:
        match command:
            case ForwardTurn():
                found.append((command.turn_id, None))
            case HoldTurn() | RejectTurn():
                found.append((command.turn_id, command.reason))
    return found


def timers(commands: list[Command]) -> list[float]:
    return [command.at_s for command in commands if isinstance(command, SetTimer)]


def test_one_more_turn_than_allowed_is_refused() -> None:
    policy = limited(TenantLimits("t", max_open_turns=2))
    assert answers(policy.handle(arrives("1"), 1.0)) == [("1", None)]
    assert answers(policy.handle(arrives("2"), 1.0)) == [("2", None)]
    refused = policy.handle(arrives("3"), 1.0)
    assert refused == [RejectTurn("3", Reason.TENANT_TURNS, RETRY_AFTER_S)]
    policy.handle(TurnEnded("3", Ending.FAILED), 1.0)
    assert answers(policy.handle(arrives("other", tenant="u"), 1.0)) == [("other", None)]
    policy.handle(finishes("1"), 2.0)
    assert answers(policy.handle(arrives("4"), 2.0)) == [("4", None)]
    assert policy.open_turns == 3


def test_a_debt_is_waited_for_to_the_second_and_in_order() -> None:
    policy = limited(TenantLimits("t", tokens_per_s=10, burst_tokens=100))
    policy.handle(arrives("1"), 0.0)
    policy.handle(finishes("1", prompt=500, cached=200, completion=100), 0.0)  # 400 of 100: 300 owed
    held = policy.handle(arrives("2"), 5.0)
    assert held == [HoldTurn("2", Reason.TENANT_TOKENS, 1), SetTimer(30.0)]
    assert answers(policy.handle(arrives("3"), 6.0)) == [("3", Reason.TENANT_TOKENS)]
    assert answers(policy.handle(TimerFired(), 29.0)) == []
    assert answers(policy.handle(TimerFired(), 30.0)) == [("2", None)]  # what it costs is set aside
    policy.handle(finishes("2", prompt=10), 30.0)
    assert answers(policy.handle(TimerFired(), 31.0)) == [("3", None)]


def test_turns_under_way_are_expected_to_cost_what_they_do_in_the_mean() -> None:
    """A balance of 100 is enough for one turn of 100 and the next of the same, not for ten."""
    policy = limited(TenantLimits("t", tokens_per_s=1, burst_tokens=100))
    decided = [answers(policy.handle(arrives(str(number)), 0.0))[0][1] for number in range(10)]
    assert decided == [None, None, *[Reason.TENANT_TOKENS] * 8]


def test_what_would_wait_too_long_is_told_when_to_come_back() -> None:
    policy = limited(TenantLimits("t", tokens_per_s=1, burst_tokens=10))
    policy.handle(arrives("1", tokens=1), 0.0)
    policy.handle(finishes("1", prompt=1010), 0.0)
    assert policy.handle(arrives("2"), 1.0) == [RejectTurn("2", Reason.TENANT_TOKENS, 999.0)]


def test_a_failure_costs_nothing_and_an_abort_what_was_foreseen() -> None:
    policy = limited(TenantLimits("t", tokens_per_s=1, burst_tokens=100))
    use = policy.use_of("t")
    assert use is not None
    assert use.bucket is not None
    policy.handle(arrives("1", tokens=50), 0.0)
    policy.handle(TurnEnded("1", Ending.FAILED), 0.0)
    assert (use.bucket.balance(0.0), use.set_aside) == (100, 0)
    policy.handle(arrives("2", tokens=50), 0.0)
    policy.handle(TurnEnded("2", Ending.ABORTED), 0.0)
    assert use.bucket.balance(0.0) == 50
    policy.handle(arrives("3", tokens=5), 0.0)
    policy.handle(TurnProgressed("3", 30), 0.0)
    policy.handle(TurnEnded("3", Ending.ABORTED), 0.0)
    assert use.bucket.balance(0.0) == 20


def test_one_more_session_waits_until_another_rests() -> None:
    policy = limited(TenantLimits("t", max_sessions=1))
    policy.handle(arrives("a1", "a"), 0.0)
    assert policy.handle(arrives("b1", "b"), 1.0) == [
        HoldTurn("b1", Reason.TENANT_SESSIONS, 1),
        SetTimer(1.0 + LOOK_AGAIN_S),
    ]
    policy.handle(finishes("a1", calls=1), 2.0)  # it is in its tool gap, and comes back from it
    assert answers(policy.handle(arrives("a2", "a", kind=TurnKind.CONTINUATION), 3.0)) == [("a2", None)]
    assert answers(policy.handle(finishes("a2"), 4.0)) == [("b1", None)]


def test_a_session_that_is_said_to_be_over_makes_room() -> None:
    policy = limited(TenantLimits("t", max_sessions=1))
    policy.handle(arrives("a1", "a"), 0.0)
    policy.handle(finishes("a1", calls=1), 1.0)
    assert answers(policy.handle(arrives("b1", "b"), 2.0)) == [("b1", Reason.TENANT_SESSIONS)]
    assert answers(policy.handle(SessionEnded("a"), 3.0)) == [("b1", None)]


def test_side_calls_and_sub_agents_belong_to_a_session_that_is_there() -> None:
    policy = limited(TenantLimits("t", max_sessions=1))
    policy.handle(arrives("a1", "a"), 0.0)
    assert answers(policy.handle(arrives("s", "b", kind=TurnKind.SIDE), 0.0)) == [("s", None)]
    assert answers(policy.handle(arrives("c1", "c", parent="a"), 0.0)) == [("c1", None)]
    assert answers(policy.handle(arrives("d1", "d", parent="c"), 0.0)) == [("d1", Reason.TENANT_SESSIONS)]


def test_nobody_waits_for_ever() -> None:
    policy = limited(TenantLimits("t", max_sessions=1))
    policy.handle(arrives("a1", "a"), 0.0)
    policy.handle(arrives("b1", "b"), 1.0)
    assert policy.handle(TimerFired(), 1.0 + MAX_WAIT_S)[0] == RejectTurn(
        "b1", Reason.TENANT_SESSIONS, RETRY_AFTER_S
    )
    assert policy.waiting == 0


def test_who_goes_away_leaves_the_line() -> None:
    policy = limited(TenantLimits("t", max_sessions=1))
    for turn_id in ("a1", "b1", "c1"):
        policy.handle(arrives(turn_id), 0.0)
    assert len(policy.held) == 2
    policy.handle(TurnEnded("b1", Ending.ABORTED), 1.0)
    assert answers(policy.handle(finishes("a1"), 2.0)) == [("c1", None)]


def test_limits_change_under_way() -> None:
    """Who waited for one that is gone goes; what is open counts for one that is new."""
    policy = limited(TenantLimits("t", max_sessions=1))
    policy.handle(arrives("a1", "a"), 0.0)
    policy.handle(arrives("b1", "b"), 0.0)
    policy.handle(arrives("c1", "c"), 0.0)
    assert answers(policy.handle(TenantsChanged((TenantLimits("t", max_sessions=2),)), 1.0)) == [("b1", None)]
    assert answers(policy.handle(TenantsChanged(()), 2.0)) == [("c1", None)]
    policy.handle(TenantsChanged((TenantLimits("t", max_open_turns=3, max_sessions=3),)), 3.0)
    assert answers(policy.handle(arrives("d1", "d"), 3.0)) == [("d1", Reason.TENANT_TURNS)]
    policy.handle(finishes("a1", calls=1), 4.0)
    assert answers(policy.handle(arrives("e1", "e"), 4.0)) == [("e1", Reason.TENANT_SESSIONS)]


def test_a_replica_by_itself_has_its_part_of_every_limit() -> None:
    policy = limited(TenantLimits("t", max_open_turns=4))
    policy.handle(StandingAlone(2), 0.0)
    decided = [answers(policy.handle(arrives(str(number)), 0.0))[0][1] for number in range(3)]
    assert decided == [None, None, Reason.TENANT_TURNS]
    policy.handle(StandingTogether(), 1.0)
    assert answers(policy.handle(arrives("4"), 1.0)) == [("4", None)]


def test_a_copy_goes_on_as_the_original() -> None:
    policy = limited(TenantLimits("t", tokens_per_s=10, burst_tokens=100, max_sessions=1))
    policy.handle(arrives("a1", "a"), 0.0)
    policy.handle(arrives("b1", "b"), 0.0)
    copy: LimitedPolicy = pickle.loads(pickle.dumps(policy))
    for event in (finishes("a1", prompt=400), TimerFired(), arrives("c1", "c"), TimerFired()):
        assert copy.handle(event, 1.0) == policy.handle(event, 1.0)
    assert timers(copy.handle(TimerFired(), 5.0)) == timers(policy.handle(TimerFired(), 5.0)) != []


def test_a_resumed_turn_that_stands_in_line_counts_once() -> None:
    """It is in flight at its replica: then it leaves the line, and its place is taken."""
    policy = limited(TenantLimits("t", max_open_turns=3, max_sessions=1))
    policy.handle(arrives("a1", "a"), 0.0)
    waits = arrives("b1", "b")
    assert answers(policy.handle(waits, 0.0)) == [("b1", Reason.TENANT_SESSIONS)]
    assert answers(policy.handle(TurnResumed(waits, None), 1.0)) == []
    policy.handle(TurnResumed(waits, "a"), 1.0)
    use = policy.use_of("t")
    assert use is not None
    assert (use.open_turns, policy.waiting, policy.open_turns) == (2, 0, 2)
    policy.handle(finishes("b1"), 2.0)
    assert (use.open_turns, policy.open_turns) == (1, 1)


def test_a_turn_that_its_backend_failed_costs_nothing() -> None:
    """Whoever gives up while it waits for another has had nothing."""
    policy = LimitedPolicy(Policy(PolicySettings(ROUND_NUMBERS, parts=STEADY), ("one", "two")))
    policy.handle(TenantsChanged((TenantLimits("t", tokens_per_s=1, burst_tokens=100_000),)), 0.0)
    for backend in ("one", "two"):
        policy.handle(reading(backend=backend), 0.0)
    use = policy.use_of("t")
    assert use is not None
    assert use.bucket is not None
    assert answers(policy.handle(arrives("1", tokens=20_000), 0.0)) == [("1", None)]
    policy.handle(arrives("other", tenant="u", tokens=85_000), 0.0)
    assert answers(policy.handle(TurnBounced("1", "one"), 0.0)) == [("1", Reason.KV_FULL)]
    policy.handle(TurnEnded("1", Ending.ABORTED), 0.0)
    assert (use.bucket.balance(0.0), use.set_aside) == (100_000, 0)
