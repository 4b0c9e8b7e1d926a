"""Admission without running: queued, held, and then released, expired or rejected.

For a command that its caller runs itself. Owns the table of leases and their ends; it must not know HTTP. A
lease takes its slots from the queue of a host as a command does, and listeners are told of it as of one.
"""

import asyncio
import contextlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.admission import Ask, Offer
from gateway.errors import Refusal, draining, invalid, lease_not_found, queue_full
from gateway.host import ExecUse
from gateway.hosts import Host, Hosts
from gateway.limits import Limits
from gateway.listeners import Listener
from gateway.predictions import Predictions
from gateway.protocol import LeaseEnding, LeaseRenewal, LeaseRequest, LeaseState, LeaseStatus
from gateway.sessions import Sessions
from gateway.tasks import Tasks

_ENDINGS = (LeaseState.RELEASED, LeaseState.EXPIRED, LeaseState.REJECTED)


@dataclass(slots=True, eq=False)
class Lease:
    """Times are on the gateway's monotonic clock."""

    id: str
    tenant: str
    session: str
    host: str
    cpu: float
    ttl_s: float
    labels: Mapping[str, str]
    command_digest: str | None
    program: str | None
    queued_at_s: float
    granted: asyncio.Future[bool]
    state: LeaseState = LeaseState.QUEUED
    held_at_s: float | None = None
    expires_at_s: float | None = None
    ended_at_s: float | None = None
    exit_code: int | None = None
    cpu_s: float | None = None
    max_rss_mb: float | None = None
    reason: str | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """It is not queued any more."""

    def __repr__(self) -> str:
        return f"<Lease {self.id} on {self.host} [{self.state}]>"

    @property
    def signature(self) -> str | None:
        """The name alone: no more is known of it."""
        return self.program

    @property
    def ending(self) -> str | None:
        return self.state.value if self.state in _ENDINGS else None

    def queue_s(self, now: float) -> float:
        until_s = self.held_at_s if self.held_at_s is not None else self.ended_at_s
        return (now if until_s is None else until_s) - self.queued_at_s

    def run_s(self, now: float) -> float | None:
        if self.held_at_s is None:
            return None
        return (now if self.ended_at_s is None else self.ended_at_s) - self.held_at_s


