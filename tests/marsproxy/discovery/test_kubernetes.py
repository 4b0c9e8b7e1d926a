"""EndpointSlices, listed and watched at an API server that speaks the protocol."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from marsproxy.core.settings import ConfigError
from marsproxy.discovery.kubernetes import KubernetesDiscovery, cluster_of
from marsproxy.discovery.source import read_source
from tests.marsproxy.discovery.kubernetes_api import KubernetesApi, kubernetes_api, pod, slice_of
from tests.marsproxy.discovery.listener import Listener, running


@asynccontextmanager
async def watched(account: Path) -> AsyncIterator[tuple[KubernetesApi, Listener]]:
    async with kubernetes_api() as api:
        (account / "token").write_text(api.token + "\n")
        api.apply(slice_of("one", pod("10.0.0.1")))
        listener = Listener()
        cluster = cluster_of(api.url, account)
        discovery = KubernetesDiscovery(read_source("k8s+http://vllm.prod"), cluster, listener)
        async with running(discovery, listener):
            await listener.until(lambda: bool(api.watches))
            assert listener.names == ["http://10.0.0.1:8000"]
            yield api, listener


async def test_changes_come_as_they_are_made(tmp_path: Path) -> None:
    """Pods that come, go, or are about to go; with one list and one watch."""
    async with watched(tmp_path) as (api, listener):
        api.apply(slice_of("one", pod("10.0.0.1"), pod("10.0.0.2")))
        await listener.until(lambda: len(listener.names) == 2)
        api.apply(slice_of("two", pod("10.0.0.3")))
        await listener.until(lambda: len(listener.names) == 3)
        api.apply(slice_of("one", pod("10.0.0.1", ready=False, serving=True, terminating=True)))
        await listener.until(lambda: len(listener.names) == 2)
        assert [each.is_terminating for each in listener.told[-1]] == [True, False]
        api.delete("one")
        await listener.until(lambda: listener.names == ["http://10.0.0.3:8000"])
        api.delete("two")
        await listener.until(lambda: listener.names == [])
        assert (api.lists, len(api.watches)) == (1, 1)


async def test_a_watch_that_ends_goes_on_where_it_was(tmp_path: Path) -> None:
    """From the version of the last change, or of a bookmark."""
    async with watched(tmp_path) as (api, listener):
        api.apply(slice_of("two", pod("10.0.0.2")))
        await listener.until(lambda: len(listener.names) == 2)
        api.bookmark()
        version = api.version
        await listener.until(lambda: api.told == version)
        api.end_watches()
        api.apply(slice_of("three", pod("10.0.0.3")))
        await listener.until(lambda: len(listener.names) == 3)
        assert api.lists == 1
        assert int(api.watches[-1]) == version


async def test_a_version_that_is_too_old(tmp_path: Path) -> None:
    """Then all is listed anew."""
    async with watched(tmp_path) as (api, listener):
        api.end_watches()
        api.slices["one"] = slice_of("one", pod("10.0.0.9"))
        api.version += 10
        api.compact()
        await listener.until(lambda: listener.names == ["http://10.0.0.9:8000"])
        assert api.lists == 2


@pytest.mark.slow
async def test_a_token_that_was_replaced(tmp_path: Path) -> None:
    """Is read again; until then, what was found stays."""
    async with watched(tmp_path) as (api, listener):
        api.token = "second"
        api.end_watches()
        await listener.until(lambda: api.refused > 0)
        assert listener.names == ["http://10.0.0.1:8000"]
        (tmp_path / "token").write_text(api.token)
        api.apply(slice_of("one", pod("10.0.0.2")))
        await listener.until(lambda: listener.names == ["http://10.0.0.2:8000"])
        assert None in listener.looks


@pytest.mark.slow
async def test_an_api_that_fails(tmp_path: Path) -> None:
    """Changes nothing, and is asked again."""
    async with watched(tmp_path) as (api, listener):
        api.fails_with = 500
        api.end_watches()
        await listener.until(lambda: None in listener.looks)
        assert listener.names == ["http://10.0.0.1:8000"]
        api.fails_with = None
        api.delete("one")
        await listener.until(lambda: listener.names == [])


def test_the_cluster_around_it(tmp_path: Path) -> None:
    """As Kubernetes tells its pods."""
    environment = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert cluster_of(None, tmp_path, environment).url == "https://10.96.0.1:443"
    assert cluster_of(None, tmp_path, environment | {"KUBERNETES_SERVICE_HOST": "fd00::1"}).url == (
        "https://[fd00::1]:443"
    )
    assert cluster_of(None, tmp_path, environment).headers() == {}


def test_no_cluster_around_it(tmp_path: Path) -> None:
    """Is said at the start, by the setting that helps."""
    with pytest.raises(ConfigError, match=r"discovery\.kubernetes_url"):
        cluster_of(None, tmp_path, {})
