"""Which backend a session may be charged to, and what keeps it from there.

Owns the backends' budgets, the tool hosts' headroom and what families share. Knows neither queues nor
running turns.

A session's charge is its footprint at the time of its latest turn, less the prefix that its family
shares; that prefix is charged once for each backend where the family has a counted session. Sums are
kept as charges come and go, so no decision looks at every session.
"""

from collections.abc import Collection, Iterator, Sequence

from marsproxy.core.admission import footprint
from marsproxy.core.commands import Reason
from marsproxy.core.correction import Correction
from marsproxy.core.estimate import TokenRatios
from marsproxy.core.events import BackendObserved, BackendSpec, TurnArrived, TurnEnded
from marsproxy.core.evidence import TurnKind
from marsproxy.core.fleet import Fleet, Wanted, nowhere
from marsproxy.core.forecast import Forecast
from marsproxy.core.headroom import BackendState
from marsproxy.core.histogram import Curve
from marsproxy.core.priority import TurnClass
from marsproxy.core.retention import PrefillRate, best_keep_after
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import PolicySettings
from marsproxy.core.shared_prefix import SharedPrefixes
from marsproxy.core.shares import Held, allowance_share
from marsproxy.core.tool_budget import ToolBudget

MEMORY_PRICE = 0.2
"""What a pool full of tokens is worth for a second, in seconds of prefill. A lost place costs more than
its prefill: the turn queues again, and its prefill is in everybody's way (simulated: 1 costs 10 to 15 % on
interactive and mixed traffic; 0.03 to 0.3 are equal within the noise of the seeds)."""
MEAN_SIZE_GAIN = 0.05
"""Weight of the session admitted last in the mean size: some twenty sessions are what is compared with."""
BLOCK_SLACK_TOKENS = 32
"""A cached prefix ends with a whole block, and never covers the last token."""

COUNT_SLACK = 1e-9
"""A share of a whole number of sessions may miss it by a rounding."""


