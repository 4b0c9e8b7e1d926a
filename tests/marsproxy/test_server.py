"""The parts put together: it listens, it stops, and its timer is one."""

import asyncio
import time

import httpx
import pytest

from marsproxy.config import Config, Listen
from marsproxy.server import Server, Timer
from tests.integration import faulty_backend as faulty
from tests.integration.running import ask_chat, client_of, running_proxy


async def test_it_says_where_it_listens(capsys: pytest.CaptureFixture[str]) -> None:
    """Once it does, in the words that other programs look for."""
    async with faulty.faulty_backend(faulty.answers_well) as backend, running_proxy(backend.url) as proxy:
        assert capsys.readouterr().out == f"marsproxy ready on {proxy.url}\n"
        async with client_of(proxy.url) as client:
            assert (await client.get("/healthz")).json() == {"status": "ok"}
            assert (await client.get("/readyz")).status_code == 200
            assert (await ask_chat(client)).status == 200
    with pytest.raises(httpx.ConnectError):
        async with client_of(proxy.url) as client:
            await client.get("/healthz")


async def test_a_taken_port_is_said_before_anything_starts() -> None:
    """By the system's own error."""
    async with faulty.faulty_backend(faulty.answers_well) as backend:
        port = httpx.URL(backend.url).port
        assert port is not None
        with pytest.raises(OSError, match="in use"):
            Server(Config(backends=(backend.url,), listen=Listen(port=port)), [backend.url])


async def test_telemetry_knows_no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than requests do."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with faulty.faulty_backend(faulty.answers_well) as backend, running_proxy(backend.url) as proxy:
        [state] = proxy.proxy.dispatcher.policy.backends.values()
        assert state.is_reachable


async def test_credentials_in_a_backends_url_are_not_shown() -> None:
    """Neither in errors nor in metrics."""
    url = "http://user:secret@127.0.0.1:1"
    async with running_proxy(url) as proxy, client_of(proxy.url) as client:
        seen = await ask_chat(client)
        page = (await client.get("/metrics")).text + (await client.get("/readyz")).text
        assert seen.status == 502
        assert b"http://127.0.0.1:1" in seen.body
        assert "secret" not in page + seen.body.decode()


async def test_a_timer_fires_once_and_is_replaced() -> None:
    """By the latest that was set; one that is due fires at once."""
    timer, fired = Timer(time.monotonic), []
    timer.set(time.monotonic() + 3600, lambda: fired.append("first"))
    timer.set(time.monotonic() - 1, lambda: fired.append("second"))
    await asyncio.sleep(0.02)
    timer.set(time.monotonic() + 0.01, lambda: fired.append("third"))
    timer.cancel()
    timer.cancel()
    await asyncio.sleep(0.03)
    assert fired == ["second"]
