"""The routes as a client sees them: whose story it is, what is streamed, and with which headers."""

import json
from pathlib import Path
from typing import Any

import pytest

from marsproxy.config import Admin, EventLog, Secret, Tenants
from marsproxy.live.page import CONTENT_SECURITY_POLICY, read_files
from tests.integration import faulty_backend as faulty
from tests.integration.running import API_KEY, PROMPT, RunningProxy, ask_chat, client_of, running_proxy
from tests.marsproxy.tenants.guests import Guests

SESSION = "x-mars-session"


async def test_a_session_says_why() -> None:
    """In words and numbers, and nothing of what was asked."""
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        running_proxy(backend.url) as proxy,
        client_of(proxy.url) as client,
    ):
        session = (await ask_chat(client)).headers[SESSION]
        answer = await client.get(f"/mars/v1/sessions/{session}/why")
        told = answer.json()
        kinds = [entry["kind"] for entry in told["story"]]
        assert kinds[:2] == ["arrived", "forwarded"]
        assert "ended" in kinds
        assert all(entry["words"] and entry["at"] for entry in told["story"])
        assert told["session"] == session
        for secret in (PROMPT, API_KEY):
            assert secret not in answer.text
        missing = await client.get("/mars/v1/sessions/nobody/why")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


async def test_the_stream_begins_with_everything_and_goes_on_with_changes() -> None:
    """And ends with its client, leaving nothing."""
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        running_proxy(backend.url) as proxy,
        client_of(proxy.url) as client,
    ):
        session = ""
        async with client.stream("GET", "/mars/v1/live") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            name, text = "", ""
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                if not line.startswith("data: "):
                    continue
                told: dict[str, Any] = json.loads(line.removeprefix("data: "))
                text += line
                if name == "snapshot":
                    assert {"backends", "hosts", "sessions", "held", "decisions", "times"} <= set(told)
                    session = (await ask_chat(client)).headers[SESSION]
                elif any(row[0] == session for row in told.get("sessions", ())):
                    break
        assert PROMPT not in text
        await proxy.until_nothing_is_left()


async def test_a_stop_does_not_wait_for_those_who_look() -> None:
    """Their streams end by themselves."""
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        running_proxy(backend.url) as proxy,
        client_of(proxy.url) as client,
        client.stream("GET", "/mars/v1/live") as answer,
    ):
        lines = answer.aiter_lines()
        await anext(lines)
        proxy.server.stop()
        async for _ in lines:
            pass


async def test_a_tenant_sees_its_own_story_and_not_everybodys_feed(tmp_path: Path) -> None:
    """The admin sees both."""
    guests = Guests(tmp_path / "tenants.toml")
    guests.write(red="", blue="")
    red, blue, boss = (guests.bearer("red"), guests.bearer("blue"), {"authorization": "Bearer boss"})
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        running_proxy(backend.url, tenants=Tenants(guests.path), admin=Admin(token=Secret("boss"))) as proxy,
        client_of(proxy.url, headers={}) as client,
    ):
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        answer = await client.post("/v1/chat/completions", json=body, headers=red)
        path = f"/mars/v1/sessions/{answer.headers[SESSION]}/why"
        statuses = [
            (await client.get(path, headers=headers)).status_code for headers in (red, blue, boss, {})
        ]
        assert statuses == [200, 404, 200, 401]
        for headers in (red, {}):
            assert (await client.get("/mars/v1/live", headers=headers)).status_code == 401
        async with client.stream("GET", "/mars/v1/live", headers=boss) as feed:
            assert feed.status_code == 200
        assert (await client.get("/mars/")).status_code == 200, "the page itself has nothing to hide"


async def test_the_page_comes_from_the_package_under_a_strict_policy() -> None:
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        running_proxy(backend.url) as proxy,
        client_of(proxy.url) as client,
    ):
        for path in ("/mars/", "/mars/what-if", *(f"/mars/web/{name}" for name in read_files())):
            answer = await client.get(path)
            assert answer.status_code == 200, path
            assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
            assert answer.headers["x-content-type-options"] == "nosniff"
        for path in ("/mars/web/nothing.js", "/mars/web/..%2Froutes.py", "/mars/web/__init__.py"):
            assert (await client.get(path)).status_code == 404


def test_nothing_is_written_into_the_page_or_loaded_from_elsewhere() -> None:
    """What the policy would refuse is not there to be refused."""
    for name, (_, content) in read_files().items():
        text = content.decode().replace("http://www.w3.org/2000/svg", "")
        for foreign in ("http://", "https://", " style=", " onclick", "javascript:", "innerHTML", "eval("):
            assert foreign not in text, (name, foreign)


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("wrong", 401), ("right", 404)])
async def test_what_if_is_for_the_admin(token: str | None, status: int) -> None:
    """Without an event log there is nothing to ask it about."""
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        running_proxy(backend.url, admin=Admin(token=Secret("right"))) as proxy,
        client_of(proxy.url, headers=headers) as client,
    ):
        assert (await client.get("/mars/v1/what-if")).status_code == status


@pytest.mark.slow  # a process of its own replays the log
async def test_what_if_counts_both_columns(tmp_path: Path) -> None:
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        running_proxy(backend.url, event_log=EventLog(dir=tmp_path / "log")) as proxy,
        client_of(proxy.url) as client,
    ):
        for number in range(3):
            await ask_chat(client, text=f"{PROMPT} {number}")
        told = await _told(proxy, tmp_path, client)
        assert told["recorded"]["forwarded"] == told["asked"]["forwarded"] == 3
        assert (told["recorded"]["policy"], told["asked"]["policy"]) == ("mars", "fcfs")
        assert told["recorded"]["held_p50_s"] is None
        wrong = await client.get("/mars/v1/what-if", params={"policy": "none-such"})
        assert (wrong.status_code, "none-such" in wrong.text) == (400, False)


async def _told(proxy: RunningProxy, tmp_path: Path, client: Any) -> Any:
    """The log is written by a thread of its own, so the last lines may come a moment later."""
    told: Any = {"recorded": {"forwarded": 0}}

    async def ask() -> Any:
        return (await client.get("/mars/v1/what-if", params={"policy": "fcfs"}, timeout=60)).json()

    for _ in range(5):
        told = await ask()
        if told["recorded"]["forwarded"] == 3:
            break
    return told