class Budgets:
    """The budgets of all backends and of the tool hosts."""

    def __init__(self, settings: PolicySettings, backends: Sequence[str], forecast: Forecast) -> None:
        self._settings = settings.admission
        self._parts = settings.parts
        self._forecast = forecast
        self.fleet = Fleet(backends, settings.admission.telemetry_stale_s)
        self.backends = self.fleet.states
        self._shares = self.fleet.shares
        self.tools = ToolBudget(settings.admission, forecast)
        self.ratios = TokenRatios()
        self.shared = SharedPrefixes()
        self.prefill = PrefillRate()
        self._mean_size = 0.0
        self.corrections = {name: Correction() for name in backends}

    def change(self, specs: Sequence[BackendSpec]) -> frozenset[str]:
        """These backends from now on. The names of those that are gone."""
        gone = self.fleet.change(specs)
        for name in self.backends:
            if name in gone or name not in self.corrections:
                self.corrections[name] = Correction()
        for name in gone:
            self._drop_if_empty(self.backends[name])
        return gone

    def choose(
        self, session: SessionState, turn_class: TurnClass, context: int, wanted: Wanted, now: float
    ) -> BackendState | Reason:
        """The backend for a session that is not counted, or what keeps it from going anywhere now."""
        if (
            turn_class is TurnClass.NEW
            and self._parts.cpu_budget
            and self.tools.is_busy(session, now)
            and any(b.counted for b in self.backends.values())
        ):
            return Reason.TOOLS_BUSY
        obstacle: Reason | None = None
        too_small: BackendState | None = None
        tried: set[int] = set()
        for backend in self._preferred(session, context, wanted, now):
            pool = self._known_pool(backend, now)
            if pool in tried:  # fuller than one of its size that has no room
                continue
            if self._is_too_small(session, context, pool):
                if too_small is None or (pool or 0) > (too_small.kv_tokens_total or 0):
                    too_small = backend
                continue
            found = self._obstacle(session, backend, context, now)
            if found is None:
                return backend
            obstacle = obstacle or found
            if pool is not None and backend.name != session.backend:
                tried.add(pool)
            if len(tried) >= self.fleet.pool_sizes:
                break
        if obstacle is not None:
            return obstacle
        if too_small is not None:
            return self._obstacle(session, too_small, context, now) or too_small
        return nowhere(wanted)

    def _obstacle(
        self, session: SessionState, backend: BackendState, context: int, now: float
    ) -> Reason | None:
        """What keeps the session out of this backend."""
        if not backend.counted or not self._parts.gpu_budget:
            return None
        pool = self._known_pool(backend, now)
        if pool is None:
            cap = self._settings.fallback_concurrency * self._shares.sessions(backend.name)
            is_capped = len(backend.counted) + 1 > cap + COUNT_SLACK
            return Reason.TELEMETRY_UNKNOWN if is_capped else None
        return Reason.KV_FULL if self.lack_of(session, backend, context, pool) > 0 else None

    def lack_of(self, session: SessionState, backend: BackendState, context: int, pool: int) -> float:
        """Tokens by which the session is too large for what is left of the pool; 0 or less if it fits."""
        need = self._charge_of(session, backend, context, pool) + self._shared_on_top(session, backend)
        session.needed_tokens = need
        return backend.reserved_tokens + need - self.target(backend) * pool

    def _is_too_small(self, session: SessionState, context: int, pool: int | None) -> bool:
        """Whether the pool could not hold the session even if it were empty, where there are others."""
        if pool is None or self.fleet.pool_sizes < 2 or not self._parts.gpu_budget:
            return False
        whole = self._footprint(session, context, self.fleet.largest_pool_tokens)
        return whole > self._settings.kv_target * pool

    def target(self, backend: BackendState) -> float:
        """Share of the pool that may be promised by this replica, which is all unless it stands alone."""
        return self._whole_target(backend) * self._shares.tokens(backend.name)

    def _whole_target(self, backend: BackendState) -> float:
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
        if backend.has_left:
            session.backend = None
            self._drop_if_empty(backend)
        else:
            self._note_idle(session, backend, now)

    def _drop_if_empty(self, backend: BackendState) -> None:
        if not backend.counted:
            self.fleet.drop(backend)
            del self.corrections[backend.name]

    def home_of(self, session: SessionState) -> BackendState:
        """Where an uncounted session's blocks may still be."""
        assert session.backend is not None, "only a session that ran has a home"
        return self.backends[session.backend]

    def backend_of(self, session: SessionState) -> BackendState:
        assert session.backend is not None, "a counted session has a backend"
        return self.backends[session.backend]

    def must_move(self, session: SessionState, context: int, wanted: Wanted, now: float) -> bool:
        """Whether a counted session's next turn has to go elsewhere: its model is not served where it is, or
        nobody answers there, or it has outgrown the pool; and another can do better."""
        home = self.backend_of(session)
        if not self.fleet.may_take(home, wanted):
            return True
        if not home.is_reachable:
            return any(other.is_reachable for other in self.fleet.roomiest_first(wanted, now))
        pool = self._known_pool(home, now)
        if pool is None or context <= pool or self.fleet.pool_sizes < 2:
            return False
        others = self.fleet.roomiest_first(wanted, now)
        return any((other.kv_tokens_total or 0) > pool for other in others)

    def may_stay(self, session: SessionState, wanted: Wanted) -> bool:
        """Whether a turn can go to where its session is."""
        return self.fleet.may_take(self.backend_of(session), wanted)

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

    # -- replicas that part -------------------------------------------------------------------------

    def stand_alone(self, replicas: int, elsewhere: Collection[SessionState], now: float) -> None:
        """The budgets are cut into shares, and the sessions elsewhere are the others' to count. What
        families share is everybody's own to pay: it is in no sum here."""
        tokens, sessions = {}, {}
        gone = {session.id for session in elsewhere}
        for name, backend in self.backends.items():
            own = [session for session in backend.counted.values() if session.id not in gone]
            pool = backend.kv_tokens_total
            limit = None if pool is None else self._whole_target(backend) * pool
            by_all = sum(session.charged_tokens for session in backend.counted.values())
            held = Held(sum(session.charged_tokens for session in own), by_all)
            tokens[name] = allowance_share(held, limit, replicas)
            counts = Held(len(own), len(backend.counted))
            sessions[name] = allowance_share(counts, self._settings.fallback_concurrency, replicas)
        self._shares.part(replicas, tokens, sessions)
        for session in elsewhere:
            self.release(session, now)
        self._shares_changed()

    def stand_together(self) -> None:
        self._shares.unite()
        self._shares_changed()

    def _shares_changed(self) -> None:
        for backend in self.backends.values():
            self.fleet.changed(backend)

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
        if home.is_draining:
            return False
        return home.is_reachable and home.computed_tokens <= session.warm_until_tokens

    def goes_unasked(self, session: SessionState) -> bool:
        """Whether an uncounted session that comes back just goes. Alone it asks, however warm it is: what
        it adds to a pool others may be adding to as well."""
        return not self._shares.is_alone and self.is_warm(session)

    def has_room_at_home(self, session: SessionState, context: int, now: float) -> bool:
        """Whether an uncounted session fits beside what counted ones really fill: else what it finds of its
        own costs others theirs. A lone pool is not asked, as nothing comes to it by chance of placement
        (simulated, docs/results/affinity)."""
        if len(self.backends) == 1:
            return True
        home = self.home_of(session)
        pool = self._known_pool(home, now)
        return pool is None or not home.counted or home.context_tokens + context <= pool

    def observe(self, event: BackendObserved, now: float, *, is_waited_for: bool) -> None:
        if event.backend not in self.backends or self.backends[event.backend].has_left:
            return  # it went while the reading was on its way
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
        estimate = self.ratios.corrected(arrival.tenant, arrival.prompt_tokens_estimate)
        return estimate if arrival.kind is TurnKind.CONDENSED else max(session.context_tokens, estimate)

    def backend_of_side_call(self, session: SessionState, wanted: Wanted) -> str | None:
        """Side calls take no budget: to where their session is, or to where the fewest are. None if there is
        nowhere."""
        home = None if session.backend is None else self.backends[session.backend]
        if home is not None and home.is_reachable and self.fleet.may_take(home, wanted):
            return home.name
        fewest = self.fleet.fewest_counted(wanted)
        return None if fewest is None else fewest.name

    def _preferred(
        self, session: SessionState, context: int, wanted: Wanted, now: float
    ) -> Iterator[BackendState]:
        """The one that should still hold its blocks, and for as long no other; else those with most room."""
        if self.is_warm(session):
            home = self.home_of(session)
            is_small = self._is_too_small(session, context, self._known_pool(home, now))
            if self.fleet.may_take(home, wanted) and not is_small:
                yield home
                return
        yield from self.fleet.roomiest_first(wanted, now)

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
            name: max(0.0, self.target(backend) * pool)
            for name, backend in self.backends.items()
            if (pool := self._known_pool(backend, now)) is not None
        }
