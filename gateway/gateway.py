"""One gateway: its parts, put together, and the order in which they start and stop.

Owns the wiring and the housekeeping beat. Everything it is made of comes from here through constructors;
nothing reaches for anything else. Connections to hosts are opened and closed by whoever opens the gateway.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.adoption import Adoption
from gateway.archive import Archive
from gateway.command_maker import CommandMaker
from gateway.execs import Execs
from gateway.host_watch import HostWatch
from gateway.hosts import HostPlan, Hosts
from gateway.learning import Learning
from gateway.leases import Leases
from gateway.limits import Limits
from gateway.listeners import Listener
from gateway.metrics import Metrics
from gateway.predictions import Predictions
from gateway.reporting import Reporter
from gateway.sessions import Sessions
from gateway.store import MemoryStore, Store
from gateway.store_watch import StoreWatch
from gateway.submission import Submission
from gateway.tasks import Tasks
from gateway.tenants import Tenants

OnStop = Literal["end", "keep"]

_HOUSEKEEPING_S = 1.0
"""How late an expiry may be noticed."""
_START_WAIT_S = 20.0
"""A gateway does not serve before its hosts were asked what they run, or so long: until then it would have to
refuse sessions and keys. Hosts that are there answer in milliseconds, after a start of their agent in seconds
on a busy machine; one that refuses to be connected to is not waited for."""
_ADOPTION_TIMEOUT_S = 30.0
"""A host that was not reached by then is taken for one without commands of ours, so that keys can be used
again."""


@dataclass(slots=True)
class Gateway:
    limits: Limits
    tenants: Tenants
    hosts: Hosts
    sessions: Sessions
    execs: Execs
    submission: Submission
    leases: Leases
    metrics: Metrics
    on_stop: OnStop
    store_watch: StoreWatch
    is_draining: bool = False

    def drain(self) -> None:
        """Take nothing new; what was started ends or goes on as ``on_stop`` says. Requests that wait are
        answered."""
        self.is_draining = True
        self.sessions.drain()
        self.leases.drain()
        reason = "the gateway is shutting down"
        if self.on_stop == "keep":
            self.execs.leave(reason)
        else:
            self.execs.drain(reason)


@contextlib.asynccontextmanager
async def open_gateway(
    limits: Limits,
    tenants: Tenants,
    *,
    hosts: Sequence[HostPlan],
    store: Store | None = None,
    proxy_url: str | None = None,
    proxy_token: str | None = None,
    on_stop: OnStop = "end",
    clock: Callable[[], float] = time.monotonic,
    unix_clock: Callable[[], float] = time.time,
    housekeeping_s: float = _HOUSEKEEPING_S,
    start_wait_s: float = _START_WAIT_S,
    adoption_timeout_s: float = _ADOPTION_TIMEOUT_S,
) -> AsyncIterator[Gateway]:
    """``store``: None is memory; it is closed with the gateway. With ``on_stop`` "end" nothing runs on the
    hosts afterwards that was started here."""
    parts = _Parts(limits, hosts, store or MemoryStore(limits, clock), clock, unix_clock, adoption_timeout_s)
    parts.report_to(proxy_url, proxy_token)
    gateway = parts.gateway(tenants, on_stop)
    background = Tasks()
    await parts.sessions.restore()
    parts.watch(background, housekeeping_s)
    try:
        await parts.hosts.wait_asked(start_wait_s)
        yield gateway
    finally:
        gateway.drain()
        await parts.close(keeps_all=on_stop == "keep")
        await background.close()
        await parts.flush()


class _Parts:
    """What a gateway is made of, while it is made and when it is closed."""

    def __init__(
        self,
        limits: Limits,
        plans: Sequence[HostPlan],
        store: Store,
        clock: Callable[[], float],
        unix_clock: Callable[[], float],
        adoption_timeout_s: float,
    ) -> None:
        self.limits, self.store, self.clock = limits, store, clock
        self.metrics = Metrics()
        self.predictions = Predictions()
        self.listeners: list[Listener] = [self.metrics, Learning(self.predictions, clock)]
        self.archive = Archive(store, clock)
        if store.is_durable:
            self.listeners.append(self.archive)
        self.reporter: Reporter | None = None
        self.store_watch = StoreWatch(store)
        self.hosts = Hosts(plans, clock, adoption_timeout_s)
        self.execs = Execs(
            limits=limits, hosts=self.hosts, store=store, listeners=self.listeners, clock=clock
        )
        self.sessions = Sessions(
            limits=limits, hosts=self.hosts, execs=self.execs, store=store, clock=clock, unix_clock=unix_clock
        )
        self.leases = Leases(
            limits=limits,
            hosts=self.hosts,
            sessions=self.sessions,
            predictions=self.predictions,
            listeners=self.listeners,
            clock=clock,
        )
        maker = CommandMaker(
            limits=limits,
            sessions=self.sessions,
            hosts=self.hosts,
            predictions=self.predictions,
            clock=clock,
        )
        self.submission = Submission(maker=maker, execs=self.execs, hosts=self.hosts, store=store)

    def report_to(self, proxy_url: str | None, token: str | None) -> None:
        if proxy_url is not None:
            self.reporter = Reporter(
                proxy_url, token, self.hosts.observe, self.clock, self.hosts.observe_each
            )
            self.listeners.append(self.reporter)

    def gateway(self, tenants: Tenants, on_stop: OnStop) -> Gateway:
        _watch(self.metrics, self)
        return Gateway(
            self.limits,
            tenants,
            self.hosts,
            self.sessions,
            self.execs,
            self.submission,
            self.leases,
            self.metrics,
            on_stop,
            self.store_watch,
        )

    def watch(self, background: Tasks, housekeeping_s: float) -> None:
        """Start what goes on for as long as the gateway does."""
        adoption = Adoption(execs=self.execs, sessions=self.sessions, store=self.store, clock=self.clock)
        for host in self.hosts:
            background.spawn(f"watch {host.name}", HostWatch(host, adoption).run())
        background.spawn("housekeeping", self._keep_house(housekeeping_s))
        if self.reporter is not None:
            background.spawn("reporting", self.reporter.run())
        if self.store.is_durable:
            background.spawn("archive", self.archive.run())
            background.spawn("watch the store", self.store_watch.run())

    async def close(self, *, keeps_all: bool) -> None:
        await self.submission.close()
        await self.leases.close()
        await self.execs.close()
        await self.sessions.close(keeps_all=keeps_all)

    async def flush(self) -> None:
        """What is left to tell."""
        if self.reporter is not None:
            await self.reporter.flush()
        if self.store.is_durable:
            await self.archive.flush()
        await self.store.close()

    async def _keep_house(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            self.sessions.end_expired()
            self.execs.forget_expired()
            self.leases.expire()
            for host in self.hosts:
                host.tick()


def _watch(metrics: Metrics, parts: _Parts) -> None:
    hosts, execs, reporter = parts.hosts, parts.execs, parts.reporter
    metrics.watch_hosts(hosts)
    watch = metrics.watch
    watch("slots", "CPU slots that there are", lambda: sum(host.queue.slots for host in hosts))
    watch("slots_used", "CPU slots taken", lambda: sum(host.queue.used for host in hosts))
    watch("execs_running", "Commands that hold slots", lambda: sum(host.queue.running for host in hosts))
    watch("execs_queued", "Commands that wait for slots", lambda: sum(host.queue.queued for host in hosts))
    watch("sessions", "Sessions that exist", lambda: len(parts.sessions))
    watch("leases_active", "Leases that are queued or held", lambda: len(parts.leases))
    watch("spool_bytes", "Output on disk of finished commands", lambda: execs.kept_bytes)
    watch("head_cache_bytes", "Beginnings of output in memory", lambda: execs.head_bytes)
    observed = hosts.observe
    watch(
        "queue_wait_seconds",
        "Wait for a slot, smoothed, on the host with most of it",
        lambda: observed().queue_wait_s,
    )
    watch(
        "memory_available_bytes",
        "Memory of the hosts that is free or can be freed",
        lambda: _bytes(observed().memory_available_mb),
    )
    watch(
        "cpu_pressure_ratio",
        "Share of the last 10 s in which some task waited for a core, on the host with most of it",
        lambda: observed().cpu_pressure,
    )
    watch(
        "memory_pressure_ratio",
        "Share of the last 10 s in which some task waited for memory, on the host with most of it",
        lambda: observed().memory_pressure,
    )
    predictions = parts.predictions
    watch(
        "prediction_known_ratio",
        "Share of the last 100 commands or so whose run time was predicted",
        lambda: predictions.quality.known_ratio,
    )
    watch(
        "prediction_run_within_ratio",
        "Share of those that took no longer than their ninth decile; 0.9 is right",
        lambda: predictions.quality.run_within_ratio,
    )
    watch(
        "prediction_run_error_factor",
        "By which their run time was off from its median, up or down, as a geometric mean; 1 is best",
        lambda: predictions.quality.run_factor,
    )
    watch(
        "prediction_memory_within_ratio",
        "Share of the last 100 predicted ones or so that stayed within the memory set aside; 0.95 is right",
        lambda: predictions.quality.memory_within_ratio,
    )
    if parts.store.is_durable:
        watch("archive_dropped", "Endings that the store never got", lambda: parts.archive.dropped)
    if reporter is not None:
        watch("report_events_dropped", "Events the proxy never got", lambda: reporter.dropped_events)
        watch("report_posts_failed", "Reports the proxy did not take", lambda: reporter.failed_posts)


def _bytes(megabytes: int | None) -> float | None:
    return None if megabytes is None else megabytes * 1e6
