"""Metrics of one backend's patch: what it is, where headroom comes from, what became of hints and leases.

Owns names and labels; the same rules as in ``marsproxy.metrics``. Sessions of other proxies in front of the
same backend are theirs to count.
"""

import math
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge

from backend_patch.protocol import KvOp, KvStatus
from marsproxy.core.events import KvReclaimed, LeaseExpired, LeaseResumed
from marsproxy.patch import HeadroomSource, PatchState


class Dropped(StrEnum):
    """Why a hint got no answer."""

    FAILED = "failed"
    """The request did; it is not sent again."""
    REPLACED = "replaced"
    """A later one for the same session came before it was sent."""
    OVERTAKEN = "overtaken"
    """The session's next turn was forwarded before it was sent."""
    NO_ROOM = "no_room"
    NO_PATCH = "no_patch"
    """The backend has none that works, or none that can do this."""


class PatchFamilies:
    """The metrics, before they have a backend's name."""

    def __init__(self, registry: CollectorRegistry) -> None:
        label = ["backend"]
        self.state = Gauge(
            "mars_backend_patch", "1 for what is known of its patch", [*label, "state"], registry=registry
        )
        self.source = Gauge(
            "mars_backend_headroom_source",
            "1 for where its headroom is read",
            [*label, "source"],
            registry=registry,
        )
        self.leased = Gauge(
            "mars_backend_leased_tokens",
            "KV tokens that leases protect and no request uses",
            label,
            registry=registry,
        )
        self.hints = Counter(
            "mars_hints", "Hints by what became of them", [*label, "op", "status"], registry=registry
        )
        self.endings = Counter(
            "mars_lease_endings", "Leases that ended, by how", [*label, "how"], registry=registry
        )
        self.ended_tokens = Counter(
            "mars_lease_tokens",
            "Tokens of leases that ended, and those that the next turn found",
            [*label, "how"],
            registry=registry,
        )
        self.missed = Counter(
            "mars_lease_endings_missed", "Lease endings that were not read in time", label, registry=registry
        )


class PatchMetrics:
    """Bound once."""

    def __init__(self, backend: str, families: PatchFamilies) -> None:
        self._states = {state: families.state.labels(backend, state.value) for state in PatchState}
        self._sources = {source: families.source.labels(backend, source.value) for source in HeadroomSource}
        self._leased = families.leased.labels(backend)
        statuses: tuple[KvStatus | Dropped, ...] = (*KvStatus, *Dropped)
        self._hints = {
            (op, status): families.hints.labels(backend, op.value, status.value)
            for op in KvOp
            for status in statuses
        }
        self._endings, self._tokens = (
            {how: family.labels(backend, how) for how in ("resumed", "reclaimed", "expired", *extra)}
            for family, extra in ((families.endings, ()), (families.ended_tokens, ("hit",)))
        )
        self._missed = families.missed.labels(backend)
        self.set_state(PatchState.UNKNOWN)
        self.set_source(HeadroomSource.NONE)
        self.set_leased_tokens(None)

    def set_state(self, state: PatchState) -> None:
        for each, gauge in self._states.items():
            gauge.set(each is state)

    def set_source(self, source: HeadroomSource) -> None:
        for each, gauge in self._sources.items():
            gauge.set(each is source)

    def set_leased_tokens(self, tokens: int | None) -> None:
        self._leased.set(math.nan if tokens is None else tokens)

    def hint(self, op: KvOp, status: KvStatus | Dropped) -> None:
        self._hints[op, status].inc()

    def lease_ended(self, event: LeaseResumed | KvReclaimed | LeaseExpired) -> None:
        match event:
            case LeaseResumed():
                self._count("resumed", event.leased_tokens)
                self._tokens["hit"].inc(event.hit_tokens)
            case KvReclaimed():
                self._count("reclaimed", event.tokens)
            case LeaseExpired():
                self._count("expired", event.tokens)

    def endings_missed(self, count: int) -> None:
        self._missed.inc(count)

    def _count(self, how: str, tokens: int) -> None:
        self._endings[how].inc()
        self._tokens[how].inc(tokens)
