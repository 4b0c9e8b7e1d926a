"""Every status that the OpenAPI document promises can be had, and no other."""

from typing import Any

import httpx
from starlette.routing import compile_path

from gateway.host import HostFault
from gateway.host_agent.wire import Fault
from gateway.limits import Limits
from tests.gateway.rest_rig import Rest, open_rest, until
from tests.gateway.test_openapi import DOCUMENT

Seen = set[tuple[str, str, int]]
TOKENS = {"alice": "alice-token-0123456789", "bob": "bob-token-0123456789"}
DOCUMENTED: Seen = {
    (method.upper(), path, int(status))
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    for status in operation["responses"]
}
TOO_SLOW = {each for each in DOCUMENTED if each[2] == 408}
"""After 30 s of silence; see ``test_transfers`` and ``test_decode``."""

NAMES = {"sid": "s", "exec_id": "ex-none", "lease_id": "le-none", "host": "nowhere"}
WRONG = {"sid": ".x", "exec_id": "x" * 65, "lease_id": "x" * 65, "host": "x" * 256}
NEEDS_BODY = {"signal": {"signal": "SIGINT"}, "leases": {"session": "s"}, "execs": {"command": "make"}}


PATTERNS = {path: compile_path(path)[0] for path in DOCUMENT["paths"]}


def recording(rest: Rest, seen: Seen) -> httpx.AsyncClient:
    async def record(response: httpx.Response) -> None:
        method = response.request.method
        for path, pattern in PATTERNS.items():
            if method.lower() in DOCUMENT["paths"][path] and pattern.match(response.request.url.path):
                seen.add((method, path, response.status_code))

    rest.http.event_hooks["response"].append(record)
    return rest.http


def operations(*, names: dict[str, str]) -> list[tuple[str, str, Any]]:
    """Method, URL and a body that would do, of each under /v1 but the event streams of what runs."""
    found = []
    for path, item in DOCUMENT["paths"].items():
        if path.startswith("/v1"):
            url = path.format(**names)
            body = NEEDS_BODY.get(url.rpartition("/")[2])
            if path.endswith("/files"):
                url += "?path=f"
            found += [(method.upper(), url, body) for method in item]
    return found


async def test_who_asks() -> None:
    seen: Seen = set()
    async with open_rest(tokens=TOKENS, token=TOKENS["alice"]) as rest:
        http = recording(rest, seen)
        for method, url, _ in operations(names=NAMES):
            for headers, status in [
                ({"Authorization": "Bearer x"}, 401),
                ({"Origin": "http://evil.example"}, 403),
            ]:
                assert (await http.request(method, url, headers=headers)).status_code == status, (method, url)
    assert {each for each in DOCUMENTED if each[2] in (401, 403)} == seen


async def test_all_others() -> None:
    seen: Seen = set()
    limits = Limits(max_file_bytes=2000, max_archive_bytes=2000, max_body_bytes=2000, max_sessions=2)
    async with open_rest(slots=1, queue_limit=1, limits=limits) as rest:
        http = recording(rest, seen)
        await _names_wrong_and_unknown(http)
        await _too_large(http)
        await _life_of_a_session(rest, http)
        await _life_of_a_command(rest, http)
        await _life_of_a_lease(http)
        await _files(rest, http)
        await _faults(rest, http)
        for path in ("/healthz", "/readyz", "/metrics", "/v1/hosts", "/v1/sessions/s/pty"):
            await http.get(path)
        await http.put("/v1/hosts/here/drain")
        rest.gateway.is_draining = True
        await http.get("/readyz")
        await http.post("/v1/leases", json={"session": "s"})
    async with open_rest(limits=Limits(max_execs=0)) as rest:
        await _forgotten(rest, recording(rest, seen))
    async with open_rest(is_reached=False) as rest:
        for method, url, body in operations(names=NAMES):
            await recording(rest, seen).request(method, url, json=body)
    undocumented = {each for each in seen if each not in DOCUMENTED}
    assert undocumented == set()
    missing = DOCUMENTED - seen - TOO_SLOW
    assert sorted(each for each in missing if each[2] not in (401, 403)) == []


async def _names_wrong_and_unknown(http: httpx.AsyncClient) -> None:
    for names in (WRONG, {**NAMES, "sid": "nobody"}):
        for method, url, body in operations(names=names):
            if not url.endswith("/leases") and (method != "PUT" or not url.endswith("/nobody")):
                await http.request(method, url, json=body)
    await http.put("/v1/sessions/nobody", json={"host": "nowhere"})
    await http.post("/v1/leases", json={"session": 1})
    await http.post("/v1/leases", json={"session": "nobody", "host": "nowhere"})


