"""The REST API with real commands."""
# ruff: noqa: ASYNC110, ASYNC240 - looking at real files and counters, now and then, is the test

import asyncio
import base64
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.host_agent.wire import MAX_PAYLOAD_BYTES
from gateway.limits import Limits
from gateway.protocol import ExecStatus, HostList, SessionStatus

pytestmark = pytest.mark.slow  # real processes throughout

Rig = Any
OpenRig = Callable[..., Any]
ProcessesOf = Callable[[str], list[int]]


def error_of(response: Any) -> tuple[int, str, str | None]:
    body = response.json()["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert body["message"]
    return response.status_code, body["code"], body["param"]


async def test_a_command_from_start_to_end(rig: Rig) -> None:
    response = await rig.post("echo out; echo err >&2; exit 3", wait=20)
    assert response.status_code == 200
    status = msgspec.json.decode(response.content, type=ExecStatus)
    assert (status.state, status.exit_code, status.timed_out) == ("exited", 3, False)
    assert (status.stdout.text, status.stderr.text) == ("out\n", "err\n")
    assert response.headers["Location"] == f"/v1/execs/{status.id}"
    assert (await rig.http.get(f"/v1/execs/{status.id}")).content == response.content


async def test_without_wait_it_is_followed(rig: Rig) -> None:
    response = await rig.post("sleep 0.2; echo late")
    assert response.status_code == 202
    assert response.json()["state"] in ("queued", "starting", "running")
    assert (await rig.ended(response.json()["id"]))["stdout"]["text"] == "late\n"


async def test_output_by_offset_while_it_runs(rig: Rig) -> None:
    exec_id = (await rig.run("echo one; read -t 300 < <(sleep 300); echo two", wait=0))["id"]
    url = f"/v1/execs/{exec_id}/output"
    first = await rig.http.get(url, params={"wait": 20})
    assert first.content == b"one\n"
    assert (first.headers["X-Next-Offset"], first.headers["X-Eof"]) == ("4", "false")
    nothing = await rig.http.get(url, params={"offset": 4})
    assert (nothing.content, nothing.headers["X-Next-Offset"]) == (b"", "4")
    part = await rig.http.get(url, params={"offset": 1, "limit": 2})
    assert (part.content, part.headers["X-Next-Offset"]) == (b"ne", "3")
    async with asyncio.TaskGroup() as group:
        end = group.create_task(rig.http.get(url, params={"offset": 4, "wait": 20}))
        group.create_task(rig.http.delete(f"/v1/execs/{exec_id}"))
    assert (end.result().content, end.result().headers["X-Eof"]) == (b"", "true")


async def test_fifty_megabytes_with_nobody_reading(rig: Rig) -> None:
    status = await rig.run("head -c 50000000 /dev/zero; echo end >&2", output={"max_bytes": 100})
    assert (status["state"], status["exit_code"]) == ("exited", 0)
    stdout = status["stdout"]
    assert (stdout["total_bytes"], stdout["kept_bytes"], stdout["truncated"]) == (50_000_000, 100, True)
    output = await rig.http.get(f"/v1/execs/{status['id']}/output", params={"offset": 90})
    assert (output.content, output.headers["X-Eof"]) == (b"\0" * 10, "true")
    assert output.headers["X-Truncated"] == "true"
    assert status["stderr"]["text"] == "end\n"


async def test_status_carries_the_beginning_of_long_output(open_rig: OpenRig) -> None:
    async with open_rig(limits=Limits(slots=2, inline_output_bytes=4)) as rig:
        await rig.session()
        stdout = (await rig.run("printf 'abc€def'"))["stdout"]
        assert (stdout["text"], stdout["next_offset"], stdout["kept_bytes"]) == ("abc", 3, 9)
        stdout = (await rig.run(r"printf '\xff\xfe!!'"))["stdout"]
        assert (stdout["text"], base64.b64decode(stdout["b64"])) == (None, b"\xff\xfe!!")


async def test_timeout(rig: Rig, processes_of: ProcessesOf) -> None:
    status = await rig.run("echo before; sleep 300 & setsid sleep 300 & sleep 300", timeout_s=0.3)
    assert (status["state"], status["exit_code"], status["timed_out"]) == ("timed_out", 124, True)
    assert (status["signal"], status["stdout"]["text"]) == ("SIGTERM", "before\n")
    assert processes_of(status["id"]) == []


async def test_cancel_running_and_again(rig: Rig, processes_of: ProcessesOf) -> None:
    exec_id = (await rig.run("sleep 300", wait=0))["id"]
    first = await rig.http.delete(f"/v1/execs/{exec_id}", params={"wait": 20})
    assert first.status_code == 200
    assert (first.json()["state"], first.json()["exit_code"]) == ("cancelled", 130)
    assert processes_of(exec_id) == []
    again = await rig.http.delete(f"/v1/execs/{exec_id}")
    assert (again.status_code, again.content) == (200, first.content)


async def test_cancel_queued(rig: Rig) -> None:
    holder = (await rig.run("sleep 300", wait=0, cpu=2))["id"]
    queued = (await rig.run("touch ran", wait=0))["id"]
    status = (await rig.http.delete(f"/v1/execs/{queued}", params={"wait": 20})).json()
    assert (status["state"], status["run_s"]) == ("cancelled", None)
    await rig.http.delete(f"/v1/execs/{holder}")
    assert (await rig.run("ls"))["stdout"]["text"] == ""


async def test_full_queue_is_429_and_the_command_does_not_run(open_rig: OpenRig) -> None:
    async with open_rig(limits=Limits(slots=1, queue_limit=0, short_places=0)) as rig:
        await rig.session()
        holder = (await rig.run("sleep 300", wait=0))["id"]
        refused = await rig.post("touch ran", wait=20, key="k")
        assert error_of(refused) == (429, "queue_full", None)
        assert int(refused.headers["Retry-After"]) >= 1
        await rig.http.delete(f"/v1/execs/{holder}", params={"wait": 20})
        assert (await rig.run("ls"))["stdout"]["text"] == ""
        assert (await rig.post("touch ran", wait=20, key="k")).json()["state"] == "exited"
        assert (await rig.run("ls"))["stdout"]["text"] == "ran\n"


async def test_slots_are_shared_in_turn(open_rig: OpenRig) -> None:
    async with open_rig(limits=Limits(slots=1, short_places=0)) as rig:
        await rig.session("many")
        await rig.session("few")
        log = (await rig.run("pwd", session="few"))["stdout"]["text"].strip() + "/log"
        runs = [rig.run(f"echo many{n} >> {log}", session="many") for n in range(3)]
        runs.append(rig.run(f"echo few >> {log}", session="few"))
        await rig.run("sleep 0.2", session="few", wait=0)
        await asyncio.gather(*runs)
        assert Path(log).read_text().split().index("few") <= 1


async def test_one_key_runs_once_even_at_the_same_time(rig: Rig) -> None:
    posts = [rig.post("echo x >> ran; sleep 0.3", wait=20, key="k1", timeout_s=20) for _ in range(8)]
    answers = [response.json() for response in await asyncio.gather(*posts)]
    assert len({answer["id"] for answer in answers}) == 1
    assert {answer["state"] for answer in answers} == {"exited"}
    later = await rig.http.post(
        "/v1/sessions/s/execs",
        headers={"Idempotency-Key": "k1"},
        content=' {"timeout_s": 20.0,  "command": "echo x >> ran; sleep 0.3"}',
    )
    assert later.json()["id"] == answers[0]["id"]
    assert (await rig.run("cat ran"))["stdout"]["text"] == "x\n"


async def test_one_key_two_bodies_is_409(rig: Rig) -> None:
    await rig.post("true", wait=20, key="k1")
    assert error_of(await rig.post("false", key="k1")) == (409, "idempotency_key_reused", "Idempotency-Key")
    await rig.session("other")
    assert (await rig.post("true", session="other", key="k1")).status_code == 409
    assert (await rig.post("true", wait=20, key="k2")).status_code == 200


async def test_a_key_of_another_tenant_is_another_key(open_rig: OpenRig) -> None:
    """Whoever replays it gets neither the other's result nor a way to keep it from running."""
    tokens = {"red": "a-token-of-red-1", "blue": "a-token-of-blue-1"}
    async with open_rig(tokens=tokens, token="a-token-of-red-1") as rig:
        await rig.session()
        mine = (await rig.post("echo red", wait=20, key="k1")).json()
        rig.http.headers["Authorization"] = "Bearer a-token-of-blue-1"
        await rig.session()
        theirs = (await rig.post("echo red", wait=20, key="k1")).json()
        assert theirs["id"] != mine["id"]
        assert (await rig.http.get(f"/v1/execs/{mine['id']}")).status_code == 404
        assert (await rig.post("echo blue", wait=20, key="k1")).status_code == 409  # of its own


async def test_forgotten_result_is_410_and_not_run_again(open_rig: OpenRig) -> None:
    async with open_rig(limits=Limits(slots=2, max_execs=0)) as rig:
        await rig.session()
        assert (await rig.post("echo x >> ran", wait=20, key="k1")).json()["state"] == "exited"
        again = await rig.post("echo x >> ran", wait=20, key="k1")
        assert error_of(again) == (410, "exec_forgotten", "Idempotency-Key")


async def test_client_that_leaves_does_not_cancel(rig: Rig) -> None:
    task = asyncio.get_running_loop().create_task(rig.post("sleep 0.3; touch ran", wait=20))
    while not rig.gateway.execs.active_sessions():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while rig.gateway.execs.active_sessions():
        await asyncio.sleep(0.02)
    assert (await rig.run("ls"))["stdout"]["text"] == "ran\n"


async def test_argv_needs_no_shell(rig: Rig) -> None:
    assert (await rig.run(None, argv=["echo", "$HOME", "a  b"]))["stdout"]["text"] == "$HOME a  b\n"


async def test_stdin(rig: Rig) -> None:
    status = await rig.run("cat", stdin_b64=base64.b64encode(b"hello").decode())
    assert status["stdout"]["text"] == "hello"


@pytest.mark.parametrize("size", [MAX_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES + 1, 2 << 20])
async def test_stdin_of_any_length_that_is_allowed_comes_whole(rig: Rig, size: int) -> None:
    data = random.Random(size).randbytes(size)
    status = await rig.run("sha256sum", stdin_b64=base64.b64encode(data).decode())
    assert status["stdout"]["text"].split() == [hashlib.sha256(data).hexdigest(), "-"]
    one_more = base64.b64encode(bytes((2 << 20) + 1)).decode()
    refused = await rig.post("cat", stdin_b64=one_more)
    assert (refused.status_code, refused.json()["error"]["param"]) == (413, "stdin_b64")


async def test_more_stdin_waits_for_the_rest_of_a_long_one(rig: Rig) -> None:
    first = bytes(MAX_PAYLOAD_BYTES + (400 << 10))
    more = {"data_b64": base64.b64encode(b"end").decode(), "offset": len(first), "eof": True}
    posted = await rig.post("wc -c", stdin_b64=base64.b64encode(first).decode(), stdin_open=True)
    written = await rig.http.post(f"/v1/execs/{posted.json()['id']}/stdin", json=more)
    assert written.json() == {"next_offset": len(first) + 3}, written.text
    assert int((await rig.ended(posted.json()["id"]))["stdout"]["text"]) == len(first) + 3


async def test_environment_is_clean_quiet_and_layered(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARS_GATEWAY_TOKENS", "alice:a-secret-of-the-gateway")
    monkeypatch.setenv("SOME_API_KEY", "secret")
    async with open_rig() as rig:
        await rig.session(env={"A": "session", "B": "session"})
        lines = (await rig.run(None, argv=["env"], env={"B": "exec"}))["stdout"]["text"].splitlines()
    found = dict(line.split("=", 1) for line in lines)
    assert (found["A"], found["B"]) == ("session", "exec")
    assert (found["GIT_TERMINAL_PROMPT"], found["DEBIAN_FRONTEND"], found["PAGER"]) == (
        "0",
        "noninteractive",
        "cat",
    )
    assert "secret" not in " ".join(found.values())
    assert set(found) <= {
        *("A", "B", "HOME", "PATH", "TZ", "MARS_EXEC_AGENT", "MARS_EXEC_ID", "TERM", "LANG"),
        *("GIT_TERMINAL_PROMPT", "DEBIAN_FRONTEND", "PAGER", "GIT_PAGER"),
    }


async def test_working_directory(rig: Rig) -> None:
    await rig.run("mkdir -p sub/deep; ln -s / root; ln -s sub/deep inside")
    assert (await rig.run("pwd -P", cwd="inside"))["stdout"]["text"].endswith("/sub/deep\n")
    for outside in ("..", "/etc", "sub/../../x"):
        assert error_of(await rig.post("true", cwd=outside)) == (400, "invalid_value", "cwd")
    for outside in ("root", "root/etc"):
        status = await rig.run("touch ran", cwd=outside)
        assert (status["state"], status["exit_code"]) == ("rejected", None)
        assert "outside of the workspace" in status["reason"]
    missing = await rig.run("true", cwd="not-there")
    assert (missing["state"], missing["exit_code"]) == ("rejected", None)
    assert missing["reason"] == "cwd: there is no directory 'not-there'"
    await rig.session(cwd="sub")
    assert (await rig.run("pwd"))["stdout"]["text"].endswith("/sub\n")


async def test_working_directory_moved_outside_while_queued(rig: Rig) -> None:
    await rig.run("mkdir sub")
    holder = (await rig.run("sleep 0.3; rm -r sub; ln -s /etc sub", wait=0, cpu=2))["id"]
    status = await rig.run("ls", cwd="sub")
    assert status["state"] == "rejected"
    assert "outside of the workspace" in status["reason"]
    assert (await rig.ended(holder))["exit_code"] == 0


async def test_absolute_working_directory_where_allowed(open_rig: OpenRig) -> None:
    async with open_rig(limits=Limits(slots=1, allow_absolute_cwd=True)) as rig:
        await rig.session()
        assert (await rig.run("pwd", cwd="/"))["stdout"]["text"] == "/\n"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ("[]", "body"),
        ("{", "body"),
        (b"\xff", "body"),
        ("[" * 100_000, "body"),
        ("{}", "body"),
        ('{"command":"a","argv":["b"]}', "body"),
        ('{"command":""}', "command"),
        ('{"command":"a\\u0000b"}', "command"),
        ('{"argv":[]}', "argv"),
        ('{"argv":["a", 1]}', "argv[1]"),
        ('{"command":"a","timeout_s":-1}', "timeout_s"),
        ('{"command":"a","timeout_s":100000}', "timeout_s"),
        ('{"command":"a","timeout_s":NaN}', "body"),
        ('{"command":"a","cpu":3}', "cpu"),
        ('{"command":"a","cpu":"1"}', "cpu"),
        ('{"command":"a","shell":"fish"}', "shell"),
        ('{"command":"a","env":{"A=B":"c"}}', "env"),
        ('{"command":"a","env":{"MARS_EXEC_ID":"c"}}', "env"),
        ('{"command":"a","stdin_b64":"***"}', "stdin_b64"),
        ('{"command":"a","output":{"max_bytes":-1}}', "output.max_bytes"),
        ('{"command":"a","output":{"maxbytes":1}}', "output.maxbytes"),
        ('{"command":"a","output":{"max_bytes":99999999999}}', "output.max_bytes"),
        ('{"command":"a","timeout":1}', "timeout"),
    ],
)
async def test_bad_bodies_name_the_field(rig: Rig, body: str | bytes, param: str) -> None:
    response = await rig.http.post("/v1/sessions/s/execs", content=body)
    status, _, named = error_of(response)
    assert (status, named) == (400, param)


