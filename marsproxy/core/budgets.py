"""Which backend a session may be charged to, and what keeps it from there.

Owns the backends' budgets, the tool hosts' headroom and what families share. Knows neither queues nor
running turns.

A session's charge is its footprint at the time of its latest turn, less the prefix that its family
shares; that prefix is charged once for each backend where the family has a counted session. Sums are
kept as charges come and go, so no decision looks at every session.
"""

from collections.abc import Sequence

from marsproxy.core.admission import footprint
from marsproxy.core.commands import Reason
from marsproxy.core.correction import Correction
from marsproxy.core.estimate import TokenRatio
from marsproxy.core.events import BackendObserved, TurnArrived, TurnEnded
from marsproxy.core.evidence import TurnKind
from marsproxy.core.fleet import Fleet
from marsproxy.core.forecast import Forecast
from marsproxy.core.headroom import BackendState
from marsproxy.core.histogram import Curve
from marsproxy.core.priority import TurnClass
from marsproxy.core.retention import PrefillRate, best_keep_after
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import PolicySettings
from marsproxy.core.shared_prefix import SharedPrefixes
from marsproxy.core.tool_budget import ToolBudget

MEMORY_PRICE = 0.2
"""What a pool full of tokens is worth for a second, in seconds of prefill. A lost place costs more than
its prefill: the turn queues again, and its prefill is in everybody's way (simulated: 1 costs 10 to 15 % on
interactive and mixed traffic; 0.03 to 0.3 are equal within the noise of the seeds)."""
MEAN_SIZE_GAIN = 0.05
"""Weight of the session admitted last in the mean size: some twenty sessions are what is compared with."""
BLOCK_SLACK_TOKENS = 32
"""A cached prefix ends with a whole block, and never covers the last token."""


