"""Looks at one backend beside its telemetry: whether one that failed is well again, and its models.

Degrades: a server without ``/health`` is well if it answers at all; one that does not list its models may
serve any.
"""

import asyncio
import random
import time
from typing import Protocol

import httpx

from marsproxy.backend_address import BackendAddress
from marsproxy.backend_models import ask_models
from marsproxy.breaker import Breaker
from marsproxy.metrics import BackendMetrics

HEALTH_PATH = "/health"
"""vLLM: 200, or 503 when its engine is dead (0.28 to 0.33)."""
PAUSE_S = 0.2
"""Between two looks at the clock; the breaker and the interval of models say when something is due."""
JITTER = 0.1
"""Share of an interval that chance adds, so that replicas do not ask in step. Chosen."""


class Checked(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def breaker(self) -> Breaker: ...
    @property
    def metrics(self) -> BackendMetrics: ...

    is_reachable: bool
    models: frozenset[str] | None


class ModelsChanged(Protocol):
    def changed(self) -> None: ...
    def has_others(self) -> bool: ...


class BackendCheck:
    def __init__(
        self,
        backend: Checked,
        address: BackendAddress,
        client: httpx.AsyncClient,
        to: ModelsChanged,
        *,
        models_interval_s: float,
    ) -> None:
        self._backend = backend
        self._address = address
        self._client = client
        self._to = to
        self._models_interval_s = models_interval_s
        self._models_at_s = 0.0
        """When they are to be read next."""
        self._was_reachable = True

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(PAUSE_S * (1 + JITTER * random.random()))

    async def look(self) -> None:
        """Whatever is due now."""
        if self._backend.breaker.is_probe_due(time.monotonic()):
            is_well = await self._is_well()
            self._backend.breaker.probed(time.monotonic(), is_well=is_well)
            self._backend.metrics.set_breaker(self._backend.breaker.state)
        came_back = self._backend.is_reachable and not self._was_reachable
        self._was_reachable = self._backend.is_reachable
        if self._to.has_others() and (came_back or time.monotonic() >= self._models_at_s):
            await self._read_models()

    async def _is_well(self) -> bool:
        try:
            answer = await self._client.get(self._address.base + HEALTH_PATH, headers=self._address.headers)
        except httpx.HTTPError:
            return False
        return answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR

    async def _read_models(self) -> None:
        """What cannot be asked now serves what it served."""
        self._models_at_s = time.monotonic() + self._models_interval_s * (1 + JITTER * random.random())
        try:
            models = await ask_models(self._client, self._address)
        except httpx.HTTPError:
            return
        if models != self._backend.models:
            self._backend.models = models
            self._to.changed()
