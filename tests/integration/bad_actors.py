"""What a hostile client does, in a process of its own: its arguments are an act, a URL and a key.

Two of the acts are honest: they want the same of the engine as a hostile one, from a client that sends no
more than its limits allow. What a hostile one costs others beyond that is what its hostility costs.

An act goes on until it is told to stop (SIGTERM), as fast as its own process can; then it prints what
answers it got, by status, as a line of JSON.
"""

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp

from tests.integration.raw_client import request

CHAT = "/v1/chat/completions"
IDLE_CONNECTIONS = 5000
WORKERS = 32
HONEST_WORKERS = 2
"""As many sessions as a stranger may have at work."""
Answers = Counter[str]


async def floods(url: str, key: str, answers: Answers, workers: int = WORKERS) -> None:
    """New sessions, as many at a time as there are workers, whatever the answer says of later."""
    headers = {"authorization": f"Bearer {key}"}

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        content = f"flood {number} " + "word " * 200
        body = {"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": content}]}
        async with session.post(CHAT, json=body, headers=headers) as answer:
            await answer.read()
            answers[str(answer.status)] += 1

    await _for_ever(url, one, workers)


async def asks(url: str, key: str, answers: Answers) -> None:
    """The turns of the flood, as many at a time as it may have."""
    await floods(url, key, answers, HONEST_WORKERS)


async def forges(url: str, key: str, answers: Answers, workers: int = WORKERS, owner: str = "calm") -> None:
    """Turns under ids that are another tenant's."""
    headers = {"authorization": f"Bearer {key}"}

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        name = f"{owner}-{number % 8}"
        body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
        async with session.post(CHAT, json=body, headers=headers | {"x-mars-session": name}) as answer:
            await answer.read()
            answers[str(answer.status)] += 1
        async with session.post("/finish_session", json={"session_id": name}, headers=headers) as answer:
            await answer.read()

    await _for_ever(url, one, workers)


async def chats(url: str, key: str, answers: Answers) -> None:
    """The turns of the forger, under ids of its own, as many at a time as it may have."""
    await forges(url, key, answers, HONEST_WORKERS, "own")


async def sends_rubbish(url: str, key: str, answers: Answers) -> None:
    """Bodies that are too large, that are no JSON, that are no HTTP, and keys that are none."""
    authorization = f"authorization: Bearer {key}"
    rubbish = (
        request(f"POST {CHAT}", authorization, "content-length: 1000000000000"),
        request(f"POST {CHAT}", authorization, body=b"{" * 10_000),
        request(f"POST {CHAT}", authorization, body=b"[" * 10_000),
        request(f"POST {CHAT}", "authorization: Bearer mars-00000000-nobody", body=b"{}"),
        b"\x16\x03\x01\x02\x00\x01\x00" * 20,
    )
    parts = urlsplit(url)

    async def one(_: aiohttp.ClientSession, number: int) -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(rubbish[number % len(rubbish)])
            head = await reader.read(4096)
            answers[head[9:12].decode("latin-1")] += 1
        finally:
            writer.close()

    await _for_ever(url, one)


async def is_silent(url: str, _: str, answers: Answers) -> None:
    """Connections that say nothing, opened anew when they are closed."""
    parts = urlsplit(url)

    async def keep() -> None:
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
                answers["opened"] += 1
                await reader.read(1)
                writer.close()

    async with asyncio.TaskGroup() as tasks:
        for number in range(IDLE_CONNECTIONS):
            tasks.create_task(keep())
            if number % 100 == 99:
                await asyncio.sleep(0.01)


async def _for_ever(
    url: str, one: Callable[[aiohttp.ClientSession, int], Awaitable[None]], workers: int = WORKERS
) -> None:
    async def work(session: aiohttp.ClientSession, number: int) -> None:
        while True:
            with suppress(OSError, aiohttp.ClientError):
                await one(session, number)
            number += workers

    async with (
        aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as session,
        asyncio.TaskGroup() as tasks,
    ):
        for number in range(workers):
            tasks.create_task(work(session, number))


HOSTILE = {act.__name__: act for act in (floods, forges, sends_rubbish, is_silent)}
HONEST = {act.__name__: act for act in (asks, chats)}
ACTS = HOSTILE | HONEST


async def main(act: str, url: str, key: str) -> None:
    answers: Answers = Counter()
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    sys.stdout.write("acting\n")
    sys.stdout.flush()
    with suppress(asyncio.CancelledError):
        await ACTS[act](url, key, answers)
    sys.stdout.write(json.dumps(answers) + "\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
