"""Tenants where the proxy is several processes: the file reaches all, and limits hold over all of them."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from marsproxy.core.commands import Reason
from tests.integration import faulty_backend as faulty
from tests.integration.faulty_backend import Exchange
from tests.integration.proxy_process import HANG_S, proxy_process
from tests.integration.running import chat, client_of
from tests.marsproxy.store.redis_process import RedisProcess
from tests.marsproxy.tenants.guests import Guests

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    process = RedisProcess(tmp_path / "redis")
    yield process
    process.kill()


@pytest.fixture
def guests(tmp_path: Path) -> Guests:
    return Guests(tmp_path / "tenants.toml")


async def statuses(url: str, headers: dict[str, str], connections: int) -> set[int]:
    """A new connection each, for it is those that are spread over the workers."""
    found = set()
    for _ in range(connections):
        async with client_of(url, headers=headers) as client:
            found.add((await client.get("/v1/models")).status_code)
    return found


async def until(url: str, headers: dict[str, str], status: int) -> None:
    """Until every worker answers so, all but certainly."""
    async with asyncio.timeout(HANG_S):
        while await statuses(url, headers, 12) != {status}:
            pass


async def test_a_hangup_reaches_every_worker(tmp_path: Path, guests: Guests) -> None:
    """The file looks as it did, to whoever does not read it: the signal is what they go by."""
    guests.write(red="")
    before = guests.path.stat()
    old = guests.bearer("red")
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        proxy_process(
            *("--backend", backend.url, "--workers", "2", "--port", "0", "--tenants", str(guests.path)),
            log=tmp_path / "stderr",
        ) as proxy,
    ):
        await until(proxy.url, old, 200)
        workers = proxy.workers
        guests.rotate("red")
        guests.write(red="")
        os.utime(guests.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = guests.path.stat()
        assert (before.st_mtime_ns, before.st_size, before.st_ino) == (
            after.st_mtime_ns,
            after.st_size,
            after.st_ino,
        )
        proxy.signal(signal.SIGHUP)
        await until(proxy.url, guests.bearer("red"), 200)
        await until(proxy.url, old, 401)
        assert proxy.workers == workers


async def test_a_limit_holds_over_two_replicas(tmp_path: Path, guests: Guests, redis: RedisProcess) -> None:
    """Two turns of the tenant are open, one at each; a third is refused by either."""
    guests.write(red="max_open_turns = 2", blue="")
    may_answer = asyncio.Event()

    async def waits(exchange: Exchange) -> None:
        await may_answer.wait()
        await faulty.answers_well(exchange)

    async with faulty.faulty_backend(waits) as backend, AsyncExitStack() as stack:
        start = ("--backend", backend.url, "--port", "0", "--store", redis.url, "--tenants", str(guests.path))
        clients = []
        for name in ("1", "2"):
            proxy = await stack.enter_async_context(proxy_process(*start, log=tmp_path / name))
            client = client_of(proxy.url, headers=guests.bearer("red"), timeout=HANG_S)
            clients.append(await stack.enter_async_context(client))
        first, second = clients
        async with asyncio.TaskGroup() as tasks:
            open_turns = [tasks.create_task(each.post(CHAT, json=chat(f"{each}"))) for each in clients]
            async with asyncio.timeout(HANG_S):
                while len(backend.requests) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            for client in clients:
                refused = await client.post(CHAT, json=chat("one more"))
                assert refused.status_code == 429
                assert refused.json()["error"]["code"] == Reason.TENANT_TURNS.value
            other = tasks.create_task(first.post(CHAT, json=chat("hi"), headers=guests.bearer("blue")))
            async with asyncio.timeout(HANG_S):
                while len(backend.requests) < 3:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            may_answer.set()
        answered: list[httpx.Response] = [task.result() for task in (*open_turns, other)]
        assert [each.status_code for each in answered] == [200, 200, 200]
        assert (await second.post(CHAT, json=chat("one more"))).status_code == 200
