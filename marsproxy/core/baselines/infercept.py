"""InferCept (arXiv 2402.01869): while a tool runs, do with the session's KV what wastes least memory.

When a turn ends with a tool call its context is preserved, discarded or swapped out, after the equations
of ``interception_waste``:

* How long the tool takes is the mean of that tool so far. Of a tool not seen yet the estimate is the time
  that has passed since the call (the paper's own, section 4.4): nothing at first, so it is preserved.
* Preserved is a hard pin until the time for which discarding would have wasted less. If the tool is not
  back by then it runs longer than estimated, the estimate is the time that has passed, and the blocks
  are discarded.
* Discarded is what prefix caching does: the blocks are the next to be reused, not gone at once.
* Swapped out is what fits behind the forward passes (section 4.1): where the engine has a host tier, its
  link is free, and out and in again take less than the tool. The paper fills the link with the largest
  waste first, once every iteration; here sessions come one at a time and the first takes it.
* Whatever waits goes in order of the session's first arrival, resumed or not (section 4.3).

An answer without a tool call is no interception here: nobody knows whether the user comes back.
"""

from collections.abc import Sequence

from marsproxy.core.baselines.base import FollowedTurn, Follower, Observation
from marsproxy.core.baselines.interception_waste import break_even_s
from marsproxy.core.baselines.pins import Pins
from marsproxy.core.baselines.prefill_times import PrefillTimes
from marsproxy.core.baselines.tool_gaps import MeanGaps, ToolGaps
from marsproxy.core.events import (
    BackendObserved,
    Ending,
    HintAnswered,
    KvReclaimed,
    TurnEnded,
    TurnFirstToken,
)
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import PolicySettings


class _Link:
    """Between the memories of one backend and its host."""

    def __init__(self) -> None:
        self.tokens_per_s: float | None = None
        self._free_s = 0.0

    def try_take(self, tokens: int, within_s: float, now: float) -> bool:
        """Book it for moving so many tokens out and in again, if that fits."""
        if not self.tokens_per_s or self._free_s > now:
            return False
        took_s = 2 * tokens / self.tokens_per_s
        if took_s > within_s:
            return False
        self._free_s = now + took_s
        return True


class InferCept(Follower):
    def __init__(self, settings: PolicySettings, backends: Sequence[str]) -> None:
        super().__init__(settings, backends)
        self._pins = Pins(self.order)
        self._gaps = ToolGaps()
        self._means = MeanGaps()
        self._prefill = PrefillTimes()
        self._running_tokens = dict.fromkeys(backends, 0)
        """Contexts of the turns in flight on each backend."""
        self._charges: dict[str, int] = {}
        """What each turn in flight adds to them."""
        self._first_token_s: dict[str, float] = {}
        self._links = {name: _Link() for name in backends}

    def turn_arrived(self, turn: FollowedTurn, now: float) -> None:
        session, backend = turn.session, self.home_of(turn.session)
        if not turn.is_side:
            if (gap := self._gaps.end(session.id)) is not None:
                self._means.learn(gap.signature, now - gap.began_s)
            self._pins.await_turn(session, backend, now)
        self._charge(turn, backend)
        self.forward(turn, backend, round(session.first_arrival_s * 1000))

    def turn_ended(self, turn: FollowedTurn, event: TurnEnded | None, now: float) -> None:
        assert turn.backend is not None, "every turn goes at once"
        self._running_tokens[turn.backend] -= self._charges.pop(turn.id)
        first_token_s = self._first_token_s.pop(turn.id, None)
        if event is None:
            return
        if event.ending is Ending.FINISHED and first_token_s is not None:
            self._learn_prefill(event, first_token_s - turn.arrived_s)
        if not turn.is_side and not turn.session.main_turns:
            self._pause(turn.session, turn.backend, event, now)

    def observed(self, event: Observation, now: float) -> None:
        match event:
            case TurnFirstToken(turn_id) if turn_id in self.turns:
                self._first_token_s.setdefault(turn_id, now)
                if not self.turns[turn_id].is_side:
                    self._pins.started(self.turns[turn_id].session.id)
            case BackendObserved():
                self._links[event.backend].tokens_per_s = event.kv_swap_tokens_per_s
            case KvReclaimed(session_id):
                self._pins.release(session_id)
            case HintAnswered(session_id, kept_tokens=0):
                if (session := self.sessions.get(session_id)) is not None:
                    self._pins.refused(session)
            case _:
                pass

    def session_forgotten(self, session: SessionState) -> None:
        self._gaps.end(session.id)
        self._pins.release(session.id)

    def _pause(self, session: SessionState, backend: str, event: TurnEnded, now: float) -> None:
        """The session's last turn in flight is over; if it called a tool, it is intercepted."""
        if event.ending is not Ending.FINISHED or event.tool_calls == 0 or session.is_over:
            self._pins.release(session.id)
            return
        self._gaps.begin(session.id, event.tool_signature, now)
        gap_s = self._means.mean_s(event.tool_signature) or 0.0
        preserve_s = self._preserve_s(session, backend)
        if self._links[backend].try_take(session.context_tokens, gap_s, now):
            self._pins.swap_out(session.id, backend)
        elif gap_s < preserve_s:
            self._pins.keep(session.id, backend, preserve_s, now)
        else:
            self._pins.release(session.id)

    def _preserve_s(self, session: SessionState, backend: str) -> float:
        """The longest gap for which preserving wastes less than discarding."""
        context, other = session.context_tokens, self._running_tokens[backend]
        if (pool := self.backends[backend].kv_tokens_total) is not None:
            # Turns that queue in the engine hold no memory; all of it is the most that can run.
            other = min(other, max(0, pool - context))
        return break_even_s(context, other, self._prefill.seconds)

    def _charge(self, turn: FollowedTurn, backend: str) -> None:
        tokens = turn.arrival.prompt_tokens_estimate if turn.is_side else turn.session.context_tokens
        self._charges[turn.id] = tokens
        self._running_tokens[backend] += tokens

    def _learn_prefill(self, event: TurnEnded, ttft_s: float) -> None:
        if event.prompt_tokens is not None and event.cached_tokens is not None:
            self._prefill.learn(event.prompt_tokens, event.cached_tokens, ttft_s)
