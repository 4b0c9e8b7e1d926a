"""A proxy, an engine and a hostile client as processes, and a calm tenant whose turns are timed."""

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from marsproxy.children import Child
from tests.marsproxy.tenants.guests import Guests

SESSIONS = 8
STREAM_TOKENS = 40


@dataclass
class Seen:
    """What the calm tenant got."""

    seconds: list[float] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)

    def quantile_s(self, share: float) -> float:
        """Nearest rank."""
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


@dataclass
class World:
    url: str
    guests: Guests

    async def calm(self, turns: int) -> Seen:
        """So many turns in each of a few sessions, one after the other."""
        seen = Seen()
        async with (
            httpx.AsyncClient(base_url=self.url, timeout=60, trust_env=False) as client,
            asyncio.TaskGroup() as tasks,
        ):
            for number in range(SESSIONS):
                tasks.create_task(self._session(client, number, turns, seen))
        return seen

    async def _session(self, client: httpx.AsyncClient, number: int, turns: int, seen: Seen) -> None:
        headers = self.guests.bearer("calm") | {"x-mars-session": f"calm-{number}"}
        messages = [{"role": "user", "content": f"task {number} " + "word " * 300}]
        for _ in range(turns):
            body = {"model": "m", "max_tokens": STREAM_TOKENS, "messages": messages}
            started_s = time.perf_counter()
            answer = await client.post("/v1/chat/completions", json=body, headers=headers)
            seen.seconds.append(time.perf_counter() - started_s)
            seen.statuses.add(answer.status_code)
            seen.sessions.add(answer.headers.get("x-mars-session", ""))
            if answer.status_code == 200:
                messages.append(answer.json()["choices"][0]["message"])
                messages.append({"role": "user", "content": "go on"})

    @asynccontextmanager
    async def beside(self, act: str) -> AsyncIterator[dict[str, int]]:
        """While somebody misbehaves; the answers that it got are there afterwards."""
        answers: dict[str, int] = {}
        command = (sys.executable, "-m", "tests.integration.bad_actors", act)
        process = await asyncio.create_subprocess_exec(
            *command, self.url, self.guests.keys["bad"], stdout=PIPE
        )
        assert process.stdout is not None
        try:
            assert await process.stdout.readline() == b"acting\n"
            await asyncio.sleep(1.0)  # until it is well under way
            yield answers
        finally:
            process.terminate()
            out, _ = await process.communicate()
        answers |= json.loads(out)


GUEST = "max_open_turns = 4\nmax_sessions = 2\ntokens_per_s = 2000"
"""What an operator would let a stranger have."""


@asynccontextmanager
async def open_world(directory: Path, bad: str = GUEST) -> AsyncIterator[World]:
    """``bad`` is what the file says of the hostile tenant."""
    guests = Guests(directory / "tenants.toml")
    guests.write(calm="weight = 4", bad=bad)
    engine = Child("loadgen", "engine", "--port", "0", "--served-model-name", "m")
    try:
        proxy = Child(
            "marsproxy",
            *("serve", "--port", "0", "--backend", await engine.start(), "--log-level", "warning"),
            *("--tenants", str(guests.path), "--event-log", str(directory / "log")),
        )
        try:
            yield World(await proxy.start(), guests)
        finally:
            await proxy.stop()
    finally:
        await engine.stop()