class Leases:
    def __init__(
        self,
        *,
        limits: Limits,
        hosts: Hosts,
        sessions: Sessions,
        predictions: Predictions,
        listeners: Sequence[Listener],
        clock: Callable[[], float],
    ) -> None:
        self._limits = limits
        self._hosts = hosts
        self._sessions = sessions
        self._predictions = predictions
        self._listeners = listeners
        self._clock = clock
        self._tasks = Tasks()
        self._active: dict[str, Lease] = {}
        self._over: OrderedDict[str, Lease] = OrderedDict()
        self._is_draining = False

    def __len__(self) -> int:
        return len(self._active)

    def ask(self, tenant: str, request: LeaseRequest) -> Lease:
        """Held at once or queued. Raises Refusal: 429 ``queue_full``, 404 ``host_not_found``, 503
        draining."""
        host = self._host(tenant, request)
        if self._is_draining or host.is_draining:
            raise draining()
        if request.cpu > host.queue.slots:
            raise invalid("cpu", f"must be at most {host.queue.slots:g}, which is all that its host has")
        lease = self._new(tenant, host, request)
        ask = self._ask(lease, request)
        if host.offer(ask, lease.granted) is Offer.FULL:
            raise queue_full(host.queue.queued, host.retry_after_s())
        self._active[lease.id] = lease
        for listener in self._listeners:
            listener.queued(lease)
        if lease.granted.done():
            self._hold(lease)
        else:
            self._tasks.spawn(f"lease {lease.id}", self._until_granted(lease, ask))
        return lease

    def get(self, tenant: str, lease_id: str) -> Lease:
        """Raises Refusal 404 ``lease_not_found``."""
        lease = self._active.get(lease_id) or self._over.get(lease_id)
        if lease is None or lease.tenant != tenant:
            raise lease_not_found(lease_id)
        return lease

    def status(self, lease: Lease) -> LeaseStatus:
        now = self._clock()
        is_held = lease.state is LeaseState.HELD and lease.expires_at_s is not None
        return LeaseStatus(
            id=lease.id,
            session=lease.session,
            host=lease.host,
            state=lease.state,
            cpu=lease.cpu,
            queue_s=lease.queue_s(now),
            expires_in_s=max(0.0, (lease.expires_at_s or now) - now) if is_held else None,
            queue_position=self._hosts.get(lease.host).queue.position(lease.id),
            reason=lease.reason,
        )

    async def wait_held(self, lease: Lease, timeout_s: float) -> None:
        """Returns when it is not queued any more, or after the timeout."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await lease.settled.wait()

    def renew(self, lease: Lease, renewal: LeaseRenewal) -> None:
        """Of a queued one: for when it is held. Raises Refusal 409 ``lease_over``."""
        if lease.ending is not None:
            message = f"the lease is {lease.ending}; ask for another"
            raise Refusal(409, "lease_over", message, param="id")
        lease.ttl_s = renewal.ttl_s
        if lease.state is LeaseState.HELD:
            lease.expires_at_s = self._clock() + renewal.ttl_s
            self._hosts.get(lease.host).measured(lease.id, ExecUse(None, renewal.rss_mb))

    def release(self, lease: Lease, ending: LeaseEnding) -> None:
        """Of a queued one too; again is the same as once."""
        if lease.ending is None:
            lease.exit_code, lease.cpu_s = ending.exit_code, ending.cpu_s
            lease.max_rss_mb = ending.max_rss_mb
            self._end(lease, LeaseState.RELEASED)

    def expire(self) -> None:
        """About once a second."""
        now = self._clock()
        for lease in list(self._active.values()):
            if lease.expires_at_s is not None and lease.expires_at_s <= now:
                self._end(lease, LeaseState.EXPIRED, "it was not renewed in time")
        oldest_s = now - self._limits.exec_ttl_s
        while self._over:
            oldest = next(iter(self._over.values()))
            is_young = oldest.ended_at_s is not None and oldest.ended_at_s > oldest_s
            if is_young and len(self._over) <= self._limits.max_execs:
                return
            del self._over[oldest.id]

    def drain(self) -> None:
        self._is_draining = True
        for lease in list(self._active.values()):
            if lease.state is LeaseState.QUEUED:
                self._end(lease, LeaseState.REJECTED, "the gateway is shutting down")

    async def close(self) -> None:
        self.drain()
        await self._tasks.close()

    def _host(self, tenant: str, request: LeaseRequest) -> Host:
        if request.host is not None:
            return self._hosts.get(request.host)
        session = self._sessions.find(tenant, request.session)
        return self._hosts.default if session is None else self._hosts.get(session.host)

    def _new(self, tenant: str, host: Host, request: LeaseRequest) -> Lease:
        return Lease(
            id=f"ls-{secrets.token_hex(12)}",
            tenant=tenant,
            session=request.session,
            host=host.name,
            cpu=request.cpu,
            ttl_s=request.ttl_s,
            labels=request.labels,
            command_digest=request.command_sha256,
            program=request.program,
            queued_at_s=self._clock(),
            granted=asyncio.get_running_loop().create_future(),
        )

    def _ask(self, lease: Lease, request: LeaseRequest) -> Ask:
        predicted = self._predictions.predict(lease.program, self._clock())
        session = self._sessions.find(lease.tenant, lease.session)
        key = (lease.tenant, lease.session)
        asked_s = request.queue_timeout_s
        return Ask(
            id=lease.id,
            session=key,
            family=key if session is None else self._sessions.family(session),
            cpu=lease.cpu,
            memory_mb=predicted.memory_mb if request.memory_mb is None else request.memory_mb,
            expected_s=predicted.run_p90_s,
            priority=0 if session is None else session.settings.priority,
            queue_timeout_s=self._limits.queue_timeout_s if asked_s is None else asked_s,
        )

    async def _until_granted(self, lease: Lease, ask: Ask) -> None:
        await asyncio.wait({lease.granted}, timeout=ask.queue_timeout_s)
        if lease.ending is not None:
            return
        if lease.granted.done():
            self._hold(lease)
        else:
            self._end(lease, LeaseState.REJECTED, f"no CPU slot within {ask.queue_timeout_s:g} s")

    def _hold(self, lease: Lease) -> None:
        lease.state, lease.held_at_s = LeaseState.HELD, self._clock()
        lease.expires_at_s = lease.held_at_s + lease.ttl_s
        lease.settled.set()
        for listener in self._listeners:
            listener.started(lease)

    def _end(self, lease: Lease, state: LeaseState, reason: str | None = None) -> None:
        """The one ending: slots back, waiters and listeners told."""
        lease.state, lease.reason, lease.ended_at_s = state, reason, self._clock()
        if not lease.granted.done():
            lease.granted.set_result(False)
        del self._active[lease.id]
        self._over[lease.id] = lease
        self._hosts.get(lease.host).end(lease.id)
        lease.settled.set()
        for listener in self._listeners:
            listener.finished(lease)
