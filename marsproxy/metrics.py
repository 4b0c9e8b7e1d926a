"""What the proxy tells Prometheus: names, labels and buckets, and the methods that observe them.

Owns the metric names (prefix ``mars_``, base units). It must not know where an observation comes from,
and there is no label whose values clients choose: sessions and tenants stay out, and decisions are
capped. Children of labels are bound before traffic comes: observing a turn from arrival to end, with its
connection, takes 4.5 microseconds (measured, CPython 3.11 on a server core), a hold 2.2 more. Unknown
is NaN, never 0.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import Enum
from typing import Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from marsproxy.breaker import BreakerState
from marsproxy.build import build_version
from marsproxy.core.commands import Reason
from marsproxy.core.events import BackendObserved, Ending, Event, ToolObserved
from marsproxy.core.evidence import Level, TurnKind
from marsproxy.errors import public_name
from marsproxy.patch_metrics import PatchFamilies, PatchMetrics
from marsproxy.store_metrics import StoreMetrics
from marsproxy.tool_metrics import ToolMetrics

TURN_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000)
"""From a cached first token to a turn that waited most of what clients wait (600 s)."""
CONNECT_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)

E = TypeVar("E", bound=Enum)

MAX_DECISIONS = 32
"""Words for the decision label; one more is counted as "other"."""


class CountsLines(Protocol):
    """What the event log tells about itself."""

    @property
    def lines_written(self) -> int: ...
    @property
    def lines_dropped(self) -> int: ...


class Metrics:
    """One proxy's metrics, in a registry of its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._backends: dict[str, BackendMetrics] = {}
        self._decisions: dict[str, Counter] = {}
        self._make_turn_metrics(registry)
        self._make_hold_metrics(registry)
        self._make_gauges(registry)
        self.store = StoreMetrics(registry)
        Info("mars_build", "Version of the proxy", registry=registry).info({"version": build_version()})
        ProcessCollector(registry=registry)

    def turn_arrived(self, level: Level) -> None:
        """A tracked request was joined to a session by this kind of evidence."""
        self._identity[level].inc()

    def decided(self, decision: str) -> None:
        """A turn goes to a backend; ``decision`` is the word in its header."""
        child = self._decisions.get(decision) or self._bind_decision(decision)
        child.inc()

    def held(self, reason: Reason) -> None:
        self._holding[reason].inc()

    def released(self, reason: Reason, held_s: float) -> None:
        """The hold is over, whatever came after it; ``reason`` is the one that ``held`` was told."""
        self._holding[reason].dec()
        self._hold_s[reason].observe(held_s)

    def rejected(self, reason: Reason) -> None:
        self._rejects[reason].inc()

    def turn_ended(self, kind: TurnKind, ending: Ending, duration_s: float, ttft_s: float | None) -> None:
        """Durations run from arrival at the proxy, holds included; only finished turns have one."""
        self._turns[kind, ending].inc()
        if ending is Ending.FINISHED:
            self._duration_s[kind].observe(duration_s)
        if ttft_s is not None:
            self._ttft_s[kind].observe(ttft_s)

    def passed_unread(self) -> None:
        """A body for a tracked route was not understood and went through as it was."""
        self._unread.inc()

    def not_admitted(self) -> None:
        """A request without a key that is known, or for what its key is not good for."""
        self._not_admitted.inc()

    def tenants_read(self, *, is_taken: bool) -> None:
        """The tenants file was read: taken, or refused for what is wrong in it."""
        self._tenants_read["taken" if is_taken else "refused"].inc()

    def loop_lagged(self, lag_s: float) -> None:
        self._lag_s.observe(lag_s)

    def set_sessions(self, count_by_phase: Mapping[str, int]) -> None:
        """Phases that are not mentioned have no sessions."""
        for phase, child in self._sessions.items():
            if phase not in count_by_phase:
                child.set(0)
        for phase, count in count_by_phase.items():
            if phase not in self._sessions:
                self._sessions[phase] = self._sessions_gauge.labels(phase)
            self._sessions[phase].set(count)

    def told(self, event: Event) -> None:
        """The policy was told this; what a reading of a machine says is shown as it is."""
        if isinstance(event, BackendObserved):
            self.backend(event.backend).set_reading(event)
        elif isinstance(event, ToolObserved):
            self.tools.observed(event)

    def set_fallback_cap(self, is_active: bool) -> None:
        """Whether the fixed cap stands in for telemetry that is unknown or stale."""
        self._fallback_cap.set(is_active)

    def set_tasks(self, count: int) -> None:
        """Those of the event loop: a few for each open request, and they go with it."""
        self._tasks.set(count)

    def backend(self, url: str) -> "BackendMetrics":
        """Metrics of one backend, the same object each time."""
        name = public_name(url)
        if name not in self._backends:
            self._backends[name] = BackendMetrics(name, self._backend_families)
        return self._backends[name]

    def keep_backends(self, names: Collection[str]) -> None:
        """What was counted of others is over: backends come and go, and each has some sixty lines."""
        for gone in self._backends.keys() - names:
            del self._backends[gone]
            self._backend_families.drop(gone)

    def looked(self, source: str, found: int | None) -> None:
        """Discovery asked one of the configured sources; None: it could not."""
        if found is None:
            self._discovery_failures.labels(source).inc()
        else:
            self._discovered.labels(source).set(found)

    def watch_event_log(self, log: CountsLines) -> None:
        self._registry.register(_EventLogCounts(log))

    def collect(self) -> Iterable[Metric]:
        """All of them as they stand, for whoever puts several processes together."""
        return self._registry.collect()

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and body for a scraper with this Accept header."""
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self._registry)

    def _make_turn_metrics(self, registry: CollectorRegistry) -> None:
        turns = Counter("mars_turns", "Turns that ended", ["kind", "ending"], registry=registry)
        self._turns = {
            (kind, ending): turns.labels(kind.value, ending.value) for kind in TurnKind for ending in Ending
        }
        self._duration_s = _histograms(
            "mars_turn_duration_seconds", "Arrival to last byte of finished turns", "kind", TurnKind, registry
        )
        self._ttft_s = _histograms("mars_ttft_seconds", "Arrival to first token", "kind", TurnKind, registry)
        identity = Counter(
            "mars_identity", "Turns by the evidence that settled them", ["level"], registry=registry
        )
        self._identity = {level: identity.labels(level.name.lower()) for level in Level}
        self._unread = Counter("mars_unread", "Bodies passed on without being understood", registry=registry)
        self._not_admitted = Counter(
            "mars_not_admitted",
            "Requests refused for their key, or for what it is not good for",
            registry=registry,
        )
        tenants_read = Counter(
            "mars_tenants_read", "Readings of the tenants file", ["outcome"], registry=registry
        )
        self._tenants_read = {outcome: tenants_read.labels(outcome) for outcome in ("taken", "refused")}
        self._decided = Counter("mars_decisions", "Forwarded turns", ["decision"], registry=registry)

    def _make_hold_metrics(self, registry: CollectorRegistry) -> None:
        rejects = Counter("mars_rejects", "Turns refused by the policy", ["reason"], registry=registry)
        self._rejects = {reason: rejects.labels(reason.value) for reason in Reason}
        holding = Gauge("mars_held_turns", "Turns held at the moment", ["reason"], registry=registry)
        self._holding = {reason: holding.labels(reason.value) for reason in Reason}
        self._hold_s = _histograms(
            "mars_hold_duration_seconds", "Time that held turns waited", "reason", Reason, registry
        )

    def _make_gauges(self, registry: CollectorRegistry) -> None:
        self._sessions_gauge = Gauge("mars_sessions", "Sessions known", ["phase"], registry=registry)
        self._sessions: dict[str, Gauge] = {}
        self.tools = ToolMetrics(registry)
        self._fallback_cap = Gauge(
            "mars_fallback_cap_active", "1 while the fixed cap replaces telemetry", registry=registry
        )
        self._tasks = Gauge("mars_tasks", "Tasks of the event loop", registry=registry)
        self._lag_s = Histogram(
            "mars_event_loop_lag_seconds", "Delay of a timer", buckets=LAG_BUCKETS_S, registry=registry
        )
        self._discovered = Gauge(
            "mars_discovered_backends", "Backends found at the latest look", ["source"], registry=registry
        )
        self._discovery_failures = Counter(
            "mars_discovery_failures", "Looks that got no answer", ["source"], registry=registry
        )
        self._backend_families = _BackendFamilies(registry)

    def _bind_decision(self, decision: str) -> Counter:
        name = decision if len(self._decisions) < MAX_DECISIONS else "other"
        child: Counter = self._decided.labels(name)
        if name == decision:
            self._decisions[decision] = child
        return child


class _BackendFamilies:
    """The metrics that have a ``backend`` label, whose values are the configured URLs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        label = ["backend"]
        self.connect_s = Histogram(
            "mars_backend_connect_seconds",
            "Time to connect",
            label,
            buckets=CONNECT_BUCKETS_S,
            registry=registry,
        )
        self.retries = Counter(
            "mars_backend_retries", "Requests sent again on another connection", label, registry=registry
        )
        self.aborts = Counter(
            "mars_backend_aborts", "Requests given up because the client went", label, registry=registry
        )
        self.errors = Counter(
            "mars_backend_errors", "Requests that the backend failed", [*label, "code"], registry=registry
        )
        self.kv_tokens = Gauge(
            "mars_kv_tokens", "KV tokens: counted, budget and pool", [*label, "what"], registry=registry
        )
        self.telemetry_age_s = Gauge(
            "mars_telemetry_age_seconds", "Age of the latest reading", label, registry=registry
        )
        self.telemetry_fresh = Gauge(
            "mars_telemetry_fresh", "1 while the latest reading is believed", label, registry=registry
        )
        self.prefix_tokens = Gauge(
            "mars_backend_prefix_tokens",
            "Prompt tokens that the backend looked up in its prefix cache since it started, and found there",
            [*label, "what"],
            registry=registry,
        )
        self.preemptions = Gauge(
            "mars_backend_preemptions",
            "Requests that the backend has preempted since it started",
            label,
            registry=registry,
        )
        self.bounces = Counter(
            "mars_backend_bounces",
            "Turns that it did not take and another may have",
            label,
            registry=registry,
        )
        self.breaker = Gauge(
            "mars_backend_breaker", "1 for the state of its breaker", [*label, "state"], registry=registry
        )
        self.patch = PatchFamilies(registry)

    def drop(self, backend: str) -> None:
        """No more lines of that backend."""
        for family in (*vars(self).values(), *vars(self.patch).values()):
            if isinstance(family, MetricWrapperBase):
                family.remove_by_labels({"backend": backend})


