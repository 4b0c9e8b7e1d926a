"""Every way to say that a session is over frees its budget at once, over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from marsproxy.core.settings import AdmissionSettings
from tests.integration import faulty_backend as faulty
from tests.integration.running import RunningProxy, Seen, ask, chat, client_of, running_proxy

NAME = "my-session"
CALLS_TOOL = json.dumps(
    {
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": "call_1", "type": "function", "function": {"name": "bash", "arguments": "{}"}}
                    ],
                },
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
).encode()


@asynccontextmanager
async def one_session() -> AsyncIterator[tuple[RunningProxy, httpx.AsyncClient]]:
    """There is room for one session at a time, and a tool gap lasts for ever."""
    async with (
        faulty.faulty_backend(faulty.sends(faulty.answer(CALLS_TOOL))) as backend,
        running_proxy(
            backend.url, admission=AdmissionSettings(fallback_concurrency=1, idle_gap_s=3600)
        ) as proxy,
        client_of(proxy.url) as client,
    ):
        yield proxy, client


async def turn(client: httpx.AsyncClient, name: str, **headers: str) -> Seen:
    body = chat(session_id=name, tools=[{"type": "function", "function": {"name": "bash"}}])
    return await ask(client, "POST", "/v1/chat/completions", json=body, headers=headers)


async def views(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = (await client.get("/mars/v1/sessions")).json()
    assert answer["total"] == len(answer["sessions"])
    return {session["id"]: session for session in answer["sessions"]}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/finish_session", {"session_id": NAME}),
        ("POST", "/programs/release", {"program_id": NAME}),
        ("DELETE", "/mars/v1/sessions/{id}", None),
    ],
)
async def test_the_next_session_goes_at_once(method: str, path: str, body: Any) -> None:
    """It was held for as long as the other one might have come back."""
    async with one_session() as (proxy, client), asyncio.TaskGroup() as tasks:
        session_id = (await turn(client, NAME)).headers["x-mars-session"]
        assert (await views(client))[session_id]["counted"] is True
        assert proxy.counted_sessions == 1
        held = tasks.create_task(turn(client, "another"))
        await proxy.until(lambda: proxy.leftovers().get("held turns") == 1)
        ended = await client.request(method, path.format(id=session_id), json=body)
        assert ended.status_code in (200, 204)
        assert (await held).status == 200
        assert session_id not in await views(client)
        again = await client.request(method, path.format(id=session_id), json=body)
        assert again.status_code in (200, 204)
        if again.content:
            assert (ended.json(), again.json()) == ({"released": True}, {"released": False})


@pytest.mark.parametrize("header", ["x-mars-session-final", "x-dynamo-session-final"])
async def test_a_last_turn_leaves_nothing(header: str) -> None:
    """The client said so with the request."""
    async with one_session() as (proxy, client):
        for name in ("first", "second"):
            assert (await turn(client, name, **{header: "true"})).status == 200
            assert proxy.counted_sessions == 0
            assert await views(client) == {}


async def test_a_name_belongs_to_its_tenant() -> None:
    """Nobody ends another's session by its name."""
    async with one_session() as (proxy, client):
        await turn(client, NAME)
        other = {"authorization": "Bearer somebody else"}
        answer = await client.post("/finish_session", json={"session_id": NAME}, headers=other)
        assert (answer.json(), proxy.counted_sessions) == ({"released": False}, 1)


async def test_sessions_can_be_looked_at() -> None:
    """One by one, and the latest first."""
    async with one_session() as (proxy, client):
        ids = []
        for name in ("first", "second"):
            ids.append((await turn(client, name)).headers["x-mars-session"])
            one = (await client.get(f"/mars/v1/sessions/{ids[-1]}")).json()
            assert (one["phase"], one["turns"], one["context_tokens"]) == ("tool_gap", 1, 7)
            await client.delete(f"/mars/v1/sessions/{ids[-1]}")
        assert (await client.get("/mars/v1/sessions?limit=1")).json() == {"total": 0, "sessions": []}
        gone = await client.get(f"/mars/v1/sessions/{ids[0]}")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")
        assert proxy.leftovers() == {}
