"""Tenants at the proxy's door: what one has is not another's, and its key goes no further."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from marsproxy.config import Admin, Backend, Secret, Tenants
from marsproxy.core.commands import Reason
from marsproxy.tenants.file import tenant_id
from tests.integration import faulty_backend as faulty
from tests.integration.raw_client import exchange, request
from tests.integration.running import RunningProxy, ask, client_of, running_engine, running_proxy
from tests.marsproxy.tenants.guests import Guests

CHAT = "/v1/chat/completions"
ADMIN = {"authorization": "Bearer the-admin-token"}
ALL_SCHEMAS = (
    (CHAT, {"model": "m", "messages": [{"role": "user", "content": "hi"}]}),
    ("/v1/completions", {"model": "m", "prompt": "hi"}),
    ("/v1/responses", {"model": "m", "input": "hi"}),
    ("/v1/messages", {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}),
)


@pytest.fixture
def guests(tmp_path: Path) -> Guests:
    return Guests(tmp_path / "tenants.toml")


@asynccontextmanager
async def proxy_for(
    guests: Guests, backend_url: str, **sections: Any
) -> AsyncIterator[tuple[RunningProxy, httpx.AsyncClient]]:
    sections = {"admin": Admin(token=Secret("the-admin-token"))} | sections
    async with (
        running_proxy(backend_url, tenants=Tenants(guests.path), **sections) as proxy,
        client_of(proxy.url, headers={}) as client,
    ):
        yield proxy, client


@asynccontextmanager
async def engine_for(
    guests: Guests, **settings: Any
) -> AsyncIterator[tuple[RunningProxy, httpx.AsyncClient]]:
    """The embedded engine behind a proxy."""
    async with (
        running_engine(served_model_name="m", **settings) as (engine, _),
        proxy_for(guests, engine) as both,
    ):
        yield both


def chat(text: str, **members: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": text}]} | members


@pytest.mark.parametrize(("path", "body"), ALL_SCHEMAS)
async def test_without_a_key_there_is_an_error_of_the_apis_own(guests: Guests, path: str, body: Any) -> None:
    """Official clients raise their AuthenticationError for it."""
    guests.write(red="")
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        proxy_for(guests, backend.url) as (proxy, client),
    ):
        for headers in ({}, {"x-api-key": "sk-somebody"}):
            seen = await client.post(path, json=body, headers=headers)
            assert (seen.status_code, seen.headers["www-authenticate"]) == (401, "Bearer")
            assert seen.headers["x-mars-reason"] == "invalid_api_key"
            error = seen.json()["error"]
            if path == "/v1/messages":
                assert (seen.json()["type"], error["type"]) == ("error", "authentication_error")
            else:
                assert (error["code"], error["type"]) == ("invalid_api_key", "invalid_request_error")
        assert (await client.post(path, json=body, headers=guests.bearer("red"))).status_code == 200
        assert "mars_not_admitted_total 2.0" in (await client.get("/metrics")).text
        assert proxy.proxy.dispatcher.policy.open_turns == 0


async def test_a_strangers_body_is_not_waited_for(guests: Guests) -> None:
    """It announces a gigabyte, for which a tenant would get 413, and sends none of it."""
    guests.write(red="")
    announced = "content-length: 1073741824"
    key = f"authorization: {guests.bearer('red')['authorization']}"
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        proxy_for(guests, backend.url) as (proxy, _),
    ):
        refused = await exchange(proxy.url, request(f"POST {CHAT}", announced))
        assert (refused.status, dict(refused.headers)[b"connection"]) == (401, b"close")
        assert (await exchange(proxy.url, request(f"POST {CHAT}", announced, key))).status == 413
        await proxy.until_nothing_is_left()


async def test_what_goes_to_the_backend_is_in_the_proxys_name(guests: Guests) -> None:
    """No key, no priority and no session id of the client's; with a key for the backend, that one."""
    guests.write(red="")
    own = {"x-vllm-priority": "-999", "x-session-id": "somebody-elses", "x-mars-session": "mine"}
    async with faulty.faulty_backend(faulty.answers_well) as backend:
        for settings, wanted in (
            (Backend(), None),
            (Backend(api_key=Secret("for-vllm")), b"bearer for-vllm"),
        ):
            async with proxy_for(guests, backend.url, backend=settings) as (_, client):
                headers = guests.bearer("red") | own
                answer = await client.post(CHAT, json=chat("hi", priority=-999), headers=headers)
                assert answer.status_code == 200
                await client.get("/v1/models", headers=headers)
                assert len(backend.requests) == 2
                for head in backend.requests:
                    sent = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if line)
                    assert sent.get(b"authorization") == wanted
                    assert b"x-api-key" not in sent
                    assert sent.get(b"x-session-id") != b"somebody-elses"
                    assert sent.get(b"x-vllm-priority") != b"-999"
                    assert (b"x-vllm-priority" in sent) == (CHAT.encode() in head)
            backend.requests.clear()


