"""What all replicas have in common: sessions, budgets, queue. The same records give the same state.

Theory of operation
-------------------

Each replica has the whole state, identity and policy, and changes it by nothing but records, which all
replicas apply in one order, at the times that the records carry. So every replica comes to the same
decisions without asking anybody, and each enacts its own part of them: a turn's commands concern whoever
has its connection; everything else is enacted by the replica that told the record, so exactly once. A
single process is the same with one member.

A replica is known by a member id of its own for each time that it joins. One that is gone takes its turns
with it: they end as if their clients had gone, and their budget is free. Records of who is no member are
not applied: it may not know yet that it was given up, and has to join anew.

A replica that hears nothing of the others goes on by itself from what it knows (``MemberAlone``): what went
through others last is their business from then on, and of what is free it takes its share. When it hears
them again it goes on from the state that they have, and tells those of its turns that are still open as
they stand (``Resumption``). If nobody else is left its own state becomes that of all who join it.

Not in here: connections, bytes, how records travel.
"""

from dataclasses import dataclass

from marsproxy.core.commands import Command, ForgetSession, ForwardTurn, RejectTurn
from marsproxy.core.events import (
    Ending,
    Event,
    StandingAlone,
    StandingTogether,
    TimerFired,
    TurnArrived,
    TurnEnded,
    TurnResumed,
)
from marsproxy.core.evidence import AnswerEvidence, Resolution, TurnEvidence, TurnKind
from marsproxy.core.identity import SessionIndex
from marsproxy.core.scheduling import SchedulingPolicy
from marsproxy.core.sessions import Phase
from marsproxy.core.tenant_limits import LIMIT_REASONS, LimitedPolicy


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request was read; which session it belongs to is found when the record is applied."""

    turn_id: str
    """Unique over all members."""
    evidence: TurnEvidence
    prompt_tokens_estimate: int
    max_tokens: int | None = None
    is_streaming: bool = False
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Departure:
    """A turn is over, and this is what its answer adds to its session's history."""

    ended: TurnEnded
    answer: AnswerEvidence | None = None


@dataclass(frozen=True, slots=True)
class MemberJoined:
    member: str


@dataclass(frozen=True, slots=True)
class MemberLeft:
    member: str


@dataclass(frozen=True, slots=True)
class Resumption:
    """A turn that was under way before its replica came (back) among the others, as it stands."""

    arrival: Arrival
    backend: str | None
    """Where it is in flight; None while it is held."""
    waited_s: float = 0.0
    """For how long it has been held."""


@dataclass(frozen=True, slots=True)
class MemberAlone:
    """This member and the others do not hear each other any more. Only ever applied by itself."""

    member: str
    replicas: int = 1
    """That share, at least: more than are known, where this one has not met them yet."""


Happening = Arrival | Departure | Resumption | MemberJoined | MemberLeft | MemberAlone | Event
"""What a record tells. Of the events, ``TurnArrived`` and ``TurnEnded`` are never told by themselves."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a record: one event that the policy was told, and its answer."""

    event: Event
    commands: list[Command]
    resolution: Resolution | None = None
    """Of an arrival or a resumption: where it belongs in this state."""


@dataclass(slots=True)
class _OpenTurn:
    arrived: TurnArrived
    resolution: Resolution
    member: str
    """Where its connection is."""
    is_forwarded: bool = False


