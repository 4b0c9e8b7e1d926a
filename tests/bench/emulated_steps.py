"""What a step costs the machine when the accelerator is emulated, and how short a modelled step may be.

    PYTHONPATH=. .venv-vllm/bin/python tests/bench/emulated_steps.py

For numbers of running requests and stream intervals: CPU time per step of the engine's process, of the
executor in it and of the API server; then, with modelled times near zero, the wall time per step. Shorter
modelled steps than that show the machine, not the model. Clients read raw sockets, so that they cost little,
but they and everything else share the cores.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from backend_patch.emulator.device import DeviceReport
from backend_patch.emulator.launch import LaunchOptions
from backend_patch.emulator.serve import EmulatedServer
from tests.vllm.tiny_model import write_tiny_model

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
MODEL = "emulated"
UNMODELLED = 10_000.0
"""Speed at which the model's times no longer matter."""


@dataclass(frozen=True)
class Spent:
    report: DeviceReport
    api_cpu_s: float
    wall_s: float


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--running", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--stream-interval", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--patch", action="store_true")
    args = parser.parse_args()
    print("speed interval running   step  engine executor   api (ms)  late  behind_s")
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_model(Path(folder))
        for interval in args.stream_interval:
            for speed in (1.0, UNMODELLED):
                options = LaunchOptions(
                    port=0,
                    served_model_name=MODEL,
                    kv_tokens=262_144,
                    stream_interval=interval,
                    speed=speed,
                    patch=args.patch,
                )
                with EmulatedServer(Path(folder), options) as server:
                    for running in args.running:
                        _row(server, speed, interval, running, args.tokens)


def _row(server: EmulatedServer, speed: float, interval: int, running: int, tokens: int) -> None:
    asyncio.run(_crowd(server.url, running, 20))  # warm
    before = _spent(server)
    asyncio.run(_crowd(server.url, running, tokens))
    after = _spent(server)
    steps = after.report.steps - before.report.steps

    def per_step(later: float, earlier: float) -> float:
        return 1000 * (later - earlier) / steps

    a, b = after.report, before.report
    print(
        f"{speed:5.0f} {interval:8d} {running:7d} "
        f"{per_step(after.wall_s, before.wall_s):6.2f} {per_step(a.engine_cpu_s, b.engine_cpu_s):7.2f} "
        f"{per_step(a.executor_cpu_s, b.executor_cpu_s):8.3f} {per_step(after.api_cpu_s, before.api_cpu_s):7.2f} "
        f"{a.late_steps - b.late_steps:9d} {a.behind_s - b.behind_s:9.2f}",
        flush=True,
    )


def _spent(server: EmulatedServer) -> Spent:
    wall_s = time.monotonic()
    time.sleep(0.3)
    report = server.report()
    assert report is not None
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return Spent(report, (int(fields[11]) + int(fields[12])) * TICK_S, wall_s)


async def _crowd(url: str, running: int, tokens: int) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(running):
            group.create_task(_stream(url, number, tokens))


async def _stream(url: str, number: int, tokens: int) -> None:
    host, port = url.removeprefix("http://").split(":")
    body = {"model": MODEL, "prompt": [300 + number, 5, 6, 7], "stream": True}
    body |= {"max_tokens": tokens, "ignore_eos": True}
    content = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + content)
    answer = b""
    while part := await reader.read(1 << 16):
        answer = (answer + part)[-200:]
    assert b"[DONE]" in answer, answer
    writer.close()
    await writer.wait_closed()


if __name__ == "__main__":
    main()
