"""Autellix's PLAS (arXiv 2502.13965): the program that has been served least goes first.

A turn enters the queue of its program's attained service, one of four; within a queue the engine goes by
arrival. The turn moves down when it has used up its queue, and to the first queue when its program has
waited BETA times as long as it was served. ``attained_service`` has the figures. KV is not retained beyond
what prefix caching does.

The paper's load balancer may move short calls to another engine; here a session stays where its blocks
are, as under every other policy. How a time to first token divides into waiting and prefill the paper
reads from inside its engine; here the prefill is estimated from what was not cached, and the rest is
waiting. A turn that the engine preempts counts as running.
"""

from collections.abc import Sequence
from heapq import heappop, heappush

from marsproxy.core.baselines.attained_service import Call, Program, Service
from marsproxy.core.baselines.base import FollowedTurn, Follower, Observation
from marsproxy.core.baselines.prefill_times import PrefillTimes
from marsproxy.core.commands import Reprioritise
from marsproxy.core.events import Ending, TurnEnded, TurnFirstToken, TurnProgressed
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import PolicySettings

MAX_PROMOTIONS = 64
"""In one event; if more are due, the timer fires again at once."""


class Autellix(Follower):
    def __init__(self, settings: PolicySettings, backends: Sequence[str]) -> None:
        super().__init__(settings, backends)
        self._programs: dict[str, Program] = {}
        """By session id; sub-agents share that of their parent."""
        self._contexts: dict[str, int] = {}
        """Tokens of each session that were in the engine when its last turn finished."""
        self._calls: dict[str, Call] = {}
        """By turn id."""
        self._starving: list[tuple[float, str]] = []
        """When to promote which turn: a heap. Those that started or ended meanwhile drop out at the top."""
        self._prefill = PrefillTimes()
        self._now = 0.0

    def turn_arrived(self, turn: FollowedTurn, now: float) -> None:
        call = Call.of(self._program_of(turn.session), self._new_tokens(turn), now)
        self._calls[turn.id] = call
        if call.level > 0:
            heappush(self._starving, (call.starves_s, turn.id))
        self.forward(turn, self.home_of(turn.session), call.level)

    def turn_ended(self, turn: FollowedTurn, event: TurnEnded | None, now: float) -> None:
        call = self._calls.pop(turn.id)
        if event is None:
            return
        if event.ending is Ending.FINISHED and not turn.is_side:
            self._contexts[turn.session.id] = turn.session.context_tokens
        call.program.call_completed(call.before, self._service_of(call, event, now))

    def observed(self, event: Observation, now: float) -> None:
        match event:
            case TurnFirstToken(turn_id) if call := self._calls.get(turn_id):
                call.first_token_s = now
                self._ran(turn_id, call, call.prompt_tokens)
            case TurnProgressed(turn_id, completion_tokens) if call := self._calls.get(turn_id):
                self._ran(turn_id, call, call.prompt_tokens + completion_tokens)
            case _:
                pass

    def session_forgotten(self, session: SessionState) -> None:
        self._programs.pop(session.id, None)
        self._contexts.pop(session.id, None)

    # -- starvation -------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        self._now = now
        while self._starving and not self._is_waiting_below(self._starving[0][1]):
            heappop(self._starving)

    def next_tick_s(self) -> float | None:
        return max(self._starving[0][0], self._now) if self._starving else None

    def tick(self, now: float) -> None:
        for _ in range(MAX_PROMOTIONS):
            if not self._starving or self._starving[0][0] > now:
                return
            _, turn_id = heappop(self._starving)
            if self._is_waiting_below(turn_id):
                self._calls[turn_id].promote()
                self.order(Reprioritise(turn_id, 0))

    def _is_waiting_below(self, turn_id: str) -> bool:
        call = self._calls.get(turn_id)
        return call is not None and call.first_token_s is None and call.level > 0

    # -- service ----------------------------------------------------------------------------------

    def _program_of(self, session: SessionState) -> Program:
        if session.id not in self._programs:
            parent = self._programs.get(session.parent_id) if session.parent_id else None
            self._programs[session.id] = parent or Program()
        return self._programs[session.id]

    def _new_tokens(self, turn: FollowedTurn) -> int:
        """Of the prompt, beyond what the session left in the engine."""
        if turn.is_side:
            return turn.arrival.prompt_tokens_estimate
        context, left = turn.session.context_tokens, self._contexts.get(turn.session.id, 0)
        return context - left if context >= left else context

    def _ran(self, turn_id: str, call: Call, computed_tokens: int) -> None:
        if call.try_demote(computed_tokens):
            self.order(Reprioritise(turn_id, call.level))

    def _service_of(self, call: Call, event: TurnEnded, now: float) -> Service:
        cold_tokens = call.prompt_tokens if call.first_token_s is not None else 0
        if event.prompt_tokens is not None and event.cached_tokens is not None:
            cold_tokens = max(0, event.prompt_tokens - event.cached_tokens)
        tokens = max(cold_tokens + (event.completion_tokens or 0), call.computed_tokens)
        if call.first_token_s is None:
            # Not streamed, or never started: what finished ran all the time, what did not only waited.
            took_s, has_run = now - call.arrived_s, event.ending is Ending.FINISHED
            return Service(tokens, took_s if has_run else 0.0, 0.0 if has_run else took_s)
        ttft_s = call.first_token_s - call.arrived_s
        self._learn_prefill(event, ttft_s)
        prefill_s = min(ttft_s, self._prefill.seconds(cold_tokens))
        return Service(tokens, now - call.first_token_s + prefill_s, ttft_s - prefill_s)

    def _learn_prefill(self, event: TurnEnded, ttft_s: float) -> None:
        if (
            event.ending is Ending.FINISHED
            and event.prompt_tokens is not None
            and event.cached_tokens is not None
        ):
            self._prefill.learn(event.prompt_tokens, event.cached_tokens, ttft_s)
