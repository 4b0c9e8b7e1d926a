"""Backends by Kubernetes: the EndpointSlices of a Service, listed once and then watched.

Speaks the API's own list-and-watch: a list has a version, a watch tells what changed since; when the version
is too old (410) or the watch breaks off, it lists anew. The service account's token is read for each request,
because Kubernetes replaces it about every hour. What the cluster says is believed, an empty list too: it
knows which pods there are.
"""

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import random

import httpx
import msgspec

from marsproxy.core.settings import ConfigError
from marsproxy.discovery.endpoint import DiscoveryEvents, Found
from marsproxy.discovery.endpoint_slices import EndpointSlice, endpoints_in
from marsproxy.discovery.source import Source
from marsproxy.errors import public_name

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 10.0
"""For a list, or for a watch to begin."""
WATCH_S = 300
"""After which a watch is begun anew: what no longer arrives is noticed then (client-go takes 5 to 10 min)."""
RETRY_S = (1.0, 30.0)
"""First and longest pause after a failure; it doubles; chance halves it at most (client-go: 0.8 to 30 s)."""


class WatchFailed(Exception):
    """The API did not answer as it should."""


class _Metadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _List(msgspec.Struct):
    metadata: _Metadata
    items: list[EndpointSlice] | None = None


class _Change(msgspec.Struct):
    type: str
    object: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where its API is, and how to be let in."""

    url: str
    token_file: Path
    ca_file: Path | None

    def headers(self) -> dict[str, str]:
        """
        Raises:
            OSError: the token cannot be read.
        """
        if not self.token_file.exists():
            return {}
        return {"authorization": f"Bearer {self.token_file.read_text('ascii').strip()}"}

    def client(self) -> httpx.AsyncClient:
        context = ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
        return httpx.AsyncClient(base_url=self.url, verify=context, timeout=ANSWER_TIMEOUT_S, trust_env=False)


def cluster_of(url: str | None, account: Path, environment: Mapping[str, str] | None = None) -> Cluster:
    """
    Args:
        url: None is the cluster in which this runs.
        account: directory of the service account.

    Raises:
        ConfigError: this does not run in a cluster.
    """
    ca_file = account / "ca.crt"
    if url is None:
        environment = os.environ if environment is None else environment
        host, port = (environment.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
        if not host:
            raise ConfigError(
                "discovery.kubernetes_url: not in a cluster (KUBERNETES_SERVICE_HOST is not set); "
                "allowed: the base URL of its API, e.g. that of kubectl proxy"
            )
        url = f"https://[{host}]:{port or 443}" if ":" in host else f"https://{host}:{port or 443}"
    return Cluster(url.rstrip("/"), account / "token", ca_file if ca_file.exists() else None)


class KubernetesDiscovery:
    def __init__(self, source: Source, cluster: Cluster, events: DiscoveryEvents) -> None:
        self.source = public_name(source.url)
        self._source = source
        self._cluster = cluster
        self._events = events
        self._slices: dict[str, EndpointSlice] = {}
        self._is_failing = False

    def look_again(self) -> None:
        """It is told of every change as it is."""

    async def run(self, found: Found) -> None:
        pause_s = RETRY_S[0]
        async with self._cluster.client() as client:
            while True:
                try:
                    version = await self._list(client)
                    await self._tell(found)
                    pause_s = RETRY_S[0]
                    await self._watch_on(client, version, found)
                    await _pause(RETRY_S[0])
                except (WatchFailed, OSError) as exc:
                    self._failed(str(exc))
                    await _pause(pause_s)
                    pause_s = min(pause_s * 2, RETRY_S[1])

    async def _tell(self, found: Found) -> None:
        endpoints = endpoints_in(self._slices.values(), self._source)
        self._events.looked(self.source, len(endpoints))
        if self._is_failing:
            self._is_failing = False
            log.info("%s: found again", self.source)
        await found(endpoints)

    async def _list(self, client: httpx.AsyncClient) -> str:
        """All slices. Returns the version from which to watch."""
        async with self._asked(client, {}) as answer:
            body = await answer.aread()
        try:
            listed = msgspec.json.decode(body, type=_List)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise WatchFailed("a list that cannot be read") from exc
        self._slices = {each.metadata.name: each for each in listed.items or ()}
        return listed.metadata.resource_version

    async def _watch_on(self, client: httpx.AsyncClient, version: str, found: Found) -> None:
        """Until the version is too old."""
        while True:
            try:
                async with aclosing(self._changes(client, version)) as changes:
                    async for change in changes:
                        if change.type == "ERROR":
                            return
                        version = await self._take(change, found) or version
            except msgspec.MsgspecError as exc:
                raise WatchFailed("a change that cannot be read") from exc
            await _pause(RETRY_S[0])  # nothing is lost: the next watch begins at the same version

    async def _take(self, change: _Change, found: Found) -> str:
        """Returns the version of the change."""
        seen = msgspec.json.decode(change.object, type=EndpointSlice)
        if change.type in ("ADDED", "MODIFIED"):
            self._slices[seen.metadata.name] = seen
        elif change.type == "DELETED":
            self._slices.pop(seen.metadata.name, None)
        if change.type != "BOOKMARK":
            await self._tell(found)
        return seen.metadata.resource_version

    async def _changes(self, client: httpx.AsyncClient, version: str) -> AsyncGenerator[_Change]:
        """One a line, until the API ends the watch."""
        asking = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_S),
        }
        async with self._asked(client, asking) as answer:
            if answer.status_code == httpx.codes.GONE:
                yield _Change("ERROR", msgspec.Raw(b"null"))
                return
            async for line in answer.aiter_lines():
                if line:
                    yield msgspec.json.decode(line, type=_Change)

    @asynccontextmanager
    async def _asked(
        self, client: httpx.AsyncClient, asking: dict[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """
        Raises:
            WatchFailed: no answer, or one that says no.
        """
        name, namespace = self._source.service
        silence_s = WATCH_S + ANSWER_TIMEOUT_S if asking else ANSWER_TIMEOUT_S
        try:
            async with client.stream(
                "GET",
                f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
                params={"labelSelector": f"kubernetes.io/service-name={name}", **asking},
                headers=self._cluster.headers(),
                timeout=httpx.Timeout(ANSWER_TIMEOUT_S, read=silence_s),
            ) as answer:
                if answer.status_code not in (httpx.codes.OK, httpx.codes.GONE):
                    raise WatchFailed(f"status {answer.status_code}")
                yield answer
        except httpx.HTTPError as exc:
            raise WatchFailed(type(exc).__name__) from exc

    def _failed(self, why: str) -> None:
        self._events.looked(self.source, None)
        if not self._is_failing:
            self._is_failing = True
            log.warning("%s: cannot be found (%s); those that were found before stay", self.source, why)


async def _pause(seconds: float) -> None:
    await asyncio.sleep(seconds * (0.5 + random() / 2))