async def test_allowed_values_are_named(rig: Rig) -> None:
    message = (await rig.post("true", shell="fish")).json()["error"]["message"]
    assert message == "shell: Invalid enum value 'fish'; allowed are 'bash -c', 'bash -lc', 'sh -c'"
    message = (await rig.post("true", output={"max": 1})).json()["error"]["message"]
    assert message == "output.max: unknown field; allowed are max_bytes, merge"


async def test_bad_parameters_name_themselves(rig: Rig) -> None:
    exec_id = (await rig.run("true"))["id"]
    for path, param in [
        ("/v1/execs/x?wait=1000", "wait"),
        (f"/v1/execs/{exec_id}/output?stream=stdin", "stream"),
        (f"/v1/execs/{exec_id}/output?offset=-1", "offset"),
        (f"/v1/execs/{exec_id}/output?limit=0", "limit"),
        ("/v1/sessions/.hidden", "sid"),
    ]:
        assert error_of(await rig.http.get(path)) == (400, "invalid_value", param)


async def test_too_large_parts_are_413(open_rig: OpenRig) -> None:
    limits = Limits(
        slots=1, max_body_bytes=5000, max_command_bytes=100, max_stdin_bytes=100, max_env_bytes=100
    )
    async with open_rig(limits=limits) as rig:
        await rig.session()
        for fields, param in [
            ({"command": "x" * 101}, "command"),
            ({"command": "x" * 5000}, "body"),
            ({"command": "a", "stdin_b64": base64.b64encode(b"x" * 101).decode()}, "stdin_b64"),
            ({"command": "a", "env": {"A": "x" * 100}}, "env"),
        ]:
            response = await rig.http.post("/v1/sessions/s/execs", json=fields)
            assert error_of(response) == (413, "too_large", param)


