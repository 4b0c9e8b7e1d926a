"""Replicas in virtual time, in any order of messages: they agree, keep the budget and end each turn once.

What is promised: replicas that hear each other never let anybody in beyond the limit (a return whose blocks
are still there is not let in: it just goes; a turn that is resumed in flight is counted where it is). When
the log is lost each goes on with its share; the shares add up to the limit, and beyond it by no more than
the charges of those sessions that the replicas, having read unlike parts of the log, did not agree on (if
they agree on who the replicas are: each cuts what is free by its own count of them). From then on nobody
lets a session in beyond its own share, but for one session on a backend where it has no other.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from marsproxy.core.events import BackendObserved, Ending, TurnEnded
from marsproxy.core.shared_state import MemberLeft, SharedState
from tests.marsproxy.core.partitions import (
    GPU,
    POOL_TOKENS,
    ROUNDING,
    SESSION_TOKENS,
    SETTINGS,
    Client,
    Log,
    Replica,
    allowance,
    finished,
    new_log,
    reserved,
)
from tests.marsproxy.core.playbook import ROUND_NUMBERS

pytestmark = pytest.mark.slow

LIMIT_TOKENS = SETTINGS.admission.kv_target * POOL_TOKENS
SESSIONS = 16


def views(replicas: list[Replica]) -> dict[str, list[tuple[float, str | None]]]:
    """Of each session, what each replica holds for it and through whom it thinks that it came last."""
    ids = dict.fromkeys(session.id for replica in replicas for session in replica.state.policy.sessions)
    return {session_id: [view(replica.state, session_id) for replica in replicas] for session_id in ids}


def view(state: SharedState, session_id: str) -> tuple[float, str | None]:
    session = state.policy.sessions.get(session_id)
    if session is None or not session.is_counted:
        return 0.0, None
    return session.charged_tokens, state._homes.get(session_id)


class Partitions(RuleBasedStateMachine):
    @initialize(replicas=st.integers(2, 4))
    def start(self, replicas: int) -> None:
        self.now = 0.0
        self.log: Log | None = new_log()
        self.replicas = [Replica("abcd"[number], self.log) for number in range(replicas)]
        self.clients = [Client(number) for number in range(SESSIONS)]
        self.clients_of: dict[str, Client] = {}
        self.arrived: list[str] = []
        self.has_parted_well = False
        """All at one record, with nothing promised beyond the limit, and nobody is back yet."""
        self._settle()

    # -- what happens -----------------------------------------------------------------------------

    @rule(replica=st.integers(0, 3), client=st.integers(0, SESSIONS - 1))
    def a_turn_arrives(self, replica: int, client: int) -> None:
        at, who = self._replica(replica), self.clients[client]
        at.arrive(who.evidence())
        turn_id = next(reversed(at.turns)) if at.turns else ""
        self.clients_of[turn_id] = who
        self.arrived.append(turn_id)

    @rule(replica=st.integers(0, 3))
    def many_turns_arrive(self, replica: int) -> None:
        for client in range(SESSIONS):
            self.a_turn_arrives(replica, client)

    @rule(replica=st.integers(0, 3), number=st.integers(0, 20), is_answer=st.booleans())
    def a_turn_ends(self, replica: int, number: int, is_answer: bool) -> None:
        at = self._replica(replica)
        if at.turns:
            turn_id = [*at.turns][number % len(at.turns)]
            self._end(at, turn_id, is_answer=is_answer)

    @rule(replica=st.integers(0, 3), most=st.integers(1, 8))
    def records_are_sent(self, replica: int, most: int) -> None:
        self._replica(replica).send(most)

    @rule(replica=st.integers(0, 3), most=st.integers(1, 30))
    def records_are_read(self, replica: int, most: int) -> None:
        self._replica(replica).read(most)

    @rule()
    def all_is_told(self) -> None:
        self._settle()

    @rule(seconds=st.sampled_from([0.1, 1.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self._wait(seconds)

    @precondition(lambda self: self.log is not None)
    @rule(replica=st.integers(0, 3), by=st.integers(0, 3))
    def somebody_is_given_up(self, replica: int, by: int) -> None:
        """It may be well, alone, or another by now: it was not heard of for too long."""
        lost, survivor = self._replica(replica), self._replica(by)
        if lost is not survivor and not survivor.is_alone and self.log is not None:
            self.log.append(self.now, survivor.member, MemberLeft(lost.member))

    @rule(replica=st.integers(0, 3))
    def one_is_cut_off(self, replica: int) -> None:
        if not (cut_off := self._replica(replica)).is_alone:
            cut_off.part()

    @precondition(lambda self: self.log is not None)
    @rule(is_settled=st.booleans())
    def the_log_is_lost(self, is_settled: bool) -> None:
        if is_settled:
            self._settle()
        together = [replica for replica in self.replicas if not replica.is_alone]
        self.log = None
        for replica in together:
            replica.lose_log()
        members = {replica.member for replica in self.replicas}
        are_all = all({*replica.state.members} == members for replica in self.replicas)
        before = views(together)
        for replica in together:
            replica.stand_alone()
        are_all &= len(together) == len(self.replicas)
        if are_all:
            self._check_shares(before)
            promised = sum(max(charge for charge, _ in states) for states in before.values())
            self.has_parted_well = is_settled and promised <= LIMIT_TOKENS

    @precondition(lambda self: any(replica.is_alone for replica in self.replicas))
    @rule(replica=st.integers(0, 3), lag=st.integers(0, 10), has_left=st.booleans())
    def one_hears_the_others_again(self, replica: int, lag: int, has_left: bool) -> None:
        back = self._replica(replica)
        if back.is_alone:
            self.has_parted_well = False
            self._heal(back, lag, has_left=has_left)

    # -- what must be -----------------------------------------------------------------------------

    @invariant()
    def all_together_let_in_no_more_than_the_limit(self) -> None:
        """But for who has one session alone on a backend."""
        if getattr(self, "has_parted_well", False):
            states = [replica.state for replica in self.replicas]
            lone = sum(len(state.policy.backends[GPU].counted) == 1 for state in states)
            assert sum(map(reserved, states)) <= LIMIT_TOKENS + lone * SESSION_TOKENS + ROUNDING

    @invariant()
    def nobody_forgets_its_turns(self) -> None:
        for replica in getattr(self, "replicas", ()):
            if replica.is_alone:
                assert replica.state.policy.open_turns <= len(replica.turns)

    # -- the end ----------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "replicas"):
            return
        for replica in self.replicas:
            if replica.is_alone:
                self._heal(replica, 0, has_left=True)
        self._settle()
        self._who_is_gone_is_given_up()
        self._all_turns_end()
        self._all_agree()
        assert sorted(self.arrived) == sorted(turn_id for each in self.replicas for turn_id in each.ended)

    def _who_is_gone_is_given_up(self) -> None:
        """By then its lease is over."""
        for member in [*self.replicas[0].state.members]:
            if member not in {replica.member for replica in self.replicas}:
                self.replicas[0].tell(MemberLeft(member))
        self._settle()

    def _all_turns_end(self) -> None:
        """Everybody who waits gets a verdict: the budget of the others comes free."""
        for _ in range(len(self.arrived) + 3):
            flying = [
                (replica, turn_id)
                for replica in self.replicas
                for turn_id, turn in replica.turns.items()
                if turn.backend is not None or turn.is_refused
            ]
            for replica, turn_id in flying:
                self._end(replica, turn_id, is_answer=False)
            self._wait(1.0)
            self.replicas[0].tell(BackendObserved(GPU, kv_tokens_total=POOL_TOKENS))
            self._settle()
            if not any(replica.turns for replica in self.replicas):
                break
        assert not any(replica.turns for replica in self.replicas)
        self._wait(ROUND_NUMBERS.idle_gap_s)
        self._settle()

    def _wait(self, seconds: float) -> None:
        self.now += seconds
        for replica in self.replicas:
            replica.pass_time(self.now)

    def _all_agree(self) -> None:
        for replica in self.replicas:
            policy = replica.state.policy
            assert (policy.open_turns, len(policy.held), reserved(replica.state)) == (0, 0, 0)
            assert policy.budget_tokens(self.now) == {GPU: LIMIT_TOKENS}
            assert replica.state.members == self.replicas[0].state.members
            assert replica.state._homes == self.replicas[0].state._homes
            assert not replica.state._turns
        for states in views(self.replicas).values():
            assert len(set(states)) == 1
        members = {replica.member for replica in self.replicas}
        assert {*self.replicas[0].state.members} == members

    # -- parts ------------------------------------------------------------------------------------

    def _replica(self, number: int) -> Replica:
        return self.replicas[number % len(self.replicas)]

    def _end(self, replica: Replica, turn_id: str, *, is_answer: bool) -> None:
        turn = replica.turns[turn_id]
        if is_answer and turn.backend is not None:
            replica.end(turn_id, finished(turn_id), self.clients_of[turn_id].answer())
        else:
            replica.end(turn_id, TurnEnded(turn_id, Ending.ABORTED))

    def _settle(self) -> None:
        """Everything that was told is read by all; nobody is given up meanwhile."""
        for _ in range(10):
            for replica in self.replicas:
                replica.send(10_000)
            for replica in self.replicas:
                replica.read(10_000)

    def _heal(self, replica: Replica, lag: int, *, has_left: bool) -> None:
        if self.log is None:
            self.log = replica.found()
            return
        position = max(0, len(self.log.records) - lag)
        if has_left:
            position = len(self.log.records)
        elif replica.member not in self.log.gone:
            former = replica.member
            replica.join(self.log, position, has_left=False)
            replica.outbox.append(MemberLeft(former))
            return
        replica.join(self.log, position, has_left=has_left)

    def _check_shares(self, before: dict[str, list[tuple[float, str | None]]]) -> None:
        agreed = all(len(set(states)) == 1 for states in before.values())
        disputed = sum(charge for states in before.values() if len(set(states)) > 1 for charge, _ in states)
        total = sum(allowance(replica.state) for replica in self.replicas)
        assert total <= LIMIT_TOKENS + disputed + ROUNDING
        if agreed:
            assert total <= LIMIT_TOKENS + ROUNDING


TestPartitions = Partitions.TestCase
TestPartitions.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, report_multiple_bugs=False
)
