"""Input, signals, sizes and heartbeats of commands, leases and hosts: what each path asks of the gateway."""

import base64
from typing import Any

import pytest

from tests.gateway.rest_rig import open_rest, until

TOKENS = {"alice": "alice-token-0123456789", "operator": "operator-token-0123456789"}


def error_of(response: Any) -> tuple[int, str, str | None]:
    body = response.json()["error"]
    return response.status_code, body["code"], body["param"]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def test_input_by_offset() -> None:
    async with open_rest() as rest:
        exec_id = await rest.running(stdin_open=True)
        url = f"/v1/execs/{exec_id}/stdin"
        assert (await rest.http.post(url, json={"data_b64": b64(b"abc")})).json() == {"next_offset": 3}
        again = await rest.http.post(url, json={"data_b64": b64(b"abcde"), "offset": 0})
        assert again.json() == {"next_offset": 5}
        assert rest.host.execs[exec_id].stdin == b"abcde"
        gap = await rest.http.post(url, json={"data_b64": b64(b"x"), "offset": 9})
        assert error_of(gap) == (409, "stdin_gap", "offset")
        assert error_of(await rest.http.post(url, json={"data_b64": "*"})) == (
            400,
            "invalid_value",
            "data_b64",
        )
        rest.host.finish(exec_id)
        await rest.http.get(f"/v1/execs/{exec_id}?wait=20")
        assert error_of(await rest.http.post(url, json={})) == (409, "exec_over", "id")


async def test_signals() -> None:
    async with open_rest() as rest:
        exec_id = await rest.running()
        url = f"/v1/execs/{exec_id}/signal"
        sent = await rest.http.post(url, json={"signal": "SIGUSR1", "scope": "tree"})
        assert sent.json() == {"was_sent": True}
        assert rest.host.execs[exec_id].signals == [("SIGUSR1", "tree")]
        assert error_of(await rest.http.post(url, json={"signal": "SIGSEGV"}))[2] == "signal"
        assert error_of(await rest.http.post(url, json={}))[:2] == (400, "invalid_value")
        rest.host.finish(exec_id)
        await rest.http.get(f"/v1/execs/{exec_id}?wait=20")
        assert (await rest.http.post(url, json={"signal": "SIGINT"})).json() == {"was_sent": False}


async def test_size_of_a_terminal() -> None:
    async with open_rest() as rest:
        exec_id = await rest.running(tty={"cols": 80, "rows": 24})
        response = await rest.http.put(f"/v1/execs/{exec_id}/tty", json={"cols": 132, "rows": 50})
        assert (response.status_code, response.content) == (204, b"")
        assert [size.cols for size in rest.host.execs[exec_id].sizes] == [132]
        wrong = await rest.http.put(f"/v1/execs/{exec_id}/tty", json={"cols": 0})
        assert error_of(wrong) == (400, "invalid_value", "cols")


async def test_a_command_whose_client_is_silent_is_cancelled() -> None:
    async with open_rest() as rest:
        exec_id = await rest.running()
        url = f"/v1/execs/{exec_id}"
        assert (await rest.http.put(f"{url}/heartbeat", json={"ttl_s": 3600})).status_code == 204
        assert (await rest.http.put(f"{url}/heartbeat", json={"ttl_s": 0.01})).status_code == 204
        status = (await rest.http.get(url, params={"wait": 20})).json()
        assert (status["state"], status["exit_code"]) == ("cancelled", 130)
        assert "not been heard of" in status["reason"]


async def test_a_client_that_is_killed_before_its_first_heartbeat() -> None:
    """The time counts from acceptance, so also for what waits."""
    async with open_rest(slots=1) as rest:
        running = await rest.running()
        body = {"command": "make", "heartbeat_ttl_s": 0.01}
        queued = await rest.http.post("/v1/sessions/s/execs", params={"wait": 20}, json=body)
        assert queued.json()["state"] == "cancelled"
        assert "not been heard of" in queued.json()["reason"]
        assert rest.host.running() == [running]


async def test_a_heartbeat_moves_the_end_that_came_with_the_command() -> None:
    async with open_rest() as rest:
        exec_id = await rest.running(heartbeat_ttl_s=0.2)
        await rest.http.put(f"/v1/execs/{exec_id}/heartbeat", json={"ttl_s": 3600})
        other = await rest.running(heartbeat_ttl_s=0.2)
        await rest.http.get(f"/v1/execs/{other}", params={"wait": 20})
        assert rest.host.running() == [exec_id]