async def test_unknown_things_are_404(rig: Rig) -> None:
    assert error_of(await rig.post("true", session="nope")) == (404, "session_not_found", "sid")
    assert error_of(await rig.http.get("/v1/sessions/nope")) == (404, "session_not_found", "sid")
    for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/output")]:
        response = await rig.http.request(method, f"/v1/execs/ex-nope{path}")
        assert error_of(response) == (404, "exec_not_found", "id")
    assert error_of(await rig.http.get("/v2/things"))[0] == 404
    assert error_of(await rig.http.patch("/v1/sessions/s"))[0] == 405


async def test_put_is_idempotent_and_replaces_settings(rig: Rig) -> None:
    await rig.run("touch kept")
    response = await rig.http.put(
        "/v1/sessions/s", json={"env": {"A": "1"}, "ttl_s": 1000, "labels": {"a": "b"}}
    )
    assert response.status_code == 200
    status = msgspec.json.decode(response.content, type=SessionStatus)
    assert (status.env_names, status.labels, status.execs_active) == (["A"], {"a": "b"}, 0)
    assert status.expires_in_s == pytest.approx(1000, abs=60)
    assert (await rig.run("ls; echo $A"))["stdout"]["text"] == "kept\n1\n"
    assert (await rig.http.put("/v1/sessions/new")).status_code == 201