class Budgets:
    """The budgets of all backends and of the tool hosts."""

    def __init__(self, settings: PolicySettings, backends: Sequence[str], forecast: Forecast) -> None:
        self._settings = settings.admission
        self._parts = settings.parts
        self._forecast = forecast
        self.fleet = Fleet(backends, settings.admission.telemetry_stale_s)
        self.backends = self.fleet.states
        self.tools = ToolBudget(settings.admission, forecast)
        self.ratio = TokenRatio()
        self.shared = SharedPrefixes()
        self.prefill = PrefillRate()
        self._mean_size = 0.0
        self.corrections = {name: Correction() for name in backends}

    def choose(
        self, session: SessionState, turn_class: TurnClass, context: int, now: float
    ) -> tuple[BackendState, Reason | None]:
        """The backend for a session that is not counted, and what keeps it from going there now."""
        backend = self._preferred(session, now)
        if (
            turn_class is TurnClass.NEW
            and self._parts.cpu_budget
            and self.tools.is_busy(session, now)
            and any(b.counted for b in self.backends.values())
        ):
            return backend, Reason.TOOLS_BUSY
        if not backend.counted or not self._parts.gpu_budget:
            return backend, None
        pool = self._known_pool(backend, now)
        if pool is None:
            is_capped = len(backend.counted) >= self._settings.fallback_concurrency
            return backend, Reason.TELEMETRY_UNKNOWN if is_capped else None
        need = self._charge_of(session, backend, context, pool) + self._shared_on_top(session, backend)
        fits = backend.reserved_tokens + need <= self.target(backend) * pool
        return backend, None if fits else Reason.KV_FULL

    def target(self, backend: BackendState) -> float:
        """Share of the pool that may be promised."""
        settings = self._settings
        is_protected = backend.takes_hints and self._parts.retention
        base = settings.kv_target_leased if is_protected else settings.kv_target
        return base * self.corrections[backend.name].factor if self._parts.correction else base

    def charge(self, session: SessionState, backend: BackendState, context: int) -> None:
        """Count the session: take what ``choose`` found free."""
        session.context_tokens = context
        backend.charge(session)
        count = backend.families.get(session.family, 0)
        backend.families[session.family] = count + 1
        if not count:
            shared = self.shared.fix(session.family, backend.name)
            backend.reserved_tokens += shared
            backend.context_tokens += shared
        self._take(session, backend)
        size = session.charged_tokens + self.shared.of(session.family, backend.name)
        self._mean_size += (size - self._mean_size) * (MEAN_SIZE_GAIN if self._mean_size else 1.0)

    def recharge(self, session: SessionState) -> None:
        """Its context or its expectation changed."""
        if session.is_counted:
            backend = self.backend_of(session)
            self._give_back(session, backend)
            self._take(session, backend)

    def release(self, session: SessionState, now: float) -> None:
        """Stop counting it. Fine if it is not."""
        if not session.is_counted:
            return
        backend = self.backend_of(session)
        self._give_back(session, backend)
        backend.release(session)
        backend.families[session.family] -= 1
        if not backend.families[session.family]:
            del backend.families[session.family]
            shared = self.shared.unfix(session.family, backend.name)
            backend.reserved_tokens -= shared
            backend.context_tokens -= shared
        self._note_idle(session, backend, now)

    def home_of(self, session: SessionState) -> BackendState:
        """Where an uncounted session's blocks may still be."""
        assert session.backend is not None, "only a session that ran has a home"
        return self.backends[session.backend]

    def backend_of(self, session: SessionState) -> BackendState:
        assert session.backend is not None, "a counted session has a backend"
        return self.backends[session.backend]

    def is_stranded(self, session: SessionState) -> bool:
        """Whether a counted session's backend does not answer while another does."""
        home = self.backend_of(session)
        return not home.is_reachable and any(backend.is_reachable for backend in self.backends.values())

    def _take(self, session: SessionState, backend: BackendState) -> None:
        context = session.context_tokens
        session.charged_tokens = self._charge_of(session, backend, context, backend.kv_tokens_total)
        session.charged_context = max(0, context - self.shared.of(session.family, backend.name))
        backend.reserved_tokens += session.charged_tokens
        backend.context_tokens += session.charged_context
        self.fleet.changed(backend)

    def _give_back(self, session: SessionState, backend: BackendState) -> None:
        self.fleet.changed(backend)
        backend.reserved_tokens -= session.charged_tokens
        backend.context_tokens -= session.charged_context

    def relative_size(self, session: SessionState, context: int) -> float:
        """Its footprint over the mean of those admitted of late."""
        whole = self._footprint(session, context, self.fleet.largest_pool_tokens)
        return whole / self._mean_size if self._mean_size else 1.0

    def learn_shared(self, session: SessionState, cached_tokens: int) -> None:
        """The session's first turn found so much of its prompt in the cache."""
        if not self.shared.learn(session.family, cached_tokens):
            return
        for backend in self.backends.values():
            if session.family in backend.families:
                grown = -self.shared.unfix(session.family, backend.name)
                grown += self.shared.fix(session.family, backend.name)
                self.fleet.changed(backend)
                backend.reserved_tokens += grown
                backend.context_tokens += grown

    def _charge_of(
        self, session: SessionState, backend: BackendState, context: int, pool: int | None
    ) -> float:
        """The session's footprint without what it shares."""
        whole = self._footprint(session, context, pool)
        return max(0.0, whole - self.shared.of(session.family, backend.name))

    def _footprint(self, session: SessionState, context: int, pool: int | None) -> float:
        """Of the session with that context: a forecast for a smaller one would be of a smaller session."""
        before, session.context_tokens = session.context_tokens, context
        peak = self._forecast.peak_tokens(session, pool)
        session.context_tokens = before
        return footprint(context, peak, self._settings.growth_beta)

    def _shared_on_top(self, session: SessionState, backend: BackendState) -> int:
        return 0 if session.family in backend.families else self.shared.tokens(session.family)

    # -- what is still warm -------------------------------------------------------------------------

    def _note_idle(self, session: SessionState, backend: BackendState, now: float) -> None:
        """From now on its blocks are among those that are reused, behind all that were idle before."""
        share = self._settings.warm_share
        room = 0
        if (pool := self._known_pool(backend, now)) is not None:
            room = max(0, pool - backend.context_tokens - session.context_tokens)
        session.warm_until_tokens = backend.computed_tokens + room + (1 - share) * session.context_tokens

    def is_warm(self, session: SessionState) -> bool:
        """Whether enough of an uncounted session's blocks should still be cached. A guess: blocks are
        reused in the order in which they fell idle, so they last until so much else was computed."""
        if session.backend is None or not session.turns:
            return False
        home = self.backends[session.backend]
        return home.is_reachable and home.computed_tokens <= session.warm_until_tokens

    def observe(self, event: BackendObserved, now: float, *, is_waited_for: bool) -> None:
        backend, correction = self.backends[event.backend], self.corrections[event.backend]
        if event.preemptions_total is not None:
            if backend.preemptions_total is not None:
                correction.preempted(max(0, event.preemptions_total - backend.preemptions_total))
            backend.preemptions_total = event.preemptions_total
        self.fleet.observe(event, now)
        if backend.kv_tokens_total:
            filled = backend.context_tokens / backend.kv_tokens_total
            correction.update(now, is_waited_for=is_waited_for, filled_share=filled)

    def returned(self, session: SessionState, event: TurnEnded) -> None:
        """A turn of a counted session has run: was its context still there?"""
        if session.backend is not None and event.cached_tokens is not None and event.prompt_tokens:
            expected = min(session.known_tokens, event.prompt_tokens)
            self.corrections[session.backend].returned(expected, event.cached_tokens + BLOCK_SLACK_TOKENS)

    def computed(self, session: SessionState, event: TurnEnded, ttft_s: float | None) -> None:
        """A turn has run: what it computed has pushed out as much of what was idle."""
        if session.backend is not None and event.prompt_tokens is not None:
            backend = self.backends[session.backend]
            uncached_tokens = event.prompt_tokens - (event.cached_tokens or 0)
            if ttft_s is not None and event.cached_tokens is not None:
                self.prefill.learn(uncached_tokens, ttft_s)
            backend.computed_tokens += uncached_tokens
            backend.computed_tokens += event.completion_tokens or 0

    def best_keep_s(
        self, session: SessionState, gap: Curve, longest_s: float, now: float, *, wait_s: float = 0.0
    ) -> float:
        """How long to keep the place of a counted session in its gap while others wait for memory.

        A pool full of tokens for a second is worth ``MEMORY_PRICE`` seconds of prefill, so a token costs that
        over the pool for every second; a place that is gone costs the prefill of its context.

        Args:
            wait_s: before what ``gap`` is about begins.
        """
        pool = self._known_pool(self.backend_of(session), now)
        if pool is None:
            return longest_s
        tokens = session.charged_context
        saved_s, price = self.prefill.seconds(tokens), MEMORY_PRICE / pool
        return best_keep_after(wait_s, gap, saved_s, tokens, price, longest_s).ttl_s

    def is_overfull(self, backend: BackendState, now: float) -> bool:
        """Whether what counted sessions really fill leaves hardly any room."""
        pool = self._known_pool(backend, now)
        return pool is not None and backend.context_tokens > self._settings.valve * pool

    # -- sizes and choices --------------------------------------------------------------------------

    def context_of(self, arrival: TurnArrived, session: SessionState) -> int:
        """Tokens that the turn's prompt has, as far as one can know before it has run."""
        estimate = self.ratio.corrected(arrival.prompt_tokens_estimate)
        return estimate if arrival.kind is TurnKind.CONDENSED else max(session.context_tokens, estimate)

    def backend_of_side_call(self, session: SessionState) -> str:
        """Side calls take no budget: to where their session is, or to where the fewest are."""
        if session.backend is not None:
            return session.backend
        return min(self.backends.values(), key=lambda b: (not b.is_reachable, len(b.counted))).name

    def _preferred(self, session: SessionState, now: float) -> BackendState:
        """The one that may still hold its blocks; the least loaded if there is none, or if that is gone."""
        if session.backend is not None:
            home = self.backends[session.backend]
            if self.is_warm(session) or (home.is_reachable and len(self.backends) == 1):
                return home
        return self.fleet.roomiest(now)

    def _known_pool(self, backend: BackendState, now: float) -> int | None:
        return self.fleet.known_pool(backend, now)

    def loads(self, now: float) -> dict[str, float]:
        """Tokens reserved on each backend whose budget is known."""
        return {
            name: max(0.0, backend.reserved_tokens)
            for name, backend in self.backends.items()
            if self._known_pool(backend, now) is not None
        }

    def limits(self, now: float) -> dict[str, float]:
        """Tokens that may be reserved there."""
        return {
            name: self.target(backend) * pool
            for name, backend in self.backends.items()
            if (pool := self._known_pool(backend, now)) is not None
        }
