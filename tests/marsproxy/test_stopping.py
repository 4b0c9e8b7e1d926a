"""A stop in steps, inside the test's loop: who is told what, and what goes on."""

import asyncio

import httpx
import pytest

from marsproxy.config import Hold, Stop
from marsproxy.core.settings import AdmissionSettings
from marsproxy.stopping import Step
from tests.integration import faulty_backend as faulty
from tests.integration.faulty_backend import Exchange
from tests.integration.running import HANG_S, ask, ask_chat, chat, client_of, running_proxy

ONE_PLACE = AdmissionSettings(fallback_concurrency=1, idle_gap_s=0.0)


class Gate:
    """A backend's behaviour: the first request is answered when the test says so, all others at once."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.number == 1:
            await self.opened.wait()
        await faulty.answers_well(exchange)


async def test_while_leaving_everything_is_served_and_says_so() -> None:
    """``/readyz`` is 503 for who balances load; each answer says that its connection closes."""
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        running_proxy(backend.url, stop=Stop(pause_s=HANG_S)) as proxy,
        client_of(proxy.url) as client,
    ):
        before = await ask_chat(client)
        proxy.server.stop()
        await proxy.until(proxy.server.is_leaving)
        ready = await client.get("/readyz")
        during = await ask_chat(client, stream=True)
        proxy.server.stop_now()
    assert (ready.status_code, ready.json()["status"]) == (503, "stopping")
    assert (before.status, before.headers.get("connection")) == (200, None)
    assert (during.status, during.headers["connection"], during.is_whole) == (200, "close", True)


async def test_turns_in_flight_finish_after_the_port_is_closed() -> None:
    gate = Gate()
    async with faulty.faulty_backend(gate) as backend:
        async with (
            running_proxy(backend.url) as proxy,
            client_of(proxy.url) as client,
            asyncio.TaskGroup() as tasks,
        ):
            asking = tasks.create_task(ask_chat(client))
            await proxy.until(lambda: len(backend.requests) == 1)
            proxy.server.stop()
            await proxy.until(lambda: proxy.server.step is Step.FINISHING)
            with pytest.raises(httpx.ConnectError):
                await _once(proxy.url)
            assert not asking.done()
            gate.opened.set()
        answer = asking.result()
        assert (answer.status, answer.is_whole) == (200, True)


@pytest.mark.parametrize("is_streaming", [False, True])
async def test_who_is_held_is_told_to_come_again(is_streaming: bool) -> None:
    """With a status and Retry-After; with an event where comments have opened the stream."""
    gate = Gate()
    hold = Hold(sse_comment_interval_s=0.05)
    async with (
        faulty.faulty_backend(gate) as backend,
        running_proxy(backend.url, admission=ONE_PLACE, hold=hold) as proxy,
        client_of(proxy.url) as client,
        asyncio.TaskGroup() as tasks,
    ):
        first = tasks.create_task(ask_chat(client))
        await proxy.until(lambda: len(backend.requests) == 1)
        request = chat("another", stream=is_streaming)
        waiting = tasks.create_task(ask(client, "POST", "/v1/chat/completions", json=request))
        await proxy.until(lambda: len(proxy.proxy.dispatcher.policy.held) == 1)
        if is_streaming:
            await asyncio.sleep(0.2)  # comments have gone out
        proxy.server.stop()
        sent_away = await waiting
        gate.opened.set()
        assert (await first).status == 200
    if is_streaming:
        assert sent_away.status == 200
        assert b'"code":"stopping"' in sent_away.body
        assert b"[DONE]" not in sent_away.body
    else:
        assert (sent_away.status, sent_away.code) == (503, "stopping")
        assert sent_away.headers["retry-after"] == "1"
    assert proxy.leftovers().keys() <= {"tasks"}


async def test_told_twice_it_goes_at_once() -> None:
    """What is in flight is cut, so that nobody takes the part for the whole."""
    gate = Gate()
    async with faulty.faulty_backend(gate) as backend:
        async with (
            running_proxy(backend.url) as proxy,
            client_of(proxy.url) as client,
            asyncio.TaskGroup() as tasks,
        ):
            asking = tasks.create_task(_failure_of(client))
            await proxy.until(lambda: len(backend.requests) == 1)
            proxy.server.handle_exit(15, None)
            await proxy.until(lambda: proxy.server.step is Step.FINISHING)
            assert not asking.done()
            proxy.server.handle_exit(15, None)
        assert isinstance(asking.result(), httpx.RemoteProtocolError)
        assert backend.lost == 1


async def test_the_grace_has_an_end() -> None:
    gate = Gate()
    async with faulty.faulty_backend(gate) as backend:
        async with (
            running_proxy(backend.url, stop=Stop(grace_s=0.1)) as proxy,
            client_of(proxy.url) as client,
            asyncio.TaskGroup() as tasks,
        ):
            asking = tasks.create_task(_failure_of(client))
            await proxy.until(lambda: len(backend.requests) == 1)
            proxy.server.stop()
        assert isinstance(asking.result(), httpx.RemoteProtocolError)


async def _once(url: str) -> None:
    async with client_of(url) as client:
        await client.get("/healthz")


async def _failure_of(client: httpx.AsyncClient) -> Exception | None:
    try:
        await ask_chat(client)
    except httpx.HTTPError as error:
        return error
    return None