async def test_delete_session_kills_and_removes(rig: Rig, processes_of: ProcessesOf) -> None:
    workspace = Path((await rig.http.get("/v1/sessions/s")).json()["workspace"])
    running = (await rig.run("touch a; sleep 300", wait=0))["id"]
    assert (await rig.http.delete("/v1/sessions/s")).status_code == 204
    assert processes_of(running) == []
    assert not workspace.exists()
    assert (await rig.ended(running))["reason"] == "its session was deleted"
    assert (await rig.http.delete("/v1/sessions/s")).status_code == 204
    assert error_of(await rig.post("true"))[0] == 404


async def test_deleting_goes_on_without_its_caller(rig: Rig) -> None:
    await rig.run("trap '' TERM; sleep 0.5 & wait; wait", wait=0, kill_grace_s=0.2)
    task = asyncio.get_running_loop().create_task(rig.http.delete("/v1/sessions/s"))
    while not rig.gateway.sessions.get("", "s").is_ending:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert error_of(await rig.post("true")) == (409, "session_ending", "sid")
    assert error_of(await rig.http.put("/v1/sessions/s", json={})) == (409, "session_ending", "sid")
    await rig.http.delete("/v1/sessions/s")
    assert (await rig.http.get("/v1/sessions/s")).status_code == 404


