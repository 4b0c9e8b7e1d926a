"""One gateway: its parts, put together, and the order in which they start and stop.

Owns the wiring and the housekeeping beat. Everything it is made of comes from here through
constructors; nothing reaches for anything else.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.execs import Execs, Listener
from gateway.headroom import LocalHost
from gateway.limits import Limits
from gateway.local_runner import LocalRunner
from gateway.metrics import Metrics
from gateway.reporting import Reporter
from gateway.sessions import Sessions
from gateway.slots import SlotQueue
from gateway.spool import Pump
from gateway.submission import Submission
from gateway.tasks import Tasks
from gateway.tenants import Tenants

_HOUSEKEEPING_S = 1.0
"""How late an expiry may be noticed."""


@dataclass(frozen=True, slots=True)
class Gateway:
    limits: Limits
    tenants: Tenants
    sessions: Sessions
    execs: Execs
    submission: Submission
    host: LocalHost
    metrics: Metrics

    def drain(self) -> None:
        """Take nothing new and end what was started; requests that wait for it are answered."""
        self.host.is_draining = True
        self.execs.drain("the gateway is shutting down")


@contextlib.asynccontextmanager
async def open_gateway(
    limits: Limits,
    tenants: Tenants,
    *,
    directory: Path,
    proxy_url: str | None = None,
    proxy_token: str | None = None,
    clock: Callable[[], float] = time.monotonic,
    housekeeping_s: float = _HOUSEKEEPING_S,
) -> AsyncIterator[Gateway]:
    """``directory``: from ``spool_directory``. No process is left when it closes."""
    metrics = Metrics()
    slots = SlotQueue(limits.slots, limits.queue_limit)
    host = LocalHost("local", slots, clock)
    listeners: list[Listener] = [metrics]
    reporter = None if proxy_url is None else Reporter(proxy_url, proxy_token, host.observe, clock)
    if reporter is not None:
        listeners.append(reporter)
    pump = Pump()
    runner = LocalRunner(pump)
    execs = Execs(
        limits=limits,
        slots=slots,
        runner=runner,
        host=host.name,
        directory=directory / "execs",
        listeners=listeners,
        clock=clock,
    )
    sessions = Sessions(limits=limits, execs=execs, directory=directory / "sessions", clock=clock)
    submission = Submission(limits=limits, execs=execs, clock=clock, environ=os.environ)
    _watch(metrics, slots, sessions, execs, reporter)
    _watch_host(metrics, host)
    background = Tasks()
    background.spawn("housekeeping", _keep_house(sessions, execs, housekeeping_s))
    if reporter is not None:
        background.spawn("reporting", reporter.run())
    gateway = Gateway(limits, tenants, sessions, execs, submission, host, metrics)
    try:
        yield gateway
    finally:
        gateway.drain()
        await execs.close()
        await sessions.close()
        await runner.close()
        await background.close()
        if reporter is not None:
            await reporter.flush()
        pump.stop()


async def _keep_house(sessions: Sessions, execs: Execs, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        sessions.end_expired()
        execs.forget_expired()


def _watch(
    metrics: Metrics, slots: SlotQueue, sessions: Sessions, execs: Execs, reporter: Reporter | None
) -> None:
    metrics.watch("slots", "CPU slots that there are", lambda: slots.slots)
    metrics.watch("slots_used", "CPU slots taken", lambda: slots.used)
    metrics.watch("execs_running", "Commands that hold slots", lambda: slots.running)
    metrics.watch("execs_queued", "Commands that wait for slots", lambda: slots.queued)
    metrics.watch("sessions", "Sessions that exist", lambda: len(sessions))
    metrics.watch("spool_bytes", "Output on disk of finished commands", lambda: execs.spool_bytes)
    if reporter is not None:
        metrics.watch("report_events_dropped", "Events the proxy never got", lambda: reporter.dropped_events)
        metrics.watch("report_posts_failed", "Reports the proxy did not take", lambda: reporter.failed_posts)


def _watch_host(metrics: Metrics, host: LocalHost) -> None:
    def bytes_of(megabytes: int | None) -> float | None:
        return None if megabytes is None else megabytes * 1e6

    metrics.watch("queue_wait_seconds", "Wait for a slot, smoothed", lambda: host.observe().queue_wait_s)
    metrics.watch(
        "memory_available_bytes",
        "Memory of the host that is free or can be freed",
        lambda: bytes_of(host.observe().memory_available_mb),
    )
    metrics.watch(
        "cpu_pressure_ratio",
        "Share of the last 10 s in which some task waited for a core",
        lambda: host.observe().cpu_pressure,
    )
    metrics.watch(
        "memory_pressure_ratio",
        "Share of the last 10 s in which some task waited for memory",
        lambda: host.observe().memory_pressure,
    )