async def test_a_session_is_its_tenants_whatever_id_another_sends(guests: Guests) -> None:
    """The client's id, our own id of it, and the whole history: none of them opens another's session."""
    guests.write(red="", blue="")
    async with engine_for(guests) as (proxy, client):
        history = chat("the history of red")
        mine = await client.post(
            CHAT, json=history, headers=guests.bearer("red") | {"x-mars-session": "run-1"}
        )
        session_id = mine.headers["x-mars-session"]
        forged = []
        for header in ("x-mars-session", "x-session-id", "x-mars-parent-session"):
            for name in ("run-1", session_id):
                answer = await client.post(CHAT, json=history, headers=guests.bearer("blue") | {header: name})
                assert answer.status_code == 200
                forged.append(answer.headers["x-mars-session"])
        plain = await client.post(CHAT, json=history, headers=guests.bearer("blue"))
        assert session_id not in [*forged, plain.headers["x-mars-session"]]
        red, blue = tenant_id("red"), tenant_id("blue")
        owners = {each.id: each.tenant for each in proxy.proxy.dispatcher.policy.sessions}
        assert owners.pop(session_id) == red
        assert set(owners.values()) == {blue}


async def test_a_session_outlives_the_change_of_a_key(guests: Guests) -> None:
    """Old and new key are one tenant's."""
    guests.write(red="")
    old = guests.bearer("red")
    async with (
        running_engine(served_model_name="m") as (engine, _),
        proxy_for(guests, engine) as (_proxy, client),
    ):
        named = {"x-mars-session": "run-1"}
        first = await client.post(CHAT, json=chat("hi"), headers=old | named)
        guests.rotate("red")
        guests.write(red="")
        new = guests.bearer("red")

        async def is_taken() -> bool:
            return (await client.get("/v1/models", headers=new)).status_code == 200

        while not await is_taken():
            pass
        second = await client.post(CHAT, json=chat("hi"), headers=new | named)
        assert first.headers["x-mars-session"] == second.headers["x-mars-session"]
        assert (await client.post(CHAT, json=chat("hi"), headers=old | named)).status_code == 401


async def test_a_tenant_sees_and_ends_its_own_sessions_only(guests: Guests) -> None:
    guests.write(red="", blue="")
    async with engine_for(guests) as (proxy, client):
        ids = {}
        for name in ("red", "blue"):
            headers = guests.bearer(name) | {"x-mars-session": "run-1"}
            ids[name] = (await client.post(CHAT, json=chat("hi"), headers=headers)).headers["x-mars-session"]
        sessions = "/mars/v1/sessions"

        async def listed(headers: dict[str, str]) -> set[str]:
            page = (await client.get(sessions, headers=headers)).json()
            assert page["total"] == len(page["sessions"])
            return {each["id"] for each in page["sessions"]}

        assert await listed(guests.bearer("red")) == {ids["red"]}
        assert await listed(ADMIN) == set(ids.values())
        assert (await client.get(sessions)).status_code == 401
        assert (await client.get(sessions, headers={"x-api-key": "wrong"})).status_code == 401
        other = f"{sessions}/{ids['blue']}"
        assert (await client.get(other, headers=guests.bearer("red"))).status_code == 404
        assert (await client.get(other, headers=guests.bearer("blue"))).status_code == 200
        assert (await client.delete(other, headers=guests.bearer("red"))).status_code == 204
        body = {"session_id": "run-1"}
        assert (await client.post("/finish_session", json=body)).status_code == 401
        assert (await client.get(other, headers=ADMIN)).status_code == 200
        ended = await client.post("/finish_session", json=body, headers=guests.bearer("red"))
        assert ended.json() == {"released": True}
        assert await listed(ADMIN) == {ids["blue"]}
        assert (await client.delete(other, headers=guests.bearer("blue"))).status_code == 204
        assert await listed(ADMIN) == set()
        # What a gateway tells moves everybody's turns.
        events: dict[str, Any] = {"json": {"events": []}}
        assert (await ask(client, "POST", "/mars/v1/tools", **events)).status == 401
        assert (await ask(client, "POST", "/mars/v1/tools", **events, headers=ADMIN)).status == 204
        await proxy.until_nothing_is_left()