async def test_sessions_are_bounded(open_rig: OpenRig) -> None:
    async with open_rig(limits=Limits(slots=1, max_sessions=1)) as rig:
        await rig.session("a")
        await rig.session("a")
        assert error_of(await rig.http.put("/v1/sessions/b")) == (429, "too_many_sessions", None)
        await rig.http.delete("/v1/sessions/a")
        await rig.session("b")


@pytest.mark.parametrize("settings", [{"ttl_s": 0.3}, {"idle_ttl_s": 0.05}])
async def test_expired_sessions_go(open_rig: OpenRig, settings: dict[str, float]) -> None:
    async with open_rig(housekeeping_s=0.02) as rig:
        workspace = Path((await rig.session(**settings))["workspace"])
        if "ttl_s" in settings:
            status = await rig.run("sleep 300")
            assert (status["state"], status["reason"]) == ("cancelled", "its session's ttl_s is over")
        while (await rig.http.get("/v1/sessions/s")).status_code != 404:
            await asyncio.sleep(0.02)
        assert not workspace.exists()


async def test_session_with_a_command_is_not_idle(open_rig: OpenRig) -> None:
    async with open_rig(housekeeping_s=0.02) as rig:
        await rig.session(idle_ttl_s=0.1)
        assert (await rig.run("sleep 0.5; echo done"))["stdout"]["text"] == "done\n"


