"""The proof that nobody who waits is passed for ever, as a property of whatever may happen.

Three arguments, each with its bound in the test that checks it: in the queue of one tenant, between
tenants, and in the engine's own queue. Who never waits (a continuation, a warm return, a side call) is
not among those that are counted: it takes no place in the queue.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marsproxy.core.admission import HoldQueue
from marsproxy.core.commands import Command, ForwardTurn
from marsproxy.core.events import TimerFired
from marsproxy.core.evidence import TurnKind
from marsproxy.core.lanes import HeldTurn
from marsproxy.core.priority import TICKS_PER_S, TurnClass
from marsproxy.core.settings import Parts
from tests.marsproxy.core.playbook import Foretold, Playbook, aborts, answers, arrives, calls_tool, reading

pytestmark = pytest.mark.slow

SIZES = {"small": 2_000, "middle": 15_000, "large": 60_000}
"""Prompts of three families."""
WORK_S = {"small": 5.0, "middle": 100.0, "large": 2_000.0}


# -- one tenant -----------------------------------------------------------------------------------


@dataclass
class Wait:
    """What happened to others while one turn waits."""

    held: HeldTurn
    due_before: int
    """Turns that waited beside it, at any time, and were due before it."""
    passed_by: int = 0
    """Turns that were let in, also those that were due before it."""


class WatchedQueue(HoldQueue):
    """Counts for each who waits, and checks the bound at every admission."""

    def __init__(self, max_overtakes: int) -> None:
        super().__init__()
        self.max_overtakes = max_overtakes
        self.waits: dict[str, Wait] = {}
        self.admitted = 0

    def add(self, held: HeldTurn) -> None:
        super().add(held)
        others = [wait for wait in self.waits.values() if wait.held.key > held.key]
        for wait in others:
            assert held.arrived_s <= wait.held.deadline_s, "who comes after the deadline is due after it"
            wait.due_before += 1
        self.waits[held.turn_id] = Wait(held, len(self.waits) - len(others))

    def remove(self, turn_id: str) -> HeldTurn | None:
        self.waits.pop(turn_id, None)
        return super().remove(turn_id)

    def overtake(self, passer: HeldTurn, passed: list[HeldTurn]) -> None:
        super().overtake(passer, passed)
        self.admitted += 1
        for wait in self.waits.values():
            if wait.held.session_id != passer.session_id:
                wait.passed_by += 1
                assert wait.passed_by <= (wait.due_before + 1) * (self.max_overtakes + 1) - 1


class Town:
    """Sessions come, run, call tools, end and give up, as told; time goes on by itself."""

    def __init__(self, book: Playbook) -> None:
        self.book, self.policy = book, book.policy
        self.now = 1.0
        self.comers = 0
        self.running: list[str] = []
        self.resting: list[str] = []
        """Sessions between two turns."""
        self.forwards: list[tuple[ForwardTurn, float]] = []

    def tell(self, event: object) -> None:
        for command in self.policy.handle(event, self.now):  # type: ignore[arg-type]
            self._enact(command)

    def _enact(self, command: Command) -> None:
        if isinstance(command, ForwardTurn):
            self.forwards.append((command, self.now))
            self.running.append(command.turn_id)

    def comes(self, family: str, kind: TurnKind = TurnKind.FIRST) -> None:
        self.comers += 1
        self.tell(arrives(f"{family}-{self.comers}-1", SIZES[family], family=family, kind=kind))

    def step(self, action: str, family: str, index: int) -> None:
        self.now += 1.0
        match action:
            case "comes":
                self.comes(family)
            case "returns":
                self.comes(family, TurnKind.CONTINUATION)
            case "ends" if self.running:
                self.tell(answers(self.running.pop(index % len(self.running)), SIZES[family]))
            case "calls" if self.running:
                turn_id = self.running.pop(index % len(self.running))
                self.resting.append(turn_id)
                self.tell(calls_tool(turn_id, SIZES[family]))
            case "goes on" if self.resting:
                turn_id = self.resting.pop(index % len(self.resting))
                name, turn = turn_id.rsplit("-", 1)
                self.tell(
                    arrives(f"{name}-{int(turn) + 1}", session_id=f"{name}-", family=turn_id.split("-")[0])
                )
            case "gives up" if self.policy.held:
                held = [*self.policy.held]  # type: ignore[call-overload]
                self.tell(aborts(held[index % len(held)].turn_id))
            case "is read":
                self.tell(reading([None, 50_000, 100_000, 200_000][index % 4]))
            case "is lost":
                self.now += 20.0
            case _:
                self.tell(TimerFired())


ACTIONS = [
    "comes",
    "comes",
    "comes",
    "returns",
    "ends",
    "ends",
    "calls",
    "goes on",
    "gives up",
    "is read",
    "is lost",
]
STEPS = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.sampled_from(sorted(SIZES)), st.integers(0, 5)),
    min_size=20,
    max_size=120,
)


@settings(max_examples=150, deadline=None)
@given(
    STEPS,
    st.integers(0, 4),
    st.integers(0, 4),
    st.sampled_from([0.0, 0.1, 1.0, 30.0]),
    st.booleans(),
)
def test_who_waits_is_passed_no_more_often_than_its_deadline_and_the_cap_allow(
    steps, look_ahead, max_overtakes, slack, is_ordered
):
    """Of a turn with virtual deadline ``d``, let ``n`` be the turns that wait beside it and are due earlier.

    A deadline is never before its turn's arrival, so all ``n`` came before ``d``: whatever comes for ever
    after, ``n`` stays. An admission is of one of the ``n``, or of a turn due later that passes it by
    look-ahead. Such a turn also passes the head of the queue, which is then one of the ``n`` or the turn
    itself; and a head that was passed ``max_overtakes`` times is passed no more. So at most

        n + max_overtakes * (n + 1)  =  (n + 1) * (max_overtakes + 1) - 1

    turns are let in while it waits.
    """
    parts = Parts(order=is_ordered)
    book = Playbook(
        parts=parts,
        forecast=Foretold(work_s=WORK_S),
        look_ahead=look_ahead,
        max_overtakes=max_overtakes,
        deadline_slack=slack,
        max_hold_s=86_400,
        telemetry_stale_s=15.0,
    )
    book.policy.held = WatchedQueue(max_overtakes)
    town = Town(book)
    for action, family, index in steps:
        town.step(action, family, index)


def test_under_endless_new_work_the_largest_goes_when_those_due_before_it_have_gone():
    """Twice as many come as places get free, all of them shorter. Those that came before its deadline are
    a backlog of one for every second until then; the ones that come later are due later."""
    book = Playbook(forecast=Foretold(work_s=WORK_S), deadline_slack=0.1, max_hold_s=86_400, max_overtakes=4)
    town = Town(book)
    for _ in range(6):
        town.comes("middle")
    town.comes("large")
    (large,) = book.policy.held
    assert large.deadline_s > 300
    while large.turn_id in book.policy.held:
        town.now += 1.0
        town.comes("small")
        town.comes("middle")
        town.tell(answers(town.running.pop(0)))
        assert town.now < 2 * large.deadline_s + 100
    assert town.now > large.deadline_s
    assert len(book.policy.held) > 100, "there was always somebody else"


# -- several tenants ------------------------------------------------------------------------------

AMOUNTS = (1_000.0, 4_000.0)
WEIGHTS: Mapping[str, float] = {"one": 1.0, "two": 2.0, "three": 0.5}


def served_in_order(queue: HoldQueue, amounts: Iterator[float]) -> HeldTurn:
    head = queue.windows(look_ahead=0, max_overtakes=0)[0].turns[0]
    queue.serve(head.tenant, next(amounts))
    queue.remove(head.turn_id)
    return head


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(WEIGHTS)), st.booleans(), st.sampled_from(AMOUNTS), st.floats(0, 50)
        ),
        min_size=10,
        max_size=150,
    )
)
def test_no_tenant_keeps_another_waiting_beyond_its_share(steps):
    """While a turn waits behind ``r`` of its own tenant, each other tenant is served at most

        1 + weight_other / least * (r + 1) * most / weight_own

    times, where ``least`` and ``most`` bound what is given at once: a tenant that waits has had no more than
    one service ahead of the others, its lane is given ``r`` more before the turn's own, and nobody goes
    before it whose share is larger by then (start-time fair queueing).
    """
    queue, now = HoldQueue(WEIGHTS), 0.0
    waits: dict[str, tuple[HeldTurn, int, dict[str, int]]] = {}
    for number, (tenant, is_arrival, amount, slack_s) in enumerate(steps):
        now += 1.0
        if is_arrival:
            held = HeldTurn(f"t{number}", f"s{number}", TurnClass.NEW, now, now + slack_s, tenant)
            own = [turn for turn, _, _ in waits.values() if turn.tenant == tenant]
            for turn in own:
                if turn.deadline_s > held.deadline_s:
                    waits[turn.turn_id] = (turn, waits[turn.turn_id][1] + 1, waits[turn.turn_id][2])
            ahead = sum(turn.deadline_s <= held.deadline_s for turn in own)
            waits[held.turn_id] = (held, ahead, dict.fromkeys(WEIGHTS, 0))
            queue.add(held)
        elif waits:
            head = served_in_order(queue, iter([amount]))
            del waits[head.turn_id]
            for turn, ahead, served in waits.values():
                served[head.tenant] += 1
                least, most = AMOUNTS
                share = (ahead + 1) * most / WEIGHTS[turn.tenant]
                if head.tenant != turn.tenant:
                    assert served[head.tenant] <= 1 + WEIGHTS[head.tenant] / least * share


# -- the engine's queue ---------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(STEPS, st.sampled_from([0.0, 1.0]))
def test_in_the_engine_a_turn_is_overtaken_only_by_sessions_that_began_before_its_own_deadline(steps, slack):
    """A turn's priority is a time that does not move, its deadline: its session's first arrival and a delay
    by class. Whoever goes before it has a smaller one, and none is before the beginning of its own session.
    So those that began later than the deadline go behind it, and only finitely many began before."""
    book = Playbook(forecast=Foretold(work_s=WORK_S), deadline_slack=slack, parts=Parts())
    town = Town(book)
    for action, family, index in steps:
        town.step(action, family, index)
    began = {}
    for forward, at_s in town.forwards:
        session = book.policy.sessions.get(forward.turn_id.rsplit("-", 1)[0] + "-")
        if session is not None:
            began[forward.turn_id] = session.first_arrival_s
            assert session.first_arrival_s <= at_s
    for first, _ in town.forwards:
        for other, _ in town.forwards:
            if other.turn_id in began and other.priority < first.priority:
                assert began[other.turn_id] <= first.priority / TICKS_PER_S + 0.5 / TICKS_PER_S
