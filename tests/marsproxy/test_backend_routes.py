"""Taking backends out of service, over HTTP: who may, what is shown."""

import json
import logging
from typing import Any

import pytest

from marsproxy.audit import LOGGER
from marsproxy.config import Admin, Secret
from tests.integration import faulty_backend as faulty
from tests.integration.running import ask_chat, client_of, running_proxy

TOKEN = {"authorization": "Bearer s3cret"}


async def test_what_is_known_of_a_backend() -> None:
    """By the policy, and by this replica itself."""
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        running_proxy(backend.url) as proxy,
        client_of(proxy.url) as client,
    ):
        await ask_chat(client)
        [seen] = (await client.get("/mars/v1/backends")).json()["backends"]
    assert (seen["name"], seen["reachable"], seen["draining"], seen["gone"]) == (
        backend.url,
        True,
        False,
        False,
    )
    assert seen["models"] is None
    assert seen["here"] == {"reachable": True, "breaker": "closed", "answers_under_way": 0}


async def test_draining_the_only_one_and_taking_it_back() -> None:
    """Saying it twice is fine."""
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        running_proxy(backend.url) as proxy,
        client_of(proxy.url) as client,
    ):
        path = f"/mars/v1/backends/{backend.url}"
        for order, is_draining in (("drain", True), ("drain", True), ("undrain", False)):
            answer = await client.post(f"{path}/{order}")
            assert answer.json() == {"name": backend.url, "draining": is_draining, "counted_sessions": 0}
            assert proxy.proxy.dispatcher.policy.backends[backend.url].is_draining is is_draining
        assert (await ask_chat(client)).status == 200


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("GET", "/mars/v1/backends", {}, 401, "unauthorized"),
        ("GET", "/mars/v1/backends", {"authorization": "Bearer other"}, 401, "unauthorized"),
        ("GET", "/mars/v1/backends", TOKEN, 200, None),
        ("POST", "/mars/v1/backends/http://x:1/drain", {}, 401, "unauthorized"),
        ("POST", "/mars/v1/backends/http://x:1/drain", TOKEN, 404, "not_found"),
        ("POST", "/mars/v1/backends/http://x:1/undrain", TOKEN, 404, "not_found"),
        ("GET", "/mars/v1/backends/http://x:1/drain", TOKEN, 405, "method_not_allowed"),
    ],
)
async def test_who_may(
    method: str, path: str, headers: dict[str, str], status: int, code: str | None
) -> None:
    """Whoever has the token, where there is one."""
    sections: dict[str, Any] = {"admin": Admin(token=Secret("s3cret"))}
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        running_proxy(backend.url, **sections) as proxy,
        client_of(proxy.url) as client,
    ):
        answer = await client.request(method, path, headers={"authorization": ""} | headers)
    assert answer.status_code == status
    assert code is None or answer.json()["error"]["code"] == code


async def test_without_a_token_nothing_that_was_passed_on() -> None:
    """It is the other proxy that is on this machine."""
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        running_proxy(backend.url) as proxy,
        client_of(proxy.url) as client,
    ):
        answer = await client.get("/mars/v1/backends", headers={"x-forwarded-for": "10.0.0.7"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


async def test_each_order_is_in_the_audit_log(caplog: pytest.LogCaptureFixture) -> None:
    """Done or refused."""
    caplog.set_level(logging.INFO, LOGGER)
    sections: dict[str, Any] = {"admin": Admin(token=Secret("s3cret"))}
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        running_proxy(backend.url, **sections) as proxy,
        client_of(proxy.url) as client,
    ):
        path = f"/mars/v1/backends/{backend.url}/drain"
        await client.post(path, headers=TOKEN)
        await client.post(path, headers={"authorization": "Bearer other"})
    lines = [json.loads(record.message) for record in caplog.records if record.name == LOGGER]
    assert [(line["who"], line["what"], line["outcome"]) for line in lines] == [
        ("token", f"POST {path}", "done"),
        ("nobody", f"POST {path}", "unauthorized"),
    ]
