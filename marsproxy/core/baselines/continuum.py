"""Continuum (arXiv 2511.02230): pin a session's KV while its tool runs, serve sessions in order of arrival.

* After a turn that calls a tool the session's blocks are pinned for a time (``continuum_ttl`` says how
  long). Nobody takes them while anything runs; when nothing does, the engine must, or it would stand
  still. An answer without a tool call ends the pin: nothing is expected after it.
* Waiting turns go in the order of section 4.3: those that were preempted, then those whose session has a
  pin, then the others; among equals the session that came first. vLLM takes its victims from the end of
  the same order, so the latest session is preempted first.

The paper's three keys become two: a turn whose first token was seen moves up among the pinned, where it
stays if it is preempted. The paper's scheduler is a fork of vLLM's; here the same orders are given through
hints and priorities.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from marsproxy.core.baselines.base import FollowedTurn, Follower, Observation
from marsproxy.core.baselines.continuum_ttl import FixedTtl, Served, TtlRule, ValuedTtl
from marsproxy.core.baselines.pins import Pins
from marsproxy.core.baselines.tool_gaps import ToolGaps
from marsproxy.core.commands import Reprioritise
from marsproxy.core.events import Ending, HintAnswered, KvReclaimed, TurnEnded, TurnFirstToken
from marsproxy.core.priority import TurnClass
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import PolicySettings

PINNED_OR_STARTED, OTHER = 0, 1
RANK_STEP = 2**48
"""Priorities of one rank: milliseconds for 8,900 years, in an integer that JSON keeps exact."""


@dataclass(slots=True)
class _Flight:
    """A turn's place in the engine's queue."""

    rank: int
    first_token_s: float | None = None
    was_pinned: bool = False
    """When it started."""


class Continuum(Follower):
    def __init__(self, settings: PolicySettings, backends: Sequence[str], rule: TtlRule) -> None:
        super().__init__(settings, backends)
        self._rule = rule
        self._pins = Pins(self.order)
        self._gaps = ToolGaps()
        self._flights: dict[str, _Flight] = {}
        """By turn id."""

    def turn_arrived(self, turn: FollowedTurn, now: float) -> None:
        session, backend = turn.session, self.home_of(turn.session)
        if turn.is_side:
            is_pinned = self._pins.is_live(session.id, now)
        else:
            if (gap := self._gaps.end(session.id)) is not None:
                self._rule.gap_ended(gap.signature, now - gap.began_s)
            is_pinned = self._pins.await_turn(session, backend, now)
        rank = PINNED_OR_STARTED if is_pinned else OTHER
        self._flights[turn.id] = _Flight(rank)
        self.forward(turn, backend, _priority(rank, session))

    def turn_ended(self, turn: FollowedTurn, event: TurnEnded | None, now: float) -> None:
        flight = self._flights.pop(turn.id)
        if turn.is_side or event is None:
            return
        if event.ending is Ending.FINISHED:
            self._teach(turn, flight, event)
        if not turn.session.main_turns:
            self._pause(turn, event, now)

    def observed(self, event: Observation, now: float) -> None:
        match event:
            case TurnFirstToken(turn_id) if turn_id in self.turns:
                self._started(self.turns[turn_id], now)
            case KvReclaimed(session_id):
                self._pins.release(session_id)
                self._fall_back(session_id)
            case HintAnswered(session_id, kept_tokens=0):
                if (session := self.sessions.get(session_id)) is not None:
                    self._pins.refused(session)
            case _:
                pass

    def session_forgotten(self, session: SessionState) -> None:
        self._gaps.end(session.id)
        self._pins.release(session.id)
        if session.turns:
            self._rule.session_rested(session.id, session.turns)

    def _teach(self, turn: FollowedTurn, flight: _Flight, event: TurnEnded) -> None:
        if event.prompt_tokens is None or event.cached_tokens is None or flight.first_token_s is None:
            return
        ttft_s = flight.first_token_s - turn.arrived_s
        is_unpinned_return = turn.turn_class is TurnClass.CONTINUATION and not flight.was_pinned
        self._rule.turn_served(Served(event.prompt_tokens, event.cached_tokens, ttft_s, is_unpinned_return))

    def _pause(self, turn: FollowedTurn, event: TurnEnded, now: float) -> None:
        """The session's last turn in flight is over: is a pin worth it?"""
        session = turn.session
        ttl_s = 0.0
        if event.ending is Ending.FINISHED and event.tool_calls > 0:
            self._gaps.begin(session.id, event.tool_signature, now)
            ttl_s = self._rule.ttl_s(event.tool_signature, session.context_tokens)
        elif event.ending is Ending.FINISHED:
            self._rule.session_rested(session.id, session.turns)
        if ttl_s > 0 and not session.is_over:
            assert turn.backend is not None, "every turn goes at once"
            self._pins.keep(session.id, turn.backend, ttl_s, now)
        else:
            self._pins.release(session.id)

    def _started(self, turn: FollowedTurn, now: float) -> None:
        flight = self._flights[turn.id]
        if flight.first_token_s is None:
            flight.first_token_s = now
            flight.was_pinned = flight.rank == PINNED_OR_STARTED
            if not turn.is_side:
                self._pins.started(turn.session.id)
            self._move_to(turn, PINNED_OR_STARTED)

    def _fall_back(self, session_id: str) -> None:
        """The pin is gone: a turn that still waits for its start waits among the others."""
        session = self.sessions.get(session_id)
        for turn_id in sorted(session.open_turns) if session else ():
            if self._flights[turn_id].first_token_s is None:
                self._move_to(self.turns[turn_id], OTHER)

    def _move_to(self, turn: FollowedTurn, rank: int) -> None:
        flight = self._flights[turn.id]
        if flight.rank != rank:
            flight.rank = rank
            self.order(Reprioritise(turn.id, _priority(rank, turn.session)))


def _priority(rank: int, session: SessionState) -> int:
    return rank * RANK_STEP + round(session.first_arrival_s * 1000)


def continuum(settings: PolicySettings, backends: Sequence[str]) -> Continuum:
    """With a fixed time, as its authors published it first."""
    return Continuum(settings, backends, FixedTtl())


def continuum_dy(settings: PolicySettings, backends: Sequence[str]) -> Continuum:
    """With the time that its cost model chooses."""
    return Continuum(settings, backends, ValuedTtl())