async def test_a_command_that_needs_its_client_for_no_time_is_refused() -> None:
    async with open_rest() as rest:
        body = {"command": "make", "heartbeat_ttl_s": 0}
        refused = await rest.http.post("/v1/sessions/s/execs", json=body)
        assert error_of(refused) == (400, "invalid_value", "heartbeat_ttl_s")


async def test_a_command_without_heartbeats_needs_none() -> None:
    async with open_rest() as rest:
        exec_id = await rest.running()
        other = await rest.running()
        await rest.http.put(f"/v1/execs/{other}/heartbeat", json={"ttl_s": 0.01})
        await rest.http.get(f"/v1/execs/{other}", params={"wait": 20})
        assert rest.host.running() == [exec_id]


async def test_pages_of_other_sites_run_nothing() -> None:
    """A form post needs no permission of ours, so the browser would send it, with the right Host."""
    async with open_rest() as rest:
        headers = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
        refused = await rest.http.post("/v1/sessions/s/execs", content='{"command":"x"}', headers=headers)
        assert error_of(refused) == (403, "origin_not_allowed", "Origin")
        assert rest.host.starts == []
        headers["Origin"] = "http://localhost"
        own = await rest.http.post("/v1/sessions/s/execs", content='{"command":"x"}', headers=headers)
        assert own.status_code == 202


async def test_leases() -> None:
    async with open_rest(slots=1) as rest:
        held = await rest.http.post("/v1/leases", json={"session": "s"})
        assert (held.status_code, held.json()["state"]) == (200, "held")
        url = held.headers["Location"]
        queued = await rest.http.post("/v1/leases", json={"session": "s2"})
        assert (queued.status_code, queued.json()["queue_position"]) == (202, 0)
        assert (await rest.http.put(url, json={"ttl_s": 100})).json()["expires_in_s"] > 30
        for _ in range(2):
            ended = await rest.http.request("DELETE", url, json={"exit_code": 0})
            assert (ended.status_code, ended.json()["state"]) == (200, "released")
        now = await rest.http.get(queued.headers["Location"], params={"wait": 20})
        assert now.json()["state"] == "held"
        assert error_of(await rest.http.put(url, json={}))[0] == 409
        assert error_of(await rest.http.get("/v1/leases/le-nope"))[0] == 404


async def test_a_lease_without_room_in_time_is_429() -> None:
    async with open_rest(slots=1) as rest:
        await rest.http.post("/v1/leases", json={"session": "a"})
        late = await rest.http.post(
            "/v1/leases", json={"session": "b", "queue_timeout_s": 0.01}, params={"wait": 20}
        )
        assert error_of(late)[:2] == (429, "lease_rejected")
        assert "Retry-After" in late.headers


async def test_draining_a_host_and_back() -> None:
    async with open_rest() as rest:
        running = await rest.running()
        drained = await rest.http.put("/v1/hosts/here/drain")
        assert (drained.status_code, drained.json()["is_draining"]) == (200, True)
        refused = await rest.http.post("/v1/sessions/s/execs", json={"command": "x"})
        assert refused.status_code == 503
        assert rest.host.running() == [running]
        back = await rest.http.put("/v1/hosts/here/drain", json={"is_draining": False})
        assert back.json()["is_draining"] is False
        await rest.running()
        assert error_of(await rest.http.put("/v1/hosts/nope/drain"))[:2] == (404, "host_not_found")


@pytest.mark.parametrize(("tenant", "status"), [("alice", 403), ("operator", 200)])
async def test_one_tenant_among_several_drains_no_host(tenant: str, status: int) -> None:
    async with open_rest(tokens=TOKENS, token=TOKENS[tenant]) as rest:
        response = await rest.http.put("/v1/hosts/here/drain")
        assert response.status_code == status
        if status == 403:
            assert error_of(response)[1] == "operator_only"


async def test_output_of_any_offset() -> None:
    async with open_rest() as rest:
        exec_id = await rest.running(output={"max_bytes": 5})
        rest.host.write(exec_id, b"0123456789")
        rest.host.finish(exec_id)
        await until(lambda: not rest.host.running())
        url = f"/v1/execs/{exec_id}/output"
        part = await rest.http.get(url, params={"offset": 3, "wait": 20})
        assert (part.content, part.headers["X-Next-Offset"]) == (b"34", "5")
        assert (part.headers["X-Eof"], part.headers["X-Truncated"]) == ("true", "true")
        beyond = await rest.http.get(url, params={"offset": 10**15})
        assert (beyond.status_code, beyond.content) == (200, b"")
        assert error_of(await rest.http.get(url, params={"offset": 2**63}))[2] == "offset"
