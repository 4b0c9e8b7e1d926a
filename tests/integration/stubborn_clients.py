"""Agents that go on until they have their answers, as the official clients do: again after a connection that
broke, and after 429 and 503.

Owns the retrying and the count. ``Balancer`` stands for whatever is between them and several proxies.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

MAX_ATTEMPTS = 30
PROBE_INTERVAL_S = 0.1


@dataclass
class Tally:
    """What became of the turns."""

    finished: int = 0
    attempts: int = 0
    lost: list[str] = field(default_factory=list)
    """Turns without an answer, and the last thing that happened to each."""
    broken_answers: int = 0
    """Answers that began and did not end: nothing but a kill may do that."""


async def play_turns(url: str, agent: str, turns: int, tally: Tally) -> None:
    """One session, turn after turn, on connections that are kept."""
    messages = [{"role": "user", "content": f"I am {agent}"}]
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        for number in range(turns):
            text = await _until_answered(client, agent, messages, tally)
            if text is None:
                return
            tally.finished += 1
            messages += [
                {"role": "assistant", "content": text},
                {"role": "user", "content": f"go on {number}"},
            ]


async def _until_answered(
    client: httpx.AsyncClient, agent: str, messages: list[dict[str, str]], tally: Tally
) -> str | None:
    body = {"model": "m", "stream": True, "messages": messages}
    last = ""
    for attempt in range(MAX_ATTEMPTS):
        tally.attempts += 1
        text = b""
        try:
            async with client.stream(
                "POST", "/v1/chat/completions", json=body, headers={"x-mars-session": agent}
            ) as answer:
                last = f"status {answer.status_code}"
                if answer.status_code == 200:
                    async for chunk in answer.aiter_raw():
                        text += chunk
                    if b"[DONE]" in text:
                        return "said"
                    last = "an error event"
        except httpx.TransportError as error:
            last = repr(error)
            tally.broken_answers += bool(text)
        await asyncio.sleep(min(0.05 * 2**attempt, 1.0))
    tally.lost.append(last)
    return None


class Balancer:
    """A tiny TCP balancer: each new connection goes to the next target whose ``/readyz`` is 200."""

    def __init__(self, targets: Sequence[str]) -> None:
        self.targets = list(targets)
        """May be changed while it runs."""
        self._ready: list[str] = list(targets)
        self._next = 0
        self._connections: set[asyncio.Task[None]] = set()

    async def probe(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            while True:
                self._ready = [target for target in self.targets if await self._is_ready(client, target)]
                await asyncio.sleep(PROBE_INTERVAL_S)

    async def _is_ready(self, client: httpx.AsyncClient, target: str) -> bool:
        try:
            return (await client.get(target + "/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            url = httpx.URL(self._choose())
            up_reader, up_writer = await asyncio.open_connection(url.host, url.port)
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, up_writer))
                group.create_task(_copy(up_reader, writer))
        except* (OSError, LookupError, asyncio.CancelledError):
            pass  # one side is gone, and so is the other then
        finally:
            self._connections.discard(task)
            writer.close()

    def _choose(self) -> str:
        self._next += 1
        return self._ready[self._next % len(self._ready)]

    def close(self) -> None:
        for task in list(self._connections):
            task.cancel()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@asynccontextmanager
async def balanced(*targets: str) -> AsyncIterator[tuple[str, Balancer]]:
    balancer = Balancer(targets)
    server = await asyncio.start_server(balancer.carry, "127.0.0.1", 0)
    async with asyncio.TaskGroup() as group:
        probing = group.create_task(balancer.probe())
        host, port = server.sockets[0].getsockname()[:2]
        try:
            yield f"http://{host}:{port}", balancer
        finally:
            probing.cancel()
            server.close()
            balancer.close()