class BackendMetrics:
    """Metrics of one backend, bound once."""

    def __init__(self, name: str, families: _BackendFamilies) -> None:
        self._connect_s = families.connect_s.labels(name)
        self._retries = families.retries.labels(name)
        self._aborts = families.aborts.labels(name)
        self._name = name
        self._errors = families.errors
        kv_tokens = families.kv_tokens
        self._kv_counted, self._kv_budget, self._kv_pool = (
            kv_tokens.labels(name, what) for what in ("counted", "budget", "pool")
        )
        self._telemetry_age_s = families.telemetry_age_s.labels(name)
        self._telemetry_fresh = families.telemetry_fresh.labels(name)
        self._prefix_queried, self._prefix_hit = (
            families.prefix_tokens.labels(name, what) for what in ("queried", "hit")
        )
        self._preemptions = families.preemptions.labels(name)
        self._bounces = families.bounces.labels(name)
        self._breaker = {state: families.breaker.labels(name, state.value) for state in BreakerState}
        self.patch = PatchMetrics(name, families.patch)
        self.set_breaker(BreakerState.CLOSED)
        self.set_reading(BackendObserved(name))
        self.set_kv_tokens(None, None, None)
        self.set_telemetry(None, is_fresh=False)

    def connected(self, took_s: float) -> None:
        self._connect_s.observe(took_s)

    def retried(self) -> None:
        self._retries.inc()

    def aborted(self) -> None:
        self._aborts.inc()

    def bounced(self) -> None:
        self._bounces.inc()

    def set_breaker(self, state: BreakerState) -> None:
        for each, gauge in self._breaker.items():
            gauge.set(each is state)

    def failed(self, code: str) -> None:
        """``code`` is that of the refusal which the client got, so one of a few words of our own."""
        self._errors.labels(self._name, code).inc()

    def set_kv_tokens(self, counted: float | None, budget: float | None, pool: int | None) -> None:
        """What counted sessions are predicted to need, what may be spent, and what there is."""
        self._kv_counted.set(_number(counted))
        self._kv_budget.set(_number(budget))
        self._kv_pool.set(_number(pool))

    def set_reading(self, reading: BackendObserved) -> None:
        """What the backend itself counts; a gauge here, for it begins anew when the backend does."""
        self._prefix_queried.set(_number(reading.prefix_queries_total))
        self._prefix_hit.set(_number(reading.prefix_hits_total))
        self._preemptions.set(_number(reading.preemptions_total))

    def set_telemetry(self, age_s: float | None, *, is_fresh: bool) -> None:
        self._telemetry_age_s.set(_number(age_s))
        self._telemetry_fresh.set(is_fresh)


class _EventLogCounts(Collector):
    def __init__(self, log: CountsLines) -> None:
        self._log = log

    def collect(self) -> Iterator[Metric]:
        written, dropped = self._log.lines_written, self._log.lines_dropped
        yield CounterMetricFamily("mars_event_log_lines", "Lines written to the event log", value=written)
        yield CounterMetricFamily("mars_event_log_dropped", "Lines lost by the event log", value=dropped)


def _histograms(
    name: str, text: str, label: str, values: type[E], registry: CollectorRegistry
) -> dict[E, Histogram]:
    family = Histogram(name, text, [label], buckets=TURN_BUCKETS_S, registry=registry)
    return {value: family.labels(value.value) for value in values}


def _number(value: float | None) -> float:
    return math.nan if value is None else value
