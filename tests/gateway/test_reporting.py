"""What reaches the proxy, at a small HTTP server that records it."""
# ruff: noqa: ASYNC110 - looking at real files and counters, now and then, is the test

import asyncio
import contextlib
import hashlib
import resource
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from gateway.limits import Limits
from gateway.protocol import ToolReport
from gateway.reporting import Reporter
from marsproxy.core.command_text import command_digest
from marsproxy.core.events import ToolHostsObserved

pytestmark = pytest.mark.slow  # real processes throughout

OpenRig = Callable[..., Any]


class RecordingProxy:
    """Answers each POST with the next of ``statuses``, then 200. Port 0 until it is started."""

    def __init__(self) -> None:
        self.reports: list[ToolReport] = []
        self.heads: list[str] = []
        self.statuses: list[int] = []
        self.refused = 0
        self.url = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
                body = await reader.readexactly(length)
                status = self.statuses.pop(0) if self.statuses else 200
                if status == 200:
                    self.heads.append(head)
                    self.reports.append(msgspec.json.decode(body, type=ToolReport))
                else:
                    self.refused += 1
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    def events(self) -> list[Any]:
        return [event for report in self.reports for event in report.events]

    async def until(self, is_enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not is_enough():
                await asyncio.sleep(0.01)


@pytest.fixture
async def proxy() -> AsyncIterator[RecordingProxy]:
    proxy = RecordingProxy()
    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as server:
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield proxy


async def test_each_command_is_told_in_order(open_rig: OpenRig, proxy: RecordingProxy) -> None:
    async with open_rig(proxy_url=proxy.url, proxy_token="t0ken", limits=Limits(slots=1)) as rig:
        await rig.session("g", labels={"llm_session": "llm-1"})
        command = "echo hi; exit 3"
        await asyncio.gather(
            rig.run(command, session="g", labels={"tool_call_id": "call_1"}),
            *(rig.run("true", session="g") for _ in range(5)),
        )
        await proxy.until(lambda: len(proxy.events()) == 18)
    of_one: dict[str, list[str]] = {}
    for event in proxy.events():
        of_one.setdefault(event.exec_id, []).append(event.phase.value)
    assert set(map(tuple, of_one.values())) == {("queued", "started", "finished")}
    digest = hashlib.sha256(command.encode()).hexdigest()
    queued, started, finished = (e for e in proxy.events() if e.command_digest == digest)
    assert (queued.gateway_session, queued.llm_session, queued.tool_call_id) == ("g", "llm-1", "call_1")
    assert (queued.queue_s, queued.run_s, queued.exit_code) == (None, None, None)
    assert {event.host for event in proxy.events()} == {"local"}
    assert [host.host for host in proxy.reports[0].hosts] == ["local"]
    assert started.queue_s is not None
    assert finished.run_s is not None
    assert (started.run_s, finished.exit_code) == (None, 3)
    assert (finished.tool_signature, started.memory_peak_mb) == ("echo", None)
    headroom = proxy.reports[0].headroom
    assert headroom is not None
    assert headroom.cores == 1
    assert headroom.memory_available_mb is not None
    assert headroom.memory_available_mb > 0
    assert headroom.memory_total_mb is not None
    assert headroom.memory_total_mb >= headroom.memory_available_mb
    assert all(head.startswith("POST /mars/v1/tools ") for head in proxy.heads)
    assert all("authorization: bearer t0ken" in head.lower() for head in proxy.heads)


async def test_shim_form_of_a_command_has_its_text_s_digest(open_rig: OpenRig, proxy: RecordingProxy) -> None:
    async with open_rig(proxy_url=proxy.url) as rig:
        await rig.session()
        await rig.run(None, argv=["bash", "-lc", "echo hi"])
        await proxy.until(lambda: len(proxy.events()) == 3)
    assert {event.command_digest for event in proxy.events()} == {hashlib.sha256(b"echo hi").hexdigest()}


@pytest.mark.parametrize(
    "argv",
    [
        ["/bin/bash", "-lc", "echo hi"],
        ["sh", "-c", "echo hi"],
        ["bash", "--norc", "-e", "-o", "pipefail", "-c", "echo hi"],
        ["dash", "-c", "echo hi"],
        ["env", "bash", "-c", "echo hi"],
        ["echo", "a b"],
    ],
)
async def test_the_digest_is_the_one_that_the_proxy_knows_the_tool_call_by(
    open_rig: OpenRig, proxy: RecordingProxy, argv: list[str]
) -> None:
    async with open_rig(proxy_url=proxy.url) as rig:
        await rig.session()
        await rig.run(None, argv=argv)
        await proxy.until(lambda: len(proxy.events()) == 3)
    assert {event.command_digest for event in proxy.events()} == {command_digest(argv)}


async def test_a_lease_is_told_with_the_digest_that_its_caller_named(
    open_rig: OpenRig, proxy: RecordingProxy
) -> None:
    digest = command_digest(["bash", "-lc", "make"])
    async with open_rig(proxy_url=proxy.url) as rig:
        lease = (await rig.http.post("/v1/leases", json={"session": "s", "command_sha256": digest})).json()
        await rig.http.request("DELETE", f"/v1/leases/{lease['id']}", json={"exit_code": 0})
        await proxy.until(lambda: len(proxy.events()) == 3)
    assert {(event.command_digest, event.host) for event in proxy.events()} == {(digest, "local")}


async def test_hosts_are_told_one_by_one_beside_their_sum(proxy: RecordingProxy) -> None:
    both = ToolHostsObserved(cores=3.0, running=1, queued=0)
    hosts = [replace(both, host="a", cores=1.0), replace(both, host="b", cores=2.0, running=0)]
    reporter = Reporter(proxy.url, None, lambda: both, lambda: 0.0, lambda: hosts)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(reporter.run())
        await proxy.until(lambda: bool(proxy.reports))
        running.cancel()
    assert (proxy.reports[0].headroom, proxy.reports[0].hosts) == (both, hosts)


async def test_headroom_goes_on_while_a_command_runs(open_rig: OpenRig, proxy: RecordingProxy) -> None:
    async with open_rig(proxy_url=proxy.url) as rig:
        await rig.session()
        exec_id = (await rig.run("sleep 300", wait=0))["id"]
        await proxy.until(
            lambda: any(not r.events and r.headroom and r.headroom.running for r in proxy.reports)
        )
        await rig.http.delete(f"/v1/execs/{exec_id}")


async def test_refused_batch_is_sent_again_before_newer_ones(
    open_rig: OpenRig, proxy: RecordingProxy
) -> None:
    proxy.statuses = [503, 503]
    async with open_rig(proxy_url=proxy.url) as rig:
        await rig.session()
        await rig.run("true")
        await proxy.until(lambda: len(proxy.events()) == 3)
        assert proxy.refused == 2
    assert [e.phase.value for e in proxy.events()] == ["queued", "started", "finished"]


async def test_proxy_that_does_not_know_us_costs_events_only(
    open_rig: OpenRig, proxy: RecordingProxy
) -> None:
    proxy.statuses = [404] * 1000
    async with open_rig(proxy_url=proxy.url) as rig:
        await rig.session()
        assert (await rig.run("true"))["state"] == "exited"
        await proxy.until(lambda: proxy.refused > 0)
        await proxy.until(lambda: "report_events_dropped 3.0" in rig.gateway.metrics.exposition().decode())


async def test_proxy_that_is_gone_costs_nothing(open_rig: OpenRig) -> None:
    async with open_rig(proxy_url="http://127.0.0.1:9") as rig:
        await rig.session()
        statuses = await asyncio.gather(*(rig.run("true") for _ in range(5)))
        assert {status["state"] for status in statuses} == {"exited"}


async def test_last_events_are_flushed_at_shutdown(open_rig: OpenRig, proxy: RecordingProxy) -> None:
    async with open_rig(proxy_url=proxy.url) as rig:
        await rig.session()
        exec_id = (await rig.run("echo up; sleep 300", wait=0))["id"]
        await rig.http.get(f"/v1/execs/{exec_id}/output", params={"wait": 20})
    phases = list(dict.fromkeys(event.phase.value for event in proxy.events()))  # They may come twice.
    assert phases == ["queued", "started", "finished"]
    assert proxy.events()[-1].exit_code == 130


async def test_a_large_command_is_told_with_its_peak(open_rig: OpenRig, proxy: RecordingProxy) -> None:
    """Above the gateway's own size; its arguments are told nobody."""
    own_peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    command = f"HIDDEN=hunter2 python3 -c 'x = b\"1\" * {own_peak_bytes + 100_000_000}'"
    async with open_rig(proxy_url=proxy.url) as rig:
        await rig.session()
        await rig.run(command)
        await proxy.until(lambda: len(proxy.events()) == 3)
    *_, finished = proxy.events()
    assert finished.tool_signature == "python3"
    assert finished.memory_peak_mb > own_peak_bytes / 1e6
    assert "hunter2" not in str(proxy.reports)
