"""All backends of a replica: found, told by whoever leads, retired when the last answer is over."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from marsproxy.backends import Backends
from marsproxy.config import Backend as BackendSettings
from marsproxy.config import Config
from marsproxy.core.events import BackendsChanged, BackendSpec, Event
from marsproxy.core.policy import Policy
from marsproxy.core.settings import AdmissionSettings, PolicySettings
from marsproxy.discovery.endpoint import Endpoint, Found
from marsproxy.hints import Hints
from marsproxy.metrics import Metrics

A, B, C = (f"http://127.0.0.{n}:1" for n in (2, 3, 4))


@dataclass
class Told:
    """The policy, and a journal that leads or does not."""

    policy: Policy
    leads: bool = True
    told: list[Event] = field(default_factory=list)

    @property
    def journal(self) -> Any:
        return self

    def tell(self, event: Event) -> None:
        self.told.append(event)
        self.policy.handle(event, 1.0 + len(self.told))

    @property
    def changes(self) -> list[tuple[BackendSpec, ...]]:
        return [event.backends for event in self.told if isinstance(event, BackendsChanged)]


@dataclass
class Source:
    """Finds what the test says."""

    source: str = "dns+http://x"
    found: Found | None = None
    looks: int = 0

    async def run(self, found: Found) -> None:
        self.found = found
        await asyncio.Event().wait()

    def look_again(self) -> None:
        self.looks += 1

    async def finds(self, *endpoints: Endpoint) -> None:
        assert self.found is not None
        await self.found(endpoints)


@dataclass
class Rig:
    backends: Backends
    told: Told
    source: Source
    metrics: Metrics

    async def finds(self, *urls: str) -> None:
        await self.source.finds(*map(Endpoint, urls))


@asynccontextmanager
async def rig(fixed: Sequence[str] = (), *, leads: bool = True) -> AsyncIterator[Rig]:
    config = Config(backends=(), backend=BackendSettings(models_interval_s=3600))
    metrics = Metrics(CollectorRegistry())
    backends = Backends(config, metrics, Hints(), [Endpoint(url) for url in fixed])
    told = Told(Policy(PolicySettings(AdmissionSettings()), tuple(fixed)), leads)
    source = Source()
    nobody = httpx.MockTransport(lambda _: httpx.Response(404))
    async with httpx.AsyncClient(transport=nobody) as client:
        await backends.open(told, client, [source])
        await asyncio.sleep(0)
        try:
            yield Rig(backends, told, source, metrics)
        finally:
            await backends.close()
    assert backends.tasks == 0


async def test_one_that_is_given_is_not_told_again() -> None:
    """The policy was made with it."""
    async with rig((A,)) as at:
        at.backends.reconcile()
        assert at.told.changes == []


async def test_what_is_found_is_told() -> None:
    """All of them each time, in the order in which they came."""
    async with rig() as at:
        await at.finds(A)
        await at.finds(B, A)
        await at.finds(B)
        await at.finds()
        assert [[spec.name for spec in change] for change in at.told.changes] == [[A], [A, B], [B], []]
        assert len(at.backends) == 0


async def test_whoever_does_not_lead_only_knows() -> None:
    """And tells it when it has come to lead."""
    async with rig(leads=False) as at:
        await at.finds(A)
        assert at.backends.get(A) is not None
        assert at.told.told == []
        at.told.leads = True
        at.backends.reconcile()
        assert [spec.name for spec in at.told.changes[-1]] == [A]


async def test_models_are_told_where_there_is_a_choice() -> None:
    """One by itself is asked for anything."""
    async with rig() as at:
        await at.finds(A)
        at.backends.get(A).models = frozenset(("m", "l"))  # type: ignore[union-attr]
        at.backends.reconcile()
        assert at.told.changes[-1] == (BackendSpec(A),)
        await at.finds(A, B)
        assert at.told.changes[-1] == (BackendSpec(A, ("l", "m")), BackendSpec(B))
        assert (at.backends.served("m"), at.backends.served("x"), at.backends.served(None)) == (
            "m",
            None,
            None,
        )


async def test_a_drain_is_kept_by_the_policy() -> None:
    """Whoever orders it, and whatever is found after it."""
    async with rig((A, B), leads=False) as at:
        at.backends.drain(A, is_draining=True)
        assert at.told.policy.backends[A].is_draining
        at.told.leads = True
        await at.finds(C)
        drained = {spec.name for spec in at.told.changes[-1] if spec.is_draining}
        assert drained == {A}
        at.backends.drain(A, is_draining=False)
        at.backends.reconcile()
        assert not at.told.policy.backends[A].is_draining


async def test_one_that_is_about_to_go_is_drained() -> None:
    """Its pod is being ended."""
    async with rig((A,)) as at:
        await at.source.finds(Endpoint(B))
        await at.source.finds(Endpoint(B, is_terminating=True))
        assert at.told.changes[-1] == (BackendSpec(A), BackendSpec(B, is_draining=True))


async def test_one_that_is_gone_ends_its_answers() -> None:
    """Its connections are closed after the last; the others know nothing of it from the start."""
    async with rig() as at:
        await at.finds(A)
        gone = at.backends.get(A)
        assert gone is not None
        gone.upstream.open_answers = 1
        gone.upstream._is_idle.clear()
        before = at.backends.tasks
        await at.finds(B)
        await asyncio.sleep(0.01)
        assert at.backends.get(A) is None
        assert at.backends.tasks == before + 1  # as many that look after one, and the one that waits
        gone.upstream._answer_closed(is_given_up=False)
        await asyncio.sleep(0.01)
        assert at.backends.tasks == before


async def test_metrics_of_those_that_are_gone_go() -> None:
    """Pods come and go for years."""
    async with rig() as at:
        for number in range(20):
            await at.finds(f"http://10.0.0.{number}:1")
        at.metrics.keep_backends({"http://10.0.0.19:1"})
        page = at.metrics.render()[1].decode()
        assert "http://10.0.0.19:1" in page
        assert "http://10.0.0.18:1" not in page
        assert "http://10.0.0.1:1" not in page


@pytest.mark.parametrize(
    ("reachable", "model", "goes_to"),
    [
        ({"2": True, "3": True, "4": True}, None, A),
        ({"2": False, "3": True, "4": True}, None, B),
        ({"2": True, "3": True, "4": True}, "m", C),
        ({"2": True, "3": False, "4": False}, "m", A),
        ({"2": False, "3": False, "4": False}, "m", A),
    ],
)
async def test_where_a_request_of_no_session_goes(
    reachable: dict[str, bool], model: str | None, goes_to: str
) -> None:
    """To one that answers and serves it, where least is under way; else to one that says that it does not."""
    async with rig((A, B, C)) as at:
        for each in at.backends:
            each.is_reachable = reachable[each.name[-3]]
            each.models = frozenset("x") if each.name == A else frozenset("m")
        at.backends.get(B).upstream.open_answers = 3  # type: ignore[union-attr]
        chosen = at.backends.for_untracked(model)
        assert chosen is not None
        assert chosen.name == goes_to
        at.backends.get(B).upstream.open_answers = 0  # type: ignore[union-attr]


async def test_a_look_is_asked_of_every_source() -> None:
    """By a turn that was sent to a backend that is not found here."""
    async with rig() as at:
        at.backends.look_again()
        assert at.source.looks == 1
