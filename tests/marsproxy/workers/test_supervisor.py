"""Workers as real processes: they share a port and all state, die one by one, and never alone."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration import faulty_backend as faulty
from tests.integration.faulty_backend import Exchange
from tests.integration.proxy_process import HANG_S, ProxyProcess, proxy_process, until_gone
from tests.integration.running import client_of
from tests.integration.stubborn_clients import Tally, play_turns

pytestmark = pytest.mark.slow

SESSIONS, TURNS = 8, 12


async def slowly(exchange: Exchange) -> None:
    """A turn long enough for a stop to fall into it."""
    await asyncio.sleep(0.1)
    await faulty.answers_well(exchange)


async def value_of(url: str, name: str) -> float:
    async with client_of(url) as client:
        page = (await client.get("/metrics")).text
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))


async def listed(url: str) -> dict[str, Any]:
    async with client_of(url) as client:
        sessions: dict[str, Any] = (await client.get("/mars/v1/sessions")).json()
    return sessions


async def until_workers(proxy: ProxyProcess, known: set[int], count: int) -> list[int]:
    """Wait for that many, none of them in ``known``, that serve."""
    async with asyncio.timeout(HANG_S):
        while len(found := [pid for pid in proxy.workers if pid not in known]) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return found


async def test_workers_are_one_proxy(tmp_path: Path) -> None:
    """Whoever is asked knows every session and counts every turn; each has the whole event log. One that is
    killed is replaced, and knows what the others do."""
    arguments = ("--workers", "2", "--port", "0", "--event-log", str(tmp_path / "log"))
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        proxy_process("--backend", backend.url, *arguments, log=tmp_path / "stderr") as proxy,
    ):
        tally = Tally()
        for number in range(SESSIONS):
            await play_turns(proxy.url, f"agent-{number}", 2, tally)
        assert (tally.finished, tally.attempts) == (2 * SESSIONS, 2 * SESSIONS)
        for _ in range(6):  # connections of their own: both workers are asked, all but certainly
            assert (await listed(proxy.url))["total"] == SESSIONS
            assert await value_of(proxy.url, "mars_turns_total") == 2 * SESSIONS
        victim = proxy.workers[0]
        os.kill(victim, signal.SIGKILL)
        await until_gone([victim])
        assert await value_of(proxy.url, "mars_turns_total") == 2 * SESSIONS
        await until_workers(proxy, {victim}, 2)
        await play_turns(proxy.url, "agent-0", 1, tally)
        assert tally.lost == []
        assert (await listed(proxy.url))["total"] == SESSIONS
        proxy.signal(signal.SIGTERM)
        assert await proxy.ended() == 0
    logs = [folder.name for folder in (tmp_path / "log").iterdir()]
    assert sorted(logs) == ["worker-1", "worker-2"]
    arrivals = {
        name: b"".join(file.read_bytes() for file in (tmp_path / "log" / name).iterdir()).count(
            b'"TurnArrived"'
        )
        for name in logs
    }
    assert max(arrivals.values()) == 2 * SESSIONS + 1


async def test_a_rolling_restart_loses_no_turn(tmp_path: Path) -> None:
    """All workers are new, each session is known still, and no answer broke off."""
    async with (
        faulty.faulty_backend(slowly) as backend,
        proxy_process(
            "--backend", backend.url, "--workers", "2", "--port", "0", log=tmp_path / "stderr"
        ) as proxy,
    ):
        old, tally = set(proxy.workers), Tally()
        async with asyncio.TaskGroup() as tasks:
            for number in range(SESSIONS):
                tasks.create_task(play_turns(proxy.url, f"agent-{number}", TURNS * 3, tally))
            await asyncio.sleep(0.5)
            proxy.signal(signal.SIGUSR2)
            await until_workers(proxy, old, 2)
            await until_gone(list(old))
        assert tally.lost == []
        assert tally.broken_answers == 0
        assert tally.finished == SESSIONS * TURNS * 3
        assert (await listed(proxy.url))["total"] == SESSIONS
        assert await value_of(proxy.url, 'mars_turns_total{ending="finished"') == tally.finished


async def test_workers_die_with_their_parent(tmp_path: Path) -> None:
    """Even if it had no time to tell them; the port is free again."""
    async with (
        faulty.faulty_backend(faulty.answers_well) as backend,
        proxy_process(
            "--backend", backend.url, "--workers", "2", "--port", "0", log=tmp_path / "stderr"
        ) as proxy,
    ):
        workers = proxy.workers
        assert len(workers) == 2
        proxy.process.kill()
        await until_gone(workers)
        with pytest.raises(httpx.ConnectError):
            await listed(proxy.url)


async def test_a_second_stop_cuts(tmp_path: Path) -> None:
    """And the exit is as orderly as the first would have been."""
    never = asyncio.Event()

    async def hangs(exchange: Exchange) -> None:
        await never.wait()

    async with (
        faulty.faulty_backend(hangs) as backend,
        proxy_process(
            "--backend", backend.url, "--workers", "2", "--port", "0", log=tmp_path / "stderr"
        ) as proxy,
        client_of(proxy.url, timeout=HANG_S) as client,
        asyncio.TaskGroup() as tasks,
    ):
        asking = tasks.create_task(_failure_of(client))
        async with asyncio.timeout(HANG_S):
            while not backend.requests:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        proxy.signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        assert proxy.process.returncode is None
        proxy.signal(signal.SIGTERM)
        assert await proxy.ended() == 0
        assert isinstance(await asking, httpx.RemoteProtocolError)


async def test_a_policy_that_the_backends_cannot_serve_is_refused(tmp_path: Path) -> None:
    """By every worker at once; nobody tries again."""
    async with faulty.faulty_backend(faulty.answers_well) as backend:
        with pytest.raises(AssertionError, match="needs backends that take hints"):
            async with proxy_process(
                *("--backend", backend.url, "--workers", "2", "--port", "0", "--policy", "continuum"),
                log=tmp_path / "stderr",
            ):
                pass


async def _failure_of(client: httpx.AsyncClient) -> Exception | None:
    try:
        await client.post(
            "/v1/chat/completions", json={"model": "m", "messages": [{"role": "user", "content": "x"}]}
        )
    except httpx.HTTPError as error:
        return error
    return None