async def _too_large(http: httpx.AsyncClient) -> None:
    for method, url, _ in operations(names=NAMES):
        if method in ("PUT", "POST") or "leases" in url:
            await http.request(method, url, content=b"x" * 3000)


async def _life_of_a_session(rest: Rest, http: httpx.AsyncClient) -> None:
    for name in ("s", "s2", "s3"):
        await http.put(f"/v1/sessions/{name}")
    await http.get("/v1/sessions/s")
    session = rest.gateway.sessions.get("", "s2")
    session.is_ending = True
    await http.put("/v1/sessions/s2")
    await http.post("/v1/sessions/s2/execs", json={"command": "make"})
    for part in ("files?path=f", "archive"):
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            await http.request(method, f"/v1/sessions/s2/{part}")
    session.is_ending = False
    await http.delete("/v1/sessions/s2")


async def _life_of_a_command(rest: Rest, http: httpx.AsyncClient) -> None:
    execs = "/v1/sessions/s/execs"
    running = await rest.running(stdin_open=True, tty={})
    queued = await rest.start(cpu=1)
    await http.post(execs, json={"command": "make", "cpu": 1})
    await http.delete(f"/v1/execs/{queued}?wait=20")
    url = f"/v1/execs/{running}"
    await http.put(f"{url}/heartbeat", json={"ttl_s": 3600})
    await _conversation(http, url)
    await http.post(f"{url}/stdin", json={"offset": 99})
    for fault in (Fault.INTERNAL, Fault.GONE):
        rest.host.fails = HostFault(fault, "because")
        await _conversation(http, url)
    rest.host.fails = HostFault(Fault.FORBIDDEN, "because")
    await http.put(f"{url}/tty", json={})
    await http.post(f"{url}/signal", json={"signal": "SIGINT"})
    rest.host.fails = None
    await http.delete(url)
    await until(lambda: not rest.host.running())
    await http.get(f"{url}/events")
    await http.get(f"{url}/events", headers={"Last-Event-ID": "2.0.0"})
    for key, command in (("k", "make"), ("k", "other")):
        await http.post(execs, json={"command": command}, headers={"Idempotency-Key": key})
    await until(rest.host.running)
    rest.host.finish(rest.host.running()[0])
    again = {"json": {"command": "make"}, "headers": {"Idempotency-Key": "k"}, "params": {"wait": 20}}
    answer = await http.post(execs, **again)  # type: ignore[arg-type]
    await http.get(f"/v1/execs/{answer.json()['id']}")
    await http.delete(f"/v1/execs/{answer.json()['id']}")


async def _forgotten(rest: Rest, http: httpx.AsyncClient) -> None:
    again = {"json": {"command": "make"}, "headers": {"Idempotency-Key": "k"}}
    await http.post("/v1/sessions/s/execs", **again)  # type: ignore[arg-type]
    await until(rest.host.running)
    rest.host.finish(rest.host.running()[0])
    await until(lambda: not rest.gateway.execs.active_sessions())
    await http.post("/v1/sessions/s/execs", **again)  # type: ignore[arg-type]


async def _conversation(http: httpx.AsyncClient, url: str) -> None:
    await http.get(f"{url}/output")
    await http.put(f"{url}/tty", json={})
    await http.post(f"{url}/signal", json={"signal": "SIGINT"})
    await http.post(f"{url}/stdin", json={})


async def _life_of_a_lease(http: httpx.AsyncClient) -> None:
    held = (await http.post("/v1/leases", json={"session": "a"})).headers["Location"]
    queued = (await http.post("/v1/leases", json={"session": "b"})).headers["Location"]
    await http.post("/v1/leases", json={"session": "c"})
    for url in (queued, held):
        await http.get(url)
        await http.put(url)
        await http.request("DELETE", url)
        await http.put(url)


async def _files(rest: Rest, http: httpx.AsyncClient) -> None:
    files, archive = "/v1/sessions/s/files?path=f", "/v1/sessions/s/archive"
    await http.put(files, content=b"abc")
    await http.get(files)
    await http.head(files)
    await http.get(files, headers={"Range": "bytes=1-"})
    await http.get(files, headers={"Range": "bytes=9-"})
    await http.delete(files)
    await http.put(archive, content=b"tar")
    await http.get(archive)
    rest.host.archives["."] = b"tar"
    await http.get(archive)


async def _faults(rest: Rest, http: httpx.AsyncClient) -> None:
    for fault, methods in ((Fault.NO_SPACE, ["PUT"]), (Fault.INTERNAL, ["GET", "HEAD", "PUT", "DELETE"])):
        rest.host.fails = HostFault(fault, "because")
        for method in methods:
            for part in ("files?path=f", "archive"):
                await http.request(method, f"/v1/sessions/s/{part}")
    rest.host.fails = None
