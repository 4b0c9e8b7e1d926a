"""Several backends that are real processes, behind one proxy: killed, started anew, drained, found by DNS."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from marsproxy.children import Child
from marsproxy.config import Backend, Discovery
from marsproxy.core.settings import AdmissionSettings
from tests.integration.running import RunningProxy, ask, chat, client_of, running_proxy
from tests.marsproxy.discovery.dns_server import NAME, name_server

pytestmark = pytest.mark.slow

QUICK = Backend(telemetry_interval_s=0.2, models_interval_s=0.2, breaker_open_s=0.5, breaker_max_open_s=1.0)
FRESH = AdmissionSettings(telemetry_stale_s=2.0)
LONG = {"stream": True, "max_tokens": 2000, "ignore_eos": True}


class Engine:
    """The embedded engine in a process of its own, on the same port each time."""

    def __init__(self, *options: str) -> None:
        self._options = options
        self.url = ""
        self._child: Child | None = None

    async def start(self) -> None:
        port = self.url.rpartition(":")[2] or "0"
        self._child = Child("loadgen", "engine", "--port", port, *self._options)
        self.url = await self._child.start()

    def kill(self) -> None:
        """As ``kill -9`` does."""
        assert self._child is not None
        assert self._child._process is not None
        self._child._process.kill()

    async def stop(self) -> None:
        if self._child is not None:
            await self._child.stop()


@asynccontextmanager
async def engines(*options: tuple[str, ...]) -> AsyncIterator[list[Engine]]:
    async with AsyncExitStack() as stack:
        found = [Engine(*each) for each in options]
        for engine in found:
            stack.push_async_callback(engine.stop)
        async with asyncio.TaskGroup() as group:
            for engine in found:
                group.create_task(engine.start())
        yield found


@dataclass
class World:
    engines: list[Engine]
    proxy: RunningProxy
    client: httpx.AsyncClient

    def by_name(self, name: str) -> Engine:
        return next(engine for engine in self.engines if engine.url == name)

    async def home_of(self, answer_headers: httpx.Headers) -> str:
        session = self.proxy.proxy.dispatcher.policy.sessions.get(answer_headers["x-mars-session"])
        assert session is not None
        assert session.backend is not None
        return session.backend

    async def until_reachable(self, name: str, *, is_it: bool) -> None:
        backends = self.proxy.proxy.dispatcher.policy.backends
        await self.proxy.until(lambda: backends[name].is_reachable is is_it)


@asynccontextmanager
async def world(*options: tuple[str, ...], **sections: Any) -> AsyncIterator[World]:
    sections = {"backend": QUICK, "admission": FRESH} | sections
    async with (
        engines(*options) as found,
        running_proxy(*(engine.url for engine in found), **sections) as proxy,
        client_of(proxy.url, timeout=60.0) as client,
    ):
        yield World(found, proxy, client)


THREE = (("--speed", "20", "--served-model-name", "m"),) * 3
SLOW_THREE = (("--speed", "0.1", "--served-model-name", "m"),) * 3
"""Their prefill of a long prompt takes seconds: a turn is killed before its answer has begun."""
LONG_PROMPT = "word " * 10_000


def session_of(number: int, text: str = "", **fields: Any) -> dict[str, Any]:
    return chat(f"task {number} {text}", session_id=f"agent-{number}", **fields)


async def ask_session(client: httpx.AsyncClient, number: int, **fields: Any) -> Any:
    return await ask(client, "POST", "/v1/chat/completions", json=session_of(number, **fields))


async def test_a_backend_is_killed_while_nothing_of_its_answers_has_begun() -> None:
    """Each of its turns is answered by another, and nobody sees that it was there."""
    async with world(*SLOW_THREE) as at:
        asking = [
            asyncio.get_running_loop().create_task(
                ask_session(at.client, number, text=LONG_PROMPT, max_tokens=1, stream=number % 2 == 0)
            )
            for number in range(6)
        ]
        dispatcher = at.proxy.proxy.dispatcher
        await at.proxy.until(lambda: dispatcher.policy.open_turns == 6 and not dispatcher.policy.held)
        victim = max(at.proxy.proxy.backends, key=lambda backend: backend.upstream.open_answers)
        under_way = victim.upstream.open_answers
        at.by_name(victim.name).kill()
        seen = [await task for task in asking]
        assert under_way > 0
        assert [(each.status, each.is_whole) for each in seen] == [(200, True)] * 6
        page = (await at.client.get("/metrics")).text
        assert f'mars_backend_bounces_total{{backend="{victim.name}"}} {float(under_way)}' in page
        await at.until_reachable(victim.name, is_it=False)
        await at.proxy.until_nothing_is_left()


async def test_a_backend_is_killed_in_the_middle_of_its_answers() -> None:
    """Those that had begun are cut; the sessions go on elsewhere, and it is used again once it is back."""
    async with world(*THREE) as at:
        streams = [
            asyncio.get_running_loop().create_task(ask_session(at.client, number, **LONG))
            for number in range(6)
        ]
        policy = at.proxy.proxy.dispatcher.policy
        await at.proxy.until(lambda: policy.open_turns == 6 and not policy.held)
        await asyncio.sleep(0.3)
        victim = max(at.proxy.proxy.backends, key=lambda backend: backend.upstream.open_answers)
        at.by_name(victim.name).kill()
        seen = [await stream for stream in streams]
        homes = [policy.sessions.get(each.headers["x-mars-session"]).backend for each in seen]  # type: ignore[union-attr]
        cut = [each for each in seen if not each.is_whole]
        assert [each.status for each in seen] == [200] * 6
        assert len(cut) == homes.count(victim.name) > 0
        await at.until_reachable(victim.name, is_it=False)
        again = [await ask_session(at.client, number) for number in range(6)]
        assert [(each.status, each.is_whole) for each in again] == [(200, True)] * 6
        await at.by_name(victim.name).start()
        await at.until_reachable(victim.name, is_it=True)
        await asyncio.gather(*(ask_session(at.client, 100 + number) for number in range(12)))
        assert at.proxy.proxy.backends.get(victim.name).breaker.can_take()  # type: ignore[union-attr]
        await at.proxy.until_nothing_is_left()


async def test_a_drained_backend_takes_no_new_session() -> None:
    """What it has goes on there; taken back into service it gets its part again."""
    async with world(*THREE[:2]) as at:
        first, second = (engine.url for engine in at.engines)
        drained = await at.client.post(f"/mars/v1/backends/{first}/drain")
        assert drained.json() == {"name": first, "draining": True, "counted_sessions": 0}
        for number in range(6):
            seen = await ask_session(at.client, number)
            assert await at.home_of(seen.headers) == second
        listed = (await at.client.get("/mars/v1/backends")).json()["backends"]
        assert {each["name"]: each["draining"] for each in listed} == {first: True, second: False}
        assert (await at.client.post(f"/mars/v1/backends/{first}/undrain")).json()["draining"] is False
        streams = [
            asyncio.get_running_loop().create_task(ask_session(at.client, 10 + number, **LONG))
            for number in range(4)
        ]
        backends = at.proxy.proxy.backends
        await at.proxy.until(lambda: all(each.upstream.open_answers for each in backends))
        for stream in streams:
            stream.cancel()
        await asyncio.wait(streams)
        assert (await at.client.post("/mars/v1/backends/http://nobody:1/drain")).status_code == 404
        await at.proxy.until_nothing_is_left()


async def test_each_backend_serves_its_own_models() -> None:
    """One list of all, and a request goes where its model is."""
    names = ("model-a", "model-b")
    async with world(*(("--speed", "20", "--served-model-name", name) for name in names)) as at:
        policy = at.proxy.proxy.dispatcher.policy
        await at.proxy.until(lambda: all(state.models for state in policy.backends.values()))
        models = (await at.client.get("/v1/models")).json()
        assert sorted(card["id"] for card in models["data"]) == list(names)
        for engine, name in zip(at.engines, names, strict=True):
            for number in range(3):
                seen = await ask_session(at.client, number, model=name)
                assert seen.status == 200
                assert await at.home_of(seen.headers) == engine.url
            card = await at.client.get(f"/v1/models/{name}")
            assert card.status_code in (200, 404)
        unknown = await ask_session(at.client, 9, model="nobody-has-it")
        assert unknown.status == 404
        assert b"nobody-has-it" in unknown.body
        await at.proxy.until_nothing_is_left()


async def test_backends_come_and_go_by_dns() -> None:
    """A proxy that has none says so; then there is one, then another, whose predecessor ends its answers."""
    async with engines(*THREE[:1]) as [engine], name_server(records={(NAME, "A"): []}) as server:
        port = engine.url.rpartition(":")[2]
        source = f"dns+http://{NAME.rstrip('.')}:{port}"
        sections: dict[str, Any] = {
            "backend": QUICK,
            "admission": FRESH,
            "discovery": Discovery(interval_s=0.2, dns_server=server.address),
        }
        async with (
            running_proxy(source, **sections) as proxy,
            client_of(proxy.url, timeout=60.0) as client,
        ):
            assert (await client.get("/readyz")).status_code == 503
            assert (await ask(client, "GET", "/v1/models")).code == "backend_unavailable"
            server.ttl_s = 0
            server.records[NAME, "A"] = ["127.0.0.1"]
            policy = proxy.proxy.dispatcher.policy
            await proxy.until(lambda: list(policy.backends) == [engine.url])
            seen = await ask_session(client, 1)
            assert seen.status == 200
            async with client.stream("POST", "/v1/chat/completions", json=session_of(2, **LONG)) as answer:
                lines = answer.aiter_lines()
                await anext(lines)
                server.records[NAME, "A"] = ["127.0.0.2"]
                await proxy.until(lambda: proxy.proxy.backends.get(engine.url) is None)
                rest = [line async for line in lines]
            assert any(line == "data: [DONE]" for line in rest)
            await proxy.until(lambda: list(policy.backends) == [f"http://127.0.0.2:{port}"])
            await proxy.until_nothing_is_left()
            page = (await client.get("/metrics")).text
            assert f'mars_discovered_backends{{source="{source}"}} 1.0' in page
