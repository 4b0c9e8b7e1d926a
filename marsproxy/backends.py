"""All backends as this replica reaches them: which there are, and what the policy is told of it.

Owns each from the moment that it is found until its last answer is over. What the policy believes is part of
the shared state and the same in all replicas; the one that leads proposes a change of it whenever what it
finds here differs. So a drain, which anybody may order at any replica, is kept there and not here.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import httpx

from marsproxy.backend import Backend, Listeners
from marsproxy.config import Config
from marsproxy.core.events import BackendsChanged, BackendSpec, Event
from marsproxy.core.scheduling import SchedulingPolicy
from marsproxy.discovery.endpoint import MAX_ENDPOINTS, Discovery, Endpoint
from marsproxy.hints import Hints
from marsproxy.journal import Journal
from marsproxy.metrics import Metrics
from marsproxy.tasks import TaskOwner

log = logging.getLogger(__name__)

RECONCILE_S = 1.0
"""Between two comparisons of what is found with what the policy believes, for whoever has just begun to lead:
telemetry is as old. Changes that are found here are told at once."""


class Told(Protocol):
    """Whom the policy's part of it goes through: the dispatcher."""

    @property
    def journal(self) -> Journal: ...
    @property
    def policy(self) -> SchedulingPolicy: ...

    def tell(self, event: Event) -> None: ...


