"""Whether a backend that failed is well again, and which models it serves."""

from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from marsproxy.backend_address import BackendAddress
from marsproxy.backend_check import BackendCheck
from marsproxy.breaker import Breaker, BreakerLimits, BreakerState
from marsproxy.metrics import Metrics

NAME = "http://gpu:8000"


@dataclass
class Checked:
    """A backend, and whoever is told of its models."""

    name: str = NAME
    breaker: Breaker = field(
        default_factory=lambda: Breaker(BreakerLimits(failures=1, open_s=0.0, max_open_s=0.0), lambda: 0.0)
    )
    metrics: Any = field(default_factory=lambda: Metrics(CollectorRegistry()).backend(NAME))
    is_reachable: bool = True
    models: frozenset[str] | None = None
    others: bool = True
    changes: int = 0
    health: int | None = 200
    listing: bytes = b'{"data": [{"id": "m"}]}'
    asked: list[str] = field(default_factory=list)

    def changed(self) -> None:
        self.changes += 1

    def has_others(self) -> bool:
        return self.others

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        if request.url.path == "/health":
            if self.health is None:
                raise httpx.ConnectError("no")
            return httpx.Response(self.health)
        return httpx.Response(200, content=self.listing)

    def check(self, *, models_interval_s: float = 3600.0) -> BackendCheck:
        client = httpx.AsyncClient(transport=httpx.MockTransport(self.answer))
        return BackendCheck(self, BackendAddress.of(NAME), client, self, models_interval_s=models_interval_s)


@pytest.mark.parametrize(
    ("health", "state"),
    [
        (200, BreakerState.HALF_OPEN),
        (404, BreakerState.HALF_OPEN),
        (503, BreakerState.OPEN),
        (None, BreakerState.OPEN),
    ],
)
async def test_a_look_at_one_that_failed(health: int | None, state: BreakerState) -> None:
    """A server without the path is well if it answers; a vLLM whose engine is dead says 503."""
    backend = Checked(health=health)
    backend.breaker.failed(0.0)
    await backend.check().look()
    assert backend.breaker.state is state


async def test_one_that_is_well_is_not_asked() -> None:
    """Its requests say it."""
    backend = Checked()
    await backend.check().look()
    assert "/health" not in backend.asked


async def test_models_are_read_where_there_is_a_choice() -> None:
    """Once in their interval, and told when they change."""
    backend = Checked()
    check = backend.check()
    await check.look()
    await check.look()
    assert (backend.asked, backend.models, backend.changes) == (["/v1/models"], frozenset("m"), 1)
    alone = Checked(others=False)
    await alone.check().look()
    assert alone.asked == []


async def test_models_are_read_again_when_it_comes_back() -> None:
    """Another may have been started in its place."""
    backend = Checked()
    check = backend.check()
    await check.look()
    backend.is_reachable = False
    await check.look()
    backend.is_reachable, backend.listing = True, b'{"data": [{"id": "n"}]}'
    await check.look()
    assert (backend.models, backend.changes, len(backend.asked)) == (frozenset("n"), 2, 2)


async def test_models_that_are_not_listed() -> None:
    """It may serve any."""
    backend = Checked(listing=b"nothing to read", models=frozenset("m"))
    await backend.check().look()
    assert backend.models is None
