"""What the gateway costs: ``PYTHONPATH=. python tests/bench/gateway_speed.py``, with nothing else running.

Commands per second, latency added to a plain spawn, many at once, a gigabyte of output, readers that
stall; through REST, on this machine's own agent and on one behind a real sshd. The caller shares the cores
with what it measures, as an agent framework on the same machine would.
"""

import asyncio
import json
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import cyclopts
from rich.console import Console
from rich.table import Table

from tests.gateway_live.world import PLACES, World, open_world

CONCURRENCY = 32
"""Requests under way for the throughput: more than a client machine's agents, fewer than the queue holds."""
COMMANDS = 2000
LATENCIES = 300
AT_ONCE = 500
OUTPUT_BYTES = 10**9
STALLED = 20
GOALS = {"local": {"execs_per_s": 150, "added_p50_ms": 10}, "ssh": {"execs_per_s": 60, "added_p50_ms": 25}}
MAX_RSS_MB = 150

Clock = Callable[[], float]


@dataclass
class Figures:
    """None: not measured."""

    place: str
    execs_per_s: float | None = None
    direct_p50_ms: float | None = None
    added_p50_ms: float | None = None
    added_p99_ms: float | None = None
    at_once: int | None = None
    at_once_s: float | None = None
    """From the first request to the last answer, of commands that sleep two seconds."""
    output_mb_per_s: float | None = None
    """Written by the command, kept, and read to the end by one reader, one after the other."""
    gateway_rss_mb: float | None = None
    agent_rss_mb: float | None = None
    """Both at their highest, over the gigabyte."""
    execs_per_s_beside_stalled: float | None = None
    missed: list[str] = field(default_factory=list)


@dataclass
class Client:
    http: aiohttp.ClientSession
    session: str

    async def run(self, argv: list[str], **fields: Any) -> dict[str, Any]:
        body = {"argv": argv, **fields}
        url = f"/v1/sessions/{self.session}/execs?wait=60"
        async with self.http.post(url, json=body) as response:
            answer: dict[str, Any] = await response.json()
        assert (answer.get("state"), answer.get("exit_code")) == ("exited", 0), answer
        return answer

    async def many(self, count: int, concurrency: int) -> float:
        """Commands per second."""
        todo = iter(range(count))

        async def work() -> None:
            for _ in todo:
                await self.run(["true"], cpu=0.05)

        began_s = time.perf_counter()
        async with asyncio.TaskGroup() as workers:
            for _ in range(concurrency):
                workers.create_task(work())
        return count / (time.perf_counter() - began_s)


@asynccontextmanager
async def client_of(world: World) -> AsyncIterator[Client]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(world.gateway.url, connector=connector) as http:
        name = "speed"
        async with http.put(f"/v1/sessions/{name}", json={"host": world.host}) as response:
            response.raise_for_status()
        yield Client(http, name)