class Backends:
    """
    Args:
        fixed: those that need not be found.
    """

    def __init__(self, config: Config, metrics: Metrics, hints: Hints, fixed: Sequence[Endpoint]) -> None:
        self._config = config
        self._metrics = metrics
        self._hints = hints
        self._known: dict[str, Backend] = {}
        self._retiring: set[Backend] = set()
        """Gone, with answers under way."""
        self._found: dict[str, Sequence[Endpoint]] = {"": tuple(fixed)}
        """By source."""
        self._discoveries: Sequence[Discovery] = ()
        self._tasks = TaskOwner()
        self._told: Told
        self._client: httpx.AsyncClient | None = None
        for endpoint in fixed:
            self._known[endpoint.name] = self._made(endpoint)

    def __iter__(self) -> Iterator[Backend]:
        return iter(self._known.values())

    def __len__(self) -> int:
        return len(self._known)

    def get(self, name: str) -> Backend | None:
        """None if it was not found here (yet), or is gone."""
        return self._known.get(name)

    # -- for requests -----------------------------------------------------------------------------

    def has_other(self, name: str) -> bool:
        """Whether there is any but this."""
        return any(other != name for other in self._known)

    def other_can_take(self, name: str, model: str | None) -> bool:
        return any(each.name != name and each.can_take(model) for each in self._known.values())

    def served(self, model: str | None) -> str | None:
        """The model, if any backend names it. What nobody names may be anything that a client wrote."""
        is_named = any(each.models is not None and model in each.models for each in self._known.values())
        return model if is_named else None

    def for_untracked(self, model: str | None, *, but: str | None = None) -> Backend | None:
        """Where a request goes that belongs to no session. One that names a model goes where fewest answers
        are under way, of those that serve it and answer; any other to the first that answers, so that what
        was begun at one is found there again. Where none answers, the first says so. None if there is
        none."""
        others = [each for each in self._known.values() if each.name != but]
        usable = [each for each in others if each.can_take(model)]
        if usable and model is not None:
            return min(usable, key=lambda each: each.upstream.open_answers)
        return next(iter(usable or others), None)

    def look_again(self) -> None:
        """The policy knows of one that was not found here."""
        for discovery in self._discoveries:
            discovery.look_again()

    # -- life -------------------------------------------------------------------------------------

    async def open(self, told: Told, client: httpx.AsyncClient, discoveries: Sequence[Discovery]) -> None:
        self._told, self._client, self._discoveries = told, client, discoveries
        for backend in self._known.values():
            await backend.open(client, self._tasks, self._listeners())
        for discovery in discoveries:
            self._tasks.spawn(
                f"find-{discovery.source}", discovery.run(partial(self._were_found, discovery.source))
            )
        self._tasks.spawn("backends", self._reconcile_forever())

    async def close(self) -> None:
        await self._tasks.close()
        for backend in (*self._known.values(), *self._retiring):
            await backend.close()

    @property
    def tasks(self) -> int:
        return len(self._tasks)

    def _listeners(self) -> Listeners:
        told = self._told
        return Listeners(
            knows=lambda session_id: told.policy.sessions.get(session_id) is not None,
            tell=told.tell,
            tell_reading=self._tell_reading,
            changed=self.reconcile,
            has_others=lambda: len(self._known) > 1,
        )

    def _tell_reading(self, backend: str, event: Event) -> None:
        """Every replica has it; one tells it, once the policy knows the backend."""
        if self._told.journal.leads and backend in self._told.policy.backends:
            self._told.tell(event)

    # -- which there are --------------------------------------------------------------------------

    async def _were_found(self, source: str, endpoints: Sequence[Endpoint]) -> None:
        self._found[source] = endpoints
        wanted = self._endpoints()
        assert self._client is not None, "discovery runs between open() and close()"
        for name in [name for name in self._known if name not in wanted]:
            self._retire(self._known.pop(name))
        for name, endpoint in wanted.items():
            if name in self._known:
                self._known[name].endpoint = endpoint
            else:
                log.info("backend %s was found", name)
                self._known[name] = self._made(endpoint)
                await self._known[name].open(self._client, self._tasks, self._listeners())
        self.reconcile()

    def _endpoints(self) -> dict[str, Endpoint]:
        """Of all sources, each name once."""
        found = {each.name: each for endpoints in self._found.values() for each in endpoints}
        return dict(list(found.items())[:MAX_ENDPOINTS])

    def _made(self, endpoint: Endpoint) -> Backend:
        backend = Backend(endpoint, self._config, self._metrics.backend(endpoint.name))
        self._hints.add(backend.hints)
        return backend

    def _retire(self, backend: Backend) -> None:
        """It is gone; answers that are under way go on."""
        log.info("backend %s is gone", backend.name)
        backend.stop_tasks()
        self._hints.remove(backend.name)
        self._retiring.add(backend)
        self._tasks.spawn(f"retire-{backend.name}", self._close_when_idle(backend))

    async def _close_when_idle(self, backend: Backend) -> None:
        await backend.upstream.until_idle()
        await backend.close()
        self._retiring.discard(backend)

    # -- what the policy is told ------------------------------------------------------------------

    def is_believed(self, name: str) -> bool:
        """Whether the policy has it among those that may be used."""
        state = self._told.policy.backends.get(name)
        return state is not None and not state.has_left

    def drain(self, name: str, *, is_draining: bool) -> None:
        """Of one that the policy knows. Any replica may order it."""
        specs = {spec.name: spec for spec in self._believed()}
        specs[name] = replace(specs[name], is_draining=is_draining)
        self._told.tell(BackendsChanged(tuple(specs.values())))

    def reconcile(self) -> None:
        """Tell the policy what there is, if it believes something else and this replica is the one to
        tell."""
        if self._told.journal.leads:
            wanted = self._wanted()
            if {spec.name: spec for spec in wanted} != {spec.name: spec for spec in self._believed()}:
                self._told.tell(BackendsChanged(wanted))

    async def _reconcile_forever(self) -> None:
        while True:
            self.reconcile()
            self._metrics.keep_backends(self._known.keys() | self._told.policy.backends.keys())
            await asyncio.sleep(RECONCILE_S)

    def _wanted(self) -> tuple[BackendSpec, ...]:
        """In the order in which they were found. One that is by itself serves whatever it is asked for."""
        draining = {spec.name for spec in self._believed() if spec.is_draining}
        is_one = len(self._known) == 1
        return tuple(
            BackendSpec(
                each.name,
                models=None if is_one else _names(each.models),
                is_draining=each.endpoint.is_terminating or each.name in draining,
            )
            for each in self._known.values()
        )

    def _believed(self) -> list[BackendSpec]:
        states = self._told.policy.backends.values()
        return [
            BackendSpec(each.name, _names(each.models), each.is_draining)
            for each in states
            if not each.has_left
        ]


def _names(models: frozenset[str] | None) -> tuple[str, ...] | None:
    return None if models is None else tuple(sorted(models))