class SharedState:
    """Identity and policy, and who has which turn."""

    def __init__(self, policy: SchedulingPolicy, index: SessionIndex) -> None:
        self.policy = LimitedPolicy(policy)
        self.index = index
        self.members: dict[str, float] = {}
        """When each joined, in the order in which they did."""
        self.is_alone = False
        """Whether this is the state of one that does not hear the others."""
        self._turns: dict[str, _OpenTurn] = {}
        """Open ones, in order of arrival."""
        self._homes: dict[str, str] = {}
        """The member through which each of the policy's sessions came last; its side calls do not count."""

    def apply(self, happening: Happening, member: str, now: float) -> list[Outcome]:
        """One record. ``now`` never goes back."""
        if isinstance(happening, MemberJoined):
            return self._joined(happening.member, now)
        if isinstance(happening, MemberAlone):
            return self._alone(happening, now)
        if member not in self.members:
            return []
        match happening:
            case Arrival():
                return self._arrived(happening, member, now)
            case Departure():
                return self._departed(happening, now)
            case Resumption():
                return self._resumed(happening, member, now)
            case MemberLeft():
                return self._left(happening.member, now)
            case TimerFired():
                self.index.expire(now)
        return [self._tell(happening, now)]

    # -- turns ------------------------------------------------------------------------------------

    def _arrived(self, arrival: Arrival, member: str, now: float) -> list[Outcome]:
        """Nothing, if it is known as a turn that was resumed."""
        if arrival.turn_id in self._turns:
            return []
        event, found = self._open(arrival, member, now)
        outcome = self._tell(event, now, found)
        if found.kind is TurnKind.FIRST and _is_beyond_limits(outcome):
            # Else a flood of refused sessions would push everybody's out of a table that all share.
            self.index.abandoned(arrival.turn_id, now)
            self.index.forget(found.session_id)
        return [outcome]

    def _resumed(self, resumption: Resumption, member: str, now: float) -> list[Outcome]:
        """It may be open here under the id that its member had before, which need not have heard of it."""
        known = self._turns.get(resumption.arrival.turn_id)
        if known is None:
            event, found = self._open(resumption.arrival, member, now)
        else:
            known.member, event, found = member, known.arrived, known.resolution
        self._turns[event.turn_id].is_forwarded = resumption.backend is not None
        told = TurnResumed(event, resumption.backend, resumption.waited_s)
        return [self._tell(told, now, found)]

    def _open(self, arrival: Arrival, member: str, now: float) -> tuple[TurnArrived, Resolution]:
        found = self.index.resolve(arrival.turn_id, arrival.evidence, now)
        event = _arrival_event(arrival, found)
        self._turns[arrival.turn_id] = _OpenTurn(event, found, member)
        return event, found

    def _departed(self, departure: Departure, now: float) -> list[Outcome]:
        """Nothing, if the turn's member had been given up already."""
        ended = departure.ended
        if self._turns.pop(ended.turn_id, None) is None:
            return []
        if ended.ending is Ending.FINISHED and departure.answer is not None:
            self.index.answered(ended.turn_id, departure.answer, now)
        else:
            self.index.abandoned(ended.turn_id, now)
        return [self._tell(ended, now)]

    # -- members ----------------------------------------------------------------------------------

    def _joined(self, member: str, now: float) -> list[Outcome]:
        self.members.setdefault(member, now)
        if not self.is_alone:
            return []
        self.is_alone = False
        return [self._tell(StandingTogether(), now)]

    def _left(self, member: str, now: float) -> list[Outcome]:
        if self.members.pop(member, None) is None:
            return []
        return self._end_turns(
            [turn_id for turn_id, turn in self._turns.items() if turn.member == member], now
        )

    def _alone(self, alone: MemberAlone, now: float) -> list[Outcome]:
        """First the shares are cut, by what all hold, and only then do the others' turns end: what they
        give back is theirs to promise."""
        if self.is_alone:
            return []
        member = alone.member
        self.members.setdefault(member, now)
        replicas = max(len(self.members), alone.replicas)
        self.members = {member: self.members[member]}
        self.is_alone = True
        self.index.part(member)
        elsewhere = [
            session.id
            for session in self.policy.sessions
            if session.phase is not Phase.IDLE and self._homes.get(session.id) != member
        ]
        told = self._tell(StandingAlone(replicas, tuple(elsewhere)), now)
        others = [turn_id for turn_id, turn in self._turns.items() if turn.member != member]
        return [told, *self._end_turns(others, now)]

    def _end_turns(self, turn_ids: list[str], now: float) -> list[Outcome]:
        """As if their clients had gone; those that wait first, or they would get what the others free."""
        in_order = sorted(turn_ids, key=lambda turn_id: self._turns[turn_id].is_forwarded)
        endings = (Departure(TurnEnded(turn_id, Ending.ABORTED)) for turn_id in in_order)
        return [outcome for ending in endings for outcome in self._departed(ending, now)]

    # -- policy -----------------------------------------------------------------------------------

    def _tell(self, event: Event, now: float, resolution: Resolution | None = None) -> Outcome:
        commands = self.policy.handle(event, now)
        for command in commands:
            if isinstance(command, ForwardTurn) and (turn := self._turns.get(command.turn_id)) is not None:
                turn.is_forwarded = True
            elif isinstance(command, ForgetSession):
                self.index.forget(command.session_id)
                self._homes.pop(command.session_id, None)
        if isinstance(event, TurnArrived | TurnResumed):
            self._note_home(event.arrival if isinstance(event, TurnResumed) else event)
        return Outcome(event, commands, resolution)

    def _note_home(self, arrived: TurnArrived) -> None:
        """Of a session that the policy has no row for it would never be said that it is over."""
        session_id, turn = arrived.session_id, self._turns[arrived.turn_id]
        is_main = arrived.kind is not TurnKind.SIDE
        if is_main and self.policy.sessions.get(session_id) is not None:
            self._homes[session_id] = turn.member


def _arrival_event(arrival: Arrival, found: Resolution) -> TurnArrived:
    evidence = arrival.evidence
    return TurnArrived(
        turn_id=arrival.turn_id,
        session_id=found.session_id,
        kind=found.kind,
        tenant=evidence.tenant,
        family=evidence.family or "",
        prompt_tokens_estimate=arrival.prompt_tokens_estimate,
        turn=found.turn,
        parent_session_id=found.parent_session_id,
        max_tokens=arrival.max_tokens,
        has_tools=evidence.has_tools,
        is_streaming=arrival.is_streaming,
        model=arrival.model,
    )


def _is_beyond_limits(outcome: Outcome) -> bool:
    return any(
        isinstance(command, RejectTurn) and command.reason in LIMIT_REASONS for command in outcome.commands
    )