async def throughput(client: Client, figures: Figures) -> None:
    await client.many(100, CONCURRENCY)
    figures.execs_per_s = max([await client.many(COMMANDS // 2, CONCURRENCY) for _ in range(2)])


async def latency(client: Client, figures: Figures) -> None:
    """One command at a time, in turns with a plain spawn."""
    direct, through = [], []
    for _ in range(LATENCIES):
        began_s = time.perf_counter()
        subprocess.run(["true"], check=True)  # noqa: ASYNC221 - that wait is the measurement
        middle_s = time.perf_counter()
        await client.run(["true"])
        direct.append(middle_s - began_s)
        through.append(time.perf_counter() - middle_s)
    figures.direct_p50_ms = statistics.median(direct) * 1e3
    figures.added_p50_ms = statistics.median(through) * 1e3 - figures.direct_p50_ms
    figures.added_p99_ms = statistics.quantiles(through, n=100)[98] * 1e3 - figures.direct_p50_ms


async def at_once(client: Client, figures: Figures) -> None:
    """The host sets 256 MB aside for each command of which nothing is known: it has met ``sleep`` before."""
    await client.run(["sleep", "0"])
    began_s = time.perf_counter()
    async with asyncio.TaskGroup() as all_of_them:
        for _ in range(AT_ONCE):
            all_of_them.create_task(client.run(["sleep", "2"], cpu=0.05))
        most = 0
        async with client.http.get("/v1/hosts") as response:  # A connection that is there already.
            await response.read()
        while len(asyncio.all_tasks()) > AT_ONCE // 2:
            async with client.http.get("/v1/hosts") as response:
                hosts = (await response.json())["hosts"]
            most = max(most, *(host["running"] for host in hosts))
            await asyncio.sleep(0.1)
    figures.at_once, figures.at_once_s = most, time.perf_counter() - began_s


async def gigabyte(client: Client, figures: Figures, world: World) -> None:
    began_s = time.perf_counter()
    argv = ["head", "-c", str(OUTPUT_BYTES), "/dev/zero"]
    answer = await client.run(argv, output={"max_bytes": OUTPUT_BYTES}, timeout_s=300)
    assert answer["stdout"]["kept_bytes"] == OUTPUT_BYTES, answer
    offset, is_eof = 0, False
    while not is_eof:
        url = f"/v1/execs/{answer['id']}/output?limit={1 << 20}&offset={offset}"
        async with client.http.get(url) as response:
            await response.read()
            is_eof = response.headers["X-Eof"] == "true"
            offset = int(response.headers["X-Next-Offset"])
    assert offset == OUTPUT_BYTES
    figures.output_mb_per_s = OUTPUT_BYTES / 1e6 / (time.perf_counter() - began_s)
    figures.gateway_rss_mb = highest_rss_mb(world.gateway.pid)
    figures.agent_rss_mb = max(map(highest_rss_mb, world.agents()))


async def beside_stalled(client: Client, figures: Figures, world: World) -> None:
    """Readers that ask for a gigabyte and read none of it."""
    argv = ["head", "-c", str(OUTPUT_BYTES // 10), "/dev/zero"]
    big = (await client.run(argv, output={"max_bytes": OUTPUT_BYTES}))["id"]
    host, _, port = world.gateway.url.removeprefix("http://").partition(":")
    writers = []
    for number in range(STALLED):
        _, writer = await asyncio.open_connection(host, int(port), limit=1024)
        path = f"/v1/execs/{big}/" + ("events" if number % 2 else f"output?limit={1 << 20}")
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        writers.append(writer)
    figures.execs_per_s_beside_stalled = await client.many(COMMANDS // 2, CONCURRENCY)
    for writer in writers:
        writer.close()


def highest_rss_mb(pid: int) -> float:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return int(status["VmHWM"].split()[0]) * 1024 / 1e6


async def measure(place: str) -> Figures:
    figures = Figures(place)
    room = ("--queue-limit", "1000", "--max-output-bytes", str(2 * OUTPUT_BYTES))
    with open_world(place, *room, slots=64) as world:
        async with client_of(world) as client:
            await throughput(client, figures)
            await latency(client, figures)
            await at_once(client, figures)
            await beside_stalled(client, figures, world)
    with open_world(place, *room, slots=64) as world:
        async with client_of(world) as client:
            await gigabyte(client, figures, world)
    figures.missed = missed(figures)
    return figures


def missed(figures: Figures) -> list[str]:
    goals = GOALS[figures.place]
    found = []
    if (figures.execs_per_s or 0) < goals["execs_per_s"]:
        found.append("execs_per_s")
    if figures.added_p50_ms is None or figures.added_p50_ms > goals["added_p50_ms"]:
        found.append("added_p50_ms")
    if figures.at_once != AT_ONCE:
        found.append("at_once")
    if figures.gateway_rss_mb is None or figures.gateway_rss_mb > MAX_RSS_MB:
        found.append("gateway_rss_mb")
    return found


def show(all_figures: list[Figures]) -> None:
    table = Table("figure", *(figures.place for figures in all_figures), "goal")
    for name in asdict(all_figures[0]):
        if name == "place":
            continue
        values = [getattr(figures, name) for figures in all_figures]
        goal = " / ".join(str(goals[name]) for goals in GOALS.values() if name in goals)
        table.add_row(name, *(f"{v:.1f}" if isinstance(v, float) else str(v) for v in values), goal)
    Console().print(table)


def main(places: list[str] | None = None, out: Path | None = None) -> int:
    """``out``: a JSON file for the figures."""
    all_figures = [asyncio.run(measure(place)) for place in places or PLACES]
    show(all_figures)
    if out is not None:
        out.write_text(json.dumps([asdict(figures) for figures in all_figures], indent=1) + "\n")
    return 1 if any(figures.missed for figures in all_figures) else 0


if __name__ == "__main__":
    raise SystemExit(cyclopts.App(default_command=main)(result_action="return_value"))
