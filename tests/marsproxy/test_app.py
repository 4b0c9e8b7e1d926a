"""Which requests are the proxy's own, and what its gauges show."""

from typing import Any

import pytest

from marsproxy.app import is_own
from marsproxy.config import Config, Gateway, Secret, live_policies
from marsproxy.core.headroom import MAX_TOOL_HOSTS
from tests.integration import faulty_backend as faulty
from tests.integration.running import ask, ask_chat, client_of, running_proxy


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("/metrics", True),
        ("/healthz", True),
        ("/mars/v1/sessions", True),
        ("/mars/", True),
        ("/mars", False),
        ("/health", False),
        ("/v1/models", False),
        ("/metrics/", False),
        ("/v1/mars/x", False),
    ],
)
def test_own_paths(path: str, own: bool) -> None:
    """Everything else is the backend's."""
    assert is_own(path) is own


async def test_gauges_show_the_policys_state() -> None:
    """When somebody looks."""
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        running_proxy(backend.url) as proxy,
        client_of(proxy.url) as client,
    ):
        await ask_chat(client)
        page = (await client.get("/metrics")).text
        ready = (await client.get("/readyz")).json()
    assert 'mars_sessions{phase="idle"} 1.0' in page
    assert "mars_fallback_cap_active 1.0" in page
    assert f'mars_telemetry_fresh{{backend="{backend.url}"}} 1.0' in page
    assert f'mars_kv_tokens{{backend="{backend.url}",what="pool"}} NaN' in page
    shown = ready["backends"][backend.url]
    assert shown["headroom"].pop("age_s") >= 0
    assert shown == {
        "reachable": True,
        "kv_tokens_total": None,
        "counted_sessions": 0,
        "patch": {"state": "stock", "why": "status 404", "version": None, "vllm_version": None},
        "headroom": {"source": "metrics"},
    }


@pytest.mark.parametrize("policy", sorted(live_policies()))
async def test_every_live_policy_answers_and_is_seen(policy: str) -> None:
    """Readiness, gauges and sessions read what every policy has."""
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        running_proxy(backend.url, policy=policy) as proxy,
        client_of(proxy.url) as client,
    ):
        assert (await ask_chat(client)).status == 200
        assert (await client.get("/readyz")).json()["backends"][backend.url]["reachable"] is True
        assert f'mars_telemetry_fresh{{backend="{backend.url}"}} 1.0' in (await client.get("/metrics")).text
        assert (await client.get("/mars/v1/sessions")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 401), ({"authorization": "Bearer wrong"}, 401), ({"authorization": "Bearer right"}, 204)],
)
async def test_a_gateway_shows_its_token(headers: Any, status: int) -> None:
    """Where one is configured."""
    settings = Gateway(token=Secret("right"))
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        running_proxy(backend.url, gateway=settings) as proxy,
        client_of(proxy.url, headers={}) as client,
    ):
        seen = await ask(client, "POST", "/mars/v1/tools", json={"events": []}, headers=headers)
        assert seen.status == status
        assert b"right" not in seen.body


async def test_what_the_gateway_saw_reaches_the_policy() -> None:
    """Its hosts' headroom."""
    headroom = {"cores": 4.0, "running": 3, "queued": 1}
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        running_proxy(backend.url) as proxy,
        client_of(proxy.url) as client,
    ):
        assert (await client.post("/mars/v1/tools", json={"headroom": headroom})).status_code == 204
        last = proxy.proxy.dispatcher.policy.tool_hosts.last
        assert last is not None
        assert (last.cores, last.running, last.queued) == (4.0, 3, 1)
        assert "mars_tools_running 3.0" in (await client.get("/metrics")).text
        hosts = [headroom | {"host": "a"}, headroom | {"host": "b", "running": 1}]
        both = {"headroom": headroom | {"running": 100}, "hosts": hosts}
        assert (await client.post("/mars/v1/tools", json=both)).status_code == 204
        assert "mars_tools_running 4.0" in (await client.get("/metrics")).text
        many = [{"host": str(number)} for number in range(MAX_TOOL_HOSTS + 1)]
        refused = await client.post("/mars/v1/tools", json={"hosts": many})
        assert (refused.status_code, "hosts: at most" in refused.text) == (400, True)
    assert Config().gateway.token is None