async def test_tenants_see_only_their_own(open_rig: OpenRig) -> None:
    tokens = {"alice": "alice-token-0123456789", "bob": "bob-token-0123456789"}
    async with open_rig(tokens=tokens, token=tokens["alice"]) as rig:
        await rig.session("s", env={"WHO": "alice"})
        exec_id = (await rig.run("echo $WHO"))["id"]
        bob = {"Authorization": f"Bearer {tokens['bob']}"}
        for path in ("/v1/sessions/s", f"/v1/execs/{exec_id}", f"/v1/execs/{exec_id}/output"):
            assert (await rig.http.get(path)).status_code == 200
            assert (await rig.http.get(path, headers=bob)).status_code == 404
        assert (await rig.http.delete("/v1/sessions/s", headers=bob)).status_code == 204
        assert (await rig.http.put("/v1/sessions/s", headers=bob, json={})).status_code == 201
        assert (await rig.run("echo $WHO"))["stdout"]["text"] == "alice\n"
        for wrong in ("Bearer nope", "Basic x", ""):
            refused = await rig.http.get("/v1/hosts", headers={"Authorization": wrong})
            assert error_of(refused) == (401, "invalid_token", "Authorization")
        assert (await rig.http.get("/healthz", headers={"Authorization": ""})).status_code == 200


async def test_open_gateway_answers_only_to_local_names(rig: Rig) -> None:
    """A web page whose name was made to resolve to 127.0.0.1 must not run commands here."""
    for host, status in [
        ("evil.example", 403),
        ("127.0.0.1:8090", 200),
        ("[::1]:8090", 200),
        ("localhost", 200),
    ]:
        assert (await rig.http.get("/v1/hosts", headers={"Host": host})).status_code == status


async def test_hosts_metrics_probes_and_document(rig: Rig) -> None:
    await rig.run("true")
    hosts = msgspec.json.decode((await rig.http.get("/v1/hosts")).content, type=HostList)
    assert (hosts.hosts[0].slots, hosts.hosts[0].running) == (2, 0)
    metrics = (await rig.http.get("/metrics")).text
    assert 'mars_gateway_execs_total{state="exited"} 1.0' in metrics
    assert "mars_gateway_slots 2.0" in metrics
    assert (await rig.http.get("/readyz")).status_code == 200
    document = (await rig.http.get("/openapi.json")).json()
    assert set(document["components"]["schemas"]) >= {
        "ExecRequest",
        "ExecStatus",
        "SessionRequest",
        "ErrorBody",
    }
    names = json.dumps(document)
    for schema in set(document["components"]["schemas"]):
        assert f"#/components/schemas/{schema}" in names
    rig.gateway.drain()
    assert (await rig.http.get("/readyz")).status_code == 503
    assert error_of(await rig.post("true")) == (503, "draining", None)
    assert error_of(await rig.http.put("/v1/sessions/new"))[0] == 503


async def test_closing_ends_everything(open_rig: OpenRig, processes_of: ProcessesOf, tmp_path: Path) -> None:
    async with open_rig(spool_dir=tmp_path / "spool") as rig:
        await rig.session()
        for command in ("sleep 300", "setsid sleep 300 & sleep 300", "true"):
            await rig.run(command, wait=0)
        while len(processes_of(str(tmp_path))) < 3:
            await asyncio.sleep(0.02)
    assert processes_of(str(tmp_path)) == []
    assert list((tmp_path / "spool" / "sessions").iterdir()) == []
    assert list((tmp_path / "spool" / "execs").rglob("std*")) == [], "of each there is its id at most"
