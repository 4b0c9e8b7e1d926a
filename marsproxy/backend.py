"""One backend as this replica reaches it: connections, patch, hints, breaker, and what it was seen to be.

Owns these parts and the tasks that look after them, from ``open`` to ``close``. Must not know the other
backends, nor what the policy makes of this one.
"""

import random
import time
from asyncio import Task
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from marsproxy.backend_address import BackendAddress
from marsproxy.backend_check import BackendCheck
from marsproxy.backend_watch import BackendWatch, Cadence
from marsproxy.breaker import Breaker, BreakerLimits, BreakerState
from marsproxy.config import Config
from marsproxy.core.events import BackendObserved, BackendUnreachable, Event
from marsproxy.discovery.endpoint import Endpoint
from marsproxy.headroom import MetricsPage
from marsproxy.hints import HintSender
from marsproxy.metrics import BackendMetrics
from marsproxy.patch import BackendPatch
from marsproxy.patch_client import PatchClient
from marsproxy.tasks import TaskOwner
from marsproxy.upstream import Upstream, UpstreamError

FAILED_STATUS = 500
"""From here on an answer is the backend's failure (RFC 9110, section 15.6); below, the request's."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Whom a backend tells.

    Attributes:
        knows: whether a session is one of the policy's.
        tell: gives the policy what this replica alone knows.
        tell_reading: gives it what every replica sees of a backend.
        changed: its models are others now.
        has_others: whether it is one of several.
    """

    knows: Callable[[str], bool]
    tell: Callable[[Event], None]
    tell_reading: Callable[[str, Event], None]
    changed: Callable[[], None]
    has_others: Callable[[], bool]


class Backend:
    def __init__(self, endpoint: Endpoint, config: Config, metrics: BackendMetrics) -> None:
        settings, sessions = config.backend, config.sessions
        self._settings = settings
        self.endpoint = endpoint
        self.name = endpoint.name
        self.metrics = metrics
        key = settings.api_key
        self._address = BackendAddress.of(endpoint.url, None if key is None else key.reveal())
        self.upstream = Upstream(
            self.name,
            endpoint.url,
            connect_timeout_s=settings.connect_timeout_s,
            read_timeout_s=settings.read_timeout_s,
            keepalive_s=settings.keepalive_s,
            events=metrics,
        )
        self.patch = BackendPatch(self.name, metrics.patch)
        self.hints = HintSender(
            self.patch,
            metrics.patch,
            max_sessions=sessions.max_sessions,
            expiry_s=sessions.idle_expiry_s,
            clock=time.monotonic,
        )
        limits = BreakerLimits(
            settings.breaker_failures, settings.breaker_open_s, settings.breaker_max_open_s
        )
        self.breaker = Breaker(limits, random.random)
        self.models: frozenset[str] | None = None
        """That it serves; None where it does not say."""
        self.is_reachable = True
        """By the latest reading; one that was never read may be tried."""
        self._tasks: list[Task[Any]] = []

    def can_take(self, model: str | None = None) -> bool:
        """Whether a request for that model should go there."""
        return self.is_reachable and self.breaker.can_take() and self.serves(model)

    def serves(self, model: str | None) -> bool:
        return model is None or self.models is None or model in self.models

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """A request goes there and is answered; what fails in it is the backend's failure."""
        self.breaker.sent()
        try:
            yield
        except UpstreamError:
            self.failed()
            raise
        finally:
            self.breaker.given_up()  # of no effect on what is settled

    def failed(self) -> None:
        self.breaker.failed(time.monotonic())
        self.metrics.set_breaker(self.breaker.state)

    def answered(self, status: int) -> None:
        """The head of an answer is there; if it says nothing bad, it is not yet a success."""
        if status >= FAILED_STATUS:
            self.failed()

    def began(self, status: int) -> None:
        """And something of its body."""
        if status < FAILED_STATUS:
            was = self.breaker.state
            self.breaker.succeeded()
            if self.breaker.state is not was:
                self.metrics.set_breaker(self.breaker.state)

    async def open(self, client: httpx.AsyncClient, tasks: TaskOwner, to: Listeners) -> None:
        """
        Args:
            client: for all that is no request of an agent.
        """
        await self.upstream.open()
        watch = self._watch(client, to)
        check = BackendCheck(
            self, self._address, client, to, models_interval_s=self._settings.models_interval_s
        )
        self._tasks = [
            tasks.spawn(f"watch-{self.name}", watch.run()),
            tasks.spawn(f"hints-{self.name}", self.hints.run(self.patch_client(client), to.knows, to.tell)),
            tasks.spawn(f"check-{self.name}", check.run()),
        ]

    def stop_tasks(self) -> None:
        """Nothing looks after it any more; requests that are under way go on."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        await self.upstream.close()

    def patch_client(self, client: httpx.AsyncClient) -> PatchClient:
        return PatchClient(client, self._address)

    def _watch(self, client: httpx.AsyncClient, to: Listeners) -> BackendWatch:
        settings = self._settings

        def tell(event: Event) -> None:
            to.tell_reading(self.name, self._seen(event))

        return BackendWatch(
            self.patch,
            self.patch_client(client),
            MetricsPage(self.name, client, self._address, kv_tokens=settings.kv_tokens),
            self.metrics.patch,
            Cadence(settings.telemetry_interval_s, settings.headroom_interval_s),
            kv_tokens=settings.kv_tokens,
            clock=time.monotonic,
            knows=to.knows,
            tell=tell,
        )

    def _seen(self, event: Event) -> Event:
        """One whose requests fail is not to be reached, whatever its telemetry says."""
        match event:
            case BackendObserved():
                self.is_reachable = True
                if self.breaker.state is BreakerState.OPEN:
                    return BackendUnreachable(self.name)
            case BackendUnreachable():
                self.is_reachable = False
        return event