async def test_limits_reach_the_client_with_their_reason(guests: Guests) -> None:
    """A held turn shows in the use, and a refusal says when to come back."""
    guests.write(
        red="max_open_turns = 1", slow="tokens_per_s = 1\nburst_tokens = 1", blue="models = ['small']"
    )
    async with (
        running_engine(speed=1.0, served_model_name="m") as (engine, _),
        proxy_for(guests, engine) as (proxy, client),
    ):
        long = chat("hi", max_tokens=4000, stream=True)
        async with client.stream("POST", CHAT, json=long, headers=guests.bearer("red")) as streaming:
            parts = streaming.aiter_bytes()
            await anext(parts)
            refused = await client.post(CHAT, json=chat("other"), headers=guests.bearer("red"))
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
            assert refused.json()["error"]["code"] == Reason.TENANT_TURNS.value
            tenants = (await client.get("/mars/v1/tenants", headers=ADMIN)).json()["tenants"]
            assert [each["name"] for each in tenants] == ["red", "slow", "blue"]
            assert tenants[0]["use"]["open_turns"] == 1
        spent = chat("word " * 2000)
        assert (await client.post(CHAT, json=spent, headers=guests.bearer("slow"))).status_code == 200
        owing = await client.post(CHAT, json=chat("more"), headers=guests.bearer("slow"))
        assert (owing.status_code, owing.json()["error"]["code"]) == (429, Reason.TENANT_TOKENS.value)
        assert int(owing.headers["retry-after"]) > 240
        wrong = await client.post(CHAT, json=chat("hi"), headers=guests.bearer("blue"))
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (403, "not_allowed")
        embeddings = await client.post("/v1/embeddings", json={"model": "m"}, headers=guests.bearer("blue"))
        assert embeddings.status_code == 403
        await proxy.until_nothing_is_left()


async def test_what_is_no_turn_has_the_same_bound_as_turns(guests: Guests) -> None:
    """Counted for itself, and given back however it ends."""
    guests.write(red="max_open_turns = 1", blue="")
    may_answer = asyncio.Event()

    async def waits(exchange: faulty.Exchange) -> None:
        await may_answer.wait()
        await faulty.answers_well(exchange)

    async def embeds(client: httpx.AsyncClient, name: str) -> httpx.Response:
        return await client.post("/v1/embeddings", json={"input": "hi"}, headers=guests.bearer(name))

    async with (
        faulty.faulty_backend(waits) as backend,
        proxy_for(guests, backend.url) as (proxy, client),
        asyncio.TaskGroup() as tasks,
    ):
        first = tasks.create_task(embeds(client, "red"))
        await proxy.until(lambda: len(backend.requests) == 1)
        refused = await embeds(client, "red")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, Reason.TENANT_TURNS.value)
        assert "retry-after" in refused.headers
        turn = tasks.create_task(client.post(CHAT, json=chat("hi"), headers=guests.bearer("red")))
        others = tasks.create_task(embeds(client, "blue"))
        await proxy.until(lambda: len(backend.requests) == 3)
        first.cancel()
        await proxy.until(lambda: proxy.leftovers()["answers under way"] == 2)
        again = tasks.create_task(embeds(client, "red"))
        await proxy.until(lambda: len(backend.requests) == 4)
        may_answer.set()
        assert [(await each).status_code for each in (turn, others, again)] == [200, 200, 200]


async def test_calls_of_the_admin_leave_a_line_each_and_no_key(
    guests: Guests, caplog: pytest.LogCaptureFixture
) -> None:
    guests.write(red="")
    caplog.set_level(logging.INFO)
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        proxy_for(guests, backend.url) as (_, client),
    ):
        view = await client.get("/mars/v1/tenants", headers=ADMIN)
        assert view.status_code == 200
        assert (await client.get("/mars/v1/tenants", headers=guests.bearer("red"))).status_code == 401
        assert (await client.get("/mars/v1/tenants")).status_code == 401
        await client.post(CHAT, json=chat("hi"), headers=guests.bearer("red"))
    lines = [json.loads(each.getMessage()) for each in caplog.records if each.name == "marsproxy.audit"]
    assert [(line["who"], line["what"], line["outcome"]) for line in lines] == [
        ("token", "GET /mars/v1/tenants", "done"),
        ("nobody", "GET /mars/v1/tenants", "unauthorized"),
        ("nobody", "GET /mars/v1/tenants", "unauthorized"),
    ]
    secret = guests.keys["red"].rsplit("-", 1)[-1]
    digest = guests.records["red"].digest.hex()
    for shown in (caplog.text, view.text):
        assert not any(word in shown for word in (secret, digest, "the-admin-token"))
