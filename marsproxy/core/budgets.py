"""Which backend a session may be charged to, and what keeps it from there.

Owns the backends' budgets, the tool hosts' headroom and what was learned about sizes. Knows neither
queues nor running turns.
"""

from collections.abc import Sequence

from marsproxy.core.admission import footprint
from marsproxy.core.commands import Reason
from marsproxy.core.estimate import PeakEstimator, TokenRatio
from marsproxy.core.events import TurnArrived
from marsproxy.core.evidence import TurnKind
from marsproxy.core.headroom import BackendState, ToolHosts
from marsproxy.core.priority import TurnClass
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import AdmissionSettings


class Budgets:
    """The budgets of all backends."""

    def __init__(self, settings: AdmissionSettings, backends: Sequence[str]) -> None:
        self._settings = settings
        self.backends = {name: BackendState(name) for name in backends}
        self.tool_hosts = ToolHosts()
        self.peaks = PeakEstimator()
        self.ratio = TokenRatio()

    def loads(self, now: float) -> dict[str, float]:
        """Tokens reserved on each backend whose budget is known. Linear in counted sessions."""
        return {
            name: self._reserved_tokens(backend, pool)
            for name, backend in self.backends.items()
            if (pool := self._known_pool(backend, now)) is not None
        }

    def _reserved_tokens(self, backend: BackendState, pool: int) -> float:
        beta = self._settings.growth_beta
        peaks: dict[str, float] = {}
        total = 0.0
        for session in backend.counted.values():
            if (peak := peaks.get(session.family)) is None:
                peak = peaks[session.family] = self.expected_peak_tokens(session.family, pool)
            total += footprint(session.context_tokens, peak, beta)
        return total

    def choose(
        self, session: SessionState, turn_class: TurnClass, context: int, loads: dict[str, float], now: float
    ) -> tuple[BackendState, Reason | None]:
        """The backend for a session that is not counted, and what keeps it from going there now."""
        backend = self._preferred(session, loads)
        is_new = turn_class is TurnClass.NEW
        if is_new and self._tools_are_busy(now) and any(b.counted for b in self.backends.values()):
            return backend, Reason.TOOLS_BUSY
        if not backend.counted:
            return backend, None
        pool = self._known_pool(backend, now)
        if pool is None:
            is_capped = len(backend.counted) >= self._settings.fallback_concurrency
            return backend, Reason.TELEMETRY_UNKNOWN if is_capped else None
        need = self.footprint(session, context, pool)
        fits = loads[backend.name] + need <= self._settings.kv_target * pool
        return backend, None if fits else Reason.KV_FULL

    def charge(
        self, session: SessionState, backend: BackendState, context: int, loads: dict[str, float]
    ) -> None:
        """Take what ``choose`` found free. ``loads`` is kept up to date for the next in line."""
        session.context_tokens = context
        backend.charge(session)
        if backend.name in loads:
            loads[backend.name] += self.footprint(session, context, backend.kv_tokens_total)

    def release(self, session: SessionState) -> None:
        if session.is_counted:
            assert session.backend is not None, "a counted session has a backend"
            self.backends[session.backend].release(session)

    def context_of(self, arrival: TurnArrived, session: SessionState) -> int:
        """Tokens that the turn's prompt has, as far as one can know before it has run."""
        estimate = self.ratio.corrected(arrival.prompt_tokens_estimate)
        return estimate if arrival.kind is TurnKind.CONDENSED else max(session.context_tokens, estimate)

    def footprint(self, session: SessionState, context: int, pool: int | None) -> float:
        return footprint(context, self.expected_peak_tokens(session.family, pool), self._settings.growth_beta)

    def expected_peak_tokens(self, family: str, pool: int | None) -> float:
        prior = float(self._settings.peak_prior_tokens)
        if pool is not None:
            prior = min(prior, pool * self._settings.peak_prior_pool_share)
        return self.peaks.expected(family, prior)

    def backend_of_side_call(self, session: SessionState) -> str:
        """Side calls take no budget: to where their session is, or to where the fewest are."""
        if session.backend is not None:
            return session.backend
        return min(self.backends.values(), key=lambda b: (not b.is_reachable, len(b.counted))).name

    def _preferred(self, session: SessionState, loads: dict[str, float]) -> BackendState:
        """The one that may still hold its blocks; the least loaded if there is none, or if that is gone."""
        if session.backend is not None and self.backends[session.backend].is_reachable:
            return self.backends[session.backend]
        return min(self.backends.values(), key=lambda b: self._relative_load(b, loads))

    def _relative_load(self, backend: BackendState, loads: dict[str, float]) -> tuple[bool, float]:
        """Share of the pool that is promised. Where that is unknown, the count: behind any with room."""
        if backend.name in loads and backend.kv_tokens_total:
            return (False, loads[backend.name] / backend.kv_tokens_total)
        return (not backend.is_reachable, float(len(backend.counted)))

    def _known_pool(self, backend: BackendState, now: float) -> int | None:
        return backend.known_pool_tokens(now, self._settings.telemetry_stale_s)

    def _tools_are_busy(self, now: float) -> bool:
        limits = self._settings
        return self.tool_hosts.are_busy(now, per_core=limits.tools_per_core, stale_s=limits.telemetry_stale_s)
