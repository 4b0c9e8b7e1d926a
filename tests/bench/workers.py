"""What several workers cost, and how connections spread: ``PYTHONPATH=. python tests/bench/workers.py``.

The backend is a raw socket in this process that answers at once, so that what is left is the proxy. Turns go
one after the other (latency), then from several clients at once (rate); then connections are opened against
two ways of sharing a port. On a machine with few cores client, backend, parent and workers share them: read
the latency as a bound, and the rate as what this machine does and no more.
"""

import argparse
import asyncio
import os
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiohttp

from tests.integration import faulty_backend as faulty
from tests.integration.proxy_process import proxy_process

TURNS = 600
CLIENTS = 16
CONNECTIONS = 200
ACCEPTORS = 4


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("turns", "balance"))
    only = parser.parse_args().only
    if only != "balance":
        for workers in (1, 2, 4):
            await turns(workers)
    if only != "turns":
        for way in ("shared", "reuseport"):
            for is_paced in (True, False):
                await balance(way, is_paced=is_paced)


async def turns(workers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with (
            faulty.faulty_backend(faulty.answers_well) as backend,
            proxy_process(
                *(
                    "--backend",
                    backend.url,
                    "--workers",
                    str(workers),
                    "--port",
                    "0",
                    "--log-level",
                    "warning",
                ),
                log=Path(folder, "log"),
            ) as proxy,
            aiohttp.ClientSession() as client,
        ):
            await one_by_one(client, proxy.url, 100, "warm")
            took_ms = await one_by_one(client, proxy.url, TURNS, "turn")
            started_s = time.perf_counter()
            async with asyncio.TaskGroup() as tasks:
                for number in range(CLIENTS):
                    tasks.create_task(one_by_one(client, proxy.url, TURNS // 4, f"many-{number}"))
            rate = CLIENTS * (TURNS // 4) / (time.perf_counter() - started_s)
    p50, p99 = statistics.median(took_ms), statistics.quantiles(took_ms, n=100)[98]
    say(f"{workers} workers: p50 {p50:.2f} ms, p99 {p99:.2f} ms, {rate:.0f} turns/s of {CLIENTS} clients")


async def one_by_one(client: aiohttp.ClientSession, url: str, count: int, name: str) -> list[float]:
    took_ms = []
    for number in range(count):
        body = {"model": "m", "messages": [{"role": "user", "content": f"{name} {number}"}]}
        started_s = time.perf_counter()
        async with client.post(
            url + "/v1/chat/completions", json=body, headers={"x-mars-session": f"{name}-{number}"}
        ) as answer:
            await answer.read()
        took_ms.append(1000 * (time.perf_counter() - started_s))
    return took_ms


async def balance(way: str, *, is_paced: bool) -> None:
    """Connections that stay, as those of agents do, over processes that accept with uvloop."""
    shared = way == "shared"
    first = socket.create_server(("127.0.0.1", 0), reuse_port=not shared, backlog=4096)
    port = first.getsockname()[1]
    command = (sys.executable, "-c", ACCEPT, str(port), str(first.fileno()) if shared else "-1")
    processes = [
        await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, pass_fds=(first.fileno(),) if shared else ()
        )
        for _ in range(ACCEPTORS)
    ]
    for process in processes:
        assert process.stdout is not None
        await process.stdout.readline()
    first.close()
    writers, taken = [], Counter[bytes]()
    for _ in range(CONNECTIONS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append((reader, writer))
        if is_paced:
            taken[await reader.readline()] += 1
    for reader, _ in writers if not is_paced else ():
        taken[await reader.readline()] += 1
    for _, writer in writers:
        writer.close()
    for process in processes:
        process.kill()
        await process.wait()
    pace = "one by one" if is_paced else "all at once"
    say(f"{way}, {pace}: {sorted(taken.values())} of {CONNECTIONS} over {ACCEPTORS} processes")


ACCEPT = """
import asyncio, os, socket, sys, uvloop
async def main(port, fd):
    async def come(reader, writer):
        writer.write(b"%d\\n" % os.getpid())
        await reader.read()
        writer.close()
    if fd >= 0:
        listener = socket.socket(fileno=fd)
    else:
        listener = socket.create_server(("127.0.0.1", port), reuse_port=True, backlog=4096)
    server = await asyncio.start_server(come, sock=listener)
    print("ready", flush=True)
    await server.serve_forever()
uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
"""


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    assert os.cpu_count()
    asyncio.run(main())
